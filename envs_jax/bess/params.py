"""What a `bess` plant is made of and which rules apply to it.

Reading order: `Limits` (plant constants, the keys of a limits file), presets, `Plant` (the same as a pytree of
numbers that jit and vmap see), `Rules` (static choices that decide which code is traced).
"""

import itertools
from typing import Literal, NamedTuple

from flax import struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

HOURS = 24
SEGMENTS = 8
"""Number of state-of-charge segments of the `segment` wear model."""

CYCLE_LIFE_EXPONENT = 1.774
"""b in N(d) = N_ref * (d_ref / d)**b, full cycles to the end of life at depth d."""

WearModel = Literal["none", "linear", "nonlinear", "cycle_curve", "segment"]
TerminalMode = Literal["free", "value", "penalty", "carry"]
Curtailment = Literal["never", "negative_price", "poi_only"]
ActionMode = Literal["peak_scalar", "signed"]
ReserveMode = Literal["auto", "action", "none"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BatteryLimits(_Strict):
    power_rating_mw: float = Field(1.5, gt=0, description="converter rating, AC side, both directions")
    energy_capacity_mwh: float = Field(3.5, gt=0, description="capacity that the state of charge refers to")
    soc_min: float = Field(0.10, ge=0, le=1)
    soc_max: float = Field(0.90, ge=0, le=1)
    soc_init: float = Field(0.50, ge=0, le=1, description="state of charge at the start of a day")
    charge_efficiency: float = Field(0.97, gt=0, le=1)
    discharge_efficiency: float = Field(0.97, gt=0, le=1)
    max_charge_rate: float = Field(1.0, gt=0, le=1, description="share of the rating")
    max_discharge_rate: float = Field(1.0, gt=0, le=1, description="share of the rating")
    storage_duration_hours: float | None = Field(None, gt=0, description="informative: must equal energy/power")

    @model_validator(mode="after")
    def _consistent(self):
        if self.soc_min >= self.soc_max:
            raise ValueError(f"soc_min {self.soc_min} must be below soc_max {self.soc_max}")
        if not self.soc_min <= self.soc_init <= self.soc_max:
            raise ValueError(f"soc_init {self.soc_init} must lie in [{self.soc_min}, {self.soc_max}]")
        hours = self.energy_capacity_mwh / self.power_rating_mw
        if self.storage_duration_hours is not None and abs(self.storage_duration_hours / hours - 1) > 0.01:
            raise ValueError(f"storage_duration_hours {self.storage_duration_hours} is not energy/power = {hours:.3f}")
        return self


class PvLimits(_Strict):
    pv_ac_capacity_mw: float = Field(15.0, ge=0, description="AC clip")
    pv_dc_capacity_mw: float = Field(34.2, ge=0, description="DC peak")
    dc_ac_ratio: float | None = Field(None, gt=0, description="informative: must equal DC/AC")
    inverter_efficiency: float = Field(0.97, gt=0, le=1)
    solar_annual_degradation_percent: float = Field(0.5, ge=0, lt=100)
    solar_age_years: float = Field(0.0, ge=0)
    total_loss_percent: float = Field(2.0, ge=0, lt=100, description="cabling, transformer, unavailability")
    ppa_price_eur_per_mwh: float | None = Field(None, description="fixed price for PV sold to the grid; null: market")

    @model_validator(mode="after")
    def _consistent(self):
        ratio = self.pv_dc_capacity_mw / self.pv_ac_capacity_mw if self.pv_ac_capacity_mw else None
        if self.dc_ac_ratio is not None and ratio is not None and abs(self.dc_ac_ratio / ratio - 1) > 0.01:
            raise ValueError(f"dc_ac_ratio {self.dc_ac_ratio} is not pv_dc/pv_ac = {ratio:.3f}")
        return self


class GridLimits(_Strict):
    poi_power_limit_mw: float = Field(16.5, gt=0, description="export limit at the connection point")
    total_inverter_rating_mw: float = Field(17.0, gt=0, description="must be at least poi_power_limit_mw")
    allow_grid_import: bool = Field(True, description="false: charge only from PV surplus")
    max_grid_import_mw: float = Field(1.5, ge=0)

    @model_validator(mode="after")
    def _consistent(self):
        if self.total_inverter_rating_mw < self.poi_power_limit_mw:
            raise ValueError("total_inverter_rating_mw must be at least poi_power_limit_mw")
        return self


class DegradationLimits(_Strict):
    capex_eur_per_mwh: float = Field(175_000.0, ge=0, description="replacement cost of cells per MWh of capacity")
    dod_max_for_cost: float = Field(0.80, gt=0, le=1)
    n_cycles_at_dod_max: float = Field(5000.0, gt=0)
    dod_avg_for_linear: float = Field(0.60, gt=0, le=1)
    n_cycles_avg_for_linear: float = Field(6000.0, gt=0)


class Limits(_Strict):
    """Plant constants (section 2 of the specification): the nested keys of a limits file."""

    bess: BatteryLimits = BatteryLimits()
    res: PvLimits = PvLimits()
    grid: GridLimits = GridLimits()
    degradation: DegradationLimits = DegradationLimits()


PRESETS: dict[str, dict[str, dict[str, float]]] = {
    "default": {},
    # Cardo-Miota et al., Applied Energy 388 (2025) 125561: Irish plant, PV under a fixed PPA.
    "ie_paper": {
        "bess": {
            "power_rating_mw": 1.0, "energy_capacity_mwh": 1.0,
            "charge_efficiency": 0.95, "discharge_efficiency": 0.95,
        },
        "res": {"pv_ac_capacity_mw": 7.0, "pv_dc_capacity_mw": 7.0, "ppa_price_eur_per_mwh": 73.0},
        "grid": {"poi_power_limit_mw": 6.0, "total_inverter_rating_mw": 6.0, "max_grid_import_mw": 1.0},
        "degradation": {"capex_eur_per_mwh": 200_000.0},
    },
}  # fmt: skip


@struct.dataclass
class Plant:
    """`Limits` as a pytree of scalars in the unit of their names: mappable for sizing and domain randomisation."""

    power_mw: float
    energy_mwh: float
    soc_min: float
    soc_max: float
    soc_init: float
    charge_efficiency: float
    discharge_efficiency: float
    max_charge_mw: float
    max_discharge_mw: float
    pv_ac_mw: float
    export_limit_mw: float
    import_limit_mw: float
    """0 when import is not allowed."""
    cycle_cost_eur_per_mwh: float
    """C_cyc: wear per MWh of full-depth cycled energy, capex / (d_ref * N_ref)."""
    linear_cost_eur_per_mwh: float
    """Wear per MWh of AC throughput in the linear model."""
    reference_depth: float
    ppa_price_eur_per_mwh: float
    """Fixed price of PV sold to the grid, used when `Rules.fixed_pv_price`."""
    segment_cost_eur_per_mwh: tuple[float, ...]
    """Wear per MWh taken from each of the eight segments, cell side."""


class Rules(NamedTuple):
    """Static choices: they decide which code is traced and are hashable."""

    wear: WearModel = "nonlinear"
    curtail: Curtailment = "poi_only"
    reserve: ReserveMode = "auto"
    reserve_down: bool = False
    reserve_activation: float = 0.0
    """Expected share of the offered reserve that is called and leaves the battery before the next hour."""
    action_mode: ActionMode = "peak_scalar"
    action_scale: Literal["rating", "feasible"] = "rating"
    peak_half_width: int = 1
    terminal: TerminalMode = "free"
    terminal_penalty_eur: float = 0.0
    """EUR per unit of |final - initial state of charge| in terminal mode `penalty`."""
    legacy_accounting: bool = False
    """Reproduce the origin's power limits without efficiency and reserve from the state before the hour."""
    fixed_pv_price: bool = False
    """PV sold to the grid earns `ppa_price_eur_per_mwh` instead of the market price."""


def limits_of(preset: str, overrides: dict | None = None) -> Limits:
    """The preset's limits with nested overrides such as ``{"grid": {"poi_power_limit_mw": 8.0}}`` on top."""
    groups = {group: dict(values) for group, values in PRESETS[preset].items()}
    for group, values in (overrides or {}).items():
        groups[group] = {**groups.get(group, {}), **values} if isinstance(values, dict) else values
    return Limits.model_validate(groups)


def plant_of(limits: Limits, legacy_linear_wear: bool = False) -> Plant:
    """Numbers the physics works with. `legacy_linear_wear` charges both directions in full (48.61 EUR/MWh)."""
    b, g, d = limits.bess, limits.grid, limits.degradation
    linear = d.capex_eur_per_mwh / (d.dod_avg_for_linear * d.n_cycles_avg_for_linear)
    # Marginal cost of deepening a cycle by one segment, from the cycle-life curve: piecewise linear in depth.
    width = (b.soc_max - b.soc_min) / SEGMENTS
    life_used = [
        (i * width / d.dod_max_for_cost) ** CYCLE_LIFE_EXPONENT / d.n_cycles_at_dod_max for i in range(SEGMENTS + 1)
    ]
    return Plant(
        power_mw=b.power_rating_mw,
        energy_mwh=b.energy_capacity_mwh,
        soc_min=b.soc_min,
        soc_max=b.soc_max,
        soc_init=b.soc_init,
        charge_efficiency=b.charge_efficiency,
        discharge_efficiency=b.discharge_efficiency,
        max_charge_mw=b.power_rating_mw * b.max_charge_rate,
        max_discharge_mw=b.power_rating_mw * b.max_discharge_rate,
        pv_ac_mw=limits.res.pv_ac_capacity_mw,
        export_limit_mw=g.poi_power_limit_mw,
        import_limit_mw=g.max_grid_import_mw if g.allow_grid_import else 0.0,
        cycle_cost_eur_per_mwh=d.capex_eur_per_mwh / (d.dod_max_for_cost * d.n_cycles_at_dod_max),
        linear_cost_eur_per_mwh=linear * (1.0 if legacy_linear_wear else 0.5),
        reference_depth=d.dod_max_for_cost,
        ppa_price_eur_per_mwh=limits.res.ppa_price_eur_per_mwh or 0.0,
        segment_cost_eur_per_mwh=tuple(
            d.capex_eur_per_mwh * (deep - shallow) / width for shallow, deep in itertools.pairwise(life_used)
        ),
    )


def pv_ac_from_capacity_factor(limits: Limits, capacity_factor):
    """AC power in MW from a capacity factor of the DC peak (section 2): losses, age, then the AC clip."""
    r = limits.res
    dc_mw = capacity_factor * r.pv_dc_capacity_mw
    aged = (1 - r.solar_annual_degradation_percent / 100) ** r.solar_age_years
    return (dc_mw * r.inverter_efficiency * (1 - r.total_loss_percent / 100) * aged).clip(0, r.pv_ac_capacity_mw)
