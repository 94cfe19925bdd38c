"""Figures of a sweep: scores over the swept values, learning curves."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from purerl.errors import ConfigError
from purerl.report.statistics import interquartile_mean
from purerl.report.style import BASELINE_COLORS
from purerl.run.files import read_json, read_table

LOST_COLOR = "tab:red"
ROOM_FOR_A_TICK = 0.09
"""Share of an axis that the name of a value needs."""
LINES_UP_TO, CURVES_UP_TO, KEY_PANELS_UP_TO = 5, 12, 4
"""Lines beside each other, curves in colours of their own, swept keys with a panel of their own."""


def sweep_figure(sweep_dir: Path) -> Figure:
    """Interquartile means with intervals over the swept values, and learning curves, from the files of a sweep.

    One key: a line over its values. Two: a line for each value of the one with fewer, or a heat map where these are
    many. More, or random points: a panel for each key, every point in all of them.

    Raises:
        ConfigError: no finished sweep there. DamagedError: a file that cannot be read.
    """
    path = sweep_dir / "summary.csv"
    if not path.exists():
        raise ConfigError(f"{sweep_dir}: no summary.csv; point to the directory of a finished sweep")
    remedy = "delete metadata.json and repeat the command of the sweep with --resume: what was trained is kept"
    report = read_json(sweep_dir / "sweep.json", remedy, ["definition", "keys", "points", "best", "unit", "seeds"])
    summary = read_table(path, remedy, ["point", "iqm", "low", "high"])
    curves = read_table(sweep_dir / "curves.csv", remedy, ["point", "seed", "env_steps", "score"])
    keys = list(report["keys"])
    alone = report["definition"]["random"] is None and len(keys) <= 2
    panels = 1 if alone else min(len(keys), KEY_PANELS_UP_TO)
    figure, axes = plt.subplots(
        1, panels + 1, figsize=(5.2 + 3.6 * panels if panels > 1 else 11, 4.5), layout="constrained", squeeze=False,
        width_ratios=[1.0] * panels + [1.15],
    )  # fmt: skip
    colors = _point_colors(summary, keys)
    *left, right = axes[0]
    if alone and len(keys) == 2:
        _two_keys(figure, left[0], summary, keys, report)
    else:
        for number, (ax, key) in enumerate(zip(left, keys or ["point"], strict=False)):
            _one_key(ax, summary, key, report, line=alone, colors=colors)
            ax.set_ylabel(f"IQM of {report['unit']}" if number == 0 else "")
        if not keys:
            left[0].set(xticks=[], xlabel="")
    _curves(right, summary, curves, keys, report, colors)
    best = report["best"]
    shown = ", ".join(f"{_short_name(key)} {_value(best['values'][key])}" for key in keys) if best else ""
    subject = f"{report['algo']} on {report['env']}: "
    figure.suptitle(
        f"{subject}{len(summary)} point{'s' if len(summary) > 1 else ''} x {len(report['seeds'])} seeds"
        + (f"; best{': ' if shown else ''}{shown} ({best['iqm']:.4g})" if best else "; every point diverged"),
        fontsize=11,
    )
    return figure


def _one_key(ax: Axes, summary: pd.DataFrame, key: str, report: dict[str, Any], line: bool, colors: list[Any]) -> None:
    """IQM with interval of every point over one key, single seeds beside it; diverged points at the lower edge.

    Args:
        line: the points differ in this key alone.
    """
    x = _positions(ax, summary, key)
    beside = ax.transData + ScaledTranslation(6 / 72, 0, ax.get_figure().dpi_scale_trans)  # type: ignore[union-attr]
    sound = summary["iqm"].notna().to_numpy()
    if line:
        ax.plot(x[sound], summary["iqm"][sound], color="grey", lw=1, zorder=1)
    for point, position, color in zip(report["points"], x, colors, strict=True):
        kept = [score for score in point["scores"] if score is not None]
        if line and kept:
            ax.plot([position] * len(kept), kept, ".", color=color, alpha=0.6, ms=6, mew=0, transform=beside)
            ax.update_datalim([(position, min(kept)), (position, max(kept))])  # shifted dots do not count by themselves
        if point["iqm"] is None:
            continue
        if point["low"] is not None:
            ax.plot([position] * 2, [point["low"], point["high"]], color=color, lw=2, zorder=3, solid_capstyle="butt")
        is_best = report["best"] is not None and point["point"] == report["best"]["point"]
        ax.plot(position, point["iqm"], "o", color=color, ms=8 if is_best else 6, mec="black",
                mew=1.8 if is_best else 0.0, zorder=4)  # fmt: skip
    _mark_lost(ax, x, report, named=line)
    ax.autoscale_view()
    ax.set(xlabel=key, title="final policies: IQM, 95 % interval, single seeds" if line else "")
    ax.title.set_fontsize(10)
    ax.grid(alpha=0.3)


def _mark_lost(ax: Axes, x: np.ndarray, report: dict[str, Any], named: bool) -> None:
    for point, position in zip(report["points"], x, strict=True):
        if point["iqm"] is None:
            ax.plot(position, 0.02, "x", color=LOST_COLOR, ms=8, mew=2, transform=ax.get_xaxis_transform(), zorder=5)
            text = f"{len(point['diverged'])} diverged" if named else ""
            ax.annotate(text, (position, 0.05), xycoords=ax.get_xaxis_transform(), ha="center", va="bottom",
                        fontsize=7, color=LOST_COLOR, rotation=90)  # fmt: skip


def _two_keys(figure: Figure, ax: Axes, summary: pd.DataFrame, keys: list[str], report: dict[str, Any]) -> None:
    many, few = sorted(keys, key=lambda key: summary[key].nunique(), reverse=True)
    if summary[few].nunique() <= LINES_UP_TO:
        _lines(ax, summary, many, few)
        ax.set(ylabel=f"IQM of {report['unit']}", title="final policies: IQM and 95 % interval")
    else:
        _heat_map(figure, ax, summary, many, few, report)
        ax.set_title("final policies: IQM")
    ax.title.set_fontsize(10)


def _lines(ax: Axes, summary: pd.DataFrame, many: str, few: str) -> None:
    x = _positions(ax, summary, many)
    values = summary[few].drop_duplicates()
    for number, (value, color) in enumerate(zip(values, _shades(len(values)), strict=True)):
        rows = (summary[few] == value).to_numpy()
        order = np.argsort(x[rows], kind="stable")
        part, at = summary[rows].iloc[order], x[rows][order]
        ax.plot(at, part["iqm"], "o-", color=color, lw=1.5, ms=5, label=_value(value))
        ax.fill_between(at, part["low"], part["high"], color=color, alpha=0.15, lw=0)
        lost = part["iqm"].isna().to_numpy()
        ax.plot(
            at[lost],
            np.full(lost.sum(), 0.02 + 0.03 * number),
            "x",
            color=color,
            mew=2,
            transform=ax.get_xaxis_transform(),
        )
    if summary["iqm"].isna().any():
        ax.plot([], [], "x", color="grey", mew=2, label="diverged")
    ax.set_xlabel(many)
    ax.grid(alpha=0.3)
    ax.legend(title=few, fontsize=8, title_fontsize=8)


def _heat_map(figure: Figure, ax: Axes, summary: pd.DataFrame, many: str, few: str, report: dict[str, Any]) -> None:
    table = summary.pivot(index=few, columns=many, values="iqm")
    image = ax.imshow(table, aspect="auto", origin="lower", cmap="viridis")
    ax.set_xticks(range(table.shape[1]), [_value(v) for v in table.columns], rotation=45, fontsize=8)
    ax.set_yticks(range(table.shape[0]), [_value(v) for v in table.index], fontsize=8)
    middle = (np.nanmin(table) + np.nanmax(table)) / 2 if summary["iqm"].notna().any() else 0.0
    for (row, column), iqm in np.ndenumerate(table.to_numpy()):
        text, color = ("lost", LOST_COLOR) if np.isnan(iqm) else (f"{iqm:.4g}", "white" if iqm < middle else "black")
        ax.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    if np.isnan(table.to_numpy()).any():
        ax.set_xlabel(f"{many}   (lost: a seed diverged)")
    else:
        ax.set_xlabel(many)
    ax.set_ylabel(few)
    figure.colorbar(image, ax=ax, label=f"IQM of {report['unit']}")


def _curves(
    ax: Axes, summary: pd.DataFrame, curves: pd.DataFrame, keys: list[str], report: dict[str, Any], colors: list[Any]
) -> None:
    """IQM over seeds during training; of many points the best in colour and the others in grey."""
    ranked = summary.sort_values("iqm", ascending=False, na_position="last")["point"].tolist()
    if len(ranked) > CURVES_UP_TO:
        named = ranked[:LINES_UP_TO]
        colors = ["lightgrey"] * len(ranked)
        for point, color in zip(named, ("tab:blue", *BASELINE_COLORS), strict=False):
            colors[point] = color
    else:
        named = summary["point"].tolist()
    for point in [*named, *(p for p in ranked if p not in named)]:
        own = curves[curves["point"] == point].pivot(index="env_steps", columns="seed", values="score")
        middle = interquartile_mean(own.to_numpy())
        is_named = point in named
        text = ", ".join(_value(summary.loc[point, key]) for key in keys) or "all seeds"
        ax.plot(
            own.index, middle, marker="o" if len(own) < 3 else None, ms=4, zorder=2 if is_named else 1,
            color=colors[point], lw=1.7 if is_named else 0.8,
            label=f"{text}{'' if np.isfinite(middle[-1]) else ' (diverged)'}" if is_named else None,
        )  # fmt: skip
    title = "during training: IQM" if len(named) == len(ranked) else f"during training: IQM, best {len(named)} named"
    ax.set(xlabel="environment steps", ylabel=report["unit"])
    ax.set_title(title, fontsize=10)
    ax.grid(alpha=0.3)
    ax.legend(title=", ".join(map(_short_name, keys)), fontsize=8, title_fontsize=8, loc="center left",
              bbox_to_anchor=(1.01, 0.5), frameon=False)  # fmt: skip


def _positions(ax: Axes, summary: pd.DataFrame, key: str) -> np.ndarray:
    """Where the values lie on the axis: numbers to scale, logarithmic where they are spaced so; others one by one."""
    values = summary[key]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        names = list(dict.fromkeys(values))
        ax.set_xticks(range(len(names)), [_value(name) for name in names])
        return np.array([names.index(value) for value in values], float)
    distinct = np.unique(values).astype(float)
    log = _log_spaced(distinct)
    if log:
        ax.set_xscale("log")
    gaps = np.diff(np.log(distinct) if log else distinct)
    if len(distinct) > 1 and gaps.min() >= ROOM_FOR_A_TICK * gaps.sum():
        ax.set_xticks(distinct, [_value(value) for value in distinct])
        ax.minorticks_off()
    return values.to_numpy(float)


def _log_spaced(values: np.ndarray) -> bool:
    """Whether ascending values are spaced more evenly by their ratios than by their differences."""
    if values[0] <= 0 or len(values) < 2:
        return False
    if len(values) == 2:
        return values[1] >= 10 * values[0]
    gaps, ratios = np.diff(values), np.diff(np.log(values))
    return bool(ratios.std() / ratios.mean() < gaps.std() / gaps.mean())


def _point_colors(summary: pd.DataFrame, keys: list[str]) -> list[Any]:
    """A shade per point, in the order of the first key's values."""
    order = np.lexsort([pd.factorize(summary[key], sort=True)[0] for key in reversed(keys)]) if keys else [0]
    colors: list[Any] = [None] * len(summary)
    for shade, point in zip(_shades(len(summary)), order, strict=True):
        colors[point] = shade
    return colors


def _shades(count: int) -> list[Any]:
    return list(plt.get_cmap("viridis")(np.linspace(0.0, 0.9, count)))


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _short_name(key: str) -> str:
    return key.rpartition(".")[2]
