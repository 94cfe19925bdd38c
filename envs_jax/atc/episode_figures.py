"""Figures of single episodes: maps, separation over time, moments beside each other, the flight as a film."""

from collections.abc import Mapping

import numpy as np
from matplotlib.animation import Animation, FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Circle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from envs_jax.atc import flights as fl
from envs_jax.atc.drawing import (
    DASHES,
    HALO,
    LOSS,
    Scene,
    color_of,
    draw_map,
    extent_of,
    grid,
    map_axes,
    summary_of,
)
from envs_jax.atc.flights import Flights
from envs_jax.atc.params import SUBSTEPS

FRAME_S, FRAMES_PER_S = 5, 12


def trajectories_figure(shown: Mapping[str, Flights], rows: Mapping[str, int], scene: Scene) -> Figure:
    """Maps: pilots beside each other, episodes below each other. `rows` names episodes by what they are."""
    figure, axes = grid(shown, rows, (4.9, 4.9), sharex="row", sharey="row")
    for row, (label, index) in enumerate(rows.items()):
        flights = {name: fl.episode(many, index) for name, many in shown.items()}
        extent = extent_of(list(flights.values()), scene, scene.separation_nm + 0.5)
        for column, (name, flight) in enumerate(flights.items()):
            ax = axes[row, column]
            draw_map(ax, flight, scene)
            map_axes(ax, extent, row == len(rows) - 1, column == 0)
            ax.set_title(f"{name}, {label}: closest {summary_of(flight)}", fontsize=10)
    handles = [
        Line2D([], [], marker="o", ms=6, label="start", color="grey", ls=""),
        Line2D([], [], marker="o", ms=3.4, mfc="white", label="every minute", color="grey", ls=""),
        Line2D(
            [], [], marker="o", ms=10, mfc="none", label=f"waypoint ({scene.waypoint_nm:g} NM)", color="grey", ls=""
        ),
        Line2D([], [], color=LOSS, lw=4, label=f"closer than {scene.separation_nm:g} NM"),
        Line2D([], [], color="black", marker="x", ms=6, mew=1.6, lw=1.2, label="closest pair at its closest"),
        Line2D([], [], color="black", lw=1, ls=DASHES, label=f"{scene.separation_nm:g} NM around them"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.suptitle(scene.name)
    return figure


NAMED_PAIRS = 6
FAR_ENOUGH = 6
"""Separations beyond this many times the required one are not shown."""


def separation_figure(shown: Mapping[str, Flights], rows: Mapping[str, int], scene: Scene) -> Figure:
    """Separation of every pair over time, of the same episodes as the maps; the closest pairs have colours."""
    figure, axes = grid(shown, rows, (5.2, 3.0), sharex=True, sharey=True)
    pairs = fl.pairs_of(len(scene.ids))
    named: dict[int, str] = {}
    last = 0
    for row, (label, index) in enumerate(rows.items()):
        for column, (name, many) in enumerate(shown.items()):
            ax, flight = axes[row, column], fl.episode(many, index)
            time = np.arange(len(flight.x_nm))
            for pair in np.argsort(np.nan_to_num(flight.least_nm, nan=np.inf), kind="stable"):
                if np.isnan(flight.least_nm[pair]):
                    continue
                if len(pairs) <= NAMED_PAIRS or (len(named) < NAMED_PAIRS and pair not in named):
                    named.setdefault(int(pair), color_of(len(named)))
                values = flight.separation_nm[:, pair]
                color = named.get(int(pair), "lightgrey")
                ax.plot(time, values, color=color, lw=1.5, zorder=3 if pair in named else 2)
                lost = np.where(flight.loss[:, pair], values, np.nan)
                ax.plot(time, lost, color=LOSS, lw=3.5, zorder=4, marker=".", ms=1)
            for limit, line in ((scene.separation_nm, "-"), (scene.collision_nm, "--")):
                ax.axhline(limit, color="black", lw=1.0, ls=line, zorder=5)
            ax.set_title(f"{name}, {label}: closest {summary_of(flight)}", fontsize=10)
            near = np.flatnonzero((flight.separation_nm < FAR_ENOUGH * scene.separation_nm).any(axis=1))
            last = max(last, *near[-1:], SUBSTEPS)
            ax.set(ylim=(0, FAR_ENOUGH * scene.separation_nm), xlim=(0, last))
            ax.set_xlabel("time, s" if row == len(rows) - 1 else "")
            ax.set_ylabel("separation, NM" if column == 0 else "")
            ax.grid(alpha=0.3)
    handles = [
        Line2D([], [], color=color, lw=1.5, label="-".join(scene.ids[i] for i in pairs[pair]))
        for pair, color in sorted(named.items())
    ]
    if len(pairs) > NAMED_PAIRS:
        handles.append(Line2D([], [], color="lightgrey", lw=1.5, label="others"))
    handles += [
        Line2D([], [], color=LOSS, lw=3.5, label="loss of separation"),
        Line2D([], [], color="black", lw=1, label=f"{scene.separation_nm:g} NM"),
        Line2D([], [], color="black", lw=1, ls="--", label=f"{scene.collision_nm:g} NM"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    figure.suptitle(scene.name)
    return figure


def draw_moment(ax: Axes, flight: Flights, scene: Scene, second: int) -> None:
    """Where everybody is and came from; discs of half the separation, which touch where it is lost."""
    second = min(second, len(flight.x_nm) - 1)
    lost = fl.losing(flight)[second]
    for i, id in enumerate(scene.ids):
        flown = int(flight.flying[:, i].sum())
        if not flown:
            continue
        color, now = color_of(i), min(second, flown - 1)
        x, y = flight.x_nm[: now + 1, i], flight.y_nm[: now + 1, i]
        ax.plot(x, y, color=color, lw=1.4, zorder=3)
        goal = flight.goal_x_nm[i], flight.goal_y_nm[i]
        ax.add_patch(Circle(goal, scene.waypoint_nm, fill=False, ec=color, lw=1.4, zorder=3))
        if second >= flown:
            continue
        disc = LOSS if lost[i] else color
        ax.add_patch(Circle((x[-1], y[-1]), scene.separation_nm / 2, fc=disc, ec=disc, alpha=0.25, lw=0, zorder=2))
        ax.plot(x[-1], y[-1], marker=_arrow(flight, i, now), ms=9, color=disc, mew=0, zorder=5)
        ax.annotate(
            id, (x[-1], y[-1]), xytext=(6, 6), textcoords="offset points", fontsize=7, path_effects=HALO, zorder=6
        )


ARROW = Path([(0, 1), (0.65, -0.9), (0, -0.5), (-0.65, -0.9), (0, 1)], closed=True)
"""Northbound."""


def _arrow(flight: Flights, i: int, second: int) -> MarkerStyle:
    """In the direction of the last second, at the start of the first."""
    end = min(max(second, 1), len(flight.x_nm) - 1)
    east, north = (path[end, i] - path[end - 1, i] for path in (flight.x_nm, flight.y_nm))
    return MarkerStyle(ARROW, transform=Affine2D().rotate(-np.arctan2(east, north)))


MOMENTS = 5


def frames_figure(flights: Mapping[str, Flights], scene: Scene) -> Figure:
    """One episode at a few moments, a row for each pilot; the middle one is the policy's closest."""
    first = next(iter(flights.values()))
    closest = fl.closest_pair(first)
    last = max(len(flight.x_nm) for flight in flights.values()) - 1
    middle = closest.second if closest is not None and 0 < closest.second < last else last // 2
    half = MOMENTS // 2
    seconds = [*np.linspace(0, middle, half + 1)[:-1], *np.linspace(middle, last, half + 1)]
    extent = extent_of(list(flights.values()), scene, scene.separation_nm / 2 + 0.5)
    figure, axes = grid(range(MOMENTS), flights, (2.5, 2.5), sharex=True, sharey=True)
    for row, (name, flight) in enumerate(flights.items()):
        for column, second in enumerate(map(round, seconds)):
            ax = axes[row, column]
            draw_moment(ax, flight, scene, second)
            map_axes(ax, extent, row == len(flights) - 1, column == 0)
            ax.set_xlabel("east, NM" if row == len(flights) - 1 else "")
            ax.set_ylabel(f"{name}\nnorth, NM" if column == 0 else "")
            if row == 0:
                ax.set_title(f"{second} s", fontsize=10)
    figure.suptitle(
        f"{scene.name}: discs of {scene.separation_nm / 2:g} NM overlap where separation is lost", fontsize=11
    )
    return figure


def animation(flights: Mapping[str, Flights], scene: Scene) -> Animation:
    """The same episode flown by all of them, side by side."""
    figure = Figure(figsize=(4.4 * len(flights), 4.8), layout="constrained")
    axes = figure.subplots(1, len(flights), squeeze=False)[0]
    extent = extent_of(list(flights.values()), scene, scene.separation_nm / 2 + 0.5)
    last = max(len(flight.x_nm) for flight in flights.values()) - 1

    def draw(second: int) -> list:
        for ax, (name, flight) in zip(axes, flights.items(), strict=True):
            ax.clear()
            draw_moment(ax, flight, scene, second)
            map_axes(ax, extent, bottom=True, left=ax is axes[0])
            now = flight.separation_nm[min(second, len(flight.x_nm) - 1)]
            least = f"{np.nanmin(now):5.1f} NM" if not np.isnan(now).all() else "-"
            ax.set_title(f"{name}   {second:4d} s   closest now {least}", fontsize=10, family="monospace")
        return []

    draw(0)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once is enough, and more than half of the time of a frame
    seconds = [*range(0, last, FRAME_S), *[last] * FRAMES_PER_S]
    return FuncAnimation(figure, draw, frames=seconds, interval=1000 / FRAMES_PER_S, cache_frame_data=False)
