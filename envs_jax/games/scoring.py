"""Scores of games whose best and worst outcome are known: what the team was paid, beside what it could have been."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs_jax.base import Score, Scorer


def scorer(unit: str, entry: str, worst: float, best: float) -> Scorer:
    """Mean over cases of the sum of `entry`, a scalar of `info`, over an episode.

    Per cent of the bound count from the worst outcome, because a payoff may be negative: 0 there, 100 at the best.
    """
    span = best - worst

    def score(split: str, records: Mapping[str, Any], cache_dir: Path | None = None) -> Score:
        """Score records [seed, case, time]."""
        sums = np.where(records["active"], records[entry], 0.0).sum(axis=2, dtype=np.float64)
        policy = sums.mean(axis=1)
        percent = 100.0 * (policy - worst) / span if span > 0 else np.full_like(policy, 100.0)
        detail = {"optimal": (sums >= best - 1e-6 * max(span, 1.0)).mean(axis=1).tolist()}
        return Score(unit, policy.tolist(), {}, best, percent.tolist(), detail)

    return score
