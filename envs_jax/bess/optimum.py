"""Perfect-foresight plans: the most a battery could have earned on days whose prices are known (section 9).

Reading order: `perfect_foresight`, its cached form, `rolling_horizon`, the checked data of the days, settlement. How a
plan is found stands in `linear_program` (wear none, linear and segment, planned exactly) and `depth_program` (wear
nonlinear and cycle_curve, which depend on the running depth of discharge and are not convex).

Every plan is settled by the environment's own physics in float64, so its profit is that of a plan that can be carried
out. Terminal mode `carry` is planned like `free`: one day at a time, nothing is paid for what is left.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np

from envs_jax.bess.depth_program import bucket_program, dynamic_program
from envs_jax.bess.linear_program import Days, linear_program
from envs_jax.bess.params import HOURS, Plant, Rules, WearModel
from envs_jax.bess.physics import fresh_battery, segment_width_mwh, simulate_day
from envs_jax.bess.windows import peak_window

Method = Literal["auto", "lp", "milp", "dp"]

FORMAT_VERSION = 1
"""Part of the cache key: raise it when a change here, in `linear_program` or in `depth_program` changes plans."""

MILP_DAYS = 3
"""`auto` plans up to this many bucket-wear days by the mixed-integer program (seconds a day)."""


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
    power_mw = {"lp": linear_program, "milp": bucket_program, "dp": dynamic_program}[chosen](plant, rules, days)
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
        power_mw[:, hour] = linear_program(plant, rules, days)[:, 0]
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


def _days(
    plant: Plant, rules: Rules, price, reserve, pv, *, soc_start=None, first_hour=0, segments_mwh=None,
    soc_reference=None,
) -> Days:  # fmt: skip
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
    return Days(
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


@partial(jax.jit, static_argnames="rules")
def _settle(plant: Plant, rules: Rules, power_mw, days: Days):
    """Profit [D] in EUR with the terminal term, executed powers and states of charge [D, 24]."""

    def day(power, pv, price, reserve, soc_start):
        objective_eur, hours, soc = simulate_day(plant, rules, power, pv, price, reserve, soc_start)
        return objective_eur, hours.power_mw, soc

    return jax.vmap(day)(power_mw, days.pv_mw, days.price, days.reserve, days.soc_start)
