"""Figures of flights: maps, separations, closest approaches, where and how often separation is lost, alerts.

Reading order: `figures` (what a finished run gets), what is watched for them, one flight on a map, figures of single
episodes, figures of many, counts of alerts. The numbers come from `flights`.

Colours are told apart by colour-blind people; a loss of separation is red and thick at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import Animation, FuncAnimation
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.patches import Circle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Affine2D

from envs_jax.atc import flights as fl
from envs_jax.atc.flights import Approaches, Flights
from envs_jax.atc.params import SUBSTEPS
from envs_jax.episodes import POLICY, Material, Replay

COLORS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#B59B00", "#555555", "#7A3E9D", "#7A4A1E")
LOSS = "#D00000"
STYLES = {POLICY: ("#0072B2", "-"), "noop": ("#555555", ":"), "mvp": ("#B59B00", "--")}
"""Colour and line of the policy and of the pilots that are flown beside it."""
BESIDE, WORST = "mvp", "noop"
"""The pilot whose flights are shown beside the policy's, and the one whose losses are."""
FEW, MANY = 256, 4096
"""Episodes that are counted over after a training run, and where time does not matter."""
NUMBERS_AT_ONCE = 10_000_000
"""Seconds times pairs of a batch of episodes, which bounds the memory."""
SHOWN_SECONDS, SHOWN_DCPA_NM = (-120.0, 420.0), 20.0
SHOWN_APPROACHES = 6000
DETOUR_NM = 12.0
"""How far maps follow paths beyond starts, waypoints and closest pairs."""
MINUTE_S = 60
DASHES = (0, (4, 3))
HALO = [withStroke(linewidth=2.5, foreground="white")]
FRAME_S, FRAMES_PER_S = 5, 12


def figures(material: Material) -> dict[str, Figure | Animation]:
    """All figures by file name: policy and scripted pilots from the same starts."""
    replay = material.replay()
    scene = scene_of(replay)
    count = material.episodes or (MANY if material.everything else FEW)
    seen = {name: watch(replay, scene, name, count) for name in STYLES}
    shown = {name: seen[name].flights for name in (POLICY, BESIDE)}
    rows = notable(fl.least_of_episode(shown[POLICY]))
    typical = {name: fl.episode(flights, rows["typical episode"]) for name, flights in shown.items()}
    drawn: dict[str, Figure | Animation] = {
        "trajectories": trajectories_figure(shown, rows, scene),
        "separation": separation_figure(shown, rows, scene),
        "closest_approach": approach_figure({name: seen[name].approaches for name in (POLICY, BESIDE)}, scene),
        "survival": survival_figure({name: s.least_nm for name, s in seen.items()}, scene),
        "conflict_map": conflict_figure({name: (seen[name].midpoints, seen[name].least_nm) for name in (WORST, POLICY)},
                                        scene),
        "frames": frames_figure(typical, scene),
    }  # fmt: skip
    alerts = alert_counts(material.report.get("detail", {}))
    if alerts:
        drawn["alerts"] = alerts_figure(alerts, f"{scene.name}: alerts against conflicts")
    if material.everything:
        drawn["flight"] = animation(typical, scene)
    return drawn


# What is watched


class Scene(NamedTuple):
    name: str
    ids: tuple[str, ...]
    lat_deg: float
    separation_nm: float
    collision_nm: float
    waypoint_nm: float


def scene_of(replay: Replay) -> Scene:
    params, limits = replay.params, replay.params.limits
    radii = (float(r) for r in (limits.separation_nm, limits.collision_nm, limits.waypoint_nm))
    return Scene(replay.env.name.removeprefix("atc/"), replay.env.agent_names, float(params.lat), *radii)


class Seen(NamedTuple):
    """What one pilot did."""

    flights: Flights
    """Of the first batch."""
    approaches: Approaches
    """Of the first batch."""
    least_nm: np.ndarray
    """[E] of all episodes."""
    midpoints: np.ndarray
    """[K, 2] of all losses."""


def watch(replay: Replay, scene: Scene, player: str, count: int) -> Seen:
    """Fly `count` episodes, rounded down to whole batches where they do not fit into memory together."""
    n = len(scene.ids)
    at_once = NUMBERS_AT_ONCE // (SUBSTEPS * replay.env.max_episode_length * n * n)
    batch = max(1, min(count, FEW, at_once))
    least, midpoints = [], []
    for first in range(0, count - count % batch, batch):
        records = replay.play(player, np.arange(first, first + batch))
        flying = fl.in_traffic(replay.env, replay.params, records)
        flights = fl.flights_of(records, flying, scene.lat_deg, scene.separation_nm)
        least.append(fl.least_of_episode(flights))
        midpoints.append(fl.loss_midpoints(flights))
        if first == 0:
            kept = flights, fl.approaches(records, flying, scene.lat_deg)
    return Seen(*kept, np.concatenate(least), np.concatenate(midpoints))


def notable(least_nm: np.ndarray) -> dict[str, int]:
    """Episodes worth a look, by what they are: the ones with the median and the smallest separation."""
    order = np.argsort(least_nm, kind="stable")
    chosen = {"typical episode": int(order[len(order) // 2]), "worst episode": int(order[0])}
    return chosen if len(order) > 1 else {"typical episode": 0}


# One flight on a map


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


# Figures of single episodes


def trajectories_figure(shown: Mapping[str, Flights], rows: Mapping[str, int], scene: Scene) -> Figure:
    """Maps: pilots beside each other, episodes below each other. `rows` names episodes by what they are."""
    figure, axes = _grid(shown, rows, (4.9, 4.9), sharex="row", sharey="row")
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


def _grid(columns, rows, size: tuple[float, float], **shared):
    return plt.subplots(
        len(rows), len(columns), figsize=(size[0] * len(columns), size[1] * len(rows) + 0.8), layout="constrained",
        squeeze=False, **shared,
    )  # fmt: skip


NAMED_PAIRS = 6
FAR_ENOUGH = 6
"""Separations beyond this many times the required one are not shown."""


def separation_figure(shown: Mapping[str, Flights], rows: Mapping[str, int], scene: Scene) -> Figure:
    """Separation of every pair over time, of the same episodes as the maps; the closest pairs have colours."""
    figure, axes = _grid(shown, rows, (5.2, 3.0), sharex=True, sharey=True)
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
    figure, axes = _grid(range(MOMENTS), flights, (2.5, 2.5), sharex=True, sharey=True)
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


# Figures of many episodes


def approach_figure(seen: Mapping[str, Approaches], scene: Scene) -> Figure:
    """Time to and distance at the closest point of approach of all pairs at all steps."""
    figure, axes = _grid(seen, [0], (5.2, 3.8), sharex=True, sharey=True)
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
    figure, axes = _grid(maps, [0], (5.0, 4.6), sharex=True, sharey=True)
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


# Alerts


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
