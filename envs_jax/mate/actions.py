"""Actions that are chosen from a grid instead of given as numbers.

Source: specification, section 13.
"""

import jax.numpy as jnp
import numpy as np

from envs_jax.mate.params import Params


def grid(levels: int) -> np.ndarray:
    """All pairs of `levels` equally spaced values of -1 .. 1, (levels^2, 2); the first component changes fastest.

    Raises:
        ValueError: an even number of levels, or less than three: there would be no rest.
    """
    if levels < 3 or levels % 2 == 0:
        raise ValueError(f"{levels} discrete levels: an odd number of at least 3")
    lin = np.linspace(-1.0, 1.0, levels)
    return np.stack([np.tile(lin, levels), np.repeat(lin, levels)], axis=1)


def disc_grid(levels: int) -> np.ndarray:
    """The same grid, with the square mapped to the disc of radius 1."""
    square = grid(levels)
    angle = np.arctan2(square[:, 1], square[:, 0]) / np.pi
    return square * np.cos(np.pi * (np.mod(angle + 0.25, 0.5) - 0.25))[:, None]


def camera_action(index, levels: int, params: Params):
    """Rotation and zoom (C, 2, ...) of indices (C, ...)."""
    rotation, zoom = _chosen(grid(levels), index)
    return jnp.stack([rotation * params.camera_rotation_step_deg, zoom * params.camera_zooming_step_deg], axis=1)


def target_action(index, levels: int, step_size):
    """Motion (T, 2, ...) of indices (T, ...); the step sizes have the same shape."""
    x, y = _chosen(disc_grid(levels), index)
    return jnp.stack([x * step_size, y * step_size], axis=1)


def _chosen(table: np.ndarray, index):
    return jnp.moveaxis(jnp.asarray(table, float)[index], -1, 0)
