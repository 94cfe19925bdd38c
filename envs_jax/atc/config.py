"""The keys of `env` for `atc/...`: strict, documented, checked before anything is built."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.atc.params import ORIGIN, TYPES, Layout, NeighborSort, Rules
from envs_jax.atc.scenarios import CIRCLES, FIVE, MAX_STEPS, MAX_WIND_KT, NINE

GENERIC = "generic"
SCENARIOS = (*FIVE, *NINE, *CIRCLES, GENERIC)
Family = Literal["circle", "crossing", "merge", "chase", "converging", "lattice", "uniform"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class JitterConfig(_Strict):
    """Half widths of the uniform changes of every start."""

    position_nm: float = Field(2.0, ge=0, description="north and east, each")
    heading_deg: float = Field(10.0, ge=0, le=180)
    speed_kt: float = Field(15.0, ge=0)


class WindConfig(_Strict):
    dir_deg: float = Field(0.0, ge=0, lt=360, description="where it comes from")
    kt: float = Field(0.0, ge=0, le=MAX_WIND_KT)


class SensingConfig(_Strict):
    """Errors of what pilots are told, drawn anew in every step."""

    position_nm: float = Field(0.0, ge=0, description="standard deviation of reported positions, north and east")
    speed_kt: float = Field(0.0, ge=0, description="of reported airspeeds")
    dropout: float = Field(0.0, ge=0, le=1, description="probability that a pilot misses one neighbour")


class TrafficConfig(_Strict):
    """Random traffic of the scenario `generic`."""

    families: dict[Family, float] = Field(
        {
            "circle": 0.15,
            "crossing": 0.2,
            "merge": 0.2,
            "chase": 0.1,
            "converging": 0.15,
            "lattice": 0.1,
            "uniform": 0.1,
        },
        description="weights of the kinds of scene",
    )
    min_aircraft: int = Field(2, ge=1, le=32)
    max_aircraft: int = Field(6, ge=2, le=32)
    circle_radius_nm: float = Field(25.0, ge=8, le=60)
    circle_radius_spread: float = Field(0.0, ge=0, lt=1, description="circles are smaller by up to this share")
    square_nm: float = Field(40.0, ge=10, le=120, description="side of the square of `uniform`")
    speed_spread_kt: float = Field(25.0, ge=0, le=60)
    min_start_nm: float = Field(8.0, ge=5, description="between starts; who cannot keep it stays away")

    @model_validator(mode="after")
    def _consistent(self):
        if self.min_aircraft > self.max_aircraft:
            raise ValueError("min_aircraft must not exceed max_aircraft")
        if not self.families or min(self.families.values()) < 0 or sum(self.families.values()) <= 0:
            raise ValueError("families: weights must not be negative and not all zero")
        return self


class RewardConfig(_Strict):
    progress_reward_per_km: float = 0.04
    drift_improve_gain: float = 0.01
    drift_deadzone_deg: float = Field(8.0, ge=0, le=180)
    violation_entry_penalty: float = -25.0
    violation_step_scale: float = -1.0
    action_cost_per_unit: float = -0.01
    time_penalty_per_sec: float = -0.0005
    reach_reward: float = 10.0
    terminal_not_reached_penalty: float = -10.0


class AtcConfig(_Strict):
    """Aircraft at one level, each towards its waypoint, that must keep 5 NM apart."""

    preset: Literal["standard", "origin"] = Field("standard", description="origin: as the simulator-based original")
    scenario: str | None = Field(None, description="null: the one in the environment's name")
    scenario_file: str | None = Field(None, description="a JSON file instead of a named scenario")
    max_episode_steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="null: the scenario's")
    jitter: JitterConfig | Literal[0] | None = Field(
        None, description="of starts; 0: the nominal start, null: the scenario's, 0 in preset origin"
    )
    traffic: TrafficConfig = TrafficConfig()
    t_arm_nm: float | None = Field(None, gt=0, description="t_formation: other proportions, with the two below")
    t_stem_nm: float = Field(10.0, gt=0)
    t_stem_x_nm: float = -7.0
    speed_spread_kt: float = Field(0.0, ge=0, le=60, description="aircraft in trail: how much faster the last one is")
    aircraft_type: str | list[str] | None = Field(None, description="of all, or of each; null: the scenario's")
    wind: WindConfig | None = None
    steering: Literal["hold_heading", "hold_track"] | None = Field(None, description="null: the preset's")
    pad_to: int | None = Field(None, ge=2, le=64, description="aircraft of the arrays; those missing are masked")

    action: Literal["continuous", "discrete"] = Field("continuous", description="discrete: 5 turns x 3 speeds")
    action_deadband: tuple[float, float] | None = Field(
        None, description="deg, kt: smaller commands count as none; null: the preset's"
    )
    action_delay_steps: int = Field(0, ge=0, le=20)
    sensing: SensingConfig | None = Field(None, description="null: pilots see the truth")
    obs: Layout | None = Field(None, description="null: the preset's")
    neighbor_topk: int = Field(3, ge=1, le=63)
    neighbor_sort: NeighborSort = "distance"

    separation_nm: float = Field(5.0, gt=0)
    collision_nm: float = Field(3.0, gt=0)
    deep_breach_nm: float = Field(1.0, gt=0)
    safe_nm: float = Field(10.0, gt=0)
    waypoint_radius_nm: float = Field(1.0, gt=0)
    near_miss_nm: float = Field(0.5, gt=0)
    terminate_on_nm: float = Field(0.0, ge=0, description="0: no episode ends with a conflict")

    reward: RewardConfig = RewardConfig()
    drift_mode: Literal["signed", "positive", "origin"] | None = Field(None, description="null: the preset's")
    entry_per_pair: bool = Field(False, description="the entry penalty for every intruder instead of the first")
    team_coordination_weight: float = 0.6
    team_gamma: float | None = Field(
        None, ge=0, le=1, description="discount of the team potential: the learner's; null: 0.995, origin 0.99"
    )
    team_share_mode: Literal["equal", "responsibility", "neighbor"] | None = Field(None, description="null: preset's")
    team_ema: float = Field(0.05, ge=0, le=1, description="this and the two below: preset origin")
    team_cap: float = Field(0.05, ge=0)
    team_anneal: float = 1.0

    enable_hallucination_detection: bool = Field(False, description="score the alerts of evaluated pilots, too")

    @model_validator(mode="before")
    @classmethod
    def _number_zero(cls, data: Any) -> Any:
        """`jitter: 0.0` is the nominal start, too."""
        if isinstance(data, dict) and not isinstance(data.get("jitter"), bool) and data.get("jitter") == 0:
            return {**data, "jitter": 0}
        return data

    @model_validator(mode="after")
    def _consistent(self):
        if self.scenario is not None and self.scenario not in SCENARIOS:
            raise ValueError(f"scenario '{self.scenario}': known are {', '.join(SCENARIOS)}")
        if self.separation_nm >= self.safe_nm:
            raise ValueError("separation_nm must be below safe_nm")
        for name in [self.aircraft_type] if isinstance(self.aircraft_type, str) else self.aircraft_type or []:
            if name not in TYPES:
                raise ValueError(f"aircraft_type '{name}': known are {', '.join(TYPES)}")
        if self.action_deadband is not None and min(self.action_deadband) < 0:
            raise ValueError("action_deadband must not be negative")
        return self

    def rules(self, num_aircraft: int, windy: bool) -> Rules:
        """Static choices; keys that are null follow the preset."""
        preset = Rules(**ORIGIN) if self.preset == "origin" else Rules()
        steering = self.steering or preset.steering
        track = windy and steering == "hold_track"
        return preset._replace(
            num_aircraft=num_aircraft,
            neighbors=self.neighbor_topk,
            layout=self.obs or preset.layout,
            neighbor_sort=self.neighbor_sort,
            discrete=self.action == "discrete",
            delay_steps=self.action_delay_steps,
            kinematics="exact" if track else preset.kinematics,
            steering="hold_track" if track else "hold_heading",
            windy=windy,
            drift=self.drift_mode or preset.drift,
            entry_per_pair=self.entry_per_pair,
            team_share=self.team_share_mode or preset.team_share,
            bootstrap_at_horizon=self.reward.terminal_not_reached_penalty == 0,
        )

    def deadband(self) -> tuple[float, float]:
        """(deg, kt)"""
        return self.action_deadband or ((3.0, 3.0) if self.preset == "origin" else (0.0, 0.0))

    def gamma(self) -> float:
        if self.team_gamma is not None:
            return self.team_gamma
        return 0.99 if self.preset == "origin" else 0.995
