"""`check_env`: does an environment keep the contract of `envs_jax.base`?"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Environment, Params, traced_once
from envs_jax.spaces import Box, Product, Space, mask_shape, matched

_BATCH = 3
_BATCH_STEPS = 5


def check_env(env: Environment, params: Params = None, key: jax.Array | None = None, steps: int | None = None) -> None:
    """Play `steps` random steps (default: one step beyond the longest episode, at most 1100) and check every one.

    Checked: shapes and dtypes, observation in its space, every number finite, two boolean flags, final observation, one
    trace, unchanged and strong state dtypes, fixed episode length, reset at episode ends, `vmap` equals a loop.

    Raises:
        AssertionError: the first breach of the contract, in words.
    """
    params = env.default_params if params is None else params
    key = jax.random.key(0) if key is None else key
    steps = min(env.max_episode_length, 1099) + 1 if steps is None else steps
    key_reset, key_episode, key_batch = jax.random.split(key, 3)
    # Most of what a check costs is tracing, and below the same two functions are traced again and again.
    env = dataclasses.replace(env, reset_env=traced_once(env.reset_env), step_env=traced_once(env.step_env))

    obs, state = env.reset(key_reset, params)
    _check_observation(env, params, obs)
    _check_types(env, params, state, obs)
    with jax.debug_key_reuse(False):  # comparing two ways to the same step means drawing the same numbers twice
        _check_episode(env, params, obs, state, key_episode, steps)
        _check_vmap(env, params, key_batch)


def _check_observation(env: Environment, params: Params, obs: Any) -> None:
    try:
        parts = matched(env.observation_space(params), obs)
    except ValueError as error:
        raise AssertionError(str(error)) from error
    for name, part, _ in parts if env.num_agents is not None else ():
        first = part.shape[:1]
        assert first == (env.num_agents,), f"first axis of {name} {part.shape} is not num_agents {env.num_agents}"
    for breach, holds in _observation_checks(env.observation_space(params), obs, "first ").items():
        _require(breach, holds)
    if env.entities is not None:
        told = env.entities.own + sum(kind.number * kind.size for kind in env.entities.kinds.values())
        found = np.shape(obs)[-1]
        assert told == found, f"entities: they tell of {told} numbers, an agent's observation has {found}"
    space = env.action_space(params)
    assert isinstance(space, Space), f"the action space is {type(space).__name__}, none of envs_jax.spaces"
    assert bool(space.contains(space.sample(jax.random.key(0)))), "a sampled action is outside the action space"


def _observation_checks(space: Any, obs: Any, which: str = "") -> dict[str, Any]:
    """Breach -> whether every number of the component is free of it."""
    checks = {}
    for name, part, value in matched(space, obs):
        checks[f"{which}{name} is not finite"] = jnp.isfinite(value)
        low, high = (part.low, part.high) if isinstance(part, Box) else (0, part.n - 1)
        checks[f"{which}{name} outside its space"] = (value >= low) & (value <= high)
    return checks


def _require(breach: str, holds: Any, when: str = "") -> None:
    """Say of a breach in which components it is."""
    wrong = np.argwhere(~np.asarray(holds))
    if len(wrong):
        where = f" at {wrong[0].tolist()}" if wrong.shape[1] else ""
        raise AssertionError(f"{breach}{where}{when}")


def _check_types(env: Environment, params: Params, state: Any, obs: Any) -> None:
    """Types of one step, by abstract evaluation: what a scan carry needs to compile once."""
    action = env.action_space(params).sample(jax.random.key(0))
    *_, reward, terminated, truncated, _ = jax.eval_shape(env.step_env, jax.random.key(0), state, action, params)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        assert flag.shape == () and flag.dtype == bool, f"{name} is {flag.dtype}{flag.shape}, not one boolean"
    obs_next, state_next, *_, info = jax.eval_shape(env.step, jax.random.key(0), state, action, params)
    _, state_traced = jax.eval_shape(env.reset, jax.random.key(0), params)
    for path, before in jax.tree_util.tree_leaves_with_path(state_traced):
        assert not before.weak_type, f"state leaf {jax.tree_util.keystr(path)} is weakly typed after reset"
    expected = [(x.shape, x.dtype) for x in jax.tree.leaves((obs, state_traced))]
    before_step, after_step = (str(jax.tree.structure(tree)) for tree in (state_traced, state_next))
    assert before_step == after_step, f"step changes the state's structure: {before_step} to {after_step}"
    got = [(x.shape, x.dtype) for x in jax.tree.leaves((obs_next, state_next))]
    assert got == expected, f"step changes shapes or dtypes: {expected} to {got}"
    reward_shape = () if env.num_agents is None else (env.num_agents,)
    assert reward.shape == reward_shape, f"reward shape {reward.shape} is not {reward_shape}"
    assert jnp.issubdtype(reward.dtype, jnp.floating), f"reward dtype {reward.dtype} is not real"
    assert "final_observation" in info, "info has no final_observation"
    # A shape error of a rule would otherwise surface only inside a training or recording program.
    guidance = env.guidance
    optional = {} if guidance.guided_action is None else {"guided_action": guidance.guided_action}
    for name, rule in {**optional, **guidance.rules}.items():
        chosen = jax.eval_shape(rule, jax.random.key(0), state, params)
        assert jax.tree.map(jnp.shape, chosen) == jax.tree.map(jnp.shape, action), f"{name}: wrong shape"
    if env.action_mask is not None:
        mask = jax.eval_shape(env.action_mask, state, params)
        assert all(m.dtype == bool for m in jax.tree.leaves(mask)), f"action_mask is {mask}, not boolean"
        space = env.action_space(params)
        parts, masks = (space.parts, mask) if isinstance(space, Product) else ((space,), (mask,))
        for part, own in zip(parts, masks, strict=True):
            wanted = mask_shape(part)
            assert own is None or own.shape == wanted, f"action_mask shape {own.shape} is not the space's {wanted}"
    if env.alive is not None:
        alive = jax.eval_shape(env.alive, state, params)
        assert (alive.shape, alive.dtype) == ((env.num_agents,), bool), f"alive is {alive}, not boolean per agent"


def _check_episode(env: Environment, params: Params, obs: Any, state: Any, key: jax.Array, steps: int) -> None:
    space, action_space = env.observation_space(params), env.action_space(params)

    traces: list[list[str]] = []
    """The breaches that every trace looks for."""

    @jax.jit
    def advance(key, state):
        key_action, key_step = jax.random.split(key)
        action = action_space.sample(key_action)
        obs, state_new, reward, terminated, truncated, info = env.step(key_step, state, action, params)
        # The keys `step` derives, to compare its reset and its final observation with the parts it is made of.
        key_inner, key_reset = jax.random.split(key_step)
        obs_inner = env.step_env(key_inner, state, action, params)[0]
        obs_reset, _ = env.reset_env(key_reset, params)
        final, done = info["final_observation"], terminated | truncated
        checks = {
            **_observation_checks(space, obs),
            **_observation_checks(space, final, "final_"),
            "final_observation is not the observation of step_env": _close(final, obs_inner),
            "observation after an episode end is not that of a reset": ~done | _close(obs, obs_reset),
            "observation is not that of step_env": done | _close(obs, obs_inner),
        }
        for path, x in jax.tree.leaves_with_path({"state": state_new, "reward": reward, "info": info}):
            if jnp.issubdtype(x.dtype, jnp.floating):
                name, *place = path
                checks[f"{name.key}{jax.tree_util.keystr(tuple(place))} is not finite"] = jnp.isfinite(x)
        traces.append(list(checks))
        # Whether all is well in one small array: it is looked at after every step, the places only where it is not.
        return state_new, done, jnp.stack([jnp.all(holds) for holds in checks.values()]), tuple(checks.values())

    length = 0
    for step, step_key in enumerate(jax.random.split(key, steps)):
        state, done, fine, places = advance(step_key, state)
        for index in np.flatnonzero(~np.asarray(fine)):
            _require(traces[-1][index], places[index], f" (step {step})")
        assert len(traces) == 1, f"step was traced again: its state changed type (step {step})"
        length += 1
        if env.episode_length is not None:
            assert bool(done) == (length == env.episode_length), f"episode of {length} steps, not {env.episode_length}"
        assert length <= env.max_episode_length, f"episode longer than max_episode_length {env.max_episode_length}"
        length = 0 if bool(done) else length


def _close(a: Any, b: Any) -> jax.Array:
    close = jax.tree.map(lambda x, y: jnp.allclose(x, y, rtol=1e-5, atol=1e-5), a, b)
    return jnp.all(jnp.stack(jax.tree.leaves(close)))


def _check_vmap(env: Environment, params: Params, key: jax.Array) -> None:
    # Keys and actions are drawn outside: what is compiled twice below is the environment alone.
    key_reset, key_action, key_step = jax.random.split(key, 3)
    shape = (_BATCH, _BATCH_STEPS)
    actions = jax.jit(jax.vmap(jax.vmap(env.action_space(params).sample)))(jax.random.split(key_action, shape))
    keys = jax.random.split(key_reset, _BATCH), jax.random.split(key_step, shape), actions

    def play(key_reset, key_steps, actions):
        obs, state = env.reset(key_reset, params)

        def body(state, x):
            obs, state, reward, *_ = env.step(x[0], state, x[1], params)
            return state, (obs, reward)

        _, history = jax.lax.scan(body, state, (key_steps, actions))
        return obs, history

    together = jax.jit(jax.vmap(play))(*keys)
    single = jax.jit(play)

    def alone_at(index):
        return single(*jax.tree.map(lambda x: x[index], keys))

    for index in range(_BATCH):
        for batch, alone in zip(jax.tree.leaves(together), jax.tree.leaves(alone_at(index)), strict=True):
            np.testing.assert_allclose(batch[index], alone, rtol=1e-4, atol=1e-5, err_msg="vmap differs from a loop")
