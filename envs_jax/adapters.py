"""Adapters: an agent axis and flat spaces for all that learns, and gymnax tasks as `Environment`."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Environment, Guidance
from envs_jax.spaces import Box, Discrete, Product, Space, components, mask_shape, matched


def with_agent_axis(env: Environment) -> Environment:
    """The same world with an agent axis A (1 if it has none) and flat spaces: how every algorithm sees it.

    Observations are (A, d): all axes of an agent's in one, entries of a dict side by side in the order of their names,
    discrete ones as one-hot rows. Continuous actions are (A, k), one choice is (A,), several at once are (A, m) with
    masks (A, m, n); rewards are (A,). Termination and truncation stay scalars. Environments that are so already are
    returned unchanged.

    Raises:
        ValueError: an observation or action space that is none of `envs_jax.spaces`.
    """
    guidance, assessment = env.guidance, env.assessment
    alone, agents = env.num_agents is None, env.num_agents or 1
    seen, space = env.observation_space(env.default_params), env.action_space(env.default_params)
    flat = _flat_actions(env, space)
    if not alone and isinstance(seen, Box) and len(seen.shape) == 2 and _shapes(flat) == _shapes(space):
        return env

    def flat_space(params):
        return _flat_observations(env.observation_space(params), agents)

    flat_space(env.default_params)  # refuses here what could not be seen

    def seen_by_agents(obs):
        rows = [_row(part, value, agents) for _, part, value in matched(seen, obs)]
        return rows[0] if len(rows) == 1 else jnp.concatenate([row.astype(jnp.float32) for row in rows], axis=1)

    def start(result):
        return seen_by_agents(result[0]), result[1]

    def of_env(action):
        return _reshaped(action, space)

    def of_agents(action):
        return _reshaped(action, flat)

    def step_env(key, state, action, params):
        obs, state, reward, terminated, truncated, info = env.step_env(key, state, of_env(action), params)
        return seen_by_agents(obs), state, reward[None] if alone else reward, terminated, truncated, info

    def preview(obs, action, params):
        of_obs = guidance.preview
        assert of_obs is not None
        return of_obs(obs[0], of_env(action), params)[None] if alone else of_obs(obs, of_env(action), params)

    return dataclasses.replace(
        env,
        num_agents=agents,
        reset_env=_optional(env.reset_env, start),
        step_env=step_env,
        observation_space=flat_space,
        action_space=lambda params: _flat_actions(env, env.action_space(params)),
        action_mask=_optional(env.action_mask, lambda mask: _flat_masks(mask, flat)),
        guidance=Guidance(
            rules={name: _optional(rule, of_agents) for name, rule in guidance.rules.items()},
            guided_action=_optional(guidance.guided_action, of_agents),
            preview=None if guidance.preview is None else preview,
        ),
        assessment=assessment._replace(reset_case=_optional(assessment.reset_case, start)),
    )


def _optional(function: Callable[..., Any] | None, then: Callable[[Any], Any]) -> Any:
    """`then` after `function`, where the environment has that function."""
    return None if function is None else lambda *args: then(function(*args))


def _row(part: Box | Discrete, value: Any, agents: int) -> jax.Array:
    """One component of an observation, (A, ...)."""
    value = jax.nn.one_hot(value, part.n) if isinstance(part, Discrete) else value
    return value.reshape(agents, -1)


def _flat_observations(space: Any, agents: int) -> Box:
    def bounds(part: Box | Discrete) -> tuple[np.ndarray, np.ndarray]:
        shape = (*part.shape, part.n) if isinstance(part, Discrete) else part.shape
        low, high = (0.0, 1.0) if isinstance(part, Discrete) else (part.low, part.high)
        return np.broadcast_to(low, shape).reshape(agents, -1), np.broadcast_to(high, shape).reshape(agents, -1)

    low, high = (np.concatenate(each, axis=1) for each in zip(*(bounds(p) for _, p in components(space)), strict=True))
    return Box(low, high, low.shape)


def _flat_actions(env: Environment, space: Space) -> Any:
    """An action space whose parts have shape (A,) for one choice and (A, k) for everything else."""
    if isinstance(space, Product):
        return Product(tuple(_flat_actions(env, part) for part in space.parts))
    if not isinstance(space, Box | Discrete):
        raise ValueError(
            f"action_space of {env.name} is {type(space).__module__}.{type(space).__name__}; "
            "use Box, Discrete or Product of envs_jax.spaces"
        )
    own = space.shape if env.num_agents is None else space.shape[1:]
    agents, size = env.num_agents or 1, int(np.prod(own))
    if isinstance(space, Discrete):
        return Discrete(space.n, (agents, size) if own else (agents,))
    low, high = (np.broadcast_to(bound, space.shape).reshape(agents, size) for bound in (space.low, space.high))
    return Box(low, high, (agents, size))


def _shapes(space: Space) -> Any:
    return tuple(part.shape for part in space.parts) if isinstance(space, Product) else space.shape


def _reshaped(action: Any, space: Space) -> Any:
    """An action with the same numbers as an element of `space`."""
    if isinstance(space, Product):
        return tuple(_reshaped(value, part) for value, part in zip(action, space.parts, strict=True))
    return jnp.reshape(action, space.shape)


def _flat_masks(mask: Any, space: Space) -> Any:
    if isinstance(space, Product):
        return tuple(_flat_masks(value, part) for value, part in zip(mask, space.parts, strict=True))
    return None if mask is None else jnp.reshape(mask, mask_shape(space))


def gymnax_env(task: str, observed: Sequence[int] | None = None, **settings: Any) -> Environment:
    """A gymnax >= 1.0 task such as `Pendulum-v1`; `settings` replace fields of its parameters.

    Observations become float32 (discrete ones become one-hot vectors) and state leaves keep one strong dtype, so
    that a scan over steps compiles once.

    Args:
        observed: the components of the observation vector that the agent sees, in this order; None: all. Hiding the
            velocities of a mechanical task makes it partially observed.

    Raises:
        ValueError: unknown task or parameter (naming the nearest), a space that is not a box or discrete, or `observed`
            that does not fit the observation.
    """
    import gymnax  # Imported here: it costs seconds, and most runs never need it.

    if task not in gymnax.registered_envs:
        raise ValueError(f"unknown gymnax task '{task}'; {nearest(task, list(gymnax.registered_envs))}")
    env, default_params = gymnax.make(task)
    known = [field.name for field in dataclasses.fields(default_params)]
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"unknown parameter '{name}' of gymnax task '{task}'; {nearest(name, known)}")
        _require_like(f"{name} of gymnax task '{task}'", value, getattr(default_params, name))
    if env.supports_transition_gradients:
        env = env.with_transition_gradients()
    default_params = default_params.replace(**settings)
    max_steps = int(getattr(default_params, "max_steps_in_episode", 1000))
    if not 1 <= max_steps <= MOST_STEPS:
        raise ValueError(f"max_steps_in_episode = {max_steps} of gymnax task '{task}': must be from 1 to {MOST_STEPS}")

    def whole_space(params):
        space = _converted_space(env.observation_space, params)
        return space if isinstance(space, Box) else Box(0.0, 1.0, (space.n,))

    num_categories = getattr(env.observation_space(default_params), "n", None)
    seen = None if observed is None else _components(observed, whole_space(default_params).shape)

    def observation_space(params):
        space = whole_space(params)
        if seen is None:
            return space
        low, high = (np.broadcast_to(bound, space.shape)[seen] for bound in (space.low, space.high))
        return Box(low, high, seen.shape)

    def observation(obs):
        if num_categories is not None:
            obs = jax.nn.one_hot(obs, num_categories)
        obs = jnp.asarray(obs, jnp.float32)
        return obs if seen is None else obs[seen]

    def reset_env(key, params):
        obs, state = env.reset_env(key, params)
        return observation(obs), jax.tree.map(strong, state)

    def step_env(key, state, action, params):
        obs, state_next, reward, terminated, info = env.step_env(key, state, action, params)
        state_next = with_types_of(state, state_next)
        truncated = env.is_truncated(state_next, params)
        flags = [jnp.asarray(flag, bool).reshape(()) for flag in (terminated, truncated)]
        return observation(obs), state_next, jnp.asarray(reward, jnp.float32).reshape(()), *flags, info

    return Environment(
        name=f"gymnax:{task}",
        default_params=default_params,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=observation_space,
        action_space=lambda params: _converted_space(env.action_space, params),
        max_episode_length=max_steps,
        differentiable=env.supports_transition_gradients,
    )


MOST_STEPS = 10**6
"""Of an episode: evaluation keeps all of them."""


def _require_like(what: str, value: Any, default: Any) -> None:
    """Raise ValueError where a setting is not of its default's kind: a number, a flag, or as many of them."""
    if not isinstance(default, bool | int | float | np.ndarray | jax.Array):
        return
    is_flag, given = np.issubdtype(np.result_type(default), np.bool_), np.array(value, dtype=object)
    alike = all(isinstance(x, int | float) and isinstance(x, bool) == is_flag for x in given.reshape(-1))
    if given.shape != np.shape(default) or not alike:
        raise ValueError(f"{what} = {value!r}: must be like its default {default}")


def _components(observed: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`observed` as an array, checked against the shape of the observation."""
    if len(shape) != 1:
        raise ValueError(f"observed = {observed!r}: only vectors have components, this observation has shape {shape}")
    listed = list(observed) if isinstance(observed, Sequence) else []
    valid = all(type(i) is int and 0 <= i < shape[0] for i in listed)
    if not listed or not valid or len(set(listed)) != len(listed):
        raise ValueError(f"observed = {observed!r}: list different components from 0 to {shape[0] - 1}")
    return np.array(listed)


def strong(leaf: Any) -> jax.Array:
    """`leaf` without JAX's weak typing, which would change the type of a scan carry after one step."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def with_types_of(state: Any, after: Any) -> Any:
    """The state `after` a step with the types of the one before, for the same reason."""
    return jax.tree.map(lambda old, new: jnp.asarray(new, jnp.result_type(old)), state, after)


def _converted_space(space_of: Callable[[Any], Any], params: Any) -> Box | Discrete:
    with jax.ensure_compile_time_eval():  # bounds built from jnp arrays stay numbers when asked for inside a jit
        space = space_of(params)
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "low"):
        return Box(np.asarray(space.low, np.float32), np.asarray(space.high, np.float32), tuple(space.shape))
    raise ValueError(f"space {space!r} is neither a box nor discrete")


def nearest(name: str, valid: list[str]) -> str:
    """What to say of a name that is not among the valid ones."""
    matches = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"did you mean '{matches[0]}'?" if matches else f"valid names: {', '.join(valid)}"
