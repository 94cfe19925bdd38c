"""One moment of a camera world as a picture: terrain, warehouses, obstacles, views, cameras, targets.

Reading order: `Moment` and what makes it, `fields_of_view`, `draw_moment`, `legend`. Numpy and matplotlib alone, so
that no display is needed. Colours are told apart by colour-blind people, and what they mean is said by shapes, too.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Polygon, Rectangle

from envs_jax.mate import occlusion
from envs_jax.mate.params import TERRAIN, WAREHOUSE_RADIUS, WAREHOUSES, Params
from envs_jax.mate.state import NO_GOAL, OcclusionTable, State

TRACKED, UNTRACKED, EMPTY = "#0072B2", "#D55E00", "#555555"
"""Targets that a camera tracks, others that carry something, others that carry nothing."""
COLORS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B59B00", "#555555", "#7A3E9D", "#56B4E9"
"""Of players, and of whatever else is told apart."""
VIEW, OBSTACLE, STOCK = "#56B4E9", "#8A8A8A", "#B59B00"
WIDEST_FAN = 180
"""Directions between the tangents of an obstacle that touches a camera."""
EDGE_DEG = 1.0
"""Steps of a drawn arc."""


class Moment(NamedTuple):
    """What is drawn, numpy; shapes are those of `state`."""

    state: State
    views: list[np.ndarray]
    """Of every camera the outline of what it sees, [points, 2]."""


def table_of(state: State, params: Params) -> OcclusionTable:
    """How far cameras see in an episode: the table of the state, or one that is made for the picture."""
    layout = state.layout
    if layout.occlusion is not None:
        return layout.occlusion
    reach, transmittance = params.camera_max_sight_range, params.transmittance
    return occlusion.table_of(
        layout.camera_loc, layout.obstacle_loc, layout.obstacle_radius, reach, transmittance, WIDEST_FAN
    )


def moment_of(state: State, table: OcclusionTable, params: Params) -> Moment:
    return Moment(state, fields_of_view(state, table, params))


def fields_of_view(state: State, table: OcclusionTable, params: Params) -> list[np.ndarray]:
    """Outlines of the cameras' sectors, cut where an obstacle is: [points, 2] each, the camera first."""
    narrowest, longest = float(params.camera_min_viewing_angle_deg), float(params.camera_max_sight_range)
    outlines = []
    for c, (place, axis, width) in enumerate(
        zip(state.layout.camera_loc, state.orientation_deg, state.viewing_angle_deg, strict=True)
    ):
        knots, free = np.asarray(table.angle_deg[c], float), np.asarray(table.free_range[c], float)
        low, high = float(axis) - float(width) / 2, float(axis) + float(width) / 2
        # All corners of the polyline in the sector, as obstacles are narrower than the steps of an arc.
        turns = np.concatenate([knots + 360 * turn for turn in (-1, 0, 1)])
        arc = np.arange(low, high, EDGE_DEG)
        angles = np.unique(np.concatenate([arc, [high], turns[(turns > low) & (turns < high)]]))
        wrapped = (angles - knots[0]) % 360 + knots[0]
        reach = np.minimum(longest * np.sqrt(narrowest / float(width)), np.interp(wrapped, knots, free))
        radians = np.radians(angles)
        rim = np.stack([np.cos(radians), np.sin(radians)], axis=1) * reach[:, None] + place
        outlines.append(np.concatenate([[place], rim]))
    return outlines


def draw_moment(ax: Axes, moment: Moment, title: str = "") -> None:
    """Draw it on empty axes."""
    state, layout = moment.state, moment.state.layout
    ax.add_patch(Rectangle((-TERRAIN, -TERRAIN), 2 * TERRAIN, 2 * TERRAIN, fill=False, ec="black", lw=1.2))
    for w, centre in enumerate(WAREHOUSES):
        _draw_warehouse(ax, centre, int(state.remaining[w].sum()), int(state.awaiting[w]))
    for place, radius in zip(layout.obstacle_loc, layout.obstacle_radius, strict=True):
        ax.add_patch(Circle(place, float(radius), fc=OBSTACLE, ec="none", zorder=3))
    for outline in moment.views:
        ax.add_patch(Polygon(outline, fc=VIEW, ec=VIEW, alpha=0.28, lw=0.8, zorder=1))
    for c, (place, radius) in enumerate(zip(layout.camera_loc, layout.camera_radius, strict=True)):
        ax.add_patch(Circle(place, float(radius), fc="white", ec="black", lw=1.0, zorder=4))
        ax.text(place[0], place[1], str(c), ha="center", va="center", fontsize=6, zorder=5)
    for t, place in enumerate(state.target_loc):
        _draw_target(ax, t, place, state)
    side = 1.02 * TERRAIN
    ax.set(xlim=(-side, side), ylim=(-side, side), aspect="equal", xticks=(), yticks=())
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title, fontsize=9)


def _draw_warehouse(ax: Axes, centre: np.ndarray, remaining: int, awaiting: int) -> None:
    """A square, filled while something waits in it, with the units that wait and those that have yet to arrive."""
    (x, y), side = centre.tolist(), 2 * WAREHOUSE_RADIUS
    face = STOCK if remaining else "white"
    corner = x - WAREHOUSE_RADIUS, y - WAREHOUSE_RADIUS
    ax.add_patch(Rectangle(corner, side, side, fc=face, ec=STOCK, alpha=0.5, lw=1.2, zorder=2))
    ax.text(x, y, f"{remaining}\n{awaiting}", ha="center", va="center", fontsize=7, linespacing=1.1, zorder=5)


def _draw_target(ax: Axes, t: int, place: np.ndarray, state: State) -> None:
    tracked, goal = bool(np.asarray(state.sight.c2t)[:, t].any()), int(state.goal[t])
    color = TRACKED if tracked else UNTRACKED if goal != NO_GOAL else EMPTY
    size = 6.5 if int(state.layout.capacity[t]) > 1 else 4.5
    face = color if goal != NO_GOAL else "white"
    if goal != NO_GOAL:
        ax.plot(*zip(place, WAREHOUSES[goal], strict=True), color=color, lw=0.6, ls=":", zorder=4)
    ax.plot(*place, marker="o" if tracked else "s", ms=size, mfc=face, mec=color, mew=1.4, zorder=6)


def legend() -> list[Line2D]:
    """Handles that say what is drawn."""

    def mark(label: str, color: str, **style) -> Line2D:
        return Line2D([], [], ls="", ms=6, mew=1.4, mec=color, label=label, **{"marker": "s", "mfc": color, **style})

    return [
        mark("tracked", TRACKED, marker="o"),
        mark("not tracked", UNTRACKED),
        mark("carries nothing", EMPTY, mfc="white"),
        mark("view", VIEW, alpha=0.5),
        mark("obstacle", OBSTACLE, marker="o"),
        mark("warehouse: units waiting, units to come", STOCK, alpha=0.5),
    ]
