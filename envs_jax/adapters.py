"""Adapters: an agent axis for single-agent environments, and gymnax tasks as `Environment`."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete, Product, Space


def with_agent_axis(env: Environment) -> Environment:
    """The same world with one agent: obs (1, d) flattened, action (1, ...), reward (1,), action mask (1, n).

    Termination and truncation stay scalars. Environments that already have agents are returned unchanged.
    """
    if env.num_agents is not None:
        return env

    def reset_env(key, params):
        obs, state = env.reset_env(key, params)
        return _add_agent(obs), state

    def step_env(key, state, action, params):
        obs, state, reward, terminated, truncated, info = env.step_env(key, state, _first(action), params)
        return _add_agent(obs), state, reward[None], terminated, truncated, info

    return dataclasses.replace(
        env,
        num_agents=1,
        reset_env=reset_env,
        step_env=step_env,
        reset_case=_optional(env.reset_case, lambda start: (_add_agent(start[0]), start[1])),
        observation_space=lambda params: _flat_space(env.observation_space(params)),
        action_space=lambda params: _space_with_agent(env.action_space(params)),
        action_mask=_optional(env.action_mask, _add_axis),
        preview=_for_agent(env.preview),
        guided_action=_optional(env.guided_action, _add_axis),
        rules={name: _optional(rule, _add_axis) for name, rule in env.rules.items()},
    )


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


def _add_axis(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[None], tree)


def _for_agent(preview: Callable[..., Any] | None) -> Callable[..., Any] | None:
    return None if preview is None else lambda obs, action, params: preview(obs[0], action[0], params)[None]


def _optional(function: Callable[..., Any] | None, then: Callable[[Any], Any]) -> Any:
    """`then` after `function`, where the environment has that function."""
    return None if function is None else lambda *args: then(function(*args))


def _add_agent(obs: jax.Array) -> jax.Array:
    return obs.reshape(1, -1)


def _flat_space(space: Box) -> Box:
    size = int(np.prod(space.shape))
    low, high = (np.broadcast_to(bound, space.shape).reshape(1, size) for bound in (space.low, space.high))
    return Box(low, high, (1, size))


def _space_with_agent(space: Space) -> Any:
    if isinstance(space, Product):
        return Product(tuple(_space_with_agent(part) for part in space.parts))
    if isinstance(space, Discrete):
        return Discrete(space.n, (1, *space.shape))
    low, high = (np.broadcast_to(bound, space.shape)[None] for bound in (space.low, space.high))
    return Box(low, high, (1, *space.shape))


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
        raise ValueError(f"unknown gymnax task '{task}'; {_nearest(task, list(gymnax.registered_envs))}")
    env, default_params = gymnax.make(task)
    known = [field.name for field in dataclasses.fields(default_params)]
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"unknown parameter '{name}' of gymnax task '{task}'; {_nearest(name, known)}")
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
        return observation(obs), jax.tree.map(_strong, state)

    def step_env(key, state, action, params):
        obs, state_next, reward, terminated, info = env.step_env(key, state, action, params)
        state_next = jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), state_next, state)
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


def _strong(leaf: Any) -> jax.Array:
    """`leaf` without JAX's weak typing, which would change the type of a scan carry after one step."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _converted_space(space_of: Callable[[Any], Any], params: Any) -> Box | Discrete:
    with jax.ensure_compile_time_eval():  # bounds built from jnp arrays stay numbers when asked for inside a jit
        space = space_of(params)
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if hasattr(space, "low"):
        return Box(np.asarray(space.low, np.float32), np.asarray(space.high, np.float32), tuple(space.shape))
    raise ValueError(f"space {space!r} is neither a box nor discrete")


def _nearest(name: str, valid: list[str]) -> str:
    matches = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"did you mean '{matches[0]}'?" if matches else f"valid names: {', '.join(valid)}"
