"""Flights of single episodes as a table: one row per aircraft and step, until it has arrived."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs_jax.atc.actions import commands
from envs_jax.atc.kinematics import cas_of_tas
from envs_jax.atc.params import EARTH_NM, KNOT_MS, SUBSTEPS, AtcParams, Rules, is_flying
from envs_jax.atc.recorded import episode_signals
from envs_jax.atc.rewards import PARTS
from envs_jax.atc.scenarios import ALTITUDE_FT, Scenario
from envs_jax.base import Reporter

EPISODES = 4
"""Written where nobody names others."""


def aircraft_ids(scenario: Scenario, num_aircraft: int) -> tuple[str, ...]:
    """Those of the scenario, and P1, P2, ... for the places of padded arrays."""
    ids = [agent.id for agent in scenario.agents]
    return (*ids, *(f"P{i + 1}" for i in range(num_aircraft - len(ids))))


def make_report(scenario: Scenario, params: AtcParams, rules: Rules, num_aircraft: int) -> Reporter:
    """The environment's `report`; its cases are episode numbers."""
    ids = aircraft_ids(scenario, num_aircraft)

    def cases(split: str, names: Sequence[str] | None) -> dict[str, int]:
        return {name: int(name) for name in names or map(str, range(EPISODES))}

    def table(split: str, label: str, records: Mapping[str, Any], cache_dir: Path | None) -> dict[str, np.ndarray]:
        return flight_table(records, ids, label, (scenario.lat, scenario.lon), params, rules)

    return Reporter("traj", cases, table, whole=True)


def flight_table(
    records: Mapping[str, Any],
    ids: Sequence[str],
    label: str,
    center: tuple[float, float],
    params: AtcParams,
    rules: Rules,
) -> dict[str, np.ndarray]:
    """Columns [rows] of one episode.

    Positions, speeds and distances are those after the step, actions those that led there. `reward` is all that an
    aircraft got; `reward_total` leaves the team's part out, as the origin of this world does. The last columns say of
    the step whether there was a conflict and an alert (`envs_jax.atc.alerts`); they count steps, not events.

    Args:
        records: of one episode, everything that is known of its steps [T, ...].
        center: latitude and longitude of the scenario, deg.
    """
    steps, n = records["hdg"].shape
    before = records["state"]
    flying = np.asarray(is_flying(before, rules))
    turn, faster = (np.asarray(x) for x in commands(records["action"], rules.discrete))
    seen = jax.device_get(episode_signals(records, np.ones(steps, bool), params, rules)[0])
    truth, alert = seen.truth, seen.alert
    distances = _distances_nm(records["dlat"], records["dlon"], center[0])
    parts = {f"reward_{name}": records["reward_parts"][name] for name in PARTS}
    closest = np.min(records["pair_min_sep"], axis=(1, 2))
    pairs = np.sum(records["pair_min_sep"] < params.limits.separation_nm, axis=(1, 2)) // 2

    def of_step(values) -> np.ndarray:
        return np.broadcast_to(np.asarray(values)[:, None], (steps, n))

    columns = {
        "episode_id": np.full((steps, n), label),
        "step_idx": of_step(np.arange(steps)),
        "sim_time_s": of_step(SUBSTEPS * np.arange(1, steps + 1)),
        "agent_id": np.broadcast_to(np.array(ids), (steps, n)),
        "lat_deg": center[0] + records["dlat"].astype(np.float64),
        "lon_deg": center[1] + records["dlon"].astype(np.float64),
        "alt_ft": np.full((steps, n), ALTITUDE_FT),
        "hdg_deg": records["hdg"],
        "tas_kt": records["tas"] / KNOT_MS,
        "cas_kt": np.asarray(cas_of_tas(records["tas"].astype(np.float64))) / KNOT_MS,
        "action_hdg_delta_deg": turn,
        "action_spd_delta_kt": faster,
        "reward": records["rewards"],
        "min_separation_nm": records["min_sep"],
        "airspace_min_separation_nm": of_step(closest),
        "conflict_flag": records["conflict_flag"].astype(int),
        "collision_flag": records["collision_flag"].astype(int),
        "wp_dist_nm": records["wp_dist"],
        "waypoint_reached": records["waypoint_reached"].astype(int),
        "waypoint_hits": of_step(records["waypoint_reached"].sum(axis=1)),
        "conflict_pairs_count": of_step(pairs),
        **{f"dist_to_{id}_nm": distances[:, :, i] for i, id in enumerate(ids)},
        **parts,
        "reward_total": sum(values for name, values in parts.items() if name != "reward_team"),
        "team_phi": of_step(records["team_phi"]),
        "team_dphi": of_step(records["team_phi"] - before.potential),
        "gt_conflict": of_step(truth.astype(int)),
        "predicted_alert": of_step(alert.astype(int)),
        "tp": of_step((truth & alert).astype(int)),
        "fp": of_step((~truth & alert).astype(int)),
        "fn": of_step((truth & ~alert).astype(int)),
        "tn": of_step((~truth & ~alert).astype(int)),
    }
    return {name: np.asarray(values)[flying] for name, values in columns.items()}


def _distances_nm(dlat: np.ndarray, dlon: np.ndarray, lat_deg: float) -> np.ndarray:
    """[T, N, N] flat distances at the end of every step."""
    lat, lon = (np.radians(x.astype(np.float64)) for x in (dlat, dlon))
    middle = np.cos(np.radians(lat_deg) + 0.5 * (lat[:, None] + lat[:, :, None]))
    return EARTH_NM * np.hypot(lat[:, None] - lat[:, :, None], (lon[:, None] - lon[:, :, None]) * middle)
