"""Heuristic cameras: one controller turns all cameras to the poses that are worth most together.

Reading order: `Table` (what a pose is worth to a target), `worth_of_poses` now, `best_poses`, then the player.

Source: specification, section 15. A pose is one of 36 orientations and 21 viewing angles, a target stands on one of 72
bearings and 41 distances. What a pose is worth depends on the angle between both alone, so the table has 72 x 41 x 21
entries instead of a row of 756 poses for each of 2,952 points. One world at a time: under `vmap`, not with the batch
last.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.mate.camera_players import Idle, draw_idle, idle_action, limits, num_words_idle
from envs_jax.mate.geometry import bearing_deg, offsets, wrap_deg
from envs_jax.mate.params import MAX_VIEWING_ANGLE_DEG, Params, Rules
from envs_jax.mate.state import State
from envs_jax.words import uniform_01

ORIENTATIONS, VIEWING_ANGLES = 36, 21
BEARINGS, DISTANCES = 72, 41
TURN_DEG, BEARING_DEG = 360 / ORIENTATIONS, 360 / BEARINGS
ORDERS = 32
"""Random orders of the cameras that are tried."""


class Table(NamedTuple):
    viewing_angle_deg: jax.Array
    """[21]"""
    worth: jax.Array
    """[41, 21, 72] of a target's distance in 40ths of the largest sight range, the viewing angle, and its bearing from
    the orientation in steps of 5 deg: 1 at most, 0 outside of the sector."""


@lru_cache
def _geometry() -> tuple[np.ndarray, np.ndarray]:
    """Distances as shares of the largest sight range [41, 1, 1], and angles from the orientation, deg [72]."""
    angle = np.abs((np.arange(BEARINGS) * BEARING_DEG + 180) % 360 - 180)
    return np.linspace(0, 1, DISTANCES)[:, None, None], angle


def table_of(min_viewing_angle_deg) -> Table:
    """A share of the largest sight range is the unit of length: the worth does not depend on it."""
    viewing = jnp.linspace(min_viewing_angle_deg, MAX_VIEWING_ANGLE_DEG, VIEWING_ANGLES)
    distance, angle = _geometry()
    half = viewing[:, None] / 2
    reach = jnp.sqrt(min_viewing_angle_deg / viewing)[:, None]
    # The circle that touches both edges and the arc; of a half disc the one between centre and arc.
    inscribed = jnp.where(half < 90.0, reach / (1 + 1 / jnp.sin(jnp.radians(half))), reach / 2)
    to_edges = distance * jnp.sin(jnp.radians(jnp.minimum(half - angle, 90.0)))
    to_boundary = jnp.maximum(jnp.minimum(jnp.minimum(distance, reach - distance), to_edges), 0.0)
    inside = (distance <= reach) & (angle <= half)
    return Table(viewing, jnp.where(inside, to_boundary / inscribed * (1 - distance / reach), 0.0))


class Worth(NamedTuple):
    """Of every pose of every camera, P = 21 x 36 poses, orientations within viewing angles."""

    score: jax.Array
    """[C, P], summed over the targets it would see"""
    covers: jax.Array
    """[C, P] int32, bit t: it would see target t"""
    concerned: jax.Array
    """[C] bool, cameras in whose reach a target is that somebody sees"""


def worth_of_poses(state: State, table: Table, params: Params) -> Worth:
    """All cameras' sightings are pooled; each target is moved to the nearest point of the grid around each camera."""
    x, y = offsets(state.layout.camera_loc, state.target_loc)
    distance, bearing = jnp.sqrt(x * x + y * y), bearing_deg(x, y)
    ray = jnp.round((bearing + 180.0) / BEARING_DEG)
    # The nearest of the points on a ray is that nearest to the foot of the perpendicular.
    along = distance * jnp.cos(jnp.radians(bearing + 180.0 - ray * BEARING_DEG))
    ring = jnp.round(along / params.camera_max_sight_range * (DISTANCES - 1)).astype(jnp.int32)
    counts = jnp.any(state.sight.c2t, axis=0) & (distance <= params.camera_max_sight_range)
    turns = np.arange(ORIENTATIONS) * (BEARINGS // ORIENTATIONS)
    beside = (ray.astype(jnp.int32)[..., None] - turns) % BEARINGS
    worth = table.worth[jnp.clip(ring, 0, DISTANCES - 1)[..., None, None], np.arange(VIEWING_ANGLES)[:, None],
                        beside[:, :, None]]  # fmt: skip
    worth = jnp.where(counts[..., None, None], worth, 0.0).reshape(*counts.shape, -1)
    bits = jnp.left_shift(1, jnp.arange(counts.shape[1]))[:, None]
    return Worth(jnp.sum(worth, axis=1), jnp.sum(jnp.where(worth > 0, bits, 0), axis=1), jnp.any(counts, axis=1))


def best_poses(worth: Worth, state: State, table: Table, order_u, params: Params):
    """(orientation, viewing angle) that each camera should have, [C] each.

    In each of several orders the cameras choose one after the other what is worth most to them, with one more for
    every target that no earlier one covers. The order with the largest total counts, of equal ones that with the
    shortest way.

    Args:
        order_u: [orders, C] uniform numbers, which the cameras are sorted by.
    """
    orientation = jnp.tile(jnp.arange(ORIENTATIONS) * TURN_DEG - 180.0, VIEWING_ANGLES)
    viewing = jnp.repeat(table.viewing_angle_deg, ORIENTATIONS)
    most_turn, most_zoom = limits(params)
    way = jnp.maximum(
        jnp.abs(orientation - state.orientation_deg[:, None]) / most_turn,
        jnp.abs(viewing - state.viewing_angle_deg[:, None]) / most_zoom,
    )

    def one_order(order):
        def choose(covered, camera):
            covers = worth.covers[camera]
            more = jax.lax.population_count(covers & ~covered)
            pose = _first_of_most(worth.score[camera] + more)
            return covered | covers[pose], pose

        covered, poses = jax.lax.scan(choose, jnp.zeros((), worth.covers.dtype), order)
        # Summed in the order of the cameras, so that the same poses have the same total.
        poses = jnp.zeros_like(poses).at[order].set(poses)
        cameras = jnp.arange(poses.shape[0])
        total = jnp.sum(worth.score[cameras, poses]) + jax.lax.population_count(covered)
        return poses, total, jnp.sum(way[cameras, poses])

    poses, total, ways = jax.vmap(one_order)(jnp.argsort(order_u, axis=1))
    best = jnp.argmin(jnp.where(total == jnp.max(total), ways, jnp.inf))
    return orientation[poses[best]], viewing[poses[best]]


def _first_of_most(values):
    """As `argmax`, in two passes that the processor can do several numbers at a time."""
    return jnp.min(jnp.where(values == jnp.max(values), jnp.arange(values.size), values.size - 1))


class Draws(NamedTuple):
    idle: Idle
    order_u: jax.Array
    """(ORDERS, C) uniform in [0, 1)"""


def num_words(rules: Rules) -> int:
    return num_words_idle(rules) + ORDERS * rules.num_cameras


def draw(words: jax.Array, rules: Rules) -> Draws:
    first = num_words_idle(rules)
    return Draws(draw_idle(words[:first], rules), uniform_01(words[first:]).reshape(ORDERS, rules.num_cameras))


def start(draws: Draws, state: State, params: Params) -> jax.Array:
    """The previous actions (C, 2)."""
    return jnp.zeros_like(state.layout.camera_loc)


def act(memory: jax.Array, state: State, draws: Draws, params: Params) -> tuple[jax.Array, jax.Array]:
    """Cameras without a target that concerns them do as before."""
    table = table_of(params.camera_min_viewing_angle_deg)
    worth = worth_of_poses(state, table, params)
    orientation, viewing = best_poses(worth, state, table, draws.order_u, params)
    largest = limits(params)
    change = jnp.stack([wrap_deg(orientation - state.orientation_deg), viewing - state.viewing_angle_deg], axis=1)
    action = jnp.where(
        worth.concerned[:, None], jnp.clip(change, -largest, largest), idle_action(memory, draws.idle, params)
    )
    return action, action
