"""Recordings of the original simulator (specification, section 15), and the worlds in which they were flown."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs_jax.atc.config import AtcConfig
from envs_jax.atc.env import params_of
from envs_jax.atc.params import EARTH_NM
from envs_jax.atc.scenarios import Agent, Scenario

FOLDER = Path(os.environ.get("PURERL_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")) / "atc"
FILES = sorted(FOLDER.glob("*.npz"))

against_recordings = [pytest.mark.reference, pytest.mark.skipif(not FILES, reason="no reference rollouts")]


def each_recording(test):
    """Marks a test that takes the `path` of one recording."""
    for mark in (pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem), *against_recordings):
        test = mark(test)
    return test


CONFIG_KEYS = {
    "max_episode_steps", "separation_nm", "collision_nm", "neighbor_topk", "team_coordination_weight", "team_gamma",
    "team_share_mode", "team_ema", "team_cap", "team_anneal",
}  # fmt: skip

SHIFTED = {
    "heading_deg_delta": "hdg_deg",
    "speed_kt_delta": "spd_kt",
    "position_lat_delta": "lat",
    "position_lon_delta": "lon",
    "waypoint_lat_delta": "waypoint_lat",
    "waypoint_lon_delta": "waypoint_lon",
}
"""What the origin calls the shifts of one aircraft that are numbers."""
OF_ALL = "heading_deg_delta", "speed_kt_delta"
"""Those that it has for all aircraft that none of their own is given for, too."""


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as data:
        return dict(data)


def world(rollout):
    """Rules and parameters of the recording under the preset `origin`, with what its options shift."""
    settings = {k: v for k, v in json.loads(str(rollout["config"])).items() if k in CONFIG_KEYS}
    config, scenario = AtcConfig(preset="origin", **settings), scenario_of(rollout)
    count = len(scenario.agents)
    return config.rules(count, windy=scenario.wind is not None), params_of(config, scenario, count)


def scenario_of(rollout) -> Scenario:
    """The scenario of the recording under its options."""
    lat, lon = rollout["center"]
    agents = tuple(
        Agent(str(id), *start[:3], *goal, spd_kt=start[3])
        for id, start, goal in zip(rollout["agent_ids"], rollout["json_init"], rollout["waypoints"], strict=True)
    )
    scenario = shifted(Scenario(str(rollout["scenario"]), lat, lon, agents), options_of(rollout))
    # The specification leaves open whether a file's waypoints are shifted already; its distances to them tell.
    goals_as_written = (
        agent._replace(waypoint_lat=written.waypoint_lat, waypoint_lon=written.waypoint_lon)
        for agent, written in zip(scenario.agents, agents, strict=True)
    )
    either = scenario, scenario._replace(agents=tuple(goals_as_written))
    return min(either, key=lambda one: _goal_error_nm(rollout, one))


def _goal_error_nm(rollout, scenario: Scenario) -> float:
    """How far recorded distances to the waypoint are from those to the scenario's, after the first step."""
    lat, lon = np.radians(rollout["state"][1, :, :2].T)
    goal_lat, goal_lon = np.radians([(a.waypoint_lat, a.waypoint_lon) for a in scenario.agents]).T
    half = np.sin((goal_lat - lat) / 2) ** 2 + np.cos(lat) * np.cos(goal_lat) * np.sin((goal_lon - lon) / 2) ** 2
    return float(np.abs(2 * EARTH_NM * np.arcsin(np.sqrt(half)) - rollout["wp_dist"][0]).max())


def options_of(rollout) -> dict[str, Any]:
    return json.loads(str(rollout["options"]))


def shifted(scenario: Scenario, options: dict[str, Any]) -> Scenario:
    """A scenario under the options of the origin's reset.

    Raises:
        ValueError: an option that is not understood: a recording flown under it would be compared with another world.
    """
    _check(options, ("shift", "targeted_shift", "env_shift"), "options")
    of_all, of_each, of_world = (options.get(key) or {} for key in ("shift", "targeted_shift", "env_shift"))
    _check(of_all, OF_ALL, "shift")
    _check(of_each, [agent.id for agent in scenario.agents], "targeted_shift")
    _check(of_world, ("wind",), "env_shift")
    agents = tuple(_moved(agent, of_each.get(agent.id, of_all)) for agent in scenario.agents)
    wind = of_world.get("wind")
    if not wind:
        return scenario._replace(agents=agents)
    _check(wind, ("mode", "dir_deg", "kt"), "env_shift.wind")
    if wind["mode"] != "uniform":
        raise ValueError(f"env_shift.wind: mode '{wind['mode']}' is not understood; only uniform is")
    return scenario._replace(agents=agents, wind=(float(wind["dir_deg"]) % 360, float(wind["kt"])))


def _moved(agent: Agent, shift: dict[str, Any]) -> Agent:
    _check(shift, (*SHIFTED, "aircraft_type"), f"targeted_shift.{agent.id}")
    moved = {field: getattr(agent, field) + shift.get(key, 0.0) for key, field in SHIFTED.items()}
    moved["hdg_deg"] %= 360
    return agent._replace(**moved, type=shift.get("aircraft_type", agent.type))


def _check(found: dict[str, Any], known, where: str) -> None:
    for key in found:
        if key not in known:
            raise ValueError(f"{where}: '{key}' is not understood; {', '.join(known)} are")
