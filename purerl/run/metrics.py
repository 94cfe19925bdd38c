"""Metrics of a chunk of updates on the host: what counts how often, what becomes one number, the first bad one.

Device metrics are arrays [updates] or [updates, seeds].
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

EPISODE_PREFIX = "episode/"
EPISODE_COUNT, AGENT_STEPS, FRAMES = "episode/count", "agent_steps", "frames"
Fold = Literal["mean", "min", "max"]
EXTREMES: dict[str, Fold] = {"episode/return_min": "min", "episode/return_max": "max"}
"""Metrics that are not averaged over updates."""


class Series(NamedTuple):
    """One metric over updates; what has no weight does not count."""

    value: np.ndarray
    """[updates, seeds]"""
    weight: np.ndarray
    """[updates, seeds]"""
    fold: Fold = "mean"
    """How several updates become one number."""


class Chunk(NamedTuple):
    """Metrics of one chunk of updates."""

    series: dict[str, Series]
    episodes: np.ndarray
    """Finished episodes [updates, seeds]."""
    agent_steps: np.ndarray
    """Steps of agents that act [updates, seeds]."""
    frames: np.ndarray | None
    """That the steps took [updates, seeds]; None where every step is one frame."""


def host_metrics(metrics: Mapping[str, Any]) -> Chunk:
    """Metrics [updates] or [updates, seeds] of one chunk.

    `episode/...` values count as many times as episodes ended; `episode/count` is that number.
    """
    arrays = {name: _matrix(value) for name, value in metrics.items()}
    nothing = np.zeros_like(next(iter(arrays.values())))
    episodes, agent_steps = arrays.pop(EPISODE_COUNT, nothing), arrays.pop(AGENT_STEPS, nothing)
    frames = arrays.pop(FRAMES, None)
    series = {
        name: Series(
            value,
            episodes if name.startswith(EPISODE_PREFIX) else np.ones_like(value),
            EXTREMES.get(name, "mean"),
        )
        for name, value in arrays.items()
    }
    return Chunk(series, episodes, agent_steps, frames)


def _matrix(value: Any) -> np.ndarray:
    array = np.asarray(value, np.float64)
    return array[:, None] if array.ndim == 1 else array


def by_seed(series: Series, updates: slice = slice(None)) -> list[float | None]:
    """One number per seed, None where nothing has weight."""
    value, weight = series.value[updates], series.weight[updates]
    some = np.any(weight > 0, axis=0)
    match series.fold:
        case "mean":
            folded = (value * weight).sum(axis=0) / np.where(some, weight.sum(axis=0), 1.0)
        case "min":
            folded = np.where(weight > 0, value, np.inf).min(axis=0)
        case "max":
            folded = np.where(weight > 0, value, -np.inf).max(axis=0)
    return [float(v) if counts else None for v, counts in zip(folded, some, strict=True)]


def mean_over_seeds(values: list[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None


class BadMetric(NamedTuple):
    name: str
    value: float
    update: int
    """Index inside the chunk."""
    seed: int
    """Index of the seed."""


def first_bad_metric(metrics: Mapping[str, Series]) -> BadMetric | None:
    """The earliest value that is not finite; of one update, the first by name."""
    found = [
        BadMetric(name, float(series.value[index]), int(index[0]), int(index[1]))
        for name, series in metrics.items()
        for index in map(tuple, np.argwhere(~np.isfinite(series.value))[:1])
    ]
    return min(found, key=lambda bad: (bad.update, bad.name)) if found else None
