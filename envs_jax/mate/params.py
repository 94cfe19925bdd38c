"""Constants, presets, static rules and numbers of the camera worlds (MATE, Pan et al., NeurIPS 2022, version 0.1.0).

Reading order: world constants, placement boxes, `Preset` and the table of presets, then the two things that a preset
becomes: `Rules` (static: what decides shapes and which code is traced) and `Params` (numbers, a pytree).

Lengths are in world units, angles in degrees, times in frames.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TERRAIN = 1000.0
"""Half width of the square terrain."""
NUM_WAREHOUSES = 4
WAREHOUSE_RADIUS = 75.0
"""Half width of a warehouse, which is a square."""
WAREHOUSES = 925.0 * np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
"""Centres, (4, 2)."""
MAX_VIEWING_ANGLE_DEG = 180.0

CAMERA_GAP = 20.0
"""Least free space between what stands on the terrain when an episode starts: cameras and obstacles."""
WAREHOUSE_DISC = 0.75 * WAREHOUSE_RADIUS
"""Radius of the phantom disc that keeps a warehouse's centre free."""
MAX_REDRAWS = 500
"""Placements tried for an entity."""

Box = tuple[float, float, float, float]
"""x low, x high, y low, y high; a fixed point has equal bounds."""
Occlusion = Literal["analytic", "table"]


def _quadrants(low: float, high: float) -> tuple[Box, ...]:
    """One box per corner, in the order of the reference's files."""
    return (low, high, low, high), (low, high, -high, -low), (-high, -low, -high, -low), (-high, -low, low, high)


def _point(x: float, y: float) -> Box:
    return x, x, y, y


_CENTRE: Box = (-200.0, 200.0, -200.0, 200.0)
_EDGES: tuple[Box, ...] = (
    (900.0, 900.0, -500.0, 500.0),
    (-500.0, 500.0, 900.0, 900.0),
    (-900.0, -900.0, -500.0, 500.0),
    (-500.0, 500.0, -900.0, -900.0),
)
_CAMERAS: dict[int, tuple[Box, ...]] = {
    0: (),
    1: (_point(0.0, 0.0),),
    2: (_point(-300.0, -300.0), _point(300.0, 300.0)),
    4: _quadrants(500.0, 800.0),
    8: (
        *_quadrants(700.0, 850.0),
        (500.0, 600.0, -100.0, 100.0),
        (-100.0, 100.0, 500.0, 600.0),
        (-600.0, -500.0, -100.0, 100.0),
        (-100.0, 100.0, -600.0, -500.0),
    ),
}
_OBSTACLES: dict[int, tuple[Box, ...]] = {
    0: (),
    9: (*_quadrants(200.0, 800.0), *_EDGES, _CENTRE),
    32: (*_quadrants(200.0, 800.0) * 2, *_EDGES * 2, *(_CENTRE,) * 8, *((-900.0, 900.0, -900.0, 900.0),) * 8),
}


class Preset(NamedTuple):
    """Everything that makes a camera world, as plain Python values; the defaults are those of the reference."""

    camera_boxes: tuple[Box, ...]
    """Where each camera is placed."""
    target_boxes: tuple[Box, ...]
    obstacle_boxes: tuple[Box, ...]
    camera_radius: float = 40.0
    """A disc that blocks movement and no sight."""
    camera_min_viewing_angle_deg: float = 30.0
    camera_max_sight_range: float = 1500.0
    """At the smallest viewing angle."""
    camera_rotation_step_deg: float = 5.0
    camera_zooming_step_deg: float = 2.5
    target_step_size: float = 20.0
    """Longest step of a target of capacity 1; one of capacity 2 does half of it."""
    target_sight_range: float = 500.0
    obstacle_radius: tuple[float, float] = (25.0, 100.0)
    """Uniform between these."""
    obstacle_transmittance: float = 0.1
    """Probability that a blocked view passes, in every frame and for every pair."""
    bounty_factor: float = 1.0
    """Bounty of a unit of cargo as a multiple of its freight."""
    max_episode_steps: int = 10_000
    """An episode is cut after one frame more than this (strict inequality in the reference)."""
    num_cargoes_per_target: int = 8
    high_capacity_target_split: float = 0.5
    """Share of the targets that carry two units, rounded down."""
    targets_start_with_cargoes: bool = True
    reward_type: Literal["dense", "sparse"] = "dense"
    """sparse: the targets lose what their delivery lost of its bounty when they deliver, not frame by frame."""
    shuffle_entities: bool = True
    """Which entity stands in which box, and which targets carry two units, is drawn."""


def _preset(cameras: int, targets: int, obstacles: int) -> Preset:
    return Preset(
        camera_boxes=_CAMERAS[cameras],
        target_boxes=(_CENTRE,) * targets,
        obstacle_boxes=_OBSTACLES[obstacles],
        camera_max_sight_range=1000.0 if cameras == 8 else 1500.0,
    )


PRESETS: dict[str, Preset] = {
    **{
        f"{cameras}v{targets}-{obstacles}": _preset(cameras, targets, obstacles)
        for cameras, targets in ((1, 1), (1, 2), (2, 2), (2, 4), (4, 2), (4, 4), (4, 8), (8, 8))
        for obstacles in (0, 9)
    },
    "Navigation": _preset(0, 8, 32)._replace(targets_start_with_cargoes=False, reward_type="sparse"),
}
"""By name, without the reference's prefix `MATE-`."""


class Rules(NamedTuple):
    """Static choices: shapes, and which code is traced. C cameras, T targets, O obstacles."""

    num_cameras: int
    num_targets: int
    num_obstacles: int
    num_high_capacity: int
    num_cargoes: int
    """Units of one batch of cargo, 8 T by default."""
    fan: int
    """Most directions between the tangents of an obstacle in an occlusion table, less one."""
    start_loaded: bool = True
    sparse_reward: bool = False
    shuffle_entities: bool = True
    occlusion: Occlusion = "analytic"
    outlines: bool = False
    """Outlines of the fields of view are kept, which soft coverage needs."""

    @property
    def camera_observation_size(self) -> int:
        return 22 + 5 * self.num_targets + 4 * self.num_obstacles + 7 * self.num_cameras

    @property
    def target_observation_size(self) -> int:
        return 27 + 7 * self.num_cameras + 4 * self.num_obstacles + 5 * self.num_targets

    @property
    def global_state_size(self) -> int:
        return 29 + 9 * self.num_cameras + 16 * self.num_targets + 3 * self.num_obstacles


class Params(NamedTuple):
    """Numbers of a world; scalars unless said. Under `batch_last` every leaf has one axis more, at the end."""

    camera_boxes: jax.Array
    """(C, 4), see `Box`"""
    target_boxes: jax.Array
    """(T, 4)"""
    obstacle_boxes: jax.Array
    """(O, 4)"""
    camera_radius: jax.Array
    camera_min_viewing_angle_deg: jax.Array
    camera_max_sight_range: jax.Array
    camera_rotation_step_deg: jax.Array
    camera_zooming_step_deg: jax.Array
    target_step_size: jax.Array
    target_sight_range: jax.Array
    obstacle_radius_low: jax.Array
    obstacle_radius_high: jax.Array
    transmittance: jax.Array
    freight_scale: jax.Array
    """int32, freight of one unit of cargo."""
    bounty_scale: jax.Array
    """int32, bounty of one unit of cargo."""
    max_team_reward: jax.Array
    """What the targets earn if they deliver one batch of cargo and are never seen."""
    max_episode_steps: jax.Array
    """int32"""
    horizon: jax.Array
    """int32, frames after which an episode is truncated; at least `max_episode_steps` + 1: no horizon of its own."""


def rules_of(preset: Preset, occlusion: Occlusion = "analytic", outlines: bool = False) -> Rules:
    num_targets = len(preset.target_boxes)
    return Rules(
        num_cameras=len(preset.camera_boxes),
        num_targets=num_targets,
        num_obstacles=len(preset.obstacle_boxes),
        num_high_capacity=int(preset.high_capacity_target_split * num_targets),
        num_cargoes=preset.num_cargoes_per_target * num_targets,
        fan=_fan(preset),
        start_loaded=preset.targets_start_with_cargoes,
        sparse_reward=preset.reward_type == "sparse",
        shuffle_entities=preset.shuffle_entities,
        occlusion=occlusion,
        outlines=outlines,
    )


def _fan(preset: Preset) -> int:
    """Two directions per degree of the largest obstacle's half width from the nearest camera, at least 16."""
    radius = preset.obstacle_radius[1]
    half_deg = math.degrees(math.asin(radius / max(radius + preset.camera_radius + CAMERA_GAP, 1e-9)))
    return max(16, math.floor(2 * half_deg))


def params_of(preset: Preset, horizon: int | None = None) -> Params:
    """Numbers of a preset, floats in the default precision.

    Args:
        horizon: frames of a shorter episode than the preset's; None: none.
    """
    freight = math.ceil(2.0 * TERRAIN / preset.target_step_size)
    bounty = math.ceil(freight * preset.bounty_factor)
    number = lambda x: jnp.asarray(x, float)  # noqa: E731
    boxes = lambda x: jnp.asarray(np.reshape(x, (-1, 4)), float)  # noqa: E731
    return Params(
        camera_boxes=boxes(preset.camera_boxes),
        target_boxes=boxes(preset.target_boxes),
        obstacle_boxes=boxes(preset.obstacle_boxes),
        camera_radius=number(preset.camera_radius),
        camera_min_viewing_angle_deg=number(preset.camera_min_viewing_angle_deg),
        camera_max_sight_range=number(preset.camera_max_sight_range),
        camera_rotation_step_deg=number(preset.camera_rotation_step_deg),
        camera_zooming_step_deg=number(preset.camera_zooming_step_deg),
        target_step_size=number(preset.target_step_size),
        target_sight_range=number(preset.target_sight_range),
        obstacle_radius_low=number(preset.obstacle_radius[0]),
        obstacle_radius_high=number(preset.obstacle_radius[1]),
        transmittance=number(preset.obstacle_transmittance),
        freight_scale=jnp.asarray(freight, jnp.int32),
        bounty_scale=jnp.asarray(bounty, jnp.int32),
        max_team_reward=number((freight + bounty) * preset.num_cargoes_per_target * len(preset.target_boxes)),
        max_episode_steps=jnp.asarray(preset.max_episode_steps, jnp.int32),
        horizon=jnp.asarray(min(horizon or preset.max_episode_steps + 1, preset.max_episode_steps + 1), jnp.int32),
    )
