"""What obstacles hide: exactly, pair by pair (`blocked`), and as the reference does it, by polylines (`table_of`).

Reading order: `blocked`; `table_of` with the knots it is made of; `free_range`, which reads a table; `hidden`, either.

Source: specification, section 6. C cameras, O obstacles, M knots; leading axes, any batch behind in `blocked`. Tables
are built for one world at a time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.mate.geometry import bearing_deg, direction, offsets, wrap_deg
from envs_jax.mate.state import OcclusionTable

TOLERANCE = 1e-6
"""A target may be farther away than its view is free by this share: it may touch an obstacle on the near side."""
GUARD_DEG = 0.01
"""The view is sampled this far on both sides of every tangent."""


def blocked(x, y, camera_loc, obstacle_loc, obstacle_radius):
    """Whether an obstacle hides points at (x, y), each (C, N, ...), from the camera of their row: bool (C, N, ...).

    With t the distance of an obstacle's centre along the view, d that of the point and k = |centre|^2 - r^2, the view
    enters the obstacle if t > 0 and k < t^2, and before the point if t <= d or the point is inside. Multiplied with d,
    this needs no roots.
    """
    if obstacle_radius.shape[0] == 0:
        return jnp.zeros(x.shape, bool)
    rel_x, rel_y = offsets(camera_loc, obstacle_loc)
    outside = (rel_x**2 + rel_y**2 - obstacle_radius[None] ** 2)[:, None]
    near = 1.0 / (1.0 + TOLERANCE)
    squared = (x * x + y * y)[:, :, None]
    along = x[:, :, None] * rel_x[:, None] + y[:, :, None] * rel_y[:, None]
    enters = (outside < 0.0) | ((along > 0.0) & (outside * squared < along**2))
    before = (along <= squared * near) | (squared * near**2 + outside < 2.0 * near * along)
    return jnp.any(enters & before, axis=2)


class _Obstacles(NamedTuple):
    """Obstacles as one camera sees them, (O,)."""

    x: jax.Array
    y: jax.Array
    distance: jax.Array
    radius: jax.Array
    relevant: jax.Array


def table_of(camera_loc, obstacle_loc, obstacle_radius, max_sight_range, transmittance, max_fan: int) -> OcclusionTable:
    """The polylines of all cameras of one world.

    Directions without a meaning (of obstacles out of reach) repeat the last knot. At exact tangents, where the
    reference's value is a matter of rounding, the view is cut.

    Args:
        camera_loc: (C, 2).
        obstacle_loc, obstacle_radius: (O, 2), (O,).
        max_fan: most directions between the tangents of an obstacle, less one.
    """
    x, y = offsets(camera_loc, obstacle_loc)
    distance = jnp.sqrt(x**2 + y**2)
    relevant = (distance < max_sight_range + obstacle_radius) & (transmittance < 1.0)
    radius = jnp.broadcast_to(obstacle_radius, distance.shape)
    of_camera = jax.vmap(lambda *seen: _polyline(_Obstacles(*seen), max_sight_range, max_fan))
    return OcclusionTable(*of_camera(x, y, distance, radius, relevant))


def _polyline(obstacles: _Obstacles, max_sight_range, max_fan: int):
    """(angles, ranges) of one camera, sorted, closed by the first knot at + 360 degrees."""
    angle, start, tangent, used = _knots(obstacles, max_sight_range, max_fan)
    unit_x, unit_y = direction(angle)
    ahead = unit_x[:, None] * obstacles.x + unit_y[:, None] * obstacles.y
    depth = obstacles.radius**2 - (obstacles.distance**2 - ahead**2)
    # A tangent just touches: rounding may not decide about it.
    depth = jnp.where(tangent, 0.0, depth)
    hit = obstacles.relevant & (ahead >= 0.0) & ((depth > 0.0) | tangent)
    entry = jnp.maximum(0.0, ahead - jnp.sqrt(jnp.maximum(depth, 0.0)))
    free = jnp.minimum(start, jnp.min(jnp.where(hit, entry, jnp.inf), axis=1, initial=jnp.inf))
    free = jnp.where(jnp.any(obstacles.relevant & (obstacles.distance < obstacles.radius)), 0.0, free)
    order = jnp.lexsort((free, jnp.where(used, angle, jnp.inf)))
    angle, free, count = angle[order], free[order], jnp.sum(used)
    # Equal angles share the smallest of their ranges, the first.
    first = jnp.where(jnp.append(True, angle[1:] != angle[:-1]), jnp.arange(angle.shape[0]), 0)
    free = free[jax.lax.cummax(first)]
    last = jnp.arange(angle.shape[0] + 1) >= count
    closed = lambda knots, end: jnp.where(last, end, jnp.append(knots, end))  # noqa: E731
    return closed(angle, angle[0] + 360.0), closed(free, free[0])


def _knots(obstacles: _Obstacles, max_sight_range, max_fan: int):
    """Angles in [-180, 180) (K,) with first ranges, which obstacle each just touches (K, O), and which are in use."""
    count = obstacles.x.shape[0]
    centre = bearing_deg(obstacles.x, obstacles.y)
    half = jnp.degrees(jnp.arcsin(jnp.clip(obstacles.radius / jnp.maximum(obstacles.distance, 1e-9), 0.0, 1.0)))
    guards = jnp.stack([centre + side * half + by for side in (-1, 1) for by in (-GUARD_DEG, GUARD_DEG)], axis=1)
    # A fan of n + 1 directions from tangent to tangent.
    number = jnp.maximum(16.0, jnp.floor(2.0 * half))[:, None]
    index = np.arange(max_fan + 1)
    fan = centre[:, None] - half[:, None] + 2.0 * half[:, None] * jnp.minimum(index / number, 1.0)
    in_fan = index <= number
    behind = jnp.minimum(max_sight_range, obstacles.distance + obstacles.radius)[:, None]
    circle = jnp.arange(-180.0, 180.0)
    every = jnp.concatenate([circle, wrap_deg(guards).ravel(), wrap_deg(fan).ravel()])
    start = jnp.concatenate(
        [
            jnp.full(circle.shape[0] + guards.size, 1.0) * max_sight_range,
            jnp.broadcast_to(behind, fan.shape).ravel(),
        ]
    )
    relevant = obstacles.relevant[:, None]
    used = jnp.concatenate(
        [
            jnp.ones(circle.shape, bool),
            jnp.broadcast_to(relevant, guards.shape).ravel(),
            (relevant & in_fan).ravel(),
        ]
    )
    touched = ((index == 0) | (index == number))[:, :, None] & np.eye(count, dtype=bool)[:, None]
    none = jnp.zeros((circle.shape[0] + guards.size, count), bool)
    return every, start, jnp.concatenate([none, touched.reshape(fan.size, count)]), used


def free_range(table: OcclusionTable, angle_deg):
    """How far each camera sees towards `angle_deg` (C, N) in [-180, 180]: (C, N). One world."""
    return jax.vmap(jnp.interp)(angle_deg, table.angle_deg, table.free_range)


def hidden(x, y, camera_loc, obstacle_loc, obstacle_radius, table: OcclusionTable | None):
    """As `blocked`, but by the table where there is one; one world, or a batch behind."""
    if table is None:
        return blocked(x, y, camera_loc, obstacle_loc, obstacle_radius)
    read = free_range
    for _ in range(x.ndim - 2):
        read = jax.vmap(read, in_axes=-1, out_axes=-1)
    return jnp.sqrt(x**2 + y**2) > read(table, bearing_deg(x, y)) * (1.0 + TOLERANCE)
