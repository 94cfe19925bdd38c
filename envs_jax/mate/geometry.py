"""Angles in degrees and planes of points, for one world or with the batch last.

Points are arrays [N, 2, ...]; pairs of N and M objects are [N, M, ...].
"""

import jax
import jax.numpy as jnp
import numpy as np


def wrap_deg(angle):
    """Into [-180, 180)."""
    return jnp.mod(angle + 180.0, 360.0) - 180.0


def bearing_deg(x, y):
    """Direction of a vector, counted from +x towards +y."""
    return jnp.degrees(jnp.arctan2(y, x))


def direction(angle_deg):
    """(cosine, sine) of an angle."""
    angle = jnp.radians(angle_deg)
    return jnp.cos(angle), jnp.sin(angle)


def offsets(origin, points):
    """(x, y) from each of N points [N, 2, ...] to each of M [M, 2, ...]: two arrays [N, M, ...]."""
    return points[None, :, 0] - origin[:, None, 0], points[None, :, 1] - origin[:, None, 1]


def sight_range(viewing_angle_deg, min_viewing_angle_deg, max_sight_range):
    """How far a sector of this angle reaches: its area is always the same."""
    return max_sight_range * jnp.sqrt(min_viewing_angle_deg / viewing_angle_deg)


def in_sector(x, y, unit_x, unit_y, viewing_angle_deg, reach):
    """Whether points at (x, y) from the apex lie in a sector, its edges and arc included.

    Twice the angle between a point and the axis is compared with the viewing angle, by cosines. A point on an edge is
    inside: cosines have a tolerance of some units in the last place.

    Args:
        unit_x, unit_y: direction of the axis.
        reach: radius.
    """
    distance = jnp.sqrt(x * x + y * y)
    tolerance = 8.0 * jnp.finfo(distance.dtype).eps
    edge = jnp.cos(jnp.radians(viewing_angle_deg) / 2) - tolerance
    return (distance <= reach) & (x * unit_x + y * unit_y >= distance * edge)


def identity(size: int, trailing: int) -> jax.Array:
    """bool (size, size, 1, ...), True on the diagonal, with `trailing` axes for a batch."""
    return jnp.asarray(np.eye(size, dtype=bool).reshape(size, size, *[1] * trailing))
