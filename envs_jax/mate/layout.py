"""What follows from the places of cameras and obstacles and holds for a whole episode."""

import jax.numpy as jnp

from envs_jax.mate import occlusion
from envs_jax.mate.geometry import offsets
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.soft_coverage import outline_of
from envs_jax.mate.state import Layout, OcclusionTable


def layout_of(
    camera_loc, obstacle_loc, obstacle_radius, capacity, params: Params, rules: Rules,
    table: OcclusionTable | None = None,
) -> Layout:  # fmt: skip
    """The constants of an episode; one world, or with the batch last where there are no tables.

    Args:
        camera_loc: (C, 2).
        obstacle_loc, obstacle_radius: (O, 2), (O,).
        capacity: (T,) int32.
        table: recorded occlusion; None: what the rules say.
    """
    x, y = offsets(camera_loc, obstacle_loc)
    c2o = jnp.sqrt(x**2 + y**2) <= params.camera_max_sight_range + obstacle_radius
    if table is None and rules.occlusion == "table":
        table = occlusion.table_of(
            camera_loc, obstacle_loc, obstacle_radius, params.camera_max_sight_range, params.transmittance, rules.fan
        )
    x, y = offsets(camera_loc, camera_loc)
    return Layout(
        camera_loc=camera_loc,
        camera_radius=jnp.zeros_like(camera_loc[:, 0]) + params.camera_radius,
        obstacle_loc=obstacle_loc,
        obstacle_radius=obstacle_radius,
        capacity=capacity,
        step_size=params.target_step_size / capacity,
        c2o=c2o,
        c2c_clear=~occlusion.hidden(x, y, camera_loc, obstacle_loc, obstacle_radius, table),
        occlusion=table,
        outline=outline_of(camera_loc, obstacle_loc, obstacle_radius, params, rules) if rules.outlines else None,
    )
