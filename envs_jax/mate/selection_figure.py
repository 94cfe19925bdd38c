"""Who watches whom: an episode target by target, when a visible target is selected, how often targets are seen twice.

Reading order: `selection_figure` and its panels, each beside the numbers that it draws. Without selections (other forms
of control than target selection) what cameras see stands for what they select.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from envs_jax.base import FRAMES
from envs_jax.episodes import POLICY
from envs_jax.mate.drawing import COLORS

STATES = {
    "neither": "#FFFFFF",
    "selected, not in view": "#D55E00",
    "in view, not selected": "#BFDDF0",
    "in view and selected": "#0072B2",
}
"""Of a target for a camera before a decision; in the order of `pair_states`."""
DISTANCES = np.arange(0, 1501, 150.0)
FEWEST = 30
"""Pairs in a bin below which its share is not drawn."""


class Pairs(NamedTuple):
    """Cameras and targets when decisions were made, bool or float [K, C, T]."""

    visible: np.ndarray
    selected: np.ndarray | None
    """None where cameras do not select targets."""
    distance: np.ndarray


def pairs_of(records: Mapping[str, Any], episode: int | None = None) -> Pairs:
    """Of all decisions of all episodes, or of one."""
    active = np.asarray(records["active"], bool).copy()
    if episode is not None:
        active[np.arange(len(active)) != episode] = False
    world = records["state"].world
    away = np.asarray(world.layout.camera_loc)[active][:, :, None] - np.asarray(world.target_loc)[active][:, None]
    selected = np.asarray(records["selected"], bool)[active] if "selected" in records else None
    return Pairs(np.asarray(world.sight.c2t, bool)[active], selected, np.linalg.norm(away, axis=-1))


def selection_figure(shown: Mapping[str, Mapping[str, Any]], name: str) -> Figure:
    """Of the policy's first episode and all its decisions, beside those of the other players."""
    figure = Figure(figsize=(14.0, 4.8), layout="constrained")
    selects = "selected" in shown[POLICY]
    axes = figure.subplots(1, 3 if selects else 2, width_ratios=(2.2, 1, 1) if selects else (2.2, 1))
    records = shown[POLICY]
    frame = np.asarray(records["state"].world.steps)[0][np.asarray(records["active"][0], bool)]
    draw_timeline(axes[0], pairs_of(records, 0), frame, int(np.asarray(records[FRAMES])[0, 0]))
    if selects:
        draw_chosen(axes[1], pairs_of(records))
    draw_watchers(axes[-1], {player: watchers(pairs_of(records).visible) for player, records in shown.items()})
    figure.suptitle(f"{name}: who watches whom", fontsize=10)
    return figure


def pair_states(pairs: Pairs) -> np.ndarray:
    """Rows T C of decisions K: numbers of `STATES`."""
    selected = pairs.visible if pairs.selected is None else pairs.selected
    states = 2 * pairs.visible.astype(int) + selected
    return states.transpose(2, 1, 0).reshape(-1, len(states))


def draw_timeline(ax: Axes, pairs: Pairs, frame: np.ndarray, held: int) -> None:
    """A row for every target and camera over an episode."""
    _, cameras, targets = pairs.visible.shape
    extent = (float(frame[0]), float(frame[-1] + held), targets * cameras, 0)
    colors = ListedColormap(list(STATES.values()))
    ax.imshow(pair_states(pairs), aspect="auto", interpolation="nearest", cmap=colors, vmin=0, vmax=3, extent=extent)
    for t in range(1, targets):
        ax.axhline(t * cameras, color="black", lw=0.8)
    ax.set_yticks((np.arange(targets) + 0.5) * cameras, [f"target {t}" for t in range(targets)])
    ax.set(xlabel="frame", title=f"an episode; of each target a row for each of {cameras} cameras")
    ax.title.set_fontsize(9)
    used = list(STATES) if pairs.selected is not None else ["in view and selected"]
    handles = [
        Patch(fc=STATES[state], ec="#888888", lw=0.5, label=state if len(used) > 1 else "in view") for state in used
    ]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, fontsize=7, frameon=False)


def chosen_share(pairs: Pairs) -> dict[str, np.ndarray]:
    """Share of the visible targets that are selected by distance, where nobody else sees them and where somebody does;
    NaN where there are few."""
    assert pairs.selected is not None
    shared = pairs.visible & (pairs.visible.sum(axis=1, keepdims=True) > 1)
    shares = {}
    for label, which in (("seen by nobody else", pairs.visible & ~shared), ("seen by others, too", shared)):
        count, chosen = (
            np.histogram(pairs.distance[which & own], DISTANCES)[0] for own in (pairs.visible, pairs.selected)
        )
        shares[label] = np.where(count >= FEWEST, chosen / np.maximum(count, 1), np.nan)
    return shares


def draw_chosen(ax: Axes, pairs: Pairs) -> None:
    middle = 0.5 * (DISTANCES[1:] + DISTANCES[:-1])
    for (label, share), color, mark in zip(chosen_share(pairs).items(), COLORS, "os", strict=False):
        ax.plot(middle, share, color=color, marker=mark, ms=4, lw=1.3, label=label)
    ax.set(xlabel="distance", ylabel="share of the visible targets that is selected", ylim=(0, 1.02))
    ax.set_title("what is selected", fontsize=9)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7)


def watchers(visible: np.ndarray) -> np.ndarray:
    """Share of the targets, over decisions, that 0, 1, ... C cameras see, [C + 1]."""
    seen_by = visible.sum(axis=1).ravel()
    return np.bincount(seen_by, minlength=visible.shape[1] + 1) / max(seen_by.size, 1)


def draw_watchers(ax: Axes, shares: Mapping[str, np.ndarray]) -> None:
    width = 0.8 / len(shares)
    for number, ((player, share), color) in enumerate(zip(shares.items(), COLORS, strict=False)):
        place = np.arange(len(share)) + (number - (len(shares) - 1) / 2) * width
        ax.bar(place, share, width=width, color=color, label=player)
    ax.set(xlabel="cameras that see a target", ylabel="share of the targets")
    ax.set_xticks(np.arange(len(next(iter(shares.values())))))
    ax.set_title("left alone, and seen twice", fontsize=9)
    ax.grid(alpha=0.3, axis="y")
    ax.legend(fontsize=7)
