"""Scores of evaluated episodes: how much of the targets the cameras covered, and how well these delivered all the same.

Reading order: `scorer`, `episode_values` (one number per episode of everything that is reported), `summary`.

Source of the figures: specification, sections 8 and 16. Means over an episode are over its frames, however long actions
are held; the targets' efficiency is that at its end.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs_jax.base import FRAMES, Score, Scorer
from envs_jax.mate.config import Learner

UNITS: dict[Learner, str] = {"cameras": "coverage_rate", "both": "coverage_rate", "targets": "transport_rate"}
"""What is scored, a share between 0 and 1; of both teams the cameras'."""
SHOWN = "mean_real_coverage_rate", "mean_transport_rate", "mean_selection_efficiency"
"""What tests under other conditions show beside the score."""
CONFIDENCE = 1.96
"""Standard errors to either side of a mean: 95 % of a normal distribution."""


def scorer(learner: Learner, num_agents: int, facts: Mapping[str, Any]) -> Scorer:
    """Mean over episodes of what the learners are judged by.

    Args:
        facts: further entries of `detail`, which say what was played.
    """

    def score(split: str, records: Mapping[str, Any], cache_dir: Path | None = None) -> Score:
        """Score records [seed, case, time]; `detail` has means and deviations over episodes, one per seed."""
        values = episode_values(records, num_agents)
        unit = UNITS[learner]
        detail: dict[str, Any] = {"n_episodes": int(values[unit].shape[1]), **facts}
        for name, of_episodes in values.items():
            mean, deviation, _ = summary(of_episodes)
            detail |= {f"mean_{name}": mean.tolist(), f"std_{name}": deviation.tolist()}
        mean, _, error = summary(values["coverage_rate"])
        ends = np.stack([mean - CONFIDENCE * error, mean + CONFIDENCE * error], axis=1)
        detail["ci95_coverage_rate"] = ends.tolist()
        detail[f"{unit}_of_episodes"] = np.round(values[unit], 6).tolist()
        return Score(unit, summary(values[unit])[0].tolist(), {}, None, None, detail)

    return score


def episode_values(records: Mapping[str, Any], num_agents: int) -> dict[str, np.ndarray]:
    """One number per episode [S, N] of records [S, N, T], NaN where there is nothing to tell."""
    active = np.asarray(records["active"], bool)
    frames = np.where(active, records[FRAMES], 0).astype(np.float64)
    length = frames.sum(axis=2)
    last = np.maximum(active.sum(axis=2) - 1, 0)[..., None]
    total = lambda name: np.where(active, records[name], 0.0).sum(axis=2, dtype=np.float64)  # noqa: E731
    mean = lambda name: (frames * np.where(active, records[name], 0.0)).sum(axis=2) / length  # noqa: E731
    at_the_end = lambda name: np.take_along_axis(np.asarray(records[name], np.float64), last, 2)[..., 0]  # noqa: E731
    values = {
        "coverage_rate": mean("coverage_rate"),
        "real_coverage_rate": mean("real_coverage_rate"),
        "transport_rate": at_the_end("mean_transport_rate"),
        "delivered_cargoes": at_the_end("num_delivered_cargoes"),
        "episode_reward": total("reward") / num_agents,
        "camera_return": total("raw_reward"),
        "normalized_camera_return": total("normalized_raw_reward"),
        "episode_length": length,
        "selection_efficiency": np.full(length.shape, np.nan),
        "invalid_selection_rate": np.full(length.shape, np.nan),
    }
    if "team_selected" in records:
        selected, valid = total("team_selected"), total("team_selected_valid")
        some = selected > 0
        values["selection_efficiency"] = np.where(some, valid / np.maximum(selected, 1.0), np.nan)
        values["invalid_selection_rate"] = mean("invalid_selection_rate")
    return values


def summary(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, deviation and standard error over the episodes [S, N] that have a number, [S] each; NaN without any."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    at_least = np.maximum(count, 1)
    mean = np.where(known, values, 0.0).sum(axis=1) / at_least
    spread = np.where(known, (values - mean[:, None]) ** 2, 0.0).sum(axis=1)
    deviation = np.sqrt(spread / np.maximum(count - 1, 1))
    gone = np.where(count > 0, 0.0, np.nan)
    return mean + gone, deviation + gone, deviation / np.sqrt(at_least) + gone
