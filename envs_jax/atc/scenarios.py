"""Named scenarios, and scenario files.

Reading order: `Agent` and `Scenario`, the five, the suite of nine, `named`, then the JSON reader, its checks and the
writer. Host code: plain floats, absolute degrees.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from envs_jax.atc.params import EARTH_NM, KNOT_MS, TYPES

ALTITUDE_FT = 10_000.0
CAS_KT = 250.0
ENVELOPE_KT = {name: (t.cas_min_ms / KNOT_MS, t.cas_max_ms / KNOT_MS) for name, t in TYPES.items()}
"""Calibrated airspeeds that a type can fly."""


class Agent(NamedTuple):
    id: str
    lat: float
    lon: float
    hdg_deg: float
    waypoint_lat: float
    waypoint_lon: float
    type: str = "A320"
    spd_kt: float = CAS_KT
    """Calibrated."""
    alt_ft: float = ALTITUDE_FT


class Scenario(NamedTuple):
    name: str
    lat: float
    """Centre."""
    lon: float
    agents: tuple[Agent, ...]
    """In the order of the agent index."""
    max_episode_steps: int = 100
    seed: int = 0
    notes: str = ""
    wind: tuple[float, float] | None = None
    """(deg it comes from, kt)."""
    jitter: Mapping[str, float] | None = None
    """`position_nm`, `heading_deg`, `speed_kt`, where the scenario has its own."""


class ScenarioError(ValueError):
    """A scenario that cannot be flown; one line that names the file and the place."""


Leg = tuple[str, tuple[float, float], float, tuple[float, float]]
"""id, start (N, E) in NM, heading, waypoint (N, E)."""


def from_legs(name: str, center: tuple[float, float], legs: Sequence[Leg], steps: int = 100) -> Scenario:
    """A scenario of legs in NM from the centre `(lat, lon)`."""
    lat, lon = center
    scale = 60 * math.cos(math.radians(lat))
    agents = (
        Agent(id, lat + start[0] / 60, lon + start[1] / scale, hdg, lat + goal[0] / 60, lon + goal[1] / scale)
        for id, start, hdg, goal in legs
    )
    return Scenario(name, lat, lon, tuple(agents), steps)


FIVE_AT = (52.0, 4.0)
NINE_AT = (51.0, 13.7)


def head_on() -> Scenario:
    """Two aircraft on one track, towards each other."""
    legs: list[Leg] = [("A1", (-18, 0), 0, (18, 0)), ("A2", (18, 0), 180, (-18, 0))]
    return from_legs("head_on", FIVE_AT, legs)


def parallel() -> Scenario:
    """Three in trail, 8 NM apart: no conflict unless somebody manoeuvres."""
    legs: list[Leg] = [(f"A{i + 1}", (north, 0), 0, (12, 0)) for i, north in enumerate((-18, -10, -2))]
    return from_legs("parallel", FIVE_AT, legs)


def t_formation(arm_nm: float | None = None, stem_nm: float = 10.0, stem_x_nm: float = -7.0) -> Scenario:
    """One aircraft along the bar of a T, two up its stem; with `arm_nm` the other proportions of the origin."""
    if arm_nm is None:
        legs: list[Leg] = [
            ("A1", (0, -20), 90, (0, 20)), ("A2", (-16, -6), 0, (16, -6)), ("A3", (-9.6, -6), 0, (12.8, -6))
        ]  # fmt: skip
    else:
        x = stem_x_nm
        legs = [
            ("A1", (0, -arm_nm), 90, (0, arm_nm)),
            ("A2", (-stem_nm, x), 0, (0.8 * stem_nm, x)),
            ("A3", (-0.6 * stem_nm, x), 0, (0.6 * stem_nm, x)),
        ]
    return from_legs("t_formation", FIVE_AT, legs)


def _crossing(radius: float, first: int) -> list[Leg]:
    sides = (((-1, 0), 0.0), ((0, -1), 90.0), ((1, 0), 180.0), ((0, 1), 270.0))
    return [
        (f"A{i + first}", (north * radius, east * radius), hdg, (-north * radius, -east * radius))
        for i, ((north, east), hdg) in enumerate(sides)
    ]


def canonical_crossing() -> Scenario:
    """Four aircraft from the four directions, all through the centre at once."""
    return from_legs("canonical_crossing", FIVE_AT, _crossing(12.5, 0))


def converging() -> Scenario:
    """Four aircraft, each 12 NM behind its waypoint close to the centre."""
    lat, lon = FIVE_AT
    goals = ((2.6, 2.2), (-2.4, 2.5), (2.3, -2.6), (-2.5, -2.3))
    agents = []
    for i, ((north, east), bearing) in enumerate(zip(goals, (20.0, 140.0, 260.0, 320.0), strict=True)):
        goal_lat, goal_lon = lat + north / 60, lon + east / (60 * math.cos(math.radians(lat)))
        start_lat = goal_lat - 12 * math.cos(math.radians(bearing)) / 60
        start_lon = goal_lon - 12 * math.sin(math.radians(bearing)) / (60 * math.cos(math.radians(goal_lat)))
        hdg = _bearing(start_lat, start_lon, goal_lat, goal_lon)
        agents.append(Agent(f"A{i + 1}", start_lat, start_lon, hdg, goal_lat, goal_lon))
    return Scenario("converging", lat, lon, tuple(agents))


def _bearing(lat: float, lon: float, goal_lat: float, goal_lon: float) -> float:
    east = (goal_lon - lon) * 60 * math.cos(math.radians(lat))
    return math.degrees(math.atan2(east, (goal_lat - lat) * 60)) % 360


def _chase(name: str, starts: Sequence[tuple[float, float]]) -> Scenario:
    legs: list[Leg] = [(f"A{i + 1}", start, 0, (12, start[1])) for i, start in enumerate(starts)]
    return from_legs(name, NINE_AT, legs, 150)


def _merge(name: str, inbound: Sequence[tuple[float, tuple[float, float]]], distance: float = 50.0) -> Scenario:
    legs: list[Leg] = []
    for i, (course, goal) in enumerate(inbound):
        north, east = (distance * f(math.radians(course)) for f in (math.cos, math.sin))
        legs.append((f"A{i + 1}", (goal[0] - north, goal[1] - east), course, goal))
    return from_legs(name, NINE_AT, legs, 150)


def _cross_2x2() -> Scenario:
    legs: list[Leg] = []
    for east in (-12.0, 12.0):
        legs.append((f"A{len(legs) + 1}", (-15, east), 0, (15, east)))
        legs.append((f"A{len(legs) + 1}", (0, east - 15), 90, (0, east + 15)))
    return from_legs("cross_2x2", NINE_AT, legs, 150)


def _cross_3p1() -> Scenario:
    legs: list[Leg] = [
        ("A1", (-15, 0), 0, (15, 0)), ("A2", (0, -15), 90, (0, 15)), ("A3", (0, 15), 270, (0, -15)),
        ("A4", (-15, 18), 0, (12, 18)),
    ]  # fmt: skip
    return from_legs("cross_3p1", NINE_AT, legs, 150)


_WEST, _EAST = (0.0, -15.0), (0.0, 15.0)

FIVE: dict[str, Callable[..., Scenario]] = {
    "head_on": head_on,
    "parallel": parallel,
    "t_formation": t_formation,
    "canonical_crossing": canonical_crossing,
    "converging": converging,
}

NINE: dict[str, Callable[[], Scenario]] = {
    "chase_2x2": lambda: _chase("chase_2x2", ((-18, -8), (-12, -8), (-18, 8), (-12, 8))),
    "chase_3p1": lambda: _chase("chase_3p1", ((-18, 0), (-12, 0), (-6, 0), (-18, 15))),
    "chase_4all": lambda: _chase("chase_4all", ((-18, 0), (-12, 0), (-6, 0), (0, 0))),
    "merge_2x2": lambda: _merge("merge_2x2", ((352.5, _WEST), (7.5, _WEST), (172.5, _EAST), (187.5, _EAST))),
    "merge_3p1": lambda: _merge("merge_3p1", ((345, (0, 0)), (0, (0, 0)), (15, (0, 0)), (0, (5, 25)))),
    "merge_4all": lambda: _merge("merge_4all", tuple((course, (0, 0)) for course in (340, 355, 5, 20))),
    "cross_2x2": _cross_2x2,
    "cross_3p1": _cross_3p1,
    "cross_4all": lambda: from_legs("cross_4all", NINE_AT, _crossing(15.0, 1), 150),
}


def _circle(count: int, radius: float = 25.0) -> Scenario:
    bearings = (360.0 / count * i for i in range(count))
    legs: list[Leg] = []
    for bearing in bearings:
        north, east = (radius * f(math.radians(bearing)) for f in (math.cos, math.sin))
        legs.append((f"A{len(legs) + 1}", (north, east), (bearing + 180) % 360, (-north, -east)))
    return from_legs(f"circle_{count}", FIVE_AT, legs, 150)


CIRCLES: dict[str, Callable[[], Scenario]] = {"circle_10": lambda: _circle(10), "circle_16": lambda: _circle(16)}
"""Around a circle of 25 NM, each to the opposite point: more aircraft than a policy is trained with."""


def named(name: str) -> Scenario:
    """A scenario of the five, the nine or the circles."""
    return {**FIVE, **NINE, **CIRCLES}[name]()


def with_speed_spread(scenario: Scenario, spread_kt: float) -> Scenario:
    """Aircraft behind others fly faster: of those with one waypoint the farthest by `spread_kt`, the rest in steps."""
    agents = list(scenario.agents)
    tracks: dict[tuple[float, float], list[int]] = {}
    for i, agent in enumerate(agents):
        tracks.setdefault((round(agent.waypoint_lat, 6), round(agent.waypoint_lon, 6)), []).append(i)
    for members in tracks.values():
        far = sorted(members, key=lambda i: _distance_nm(agents[i], agents[i].waypoint_lat, agents[i].waypoint_lon))
        for rank, i in enumerate(far):
            share = rank / max(len(far) - 1, 1)
            agents[i] = agents[i]._replace(spd_kt=agents[i].spd_kt + share * spread_kt)
    return scenario._replace(agents=tuple(agents))


def _distance_nm(agent: Agent, lat: float, lon: float) -> float:
    scale = math.radians(1) * EARTH_NM
    return scale * math.hypot(agent.lat - lat, (agent.lon - lon) * math.cos(math.radians((agent.lat + lat) / 2)))


# Files


def read(path: str | Path) -> Scenario:
    """The scenario of a JSON file.

    Raises:
        ScenarioError: not a scenario that can be flown; one line with file, aircraft and key.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        data = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ScenarioError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())}") from error
    try:
        scenario = _parsed(data)
        check(scenario)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None
    return scenario


_TOP = {
    "scenario_name", "seed", "notes", "center", "sim_dt_s", "agents", "max_episode_steps", "wind", "jitter", "version"
}  # fmt: skip
_AGENT = {"id", "type", "lat", "lon", "hdg_deg", "spd_kt", "alt_ft", "waypoint"}


def _parsed(data: Any) -> Scenario:
    _require_object(data, "the file", _TOP)
    center = _require_object(data.get("center"), "center", {"lat", "lon", "alt_ft"})
    if not isinstance(data.get("agents"), list) or not data["agents"]:
        raise ScenarioError("agents: must be a list of at least one aircraft")
    if _number(data, "sim_dt_s", "the file", 1.0) != 1.0:
        raise ScenarioError(f"sim_dt_s {data['sim_dt_s']}: only 1.0 can be simulated")
    agents = []
    for index, entry in enumerate(data["agents"]):
        place = f"agents[{index}]"
        _require_object(entry, place, _AGENT)
        if not isinstance(entry.get("id"), str) or not entry["id"]:
            raise ScenarioError(f"{place}: id must be a text")
        place = f"aircraft {entry['id']}"
        goal = _require_object(entry.get("waypoint"), f"{place}: waypoint", {"lat", "lon"})
        lat, lon, hdg, speed = (_number(entry, key, place) for key in ("lat", "lon", "hdg_deg", "spd_kt"))
        goal_lat, goal_lon = (_number(goal, key, f"{place}: waypoint") for key in ("lat", "lon"))
        altitude = _number(entry, "alt_ft", place, ALTITUDE_FT)
        if not isinstance(entry.get("type", "A320"), str):
            raise ScenarioError(f"{place}: type must be a text")
        agents.append(Agent(entry["id"], lat, lon, hdg, goal_lat, goal_lon, entry.get("type", "A320"), speed, altitude))
    wind = data.get("wind")
    if wind is not None:
        _require_object(wind, "wind", {"dir_deg", "kt"})
        wind = (_number(wind, "dir_deg", "wind"), _number(wind, "kt", "wind"))
    jitter = data.get("jitter")
    if jitter is not None:
        _require_object(jitter, "jitter", {"position_nm", "heading_deg", "speed_kt"})
        jitter = {key: _number(jitter, key, "jitter") for key in jitter}
    steps = _number(data, "max_episode_steps", "the file", 100)
    if steps != int(steps) or not 1 <= steps <= MAX_STEPS:
        raise ScenarioError(f"max_episode_steps {steps:g}: must be a whole number from 1 to {MAX_STEPS}")
    return Scenario(
        str(data.get("scenario_name", "unnamed")), _number(center, "lat", "center"), _number(center, "lon", "center"),
        tuple(agents), int(steps), int(_number(data, "seed", "the file", 0)), str(data.get("notes", "")), wind, jitter,
    )  # fmt: skip


def _require_object(value: Any, place: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ScenarioError(f"{place}: missing, or not an object with {', '.join(sorted(keys))}")
    for key in value:
        if key not in keys:
            raise ScenarioError(f"{place}: unknown key '{key}'; known: {', '.join(sorted(keys))}")
    return value


def _number(entry: Mapping[str, Any], key: str, place: str, default: float | None = None) -> float:
    value = entry.get(key, default)
    # Compared, as a whole number of a file may be too large for `math.isfinite`.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ScenarioError(f"{place}: {key} is {value!r}, not a finite number")
    return float(value)


SEPARATION_NM = 5.0
FARTHEST_DEG = 5.0
MAX_STEPS = 10_000
MAX_WIND_KT = 100.0


def check(scenario: Scenario) -> None:
    """Raise ScenarioError where the scenario cannot be flown, or starts with a loss of separation."""
    if not -80 <= scenario.lat <= 80:
        raise ScenarioError(f"center: lat {scenario.lat} is not within 80 degrees of the equator")
    if scenario.wind is not None and not 0 <= scenario.wind[1] <= MAX_WIND_KT:
        raise ScenarioError(f"wind: kt {scenario.wind[1]:g} is not in [0, {MAX_WIND_KT:g}]")
    for name, width in (scenario.jitter or {}).items():
        if width < 0:
            raise ScenarioError(f"jitter: {name} {width:g} is negative")
    seen: set[str] = set()
    for agent in scenario.agents:
        if agent.id in seen:
            raise ScenarioError(f"aircraft {agent.id}: id appears twice")
        seen.add(agent.id)
        if agent.type not in ENVELOPE_KT:
            raise ScenarioError(f"aircraft {agent.id}: unknown type '{agent.type}'; known: {', '.join(ENVELOPE_KT)}")
        low, high = ENVELOPE_KT[agent.type]
        if not low <= agent.spd_kt <= high:
            raise ScenarioError(
                f"aircraft {agent.id}: spd_kt {agent.spd_kt:g} is outside the envelope {low:.1f} to {high:.1f} kt "
                f"of {agent.type}"
            )
        if not 0 <= agent.hdg_deg < 360:
            raise ScenarioError(f"aircraft {agent.id}: hdg_deg {agent.hdg_deg:g} is not in [0, 360)")
        if agent.alt_ft != ALTITUDE_FT:
            raise ScenarioError(f"aircraft {agent.id}: alt_ft {agent.alt_ft:g}: only 10000 can be simulated")
        for name, lat, lon in (("start", agent.lat, agent.lon), ("waypoint", agent.waypoint_lat, agent.waypoint_lon)):
            if abs(lat - scenario.lat) > FARTHEST_DEG or abs(lon - scenario.lon) > 2 * FARTHEST_DEG:
                raise ScenarioError(f"aircraft {agent.id}: {name} {lat:g}, {lon:g} is too far from the centre")
    for i, first in enumerate(scenario.agents):
        for second in scenario.agents[i + 1 :]:
            distance = _distance_nm(first, second.lat, second.lon)
            if distance < SEPARATION_NM:
                raise ScenarioError(
                    f"aircraft {first.id} and {second.id} start {distance:.2f} NM apart, closer than {SEPARATION_NM:g}"
                )


def to_json(scenario: Scenario) -> dict[str, Any]:
    """The scenario as the file's object; `read` gives the same scenario back."""
    data: dict[str, Any] = {
        "scenario_name": scenario.name,
        "seed": scenario.seed,
        "notes": scenario.notes,
        "center": {"lat": scenario.lat, "lon": scenario.lon, "alt_ft": ALTITUDE_FT},
        "sim_dt_s": 1.0,
        "agents": [
            {
                "id": a.id, "type": a.type, "lat": a.lat, "lon": a.lon, "hdg_deg": a.hdg_deg, "spd_kt": a.spd_kt,
                "alt_ft": a.alt_ft, "waypoint": {"lat": a.waypoint_lat, "lon": a.waypoint_lon},
            }
            for a in scenario.agents
        ],
        "max_episode_steps": scenario.max_episode_steps,
    }  # fmt: skip
    if scenario.wind is not None:
        data["wind"] = {"dir_deg": scenario.wind[0], "kt": scenario.wind[1]}
    if scenario.jitter is not None:
        data["jitter"] = dict(scenario.jitter)
    return data


def write(scenario: Scenario, path: str | Path) -> None:
    """Write a scenario file; numbers keep all their digits."""
    Path(path).write_text(json.dumps(to_json(scenario), indent=2) + "\n")
