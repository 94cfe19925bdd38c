"""The linear program behind a perfect-foresight plan: exact for wear none, linear and segment (section 9).

Reading order: the data of the days, the builder, the form of a program, its constraints, its costs and bounds, solving.

A linear program leaves three things to chance: charging and discharging in one hour, and the two kinks
min(charge, spilled PV) and min(charge, PV). Whether they were met is seen in its solution; only days where one was not
are solved again with binaries. Other wear models add their columns and rows to the same program by an `Extension`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from envs_jax.bess.params import HOURS, SEGMENTS, Plant, Rules
from envs_jax.bess.physics import RESERVE_HOLD_H

TOLERANCE_MW = 1e-6
"""Powers that differ by less are the same; far above the solver's own tolerance of 1e-7."""


class Days(NamedTuple):
    """Data of D days for the hours first_hour..23, T of them."""

    first_hour: int
    """T is 24 - first_hour."""
    price: np.ndarray
    """[D, T] EUR/MWh."""
    reserve: np.ndarray
    """[D, T] EUR/MW/h."""
    pv_mw: np.ndarray
    """[D, T] MW: what `curtail` leaves before the connection limits."""
    mean_price: np.ndarray
    """[D] EUR/MWh, of the whole day."""
    may_charge: np.ndarray
    """[D, T] bool: what the action mode allows."""
    may_discharge: np.ndarray
    """[D, T] bool."""
    soc_start: np.ndarray
    """[D] state of charge before the first hour."""
    soc_reference: np.ndarray
    """[D] state of charge at midnight, for the terminal modes."""
    segments_mwh: np.ndarray
    """[D, 8] MWh in each layer before the first hour."""


def pick_days(days: Days, index: np.ndarray) -> Days:
    """The days at the indices [K]."""
    return Days(days.first_hour, *(values[index] for values in days[1:]))


class Throughput(NamedTuple):
    """Wear that is charged per MWh of throughput up to a depth of discharge."""

    eur_per_mwh: np.ndarray
    """[D, T] EUR per MWh of charging or discharging at the connection side."""
    depth_mwh: np.ndarray
    """[D, T] MWh: largest depth of the half day so far; infinite where nothing is bounded."""


class _Program(NamedTuple):
    """Columns by name (arrays of indices), constraints, and which columns are integers."""

    columns: dict[str, np.ndarray]
    constraints: LinearConstraint
    integrality: np.ndarray


class Builder:
    """Collects named columns (MW or MWh, one per hour where not said otherwise) and sparse rows."""

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
        """All columns and rows so far."""
        value, row, column = (np.concatenate(part) for part in zip(*self.entries, strict=True))
        matrix = sparse.csc_matrix((value, (row, column)), shape=(self.num_rows, self.num_columns))
        constraints = LinearConstraint(matrix, np.concatenate(self.low), np.concatenate(self.high))
        return _Program(self.columns, constraints, np.concatenate(self.integrality))


BoundsAndCosts = dict[str, tuple[float | np.ndarray, float | np.ndarray]]
"""By name of a column: upper bound, a number or [D, T], and cost in EUR per unit, broadcast to the column. Columns left
out cost nothing and are bounded by 0, binaries by 1."""


class Extension(NamedTuple):
    """What a wear model adds after the shared columns and rows."""

    add: Callable[[Builder, Plant], None]
    """Adds columns and rows to a builder that holds `charge`, `discharge` [T] in MW and `content` [T + 1, parts] in
    MWh above soc_min."""
    bounds_and_costs: Callable[[Plant, Throughput], BoundsAndCosts]
    """Called once for the data of D days."""


@dataclass(frozen=True)
class Form:
    """Which parts a program has: these change its matrix, everything else changes costs and bounds only."""

    first_hour: int
    """Hours first_hour..23 are planned, T of them."""
    segments: bool
    """Content in eight layers of their own cost."""
    reserve: bool
    reserve_down: bool
    spills: bool
    """Some PV may exceed the export limit."""
    fixed_pv_price: bool
    penalty: bool
    exclusive: bool = False
    """Binaries for what the relaxation leaves to chance."""
    extension: Extension | None = None


def form_of(plant: Plant, rules: Rules, days: Days) -> Form:
    """The parts that the rules and the PV of these days ask for, relaxed and without extension."""
    return Form(
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


def _program(plant: Plant, form: Form) -> _Program:
    """Constraints of section 9 for the hours first_hour..23. Energy is in MWh above soc_min, power in MW.

    Columns whose bounds are a single number carry the day's data (`export_room`, `spilled`, `pv`), so that one matrix
    serves all days.
    """
    b = Builder()
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
    if form.extension:
        form.extension.add(b, plant)
    return b.program()


def _add_minimum(b: Builder, name: str, charge: np.ndarray, other: str, largest_mw: float, exact: bool) -> None:
    """Columns `name` <= min(charge, other), with equality if `exact`; `other` is data, at most `largest_mw`."""
    minimum, data = b.column(name, len(charge)), b.column(other, len(charge))
    b.rows(-np.inf, [(1, minimum), (-1, charge)], 0)
    b.rows(-np.inf, [(1, minimum), (-1, data)], 0)
    if exact:
        charge_is_larger = b.column(f"{name}_all", len(charge), integer=True)
        b.rows(-np.inf, [(1, charge), (-1, minimum), (-largest_mw, charge_is_larger)], 0)
        b.rows(-np.inf, [(1, data), (-1, minimum), (largest_mw, charge_is_larger)], largest_mw)


def _costs_and_bounds(plant: Plant, rules: Rules, form: Form, days: Days, program: _Program, wear: Throughput):
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
    if form.extension:
        for name, (largest, eur_per_unit) in form.extension.bounds_and_costs(plant, wear).items():
            limit(name, largest)
            cost[:, column[name]] = eur_per_unit
    high[:, program.integrality > 0] = 1.0
    return cost, low, high


def solve(plant: Plant, rules: Rules, form: Form, days: Days, wear: Throughput) -> dict[str, np.ndarray]:
    """Optimal columns by name, relaxed first, with binaries where the relaxation broke a rule.

    Returns:
        Arrays [D, *shape of the column]: powers and reserve [D, T] in MW, `content` [D, T + 1, parts] in MWh.

    Raises:
        RuntimeError: the solver ended without a plan.
    """
    program = _program(plant, form)
    solution = _optimal_columns(program, *_costs_and_bounds(plant, rules, form, days, program, wear))
    broken = np.flatnonzero(_breaks_a_rule(form, program, solution))
    if len(broken):
        exact, rest = replace(form, exclusive=True), pick_days(days, broken)
        rest_wear = Throughput(*(values[broken] for values in wear))
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


def _breaks_a_rule(form: Form, program: _Program, solution: np.ndarray) -> np.ndarray:
    """[D] bool: charging while discharging, or a minimum that is not one."""
    column = {name: solution[:, columns] for name, columns in program.columns.items()}
    broken = np.minimum(column["charge"], column["discharge"]) > TOLERANCE_MW
    if form.spills:
        broken |= column["absorbed"] < np.minimum(column["charge"], column["spilled"]) - TOLERANCE_MW
    if form.fixed_pv_price:
        broken |= column["from_pv"] < np.minimum(column["charge"], column["pv"]) - TOLERANCE_MW
    return broken.any(axis=1)


def linear_program(plant: Plant, rules: Rules, days: Days) -> np.ndarray:
    """Optimal powers [D, T] in MW for wear none, linear or segment."""
    rate = plant.linear_cost_eur_per_mwh if rules.wear == "linear" else 0.0
    wear = Throughput(np.full_like(days.price, rate), np.full_like(days.price, np.inf))
    columns = solve(plant, rules, form_of(plant, rules, days), days, wear)
    return columns["discharge"] - columns["charge"]
