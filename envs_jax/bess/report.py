"""Evaluation days hour by hour, as a table that can be read, plotted and re-simulated."""

from collections.abc import Mapping

import numpy as np

from envs_jax.bess.observations import AFTER_PEAKS_H
from envs_jax.bess.params import HOURS, Plant

SEASONS = ("winter", "spring", "summer", "autumn")


def season_name(date: np.datetime64) -> str:
    month = int(date.astype("datetime64[M]").astype(int) % 12 + 1)
    return SEASONS[month % 12 // 3]


def one_case_per_season(dates: np.ndarray) -> list[int]:
    """Index of the first day of every season that occurs in `dates`, in the order winter to autumn."""
    names = [season_name(date) for date in dates]
    return [names.index(season) for season in SEASONS if season in names]


def hourly_table(
    plant: Plant, date: np.datetime64, hours: Mapping[str, np.ndarray], optimum_power_mw: np.ndarray | None
) -> dict[str, np.ndarray]:
    """One recorded day [24] with the columns of a quick evaluation.

    `delta` is the commanded share of the rating, discharge positive: multiplied by the rating it is the command that
    reproduces the day. Money in EUR, power in MW, depth of discharge as the running range of the half day.

    Args:
        hours: records [24] by name: the environment's info, `reward`, and `q1`, `q2` where a critic exists.
        optimum_power_mw: [24] of the perfect-foresight plan, if there is one.
    """
    price, hour = hours["price_eur_per_mwh"], np.arange(HOURS)
    half = HOURS // 2
    k1, k2 = int(np.argmax(price[:half])), half + int(np.argmax(price[half:]))
    coming_peak = np.where(hour <= k1, k1, np.where(hour <= k2, k2, -1))
    in_window = hours["in_window"].astype(bool)
    to_peak = np.where(in_window, 0, np.where(coming_peak < 0, AFTER_PEAKS_H, coming_peak - hour))
    depth = _running_depth(hours["soc_before"], hours["soc"])
    revenue = hours["revenue_pv_eur"] + hours["revenue_energy_eur"] + hours["revenue_reserve_eur"]
    missing = np.full(HOURS, np.nan)
    return {
        "season_name": np.full(HOURS, season_name(date)),
        "eval_date": np.full(HOURS, str(date)),
        "hour": hour,
        "action": hours["action"],
        "delta": hours["command_mw"] / plant.power_mw,
        "soc_before": hours["soc_before"],
        "soc": hours["soc"],
        "dod_morning": np.where(hour < half, depth, depth[half - 1]),
        "dod_evening": np.where(hour < half, 0.0, depth),
        "p_battery": hours["power_mw"],
        "p_pv_raw": hours["pv_raw_mw"],
        "p_pv_grid": hours["pv_grid_mw"],
        "p_bess_em": hours["bess_grid_mw"],
        "p_reserve": hours["reserve_mw"],
        "price_em": price,
        "price_as": hours["reserve_price_eur_per_mw_h"],
        "revenue_pv": hours["revenue_pv_eur"],
        "revenue_energy": hours["revenue_energy_eur"],
        "revenue_reserve": hours["revenue_reserve_eur"],
        "degradation_cost": hours["wear_eur"],
        "reward": hours["reward"],
        "q1_eval": hours.get("q1", missing),
        "q2_eval": hours.get("q2", missing),
        "cumulative_revenue": np.cumsum(revenue),
        "cumulative_degradation": np.cumsum(hours["wear_eur"]),
        "cumulative_profit": np.cumsum(hours["profit_eur"]),
        "time_to_peak_hour": to_peak,
        "peak_hour": coming_peak,
        "clipped_mw": hours["clipped_mw"],
        "optimum_p_battery": missing if optimum_power_mw is None else optimum_power_mw,
    }


def _running_depth(soc_before: np.ndarray, soc: np.ndarray) -> np.ndarray:
    """Running depth of discharge [24] of the half day each hour lies in, its starting content included."""
    parts = []
    for first in (0, HOURS // 2):
        path = np.concatenate([soc_before[first : first + 1], soc[first : first + HOURS // 2]])
        parts.append((np.maximum.accumulate(path) - np.minimum.accumulate(path))[1:])
    return np.concatenate(parts)
