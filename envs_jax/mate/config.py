"""The keys of `env` for `mate/...`: strict, documented, checked before anything is built.

Reading order: what changes a preset (`CamerasConfig`, `TargetsConfig`, `ObstaclesConfig`), then `MateConfig`.
"""

import difflib
import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from envs_jax.mate.params import CAMERA_GAP, MAX_VIEWING_ANGLE_DEG, PRESETS, TERRAIN, Box, Occlusion, Preset
from envs_jax.mate.transforms import Sharing

Control = Literal["macro", "flat", "continuous"]
Learner = Literal["cameras", "targets", "both"]
SCRIPTED = "random", "naive", "greedy", "heuristic"
"""Players of both teams."""
GUEST = "run:"
"""What begins the name of an opponent that is the policy of a run."""

MIXED_IN = "guest"
"""What that policy is called among others."""

MACRO_FRAMES = 5
"""For which a selection of targets is held."""
_MOST = 64


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Placed(_Strict):
    """Who stands where; null: as in the preset."""

    num: int | None = Field(None, ge=0, le=_MOST, description="null: one per box; more take the boxes in turn")
    boxes: list[tuple[float, float] | Box] | None = Field(
        None, description="of each: a point [x, y], or [x low, x high, y low, y high]"
    )

    def placed(self, preset: Sequence[Box]) -> tuple[Box, ...]:
        boxes = preset if self.boxes is None else [_box(box) for box in self.boxes]
        num = len(boxes) if self.num is None else self.num
        if num and not boxes:
            raise ValueError(f"num {num}: the preset has no boxes for these; give boxes, too")
        return tuple(boxes[index % len(boxes)] for index in range(num))

    @field_validator("boxes")
    @classmethod
    def _on_the_terrain(cls, boxes):
        for box in boxes or []:
            low_x, high_x, low_y, high_y = _box(box)
            if low_x > high_x or low_y > high_y or max(map(abs, box)) > TERRAIN:
                raise ValueError(f"box {list(box)}: low must not exceed high, within {-TERRAIN:g} .. {TERRAIN:g}")
        return boxes


def _box(box: Sequence[float]) -> Box:
    return (box[0], box[0], box[1], box[1]) if len(box) == 2 else (box[0], box[1], box[2], box[3])


class CamerasConfig(_Placed):
    """Changes of the preset's cameras."""

    radius: float | None = Field(None, ge=0, le=TERRAIN)
    min_viewing_angle_deg: float | None = Field(None, gt=0, le=MAX_VIEWING_ANGLE_DEG)
    max_sight_range: float | None = Field(None, gt=0, le=2 * TERRAIN)
    rotation_step_deg: float | None = Field(None, gt=0, le=180)
    zooming_step_deg: float | None = Field(None, gt=0, le=180)


class TargetsConfig(_Placed):
    """Changes of the preset's targets."""

    step_size: float | None = Field(None, gt=0, le=2 * TERRAIN)
    sight_range: float | None = Field(None, ge=0, le=2 * TERRAIN)


class ObstaclesConfig(_Placed):
    """Changes of the preset's obstacles."""

    radius: tuple[float, float] | None = Field(None, description="[low, high] of a uniform draw")
    transmittance: float | None = Field(None, ge=0, le=1)

    @field_validator("radius")
    @classmethod
    def _ordered(cls, radius):
        if radius is not None and not 0 <= radius[0] <= radius[1] <= TERRAIN:
            raise ValueError(f"radius {list(radius)}: 0 <= low <= high <= {TERRAIN:g}")
        return radius


class MateConfig(_Strict):
    """Cameras that turn and zoom to keep targets in view, which carry cargo between warehouses (MATE)."""

    learner: Learner = Field("cameras", description="who is trained; the others are the opponent")
    opponent: str | dict[str, float] = Field(
        "greedy", description="random, naive, greedy, heuristic, run:DIR, or weights of several, drawn in every episode"
    )
    guest: str | None = Field(
        None, description="run:DIR, the policy that `guest` stands for among weights of opponents"
    )
    opponent_control: Control | None = Field(None, description="of a policy as opponent, as `control`")
    control: Control | None = Field(
        None,
        description="macro: a camera selects targets to watch; flat: a grid of motions; continuous. "
        "null: macro for cameras, flat for targets",
    )
    multi_selection: bool = Field(True, description="macro: any subset of the targets, else one or none")
    selection_head: Literal["subset", "factored"] | None = Field(
        None,
        description="macro, any subset: one choice among all of them, or yes or no for every target; null: subset with "
        "up to 8 targets",
    )
    mask_invalid: bool = Field(
        True, description="macro: only visible targets can be selected; false: any, and those count once they are seen"
    )
    frame_skip: int | None = Field(
        None, ge=1, le=1000, description="frames for which an action is held; null: 5 of macro, else 1"
    )
    discrete_levels: int = Field(5, ge=3, le=99, description="flat: values of each component, an odd number")
    horizon: int | None = Field(
        None, ge=1, description="frames after which an episode is truncated; null: the preset's"
    )

    reward_coefficients: dict[str, float] | None = Field(
        None, description="weights of the terms; null: coverage_rate 1 for cameras, raw_reward 1 for targets"
    )
    reward_reduction: Literal["mean", "sum", "max", "min", "none"] = Field("mean", description="over the agents")

    occlusion: Occlusion = Field("analytic", description="table: polylines as in the reference; slower")
    camera_view: Sharing = Field(
        "own",
        description="shared: what one sees, all see; remembered: and where they saw targets last; enhanced: everything",
    )
    target_view: Literal["own", "shared", "enhanced"] = "own"
    bearings: bool = Field(False, description="cameras see distance and angle from their axis of every target")
    relative: bool = Field(True, description="places as seen from the observer")
    rescale: bool = Field(True, description="values that have bounds between -1 and 1")
    zero_masked: bool = Field(True, description="rescaled values of what is hidden are zero")
    drop_index: bool = Field(True, description="observations without the observer's number")
    state_scale: bool = Field(True, description="cargo of the global state in batches instead of units")
    reset_pool: int = Field(0, ge=0, le=1_000_000, description="starts drawn once and used in turn; 0: always new ones")

    cameras: CamerasConfig = CamerasConfig()
    targets: TargetsConfig = TargetsConfig()
    obstacles: ObstaclesConfig = ObstaclesConfig()
    bounty_factor: float | None = Field(None, ge=0, le=1000, description="this and all below: null: the preset's")
    max_episode_steps: int | None = Field(None, ge=1, le=10_000_000)
    num_cargoes_per_target: int | None = Field(None, ge=1, le=10_000)
    high_capacity_target_split: float | None = Field(None, ge=0, le=1)
    targets_start_with_cargoes: bool | None = None
    reward_type: Literal["dense", "sparse"] | None = None
    shuffle_entities: bool | None = None

    @field_validator("opponent")
    @classmethod
    def _known(cls, opponent):
        weights = {opponent: 1.0} if isinstance(opponent, str) else opponent
        for name in weights:
            if isinstance(opponent, dict) and name.startswith(GUEST):
                raise ValueError(f"opponent {name} among others: say guest: {name}, and give `guest` the weight")
            if name not in (*SCRIPTED, *([MIXED_IN] if isinstance(opponent, dict) else ())) and name[:4] != GUEST:
                near = difflib.get_close_matches(name, SCRIPTED, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(SCRIPTED)} and run:DIR"
                raise ValueError(f"unknown opponent '{name}'; {hint}")
        if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ValueError("weights of opponents must not be negative and not all zero")
        return opponent

    @field_validator("discrete_levels")
    @classmethod
    def _odd(cls, levels):
        if levels % 2 == 0:
            raise ValueError("discrete_levels must be odd: the middle one is rest")
        return levels

    @model_validator(mode="after")
    def _consistent(self):
        mixed_in = isinstance(self.opponent, dict) and self.opponent.get(MIXED_IN, 0.0) > 0
        if mixed_in != (self.guest is not None):
            raise ValueError("guest is a run whose policy has a weight in opponent: give both or neither")
        if self.guest is not None and not self.guest.startswith(GUEST):
            raise ValueError(f"guest '{self.guest}': it is run:DIR, the policy of a run")
        if self.control == "macro" and self.learner != "cameras":
            raise ValueError(f"control macro is for cameras; learner {self.learner} has flat or continuous")
        if self.selection_head is not None and not self.multi_selection:
            raise ValueError(f"selection_head {self.selection_head}: it belongs to multi_selection: true")
        known = TERMS["cameras"] if self.learner == "both" else TERMS[self.learner]
        for name in self.reward_coefficients or {}:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
                raise ValueError(f"reward_coefficients: unknown term '{name}' of {self.learner}; {hint}")
        return self

    def preset(self, name: str) -> Preset:
        """The preset `name` with what the keys change.

        Raises:
            ValueError: an unknown preset, or placements that cannot be.
        """
        if name not in PRESETS:
            near = difflib.get_close_matches(name, PRESETS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(PRESETS)}"
            raise ValueError(f"unknown preset '{name}'; {hint}")
        base, cameras, targets, obstacles = PRESETS[name], self.cameras, self.targets, self.obstacles
        changes: dict[str, Any] = {
            "camera_radius": cameras.radius,
            "camera_min_viewing_angle_deg": cameras.min_viewing_angle_deg,
            "camera_max_sight_range": cameras.max_sight_range,
            "camera_rotation_step_deg": cameras.rotation_step_deg,
            "camera_zooming_step_deg": cameras.zooming_step_deg,
            "target_step_size": targets.step_size,
            "target_sight_range": targets.sight_range,
            "obstacle_radius": obstacles.radius,
            "obstacle_transmittance": obstacles.transmittance,
            **{field: getattr(self, field) for field in Preset._fields if field in type(self).model_fields},
        }
        preset = base._replace(
            camera_boxes=cameras.placed(base.camera_boxes),
            target_boxes=targets.placed(base.target_boxes),
            obstacle_boxes=obstacles.placed(base.obstacle_boxes),
            **{field: value for field, value in changes.items() if value is not None},
        )
        _require_room(preset)
        if not preset.target_boxes:
            raise ValueError("targets: there must be one at least")
        if self.learner != "targets" and not preset.camera_boxes:
            raise ValueError(f"{name} has no cameras to train: set learner: targets")
        return preset

    def controlled_by(self) -> Control:
        return self.control or ("macro" if self.learner == "cameras" else "flat")

    def held_frames(self) -> int:
        return self.frame_skip or (MACRO_FRAMES if self.controlled_by() == "macro" else 1)


TERMS: dict[str, tuple[str, ...]] = {
    "cameras": (
        "raw_reward", "coverage_rate", "real_coverage_rate", "mean_transport_rate", "soft_coverage_score",
        "num_tracked", "baseline",
    ),
    "targets": (
        "raw_reward", "coverage_rate", "real_coverage_rate", "mean_transport_rate", "normalized_goal_distance",
        "sparse_delivery", "soft_coverage_score", "is_tracked", "is_colliding", "baseline",
    ),
}  # fmt: skip
"""What the reward of a team can be made of."""


def _require_room(preset: Preset) -> None:
    """Raises ValueError where fixed places are so close that they always overlap."""
    groups = [("camera", preset.camera_boxes, preset.camera_radius)]
    groups.append(("obstacle", preset.obstacle_boxes, preset.obstacle_radius[0]))
    fixed = [
        (f"{kind} {index}", box[0], box[2], radius)
        for kind, boxes, radius in groups
        for index, box in enumerate(boxes)
        if box[0] == box[1] and box[2] == box[3]
    ]
    for index, (name, x, y, radius) in enumerate(fixed):
        for other, other_x, other_y, other_radius in fixed[:index]:
            apart, needed = math.hypot(x - other_x, y - other_y), radius + other_radius + CAMERA_GAP
            if apart < needed:
                raise ValueError(f"{other} and {name} overlap: {apart:g} apart, at least {needed:g} are needed")
