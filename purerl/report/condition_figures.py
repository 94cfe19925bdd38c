"""Figures of policies under other conditions: numbers over the size of changes, matrices of players x conditions."""

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from purerl.report.sweep_figures import _value

PANELS_ACROSS = 4
PLACES_UP_TO = 5
"""Sizes that are named one by one on their axis."""
AXIS_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red")


def change_figure(rows: pd.DataFrame, column: str, name: str) -> Figure:
    """A number over the size of changes, a panel for each kind.

    Lines are means over who is changed with a band from the least to the largest, dashed where all are at once; the
    grey line is the unchanged case. Axes with fewer sizes than others are points.

    Args:
        rows: of `purerl.report.conditions.play_changes`.
        name: of the changes.
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
        # Of any change that has the number: some have none, and then no change.
        unchanged = float((own[column] - own[f"{column}_change"]).dropna().mean())
        ax.axhline(unchanged, color="grey", lw=1, zorder=1)
        if own["size"].isna().all():
            _choices(ax, own, column)
        else:
            _sizes(ax, own, column, unchanged)
        unit = own["unit"].iloc[0]
        ax.set_title(f"{kind} [{unit}]" if unit else kind, fontsize=10)
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.3)
    for row in axes:
        row[0].set_ylabel(column)
    changed = rows[rows["kind"] != "none"]
    has_both = (changed["who"] == "all").groupby(changed["kind"]).nunique().gt(1).any()
    title = f"{column} under {name}: mean and range over one changed, dashed: all changed"
    figure.suptitle(textwrap.fill(title if has_both else f"{column} under {name}", 14 * across), fontsize=11)
    return figure


def _sizes(ax: Axes, own: pd.DataFrame, column: str, unchanged: float) -> None:
    sizes = own.groupby("axis", sort=False)["size"].nunique()
    for (axis, part), color in zip(own.groupby("axis", sort=False), AXIS_COLORS, strict=False):
        alone, few = part["who"].nunique() == 1, sizes[axis] < sizes.max()
        for together, one in part.groupby(part["who"] == "all"):
            hollow = together and not alone
            ranges = one.groupby("size")[column].agg(["mean", "min", "max"])
            if not few:
                ranges.loc[0.0] = unchanged
                ranges = ranges.sort_index()
                ax.fill_between(ranges.index, ranges["min"], ranges["max"], color=color, alpha=0.15, lw=0)
            ax.plot(
                ranges.index, ranges["mean"], "o", ls="" if few else "--" if hollow else "-", color=color, lw=1.4,
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
    """Heat maps of players x conditions with their numbers; framed where a player meets what it was trained on.

    Args:
        matrices: number -> its table.
        trained_on: player -> condition, None for rules.
    """
    down, (players, conditions) = len(matrices), next(iter(matrices.values())).shape
    figure, axes = plt.subplots(
        down, 1, figsize=(2.6 + 0.72 * conditions, 0.5 + down * (0.55 + 0.34 * players)), layout="constrained",
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
        ax.set_yticks(range(players), matrix.index, fontsize=8)
        ax.tick_params(length=0)
        runs = sum(trained_on[player] is not None for player in matrix.index)
        ax.axhline(runs - 0.5, color="white", lw=3)
        ax.set_title(name, fontsize=10)
        figure.colorbar(image, ax=ax, pad=0.01).ax.tick_params(labelsize=7)
    ax.set_xticks(range(conditions), matrix.columns, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    return figure
