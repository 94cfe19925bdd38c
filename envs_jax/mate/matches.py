"""Matches between scripted players: whole episodes of many worlds, one number per episode.

Source of the figures: specification, sections 8 and 21.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.mate.params import Params, Rules
from envs_jax.mate.players import Player
from envs_jax.mate.state import Noise, State
from envs_jax.mate.transition import transition

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
    cameras: Any
    targets: Any
    sums: Match
    active: jax.Array


def play(
    key: jax.Array, starts: State, cameras: Player, targets: Player, params: Params, rules: Rules, frames: int
) -> tuple[Match, Any]:
    """Play all `starts` (leaves [episodes, ...]) at once to their ends, at most `frames` frames; jittable.

    Returns:
        What became of them [episodes], and the memories of the cameras after their last frame.
    """
    episodes = starts.steps.shape[0]
    zero = jnp.zeros((), params.max_team_reward.dtype)

    def drawn(player: Player, key: jax.Array) -> Any:
        return player.draw(jax.random.bits(key, (player.num_words(rules),), jnp.uint32), rules)

    def begin(key: jax.Array, state: State) -> _World:
        key_cameras, key_targets = jax.random.split(key)
        return _World(
            state,
            cameras.start(drawn(cameras, key_cameras), state, params),
            targets.start(drawn(targets, key_targets), state, params),
            Match(*[zero] * len(Match._fields)),
            jnp.ones((), bool),
        )

    def frame(world: _World, key: jax.Array) -> _World:
        key_noise, key_cameras, key_targets = jax.random.split(key, 3)
        state = world.state
        camera_memory, turn = cameras.act(world.cameras, state, drawn(cameras, key_cameras), params)
        target_memory, move = targets.act(world.targets, state, drawn(targets, key_targets), params)
        state, brought = transition(state, turn, move, draw_noise(key_noise, params, rules), params, rules)
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
        after = _World(state, camera_memory, target_memory, sums, goes_on)
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
    ), worlds.cameras
