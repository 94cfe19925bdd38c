"""Figures of many episodes: closest approaches, how often and where separation is lost, alerts against conflicts."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from envs_jax.atc import flights as fl
from envs_jax.atc.drawing import LOSS, STYLES, Scene, color_of, grid, map_axes, square
from envs_jax.atc.flights import Approaches
from envs_jax.episodes import POLICY

SHOWN_SECONDS, SHOWN_DCPA_NM = (-120.0, 420.0), 20.0
SHOWN_APPROACHES = 6000


def approach_figure(seen: Mapping[str, Approaches], scene: Scene) -> Figure:
    """Time to and distance at the closest point of approach of all pairs at all steps."""
    figure, axes = grid(seen, [0], (5.2, 3.8), sharex=True, sharey=True)
    for column, (name, pairs) in enumerate(seen.items()):
        ax = axes[0, column]
        thin = slice(None, None, max(1, len(pairs.tcpa_s) // SHOWN_APPROACHES))
        lost = pairs.now_nm < scene.separation_nm
        for part, color, size, label in ((~lost, "#0072B2", 5, "apart"), (lost, LOSS, 9, "separation lost")):
            tcpa, dcpa = (v[part][thin] for v in (pairs.tcpa_s, pairs.dcpa_nm))
            ax.scatter(tcpa, dcpa, s=size, color=color, alpha=0.35, lw=0, label=label, zorder=3, rasterized=True)
        ax.axhline(scene.separation_nm, color="black", lw=1.0, label=f"{scene.separation_nm:g} NM")
        ax.axvline(0, color="grey", lw=0.8)
        ahead = pairs.tcpa_s > 0
        risky = float(np.mean(ahead & (pairs.dcpa_nm < scene.separation_nm))) if len(ahead) else 0.0
        ax.set(xlim=SHOWN_SECONDS, ylim=(0, SHOWN_DCPA_NM), xlabel="time to closest approach, s (negative: passed)")
        ax.set_title(f"{name}: {risky:.0%} of pairs on courses into each other", fontsize=10)
        ax.set_ylabel("separation there, NM" if column == 0 else "")
        ax.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False, markerscale=2
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    figure.suptitle(scene.name)
    return figure


def survival_figure(least_nm: Mapping[str, np.ndarray], scene: Scene) -> Figure:
    """Share of episodes in which no pair came closer than x, with its 95 % bootstrap band."""
    figure, ax = plt.subplots(figsize=(8, 4.3), layout="constrained")
    everything = np.concatenate(list(least_nm.values()))
    right = float(np.clip(np.percentile(everything, 98), 1.6 * scene.separation_nm, 4 * scene.separation_nm))
    x = np.linspace(0, right, 400)
    for number, (name, values) in enumerate(least_nm.items()):
        color, line = STYLES.get(name, (color_of(number), "-."))
        share = fl.survival(values, x)
        low, high = fl.survival_band(share, len(values))
        kept = float(fl.survival(values, np.array([scene.separation_nm]))[0])
        ax.fill_between(x, low, high, color=color, alpha=0.2, lw=0)
        ax.plot(x, share, color=color, ls=line, lw=1.8, label=f"{name} ({kept:.1%} at {scene.separation_nm:g} NM)")
    for limit, line in ((scene.separation_nm, "-"), (scene.collision_nm, "--")):
        ax.axvline(limit, color="black", lw=1.0, ls=line, label=f"{limit:g} NM")
    count = len(next(iter(least_nm.values())))
    ax.set(xlim=(0, right), ylim=(-0.02, 1.02), xlabel="x, NM", ylabel="share of episodes never closer than x",
           title=f"{scene.name}: smallest separation in {count} episodes")  # fmt: skip
    ax.grid(alpha=0.3)
    ax.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def conflict_figure(lost: Mapping[str, tuple[np.ndarray, np.ndarray]], scene: Scene, squares: int = 48) -> Figure:
    """Where separation is lost: seconds per square nautical mile and episode, half-way between the two of a pair.

    Args:
        lost: `(midpoints [K, 2], smallest separations [E])` by pilot.
    """
    points = np.concatenate([points for points, _ in lost.values()])
    points = points if len(points) else np.zeros((1, 2))
    extent = square(*((float(side.min()) - 1.0, float(side.max()) + 1.0) for side in points.T))
    edges = tuple(np.linspace(*side, squares + 1) for side in extent)
    area = float(edges[0][1] - edges[0][0]) ** 2
    maps = {name: fl.heat_map(points, edges, len(least)) / area for name, (points, least) in lost.items()}
    top = max(float(density.max()) for density in maps.values()) or 1.0
    one = min(1 / (area * len(least)) for _, least in lost.values())
    norm = LogNorm(min(one, top / 10), top)
    figure, axes = grid(maps, [0], (5.0, 4.6), sharex=True, sharey=True)
    image = None
    for column, (name, density) in enumerate(maps.items()):
        ax, (points, least) = axes[0, column], lost[name]
        shown = np.ma.masked_less_equal(density.T, 0)
        image = ax.pcolormesh(*edges, shown, norm=norm, cmap="cividis", rasterized=True)
        map_axes(ax, extent, bottom=True, left=column == 0)
        share = float(np.mean(least < scene.separation_nm))
        if not len(points):
            ax.text(0.5, 0.5, "none", transform=ax.transAxes, ha="center", va="center", color="grey")
        ax.set_title(f"{name}: {len(points) / len(least):.1f} s lost per episode,\n{share:.1%} of episodes with a loss",
                     fontsize=10)  # fmt: skip
    figure.colorbar(image, ax=axes, label="seconds of loss per NM² and episode")
    count = len(next(iter(lost.values()))[1])
    figure.suptitle(f"{scene.name}: where separation is lost in {count} episodes")
    return figure


COUNTS = ("tp", "fn", "fp", "tn")


def alert_counts(detail: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Counts by pilot from the details of a report, of several seeds their mean; empty where alerts were not scored."""
    scored = {POLICY: detail, **detail.get("rules", {})}
    counts = {name: own["alerts"]["pilots"] for name, own in scored.items() if "alerts" in own}
    if POLICY in counts:
        counts["predictor"] = detail["alerts"]["predictor"]
    return {name: {kind: float(np.mean(own[kind])) for kind in COUNTS} for name, own in counts.items()}


def alerts_figure(counts: Mapping[str, Mapping[str, float]], title: str = "Alerts against conflicts") -> Figure:
    """Bars of events found, missed and made up, and of quiet steps, which are counted in another unit.

    Args:
        counts: by pilot: `tp`, `fn`, `fp` events and `tn` steps.
    """
    kinds = {"tp": ("found (TP)", "#0072B2"), "fn": ("missed (FN)", LOSS), "fp": ("false alert (FP)", "#B59B00")}
    hatches = {"tp": "", "fn": "//", "fp": ".."}
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(2.2 * len(counts) + 4.6, 4.0), layout="constrained", width_ratios=[3, 1.4]
    )
    position, width = np.arange(len(counts)), 0.26
    for number, (kind, (label, color)) in enumerate(kinds.items()):
        values = [counts[name][kind] for name in counts]
        bars = left.bar(position + (number - 1) * width, values, width, color=color, label=label, hatch=hatches[kind],
                        edgecolor="white")  # fmt: skip
        left.bar_label(bars, fmt="%g", fontsize=8, padding=2)
    bars = right.bar(position, [counts[name]["tn"] for name in counts], 0.5, color="#999999", label="quiet (TN)")
    right.bar_label(bars, fmt="%g", fontsize=8, padding=2)
    for ax, unit in ((left, "events"), (right, "steps of 10 s")):
        ax.set_xticks(position, counts)
        ax.set_ylabel(unit)
        ax.margins(y=0.15)
        ax.grid(alpha=0.3, axis="y")
        ax.set_axisbelow(True)
    handles, labels = (
        a + b for a, b in zip(left.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True)
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(title)
    return figure
