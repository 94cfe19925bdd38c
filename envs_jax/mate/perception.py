"""Who sees whom.

Source: specification, section 7. Leading axes as in `state`, any batch behind.
"""

import jax.numpy as jnp

from envs_jax.mate import occlusion
from envs_jax.mate.geometry import direction, identity, in_sector, offsets, sight_range
from envs_jax.mate.params import Params
from envs_jax.mate.state import Layout, Sight


def perceive(layout: Layout, orientation_deg, viewing_angle_deg, target_loc, transmit, params: Params) -> Sight:
    """The visibility of the present instant.

    Args:
        orientation_deg, viewing_angle_deg: (C, ...), of the cameras.
        target_loc: (T, 2, ...).
        transmit: bool (C, T, ...), cameras that see a target through obstacles at this instant.
    """
    cameras, trailing = layout.camera_loc, orientation_deg.ndim - 1
    reach = sight_range(viewing_angle_deg, params.camera_min_viewing_angle_deg, params.camera_max_sight_range)
    sector = (*direction(orientation_deg), viewing_angle_deg, reach)
    in_view = lambda x, y: in_sector(x, y, *(of_camera[:, None] for of_camera in sector))  # noqa: E731
    x, y = offsets(cameras, target_loc)
    hidden = occlusion.hidden(x, y, cameras, layout.obstacle_loc, layout.obstacle_radius, layout.occlusion)
    c2t = in_view(x, y) & (transmit | ~hidden)
    c2c = (in_view(*offsets(cameras, cameras)) & layout.c2c_clear) | identity(cameras.shape[0], trailing)

    def near(points, radius):
        x, y = offsets(target_loc, points)
        return x * x + y * y <= (params.target_sight_range + radius)[None] ** 2

    no_radius = jnp.zeros_like(target_loc[:, 0])
    return Sight(
        c2t=c2t,
        c2c=c2c,
        t2c=near(cameras, layout.camera_radius),
        t2t=near(target_loc, no_radius) | identity(target_loc.shape[0], trailing),
        t2o=near(layout.obstacle_loc, layout.obstacle_radius),
    )
