"""Scores of evaluated episodes: the share that succeeded, and what the metrics of the episodes say beside it.

An episode succeeds when no two aircraft came closer than the separation at any second and all arrived.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs_jax.atc.recorded import alert_scores
from envs_jax.base import Score

DETAIL = (
    "conflict_free", "reached_ratio", "los_events", "los_seconds", "collision_events", "nmac_events",
    "min_separation_nm", "path_ratio", "extra_path_nm", "flight_time_s", "action_effort", "oscillation",
    "interventions",
)  # fmt: skip
"""Metrics of an episode that are reported beside its success, as means over episodes."""
SHOWN = ("los_risk", "min_separation_nm", "reached_ratio", "alerts.pilots.f1")
"""What tests under other conditions, where alerts are always scored, show of it."""
PERCENTILES = (5, 10, 25, 50, 75, 90, 95)
MILESTONES = ("zero_conflict", "perfect")
REACHED_FOR_ZERO_CONFLICT = 0.9
"""Aircraft that fly away from each other have no conflict either."""


def score(split: str, records: Mapping[str, Any], cache_dir: Path | None = None) -> Score:
    """Share of successful episodes of every seed; alerts are scored where the records have what that takes."""
    sums = {name: episode_values(records, name) for name in ("success", *DETAIL)}
    success, free, reached = (sums[name] for name in ("success", "conflict_free", "reached_ratio"))
    detail: dict[str, Any] = {name: values.mean(axis=1).tolist() for name, values in sums.items()}
    detail["return"] = records["reward"].sum(axis=2, dtype=np.float64).mean(axis=1).tolist()
    detail["los_risk"] = (1 - free).mean(axis=1).tolist()
    detail["min_separation_percentiles_nm"] = {
        str(p): np.percentile(sums["min_separation_nm"], p, axis=1).tolist() for p in PERCENTILES
    }
    if "signals" in records:
        detail["alerts"] = alert_scores(records)
    zero_conflict = (free == 1).all(axis=1) & (reached.mean(axis=1) >= REACHED_FOR_ZERO_CONFLICT)
    milestones = {"zero_conflict": zero_conflict.tolist(), "perfect": (success == 1).all(axis=1).tolist()}
    return Score("success", success.mean(axis=1).tolist(), {}, None, None, detail, milestones)


def episode_values(records: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """[S, N] of what `metrics.report` says in the last step of an episode; records [S, N, T]."""
    return np.where(records["active"], records[name], 0.0).sum(axis=2, dtype=np.float64)
