"""Soft coverage: how deep inside or how far outside of a camera's field of view each target is.

Reading order: `soft_scores`, which needs the outline of the fields of view; `outline_of`, which derives it from the
places of cameras and obstacles, once per episode.

Source: specification, section 14. In the reference the far side of an outline is what the camera could see at its
smallest viewing angle, whatever the present one is; it is kept so, since recorded scores agree to rounding only so.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.mate.geometry import bearing_deg, direction, offsets, sight_range, wrap_deg
from envs_jax.mate.occlusion import GUARD_DEG, free_range, table_of
from envs_jax.mate.params import MAX_VIEWING_ANGLE_DEG, Params, Rules
from envs_jax.mate.state import OcclusionTable, Outline, State

EDGE_POINTS = 16
"""Of an edge, from the apex on, before its end."""
SIDE_POINTS = 21
"""Of the border of the shadow that an obstacle throws, on each side."""


def soft_scores(state: State, params: Params):
    """Score of each pair (C, T, ...): distance of the target to the outline of the view, negative where it is not
    tracked, in radii of the largest circle inside the sector.

    Leading axes as in `state`, any batch behind.
    """
    layout, theta = state.layout, state.viewing_angle_deg
    outline = layout.outline
    assert outline is not None, "Rules.outlines"
    x, y = offsets(layout.camera_loc, state.target_loc)
    reach = sight_range(theta, params.camera_min_viewing_angle_deg, params.camera_max_sight_range)
    half = jnp.sin(jnp.radians(theta / 2))
    inscribed = jnp.where(theta >= MAX_VIEWING_ANGLE_DEG, reach / 2, reach * half / (half + 1.0))
    edges = [state.orientation_deg - theta / 2, state.orientation_deg + theta / 2]
    far_x, far_y = (outline.far_range * unit for unit in direction(outline.far_angle_deg))
    inside = jnp.mod(outline.far_angle_deg - edges[0][:, None], 360.0)
    on_view = (inside > 0.0) & (inside < theta[:, None])
    squared = _nearest(x, y, far_x, far_y, on_view)
    share = np.linspace(0.0, 1.0, EDGE_POINTS + 1).reshape(1, -1, *[1] * (theta.ndim - 1))
    for edge in edges:
        length = _range_towards(outline.near, wrap_deg(edge))[:, None] * share.astype(theta.dtype)
        unit_x, unit_y = direction(edge)
        points = length * unit_x[:, None], length * unit_y[:, None]
        squared = jnp.minimum(squared, _nearest(x, y, *points, jnp.ones(points[0].shape, bool)))
    distance = jnp.sqrt(squared) / inscribed[:, None]
    return jnp.where(state.sight.c2t, distance, -distance)


def _nearest(x, y, point_x, point_y, counts):
    """Squared distance (C, T, ...) to the nearest of the points (C, M, ...) of the same camera that `counts`."""
    apart = (x[:, :, None] - point_x[:, None]) ** 2 + (y[:, :, None] - point_y[:, None]) ** 2
    return jnp.min(jnp.where(counts[:, None], apart, jnp.inf), axis=2)


def _range_towards(table: OcclusionTable, angle_deg):
    read = lambda table, angle: free_range(table, angle[:, None])[:, 0]  # noqa: E731
    for _ in range(angle_deg.ndim - 1):
        read = jax.vmap(read, in_axes=-1, out_axes=-1)
    return read(table, angle_deg)


def outline_of(camera_loc, obstacle_loc, obstacle_radius, params: Params, rules: Rules) -> Outline:
    """Outlines of what the cameras could see, one world at a time: arguments as of `occlusion.table_of`.

    The far side ends where a view leaves an obstacle that it enters, and follows the borders of shadows.
    """
    reach = params.camera_max_sight_range
    near = table_of(camera_loc, obstacle_loc, obstacle_radius, reach, params.transmittance, rules.fan)
    x, y = offsets(camera_loc, obstacle_loc)
    distance = jnp.sqrt(x**2 + y**2)
    radius = jnp.broadcast_to(obstacle_radius, distance.shape)
    relevant = (distance < reach + radius) & (params.transmittance < 1.0)
    angle, far = jax.vmap(partial(_far_side, reach=reach, max_fan=rules.fan))(x, y, distance, radius, relevant)
    return Outline(near, angle, far)


def _far_side(x, y, distance, radius, relevant, reach, max_fan: int):
    """(angles, ranges) of one camera, in no order; obstacles (O,)."""
    centre = bearing_deg(x, y)
    half = jnp.degrees(jnp.arcsin(jnp.clip(radius / jnp.maximum(distance, 1e-9), 0.0, 1.0)))
    number = jnp.maximum(16.0, jnp.floor(2.0 * half))[:, None]
    fan = centre[:, None] + half[:, None] * (2.0 * jnp.minimum(np.arange(max_fan + 1) / number, 1.0) - 1.0)
    behind = jnp.minimum(reach, distance + radius)[:, None] + jnp.zeros_like(fan)
    share = np.linspace(0.0, 1.0, SIDE_POINTS)
    begin = jnp.minimum(reach, jnp.sqrt(distance**2 + radius**2))[:, None]
    sides = []
    for side in (-1.0, 1.0):
        tangent = (centre + side * half)[:, None]
        (begin_x, begin_y), (end_x, end_y) = direction(tangent), direction(tangent + side * GUARD_DEG)
        at_x = begin * begin_x * (1 - share) + reach * end_x * share
        at_y = begin * begin_y * (1 - share) + reach * end_y * share
        sides.append((bearing_deg(at_x, at_y), jnp.sqrt(at_x**2 + at_y**2)))
    circle = jnp.arange(-180.0, 180.0)
    hides = relevant[:, None]
    # What belongs to an obstacle out of reach repeats a direction of the circle.
    of_obstacles = [(jnp.where(hides, a, -180.0), jnp.where(hides, r, reach)) for a, r in [(fan, behind), *sides]]
    angle = jnp.concatenate([circle, *(wrap_deg(a).ravel() for a, _ in of_obstacles)])
    far = jnp.concatenate([jnp.full(circle.shape, 1.0) * reach, *(r.ravel() for _, r in of_obstacles)])
    unit_x, unit_y = direction(angle)
    ahead = unit_x[:, None] * x + unit_y[:, None] * y
    depth = radius**2 - (distance**2 - ahead**2)
    leaves = ahead + jnp.sqrt(jnp.maximum(depth, 0.0))
    hit = relevant & (ahead >= 0.0) & (depth > 0.0)
    return angle, jnp.minimum(far, jnp.min(jnp.where(hit, leaves, jnp.inf), axis=1, initial=jnp.inf))
