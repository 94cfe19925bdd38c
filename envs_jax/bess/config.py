"""The keys of `env` for `bess`: strict, documented, checked before anything is built."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from envs_jax.bess.days import Augmentation, Forecast
from envs_jax.bess.observations import Layout
from envs_jax.bess.params import PRESETS, ActionMode, Curtailment, Limits, ReserveMode, Rules, TerminalMode, WearModel
from envs_jax.paths import AbsolutePath

ALL_DAYS = "0001-01-01..9999-12-31"


def _year_as_text(value: Any) -> Any:
    """YAML reads a bare year as a number."""
    return str(value) if type(value) is int and 1000 <= value <= 9999 else value


Dates = Annotated[str, BeforeValidator(_year_as_text)]
DateRanges = Dates | list[Dates]
"""A range of dates or a list of them; `splits.select_split` says how they are written."""


class ReserveConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: ReserveMode = Field("auto", description="auto: all that is sustainable; action: second action dimension")
    source: Literal["auto", "column", "hourly_means", "synthetic", "ds3", "none"] = Field(
        "auto", description="auto: the table's column, else the 24 hourly means"
    )
    snsp_percent: float = Field(45.0, ge=0, le=100, description="wind and solar penetration for `ds3`")
    down: bool = Field(False, description="also offer downward capacity")
    activation: float = Field(0.0, ge=0, le=1, description="expected share of the offer that is called")


class BessConfig(BaseModel):
    """A PV + battery plant trading day-ahead; one episode is one local day of 24 hourly steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["default", "ie_paper"] = "default"
    limits: Limits = Field(Limits(), description="plant constants that differ from the preset")

    data_path: AbsolutePath | None = Field(
        None, description="CSV or parquet; null: the packaged Dutch prices of 2021 and 2022"
    )
    zone: str | None = Field(None, description="which bidding zone of a table with several")
    timezone: str = Field("Europe/Budapest", description="IANA name: where days begin and the clock changes")
    dst: Literal["drop", "repair", "strict"] = Field("drop", description="days on which the clock changes")
    missing_price: Literal["error", "drop"] = Field("error", description="drop: leave out days with an empty price")
    huf_per_eur: float | None = Field(None, gt=0, description="rate for a column price_huf_mwh")
    split: Literal["dates", "k_per_season"] = "dates"
    train_dates: DateRanges | None = Field(None, description="with no dates given: first 70 % of the days")
    val_dates: DateRanges | None = Field(None, description="with no dates given: next 15 %")
    test_dates: DateRanges | None = Field(None, description="with no dates given: last 15 %")
    k_per_season: int = Field(5, ge=1, description="days of each season in each split, drawn by split_seed")
    split_seed: int = Field(0, ge=0)
    synthetic_days: int = Field(0, ge=0, description="add this many days of the synthetic market to training")

    degradation_model: WearModel = "nonlinear"
    legacy_linear_wear: bool = Field(False, description="linear wear in full for both directions, as the origin did")
    legacy_accounting: bool = False
    action_mode: ActionMode = "peak_scalar"
    action_scale: Literal["rating", "feasible"] = "rating"
    peak_half_width: int = Field(1, ge=0, le=5)
    curtail: Curtailment = "poi_only"
    reserve: ReserveConfig = ReserveConfig()

    terminal: TerminalMode = "free"
    terminal_penalty_eur: float = Field(0.0, ge=0, description="EUR per unit of SOC, for terminal `penalty`")
    carry_days: int = Field(7, ge=1, description="days of an episode in terminal mode `carry`")
    soc_start: Literal["fixed", "uniform"] = Field("fixed", description="training starts; evaluation uses soc_init")

    reward_scale: float | Literal["auto", "per_day"] = Field(
        200.0, description="EUR per unit; auto: spread of the daily optimum; per_day: the day's price deviation"
    )
    reward_baseline: Literal["none", "idle"] = "none"
    content_value: Literal["end", "hourly"] = Field(
        "end", description="terminal `value` paid at midnight, or every hour for its change (same sum)"
    )
    clip_penalty_eur_per_mw: float = Field(0.0, ge=0)

    obs: Layout = "base20"
    obs_connection: bool = Field(False, description="add export room and charging supply (relative layouts lack PV)")
    normalization: Literal["parity", "fit"] = Field("fit", description="ranges of the origin, or of the training split")
    augmentation: Augmentation = Augmentation()
    forecast: Forecast = Forecast()
    calibration: dict[str, Any] | None = Field(
        None, description="what an earlier run fitted on its training split, to be used instead of fitting again"
    )

    @staticmethod
    def on_other_data(data_path: str, split: str) -> dict[str, Any]:
        """Settings that make all days of another table the days of a split (`test`, where there is no such)."""
        dates: dict[str, str | None] = dict.fromkeys(("train_dates", "val_dates", "test_dates"))
        dates[f"{split}_dates" if f"{split}_dates" in dates else "test_dates"] = ALL_DAYS
        return {"data_path": data_path, "split": "dates", **dates}

    @model_validator(mode="before")
    @classmethod
    def _merge_preset(cls, data: Any) -> Any:
        """Limits given in the configuration replace single constants of the preset."""
        name = data.get("preset", "default") if isinstance(data, dict) else None
        preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
        given = data.get("limits", {}) if isinstance(data, dict) else None
        if not preset or not isinstance(given, dict):
            return data
        groups = {name: given.get(name, {}) for name in {*preset, *given}}
        merged = {name: {**preset.get(name, {}), **g} if isinstance(g, dict) else g for name, g in groups.items()}
        return {**data, "limits": merged}

    @model_validator(mode="after")
    def _consistent(self):
        if isinstance(self.reward_scale, float | int) and self.reward_scale <= 0:
            raise ValueError(f"reward_scale {self.reward_scale} must be positive")
        if self.content_value == "hourly" and self.terminal != "value":
            raise ValueError("content_value hourly needs terminal value")
        if self.obs == "value" and self.terminal != "value":
            raise ValueError("obs value shows what content is worth after midnight and needs terminal value")
        if self.augmentation.log_scale_low > self.augmentation.log_scale_high:
            raise ValueError("augmentation.log_scale_low must not exceed log_scale_high")
        return self

    def rules(self) -> Rules:
        return Rules(
            wear=self.degradation_model,
            curtail=self.curtail,
            reserve=self.reserve.mode,
            reserve_down=self.reserve.down,
            reserve_activation=self.reserve.activation,
            action_mode=self.action_mode,
            action_scale=self.action_scale,
            peak_half_width=self.peak_half_width,
            terminal=self.terminal,
            terminal_penalty_eur=self.terminal_penalty_eur,
            legacy_accounting=self.legacy_accounting,
            fixed_pv_price=self.limits.res.ppa_price_eur_per_mwh is not None,
        )

    def effective_forecast(self) -> Forecast:
        """Layout `forecast` without a chosen model means persistence."""
        if self.obs == "forecast" and self.forecast.model == "none":
            return self.forecast.model_copy(update={"model": "persistence"})
        return self.forecast
