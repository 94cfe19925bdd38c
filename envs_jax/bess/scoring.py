"""Scores of recorded evaluation days: against doing nothing, the rules of practice and perfect foresight.

The score is a ratio of sums over days, (profit - idle) / (optimum - idle). Daily ratios are never averaged: days on
which idling is optimal would blow them up.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from envs_jax.base import Reporter, Score, Scorer
from envs_jax.bess import physics
from envs_jax.bess.baselines import BASELINES
from envs_jax.bess.config import BessConfig
from envs_jax.bess.data import MarketDays
from envs_jax.bess.observations import view_at
from envs_jax.bess.optimum import Plan, cached_perfect_foresight, perfect_foresight, rolling_horizon
from envs_jax.bess.params import HOURS, Plant, Rules
from envs_jax.bess.rainflow import rainflow_wear_eur
from envs_jax.bess.report import hourly_table, one_case_per_season, season_name
from envs_jax.bess.table import DataError


class Reference(NamedTuple):
    """What a split's days could have earned: EUR per day [D], terminal term included."""

    idle_eur: np.ndarray
    baselines_eur: dict[str, np.ndarray]
    optimum: Plan | None
    """None where no exact model of the plant's options exists."""


def daily_profit_eur(plant: Plant, rules: Rules, command_mw, market: MarketDays, reserve_eur_per_mw_h) -> np.ndarray:
    """Profit [D] of commanded powers [D, 24] on a split, terminal term included, in float64."""
    with jax.enable_x64(True):
        run = jax.vmap(lambda *day: physics.simulate_day(plant, rules, *day)[0])
        columns = (command_mw, market.pv_mw, market.price_eur_per_mwh, reserve_eur_per_mw_h)
        return np.asarray(jax.jit(run)(*(np.asarray(c, np.float64) for c in columns)))


def optimum_value_std(plant: Plant, rules: Rules, market: MarketDays, reserve_eur_per_mw_h: np.ndarray) -> float:
    """Standard deviation over days of what the optimum earns above idling, in EUR."""
    best = perfect_foresight(plant, rules, market.price_eur_per_mwh, reserve_eur_per_mw_h, market.pv_mw)
    idle = daily_profit_eur(plant, rules, np.zeros((len(market), HOURS)), market, reserve_eur_per_mw_h)
    return float(np.std(best.profit_eur - idle))


def make_scoring(
    config: BessConfig,
    rules: Rules,
    reset_case: Callable,
    markets: Mapping[str, MarketDays],
    params: Mapping[str, Any],
) -> tuple[Scorer, Reporter]:
    """The environment's `score` and `report`; references are computed when first asked for."""

    @lru_cache(maxsize=8)
    def reference(split: str, cache_dir: Path | None) -> Reference:
        market, plant = markets[split], params[split].plant
        reserve = np.asarray(params[split].table.reserve_eur_per_mw_h, float)
        arrays = (market.price_eur_per_mwh, reserve, market.pv_mw)
        plan = None
        if has_exact_bound(rules):
            plan = (
                cached_perfect_foresight(cache_dir, plant, rules, *arrays)
                if cache_dir
                else perfect_foresight(plant, rules, *arrays)
            )
        commands = {
            name: rule(
                plant, rules, market.price_eur_per_mwh, plan.power_mw if plan else np.zeros((len(market), HOURS))
            )
            for name, rule in BASELINES.items()
            if plan is not None or name not in NEED_A_PLAN
        }
        if config.effective_forecast().model != "none" and rules.wear in ("none", "linear", "segment"):
            commands["rolling_lp"] = _rolling_lp(config, rules, reset_case, params[split])
        profits = {name: daily_profit_eur(plant, rules, x, market, reserve) for name, x in commands.items()}
        return Reference(profits["idle"], profits, plan)

    def score(split: str, records: Mapping[str, np.ndarray], cache_dir: Path | None = None) -> Score:
        profit = records["objective_eur"].sum(axis=2, dtype=np.float64)
        if rules.terminal == "carry":
            return _carry_score(config, records, profit)
        known, dates = reference(split, cache_dir), markets[split].dates
        days = records["day_index"][0, :, 0].astype(int)
        idle, best = known.idle_eur[days], known.optimum.profit_eur[days] if known.optimum else None
        rules_eur = {name: values[days] for name, values in known.baselines_eur.items()}
        at_stake = float(np.sum(best - idle)) if best is not None else 0.0

        def percent(values: np.ndarray) -> float:
            return 100 * float(np.sum(values - idle)) / at_stake

        return Score(
            unit="EUR/day",
            policy=profit.mean(axis=1).tolist(),
            baselines={name: float(values.mean()) for name, values in rules_eur.items()},
            bound=float(best.mean()) if best is not None else None,
            percent_of_bound=[percent(p) for p in profit] if at_stake > 0 else None,
            percent_of_bound_baselines={n: percent(v) for n, v in rules_eur.items()} if at_stake > 0 else None,
            detail={
                "score": "sum(profit - idle) / sum(optimum - idle), in %",
                "terminal": rules.terminal,
                "degradation_model": rules.wear,
                "bound_method": known.optimum.method if known.optimum else None,
                "days": len(days),
                "months": _by_month(dates[days], profit, rules_eur, best),
                "months_below_idle_per_seed": [_months_below(dates[days], p, idle) for p in profit],
                **_use(config, records),
            },
        )

    def cases(split: str, wanted: Sequence[str] | None) -> dict[str, int]:
        dates = markets[split].dates
        if wanted is None:
            return {season_name(dates[i]): i for i in one_case_per_season(dates)}
        position = {str(date): i for i, date in enumerate(dates)}
        missing = [date for date in wanted if date not in position]
        if missing:
            raise DataError(f"day {missing[0]} is not in split '{split}' ({dates[0]}..{dates[-1]}); choose another")
        return {date: position[date] for date in wanted}

    def table(split: str, label: str, hours: Mapping[str, np.ndarray], cache_dir: Path | None) -> dict[str, np.ndarray]:
        day = int(hours["day_index"][0])
        optimum = None if rules.terminal == "carry" else reference(split, cache_dir).optimum
        plan = optimum.power_mw[day] if optimum is not None else None
        return hourly_table(params[split].plant, markets[split].dates[day], hours, plan)

    return score, Reporter("hourly", cases, table)


FLOAT32_EUR = 0.05
"""Round-off of a day's profit in float32: a policy that idles is not below idling."""

NEED_A_PLAN = ("lp_persistence",)
"""Baselines that carry out a perfect-foresight plan."""


def has_exact_bound(rules: Rules) -> bool:
    return not (rules.terminal == "carry" or rules.legacy_accounting or rules.reserve_activation)


def _rolling_lp(config: BessConfig, rules: Rules, reset_case, params) -> np.ndarray:
    """Commands [D, 24] of a planner that solves the rest of the day every hour on the forecast the policy sees."""
    count = params.table.price_eur_per_mwh.shape[0]
    forecast = config.effective_forecast()
    _, states = jax.jit(jax.vmap(lambda i: reset_case(jax.random.key(0), i, params)))(np.arange(count))
    hourly = forecast.commit == "hourly"
    seen = jax.vmap(lambda day: jax.vmap(lambda h: view_at(day, h, hourly))(np.arange(HOURS)))(states.day)
    actual = [np.asarray(x, float) for x in (states.day.pv_mw, states.day.price_eur_per_mwh,
                                             states.day.reserve_eur_per_mw_h)]  # fmt: skip
    with jax.enable_x64(True):
        start = np.full(count, float(params.plant.soc_init))
        batteries = jax.vmap(lambda soc: physics.fresh_battery(params.plant, soc))(start)
        run = jax.jit(jax.vmap(lambda *x: physics.run_hour(params.plant, rules, *x)[0], (0, None, 0, 0, 0, 0)))

        def step(hour: int, power_mw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            nonlocal batteries
            batteries = run(batteries, hour, power_mw, *(x[:, hour] for x in actual))
            return np.asarray(batteries.soc), np.asarray(batteries.segments_mwh)

        price, reserve, pv = (np.asarray(x, float) for x in (seen.price, seen.reserve, seen.pv))
        return rolling_horizon(params.plant, rules, price, reserve, pv, step)


def _by_month(dates: np.ndarray, profit: np.ndarray, rules_eur: Mapping[str, np.ndarray], best) -> list[dict[str, Any]]:
    """Sums in EUR per calendar month: policy as mean over seeds, every baseline, optimum."""
    months = dates.astype("datetime64[M]")
    rows = []
    for month in np.unique(months):
        inside = months == month
        row: dict[str, Any] = {"month": str(month), "policy": float(profit[:, inside].sum(axis=1).mean())}
        row |= {name: float(values[inside].sum()) for name, values in rules_eur.items()}
        row["optimum"] = float(best[inside].sum()) if best is not None else None
        rows.append(row)
    return rows


def _months_below(dates: np.ndarray, profit: np.ndarray, idle: np.ndarray) -> list[str]:
    months = dates.astype("datetime64[M]")
    return [
        str(m) for m in np.unique(months) if np.sum((profit - idle)[months == m]) < -FLOAT32_EUR * np.sum(months == m)
    ]


def _use(config: BessConfig, records: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """How hard the battery was used: means over seeds and days."""
    days_per_case = records["reward"].shape[2] // HOURS
    per_day = 1.0 / (records["reward"].shape[1] * days_per_case)
    wear = [
        rainflow_wear_eur(seed.reshape(-1), config.limits.bess.energy_capacity_mwh, config.limits.degradation)
        for seed in records["soc"]
    ]
    return {
        "throughput_mwh_per_day": float(np.abs(records["power_mw"]).sum(axis=(1, 2)).mean()) * per_day,
        "wear_eur_per_day": float(records["wear_eur"].sum(axis=(1, 2)).mean()) * per_day,
        "rainflow_wear_eur_per_day": float(np.mean(wear)) * per_day,
    }


def _carry_score(config: BessConfig, records: Mapping[str, np.ndarray], profit: np.ndarray) -> Score:
    """Multi-day episodes are reported without a bound: a plan over the joined days is not computed."""
    return Score(
        unit="EUR/day",
        policy=(profit.mean(axis=1) / config.carry_days).tolist(),
        baselines={},
        bound=None,
        percent_of_bound=None,
        detail={"terminal": "carry", "days_per_episode": config.carry_days, **_use(config, records)},
    )
