"""Figures of flights: maps, separations, closest approaches, where and how often separation is lost, alerts.

Reading order: `figures` (what a finished run gets), then what is watched for them. They are drawn in `episode_figures`
and `statistics_figures`; the numbers come from `flights`.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.animation import Animation
from matplotlib.figure import Figure

from envs_jax.atc import flights as fl
from envs_jax.atc.drawing import STYLES, Scene
from envs_jax.atc.episode_figures import animation, frames_figure, separation_figure, trajectories_figure
from envs_jax.atc.flights import Approaches, Flights
from envs_jax.atc.params import SUBSTEPS
from envs_jax.atc.statistics_figures import (
    alert_counts,
    alerts_figure,
    approach_figure,
    conflict_figure,
    survival_figure,
)
from envs_jax.episodes import POLICY, Material, Replay

BESIDE, WORST = "mvp", "noop"
"""The pilot whose flights are shown beside the policy's, and the one whose losses are."""
FEW, MANY = 256, 4096
"""Episodes that are counted over after a training run, and where time does not matter."""
NUMBERS_AT_ONCE = 10_000_000
"""Seconds times pairs of a batch of episodes, which bounds the memory."""


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
