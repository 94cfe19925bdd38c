"""How a camera turns and zooms onto a point: the rule that greedy cameras and macro actions share.

Source: specification, section 15. Leading axes as in `state`, any batch behind.
"""

import jax.numpy as jnp

from envs_jax.mate.geometry import bearing_deg, wrap_deg
from envs_jax.mate.params import MAX_VIEWING_ANGLE_DEG, Params

ITERATIONS = 20
"""Of the fixed point for the viewing angle. They leave up to a hundredth of a degree, as in the reference."""


def aim(x, y, orientation_deg, viewing_angle_deg, params: Params):
    """Actions of cameras that want points in the middle of their views.

    Args:
        x, y: (C, ...) from each camera to its point.
        orientation_deg, viewing_angle_deg: (C, ...), of the cameras.

    Returns:
        (C, 2, ...): rotation and zoom in degrees, as far as one frame allows.
    """
    rotation, zoom = params.camera_rotation_step_deg, params.camera_zooming_step_deg
    turn = wrap_deg(bearing_deg(x, y) - orientation_deg)
    widen = wanted_viewing_angle_deg(jnp.sqrt(x * x + y * y), params) - viewing_angle_deg
    return jnp.stack([jnp.clip(turn, -rotation, rotation), jnp.clip(widen, -zoom, zoom)], axis=1)


def wanted_viewing_angle_deg(distance, params: Params):
    """Viewing angle with which a point at `distance` lies in the middle of the sector's inscribed circle.

    A sector of angle theta that reaches R has that middle at R / (1 + sin(theta / 2)), and its area, hence theta R^2,
    is the same at every zoom.
    """
    narrowest, reach = params.camera_min_viewing_angle_deg, params.camera_max_sight_range
    area = narrowest * reach**2
    too_far = distance * (1.0 + jnp.sin(jnp.radians(narrowest / 2))) >= reach
    close = distance <= jnp.sqrt(area / MAX_VIEWING_ANGLE_DEG) / 2
    ratio = area / jnp.where(close, reach, distance) ** 2
    angle = ratio / 4
    for _ in range(ITERATIONS - 1):
        angle = ratio / (1.0 + jnp.sin(jnp.radians(jnp.minimum(angle / 2, 90.0)))) ** 2
    angle = jnp.clip(angle, narrowest, MAX_VIEWING_ANGLE_DEG)
    return jnp.where(too_far, narrowest, jnp.where(close, MAX_VIEWING_ANGLE_DEG, angle))
