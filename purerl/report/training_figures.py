"""Figures of runs: learning curve, losses and diagnostics, shares of episodes, comparison of runs.

Everything is drawn from values, `purerl.report.shown` has them from memory or from files. Figures of an environment's
own subject come from its `figures` function.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from purerl.errors import ConfigError
from purerl.report.style import BASELINE_COLORS, BOUND_COLOR, POLICY_COLOR
from purerl.run.history import History

if TYPE_CHECKING:
    from purerl.report.shown import Shown

matplotlib.use("Agg")  # files only: no window system is needed


def training_figures(history: History, shares: Mapping[str, str]) -> dict[str, Figure]:
    """Figures that every run has, by file name.

    Args:
        shares: columns of training episodes that are shares, and what they are called.

    Raises:
        ConfigError: nothing was logged.
    """
    if not history.progress:
        raise ConfigError("no training log to draw; train with logging.csv or logging.jsonl")
    progress = progress_table(history)
    evaluations = evaluated(history)
    figures = {"losses": losses_figure(progress)}
    if evaluations:
        figures["learning_curve"] = learning_curve_figure(evaluations, progress)
    episodes = episodes_figure(progress, shares, evaluations[-1]["unit"] if evaluations else None)
    return figures if episodes is None else {**figures, "episodes": episodes}


def evaluated(history: History) -> list[dict[str, Any]]:
    """Evaluations whose place on the axis is known."""
    logged = {row["epoch"] for row in history.progress}
    return [report for report in history.evaluations if report["epoch"] in logged]


def progress_table(history: History) -> pd.DataFrame:
    """One row per epoch; NaN where nothing is known."""
    return pd.DataFrame(history.progress).astype(float)


def clock_of(progress: pd.DataFrame) -> tuple[str, str]:
    """Column to draw a run over and its name: gradient steps where a run takes no environment steps."""
    if (progress["env_steps"] == 0).all():
        return "gradient_steps", "gradient steps"
    return "env_steps", "environment steps"


def learning_curve_figure(evaluations: Sequence[dict[str, Any]], progress: pd.DataFrame) -> Figure:
    """Evaluation score over steps with its range over seeds, baselines and bound as lines.

    Args:
        evaluations: at least one, of epochs that are in the log.
    """
    clock, steps_name = clock_of(progress)
    steps_at = dict(zip(progress["epoch"], progress[clock], strict=True))
    steps = np.array([steps_at[e["epoch"]] for e in evaluations])
    as_percent = all(e["percent_of_bound_per_seed"] for e in evaluations)
    key = "percent_of_bound_per_seed" if as_percent else "policy_per_seed"
    scores = np.array([e[key] for e in evaluations])
    last = evaluations[-1]
    if as_percent:
        lines, bound, label = last.get("percent_of_bound_baselines") or {}, 100.0, "% of bound"
    else:
        lines, bound, label = last["baselines"], last["bound"], last["unit"]
    figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
    marker = "o" if len(steps) == 1 else None  # a line of one point cannot be seen
    label_seeds = f"policy ({scores.shape[1]} seed(s))"
    ax.plot(steps, scores.mean(axis=1), color=POLICY_COLOR, lw=2, marker=marker, label=label_seeds)
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
    Panel("critic loss", ("critic_loss", "value_loss", "td_loss"), "log"),
    Panel("actor loss", ("actor_loss", "policy_loss")),
    Panel("entropy of the policy", ("entropy", "target_entropy")),
    Panel("KL divergence", ("approx_kl", "behaviour_kl"), "log"),
    Panel("explained variance of returns", ("explained_variance",)),
    Panel("temperature", ("alpha",), "log"),
    Panel("value at the start: estimate less return", ("q_start_bias", "eval_q_start_bias"), "around_zero"),
    Panel("critic means over all steps", ("q1_mean_all", "q2_mean_all", "q_tot_mean", "target_mean"), "around_zero"),
    Panel("weights of the agents' advantages", ("lambda_mean", "lambda_min", "lambda_max", "alpha_mean")),
    Panel("shares of choices: drawn, greedy", ("epsilon", "hit_prob")),
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


SHARE_STYLES = (("#0072B2", "-"), ("#009E73", "--"), ("#B59B00", ":"))


def episodes_figure(progress: pd.DataFrame, labels: Mapping[str, str], unit: str | None) -> Figure | None:
    """Shares of training episodes over steps, and how many evaluations in a row met an aim; None where neither is
    logged.

    Args:
        labels: of the columns that are shares.
        unit: of the score of evaluations; one of the shares is drawn beside them.
    """
    shares = [name for name in labels if name in progress and progress[name].notna().any()]
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
                ax.plot(known[clock], known[name], color=color, ls=line, lw=1.8, label=labels[name])
            else:
                ax.step(known[clock], known[name], where="post", color=color, ls=line, lw=1.8, marker="o", ms=3.5,
                        label=_streak_of(name))  # fmt: skip
        ax.grid(alpha=0.3)
    if shares:
        scored = progress[[clock, "eval_score"]].dropna()
        if unit in shares and len(scored):
            axes[0, 0].plot(scored[clock], scored["eval_score"], "o", color="black", ms=4,
                            label=f"{labels[unit]}, evaluation")  # fmt: skip
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


def compare_figure(runs: Mapping[str, "Shown"]) -> Figure:
    """Learning curves of several runs with evaluations, and their final scores as bars.

    Rules stand beside them where all runs are of the same task.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    bars: list[tuple[str, float, float]] = []
    steps_names = set[str]()
    for name, shown in runs.items():
        progress, key = progress_table(shown.history), _scores_key(shown)
        clock, steps_name = clock_of(progress)
        steps_names.add(steps_name)
        steps_at = dict(zip(progress["epoch"], progress[clock], strict=True))
        evaluations = evaluated(shown.history)
        scores = np.array([e[key] for e in evaluations])
        steps, marker = [steps_at[e["epoch"]] for e in evaluations], "o" if len(evaluations) == 1 else None
        left.plot(steps, scores.mean(axis=1), lw=1.8, marker=marker, label=name)
        left.fill_between(steps, scores.min(axis=1), scores.max(axis=1), alpha=0.15, lw=0)
        values = last_report(shown)[key]
        bars.append((name, float(np.mean(values)), float(np.std(values))))
    last, tasks = list(runs.values())[-1], {shown.config.env["name"] for shown in runs.values()}
    report, label = last_report(last), unit_of(last)
    rules = report["baselines"] if label == report["unit"] else report.get("percent_of_bound_baselines")
    left.set(xlabel=" or ".join(sorted(steps_names)), ylabel=label, title="during training")
    left.grid(alpha=0.3)
    left.legend(fontsize=8)
    _bars(right, bars, (rules or {}) if len(tasks) == 1 else {}, label)
    return figure


def last_report(shown: "Shown") -> Mapping[str, Any]:
    """The final score, of a run that has not ended the last evaluation."""
    return shown.report or shown.history.evaluations[-1]


def _scores_key(shown: "Shown") -> str:
    reports = [*evaluated(shown.history), last_report(shown)]
    return "percent_of_bound_per_seed" if all(r["percent_of_bound_per_seed"] for r in reports) else "policy_per_seed"


def unit_of(shown: "Shown") -> str:
    """Of the scores that are compared."""
    return last_report(shown)["unit"] if _scores_key(shown) == "policy_per_seed" else "% of bound"


def _bars(ax: Axes, bars: Sequence[tuple[str, float, float]], rules: dict[str, float], label: str) -> None:
    rows = [*((name, value, 0.0, "lightgrey") for name, value in rules.items()),
            *((name, value, deviation, POLICY_COLOR) for name, value, deviation in bars)]  # fmt: skip
    names, values, deviations, colors = zip(*rows, strict=True)
    ax.barh(range(len(rows)), values, xerr=deviations, color=colors)
    ax.set_yticks(range(len(rows)), names, fontsize=8)
    for position, value in enumerate(values):
        ax.annotate(f"{value:.4g}", (max(value, 0), position), xytext=(4, 0), textcoords="offset points",
                    va="center", fontsize=8)  # fmt: skip
    ax.set(xlabel=label, title="final score")
    ax.margins(x=0.15)
