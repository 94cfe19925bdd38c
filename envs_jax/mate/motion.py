"""How cameras turn and zoom and how targets move and slide along discs.

Source: specification, sections 4 and 5. Leading axes as in `state`, any batch behind.
"""

import jax
import jax.numpy as jnp

from envs_jax.mate.geometry import wrap_deg
from envs_jax.mate.params import MAX_VIEWING_ANGLE_DEG, TERRAIN, Params
from envs_jax.mate.state import Layout

COLLIDED = 1e-6
"""A target whose coordinates differ by more from where it wanted to be has collided."""


def turn_cameras(orientation_deg, viewing_angle_deg, action, params: Params):
    """Orientations and viewing angles (C, ...) after actions (C, 2, ...): rotation and zoom in degrees, clipped."""
    rotation, zoom = params.camera_rotation_step_deg, params.camera_zooming_step_deg
    turned = wrap_deg(orientation_deg + jnp.clip(action[:, 0], -rotation, rotation))
    zoomed = viewing_angle_deg + jnp.clip(action[:, 1], -zoom, zoom)
    return turned, jnp.clip(zoomed, params.camera_min_viewing_angle_deg, MAX_VIEWING_ANGLE_DEG)


def move_targets(loc, action, layout: Layout):
    """Targets at `loc` that want to move by `action`, both (T, 2, ...).

    A wish longer than the target's step is shortened to it. What of the motion would enter a disc (an obstacle or a
    camera) loses its normal component there.

    Returns:
        New places (T, 2, ...), and whether they are others than wanted, bool (T, ...).
    """
    x, y = loc[:, 0], loc[:, 1]
    wish = jnp.sqrt(action[:, 0] ** 2 + action[:, 1] ** 2)
    shortened = jnp.minimum(1.0, layout.step_size / jnp.maximum(wish, layout.step_size))
    step = action[:, 0] * shortened, action[:, 1] * shortened
    discs = (
        jnp.concatenate([layout.obstacle_loc, layout.camera_loc]),
        jnp.concatenate([layout.obstacle_radius, layout.camera_radius]),
    )
    # One disc after the other, as a scan: unrolled, XLA computes the chain anew for each of the two components.
    (dx, dy), _ = jax.lax.scan(lambda step, disc: (_past_disc(x, y, *step, *disc), None), step, discs)
    limited = [jnp.clip(at + by, -TERRAIN, TERRAIN) for at, by in ((x, dx), (y, dy))]
    missed = [jnp.abs(end - (at + by)) > COLLIDED for end, at, by in zip(limited, (x, y), step, strict=True)]
    return jnp.stack(limited, axis=1), missed[0] | missed[1]


def _past_disc(x, y, dx, dy, centre, radius):
    """The step (dx, dy) from (x, y), (T, ...) each, past one disc with centre (2, ...).

    With q the point of contact, what is added to the step is pushed * (q - centre); q is the start plus a share of it.
    """
    rel_x, rel_y = centre[0] - x, centre[1] - y
    squared, apart, reach = dx * dx + dy * dy, rel_x * rel_x + rel_y * rel_y, radius * radius
    inside = (squared == 0.0) | (apart < reach)
    length = jnp.sqrt(squared)
    inverse = 1.0 / jnp.where(squared == 0.0, 1.0, length)
    ahead = (rel_x * dx + rel_y * dy) * inverse
    depth = reach - (apart - ahead * ahead)
    half = jnp.sqrt(jnp.maximum(depth, 0.0))
    free = jnp.maximum(0.0, ahead - half)
    touches = (ahead >= 0.0) & (depth > 0.0) & (free < length) & ~inside
    pushed = jnp.where(touches, (length - free) * half / jnp.where(reach > 0.0, reach, 1.0), 0.0)
    kept = jnp.where(inside, -1.0, 1.0) + pushed * free * inverse
    return kept * dx - pushed * rel_x, kept * dy - pushed * rel_y
