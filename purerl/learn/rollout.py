"""Vectorised stepping of B environments with auto-reset, and counts of the episodes that end on the way."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.base import FRAMES, Environment, restarted, traced_once
from purerl.learn import sharding, signals


@struct.dataclass
class Worlds:
    """B environments between two steps (agent-axis environments: obs [B, A, d])."""

    state: Any
    obs: jax.Array
    carry: Any
    """Recurrent state of the policy, [B, A, ...] leaves."""
    running: dict[str, jax.Array]
    """[B] sums over the unfinished episode: `return` and the columns of the environment."""
    recent: signals.Recent | None = None
    """Last values of the scalar of `info` that the learner follows; None: it follows none."""


class Facts(NamedTuple):
    """What an environment tells of its state beside the observation; None where it has no such function."""

    legal: Any = None
    """Action mask, bool [B, A, n]."""
    alive: Any = None
    """Agents that act, bool [B, A]."""
    global_state: Any = None
    """[B, s]"""


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
    facts: Facts
    """Before the step."""
    final_facts: Facts
    """After the step, before a reset."""
    frames: jax.Array | None = None
    """[T, B] that the steps took; None where every step is one frame."""
    signal: signals.Signal | None = None
    """The scalar of `info` that the learner follows; None: it follows none."""
    inner: Any = None
    """`info[INNER]`: what was decided inside of the steps, leaves [T, B, ...]; None: nothing."""


class Tally(NamedTuple):
    """Counts of a roll-out, and of the episodes that ended in it; `tally_metrics` says them as metrics."""

    total: dict[str, jax.Array]
    """Sums over the episodes that ended: divide by `episodes` for means."""
    episodes: jax.Array
    return_min: jax.Array
    """Smallest return of the episodes that ended, over all agents together; +inf where none did."""
    return_max: jax.Array
    """-inf where no episode ended."""
    agent_steps: jax.Array
    """Steps of agents that act: those `alive`, or all."""
    frames: jax.Array | None = None
    """That the steps took; None where every step is one frame."""


INNER = "inner_steps"
"""Entry of `info`: the steps of decisions inside of a step, `Steps` [frames, A, ...] (`purerl.learn.two_levels`)."""

Act = Callable[[Worlds, Any], tuple[jax.Array, Any, Any]]
"""`(worlds, noise) -> (action [B, A, ...], next carry, extra)`."""
Draw = Callable[[jax.Array], Any]
"""`key -> noise` of one step, independent of the worlds."""

RESETS_AHEAD_BYTES = 64 * 2**20
"""Roll-outs whose resets need more memory than this draw them step by step."""


def start_worlds(
    env: Environment, params, key: jax.Array, num_envs: int, carry, followed: signals.Followed | None = None
) -> Worlds:
    """B fresh episodes; `carry` is the policy's empty memory, `followed` as for `collect`."""
    obs, state = jax.vmap(traced_once(env.reset_env), (0, None))(jax.random.split(key, num_envs), params)
    zeros = jnp.zeros((num_envs,))
    recent = None if followed is None else signals.nothing_yet(followed, num_envs)
    return Worlds(state, obs, carry, dict.fromkeys(_running_names(env), zeros), recent)


def facts_of(env: Environment, params, state) -> Facts:
    """Facts of B states."""

    def ask(function):
        return None if function is None else jax.vmap(function, (0, None))(state, params)

    return Facts(ask(env.action_mask), ask(env.alive), ask(env.global_state))


def collect(
    env: Environment, params, worlds: Worlds, act: Act, draw: Draw, key: jax.Array, num_steps: int,
    shared: bool = False, whole_episodes: bool = False, reward_scale: float = 1.0,
    followed: signals.Followed | None = None,
) -> tuple[Worlds, Steps, Tally]:  # fmt: skip
    """Step all environments `num_steps` times; recurrent memory is emptied where an episode ends.

    Random numbers and resets of all steps are drawn before the loop: inside it they would be many small computations,
    which on a CPU took most of a short roll-out's time.

    Differentiable in what `act` closes over where `env` is: a reset owes nothing to the actions before it, so no
    gradient passes an auto-reset, while `final_obs` and the rewards before it keep theirs.

    Args:
        shared: devices that share a batch step their own share of the environments, and what comes back is that share:
            worlds [B / devices, ...], steps [T, B / devices, ...] and their tally. `worlds` is given whole, and the
            numbers are those of one device.
        whole_episodes: all worlds are at the start of an episode and `num_steps` is one episode of
            `env.episode_length`: one reset for each instead of one at every step.
        reward_scale: the rewards of the steps are those of the environment times this; the tally is not scaled.
        followed: the scalar of `info` that the steps keep, as `start_worlds` was told.
    """
    num_envs = worlds.obs.shape[0]
    key_once = None
    if whole_episodes:
        key, key_once = jax.random.split(key)
    pair = jax.vmap(lambda key: tuple(jax.random.split(key)))
    key_act, key_env = pair(jax.random.split(key, num_steps))
    noise = jax.vmap(draw)(key_act)
    key_step, key_reset = jax.vmap(lambda key: pair(jax.random.split(key, num_envs)))(key_env)
    key_once = None if key_once is None else jax.random.split(key_once, num_envs)
    if shared:
        worlds, key_once = jax.tree.map(sharding.own_share, (worlds, key_once))
        noise, key_step, key_reset = jax.tree.map(lambda x: sharding.own_share(x, 1), (noise, key_step, key_reset))
    reset = jax.vmap(traced_once(env.reset_env), (0, None))
    step = jax.vmap(traced_once(env.step_env), (0, 0, 0, None))
    fresh_of: Callable[[Any], Any]
    restarts: Any
    if key_once is not None:
        once = reset(key_once, params)
        fresh_of, restarts = (lambda _: once), jnp.zeros((num_steps, 0))
    elif _bytes(jax.eval_shape(lambda keys: reset(keys[0], params), key_reset)) * num_steps <= RESETS_AHEAD_BYTES:
        fresh_of, restarts = (lambda start: start), jax.vmap(reset, (0, None))(key_reset, params)
    else:
        kind, restarts = jax.random.key_impl(key_reset), jax.random.key_data(key_reset)
        fresh_of = lambda numbers: reset(jax.random.wrap_key_data(numbers, impl=kind), params)  # noqa: E731

    def body(worlds, key_step, inputs):
        noise, restart = inputs
        action, carry, extra = act(worlds, noise)
        final_obs, state_next, reward, terminated, truncated, info = step(key_step, worlds.state, action, params)
        done = terminated | truncated
        obs, state = jax.vmap(restarted)(done, fresh_of(restart), (final_obs, state_next))
        before, after = facts_of(env, params, worlds.state), facts_of(env, params, state_next)
        running, shown = _after_step(env, worlds.running, jnp.sum(reward, axis=1), info)
        learned = reward if reward_scale == 1 else reward_scale * reward
        frames = info[FRAMES].astype(jnp.float32) if FRAMES in info else None
        signal, recent = None, None
        if followed is not None:
            signal = signals.around(worlds.recent, info[followed.name])
            recent = worlds.recent.after(signal.after, done)
        steps = Steps(
            worlds.obs,
            action,
            learned,
            terminated,
            truncated,
            final_obs,
            extra,
            before,
            after,
            frames,
            signal,
            info.get(INNER),
        )
        worlds = Worlds(
            state,
            obs,
            jax.tree.map(lambda x: jnp.where(done.reshape(-1, *[1] * (x.ndim - 1)), 0, x), carry),
            {name: jnp.where(done, 0.0, total) for name, total in running.items()},
            recent,
        )
        return worlds, (steps, shown)

    worlds, (steps, running) = scan_with_keys(body, worlds, key_step, (noise, restarts))
    return worlds, steps, tally_of(steps, running)


LENGTH = "/steps"
"""Of the running numbers: steps of the unfinished episode, counted where a column is a mean over them."""


def _running_names(env: Environment) -> list[str]:
    columns = env.assessment.columns
    is_mean = any(column.reduction == "mean" for column in columns.values())
    return ["return", *columns, *[LENGTH] * is_mean]


def _after_step(env: Environment, running: dict[str, jax.Array], team_reward: jax.Array, info) -> tuple[dict, dict]:
    """The running numbers [B] after a step, and what they would show of an episode that ended there."""
    columns = env.assessment.columns
    gains = {"return": team_reward, **{name: info[column.source] for name, column in columns.items()}}
    after = {
        name: gains[name].astype(total.dtype)
        if name in columns and columns[name].reduction == "last"
        else total + gains.get(name, 1.0)
        for name, total in running.items()
    }
    shown = {
        name: value / after[LENGTH] if name in columns and columns[name].reduction == "mean" else value
        for name, value in after.items()
        if name != LENGTH
    }
    return after, shown


def tally_of(steps: Steps, running: dict[str, jax.Array]) -> Tally:
    """Tally of recorded steps; `running` [T, B] is what every unfinished episode would show after each step."""
    done = steps.terminated | steps.truncated
    alive = steps.facts.alive
    return Tally(
        total={name: jnp.sum(jnp.where(done, total, 0.0)) for name, total in running.items()},
        episodes=jnp.sum(done),
        return_min=jnp.min(jnp.where(done, running["return"], jnp.inf)),
        return_max=jnp.max(jnp.where(done, running["return"], -jnp.inf)),
        agent_steps=jnp.asarray(steps.reward.size, jnp.int32) if alive is None else jnp.sum(alive, dtype=jnp.int32),
        frames=None if steps.frames is None else jnp.sum(steps.frames),
    )


def scan_with_keys(body: Callable[..., tuple[Any, Any]], carry: Any, keys: jax.Array, xs: Any = None):
    """`lax.scan` of `body(carry, key, x)` over keys [n, ...] and leaves [n, ...].

    The loop gets the keys as plain numbers: `vmap` moves their axis, which JAX's check of key reuse takes for a use.
    """
    kind = jax.random.key_impl(keys)

    def step(carry, inputs):
        numbers, x = inputs
        return body(carry, jax.random.wrap_key_data(numbers, impl=kind), x)

    return jax.lax.scan(step, carry, (jax.random.key_data(keys), xs))


def _bytes(shapes: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def tally_over_shares(tally: Tally) -> Tally:
    """The tally of all devices that share a batch, from that of each."""
    counts = tally.total, tally.episodes, tally.agent_steps, tally.frames
    total, episodes, agent_steps, frames = sharding.sum_over_shares(counts)
    negative_min, return_max = sharding.max_over_shares((-tally.return_min, tally.return_max))
    return Tally(total, episodes, -negative_min, return_max, agent_steps, frames)


def tally_metrics(tally: Tally) -> dict[str, jax.Array]:
    """Metrics `episode/<name>`, means over the episodes that ended, `episode/return_min`, `episode/return_max`,
    `agent_steps` and, where steps take several, `frames`. Those of episodes are zero where none ended (see
    `episode/count`)."""
    some = tally.episodes > 0
    means = {f"episode/{name}": total / jnp.maximum(tally.episodes, 1) for name, total in tally.total.items()}
    return {
        **means,
        "episode/return_min": jnp.where(some, tally.return_min, 0.0),
        "episode/return_max": jnp.where(some, tally.return_max, 0.0),
        "episode/count": tally.episodes,
        "agent_steps": tally.agent_steps,
        **({} if tally.frames is None else {"frames": tally.frames}),
    }
