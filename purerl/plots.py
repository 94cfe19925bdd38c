"""Figures of runs: learning curve, losses and critic diagnostics, comparison of runs, sweeps, other conditions.

Figures of an environment's own subject come from its `figures` function. Everything is drawn from the files of a run
directory, so figures can be made again at any time.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files only: no window system is needed

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.animation import Animation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from purerl.config import ConfigError
from purerl.report.statistics import interquartile_mean
from purerl.run.logs import CSV_NAME

DPI, GIF_DPI = 120, 80
POLICY_COLOR, BOUND_COLOR = "tab:blue", "black"
BASELINE_COLORS = ("tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:olive", "tab:cyan")


def read_progress(run_dir: Path) -> pd.DataFrame:
    """The training log of a run, one row per epoch.

    Raises:
        ConfigError: the directory holds no training log.
    """
    path = run_dir / CSV_NAME
    if not path.exists():
        raise ConfigError(f"{run_dir}: no {CSV_NAME}; point to a run directory that was trained with logging.csv")
    return pd.read_csv(path)


def read_evaluations(run_dir: Path) -> list[dict[str, Any]]:
    """Reports of the evaluations during training, ascending."""
    return [json.loads(path.read_text()) for path in sorted((run_dir / "eval").glob("epoch_*.json"))]


def final_report(run_dir: Path) -> dict[str, Any] | None:
    """Report of the score after training, or None for a run that has not ended."""
    paths = sorted((run_dir / "eval").glob("final_*.json"))
    return json.loads(paths[-1].read_text()) if paths else None


def training_figures(run_dir: Path) -> dict[str, Figure]:
    """Figures that every run has, by file name."""
    progress, evaluations = read_progress(run_dir), read_evaluations(run_dir)
    figures = {"losses": losses_figure(progress)}
    if evaluations:
        figures["learning_curve"] = learning_curve_figure(evaluations, progress)
    episodes = episodes_figure(progress, evaluations[-1]["unit"] if evaluations else None)
    return figures if episodes is None else {**figures, "episodes": episodes}


def clock_of(progress: pd.DataFrame) -> tuple[str, str]:
    """Column to draw a run over and its name: gradient steps where a run takes no environment steps."""
    if (progress["env_steps"] == 0).all():
        return "gradient_steps", "gradient steps"
    return "env_steps", "environment steps"


def learning_curve_figure(evaluations: Sequence[dict[str, Any]], progress: pd.DataFrame) -> Figure:
    """Evaluation score over steps with its range over seeds, baselines and bound as lines."""
    clock, steps_name = clock_of(progress)
    steps_at = dict(zip(progress["epoch"], progress[clock], strict=True))
    kept = [e for e in evaluations if e["epoch"] in steps_at]
    steps = np.array([steps_at[e["epoch"]] for e in kept])
    as_percent = all(e["percent_of_bound_per_seed"] for e in kept)
    key = "percent_of_bound_per_seed" if as_percent else "policy_per_seed"
    scores = np.array([e[key] for e in kept])
    last = kept[-1]
    if as_percent:
        lines, bound, label = last["detail"].get("percent_of_bound_baselines") or {}, 100.0, "% of bound"
    else:
        lines, bound, label = last["baselines"], last["bound"], last["unit"]
    figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
    ax.plot(steps, scores.mean(axis=1), color=POLICY_COLOR, lw=2, label=f"policy ({scores.shape[1]} seed(s))")
    if scores.shape[1] > 1:
        ax.fill_between(steps, scores.min(axis=1), scores.max(axis=1), color=POLICY_COLOR, alpha=0.2, lw=0)
    # Rules that lose many times the stake would squeeze the curve into a line: they are named at the edge instead.
    floor = min(float(scores.min()), 0.0) - 0.15 * (float(scores.max()) - min(float(scores.min()), 0.0) + 1e-9)
    for color, (name, value) in zip(BASELINE_COLORS * 3, lines.items(), strict=False):
        if as_percent and value < floor:
            ax.plot([], [], color=color, ls="--", label=f"{name} ({value:.0f}, below)")
        else:
            ax.axhline(value, color=color, ls="--", lw=1.2, label=f"{name} ({value:.4g})")
    if bound is not None:
        ax.axhline(bound, color=BOUND_COLOR, lw=1.2, label=f"bound ({bound:.4g})")
    if as_percent:
        ax.set_ylim(floor, 106)
    ax.set(xlabel=steps_name, ylabel=label, title=f"Score on split '{last['split']}' during training")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


class Panel(NamedTuple):
    title: str
    columns: tuple[str, ...]
    scale: Literal["linear", "log", "around_zero"] = "linear"


LEARNING_PANELS = (
    Panel("critic loss", ("critic_loss", "value_loss"), "log"),
    Panel("actor loss", ("actor_loss", "policy_loss")),
    Panel("entropy of the policy", ("entropy", "target_entropy")),
    Panel("KL divergence", ("approx_kl", "behaviour_kl"), "log"),
    Panel("explained variance of returns", ("explained_variance",)),
    Panel("temperature", ("alpha",), "log"),
    Panel("value at the start: estimate less return", ("q_start_bias", "eval_q_start_bias"), "around_zero"),
    Panel("critic means over all steps", ("q1_mean_all", "q2_mean_all", "target_mean"), "around_zero"),
    Panel("share of saturated actions", ("saturation",)),
    Panel("return per episode", ("return", "eval_return")),
)


def losses_figure(progress: pd.DataFrame) -> Figure:
    """Losses, entropy, Q-bias, saturation and returns over steps; panels without data are left out."""
    clock, steps_name = clock_of(progress)
    logged = [c for c in progress if progress[c].notna().any()]
    panels = [panel for panel in LEARNING_PANELS if set(panel.columns) & set(logged)]
    columns = 2
    rows = max(-(-len(panels) // columns), 1)
    figure, axes = plt.subplots(rows, columns, figsize=(10, 2.8 * rows), layout="constrained", squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        names = [name for name in panel.columns if name in logged]
        for name in names:
            known = progress[[clock, name]].dropna()
            marker = "o" if name.startswith("eval_") else None
            ax.plot(known[clock], known[name], label=name, lw=1.4, marker=marker, ms=3)
        if "return" in names and "return_min" in logged:
            known = progress[[clock, "return_min", "return_max"]].dropna()
            ax.fill_between(*known.to_numpy().T, color="C0", alpha=0.15, lw=0, label="smallest to largest")
        if panel.scale == "log" and (progress[names] > 0).any(axis=None):
            ax.set_yscale("log")
        if panel.scale == "around_zero":
            ax.axhline(0, color="grey", lw=0.8)
        ax.set(title=panel.title, xlabel=steps_name)
        ax.title.set_fontsize(10)
        ax.grid(alpha=0.3)
        if len(ax.get_legend_handles_labels()[0]) > 1:
            ax.legend(fontsize=8)
    return figure


SHARES = {"success": "success", "conflict_free": "conflict free", "reached_ratio": "arrived"}
"""Columns of training episodes that are shares, and what they are called."""
SHARE_STYLES = (("#0072B2", "-"), ("#009E73", "--"), ("#B59B00", ":"))


def episodes_figure(progress: pd.DataFrame, unit: str | None) -> Figure | None:
    """Shares of training episodes over steps, and how many evaluations in a row met an aim; None where neither is
    logged.

    Args:
        unit: of the score of evaluations; one of the shares is drawn beside them.
    """
    shares = [name for name in SHARES if name in progress and progress[name].notna().any()]
    streaks = [name for name in progress if _streak_of(name) and progress[name].notna().any()]
    rows = [kind for kind in (shares, streaks) if kind]
    if not rows:
        return None
    clock, steps_name = clock_of(progress)
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(8, 2.2 + 1.6 * len(rows)), layout="constrained", sharex=True, squeeze=False,
        height_ratios=[5, 3][-len(rows) :],
    )  # fmt: skip
    for ax, names in zip(axes[:, 0], rows, strict=True):
        for name, (color, line) in zip(names, SHARE_STYLES * 3, strict=False):
            known = progress[[clock, name]].dropna()
            if names is shares:
                ax.plot(known[clock], known[name], color=color, ls=line, lw=1.8, label=SHARES[name])
            else:
                ax.step(known[clock], known[name], where="post", color=color, ls=line, lw=1.8, marker="o", ms=3.5,
                        label=_streak_of(name))  # fmt: skip
        ax.grid(alpha=0.3)
    if shares:
        scored = progress[[clock, "eval_score"]].dropna()
        if unit in shares and len(scored):
            axes[0, 0].plot(scored[clock], scored["eval_score"], "o", color="black", ms=4,
                            label=f"{SHARES[unit]}, evaluation")  # fmt: skip
        axes[0, 0].set(ylabel="share of episodes", ylim=(-0.03, 1.03), title="Episodes during training")
    if streaks:
        longest = max(progress[name].max() for name in streaks)
        axes[-1, 0].set(ylabel="evaluations in a row", ylim=(-0.1, 1.1 * max(longest, 1)))
        axes[-1, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_xlabel(steps_name)
    for ax in axes[:, 0]:
        ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _streak_of(column: str) -> str | None:
    """What the evaluations of a streak's column met; None for other columns."""
    found = re.fullmatch("eval_(.*)_streak", column)
    return found[1].replace("_", " ") if found else None


def compare_figure(run_dirs: Sequence[Path]) -> Figure:
    """Learning curves of several runs, and their final scores as bars beside the baselines.

    Raises:
        ConfigError: a run without evaluations.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    bars: list[tuple[str, float, float]] = []
    report, steps_names = None, set[str]()
    for run_dir in run_dirs:
        progress, evaluations = read_progress(run_dir), read_evaluations(run_dir)
        if not evaluations:
            raise ConfigError(f"{run_dir}: no evaluations to compare")
        key = "percent_of_bound_per_seed" if evaluations[-1]["percent_of_bound_per_seed"] else "policy_per_seed"
        clock, steps_name = clock_of(progress)
        steps_names.add(steps_name)
        steps_at = dict(zip(progress["epoch"], progress[clock], strict=True))
        steps = [steps_at[e["epoch"]] for e in evaluations if e["epoch"] in steps_at]
        scores = np.array([e[key] for e in evaluations if e["epoch"] in steps_at])
        left.plot(steps, scores.mean(axis=1), lw=1.8, label=run_dir.name)
        left.fill_between(steps, scores.min(axis=1), scores.max(axis=1), alpha=0.15, lw=0)
        report = final_report(run_dir) or evaluations[-1]
        values = report[key]
        bars.append((run_dir.name, float(np.mean(values)), float(np.std(values))))
    assert report is not None
    percent = report["percent_of_bound_per_seed"] is not None
    rules = report["detail"].get("percent_of_bound_baselines") if percent else report["baselines"]
    label = "% of bound" if percent else report["unit"]
    left.set(xlabel=" or ".join(sorted(steps_names)), ylabel=label, title="during training")
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    _bars(right, bars, rules or {}, label)
    return figure


def _bars(ax: Axes, bars: Sequence[tuple[str, float, float]], rules: dict[str, float], label: str) -> None:
    rows = [*((name, value, 0.0, "lightgrey") for name, value in rules.items()),
            *((name, value, spread, POLICY_COLOR) for name, value, spread in bars)]  # fmt: skip
    names, values, spreads, colors = zip(*rows, strict=True)
    ax.barh(range(len(rows)), values, xerr=spreads, color=colors)
    ax.set_yticks(range(len(rows)), names, fontsize=8)
    for position, value in enumerate(values):
        ax.annotate(f"{value:.4g}", (max(value, 0), position), xytext=(4, 0), textcoords="offset points",
                    va="center", fontsize=8)  # fmt: skip
    ax.set(xlabel=label, title="final score")
    ax.margins(x=0.15)


# Sweeps

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
        ConfigError: no finished sweep there.
    """
    path = sweep_dir / "summary.csv"
    if not path.exists():
        raise ConfigError(f"{sweep_dir}: no summary.csv; point to the directory of a finished sweep")
    report = json.loads((sweep_dir / "sweep.json").read_text())
    summary, curves = pd.read_csv(path), pd.read_csv(sweep_dir / "curves.csv")
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


# Other conditions

PANELS_ACROSS = 4
PLACES_UP_TO = 5
"""Sizes that are named one by one on their axis."""
AXIS_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red")


def shift_figure(rows: pd.DataFrame, column: str) -> Figure:
    """A number over the size of shifts, a panel for each kind.

    Lines are means over who is shifted with a band from the least to the largest, dashed where all are at once; the
    grey line is the unshifted case. Axes with fewer sizes than others are points.

    Args:
        rows: of `purerl.report.conditions.play_shifts`.
    """
    kinds = [kind for kind in dict.fromkeys(rows["kind"]) if kind != "none"]
    across = max(1, min(len(kinds), PANELS_ACROSS))
    down = max(1, -(-len(kinds) // across))
    figure, axes = plt.subplots(
        down, across, figsize=(3.4 * across + 0.6, 2.7 * down + 0.4), layout="constrained", squeeze=False, sharey=True
    )
    for ax in axes.flat[len(kinds) :]:
        ax.set_axis_off()
    for ax, kind in zip(axes.flat, kinds, strict=False):
        own = rows[rows["kind"] == kind]
        # Of any shift that has the number: some have none, and then no change.
        unshifted = float((own[column] - own[f"{column}_change"]).dropna().mean())
        ax.axhline(unshifted, color="grey", lw=1, zorder=1)
        if own["size"].isna().all():
            _choices(ax, own, column)
        else:
            _sizes(ax, own, column, unshifted)
        unit = own["unit"].iloc[0]
        ax.set_title(f"{kind} [{unit}]" if unit else kind, fontsize=10)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel(column)
    figure.suptitle(f"{column} under shifts: mean and range over one shifted, dashed: all shifted", fontsize=11)
    return figure


def _sizes(ax: Axes, own: pd.DataFrame, column: str, unshifted: float) -> None:
    sizes = own.groupby("axis", sort=False)["size"].nunique()
    for (axis, part), color in zip(own.groupby("axis", sort=False), AXIS_COLORS, strict=False):
        alone, few = part["who"].nunique() == 1, sizes[axis] < sizes.max()
        for together, one in part.groupby(part["who"] == "all"):
            hollow = together and not alone
            spread = one.groupby("size")[column].agg(["mean", "min", "max"])
            if not few:
                spread.loc[0.0] = unshifted
                spread = spread.sort_index()
                ax.fill_between(spread.index, spread["min"], spread["max"], color=color, alpha=0.15, lw=0)
            ax.plot(
                spread.index, spread["mean"], "o", ls="" if few else "--" if hollow else "-", color=color, lw=1.4,
                ms=4 if few else 3, mfc="none" if hollow else color, label=None if hollow else axis,
            )  # fmt: skip
    if len(sizes) > 1:
        ax.legend(fontsize=7)
    places = sorted({0.0, *own["size"]})
    if len(places) <= PLACES_UP_TO:
        ax.set_xticks(places, [_value(place) for place in places])


def _choices(ax: Axes, own: pd.DataFrame, column: str) -> None:
    names = list(dict.fromkeys(own["axis"]))
    for place, name in enumerate(names):
        part = own[own["axis"] == name]
        one, together = part.loc[part["who"] != "all", column], part.loc[part["who"] == "all", column]
        ax.plot([place] * len(one), one, "o", color=AXIS_COLORS[0], ms=4, label="one" if place == 0 else None)
        ax.plot([place] * len(together), together, "D", color=AXIS_COLORS[1], ms=5, mfc="none",
                label="all" if place == 0 else None)  # fmt: skip
    ax.set_xticks(range(len(names)), names)
    ax.margins(x=0.2)
    ax.legend(fontsize=7)


def matrix_figure(matrices: Mapping[str, pd.DataFrame], trained_on: Mapping[str, str | None]) -> Figure:
    """Heat maps of pilots x scenarios with their numbers; framed where a pilot flies what it was trained on.

    Args:
        matrices: number -> its table.
        trained_on: pilot -> scenario, None for rules.
    """
    down, (pilots, scenarios) = len(matrices), next(iter(matrices.values())).shape
    figure, axes = plt.subplots(
        down, 1, figsize=(2.6 + 0.72 * scenarios, 0.5 + down * (0.55 + 0.34 * pilots)), layout="constrained",
        squeeze=False, sharex=True,
    )  # fmt: skip
    for ax, (name, matrix) in zip(axes[:, 0], matrices.items(), strict=True):
        image = ax.imshow(matrix, aspect="auto", cmap="viridis")
        low, high = image.get_clim()
        for (row, column), value in np.ndenumerate(matrix.to_numpy()):
            dark = value - low < 0.6 * (high - low)
            text = "–" if np.isnan(value) else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
            if trained_on[matrix.index[row]] == matrix.columns[column]:
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec="tab:red", lw=2, zorder=3))
        ax.set_yticks(range(pilots), matrix.index, fontsize=8)
        ax.tick_params(length=0)
        runs = sum(trained_on[pilot] is not None for pilot in matrix.index)
        ax.axhline(runs - 0.5, color="white", lw=3)
        ax.set_title(name, fontsize=10)
        figure.colorbar(image, ax=ax, pad=0.01).ax.tick_params(labelsize=7)
    ax.set_xticks(range(scenarios), matrix.columns, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    return figure


def save_figures(figures: Mapping[str, Figure | Animation], directory: Path) -> list[Path]:
    """Write `<name>.png` for each figure and `<name>.gif` for each animation, and close them."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        if isinstance(figure, Animation):
            paths.append(directory / f"{name}.gif")
            figure.save(paths[-1], writer="pillow", dpi=GIF_DPI)
            continue
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=DPI)
        plt.close(figure)
    return paths
