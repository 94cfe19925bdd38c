"""Recordings of the reference of the camera worlds (specification, section 17), and the worlds they were made in."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from envs_jax.mate.params import params_of, rules_of
from envs_jax.mate.recorded import preset_of
from envs_jax.mate.state import Noise

FOLDER = Path(os.environ.get("PURERL_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")) / "mate"
FILES = sorted(FOLDER.glob("*.npz"))


def having(*keys: str) -> list[Path]:
    """The recordings with all of these entries."""
    found = []
    for path in FILES:
        with np.load(path) as data:
            if set(keys) <= set(data.files):
                found.append(path)
    return found


def each_recording(*keys: str):
    """Marks a test that takes the `path` of one recording with these entries."""

    def mark(test):
        paths = having(*keys)
        marks = (
            pytest.mark.parametrize("path", paths, ids=lambda path: path.stem),
            pytest.mark.reference,
            pytest.mark.skipif(not paths, reason="no reference rollouts"),
        )
        for one in marks:
            test = one(test)
        return test

    return mark


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as data:
        return dict(data)


def world(rollout):
    """Rules and parameters of a recording."""
    preset = preset_of(json.loads(str(rollout["meta"])))
    return rules_of(preset), params_of(preset)


def noise(rollout) -> Noise:
    """Of all frames, (K, ...)."""
    return Noise(rollout["transmit_draw"][1:] == 1, np.maximum(rollout["goal_pick_u"], 0.0))


SNAPSHOTS = {
    "orientation_deg": "cam_orientation",
    "viewing_angle_deg": "cam_viewing_angle",
    "target_loc": "tgt_loc",
    "goal": "tgt_goal",
    "empty_bits": "tgt_empty_bits",
    "freight": "freights",
    "bounty": "bounties",
    "remaining": "remaining_cargoes",
    "awaiting": "awaiting_cargo_counts",
    "delivered": "num_delivered",
    "team_return": "target_episode_reward",
    "delayed_return": "delayed_target_episode_reward",
    "colliding": "tgt_colliding",
    "delivered_now": "tgt_dones",
}
"""Fields of the state and what recordings call them."""
