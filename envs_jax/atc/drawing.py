"""What the figures of flights share: colours, the scene, one flight on a map, limits and labels of maps.

Colours are told apart by colour-blind people; a loss of separation is red and thick at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke

from envs_jax.atc import flights as fl
from envs_jax.atc.flights import Flights
from envs_jax.atc.params import SUBSTEPS
from envs_jax.episodes import POLICY

COLORS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#B59B00", "#555555", "#7A3E9D", "#7A4A1E")
LOSS = "#D00000"
STYLES = {POLICY: ("#0072B2", "-"), "noop": ("#555555", ":"), "mvp": ("#B59B00", "--")}
"""Colour and line of the policy and of the pilots that are flown beside it."""
DETOUR_NM = 12.0
"""How far maps follow paths beyond starts, waypoints and closest pairs."""
MINUTE_S = 60
DASHES = (0, (4, 3))
HALO = [withStroke(linewidth=2.5, foreground="white")]


class Scene(NamedTuple):
    """What all figures of a world have in common."""

    name: str
    ids: tuple[str, ...]
    lat_deg: float
    separation_nm: float
    collision_nm: float
    waypoint_nm: float


def color_of(index: int) -> str:
    return COLORS[index % len(COLORS)]


def draw_map(ax: Axes, flight: Flights, scene: Scene, labels: bool = True) -> None:
    """Paths with minutes, losses red, waypoint rings, and the closest pair at its closest moment in its rings."""
    lost = fl.losing(flight)
    for i, id in enumerate(scene.ids):
        flown = int(flight.flying[:, i].sum())
        if not flown:
            continue
        x, y, color = flight.x_nm[:flown, i], flight.y_nm[:flown, i], color_of(i)
        ax.plot(x, y, color=color, lw=1.6, zorder=3)
        for first, end in fl.runs(lost[:flown, i]):
            part = slice(max(first - 1, 0), end + 1)
            ax.plot(x[part], y[part], color=LOSS, lw=4.0, zorder=4, solid_capstyle="round")
        minutes = slice(MINUTE_S, None, MINUTE_S)
        ax.plot(x[minutes], y[minutes], ls="", marker="o", ms=3.4, mfc="white", mec=color, mew=1.0, zorder=5)
        ax.plot(x[0], y[0], marker="o", ms=6, color=color, zorder=5)
        goal = flight.goal_x_nm[i], flight.goal_y_nm[i]
        ax.add_patch(Circle(goal, scene.waypoint_nm, fill=False, ec=color, lw=1.6, zorder=3))
        if labels:
            _label_start(ax, id, x, y, color)
    closest = fl.closest_pair(flight)
    if closest is not None:
        points = [(flight.x_nm[closest.second, i], flight.y_nm[closest.second, i]) for i in closest.pair]
        edge = LOSS if closest.nm < scene.separation_nm else "black"
        for point in points:
            ax.add_patch(Circle(point, scene.separation_nm, fill=False, ec=edge, lw=1.0, ls=DASHES, zorder=2))
        ax.plot(*zip(*points, strict=True), color="black", lw=1.2, marker="x", ms=6, mew=1.6, zorder=6)


def _label_start(ax: Axes, id: str, x: np.ndarray, y: np.ndarray, color: str) -> None:
    """The name behind the start, where the aircraft does not fly."""
    away = np.array([x[0] - x[min(SUBSTEPS, len(x) - 1)], y[0] - y[min(SUBSTEPS, len(y) - 1)]])
    away = away / max(float(np.hypot(*away)), 1e-6)
    place = 12 * away[0], 12 * away[1]
    ax.annotate(id, (x[0], y[0]), xytext=place, textcoords="offset points", ha="center", va="center", fontsize=9,
                color=color, fontweight="bold", zorder=7, path_effects=HALO)  # fmt: skip


Extent = tuple[tuple[float, float], tuple[float, float]]
"""Limits of a map in x and y; a square, so that maps beside each other fill their places."""


def extent_of(flights: Sequence[Flights], scene: Scene, margin_nm: float) -> Extent:
    """Shows starts, waypoints and closest pairs of all flights with a margin, and detours; who leaves is cut off."""
    return square(*(_side(flights, scene, axis, margin_nm) for axis in ("x_nm", "y_nm")))


def _side(flights: Sequence[Flights], scene: Scene, axis: str, margin_nm: float) -> tuple[float, float]:
    points, paths = [], []
    for flight in flights:
        path, here = getattr(flight, axis), flight.flying.any(axis=0)
        points += [path[0, here], getattr(flight, f"goal_{axis}")[here]]
        closest = fl.closest_pair(flight)
        if closest is not None:
            points.append(path[closest.second, list(closest.pair)])
        paths.append(path[flight.flying])
    low, high = (float(end(np.concatenate(points))) for end in (np.min, np.max))
    path = np.clip(np.concatenate(paths), low - DETOUR_NM, high + DETOUR_NM)
    return min(low - margin_nm, float(path.min()) - 1.0), max(high + margin_nm, float(path.max()) + 1.0)


def square(x: tuple[float, float], y: tuple[float, float]) -> Extent:
    """The smallest square around both sides."""
    half = max(x[1] - x[0], y[1] - y[0]) / 2
    middle = [(low + high) / 2 for low, high in (x, y)]
    return (middle[0] - half, middle[0] + half), (middle[1] - half, middle[1] + half)


def map_axes(ax: Axes, extent: Extent, bottom: bool, left: bool) -> None:
    ax.set(xlim=extent[0], ylim=extent[1], aspect="equal")
    ax.set_xlabel("east of the centre, NM" if bottom else "")
    ax.set_ylabel("north of the centre, NM" if left else "")
    ax.grid(alpha=0.25)


def summary_of(flight: Flights) -> str:
    closest = fl.closest_pair(flight)
    if closest is None:
        return "nobody"
    return f"{closest.nm:.2f} NM at {closest.second} s"


def grid(columns, rows, size: tuple[float, float], **shared):
    """`(figure, axes [rows, columns])`, one for each of both; `size` in inches of each."""
    return plt.subplots(
        len(rows), len(columns), figsize=(size[0] * len(columns), size[1] * len(rows) + 0.8), layout="constrained",
        squeeze=False, **shared,
    )  # fmt: skip
