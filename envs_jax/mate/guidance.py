"""Rules for learners: the yardsticks that have no memory, as actions of an environment.

Reading order: `guidance_of`, rules of cameras, the one of targets. Yardsticks with a memory (scripted players,
assignments that are held) are played by `matches`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from envs_jax import selections
from envs_jax.base import Guidance, Rule
from envs_jax.mate import actions, baselines, macro
from envs_jax.mate.game import Game, GameParams
from envs_jax.mate.params import WAREHOUSES, Params
from envs_jax.mate.state import NO_GOAL, State
from envs_jax.mate.teams import Setup

Motion = Callable[[jax.Array, State, Params], jax.Array]
"""`(key, state, params)`: what a team does in a frame, (N, 2)."""


def guidance_of(setup: Setup) -> Guidance:
    """All rules that can be said in the actions of an environment; none where both teams learn."""
    match setup.learner:
        case "cameras" if setup.control == "macro":
            return Guidance({name: _selecting(select, setup) for name, select in baselines.SELECTIONS.items()})
        case "cameras":
            motions = {name: executed(select) for name, select in baselines.SELECTIONS.items()}
            motions["privileged"] = baselines.privileged_action
            return Guidance({name: _moving(motion, setup) for name, motion in motions.items()})
        case "targets":
            return Guidance({"straight": _moving(straight, setup)})
        case "both":
            return Guidance()


def _selecting(select: baselines.Selection, setup: Setup) -> Rule:
    def rule(key: jax.Array, game: Game, params: GameParams) -> jax.Array:
        return selections.from_subset(setup.encoding, select(key, game.world, params.world))

    return rule


def _moving(motion: Motion, setup: Setup) -> Rule:
    """In the actions of the environment: as it is, or the nearest of the grid."""

    def rule(key: jax.Array, game: Game, params: GameParams) -> jax.Array:
        moved, world = motion(key, game.world, params.world), params.world
        if setup.control == "continuous":
            return moved
        if setup.learner == "targets":
            return nearest(moved / game.world.layout.step_size[:, None], actions.disc_grid(setup.levels))
        largest = jnp.stack([world.camera_rotation_step_deg, world.camera_zooming_step_deg])
        return nearest(moved / largest, actions.grid(setup.levels))

    return rule


def nearest(motion, grid):
    """Index of the point of a grid [n, 2] that is nearest to each of (N, 2), (N,) int32."""
    return jnp.argmin(jnp.sum((motion[:, None] - grid) ** 2, axis=-1), axis=1).astype(jnp.int32)


def executed(select: baselines.Selection) -> Motion:
    """What the executor makes of a selection that is chosen anew in every frame."""

    def motion(key: jax.Array, state: State, params: Params) -> jax.Array:
        return macro.executor(select(key, state, params), state, params)

    return motion


def straight(key: jax.Array, state: State, params: Params) -> jax.Array:
    """Targets go straight to their goal, or to the nearest warehouse that they have not seen empty; else they stay."""
    away = jnp.asarray(WAREHOUSES, state.target_loc.dtype) - state.target_loc[:, None]
    distance = jnp.sqrt(jnp.sum(away**2, axis=-1))
    open_ = jnp.where(state.empty_bits, jnp.inf, distance)
    goal = jnp.where(state.goal == NO_GOAL, jnp.argmin(open_, axis=1), state.goal)[:, None]
    way = jnp.take_along_axis(away, goal[..., None], axis=1)[:, 0]
    length = jnp.take_along_axis(distance, goal, axis=1)
    step = state.layout.step_size[:, None]
    nowhere = (state.goal == NO_GOAL) & jnp.all(state.empty_bits, axis=1)
    return jnp.where(nowhere[:, None], 0.0, way * step / jnp.maximum(length, step))
