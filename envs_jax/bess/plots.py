"""Figures of a scored trading policy: days of every season, money by month, when and at which price it trades.

They are drawn from the final report of a run and its hourly table (columns of `report.hourly_table`).
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from envs_jax.bess.params import HOURS
from envs_jax.bess.report import SEASONS
from envs_jax.episodes import Material

POLICY, OPTIMUM, PRICE, PV, CONTENT = "tab:blue", "black", "tab:red", "goldenrod", "tab:green"


def figures(material: Material) -> dict[str, Figure]:
    """All figures by file name."""
    report, hourly = material.report, material.steps
    drawn = {
        "days_by_season": days_figure(hourly),
        "dispatch_by_hour_and_price": dispatch_figure(hourly),
    }
    months = report["detail"].get("months")
    if months:
        drawn["profit_by_month"] = months_figure(months)
    return drawn


def typical_days(hourly: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """For every season the day whose price spread is the median one."""
    chosen = []
    for season in SEASONS:
        days = hourly[hourly["season_name"] == season]
        if len(days):
            prices = days.groupby("eval_date")["price_em"]
            spread = (prices.max() - prices.min()).sort_values()
            date = spread.index[len(spread) // 2]
            chosen.append((season, days[days["eval_date"] == date]))
    return chosen


def _to_midnight(hourly_values: pd.Series) -> np.ndarray:
    """The last hour's value once more, so that its step reaches the end of the day."""
    return np.append(hourly_values, hourly_values.iloc[-1])


def days_figure(hourly: pd.DataFrame) -> Figure:
    """One typical day per season: price and PV above, dispatch with the optimum's and content below."""
    days = typical_days(hourly)
    figure, axes = plt.subplots(
        2, len(days), figsize=(4.2 * len(days), 6.2), layout="constrained", sharex=True, squeeze=False
    )
    limit = 1.1 * max(float(hourly["p_battery"].abs().max()), float(hourly["optimum_p_battery"].abs().max() or 0), 0.1)
    for column, (season, day) in enumerate(days):
        hour = day["hour"].to_numpy()
        above, below = axes[0, column], axes[1, column]
        edges = np.append(hour, HOURS)
        above.step(edges, _to_midnight(day["price_em"]), where="post", color=PRICE, label="price")
        above.set_title(f"{season}, {day['eval_date'].iloc[0]}", fontsize=11)
        above.grid(alpha=0.3)
        sun = above.twinx()
        sun.fill_between(edges, _to_midnight(day["p_pv_raw"]), step="post", color=PV, alpha=0.3, lw=0, label="PV")
        sun.set_ylim(0, 1.15 * max(float(hourly["p_pv_raw"].max()), 1.0))
        below.bar(hour + 0.5, day["p_battery"], width=0.9, color=POLICY, alpha=0.75, label="policy")
        below.step(edges, _to_midnight(day["optimum_p_battery"]), where="post", color=OPTIMUM, lw=1.4, label="optimum")
        below.axhline(0, color="grey", lw=0.8)
        below.set(ylim=(-limit, limit), xlabel="hour", xlim=(0, HOURS), xticks=range(0, HOURS + 1, 6))
        below.grid(alpha=0.3)
        content = below.twinx()
        content.plot(np.arange(HOURS + 1), np.append(day["soc_before"].iloc[0], day["soc"]), color=CONTENT, lw=1.6,
                     label="SOC")  # fmt: skip
        content.set_ylim(0, 1)
        for ax, label, first in ((above, "price, EUR/MWh", True), (below, "battery, MW (+ discharge)", True),
                                 (sun, "PV, MW", False), (content, "state of charge", False)):  # fmt: skip
            if (first and column == 0) or (not first and column == len(days) - 1):
                ax.set_ylabel(label)
    corner = [axes[0, 0], sun, axes[1, 0], content]
    found = [pair for ax in corner for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*found, strict=True), loc="outside lower center", ncols=len(found), fontsize=9, frameon=False)
    return figure


def months_figure(months: list[dict[str, Any]]) -> Figure:
    """Profit above idling by month: policy as bars, rules as marks, optimum as a line."""
    table = pd.DataFrame(months).set_index("month")
    gain = table.drop(columns="idle").sub(table["idle"], axis=0) / 1000.0
    position = np.arange(len(gain))
    figure, ax = plt.subplots(figsize=(max(7.0, 0.75 * len(gain) + 3), 4.5), layout="constrained")
    ax.bar(position, gain["policy"], color=POLICY, alpha=0.8, label="policy")
    markers = iter("osvD^P*X")
    for name in gain.columns:
        if name not in ("policy", "optimum"):
            ax.plot(position, gain[name], ls="", marker=next(markers), ms=5, label=name)
    if gain["optimum"].notna().all():
        ax.step(np.append(position, len(gain)) - 0.5, np.append(gain["optimum"], gain["optimum"].iloc[-1]),
                where="post", color=OPTIMUM, lw=1.6, label="optimum")  # fmt: skip
    ax.axhline(0, color="grey", lw=0.8)
    ax.set_xticks(position, gain.index, rotation=45, ha="right", fontsize=9)
    ax.set(ylabel="battery value, thousand EUR", title="Profit above doing nothing")
    ax.grid(alpha=0.3, axis="y")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def dispatch_figure(hourly: pd.DataFrame) -> Figure:
    """Mean battery power by hour, and by the price's decile within its day, policy and optimum."""
    ranked = hourly.assign(decile=hourly.groupby("eval_date")["price_em"].rank(pct=True, method="first").mul(10)
                           .sub(1e-9).astype(int))  # fmt: skip
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    for ax, key, label in ((left, "hour", "hour of the day"), (right, "decile", "price decile within the day")):
        mean = ranked.groupby(key)[["p_battery", "optimum_p_battery"]].mean()
        ax.bar(mean.index, mean["p_battery"], color=POLICY, alpha=0.75, label="policy")
        if mean["optimum_p_battery"].notna().any():
            ax.plot(mean.index, mean["optimum_p_battery"], color=OPTIMUM, marker="o", ms=3.5, label="optimum")
        ax.axhline(0, color="grey", lw=0.8)
        ax.set(xlabel=label)
        ax.grid(alpha=0.3)
    left.set_ylabel("mean battery power, MW (+ discharge)")
    left.legend(fontsize=9)
    return figure
