"""Conditions other than those of the training (specification, section 13): shifts within a scenario, other scenarios.

Reading order: the grid as data, what each kind changes, which groups of them one program can fly, `groups`; more
aircraft than at the training; `scenario_groups`. Host code: parameters are NumPy arrays here.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from envs_jax.atc.config import GENERIC, SCENARIOS, AtcConfig, SensingConfig, WindConfig
from envs_jax.atc.kinematics import performance_of
from envs_jax.atc.params import EARTH_NM, KNOT_MS, TYPES, AtcParams
from envs_jax.atc.scenarios import CIRCLES, FIVE, NINE, Agent, Scenario, named
from envs_jax.base import Environment, Group

CLOSEST_START_NM = 6.0
"""Shifts that bring two starts closer than this are left out."""
ALL = "all"


class Row(NamedTuple):
    """One row of the grid."""

    kind: str
    unit: str
    small: tuple[float, ...]
    large: tuple[float, ...]
    axes: tuple[str, ...] = ("",)
    """Directions, or choices."""
    signed: bool = True
    """Both ways along an axis."""
    each: bool = True
    """One aircraft at a time, and all; else all only."""


_NEAR = 0.03, 0.05, 0.08, 0.10, 0.12, 0.15
_STEPS = (2.0, 5.0, 8.0, 10.0), (15.0, 20.0, 25.0, 30.0, 35.0)
_SIDES, _DIAGONALS = ("north", "east"), ("northeast", "southeast")
COMPASS = {"north": (1.0, 0.0), "east": (0.0, 1.0), "northeast": (1.0, 1.0), "southeast": (-1.0, 1.0)}
"""North and east parts of a shift along an axis; along diagonals each part has the whole size."""

GRID = (
    Row("speed", "kt", *_STEPS),
    Row("heading", "deg", *_STEPS),
    Row("position", "deg", _NEAR, (0.18, 0.20, 0.25, 0.30, 0.35), ("north",)),
    Row("position", "deg", _NEAR, (0.20, 0.25, 0.30, 0.35, 0.40), ("east",)),
    Row("waypoint", "deg", (0.03, 0.05, 0.08), (0.15, 0.20, 0.25, 0.30), _SIDES),
    Row("waypoint", "deg", (), (0.15, 0.20), _DIAGONALS),
    Row("type", "", (1.0,), (), tuple(name for name in TYPES if name != "A320"), signed=False),
    Row("wind", "kt", (10.0, 15.0), (25.0, 35.0), _SIDES, each=False),
    Row("wind", "kt", (), (30.0,), _DIAGONALS, each=False),
    Row("delay", "steps", (1.0,), (2.0, 3.0), signed=False, each=False),
    Row("noise", "NM", (0.1,), (0.2, 0.5), signed=False, each=False),
    Row("dropout", "share", (0.1, 0.25), (0.5, 1.0), signed=False, each=False),
    Row("aircraft", "more", (1.0,), (2.0,), signed=False, each=False),
)
KINDS = tuple(dict.fromkeys(row.kind for row in GRID))
IN_TRAIL = "merge", "chase"
"""Families of scenarios with streams of aircraft."""
IN_TRAIL_EAST = 0.18, 0.20, 0.25
"""Their large positions east and west."""
NOISE_KT_PER_NM = 50.0
"""Errors of speeds that go with those of positions: 5 kt with 0.1 NM."""
MOST_DELAY, MOST_AIRCRAFT = (int(max(r.large)) for kind in ("delay", "aircraft") for r in GRID if r.kind == kind)

_OF_STARTS = "speed", "heading", "position", "waypoint", "type"
_OF_FLIGHT = "wind", "delay", "noise", "dropout"
_OF_TRAFFIC = "aircraft"
_NOT_RANDOM = "speed", "heading", "position", "waypoint"
"""Kinds that change starts which a scenario names."""


class Shift(NamedTuple):
    row: Row
    axis: str
    size: float
    who: str
    scale: str

    def label(self) -> dict[str, Any]:
        is_choice = self.row.kind == "type"
        return {"kind": self.row.kind, "who": self.who, "axis": self.axis, "size": None if is_choice else self.size,
                "unit": self.row.unit, "scale": self.scale}  # fmt: skip


UNSHIFTED = {"kind": "none", "who": "", "axis": "", "size": 0.0, "unit": "", "scale": ""}


def shifts_of(rows: Sequence[Row], ids: Sequence[str], in_trail: bool = False) -> Iterator[Shift]:
    """All shifts of the rows for aircraft `ids`."""
    for row in rows:
        large = IN_TRAIL_EAST if in_trail and (row.kind, row.axes) == ("position", ("east",)) else row.large
        for who in (*ids, ALL) if row.each else (ALL,):
            for axis in row.axes:
                for scale, sizes in (("small", row.small), ("large", large)):
                    for size in sizes:
                        for sign in (1.0, -1.0) if row.signed else (1.0,):
                            yield Shift(row, axis, sign * size, who, scale)


def shifted(shift: Shift, params: AtcParams, ids: Sequence[str]) -> AtcParams:
    """Parameters under a shift; a padded world holds aircraft beyond `ids` that it moves with all."""
    start, sensing, size, n = params.start, params.sensing, shift.size, params.start.dlat.shape[0]
    of = np.array([shift.who in (ALL, ids[i] if i < len(ids) else "") for i in range(n)])
    north, east = (size * part for part in COMPASS.get(shift.axis, (0.0, 0.0)))
    changed: dict[str, Any]
    match shift.row.kind:
        case "speed":
            changed = {"start": dataclasses.replace(start, cas=start.cas + of * size * KNOT_MS)}
        case "heading":
            changed = {"start": dataclasses.replace(start, hdg=(start.hdg + of * size) % 360)}
        case "position":
            changed = {"start": dataclasses.replace(start, dlat=start.dlat + of * north, dlon=start.dlon + of * east)}
        case "waypoint":
            goal = {"goal_dlat": start.goal_dlat + of * north, "goal_dlon": start.goal_dlon + of * east}
            changed = {"start": dataclasses.replace(start, **goal)}
        case "type":
            other = performance_of([shift.axis] * n)
            changed = {"performance": jax.tree.map(lambda a, b: np.where(of, b, a), params.performance, other)}
        case "wind":
            # From the axis: it blows the other way, and a diagonal is no stronger than a side.
            ms = -KNOT_MS / math.hypot(*COMPASS[shift.axis])
            changed = {
                "wind_north_ms": params.wind_north_ms + ms * north, "wind_east_ms": params.wind_east_ms + ms * east
            }  # fmt: skip
        case "delay":
            assert params.delay_steps is not None
            changed = {"delay_steps": params.delay_steps + size}
        case "noise":
            assert sensing is not None
            errors = {"position_nm": sensing.position_nm + size, "speed_kt": sensing.speed_kt + NOISE_KT_PER_NM * size}
            changed = {"sensing": dataclasses.replace(sensing, **errors)}
        case "dropout":
            assert sensing is not None
            changed = {"sensing": dataclasses.replace(sensing, dropout=max(sensing.dropout, size))}
        case "aircraft":
            more = np.cumsum(~start.present) <= size
            changed = {"start": dataclasses.replace(start, present=start.present | more)}
        case kind:
            raise AssertionError(kind)
    new = dataclasses.replace(params, **changed)
    return jax.tree.map(lambda x, old: np.asarray(x, old.dtype), new, params)


def closest_start_nm(params: AtcParams) -> float:
    """Smallest distance of two nominal starts."""
    start = params.start
    lat, lon = (np.radians(x[start.present].astype(np.float64)) for x in (start.dlat, start.dlon))
    middle = np.cos(np.radians(float(params.lat)) + 0.5 * (lat[:, None] + lat))
    nm = EARTH_NM * np.hypot(lat[:, None] - lat, (lon[:, None] - lon) * middle)
    return float(np.min(nm + np.where(np.eye(len(lat), dtype=bool), np.inf, 0.0), initial=np.inf))


Build = Callable[[AtcConfig, Scenario | None], Environment]
"""The environment of a configuration in a scenario, None: random traffic."""


def groups(kinds: Sequence[str] | None, config: AtcConfig, scenario: Scenario | None, build: Build) -> list[Group]:
    """The groups of the conditions `shifts`.

    Raises:
        ValueError: a kind that is not known, or does not exist for random traffic.
    """
    known = [kind for kind in KINDS if scenario is not None or kind not in _NOT_RANDOM]
    chosen = list(known if kinds is None else kinds)
    for kind in chosen:
        if kind not in known:
            where = "" if kind not in KINDS else " for random traffic"
            raise ValueError(f"unknown kind '{kind}'{where}; known are {', '.join(known)}")
    found: list[tuple[tuple[str, ...], Environment, dict[str, Any]]] = []
    if set(chosen) & set(_OF_STARTS):
        found.append((_OF_STARTS, build(config, scenario), {}))
    if set(chosen) & set(_OF_FLIGHT):
        found.append((_OF_FLIGHT, build(_disturbed(config, scenario), scenario), _undisturbed(config)))
    if _OF_TRAFFIC in chosen:
        found.append(((_OF_TRAFFIC,), *_crowded(config, scenario, build)))
    ids = [] if scenario is None else [agent.id for agent in scenario.agents]
    in_trail = scenario is not None and scenario.name.startswith(IN_TRAIL)
    rows = [row for row in GRID if row.kind in chosen]
    return [
        _group(env, unshifted, [row for row in rows if row.kind in members], ids, in_trail)
        for members, env, unshifted in found
    ]


def _group(
    env: Environment, unshifted: dict[str, Any], rows: Sequence[Row], ids: Sequence[str], in_trail: bool
) -> Group:
    base = jax.tree.map(np.asarray, dataclasses.replace(env.default_params, **unshifted))
    labels, params, left_out = [dict(UNSHIFTED)], [base], Counter[str]()
    least = closest_start_nm(base)
    for shift in shifts_of(rows, ids, in_trail):
        moved = shifted(shift, base, ids)
        closest = closest_start_nm(moved) if ids else least
        if closest < CLOSEST_START_NM and closest < least:
            left_out[shift.row.kind] += 1
            continue
        labels.append(shift.label())
        params.append(moved)
    return Group(env, labels, jax.tree.map(lambda *x: np.stack(x), *params), dict(left_out))


def _disturbed(config: AtcConfig, scenario: Scenario | None) -> AtcConfig:
    """The configuration with everything that wind, delay and errors of sensing need, all of them zero."""
    windy = config.wind is not None or (scenario is not None and scenario.wind is not None)
    return config.model_copy(update={
        "wind": config.wind if windy else WindConfig(),
        "sensing": config.sensing or SensingConfig(),
        "action_delay_steps": config.action_delay_steps + MOST_DELAY,
    })  # fmt: skip


def _undisturbed(config: AtcConfig) -> dict[str, Any]:
    return {"delay_steps": np.float32(config.action_delay_steps)}


# More aircraft

CLEAR_NM = 8.0
"""A further aircraft starts this far from all others."""
BEARINGS = 72


def _crowded(config: AtcConfig, scenario: Scenario | None, build: Build) -> tuple[Environment, dict[str, Any]]:
    """`(environment, changes of its parameters without the further aircraft)`.

    A scenario gets aircraft that cross its middle, see `crossing`. Random traffic of the most aircraft of the
    configuration gets others of the same scene: those that are missing unshifted.
    """
    if scenario is None:
        usual = config.traffic.max_aircraft
        number = usual + MOST_AIRCRAFT
        traffic = config.traffic.model_copy(update={"min_aircraft": number, "max_aircraft": number})
        config = config.model_copy(update={"traffic": traffic})
    else:
        usual = len(scenario.agents)
        number = usual + MOST_AIRCRAFT
        scenario = scenario._replace(agents=(*scenario.agents, *crossing(scenario, MOST_AIRCRAFT)))
    types = config.aircraft_type
    if isinstance(types, list):
        config = config.model_copy(update={"aircraft_type": [*types, *[types[-1]] * MOST_AIRCRAFT]})
    env = build(_wide_enough(config, number), scenario)
    present = np.arange(env.num_agents or 0) < usual
    return env, {"start": dataclasses.replace(env.default_params.start, present=present)}


def _wide_enough(config: AtcConfig, number: int) -> AtcConfig:
    """The configuration without arrays of fewer aircraft than `number`."""
    return config if (config.pad_to or number) >= number else config.model_copy(update={"pad_to": None})


def crossing(scenario: Scenario, count: int) -> list[Agent]:
    """Further aircraft through the middle of a scenario, each to the opposite point.

    The middle is that of all legs; a newcomer is half a mean leg away from it, so that it gets there with the others,
    or as much farther as it needs to be `CLEAR_NM` from all starts. Of the bearings the one with most room.
    """
    scale = math.cos(math.radians(scenario.lat))
    starts = [(60 * (a.lat - scenario.lat), 60 * scale * (a.lon - scenario.lon)) for a in scenario.agents]
    goals = [
        (60 * (a.waypoint_lat - scenario.lat), 60 * scale * (a.waypoint_lon - scenario.lon)) for a in scenario.agents
    ]
    north, east = np.mean([*starts, *goals], axis=0)
    away = 0.5 * float(np.mean([math.dist(*leg) for leg in zip(starts, goals, strict=True)]))
    bearings = 360.0 / BEARINGS * np.arange(BEARINGS)
    unit = np.stack([np.cos(np.radians(bearings)), np.sin(np.radians(bearings))], axis=1)
    newcomers: list[Agent] = []
    while len(newcomers) < count:
        places = np.array([north, east]) + away * unit
        room = np.min(np.linalg.norm(places[:, None] - np.array(starts), axis=2), axis=1)
        # Equal room but for rounding goes to the first bearing.
        best = int(np.argmax(room > room.max() - 1e-6))
        if room[best] < CLEAR_NM:
            away += 1.0
            continue
        (lat, lon), (goal_lat, goal_lon) = (
            (scenario.lat + p / 60, scenario.lon + q / (60 * scale))
            for p, q in (places[best], (2 * north, 2 * east) - places[best])
        )
        starts.append(tuple(places[best]))
        heading = (bearings[best] + 180) % 360
        newcomers.append(Agent(f"X{len(newcomers) + 1}", lat, lon, float(heading), goal_lat, goal_lon))
    return newcomers


# Between scenarios


def scenario_groups(
    names: Sequence[str], config: AtcConfig, own: str, build: Callable[[AtcConfig, str], Environment]
) -> list[Group]:
    """The groups of the conditions `scenarios`: other scenarios with this configuration's pilots, rewards and jitter.

    `five`, `nine`, `circles` and `all` (these and random traffic) stand for their members. Another scenario than `own`
    has its own horizon. Those of as many aircraft are one group, with the longest horizon's number of steps.

    Args:
        build: `(configuration, scenario's name)`.

    Raises:
        ValueError: a name that is not known.
    """
    collections = {"five": tuple(FIVE), "nine": tuple(NINE), "circles": tuple(CIRCLES), ALL: SCENARIOS}
    for name in names:
        if name not in (*SCENARIOS, *collections):
            raise ValueError(f"unknown scenario '{name}'; known are {', '.join((*SCENARIOS, *collections))}")
    wanted = dict.fromkeys(member for name in names for member in collections.get(name, (name,)))
    alike: dict[Any, list[tuple[str, Environment]]] = {}
    for name in wanted:
        changes: dict[str, Any] = {"scenario": name, "scenario_file": None}
        if name != own:
            changes["max_episode_steps"] = None
        other = config.model_copy(update=changes)
        number = config.traffic.max_aircraft if name == GENERIC else len(named(name).agents)
        env = build(_wide_enough(other, number), name)
        alike.setdefault((env.num_agents, name == GENERIC), []).append((name, env))
    return [
        Group(
            max((env for _, env in members), key=lambda env: env.max_episode_length),
            [{"condition": name} for name, _ in members],
            jax.tree.map(lambda *x: np.stack(x), *(env.default_params for _, env in members)),
        )
        for members in alike.values()
    ]
