"""What cameras and targets see, and the state of the whole world, as vectors.

Reading order: `Seen` (a kind of entity in the eyes of the observers), `View` (an observation in its blocks),
`camera_view` and `target_view`, `flat` (blocks to one vector), `global_state_blocks`.

Source: specification, section 11. Values are raw; `transforms` changes views before they become vectors. Leading axes
as in `state`, any batch behind.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from envs_jax.mate.geometry import direction, sight_range
from envs_jax.mate.params import NUM_WAREHOUSES, WAREHOUSE_RADIUS, WAREHOUSES, Params
from envs_jax.mate.state import NO_GOAL, State

PREAMBLE, CAMERA, TARGET, OBSTACLE = 13, 9, 14, 3
"""Lengths of the blocks, entities in full."""
CAMERA_PUBLIC, TARGET_PUBLIC = 6, 4
INDEX = 3
"""Where in an observation the observer's own number stands."""


class Seen(NamedTuple):
    """N entities of one kind in the eyes of S observers."""

    values: jnp.ndarray
    """(S, N, k, ...), or (1, N, k, ...) where all see the same; place first"""
    visible: jnp.ndarray
    """bool (S, N, ...)"""
    fresh: jnp.ndarray | None = None
    """(S, N, ...), how much that counts, above 0 and up to 1; None: what is visible is seen now"""


class View(NamedTuple):
    """Observations of a team of S observers, block by block."""

    preamble: jnp.ndarray
    """(S, 13, ...): numbers of cameras, targets and obstacles, own index, centres of warehouses, their half width"""
    own: jnp.ndarray
    """(S, k, ...)"""
    targets: Seen
    obstacles: Seen
    cameras: Seen


def camera_view(state: State, params: Params) -> View:
    """Of the cameras; they are listed after targets and obstacles."""
    layout, own = state.layout, cameras_of(state, params)
    return View(
        preamble=preamble_of(state, own.shape[0]),
        own=own,
        targets=_seen(targets_of(state, params)[:, :TARGET_PUBLIC], state.sight.c2t),
        obstacles=_seen(obstacles_of(state), layout.c2o),
        cameras=_seen(own[:, :CAMERA_PUBLIC], state.sight.c2c),
    )


def target_view(state: State, params: Params) -> View:
    """Of the targets; cameras are listed before obstacles and targets."""
    own = targets_of(state, params)
    return View(
        preamble=preamble_of(state, own.shape[0]),
        own=own,
        targets=_seen(own[:, :TARGET_PUBLIC], state.sight.t2t),
        obstacles=_seen(obstacles_of(state), state.sight.t2o),
        cameras=_seen(cameras_of(state, params)[:, :CAMERA_PUBLIC], state.sight.t2c),
    )


def _seen(values, visible) -> Seen:
    return Seen(values[None], visible)


def preamble_of(state: State, observers: int):
    """(S, 13, ...)"""
    trailing = state.orientation_deg.ndim - 1
    layout, real = state.layout, state.target_loc.dtype
    counts = [x.shape[0] for x in (layout.camera_loc, layout.capacity, layout.obstacle_loc)]
    rows = np.array([[*counts, index, *WAREHOUSES.ravel(), WAREHOUSE_RADIUS] for index in range(observers)], real)
    rows = rows.reshape(observers, PREAMBLE, *[1] * trailing)
    return jnp.broadcast_to(rows, (observers, PREAMBLE, *state.steps.shape))


def cameras_of(state: State, params: Params):
    """Everything about the cameras, (C, 9, ...): place, radius, reach along the axis, viewing angle, three limits."""
    layout = state.layout
    reach = sight_range(state.viewing_angle_deg, params.camera_min_viewing_angle_deg, params.camera_max_sight_range)
    unit_x, unit_y = direction(state.orientation_deg)
    limits = params.camera_max_sight_range, params.camera_rotation_step_deg, params.camera_zooming_step_deg
    return _columns(
        layout.camera_loc[:, 0], layout.camera_loc[:, 1], layout.camera_radius,
        reach * unit_x, reach * unit_y, state.viewing_angle_deg, *limits,
    )  # fmt: skip


def targets_of(state: State, params: Params):
    """Everything about the targets, (T, 14, ...): place, sight, loaded; step, capacity, load by goal, empty bits."""
    loaded = state.goal != NO_GOAL
    loads = [jnp.where(state.goal == warehouse, state.load, 0) for warehouse in range(NUM_WAREHOUSES)]
    bits = [state.empty_bits[:, warehouse] for warehouse in range(NUM_WAREHOUSES)]
    return _columns(
        state.target_loc[:, 0], state.target_loc[:, 1], params.target_sight_range, loaded,
        state.layout.step_size, state.layout.capacity, *loads, *bits,
    )  # fmt: skip


def obstacles_of(state: State):
    """(O, 3, ...): place, radius"""
    layout = state.layout
    return _columns(layout.obstacle_loc[:, 0], layout.obstacle_loc[:, 1], layout.obstacle_radius)


def _columns(*columns):
    """Values of N objects, (N, ...) each or the same for all, as (N, k, ...)."""
    first = columns[0]
    return jnp.stack([jnp.broadcast_to(jnp.asarray(x, first.dtype), first.shape) for x in columns], axis=1)


def masked(seen: Seen, change=lambda values: values, hidden_too: bool = False):
    """Entities with a flag at the end, (S, N, k + 1, ...); those that are hidden are zeros.

    Args:
        change: what is done to the values, at the end: to those of hidden entities only if `hidden_too`.
    """
    known = seen.visible[:, :, None].astype(seen.values.dtype)
    values = change(seen.values * known) if hidden_too else change(seen.values) * known
    return jnp.concatenate([values, known if seen.fresh is None else seen.fresh[:, :, None]], axis=2)


def flat(blocks):
    """Blocks of S observers, (S, k, ...) and (S, N, k, ...), as vectors (S, d, ...)."""
    trailing = blocks[0].ndim - 2
    return jnp.concatenate([x.reshape(x.shape[0], -1, *x.shape[x.ndim - trailing :]) for x in blocks], axis=1)


def global_state_blocks(state: State, params: Params) -> list:
    """Everything: preamble (1, 13, ...), cameras, targets, obstacles; freights, bounties; what waits in warehouses."""
    real = state.target_loc.dtype
    return [
        preamble_of(state, 1), cameras_of(state, params), targets_of(state, params), obstacles_of(state),
        state.freight.astype(real), state.bounty.astype(real), state.remaining.astype(real),
    ]  # fmt: skip
