"""Plans for wear by the running depth of discharge (`nonlinear`, `cycle_curve`), which is not convex (section 9).

Reading order: the bucket program (exact, for nonlinear wear) and its rows, polishing, the dynamic program on a grid of
states of charge. Both plans end in `_polish`: with the wear rate and the largest depth of every hour fixed, the rest is
a linear program.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.bess.linear_program import (
    TOLERANCE_MW,
    BoundsAndCosts,
    Builder,
    Days,
    Extension,
    Throughput,
    form_of,
    pick_days,
    solve,
)
from envs_jax.bess.params import HOURS, Plant, Rules
from envs_jax.bess.physics import (
    BUCKET_DEPTHS,
    BUCKET_FACTORS,
    DEPTH_TOLERANCE,
    bucket_factor,
    curve_factor,
    fresh_battery,
    run_hour,
    terminal_term_eur,
)
from envs_jax.bess.windows import NOON

DP_LEVELS = 33
"""Levels of the SOC grid. With a 10-90 % window, 33 puts every edge of the bucket model on the grid: after polishing
the plan was within 0.1 EUR of the mixed-integer optimum on each of 20 days tried. Cycle-curve wear has no such edges:
there 65 levels found up to 1.1 EUR a day more."""

DP_DAYS_AT_ONCE = 16
"""Days per sweep of the dynamic program: the value tables of all hours stay near 100 MB."""

DEPTH_MARGIN = 1e-6
"""Kept below the bucket edges so that a plan stays in its bucket when carried out in float32."""

CONTINUED_HOURS = np.flatnonzero(np.arange(HOURS) % NOON)
"""Hours whose running depth continues that of the hour before: it restarts at midnight and at noon."""


def bucket_program(plant: Plant, rules: Rules, days: Days) -> np.ndarray:
    """Optimal powers [D, 24] in MW for bucket wear, with one binary per hour and bucket."""
    nothing = Throughput(np.zeros_like(days.price), np.full_like(days.price, np.inf))
    form = replace(form_of(plant, rules, days), extension=_BUCKETS)
    bucket = solve(plant, rules, form, days, nothing)["bucket"].argmax(axis=2)
    # The solver's integrality tolerance leaks some throughput into cheaper buckets: with the buckets fixed it cannot.
    return _polish(plant, rules, days, _bucket_wear(plant, bucket))


def _add_depth(b: Builder, plant: Plant) -> None:
    """Running depth of the half day in MWh, [24]: at most `depth`, which data or the hour's bucket bound."""
    high, low, depth = (b.column(name, HOURS) for name in ("high", "low", "depth"))
    content = b.columns["content"]
    before, after = content[:-1, 0], content[1:, 0]
    for edge in (before, after):
        b.rows(0, [(1, high), (-1, edge)], np.inf)
        b.rows(-np.inf, [(1, low), (-1, edge)], 0)
    b.rows(0, [(1, high[CONTINUED_HOURS]), (-1, high[CONTINUED_HOURS - 1])], np.inf)
    b.rows(-np.inf, [(1, low[CONTINUED_HOURS]), (-1, low[CONTINUED_HOURS - 1])], 0)
    b.rows(-np.inf, [(1, high), (-1, low), (-1, depth)], 0)


def _depth_data(plant: Plant, wear: Throughput) -> BoundsAndCosts:
    """Upper bounds and costs of the columns of `_add_depth`."""
    return {"high": (np.inf, 0.0), "low": (np.inf, 0.0), "depth": (wear.depth_mwh, 0.0)}


def _add_buckets(b: Builder, plant: Plant) -> None:
    """One bucket [24, 6] for every hour, which bounds its depth and takes its throughput in MWh."""
    _add_depth(b, plant)
    num, bounds = len(BUCKET_FACTORS), _bucket_bounds_mwh(plant)
    chosen, throughput = b.column("bucket", HOURS, num, integer=True), b.column("throughput", HOURS, num)
    b.rows(1, [(1, chosen)], 1)
    b.rows(-np.inf, [(1, b.columns["depth"][:, None]), (-bounds, chosen)], 0)
    power = np.stack([b.columns["charge"], b.columns["discharge"]], axis=1)
    b.rows(0, [(1, power), (-1, throughput)], 0)
    # Not needed for correctness: one hour's move is a depth of its own, and the running depth never shrinks. Both
    # rows bring the relaxation close to the integers (tens of times fewer branches).
    largest_mw = np.minimum(max(plant.max_charge_mw, plant.max_discharge_mw), bounds / plant.charge_efficiency)
    b.rows(-np.inf, [(1, throughput.ravel()), (-np.tile(largest_mw, HOURS), chosen.ravel())], 0)
    moved = np.array([plant.charge_efficiency, 1 / plant.discharge_efficiency])
    b.rows(-np.inf, [(moved, power), (-bounds, chosen)], 0)
    for size in range(1, num):
        b.rows(-np.inf, [(1, chosen[CONTINUED_HOURS, :size]), (-1, chosen[CONTINUED_HOURS - 1, :size])], 0)


def _bucket_data(plant: Plant, wear: Throughput) -> BoundsAndCosts:
    """Upper bounds and costs of the columns of `_add_buckets`."""
    eur_per_mwh = np.array(BUCKET_FACTORS) * plant.cycle_cost_eur_per_mwh / 2
    return {**_depth_data(plant, wear), "throughput": (np.inf, eur_per_mwh)}


_DEPTH = Extension(_add_depth, _depth_data)
_BUCKETS = Extension(_add_buckets, _bucket_data)


def _bucket_bounds_mwh(plant: Plant) -> np.ndarray:
    """[6] largest depth of each bucket in MWh; the last is the whole window."""
    edges = np.array([*BUCKET_DEPTHS, np.inf]) - DEPTH_MARGIN
    return np.minimum(edges, plant.soc_max - plant.soc_min) * plant.energy_mwh


def _bucket_wear(plant: Plant, bucket: np.ndarray) -> Throughput:
    """Wear rates and depths of chosen buckets [D, 24]."""
    factor = np.array(BUCKET_FACTORS)[bucket]
    return Throughput(factor * plant.cycle_cost_eur_per_mwh / 2, _bucket_bounds_mwh(plant)[bucket])


def _polish(plant: Plant, rules: Rules, days: Days, wear: Throughput) -> np.ndarray:
    """Optimal powers [D, 24] given a wear rate and a largest depth for every hour: a linear program."""
    columns = solve(plant, rules, replace(form_of(plant, rules, days), extension=_DEPTH), days, wear)
    return columns["discharge"] - columns["charge"]


def dynamic_program(plant: Plant, rules: Rules, days: Days) -> np.ndarray:
    """Powers [D, 24] in MW for wear by running depth: best path on an SOC grid, then polished off the grid.

    State: SOC, lowest and highest SOC of the half day. Days with the same SOC at midnight are swept together.
    """
    path = np.empty((len(days.soc_start), HOURS + 1))
    for soc_start in np.unique(days.soc_start):
        same = np.flatnonzero(days.soc_start == soc_start)
        levels = _levels(plant, soc_start)
        for first in range(0, len(same), DP_DAYS_AT_ONCE):
            chunk = same[first : first + DP_DAYS_AT_ONCE]
            path[chunk] = levels[_path_on_grid(plant, rules, pick_days(days, chunk), levels)]
    return _polish(plant, rules, days, _wear_along(plant, rules, path))


def _levels(plant: Plant, soc_start: float) -> np.ndarray:
    """[N] states of charge of the grid: regular, and the start where that lies between."""
    return np.union1d(np.linspace(plant.soc_min, plant.soc_max, DP_LEVELS), soc_start)


def _wear_along(plant: Plant, rules: Rules, path: np.ndarray) -> Throughput:
    """Wear rates and depths of SOC paths [D, 25]."""
    half_days = [path[:, : NOON + 1], path[:, NOON:]]
    high, low = (
        np.concatenate([extreme.accumulate(half, axis=1)[:, 1:] for half in half_days], axis=1)
        for extreme in (np.maximum, np.minimum)
    )
    depth = high - low
    if rules.wear == "nonlinear":
        return _bucket_wear(plant, np.searchsorted(np.array(BUCKET_DEPTHS) + DEPTH_TOLERANCE, depth))
    return Throughput(_depth_cost(plant, rules, depth), depth * plant.energy_mwh)


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


def _path_on_grid(plant: Plant, rules: Rules, days: Days, levels: np.ndarray) -> np.ndarray:
    """Level [D, 25] before the day and after each hour of the best path; all days start at the same level."""
    start = int(np.searchsorted(levels, days.soc_start[0]))
    moves = _grid_moves(plant, rules, days, levels, start)
    return _best_path(moves, _values_after(moves), start)


def _grid_moves(plant: Plant, rules: Rules, days: Days, levels: np.ndarray, start: int) -> _Moves:
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
def _grid_gain(plant: Plant, rules: Rules, levels, command_mw, days: Days):
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
