"""Matches between scripted players.

Reading order: `Match` and `play` (whole episodes of many worlds, one number per episode), `film` (one world, frame by
frame).

Source of the figures: specification, sections 8 and 21.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.mate.params import Params, Rules
from envs_jax.mate.players import Player
from envs_jax.mate.state import Metrics, Noise, State
from envs_jax.mate.transition import Frame, transition

EARLY_FRAMES = 500
"""Most targets carry something in these."""


def draw_noise(key: jax.Array, params: Params, rules: Rules) -> Noise:
    key_transmit, key_goal = jax.random.split(key)
    transmit = jax.random.bernoulli(key_transmit, params.transmittance, (rules.num_cameras, rules.num_targets))
    return Noise(transmit, jax.random.uniform(key_goal, (rules.num_targets,)))


class Match(NamedTuple):
    """One episode of a match, or with a leading axis many."""

    coverage_rate: jax.Array
    """Mean over its frames."""
    early_coverage_rate: jax.Array
    """Mean over its first `EARLY_FRAMES`."""
    real_coverage_rate: jax.Array
    """Mean over its frames."""
    mean_transport_rate: jax.Array
    """At its end."""
    num_delivered_cargoes: jax.Array
    episode_length: jax.Array
    camera_return: jax.Array
    """Sum of the cameras' team reward."""


class _World(NamedTuple):
    state: State
    memories: tuple[Any, Any]
    sums: Match
    active: jax.Array


class Teams(NamedTuple):
    cameras: Player
    targets: Player


def play(key: jax.Array, starts: State, teams: Teams, params: Params, rules: Rules, frames: int) -> tuple[Match, Any]:
    """Play all `starts` (leaves [episodes, ...]) at once to their ends, at most `frames` frames; jittable.

    Returns:
        What became of them [episodes], and the memories of the cameras after their last frame.
    """
    episodes = starts.steps.shape[0]
    zero = jnp.zeros((), params.max_team_reward.dtype)

    def begin(key: jax.Array, state: State) -> _World:
        memories = _memories(key, state, teams, params, rules)
        return _World(state, memories, Match(*[zero] * len(Match._fields)), jnp.ones((), bool))

    def frame(world: _World, key: jax.Array) -> _World:
        state, memories, brought = _frame(key, world.state, world.memories, teams, params, rules)
        seen, sums = brought.metrics, world.sums
        early = state.steps <= EARLY_FRAMES
        sums = Match(
            coverage_rate=sums.coverage_rate + seen.coverage_rate,
            early_coverage_rate=sums.early_coverage_rate + jnp.where(early, seen.coverage_rate, 0),
            real_coverage_rate=sums.real_coverage_rate + seen.real_coverage_rate,
            mean_transport_rate=seen.mean_transport_rate,
            num_delivered_cargoes=seen.num_delivered_cargoes,
            episode_length=sums.episode_length + 1,
            camera_return=sums.camera_return - brought.reward,
        )
        goes_on = world.active & ~(brought.terminated | brought.truncated)
        after = _World(state, memories, sums, goes_on)
        return jax.tree.map(lambda old, new: jnp.where(world.active, new, old), world, after)

    def every_world(carried: tuple[jax.Array, jax.Array, _World]) -> tuple[jax.Array, jax.Array, _World]:
        key, number, worlds = carried
        key, key_now = jax.random.split(key)
        return key, number + 1, jax.vmap(frame)(worlds, jax.random.split(key_now, episodes))

    def goes_on(carried: tuple[jax.Array, jax.Array, _World]) -> jax.Array:
        return jnp.any(carried[2].active) & (carried[1] < frames)

    key_start, key_play = jax.random.split(key)
    worlds = jax.vmap(begin)(jax.random.split(key_start, episodes), starts)
    _, _, worlds = jax.lax.while_loop(goes_on, every_world, (key_play, jnp.zeros((), jnp.int32), worlds))
    sums = worlds.sums
    length = jnp.maximum(sums.episode_length, 1)
    return sums._replace(
        coverage_rate=sums.coverage_rate / length,
        early_coverage_rate=sums.early_coverage_rate / jnp.minimum(length, EARLY_FRAMES),
        real_coverage_rate=sums.real_coverage_rate / length,
    ), worlds.memories[0]


def film(
    key: jax.Array, start: State, teams: Teams, params: Params, rules: Rules, frames: int
) -> tuple[State, Metrics]:
    """States before `frames` frames and the figures after them, leaves [frames, ...]; also beyond the episode's end."""

    def frame(carried: tuple[State, Any], key: jax.Array) -> tuple[tuple[State, Any], tuple[State, Metrics]]:
        state, memories, brought = _frame(key, *carried, teams, params, rules)
        return (state, memories), (carried[0], brought.metrics)

    key_start, key_play = jax.random.split(key)
    memories = _memories(key_start, start, teams, params, rules)
    return jax.lax.scan(frame, (start, memories), jax.random.split(key_play, frames))[1]


def _memories(key: jax.Array, state: State, teams: Teams, params: Params, rules: Rules) -> tuple[Any, Any]:
    """Of both teams at the start of an episode."""
    keys = jax.random.split(key)
    each = zip(teams, keys, strict=True)
    cameras, targets = (player.start(_drawn(player, key, rules), state, params) for player, key in each)
    return cameras, targets


def _frame(
    key: jax.Array, state: State, memories: tuple[Any, Any], teams: Teams, params: Params, rules: Rules
) -> tuple[State, tuple[Any, Any], Frame]:
    key_noise, *keys = jax.random.split(key, 3)
    each = zip(teams, memories, keys, strict=True)
    (cameras, turn), (targets, move) = (
        player.act(memory, state, _drawn(player, key, rules), params) for player, memory, key in each
    )
    state, brought = transition(state, turn, move, draw_noise(key_noise, params, rules), params, rules)
    return state, (cameras, targets), brought


def _drawn(player: Player, key: jax.Array, rules: Rules) -> Any:
    return player.draw(jax.random.bits(key, (player.num_words(rules),), jnp.uint32), rules)
