"""Perfect-foresight plans: the most a battery could have earned on days whose prices are known (section 9).

Reading order: the public functions (`perfect_foresight`, its cached form, `rolling_horizon`), the linear program and
its data by day, the bucket wear model (mixed-integer program, dynamic program, polishing), settlement.

Wear `none`, `linear` and `segment` is planned exactly. A linear program leaves three things to chance: charging and
discharging in one hour, and the two kinks min(charge, spilled PV) and min(charge, PV). Whether they were met is seen
in its solution; only days where one was not are solved again with binaries. Wear `nonlinear` and `cycle_curve` depends
on the running depth of discharge and is not convex: see `_bucket_program` and `_dynamic_program`.

Every plan is settled by the environment's own physics in float64, so its profit is that of a plan that can be carried
out. Terminal mode `carry` is planned like `free`: one day at a time, nothing is paid for what is left.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from envs_jax.bess.params import HOURS, SEGMENTS, Plant, Rules, WearModel
from envs_jax.bess.physics import (
    BUCKET_DEPTHS,
    BUCKET_FACTORS,
    DEPTH_TOLERANCE,
    RESERVE_HOLD_H,
    bucket_factor,
    curve_factor,
    fresh_battery,
    run_hour,
    segment_width_mwh,
    simulate_day,
    terminal_term_eur,
)
from envs_jax.bess.windows import NOON, peak_window

Method = Literal["auto", "lp", "milp", "dp"]

FORMAT_VERSION = 1
"""Part of the cache key: raise it when a change here changes plans."""

DP_LEVELS = 33
"""Levels of the SOC grid. With a 10-90 % window, 33 puts every edge of the bucket model on the grid: after polishing
the plan was within 0.1 EUR of the mixed-integer optimum on each of 20 days tried. Cycle-curve wear has no such edges:
there 65 levels found up to 1.1 EUR a day more."""

DP_DAYS_AT_ONCE = 16
"""Days per sweep of the dynamic program: the value tables of all hours stay near 100 MB."""

MILP_DAYS = 3
"""`auto` plans up to this many bucket-wear days by the mixed-integer program (seconds a day)."""

DEPTH_MARGIN = 1e-6
"""Kept below the bucket edges so that a plan stays in its bucket when carried out in float32."""

TOLERANCE_MW = 1e-6
"""Powers that differ by less are the same; far above the solver's own tolerance of 1e-7."""


class Plan(NamedTuple):
    """What to do on D days, and what it earns."""

    profit_eur: np.ndarray
    """[D] PV sales, arbitrage and reserve less wear, plus the terminal term of the rules."""
    power_mw: np.ndarray
    """[D, 24] discharge positive."""
    soc: np.ndarray
    """[D, 24] state of charge after each hour."""
    method: str
    """`lp` or `milp`: optimal; `dp`: a feasible plan, hence a lower bound of the optimum."""


def perfect_foresight(
    plant: Plant,
    rules: Rules,
    price_eur_per_mwh: np.ndarray,
    reserve_eur_per_mw_h: np.ndarray,
    pv_mw: np.ndarray,
    *,
    soc_start: float | np.ndarray | None = None,
    method: Method = "auto",
) -> Plan:
    """Best plan of every day when all its prices are known at midnight.

    Args:
        price_eur_per_mwh, reserve_eur_per_mw_h, pv_mw: [D, 24].
        soc_start: state of charge at midnight, scalar or [D]; default: the plant's `soc_init`.
        method: `lp` for wear none, linear and segment; `milp` or `dp` for nonlinear; `dp` for cycle_curve. `auto`
            takes the exact one, except for more than three days of nonlinear wear, which take `dp`.

    Raises:
        ValueError: inputs of another shape, not finite or negative reserve prices; a method that the wear model has
            not; an option without an exact model (`reserve_activation`, `legacy_accounting`).
    """
    days = _days(plant, rules, price_eur_per_mwh, reserve_eur_per_mw_h, pv_mw, soc_start=soc_start)
    chosen = _chosen_method(rules, len(days.soc_start), method)
    power_mw = {"lp": _linear_program, "milp": _bucket_program, "dp": _dynamic_program}[chosen](plant, rules, days)
    with jax.enable_x64(True):
        profit_eur, executed_mw, soc = _settle(plant, rules, power_mw, days)
    return Plan(np.asarray(profit_eur), np.asarray(executed_mw), np.asarray(soc), chosen)


def cached_perfect_foresight(
    cache_dir: str | os.PathLike,
    plant: Plant,
    rules: Rules,
    price_eur_per_mwh: np.ndarray,
    reserve_eur_per_mw_h: np.ndarray,
    pv_mw: np.ndarray,
    *,
    soc_start: float | np.ndarray | None = None,
    method: Method = "auto",
) -> Plan:
    """`perfect_foresight`, kept in `cache_dir` under a hash of everything that it depends on.

    A file that cannot be read, for instance after a crash of the machine, is computed anew and replaced.
    """
    start = plant.soc_init if soc_start is None else soc_start
    digest = hashlib.sha256(repr((FORMAT_VERSION, asdict(plant), rules, method)).encode())
    for values in (price_eur_per_mwh, reserve_eur_per_mw_h, pv_mw, start):
        array = np.ascontiguousarray(values, np.float64)
        digest.update(repr(array.shape).encode() + array.tobytes())
    path = Path(cache_dir) / f"perfect_foresight_{digest.hexdigest()[:32]}.npz"
    plan = _read_plan(path)
    if plan is None:
        plan = perfect_foresight(
            plant, rules, price_eur_per_mwh, reserve_eur_per_mw_h, pv_mw, soc_start=soc_start, method=method
        )
        _write_plan(path, plan)
    return plan


def rolling_horizon(
    plant: Plant,
    rules: Rules,
    seen_price: np.ndarray,
    seen_reserve: np.ndarray,
    seen_pv: np.ndarray,
    step: Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]],
    *,
    soc_start: float | np.ndarray | None = None,
) -> np.ndarray:
    """Plan the rest of the day at every hour with what is seen then, and carry out the first hour of the plan.

    Args:
        seen_price, seen_reserve, seen_pv: [D, 24, 24]; row h is the day [24] as seen at hour h (EUR/MWh, EUR/MW/h,
            MW). The terminal value and the peak windows are taken from the row's prices.
        step: `(hour, power_mw [D]) -> (soc [D], segments_mwh [D, 8])`: carries out one hour on all days.
        soc_start: as in `perfect_foresight`.

    Returns:
        The commanded powers [D, 24] in MW.

    Raises:
        ValueError: as in `perfect_foresight`, or a wear model that depends on the depth of discharge.
    """
    if _METHODS[rules.wear] != ("lp",):
        raise ValueError(f"rolling_horizon plans wear none, linear and segment, not {rules.wear}: choose one of these")
    power_mw = np.zeros(seen_price.shape[:2])
    soc, segments_mwh = soc_start, None
    reference: np.ndarray | None = None
    for hour in range(HOURS):
        days = _days(
            plant, rules, seen_price[:, hour], seen_reserve[:, hour], seen_pv[:, hour],
            soc_start=soc, first_hour=hour, segments_mwh=segments_mwh, soc_reference=reference,
        )  # fmt: skip
        reference = days.soc_reference
        power_mw[:, hour] = _linear_program(plant, rules, days)[:, 0]
        soc, segments_mwh = step(hour, power_mw[:, hour])
    return power_mw


_METHODS: dict[WearModel, tuple[str, ...]] = {
    "none": ("lp",), "linear": ("lp",), "segment": ("lp",), "nonlinear": ("milp", "dp"), "cycle_curve": ("dp",),
}  # fmt: skip


def _chosen_method(rules: Rules, num_days: int, method: Method) -> str:
    methods = _METHODS[rules.wear]
    if method == "auto":
        return methods[0] if len(methods) == 1 or num_days <= MILP_DAYS else "dp"
    if method not in methods:
        raise ValueError(f"no method {method} for wear {rules.wear}: use auto or {' or '.join(methods)}")
    return method


def _read_plan(path: Path) -> Plan | None:
    try:
        with np.load(path) as stored:
            return Plan(stored["profit_eur"], stored["power_mw"], stored["soc"], str(stored["method"]))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _write_plan(path: Path, plan: Plan) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file appears under its name only when complete: a kill while writing leaves the cache as it was.
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with open(unfinished, "wb") as file:
        np.savez(file, profit_eur=plan.profit_eur, power_mw=plan.power_mw, soc=plan.soc, method=np.str_(plan.method))
    os.replace(unfinished, path)


# ---- the linear program ----


class _Days(NamedTuple):
    """Data of D days for the hours first_hour..23, T of them."""

    first_hour: int
    price: np.ndarray
    """[D, T] EUR/MWh."""
    reserve: np.ndarray
    """[D, T] EUR/MW/h."""
    pv_mw: np.ndarray
    """[D, T] what `curtail` leaves before the connection limits."""
    mean_price: np.ndarray
    """[D] of the whole day."""
    may_charge: np.ndarray
    """[D, T] bool: what the action mode allows."""
    may_discharge: np.ndarray
    soc_start: np.ndarray
    """[D] before the first hour."""
    soc_reference: np.ndarray
    """[D] at midnight, for the terminal modes."""
    segments_mwh: np.ndarray
    """[D, 8] before the first hour."""


def _days(
    plant: Plant, rules: Rules, price, reserve, pv, *, soc_start=None, first_hour=0, segments_mwh=None,
    soc_reference=None,
) -> _Days:  # fmt: skip
    """Checked data of the hours first_hour..23 of days [D, 24]."""
    if rules.reserve_activation:
        raise ValueError("reserve_activation has no exact optimum model: set it to 0 to get a bound")
    if rules.legacy_accounting:
        raise ValueError("legacy_accounting has no exact optimum model: turn it off to get a bound")
    price, reserve, pv = (np.asarray(values, np.float64) for values in (price, reserve, pv))
    for name, values in (("price", price), ("reserve price", reserve), ("pv", pv)):
        if values.shape != price.shape or values.shape[1:] != (HOURS,) or not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite numbers [days, {HOURS}], got shape {values.shape}")
    if (reserve < 0).any() or (pv < 0).any():
        raise ValueError("reserve prices and pv must not be negative: clip them at 0")
    soc = np.broadcast_to(np.asarray(plant.soc_init if soc_start is None else soc_start, np.float64), len(price))
    if (soc < plant.soc_min - 1e-6).any() or (soc > plant.soc_max + 1e-6).any():
        raise ValueError(f"soc_start must lie in [soc_min, soc_max] = [{plant.soc_min}, {plant.soc_max}]")
    soc = np.clip(soc, plant.soc_min, plant.soc_max)
    if segments_mwh is None:
        with jax.enable_x64(True):
            segments_mwh = jax.vmap(lambda s: fresh_battery(plant, s).segments_mwh)(soc)
    free = np.ones_like(price, bool)
    in_window = np.asarray(jax.vmap(lambda p: peak_window(p, rules.peak_half_width))(price))
    peak_only = rules.action_mode == "peak_scalar"
    hours = np.s_[:, first_hour:]
    return _Days(
        first_hour=first_hour,
        price=price[hours],
        reserve=reserve[hours],
        pv_mw=np.where((rules.curtail == "negative_price") & (price < 0), 0.0, pv)[hours],
        mean_price=price.mean(axis=1),
        may_charge=(~in_window if peak_only else free)[hours],
        may_discharge=(in_window if peak_only else free)[hours],
        soc_start=soc,
        soc_reference=soc if soc_reference is None else soc_reference,
        segments_mwh=np.clip(segments_mwh, 0.0, segment_width_mwh(plant)).astype(np.float64),
    )


@dataclass(frozen=True)
class _Form:
    """Which parts a program has: these change its matrix, everything else changes costs and bounds only."""

    first_hour: int
    segments: bool
    reserve: bool
    reserve_down: bool
    spills: bool
    """Some PV may exceed the export limit."""
    fixed_pv_price: bool
    penalty: bool
    exclusive: bool = False
    """Binaries for what the relaxation leaves to chance."""
    depth: Literal["free", "bounded", "buckets"] = "free"


def _form(plant: Plant, rules: Rules, days: _Days) -> _Form:
    return _Form(
        first_hour=days.first_hour,
        segments=rules.wear == "segment",
        reserve=rules.reserve != "none",
        reserve_down=rules.reserve != "none" and rules.reserve_down,
        # PV beyond the limit matters where it is curtailed, or where charging from it makes room for reserve.
        spills=bool((days.pv_mw > plant.export_limit_mw).any())
        and (rules.curtail != "never" or rules.reserve != "none"),
        fixed_pv_price=rules.fixed_pv_price,
        penalty=rules.terminal == "penalty",
    )


class _Program(NamedTuple):
    """Columns by name (arrays of indices), constraints, and which columns are integers."""

    columns: dict[str, np.ndarray]
    constraints: LinearConstraint
    integrality: np.ndarray


class _Builder:
    """Collects named columns and sparse rows."""

    def __init__(self) -> None:
        self.columns: dict[str, np.ndarray] = {}
        self.integrality: list[np.ndarray] = []
        self.num_columns = self.num_rows = 0
        self.entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.low: list[np.ndarray] = []
        self.high: list[np.ndarray] = []

    def column(self, name: str, *shape: int, integer: bool = False) -> np.ndarray:
        """New columns of the given shape; returns their indices."""
        size = int(np.prod(shape))
        self.columns[name] = self.num_columns + np.arange(size).reshape(shape)
        self.num_columns += size
        self.integrality.append(np.full(size, int(integer)))
        return self.columns[name]

    def rows(self, low: float, terms: list[tuple[float | np.ndarray, np.ndarray]], high: float) -> None:
        """low <= sum of coefficient * columns <= high, one row for each first index; [n, k] columns are summed."""
        count = len(terms[0][1])
        for coefficient, columns in terms:
            table = columns.reshape(count, -1)
            row = np.repeat(self.num_rows + np.arange(count), table.shape[1])
            self.entries.append((np.broadcast_to(coefficient, columns.shape).ravel(), row, table.ravel()))
        self.low.append(np.full(count, low))
        self.high.append(np.full(count, high))
        self.num_rows += count

    def program(self) -> _Program:
        value, row, column = (np.concatenate(part) for part in zip(*self.entries, strict=True))
        matrix = sparse.csc_matrix((value, (row, column)), shape=(self.num_rows, self.num_columns))
        constraints = LinearConstraint(matrix, np.concatenate(self.low), np.concatenate(self.high))
        return _Program(self.columns, constraints, np.concatenate(self.integrality))


def _program(plant: Plant, form: _Form) -> _Program:
    """Constraints of section 9 for the hours first_hour..23. Energy is in MWh above soc_min, power in MW.

    Columns whose bounds are a single number carry the day's data (`export_room`, `spilled`, `pv`), so that one matrix
    serves all days.
    """
    b = _Builder()
    num_hours, parts = HOURS - form.first_hour, SEGMENTS if form.segments else 1
    window_mwh = (plant.soc_max - plant.soc_min) * plant.energy_mwh
    charge, discharge = b.column("charge", num_hours), b.column("discharge", num_hours)
    content = b.column("content", num_hours + 1, parts)
    if form.segments:
        charge_parts, discharge_parts = b.column("charge_parts", num_hours, parts), b.column("taken", num_hours, parts)
        b.rows(0, [(1, charge[:, None]), (-1, charge_parts)], 0)
        # `taken` is on the cell side, where the segment wear is charged.
        b.rows(0, [(1, discharge[:, None]), (-plant.discharge_efficiency, discharge_parts)], 0)
        drawn = (1.0, discharge_parts.ravel())
    else:
        charge_parts = charge
        drawn = (1 / plant.discharge_efficiency, discharge)
    filled = (-plant.charge_efficiency, charge_parts.ravel())
    b.rows(0, [(1, content[1:].ravel()), (-1, content[:-1].ravel()), filled, drawn], 0)

    minima = ([("absorbed", "spilled")] if form.spills else []) + ([("from_pv", "pv")] if form.fixed_pv_price else [])
    for name, other in minima:
        _add_minimum(b, name, charge, other, plant.max_charge_mw, form.exclusive)
    if form.exclusive:
        discharging = b.column("discharging", num_hours, integer=True)
        b.rows(-np.inf, [(1, charge), (plant.max_charge_mw, discharging)], plant.max_charge_mw)
        b.rows(-np.inf, [(1, discharge), (-plant.max_discharge_mw, discharging)], 0)
    if form.reserve:
        reserve, export_room = b.column("reserve", num_hours), b.column("export_room", num_hours)
        b.rows(-np.inf, [(1, reserve), (1, discharge)], plant.power_mw)
        b.rows(-np.inf, [(1, reserve[:, None]), (-plant.discharge_efficiency / RESERVE_HOLD_H, content[1:])], 0)
        refilled = [(1.0, b.columns["absorbed"])] if form.spills else []
        b.rows(-np.inf, [(1, reserve), (1, discharge), (-1, charge), (-1, export_room), *refilled], 0)
    if form.reserve_down:
        down, per_mwh = b.column("reserve_down", num_hours), 1 / (plant.charge_efficiency * RESERVE_HOLD_H)
        b.rows(-np.inf, [(1, down), (1, charge)], plant.power_mw)
        b.rows(-np.inf, [(1, down[:, None]), (per_mwh, content[1:])], window_mwh * per_mwh)
    if form.penalty:
        deviation, reference = b.column("deviation", 1), b.column("reference", 1)
        for sign in (1, -1):
            b.rows(0, [(1, deviation[:, None]), (sign, content[-1:]), (-sign, reference[:, None])], np.inf)
    if form.depth != "free":
        _add_depth(b, plant, content, form)
    return b.program()


def _add_minimum(b: _Builder, name: str, charge: np.ndarray, other: str, largest_mw: float, exact: bool) -> None:
    """Columns `name` <= min(charge, other), with equality if `exact`; `other` is data, at most `largest_mw`."""
    minimum, data = b.column(name, len(charge)), b.column(other, len(charge))
    b.rows(-np.inf, [(1, minimum), (-1, charge)], 0)
    b.rows(-np.inf, [(1, minimum), (-1, data)], 0)
    if exact:
        charge_is_larger = b.column(f"{name}_all", len(charge), integer=True)
        b.rows(-np.inf, [(1, charge), (-1, minimum), (-largest_mw, charge_is_larger)], 0)
        b.rows(-np.inf, [(1, data), (-1, minimum), (largest_mw, charge_is_larger)], largest_mw)


def _add_depth(b: _Builder, plant: Plant, content: np.ndarray, form: _Form) -> None:
    """Running depth of the half day in MWh: at most `depth` (bounded by the day's data, or by the hour's bucket)."""
    high, low, depth = (b.column(name, HOURS) for name in ("high", "low", "depth"))
    before, after = content[:-1, 0], content[1:, 0]
    continued = np.flatnonzero(np.arange(HOURS) % NOON)
    for edge in (before, after):
        b.rows(0, [(1, high), (-1, edge)], np.inf)
        b.rows(-np.inf, [(1, low), (-1, edge)], 0)
    b.rows(0, [(1, high[continued]), (-1, high[continued - 1])], np.inf)
    b.rows(-np.inf, [(1, low[continued]), (-1, low[continued - 1])], 0)
    b.rows(-np.inf, [(1, high), (-1, low), (-1, depth)], 0)
    if form.depth == "buckets":
        num, bounds = len(BUCKET_FACTORS), _bucket_bounds_mwh(plant)
        chosen, throughput = b.column("bucket", HOURS, num, integer=True), b.column("throughput", HOURS, num)
        b.rows(1, [(1, chosen)], 1)
        b.rows(-np.inf, [(1, depth[:, None]), (-bounds, chosen)], 0)
        power = np.stack([b.columns["charge"], b.columns["discharge"]], axis=1)
        b.rows(0, [(1, power), (-1, throughput)], 0)
        # Not needed for correctness: one hour's move is a depth of its own, and the running depth never shrinks. Both
        # rows bring the relaxation close to the integers (tens of times fewer branches).
        largest_mw = np.minimum(max(plant.max_charge_mw, plant.max_discharge_mw), bounds / plant.charge_efficiency)
        b.rows(-np.inf, [(1, throughput.ravel()), (-np.tile(largest_mw, HOURS), chosen.ravel())], 0)
        moved = np.array([plant.charge_efficiency, 1 / plant.discharge_efficiency])
        b.rows(-np.inf, [(moved, power), (-bounds, chosen)], 0)
        for size in range(1, num):
            b.rows(-np.inf, [(1, chosen[continued, :size]), (-1, chosen[continued - 1, :size])], 0)


def _bucket_bounds_mwh(plant: Plant) -> np.ndarray:
    """[6] largest depth of each bucket in MWh; the last is the whole window."""
    edges = np.array([*BUCKET_DEPTHS, np.inf]) - DEPTH_MARGIN
    return np.minimum(edges, plant.soc_max - plant.soc_min) * plant.energy_mwh


class _Throughput(NamedTuple):
    """Wear that is charged per MWh of throughput up to a depth of discharge: the bucket model with buckets chosen."""

    eur_per_mwh: np.ndarray
    """[D, T]."""
    depth_mwh: np.ndarray
    """[D, T]; infinite where nothing is bounded."""


def _costs_and_bounds(plant: Plant, rules: Rules, form: _Form, days: _Days, program: _Program, wear: _Throughput):
    """Costs (negative revenues), lower and upper bounds, each [D, columns]."""
    column = program.columns
    num_days = len(days.soc_start)
    cost, low, high = (np.zeros((num_days, len(program.integrality))) for _ in range(3))

    def fix(name: str, values: np.ndarray) -> None:
        low[:, column[name].ravel()] = high[:, column[name].ravel()] = values.reshape(num_days, -1)

    def limit(name: str, values) -> None:
        high[:, column[name].ravel()] = np.reshape(values, (len(values), -1)) if np.ndim(values) else values

    pv_price = plant.ppa_price_eur_per_mwh if rules.fixed_pv_price else days.price
    spilled_mw = np.maximum(days.pv_mw - plant.export_limit_mw, 0.0)
    room_mw = np.maximum(plant.export_limit_mw - days.pv_mw, 0.0)
    cost[:, column["charge"]] = days.price + wear.eur_per_mwh
    cost[:, column["discharge"]] = -days.price + wear.eur_per_mwh
    limit("charge", np.minimum(plant.max_charge_mw, days.pv_mw + plant.import_limit_mw) * days.may_charge)
    limit("discharge", np.minimum(plant.max_discharge_mw, room_mw) * days.may_discharge)

    parts = SEGMENTS if form.segments else 1
    limit("content", (plant.soc_max - plant.soc_min) * plant.energy_mwh / parts)
    whole_mwh = (days.soc_start[:, None] - plant.soc_min) * plant.energy_mwh
    start = days.segments_mwh if form.segments else whole_mwh
    low[:, column["content"][0]] = high[:, column["content"][0]] = start
    if form.segments:
        limit("charge_parts", np.inf)
        limit("taken", np.inf)
        cost[:, column["taken"]] = plant.segment_cost_eur_per_mwh
    if form.spills:
        limit("absorbed", np.inf)
        fix("spilled", np.minimum(spilled_mw, plant.max_charge_mw))
        # Charging from PV that the connection cannot take forgoes no sale.
        cost[:, column["absorbed"]] = 0.0 if rules.curtail == "never" else -pv_price
    if form.fixed_pv_price:
        limit("from_pv", np.inf)
        fix("pv", np.minimum(days.pv_mw, plant.max_charge_mw))
        cost[:, column["from_pv"]] = plant.ppa_price_eur_per_mwh - days.price
    if form.reserve:
        limit("reserve", np.inf)
        fix("export_room", room_mw)
        cost[:, column["reserve"]] = -days.reserve
    if form.reserve_down:
        limit("reserve_down", np.inf)
        cost[:, column["reserve_down"]] = -days.reserve
    if rules.terminal == "value":
        cost[:, column["content"][-1]] = -(plant.discharge_efficiency * days.mean_price)[:, None]
    if form.penalty:
        limit("deviation", np.inf)
        fix("reference", (days.soc_reference - plant.soc_min) * plant.energy_mwh)
        cost[:, column["deviation"]] = rules.terminal_penalty_eur / plant.energy_mwh
    if form.depth != "free":
        limit("high", np.inf)
        limit("low", np.inf)
        limit("depth", wear.depth_mwh)
    if form.depth == "buckets":
        limit("throughput", np.inf)
        cost[:, column["throughput"]] = np.array(BUCKET_FACTORS) * plant.cycle_cost_eur_per_mwh / 2
    high[:, program.integrality > 0] = 1.0
    return cost, low, high


def _solve(plant: Plant, rules: Rules, form: _Form, days: _Days, wear: _Throughput) -> dict[str, np.ndarray]:
    """Optimal columns by name, each [D, ...]: relaxed first, with binaries where the relaxation broke a rule."""
    program = _program(plant, form)
    solution = _optimal_columns(program, *_costs_and_bounds(plant, rules, form, days, program, wear))
    broken = np.flatnonzero(_breaks_a_rule(form, program, solution))
    if len(broken):
        exact, rest = replace(form, exclusive=True), _pick(days, broken)
        rest_wear = _Throughput(*(values[broken] for values in wear))
        program_exact = _program(plant, exact)
        data = _costs_and_bounds(plant, rules, exact, rest, program_exact, rest_wear)
        solved = _optimal_columns(program_exact, *data)
        for name, columns in program.columns.items():
            solution[np.ix_(broken, columns.ravel())] = solved[:, program_exact.columns[name].ravel()]
    return {name: solution[:, columns] for name, columns in program.columns.items()}


def _optimal_columns(program: _Program, cost: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """[D, columns] by HiGHS, day by day."""
    solution = np.empty_like(cost)
    for day in range(len(cost)):
        result = milp(
            cost[day],
            integrality=program.integrality,
            bounds=Bounds(low[day], high[day]),
            constraints=program.constraints,
            options={"mip_rel_gap": 0.0},
        )
        if result.x is None:
            raise RuntimeError(f"the solver found no plan for day {day}: {result.message}")
        solution[day] = result.x
    return solution


def _breaks_a_rule(form: _Form, program: _Program, solution: np.ndarray) -> np.ndarray:
    """[D] bool: charging while discharging, or a minimum that is not one."""
    column = {name: solution[:, columns] for name, columns in program.columns.items()}
    broken = np.minimum(column["charge"], column["discharge"]) > TOLERANCE_MW
    if form.spills:
        broken |= column["absorbed"] < np.minimum(column["charge"], column["spilled"]) - TOLERANCE_MW
    if form.fixed_pv_price:
        broken |= column["from_pv"] < np.minimum(column["charge"], column["pv"]) - TOLERANCE_MW
    return broken.any(axis=1)


def _pick(days: _Days, index: np.ndarray) -> _Days:
    return _Days(days.first_hour, *(values[index] for values in days[1:]))


def _linear_program(plant: Plant, rules: Rules, days: _Days) -> np.ndarray:
    """Optimal powers [D, T] in MW for wear none, linear or segment."""
    rate = plant.linear_cost_eur_per_mwh if rules.wear == "linear" else 0.0
    wear = _Throughput(np.full_like(days.price, rate), np.full_like(days.price, np.inf))
    columns = _solve(plant, rules, _form(plant, rules, days), days, wear)
    return columns["discharge"] - columns["charge"]


# ---- wear by running depth of discharge ----


def _bucket_program(plant: Plant, rules: Rules, days: _Days) -> np.ndarray:
    """Optimal powers [D, 24] in MW for bucket wear, with one binary per hour and bucket."""
    nothing = _Throughput(np.zeros_like(days.price), np.full_like(days.price, np.inf))
    form = replace(_form(plant, rules, days), depth="buckets")
    bucket = _solve(plant, rules, form, days, nothing)["bucket"].argmax(axis=2)
    # The solver's integrality tolerance leaks some throughput into cheaper buckets: with the buckets fixed it cannot.
    return _polish(plant, rules, days, _bucket_wear(plant, bucket))


def _bucket_wear(plant: Plant, bucket: np.ndarray) -> _Throughput:
    factor = np.array(BUCKET_FACTORS)[bucket]
    return _Throughput(factor * plant.cycle_cost_eur_per_mwh / 2, _bucket_bounds_mwh(plant)[bucket])


def _polish(plant: Plant, rules: Rules, days: _Days, wear: _Throughput) -> np.ndarray:
    """Optimal powers [D, 24] given a wear rate and a largest depth for every hour: a linear program."""
    columns = _solve(plant, rules, replace(_form(plant, rules, days), depth="bounded"), days, wear)
    return columns["discharge"] - columns["charge"]


def _dynamic_program(plant: Plant, rules: Rules, days: _Days) -> np.ndarray:
    """Powers [D, 24] in MW for wear by running depth: best path on an SOC grid, then polished off the grid.

    State: SOC, lowest and highest SOC of the half day. Days with the same SOC at midnight are swept together.
    """
    path = np.empty((len(days.soc_start), HOURS + 1))
    for soc_start in np.unique(days.soc_start):
        same = np.flatnonzero(days.soc_start == soc_start)
        levels = _levels(plant, soc_start)
        for first in range(0, len(same), DP_DAYS_AT_ONCE):
            chunk = same[first : first + DP_DAYS_AT_ONCE]
            path[chunk] = levels[_path_on_grid(plant, rules, _pick(days, chunk), levels)]
    return _polish(plant, rules, days, _wear_along(plant, rules, path))


def _levels(plant: Plant, soc_start: float) -> np.ndarray:
    """[N] states of charge of the grid: regular, and the start where that lies between."""
    return np.union1d(np.linspace(plant.soc_min, plant.soc_max, DP_LEVELS), soc_start)


def _wear_along(plant: Plant, rules: Rules, path: np.ndarray) -> _Throughput:
    """Wear rates and depths of SOC paths [D, 25]."""
    half_days = [path[:, : NOON + 1], path[:, NOON:]]
    high, low = (
        np.concatenate([extreme.accumulate(half, axis=1)[:, 1:] for half in half_days], axis=1)
        for extreme in (np.maximum, np.minimum)
    )
    depth = high - low
    if rules.wear == "nonlinear":
        return _bucket_wear(plant, np.searchsorted(np.array(BUCKET_DEPTHS) + DEPTH_TOLERANCE, depth))
    return _Throughput(_depth_cost(plant, rules, depth), depth * plant.energy_mwh)


def _depth_cost(plant: Plant, rules: Rules, depth: np.ndarray) -> np.ndarray:
    """EUR per MWh of throughput at a running depth."""
    with jax.enable_x64(True):
        factor = bucket_factor(depth) if rules.wear == "nonlinear" else curve_factor(plant, depth)
    return np.asarray(factor) * plant.cycle_cost_eur_per_mwh / 2


class _Moves(NamedTuple):
    """What the moves between N levels earn; levels before and after an hour are called i and j."""

    gain: np.ndarray
    """[24, N(i), N(j), D] EUR less wear, over an idle battery; minus infinity where the move is not possible."""
    wear: np.ndarray
    """[N(i), N(j), N(low), N(high)] EUR, given the lowest and highest level of the half day before the move."""
    terminal: np.ndarray
    """[N, D] EUR."""


def _path_on_grid(plant: Plant, rules: Rules, days: _Days, levels: np.ndarray) -> np.ndarray:
    """Level [D, 25] before the day and after each hour of the best path; all days start at the same level."""
    start = int(np.searchsorted(levels, days.soc_start[0]))
    moves = _grid_moves(plant, rules, days, levels, start)
    return _best_path(moves, _values_after(moves), start)


def _grid_moves(plant: Plant, rules: Rules, days: _Days, levels: np.ndarray, start: int) -> _Moves:
    cell_mwh = (levels[:, None] - levels[None, :]) * plant.energy_mwh
    command_mw = np.where(cell_mwh > 0, cell_mwh * plant.discharge_efficiency, cell_mwh / plant.charge_efficiency)
    with jax.enable_x64(True):
        gain, terminal = map(np.asarray, _grid_gain(plant, rules, levels, command_mw, days))
    direction = np.sign(command_mw)[..., None]
    allowed = np.where(direction > 0, days.may_discharge.T[:, None, None], days.may_charge.T[:, None, None])
    gain = np.where(allowed | (direction == 0), gain, -np.inf)
    # Single precision is enough once the revenue of an idle battery is gone.
    gain = gain - gain[:, start, start][:, None, None]
    low, high = _extremes_after(len(levels))
    wear = np.abs(command_mw)[:, :, None, None] * _depth_cost(plant, rules, levels[high] - levels[low])
    return _Moves(gain.astype(np.float32), wear.astype(np.float32), terminal.astype(np.float32))


def _extremes_after(num: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest level after a move to j, each [N(j), N(low), N(high)]."""
    index = np.arange(num)
    low, high = np.minimum(index[:, None], index), np.maximum(index[:, None], index)
    return np.broadcast_to(low[:, :, None], (num,) * 3), np.broadcast_to(high[:, None, :], (num,) * 3)


def _values_after(moves: _Moves) -> list[np.ndarray]:
    """For every hour, the best that can follow it [N(j), N(low), N(high), D], by the extremes before its move.

    Written with loops over i and j: only the extremes that i allows are touched, and the rest is long vectors.
    """
    num, num_days = moves.terminal.shape
    shape = (num, num, num, num_days)
    index = np.arange(num)
    extremes = _extremes_after(num)
    after = np.broadcast_to(moves.terminal[:, None, None], shape)
    tables = [after]
    for hour in range(HOURS - 1, 0, -1):
        value = np.full(shape, -np.inf, np.float32)
        possible = np.isfinite(moves.gain[hour]).any(axis=-1)
        for i in range(num):
            low, high = slice(0, i + 1), slice(i, num)
            best = value[i, low, high]
            for j in np.flatnonzero(possible[i]):
                candidate = moves.gain[hour, i, j] - moves.wear[i, j, low, high, None]
                candidate += after[j, low, high]
                np.maximum(best, candidate, out=best)
        if hour % NOON == 0:  # the extremes restart with the level before this hour
            after = np.broadcast_to(value[index, index, index][:, None, None], shape)
        else:
            after = value[(index[:, None, None], *extremes)]
        tables.append(after)
    return tables[::-1]


def _best_path(moves: _Moves, values_after: list[np.ndarray], start: int) -> np.ndarray:
    """[D, 25] levels along the best moves."""
    num_days = moves.terminal.shape[1]
    path = np.full((num_days, HOURS + 1), start)
    day = np.arange(num_days)
    low = high = path[:, 0]
    for hour, after in enumerate(values_after):
        now = path[:, hour]
        if hour % NOON == 0:
            low = high = now
        total = moves.gain[hour, now, :, day] - moves.wear[now, :, low, high] + after[:, low, high, day].T
        path[:, hour + 1] = total.argmax(axis=1)
        low, high = np.minimum(low, path[:, hour + 1]), np.maximum(high, path[:, hour + 1])
    return path


@partial(jax.jit, static_argnames="rules")
def _grid_gain(plant: Plant, rules: Rules, levels, command_mw, days: _Days):
    """Profit [24, N, N, D] in EUR of the moves that the plant can carry out, without wear, and terminal term [N, D]."""
    no_wear = rules._replace(wear="none")

    def move(soc, power_mw, hour, pv_mw, price, reserve):
        _, outcome = run_hour(plant, no_wear, fresh_battery(plant, soc), hour, power_mw, pv_mw, price, reserve)
        return jnp.where(outcome.clipped_mw < TOLERANCE_MW, outcome.profit_eur, -jnp.inf)

    over_days = jax.vmap(move, (None, None, None, 0, 0, 0))
    over_ends = jax.vmap(over_days, (None, 0, None, None, None, None))
    over_starts = jax.vmap(over_ends, (0, 0, None, None, None, None))
    over_hours = jax.vmap(over_starts, (None, None, 0, 1, 1, 1))
    gain = over_hours(levels, command_mw, jnp.arange(HOURS), days.pv_mw, days.price, days.reserve)
    end_over_days = jax.vmap(partial(terminal_term_eur, plant, rules), (0, 0, None))
    terminal = jax.vmap(end_over_days, (None, None, 0))(days.price, days.soc_start, levels)
    return gain, terminal


# ---- settlement ----


@partial(jax.jit, static_argnames="rules")
def _settle(plant: Plant, rules: Rules, power_mw, days: _Days):
    """Profit [D] in EUR with the terminal term, executed powers and states of charge [D, 24]."""

    def day(power, pv, price, reserve, soc_start):
        objective_eur, hours, soc = simulate_day(plant, rules, power, pv, price, reserve, soc_start)
        return objective_eur, hours.power_mw, soc

    return jax.vmap(day)(power_mw, days.pv_mw, days.price, days.reserve, days.soc_start)
