"""Worlds and states from arrays, such as recordings of the reference (specification, section 17).

Reading order: `preset_of` (what world a recording was made in), `table_from`, `from_arrays` (one of its states).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from envs_jax.mate import sightings
from envs_jax.mate.layout import layout_of
from envs_jax.mate.params import Params, Preset, Rules
from envs_jax.mate.state import OcclusionTable, Sight, State


def preset_of(meta: Mapping[str, Any]) -> Preset:
    """The world of a recording's `meta`; its placement boxes are of no use."""
    camera, target = meta["camera"], meta["target"]
    nowhere = (0.0, 0.0, 0.0, 0.0)
    return Preset(
        camera_boxes=(nowhere,) * meta["num_cameras"],
        target_boxes=(nowhere,) * meta["num_targets"],
        obstacle_boxes=(nowhere,) * meta["num_obstacles"],
        camera_radius=camera.get("radius", 40.0),
        camera_min_viewing_angle_deg=camera.get("min_viewing_angle", 30.0),
        camera_max_sight_range=camera.get("max_sight_range", 1500.0),
        camera_rotation_step_deg=camera.get("rotation_step", 5.0),
        camera_zooming_step_deg=camera.get("zooming_step", 2.5),
        target_step_size=target["step_size"],
        target_sight_range=target["sight_range"],
        obstacle_transmittance=meta["transmittance"],
        bounty_factor=meta["bounty_factor"],
        max_episode_steps=meta["max_episode_steps"],
        num_cargoes_per_target=meta["num_cargoes_per_target"],
        reward_type=meta["reward_type"],
    )


def table_from(angle_deg, free_range, count) -> OcclusionTable:
    """A recorded table (C, M), of which the first `count` (C,) entries of each camera are used."""
    last = np.minimum(np.arange(angle_deg.shape[1]), np.asarray(count)[:, None] - 1)
    return OcclusionTable(*(jnp.asarray(np.take_along_axis(x, last, axis=1), float) for x in (angle_deg, free_range)))


def from_arrays(
    arrays: Mapping[str, np.ndarray], snapshot: int | slice, params: Params, rules: Rules, with_table: bool = False
) -> State:
    """The state of a recording at one snapshot.

    Args:
        arrays: the constants and snapshots of the format.
        snapshot: for a slice, everything but the layout has an axis of snapshots in front.
        with_table: what obstacles hide is read from the recorded table, whatever the rules say.
    """
    now = {name: arrays[name][snapshot] for name in SNAPSHOT}
    real = lambda x: jnp.asarray(x, float)  # noqa: E731
    whole = lambda x: jnp.asarray(np.asarray(x, np.int32))  # noqa: E731
    table = table_from(arrays["occ_phi"], arrays["occ_rho"], arrays["occ_n"]) if with_table else None
    places = real(arrays["cam_loc"].reshape(-1, 2)), real(arrays["obs_loc"].reshape(-1, 2)), real(arrays["obs_radius"])
    layout = layout_of(*places, whole(arrays["tgt_capacity"]), params, rules, table)
    # Counters of the load and what is remembered begin anew: the recordings do not have them.
    none = jnp.zeros(now["tgt_goal"].shape, jnp.int32)
    goals = np.maximum(now["tgt_goal"], 0)[..., None].astype(int)
    return State(
        layout=layout._replace(
            camera_radius=real(arrays["cam_radius"]),
            step_size=real(arrays["tgt_step_size"]),
            c2o=jnp.asarray(arrays["mask_c2o"], bool),
        ),
        orientation_deg=real(now["cam_orientation"]),
        viewing_angle_deg=real(now["cam_viewing_angle"]),
        target_loc=real(now["tgt_loc"]),
        goal=whole(now["tgt_goal"]),
        load=whole(np.take_along_axis(now["tgt_goal_bits"], goals, axis=-1)[..., 0]),
        empty_bits=jnp.asarray(now["tgt_empty_bits"], bool),
        freight=whole(now["freights"]),
        bounty=whole(now["bounties"]),
        remaining=whole(now["remaining_cargoes"]),
        awaiting=whole(now["awaiting_cargo_counts"]),
        delivered=whole(now["num_delivered"]),
        team_return=whole(now["target_episode_reward"]),
        delayed_return=whole(now["delayed_target_episode_reward"]),
        steps=whole(np.arange(len(arrays["num_delivered"]))[snapshot]),
        sight=Sight(
            c2t=jnp.asarray(now["mask_c2t"], bool),
            c2c=jnp.asarray(now["mask_c2c"], bool),
            t2c=jnp.asarray(now["mask_t2c"], bool),
            t2t=jnp.asarray(now["mask_t2t"], bool),
            t2o=jnp.asarray(now["mask_t2o"], bool),
        ),
        sighting=sightings.first(
            real(now["tgt_loc"]), jnp.asarray(now["tgt_goal"] >= 0), jnp.asarray(np.any(now["mask_c2t"], axis=-2))
        ),
        colliding=jnp.asarray(now["tgt_colliding"], bool),
        delivered_now=jnp.asarray(now["tgt_dones"], bool),
        steps_since_load=none,
        tracked_since_load=none,
    )


SNAPSHOT = (
    "cam_orientation", "cam_viewing_angle", "tgt_loc", "tgt_goal", "tgt_goal_bits", "tgt_empty_bits", "tgt_colliding",
    "tgt_dones", "freights", "bounties", "remaining_cargoes", "awaiting_cargo_counts", "num_delivered",
    "target_episode_reward", "delayed_target_episode_reward", "mask_c2t", "mask_c2c", "mask_t2c", "mask_t2t",
    "mask_t2o",
)  # fmt: skip
"""Entries of the format that make a state."""
