"""Vectorised stepping of B environments with auto-reset, and statistics of the episodes that end on the way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.base import Environment


@struct.dataclass
class Worlds:
    """B environments between two steps (agent-axis environments: obs [B, A, d])."""

    state: Any
    obs: jax.Array
    carry: Any
    """Recurrent state of the policy, [B, A, ...] leaves."""
    running: dict[str, jax.Array]
    """[B] sums over the unfinished episode: `return` and the environment's `episode_sums`."""


class Steps(NamedTuple):
    """Recorded steps, time first: [T, B, ...]."""

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final_obs: jax.Array
    """Observation after the step, before a reset."""
    extra: Any
    """What the acting function returns beside the action."""


class EpisodeSums(NamedTuple):
    """Sums over the episodes that ended: divide by `episodes` for means."""

    total: dict[str, jax.Array]
    episodes: jax.Array


Act = Callable[[Worlds, jax.Array], tuple[jax.Array, Any, Any]]
"""`(worlds, key) -> (action [B, A, ...], next carry, extra)`."""


def start_worlds(env: Environment, params, key: jax.Array, num_envs: int, carry) -> Worlds:
    """B fresh episodes; `carry` is the policy's empty memory."""
    obs, state = jax.vmap(env.reset_env, (0, None))(jax.random.split(key, num_envs), params)
    zeros = jnp.zeros((num_envs,))
    return Worlds(state, obs, carry, dict.fromkeys(("return", *env.episode_sums), zeros))


def collect(
    env: Environment, params, worlds: Worlds, act: Act, key: jax.Array, num_steps: int
) -> tuple[Worlds, Steps, EpisodeSums]:
    """Step all environments `num_steps` times; recurrent memory is emptied where an episode ends."""
    num_envs = worlds.obs.shape[0]

    def body(worlds, key):
        key_act, key_env = jax.random.split(key)
        action, carry, extra = act(worlds, key_act)
        obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
            jax.random.split(key_env, num_envs), worlds.state, action, params
        )
        done = terminated | truncated
        gains = {"return": jnp.sum(reward, axis=1), **{name: info[source] for name, source in env.episode_sums.items()}}
        running = {name: total + gains[name] for name, total in worlds.running.items()}
        ended = {name: jnp.sum(jnp.where(done, total, 0.0)) for name, total in running.items()}
        steps = Steps(worlds.obs, action, reward, terminated, truncated, info["final_observation"], extra)
        worlds = Worlds(
            state,
            obs,
            jax.tree.map(lambda x: jnp.where(done.reshape(-1, *[1] * (x.ndim - 1)), 0, x), carry),
            {name: jnp.where(done, 0.0, total) for name, total in running.items()},
        )
        return worlds, (steps, ended, jnp.sum(done))

    worlds, (steps, ended, count) = jax.lax.scan(body, worlds, jax.random.split(key, num_steps))
    return worlds, steps, EpisodeSums({name: jnp.sum(x) for name, x in ended.items()}, jnp.sum(count))


def episode_means(sums: EpisodeSums) -> dict[str, jax.Array]:
    """Metrics `episode/<name>`: means over the episodes that ended; zero where none did (see `episode/count`)."""
    count = jnp.maximum(sums.episodes, 1)
    means = {f"episode/{name}": total / count for name, total in sums.total.items()}
    return {**means, "episode/count": sums.episodes}
