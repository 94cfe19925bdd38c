"""Level flight at flight level 100: airspeeds, limits of acceleration, ten seconds under one command.

Reading order: calibrated and true airspeed, the acceleration limit, `performance_of` types, `Flight`, then the two
forms of ten seconds. `fly_exact` is the specification line by line. `fly_fast` is the same flight for float32,
without trigonometry in its seconds: the heading is a unit vector turned by a series, cos(latitude) and the acceleration
limit are polynomials. Both agree to a metre over an episode.

Angles are degrees outside and speeds m/s. Aircraft first, [N, ...].
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.atc.params import (
    CAS_MACH08_FL350,
    DENSITY,
    DENSITY_SEA,
    EARTH_M,
    GRAVITY,
    PRESSURE,
    PRESSURE_FL350,
    PRESSURE_SEA,
    SOUND_MS,
    SUBSTEPS,
    TAN_BANK,
    TYPES,
    Performance,
)

DEG = math.pi / 180.0


def tas_of_cas(cas):
    """True airspeed of a calibrated one at the flight level, m/s (compressible flow)."""
    dynamic = PRESSURE_SEA * ((1 + DENSITY_SEA * cas**2 / (7 * PRESSURE_SEA)) ** 3.5 - 1)
    return (7 * PRESSURE / DENSITY * ((1 + dynamic / PRESSURE) ** (2 / 7) - 1)) ** 0.5


def cas_of_tas(tas):
    """Calibrated airspeed of a true one at the flight level, m/s."""
    dynamic = PRESSURE * ((1 + DENSITY * tas**2 / (7 * PRESSURE)) ** 3.5 - 1)
    return (7 * PRESSURE_SEA / DENSITY_SEA * ((1 + dynamic / PRESSURE_SEA) ** (2 / 7) - 1)) ** 0.5


def _fitted(function, low: float, high: float, degree: int) -> list[float]:
    """Coefficients, highest power first, over u = (x - 130)/60 of the polynomial nearest `function` on [low, high]."""
    x = low + (high - low) * (0.5 - 0.5 * np.cos(np.pi * (np.arange(200) + 0.5) / 200))
    return [float(c) for c in np.polyfit((x - 130.0) / 60.0, function(x), degree)]


def _polynomial(coefficients: Sequence[Any], x):
    """Nested multiply-adds over u = (x - 130)/60."""
    u = (x - 130.0) * (1 / 60.0)
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * u + coefficient
    return value


_SPEEDS_MS = (50.0, 210.0)
_TAS_FIT = _fitted(tas_of_cas, *_SPEEDS_MS, 6)
_CAS_FIT = _fitted(cas_of_tas, *_SPEEDS_MS, 6)


def fast_tas_of_cas(cas):
    """`tas_of_cas` as a polynomial, to 1e-4 m/s between 50 and 210 m/s."""
    return _polynomial(_TAS_FIT, cas)


def fast_cas_of_tas(tas):
    """`cas_of_tas` as a polynomial, to 1e-4 m/s between 50 and 210 m/s."""
    return _polynomial(_CAS_FIT, tas)


def acceleration_limit(performance: Performance, tas):
    """Largest change of true airspeed in m/s2, up and down: what thrust leaves over drag, at least 0.5."""
    return jnp.maximum(_thrust_over_drag(performance, tas), 0.5)


def _thrust_over_drag(performance: Performance, tas):
    ratio = cas_of_tas(tas) / CAS_MACH08_FL350
    thrust = ratio**-0.1 * (PRESSURE / PRESSURE_FL350) ** (-0.355 * ratio + 0.8633) * performance.thrust
    dynamic = DENSITY * tas**2 / 2
    lift = performance.lift / dynamic
    drag = dynamic * (performance.drag_0 + performance.drag_lift * lift**2)
    return (thrust - drag) / performance.mass_per_wing


def performance_of(types: Sequence[str]) -> Performance:
    """Performance of aircraft of these types, NumPy arrays [N].

    Raises:
        ValueError: a type that is not in `TYPES`.
    """
    for name in types:
        if name not in TYPES:
            raise ValueError(f"unknown aircraft type '{name}'; known: {', '.join(TYPES)}")

    def column(value) -> np.ndarray:
        return np.array([value(TYPES[name]) for name in types])

    numbers: dict[str, Any] = {
        "cas_min_ms": column(lambda t: t.cas_min_ms),
        "cas_max_ms": column(lambda t: t.cas_max_ms),
        "tas_max_ms": column(lambda t: t.mach_max * SOUND_MS),
        "lift": column(lambda t: t.mass_kg * GRAVITY / t.wing_m2),
        "drag_0": column(lambda t: t.drag_0),
        "drag_lift": column(lambda t: t.drag_lift),
        "mass_per_wing": column(lambda t: t.mass_kg / t.wing_m2),
        "thrust": column(lambda t: 4.448 * (200 + 0.2 * t.engines * t.thrust_n / 4.448) / t.wing_m2),
    }
    exact = Performance(**numbers, acceleration=())
    fits = np.zeros((7, len(types)))
    for i in range(len(types)):
        one = jax.tree.map(lambda x, i=i: x[i], exact)
        fits[:, i] = _fitted(lambda tas, one=one: _thrust_over_drag(one, tas), 75.0, 190.0, 6)
    return dataclasses.replace(exact, acceleration=tuple(fits))


def fast_cos_sin(deg):
    """`(cos, sin)` of angles in degrees, to 2e-7: reduced to an eighth of the circle, then a series."""
    quarter = jnp.round(deg * (1 / 90.0))
    x = DEG * (deg - 90.0 * quarter)
    y = x * x
    sin = x * (1 - y * (1 / 6) * (1 - y * (1 / 20) * (1 - y * (1 / 42) * (1 - y * (1 / 72)))))
    cos = 1 - y * 0.5 * (1 - y * (1 / 12) * (1 - y * (1 / 30) * (1 - y * (1 / 56))))
    number = quarter.astype(jnp.int32)
    odd, cos_negative, sin_negative = (number & 1) != 0, ((number + 1) & 2) != 0, (number & 2) != 0
    cos, sin = jnp.where(odd, sin, cos), jnp.where(odd, cos, sin)
    return jnp.where(cos_negative, -cos, cos), jnp.where(sin_negative, -sin, sin)


_TURNS = np.linspace(0.0, 1.0, 400)
_ARCTAN_FIT = [float(c) for c in np.linalg.lstsq(
    np.stack([_TURNS ** (2 * k + 1) for k in reversed(range(8))], axis=1), np.arctan(_TURNS) / DEG, rcond=None
)[0]]  # fmt: skip


def fast_angle_deg(cos, sin):
    """|angle| in [0, 180] deg of a vector, to 1e-4, by a polynomial over an eighth of the circle."""
    cos_size, sin_size = jnp.abs(cos), jnp.abs(sin)
    large = jnp.maximum(cos_size, sin_size)
    ratio = jnp.minimum(cos_size, sin_size) / jnp.where(large > 0, large, 1.0)
    square = ratio * ratio
    value: Any = _ARCTAN_FIT[0]
    for coefficient in _ARCTAN_FIT[1:]:
        value = value * square + coefficient
    angle = value * ratio
    angle = jnp.where(sin_size > cos_size, 90.0 - angle, angle)
    return jnp.where(cos < 0, 180.0 - angle, angle)


class Flight(NamedTuple):
    """Motion of aircraft, [N, ...]."""

    dlat: jax.Array
    dlon: jax.Array
    hdg: jax.Array
    tas: jax.Array


class Wind(NamedTuple):
    """Where the wind blows to, m/s; None where there is none and the air is the ground."""

    north: jax.Array
    east: jax.Array


def wrap_deg(angle):
    """An angle into [-180, 180)."""
    return (angle + 180.0) % 360.0 - 180.0


def track_of(flight: Flight, heading_deg, wind: Wind):
    """Track that a heading makes in the wind, deg in [0, 360)."""
    north = flight.tas * jnp.cos(DEG * heading_deg) + wind.north
    east = flight.tas * jnp.sin(DEG * heading_deg) + wind.east
    return (jnp.arctan2(east, north) / DEG) % 360.0


def fly_exact(flight: Flight, heading_deg, tas_ms, performance: Performance, lat_deg, wind: Wind, hold_track: bool):
    """Ten seconds in plain formulas.

    Args:
        heading_deg: wanted heading, with `hold_track` the wanted track.
        tas_ms: wanted true airspeed, inside the envelope.
        lat_deg: latitude of the centre.

    Returns:
        `Flight` at the end, the distance flown over ground in m, and `Flight` after every second [10, N, ...].
    """

    def second(flight: Flight, _):
        dlat, dlon, hdg, tas = flight
        target = heading_deg
        if hold_track:
            speed = jnp.hypot(wind.north, wind.east)
            side = jnp.sin(DEG * heading_deg - jnp.arctan2(wind.east, wind.north))
            target = heading_deg + jnp.arcsin(jnp.clip(speed * side / tas, -1.0, 1.0)) / DEG
        limit = acceleration_limit(performance, tas)
        tas = jnp.where(jnp.abs(tas_ms - tas) > limit, tas + jnp.sign(tas_ms - tas) * limit, tas_ms)
        rate = GRAVITY * TAN_BANK / tas / DEG
        turn = wrap_deg(target - hdg)
        hdg = jnp.where(jnp.abs(turn) > rate, hdg + jnp.sign(turn) * rate, target) % 360.0
        dlat = dlat + (tas * jnp.cos(DEG * hdg) + wind.north) / EARTH_M / DEG
        east = tas * jnp.sin(DEG * hdg) + wind.east
        dlon = dlon + east / EARTH_M / jnp.cos(DEG * (lat_deg + dlat)) / DEG
        after = Flight(dlat, dlon, hdg, tas)
        return after, after

    end, path = jax.lax.scan(second, flight, None, length=SUBSTEPS)
    north = path.tas * jnp.cos(DEG * path.hdg) + wind.north
    east = path.tas * jnp.sin(DEG * path.hdg) + wind.east
    return end, jnp.sum(jnp.hypot(north, east), axis=0), path


def cos_latitude(cos_centre, sin_centre, dlat):
    """cos(centre + dlat) by its expansion to the third power: 1e-8 within a degree, 6e-8 within two."""
    a = DEG * dlat
    return cos_centre * (1 - 0.5 * a * a) - sin_centre * (a - a * a * a * (1 / 6))


Watch = Callable[[Any, jax.Array, jax.Array], Any]
"""`(watched, dlat, dlon) -> watched` after a second."""


def fly_fast(
    flight: Flight, turn_deg, tas_ms, performance: Performance, lat_deg, wind: Wind | None, watch: Watch, watched: Any
):
    """Ten seconds for float32; `wind` holds the heading.

    Args:
        turn_deg: signed turn to the wanted heading.
        watch: what is to be known of the seconds. Called in the loop: a path that is kept is copied at every second.

    Returns:
        `Flight` at the end, the heading's `(cos, sin)` there, the distance flown over ground in m, and `watched`
        after the last second.
    """
    cos_centre, sin_centre = jnp.cos(DEG * lat_deg), jnp.sin(DEG * lat_deg)
    to_deg = 1.0 / (EARTH_M * DEG)

    def second(carry, _):
        (dlat, dlon, left, cos, sin, tas, flown), watched = carry
        limit = jnp.maximum(_polynomial(performance.acceleration, tas), 0.5)
        tas = tas + jnp.clip(tas_ms - tas, -limit, limit)
        rate = GRAVITY * TAN_BANK / tas
        turn = jnp.clip(left, -rate, rate)
        square = turn * turn
        sin_turn = turn * (1 - square * (1 / 6) * (1 - square * 0.05))
        cos_turn = 1 - square * 0.5 * (1 - square * (1 / 12))
        cos, sin = cos * cos_turn - sin * sin_turn, sin * cos_turn + cos * sin_turn
        north, east, speed = tas * cos, tas * sin, tas
        if wind is not None:
            north, east = north + wind.north, east + wind.east
            speed = jnp.sqrt(north * north + east * east)
        dlat = dlat + to_deg * north
        dlon = dlon + to_deg * east / cos_latitude(cos_centre, sin_centre, dlat)
        moved = (dlat, dlon, left - turn, cos, sin, tas, flown + speed)
        return (moved, watch(watched, dlat, dlon)), None

    cos, sin = fast_cos_sin(flight.hdg)
    given = (flight.dlat, flight.dlon, DEG * turn_deg, cos, sin, flight.tas, 0 * flight.tas)
    shape = jnp.broadcast_shapes(*(jnp.shape(x) for x in (*given, tas_ms)))
    start = tuple(jnp.broadcast_to(x, shape) for x in given)
    (end, watched), _ = jax.lax.scan(second, (start, watched), None, length=SUBSTEPS)
    dlat, dlon, left, cos, sin, tas, flown = end
    hdg = (flight.hdg + (turn_deg - left / DEG)) % 360.0
    return Flight(dlat, dlon, hdg, tas), (cos, sin), flown, watched
