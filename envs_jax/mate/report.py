"""Single episodes as a table: one row per decision, with what every camera and every target was about."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs_jax.base import FRAMES, Reporter

EPISODES = 4
"""Written where nobody names others."""
FIGURES = "coverage_rate", "real_coverage_rate", "mean_transport_rate", "num_delivered_cargoes", "raw_reward", "reward"


def make_report() -> Reporter:
    """The environment's `report`; its cases are episode numbers."""

    def cases(split: str, names: Sequence[str] | None) -> dict[str, int]:
        return {name: int(name) for name in names or map(str, range(EPISODES))}

    def table(split: str, label: str, records: Mapping[str, Any], cache_dir: Path | None) -> dict[str, np.ndarray]:
        return decisions(records, label)

    return Reporter("decisions", cases, table, whole=True)


def decisions(records: Mapping[str, Any], label: str) -> dict[str, np.ndarray]:
    """Columns [rows] of one episode.

    Places, directions and what is seen are those that a decision was made on, rewards and rates those of the frames
    that followed. What a camera sees or selects is a row of bits, target 0 first.

    Args:
        records: of one episode, everything that is known of its steps [T, ...].
    """
    world = records["state"].world
    count = len(records[FRAMES])
    columns = {
        "episode": np.full(count, label),
        "decision": np.arange(count),
        "frame": world.steps,
        "frames": records[FRAMES],
        **{name: records[name] for name in FIGURES},
    }
    for c in range(world.orientation_deg.shape[1]):
        columns |= {
            f"camera{c}_orientation_deg": world.orientation_deg[:, c],
            f"camera{c}_viewing_angle_deg": world.viewing_angle_deg[:, c],
            f"camera{c}_sees": bits(world.sight.c2t[:, c]),
        }
        if "selected" in records:
            columns[f"camera{c}_selects"] = bits(records["selected"][:, c])
    for t in range(world.goal.shape[1]):
        columns |= {
            f"target{t}_x": world.target_loc[:, t, 0],
            f"target{t}_y": world.target_loc[:, t, 1],
            f"target{t}_goal": world.goal[:, t],
            f"target{t}_load": world.load[:, t],
            f"target{t}_bounty": world.bounty[:, t],
        }
    return {name: np.asarray(values) for name, values in columns.items()}


def bits(flags: np.ndarray) -> np.ndarray:
    """Rows of bool [T, n] as text; it begins with a letter, so that nobody who reads a table takes it for a number."""
    return np.array(["b" + "".join("01"[int(flag)] for flag in row) for row in np.asarray(flags)])
