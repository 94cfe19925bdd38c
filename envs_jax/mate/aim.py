"""How a camera turns and zooms onto a point: the rule that greedy cameras and macro actions share.

Source: specification, section 15. Leading axes as in `state`, any batch behind.
"""

import jax.numpy as jnp
import numpy as np

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
    too_far = distance * (1.0 + jnp.sin(jnp.radians(narrowest / 2))) >= reach
    half_disc = reach * jnp.sqrt(narrowest / MAX_VIEWING_ANGLE_DEG)
    close = distance <= half_disc / 2
    angle = MAX_VIEWING_ANGLE_DEG * half_circles(half_disc / jnp.where(close, half_disc, distance))
    angle = jnp.clip(angle, narrowest, MAX_VIEWING_ANGLE_DEG)
    return jnp.where(too_far, narrowest, jnp.where(close, MAX_VIEWING_ANGLE_DEG, angle))


def iterated(nearness):
    """The viewing angle in half circles, by the iteration of the reference from a half circle on.

    Args:
        nearness: numpy, range of the half disc of the same area over the distance, in [0, 2].
    """
    angle = 1.0
    for _ in range(ITERATIONS):
        angle = (nearness / (1.0 + np.sin(np.pi / 2 * np.minimum(angle, 1.0)))) ** 2
    return angle


# The iteration is a smooth function of one number, and a polynomial costs a fraction of its sines and quotients.
_TERMS = np.polynomial.Chebyshev.interpolate(iterated, 44, domain=[0, 2]).coef


def half_circles(nearness):
    """What `iterated` gives, to the precision of the numbers: an error below 1e-11 of a half circle in float64."""
    terms = _TERMS[: np.flatnonzero(np.abs(_TERMS) > jnp.finfo(nearness.dtype).eps)[-1] + 1].tolist()
    x = nearness - 1.0
    # Clenshaw's recurrence.
    value, before = 0.0, 0.0
    for term in reversed(terms[1:]):
        value, before = 2.0 * x * value - before + term, value
    return x * value - before + terms[0]
