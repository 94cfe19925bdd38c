"""Where episodes start: a scenario's starts with jitter, and random traffic.

Pure functions of random words, with the batch last: words [W, B], aircraft [N, B]. Reading order: `jittered`, the
families of random scenes, and `generator`, which picks one, removes starts that are too close, turns the scene and
shuffles the aircraft.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.atc import geometry
from envs_jax.atc.kinematics import DEG, cos_latitude, fast_tas_of_cas
from envs_jax.atc.params import FAR_NM, KNOT_MS, NM_M, AtcParams, Start
from envs_jax.atc.scenarios import FIVE_AT, Agent, Scenario
from envs_jax.words import expanded, uniform_01

if TYPE_CHECKING:
    from envs_jax.atc.config import TrafficConfig

TRIES = 8
JITTER_WORDS = TRIES + 1
"""Random words of each aircraft: a position for every try, one for heading and speed."""
MARGIN_NM = 1.0
"""Jittered starts are this much farther apart than the separation."""
CANDIDATES = 4
"""Tries to place an aircraft of a crossing scene."""


def _halves(words):
    """The two halves of each word as floats in (-1, 1)."""

    def centred(half):
        return (half.astype(jnp.result_type(float)) + 0.5) * 2**-15 - 1

    return centred(words >> 16), centred(words & 0xFFFF)


def jittered(seed, params: AtcParams) -> Start:
    """The scenario's start, moved within its jitter so that all starts keep the separation and a mile more.

    The first of eight draws that does; the nominal positions where none does.

    Args:
        seed: words [2, B], of which it takes `JITTER_WORDS * N` expanded ones.
    """
    start, jitter = params.start, params.jitter
    n = start.dlat.shape[0]
    turn, faster = _halves(expanded(seed, n, first=TRIES * n))
    first = _tries(expanded(seed, n), params)
    # All eight draws take a fifth of a step's time. Where starts are far apart (crossings, most merges) the first never
    # fails; where they are close (converging, chases) some start of every batch needs the others.
    dlat, dlon = jax.lax.cond(
        jnp.all(first.apart),
        lambda: (first.dlat[0], first.dlon[0]),
        lambda: _first_apart(first, _tries(expanded(seed, (TRIES - 1) * n, first=n), params), start),
    )
    cas = start.cas + jitter.speed_kt * KNOT_MS * faster
    return dataclasses.replace(
        start,
        dlat=dlat,
        dlon=dlon,
        hdg=(start.hdg + jitter.heading_deg * turn) % 360.0,
        cas=jnp.clip(cas, params.performance.cas_min_ms, params.performance.cas_max_ms),
    )


class _Tries(NamedTuple):
    dlat: jax.Array
    """[T, N, B]"""
    dlon: jax.Array
    apart: jax.Array
    """Whether nobody is too close, [T, B]."""


def _tries(words, params: AtcParams) -> _Tries:
    """Moved positions, from words [T N, B]."""
    start = params.start
    n = start.dlat.shape[0]
    north, east = _halves(words.reshape(-1, n, words.shape[-1]))
    cos, sin = jnp.cos(DEG * params.lat), jnp.sin(DEG * params.lat)
    per_nm = 1 / geometry.NM_PER_DEG
    dlat = start.dlat + params.jitter.position_nm * per_nm * north
    dlon = start.dlon + params.jitter.position_nm * per_nm * east / cos_latitude(cos, sin, start.dlat)
    limit, clear = params.limits.separation_nm + MARGIN_NM, []
    pairs = zip(geometry.partners(dlat), geometry.partners(dlon), geometry.both(start.present), strict=True)
    for there_lat, there_lon, both in pairs:
        to = geometry.flat(dlat, dlon, there_lat, there_lon, lambda x: cos_latitude(cos, sin, x))
        clear.append(jnp.where(both, to[0] * to[0] + to[1] * to[1], FAR_NM**2))
    # Over the aircraft row by row: a reduction over two axes with another between them is slow on CPUs.
    nearest = reduce(jnp.minimum, [pair[:, i] for pair in clear for i in range(n)])
    return _Tries(dlat, dlon, nearest >= limit * limit)


def _first_apart(first: _Tries, later: _Tries, nominal: Start):
    """Positions ([N, B], [N, B]) of the first try that is apart; the nominal ones stand at the end of the row."""
    apart = jnp.concatenate([first.apart, later.apart, jnp.ones_like(first.apart)])
    chosen = (apart & (jnp.cumsum(apart, axis=0) == 1))[:, None]

    def pick(first, later, nominal):
        row = jnp.concatenate([first, later, jnp.broadcast_to(nominal, first.shape)])
        return jnp.sum(jnp.where(chosen, row, 0.0), axis=0)

    return pick(first.dlat, later.dlat, nominal.dlat), pick(first.dlon, later.dlon, nominal.dlon)


# Random traffic


class Scene(NamedTuple):
    """Aircraft of one scene in its own axes, [N, B]; NM, deg, kt CAS."""

    north: jax.Array
    east: jax.Array
    hdg: jax.Array
    cas_kt: jax.Array
    goal_north: jax.Array
    goal_east: jax.Array


class Generator(NamedTuple):
    """Random traffic."""

    words: int
    draw: Callable[[jax.Array, AtcParams], Start]
    """`(words [W, B], params) -> Start [N, B]`."""


class _Numbers:
    """Uniform numbers handed out in order: of the scene [B] and of each aircraft [N, B]."""

    def __init__(self, words, n: int):
        self.left, self.n = uniform_01(words), n

    def scene(self, low=0.0, high=1.0):
        value, self.left = self.left[0], self.left[1:]
        return low + (high - low) * value

    def each(self, low=0.0, high=1.0):
        value, self.left = self.left[: self.n], self.left[self.n :]
        return low + (high - low) * value

    def each_try(self, kinds: int):
        """[N - 1, kinds, CANDIDATES, B] for all aircraft but the first."""
        shape = self.n - 1, kinds, CANDIDATES
        values, self.left = self.left[: math.prod(shape)], self.left[math.prod(shape) :]
        return values.reshape(*shape, -1)


SCENE_NUMBERS, EACH_NUMBERS = 6, 5
"""Numbers that every family may use."""


def _course(north, east, goal_north, goal_east):
    return jnp.arctan2(goal_east - east, goal_north - north) / DEG


def _unit(deg):
    return jnp.cos(DEG * deg), jnp.sin(DEG * deg)


def _speed(config: "TrafficConfig", u):
    return 250.0 + config.speed_spread_kt * (2 * u - 1)


def _circle(config: "TrafficConfig", u: _Numbers, index, count) -> Scene:
    """Around a circle, each to the opposite point."""
    place = 360.0 / count * (index + u.each(-0.25, 0.25))
    cos, sin = _unit(place)
    # Not so small that neighbours start too close.
    largest, least = config.circle_radius_nm, 1.2 * config.min_start_nm * count / (2 * math.pi)
    smallest = jnp.minimum(jnp.maximum((1 - config.circle_radius_spread) * largest, least), largest)
    radius = smallest + (largest - smallest) * u.scene() + u.each(-2.0, 2.0)
    north, east = radius * cos, radius * sin
    return Scene(north, east, place + 180.0, _speed(config, u.each()), -north, -east)


def _merge(config: "TrafficConfig", u: _Numbers, index, count) -> Scene:
    """Courses some degrees apart into one waypoint, or from both sides into two."""
    two = u.scene() < 0.5
    side = jnp.where(two, index % 2, 0.0)
    rank, size = jnp.where(two, index // 2, index), jnp.where(two, (count + 1) // 2, count)
    distance = u.scene(20.0, 50.0)
    # Neighbours start as far apart as they must, up to more than twice that, and come from one side.
    apart = jnp.minimum(u.scene(1.1, 2.5) * config.min_start_nm / (DEG * distance), jnp.where(two, 150.0, 300.0) / size)
    course = apart * (rank - (size - 1) / 2) + 180.0 * side
    distance = distance + u.each(-2.0, 2.0)
    goal_north, goal_east = u.scene(-5.0, 5.0) * side, jnp.where(two, 15.0 * (2 * side - 1), 0.0)
    cos, sin = _unit(course)
    north, east = goal_north - distance * cos, goal_east - distance * sin
    return Scene(north, east, course, _speed(config, u.each()), goal_north, goal_east)


def _chase(config: "TrafficConfig", u: _Numbers, index, count) -> Scene:
    """In trail on one track or on two; those behind may be faster."""
    two = u.scene() < 0.5
    track, rank = jnp.where(two, index % 2, 0.0), jnp.where(two, index // 2, index)
    gap = u.scene(1.1, 1.5) * config.min_start_nm
    lane = jnp.where(two, 2 * config.min_start_nm * (track - 0.5), 0.0)
    north = gap * rank - 20.0 + u.each(-0.2, 0.2) * config.min_start_nm
    east = lane + u.each(-2.0, 2.0)
    faster = jnp.maximum((count - 1) / 2 - rank, -1.0) * u.scene(0.0, 0.5)
    cas = 250.0 + config.speed_spread_kt * jnp.clip(faster + u.each(-0.5, 0.5), -1.0, 1.0)
    goal_north = jnp.maximum(gap * count - 20.0, 0.0) + 14.0 + 0 * north
    return Scene(north, east, 0 * north, cas, goal_north, lane + 0 * north)


def _converging(config: "TrafficConfig", u: _Numbers, index, count) -> Scene:
    """Waypoints close to the centre, reached from all sides at much the same time."""
    goal_cos, goal_sin = _unit(360.0 / count * (index + u.each(-0.3, 0.3)))
    goal_far = u.each(2.0, 4.5)
    goal_north, goal_east = goal_far * goal_cos, goal_far * goal_sin
    course = 360.0 / count * (index * jnp.where(u.scene() < 0.5, 1.0, -1.0) + u.each(-0.3, 0.3)) + u.scene(0.0, 360.0)
    distance = u.scene(10.0, 22.0) + u.each(-2.0, 2.0)
    cos, sin = _unit(course)
    cas = _speed(config, 0.5 + 0 * course)
    return Scene(goal_north - distance * cos, goal_east - distance * sin, course, cas, goal_north, goal_east)


def _lattice(config: "TrafficConfig", u: _Numbers, index, count) -> Scene:
    """Two streams that cross: pairs that meet at points of one line, all at much the same time."""
    pair, second = index // 2, index % 2
    course = second * jnp.where(u.scene() < 0.5, 1.0, -1.0) * u.scene(40.0, 140.0)
    cos, sin = _unit(course)
    line_cos, line_sin = _unit(u.scene(45.0, 135.0))
    at = (pair - ((count + 1) // 2 - 1) / 2) * u.scene(12.0, 26.0)
    distance = u.scene(11.0, 22.0) + u.each(-2.0, 2.0)
    cross_north, cross_east = at * line_cos, at * line_sin
    aside = u.each(-2.0, 2.0)
    north, east = cross_north - distance * cos - aside * sin, cross_east - distance * sin + aside * cos
    cas = _speed(config, u.each())
    return Scene(north, east, course, cas, cross_north + distance * cos, cross_east + distance * sin)


def _uniform(config: "TrafficConfig", u: _Numbers, index, count) -> Scene:
    """Anywhere in a square, across the middle to the other side."""
    half = config.square_nm / 2
    north, east = u.each(-half, half), u.each(-half, half)
    toward = _course(north, east, u.each(-half, half) / 2, u.each(-half, half) / 2)
    cos, sin = _unit(toward)
    length = u.scene(20.0, 40.0)
    cas = _speed(config, u.each())
    return Scene(north, east, toward, cas, north + length * cos, east + length * sin)


def _crossing(config: "TrafficConfig", u: _Numbers, index, count) -> Scene:
    """Each aircraft in conflict with a random earlier one: angle, miss distance, its side, time of the loss are drawn.

    The first of four draws whose start is far enough from all others; else the last, which the caller drops.
    """
    n, radius, least2 = index.shape[0], 5.0, config.min_start_nm**2
    cas, late = _speed(config, u.each()), u.each()
    speed = fast_tas_of_cas(cas * KNOT_MS) / NM_M
    draws = u.each_try(4)

    # A loop over aircraft: written out, the choice among earlier ones takes far longer to compile.
    def place(placed, inputs):
        i, own_speed, (which, angle, miss, time) = inputs
        earlier = jnp.arange(n)[:, None] < i  # [N, 1]
        number = jnp.floor(which * jnp.minimum(i.astype(which.dtype), jnp.maximum(count - 1.0, 1.0)))
        other = jnp.arange(n)[:, None, None] == number  # [N, tries, B]
        north_o, east_o, track_o, speed_o = jnp.sum(jnp.where(other, placed[:, :, None], 0.0), axis=1)
        track = track_o + 30.0 + 300.0 * angle
        miss, time = radius * (2 * miss - 1), 100.0 + 200.0 * time
        (cos_o, sin_o), (cos, sin) = _unit(track_o), _unit(track)
        closing_n, closing_e = speed_o * cos_o - own_speed * cos, speed_o * sin_o - own_speed * sin
        closing = jnp.sqrt(closing_n**2 + closing_e**2)
        along = time * closing + jnp.sqrt(radius**2 - miss**2)
        unit_n, unit_e = (x / jnp.maximum(closing, 1e-6) for x in (closing_n, closing_e))
        north, east = north_o + along * unit_n - miss * unit_e, east_o + along * unit_e + miss * unit_n
        apart2 = (north - placed[0][:, None]) ** 2 + (east - placed[1][:, None]) ** 2  # [N, tries, B]
        clear = jnp.all((apart2 >= least2) | ~earlier[:, None], axis=0)
        clear = jnp.concatenate([clear[:-1], jnp.ones_like(clear[:1])])
        chosen = clear & (jnp.cumsum(clear, axis=0) == 1)
        found = [jnp.sum(jnp.where(chosen, x, 0.0), axis=0) for x in (north, east, track, time)]
        row = jnp.stack([*found[:3], own_speed])
        return jnp.where(jnp.arange(n)[:, None] == i, row[:, None], placed), found[3]

    zero = 0 * cas
    first = jnp.stack([zero, zero, zero, jnp.broadcast_to(speed[0], cas.shape)])
    placed, time = jax.lax.scan(place, first, (jnp.arange(1, n), speed[1:], draws))
    north, east, track, _ = placed
    flight_s = jnp.concatenate([350.0 + 100.0 * late[:1], time + 60.0 + 120.0 * late[1:]])
    cos, sin = _unit(track)
    length = speed * flight_s
    # The scene is built around its first aircraft, which passes the middle half way.
    middle_n, middle_e = 0.5 * length[0] * cos[0], 0.5 * length[0] * sin[0]
    north, east = north - middle_n, east - middle_e
    return Scene(north, east, track, cas, north + length * cos, east + length * sin)


_FAMILIES: dict[str, Callable[..., Scene]] = {
    "circle": _circle,
    "crossing": _crossing,
    "merge": _merge,
    "chase": _chase,
    "converging": _converging,
    "lattice": _lattice,
    "uniform": _uniform,
}


def generator(config: "TrafficConfig", n: int) -> Generator:
    """Random traffic of `config.max_aircraft` aircraft at most, in arrays of `n`."""
    names = [name for name, weight in config.families.items() if weight > 0]
    weights = np.array([config.families[name] for name in names])
    edges = np.cumsum(weights / weights.sum())[:-1]
    numbers = SCENE_NUMBERS + EACH_NUMBERS * n + 4 * CANDIDATES * (n - 1)
    common = 3 + 2 * n

    def draw(words, params: AtcParams) -> Start:
        shared = _Numbers(words[:common], n)
        kind, number, rotation = shared.scene(), shared.scene(), shared.scene(0.0, 360.0)
        count = config.min_aircraft + jnp.floor(number * (config.max_aircraft - config.min_aircraft + 1))
        index = jnp.arange(n, dtype=count.dtype)[:, None] + 0 * count
        family = sum(((kind >= edge).astype(jnp.int32) for edge in edges), jnp.zeros_like(kind, jnp.int32))
        # Families share their numbers: one scene is made of them.
        scenes = [_FAMILIES[name](config, _Numbers(words[common:], n), index, count) for name in names]
        scene = scenes[0]
        for k, other in enumerate(scenes[1:], start=1):
            scene = jax.tree.map(lambda a, b, k=k: jnp.where(family == k, b, a), scene, other)
        cos, sin = _unit(rotation)
        per_nm = 1 / geometry.NM_PER_DEG
        cos_centre, sin_centre = _unit(params.lat)

        def cos_at(dlat):
            return cos_latitude(cos_centre, sin_centre, dlat)

        def offsets(north, east):
            dlat = per_nm * (north * cos - east * sin)
            return dlat, per_nm * (north * sin + east * cos) / cos_at(dlat)

        dlat, dlon = offsets(scene.north, scene.east)
        goal_dlat, goal_dlon = offsets(scene.goal_north, scene.goal_east)
        start = Start(
            dlat=dlat,
            dlon=dlon,
            hdg=(scene.hdg + shared.each(-10.0, 10.0) + rotation) % 360.0,
            cas=scene.cas_kt * KNOT_MS,
            goal_dlat=goal_dlat,
            goal_dlon=goal_dlon,
            present=_far_enough(dlat, dlon, (index < count) & params.start.present, config.min_start_nm, cos_at),
        )
        order = jnp.argsort(shared.each(), axis=0)
        start = jax.tree.map(lambda x: jnp.take_along_axis(x, order, axis=0), start)
        able = params.performance
        return dataclasses.replace(start, cas=jnp.clip(start.cas, able.cas_min_ms, able.cas_max_ms))

    return Generator(common + numbers, draw)


def _far_enough(dlat, dlon, wanted, limit_nm: float, cos_at):
    """Aircraft that stay when those closer than the limit to an earlier one are dropped, [N, B]."""
    n = dlat.shape[0]

    def settle(stay, i):
        here_lat, here_lon, is_wanted = dlat[i], dlon[i], wanted[i]
        north, east = geometry.flat(here_lat, here_lon, dlat, dlon, cos_at)
        clear = (north * north + east * east >= limit_nm**2) | ~stay
        return stay | ((jnp.arange(n)[:, None] == i) & is_wanted & jnp.all(clear, axis=0)), None

    return jax.lax.scan(settle, jnp.zeros(wanted.shape, bool), jnp.arange(n))[0]


def placeholder(max_aircraft: int, steps: int | None) -> Scenario:
    """Shapes of random traffic as a scenario; its starts are never flown."""
    lat, lon = FIVE_AT
    agents = tuple(Agent(f"A{i + 1}", lat, lon, 0.0, lat, lon) for i in range(max_aircraft))
    return Scenario("generic", lat, lon, agents, steps or 150)
