"""Decisions at two speeds in one world: a selection is held over several frames, and a fast level narrows it in each.

Reading order: `narrowed` and `open_to` (what the fast level chooses), `fast_view` (the world in its eyes), `Levels` and
`Held`, `held_world` (a step of the slow level as a scan of frames), `frames_of` (those frames as a roll-out of the fast
level).

The slow level acts as `Selection` says. Before every frame each agent of the fast level, which sees what is held beside
its observation, keeps all of it or looks at one of the selected entities alone. As a step of the slow level this is an
environment like any other, with the fast level's policy among its parameters (options in the sense of Sutton, Precup
and Singh 1999).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import FRAMES, Environment, Selection
from envs_jax.selections import from_subset, to_subset
from envs_jax.spaces import Box, Discrete
from purerl.learn.rollout import INNER, Facts, Steps
from purerl.learn.teams import Players


def open_to(held: jax.Array) -> jax.Array:
    """What the fast level may choose [..., T + 1], where bool [..., T] is held: one of that, or, last, all of it."""
    return jnp.concatenate([held, jnp.ones_like(held[..., :1])], axis=-1)


def narrowed(choice: jax.Array, held: jax.Array) -> jax.Array:
    """What is selected in a frame [..., T] by a choice of the fast level [...]."""
    count = held.shape[-1]
    return jnp.where((choice == count)[..., None], held, choice[..., None] == jnp.arange(count))


def with_held(obs: jax.Array, held: jax.Array) -> jax.Array:
    """What the fast level sees [..., T + d]."""
    return jnp.concatenate([held.astype(obs.dtype), obs], axis=-1)


def fast_view(env: Environment) -> Environment:
    """The world (with an agent axis) with the observations and actions of the fast level; it cannot be played.

    Raises:
        ValueError: its actions select nothing.
    """
    selection, entities = env.selection, env.entities
    if selection is None:
        raise ValueError(f"two levels: actions of {env.name} select no entities; use qplex")
    agents, size = env.observation_space(env.default_params).shape
    return dataclasses.replace(
        env,
        observation_space=lambda params: Box(-np.inf, np.inf, (agents, selection.number + size)),
        action_space=lambda params: Discrete(selection.number + 1, (agents,)),
        action_mask=None,
        entities=None if entities is None else entities._replace(own=selection.number + entities.own),
        selection=Selection("single", selection.number, selection.kind),
    )


class Levels(NamedTuple):
    """Parameters of the held world."""

    world: Any
    fast: Any
    """Of the fast level's agents."""
    epsilon: jax.Array
    """Share of its choices that are uniform."""


class Held(NamedTuple):
    """State of the held world."""

    world: Any
    obs: jax.Array
    """(A, d)"""
    memory: Any
    """Of the fast level."""


def held_world(env: Environment, fast: Players, frames: int) -> Environment:
    """The world (with an agent axis) of the slow level: an action is held for `frames` steps or until the episode ends.

    Rewards of a step are sums over its frames, and of the entries of `info` that columns of the log show, what those
    make of an episode; of the others the last. `info[INNER]` has the frames as `Steps` [frames, A, ...] of the fast
    level. In those after the end of an episode, which are not played, nobody is in play.
    """
    selection = env.selection
    assert selection is not None
    reductions = {column.source: column.reduction for column in env.assessment.columns.values()}

    def ask(function, state, params: Levels):
        return None if function is None else function(state, params.world)

    def in_play(state, params: Levels) -> jax.Array:
        return jnp.ones(fast.agents, bool) if env.alive is None else env.alive(state, params.world)

    def reset_env(key, params: Levels):
        obs, world = env.reset_env(key, params.world)
        return obs, Held(world, obs, fast.nets.utilities.empty_memory((fast.agents,)))

    def step_env(key, state: Held, action, params: Levels):
        held = to_subset(selection.encoding, action, selection.number)
        legal = open_to(held)

        def frame(carried, numbers):
            now, ended = carried
            key_act, key_step = (jax.random.wrap_key_data(own, impl=kind) for own in numbers)
            obs = with_held(now.obs, held)
            choice, memory, kept = fast.choose(
                params.fast, now.memory, obs, legal, params.epsilon, fast.draw(key_act, ())
            )
            doing = from_subset(selection.encoding, narrowed(choice, held))
            seen, world, reward, terminated, truncated, info = env.step_env(key_step, now.world, doing, params.world)
            step = Steps(
                obs=obs,
                action=choice,
                reward=jnp.where(ended, 0.0, reward),
                terminated=terminated & ~ended,
                truncated=truncated | ended,
                final_obs=with_held(seen, held),
                extra=kept,
                facts=Facts(legal, in_play(now.world, params) & ~ended, ask(env.global_state, now.world, params)),
                final_facts=Facts(legal, in_play(world, params), ask(env.global_state, world, params)),
                frames=info[FRAMES].astype(jnp.float32) if FRAMES in info else None,
            )
            following = jax.tree.map(lambda new, old: jnp.where(ended, old, new), Held(world, seen, memory), now)
            return (following, ended | terminated | truncated), (step, info, ~ended)

        # The loop gets keys as plain numbers, as in `rollout.scan_with_keys`.
        kind, numbers = jax.random.key_impl(key), jax.random.key_data(jax.random.split(key, (frames, 2)))
        start = state, jnp.zeros((), bool)
        (after, _), (steps, told, played) = jax.lax.scan(frame, start, numbers)
        last = jnp.sum(played) - 1
        info = {name: _reduced(reductions.get(name, "last"), x, played, last) for name, x in told.items()}
        count = played if steps.frames is None else played * steps.frames
        info |= {FRAMES: jnp.sum(count), INNER: steps}
        cut = jnp.any(steps.truncated & played)
        return after.obs, after, jnp.sum(steps.reward, axis=0), jnp.any(steps.terminated), cut, info

    def of_held(function):
        return None if function is None else lambda state, params: function(state.world, params.world)

    return dataclasses.replace(
        env,
        default_params=Levels(env.default_params, None, jnp.zeros(())),
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: env.observation_space(params.world),
        action_space=lambda params: env.action_space(params.world),
        max_episode_length=-(-env.max_episode_length // frames),
        episode_length=None,
        global_state=of_held(env.global_state),
        action_mask=of_held(env.action_mask),
        alive=of_held(env.alive),
    )


def _reduced(reduction: str, x: jax.Array, played: jax.Array, last: jax.Array) -> jax.Array:
    """Of an entry of `info` [frames, ...] over those that were played."""
    if reduction == "last":
        return x[last]
    total = jnp.sum(jnp.where(played.reshape(-1, *[1] * (x.ndim - 1)), x, 0), axis=0)
    return total / (last + 1) if reduction == "mean" else total


def frames_of(steps: Steps, reward_scale: float) -> Steps:
    """Of steps of the slow level [T, B, ...] the frames, as steps of the fast level [T * frames, B, ...]."""

    def one(x):
        x = jnp.swapaxes(x, 1, 2)
        return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    inner = jax.tree.map(one, steps.inner)
    return inner._replace(reward=reward_scale * inner.reward)
