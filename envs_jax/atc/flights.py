"""Recorded flights second by second, and the numbers behind figures of them.

Reading order: `Flights` and how they are cut from records, one episode of them, what is looked for in it, and what is
counted over many. NumPy on the host; E episodes, T control steps, S = 10 T + 1 seconds, N aircraft, P pairs.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np

from envs_jax.atc.geometry import NM_PER_DEG, closest_approach
from envs_jax.atc.params import NM_M, NOBODY_NM, SUBSTEPS
from envs_jax.base import Environment, Params

MAP_NM_PER_DEG = 60.0
"""Of the local map: x = 60 dlon cos(latitude of the centre), y = 60 dlat."""


class Flights(NamedTuple):
    """Episodes second by second, the start first. Without the leading axis it is one episode."""

    x_nm: np.ndarray
    """[E, S, N] east of the centre."""
    y_nm: np.ndarray
    """[E, S, N] north of it."""
    flying: np.ndarray
    """[E, S, N] bool; the second of arrival's step is the last."""
    separation_nm: np.ndarray
    """[E, S, P]; NaN while one of the two does not fly."""
    loss: np.ndarray
    """[E, S, P] bool: seconds with a loss of separation."""
    least_nm: np.ndarray
    """[E, P] smallest separation as the environment recorded it; NaN for pairs that never flew together."""
    goal_x_nm: np.ndarray
    """[E, N] waypoints."""
    goal_y_nm: np.ndarray


def pairs_of(num_aircraft: int) -> np.ndarray:
    """[P, 2] indices of all pairs, in the order of the axis P."""
    return np.array(list(combinations(range(num_aircraft), 2)))


def in_traffic(env: Environment, params: Params, records: Mapping[str, Any]) -> np.ndarray:
    """[E, T, N] who flies during a step of records that hold everything."""
    assert env.alive is not None
    alive = jax.vmap(jax.vmap(env.alive, (0, None)), (0, None))(records["state"], params)
    return np.asarray(alive) & records["active"][..., None]


def flights_of(records: Mapping[str, Any], flying: np.ndarray, lat_deg: float, separation_nm: float) -> Flights:
    """Seconds of recorded steps, on straight lines between their ends: off by at most 0.03 NM in the tightest turn.

    Whether separation was lost in a step is taken from the record, which knows every second exactly; the lines only
    say in which of its seconds, at least in the closest one.

    Args:
        records: [E, T, ...] with everything that is known of a step.
        flying: [E, T, N] of `in_traffic`.
        lat_deg: of the centre.
    """
    before = records["state"]
    dlat, dlon = (_seconds(a, b) for a, b in ((before.dlat, records["dlat"]), (before.dlon, records["dlon"])))
    episodes, steps, n = flying.shape
    i, j = pairs_of(n).T
    flying_s = np.concatenate([flying[:, :1], np.repeat(flying, SUBSTEPS, axis=1)], axis=1)
    middle = np.cos(np.radians(lat_deg + 0.5 * (dlat[..., i] + dlat[..., j])))
    apart = NM_PER_DEG * np.hypot(dlat[..., i] - dlat[..., j], (dlon[..., i] - dlon[..., j]) * middle)

    together = flying[..., i] & flying[..., j]
    least = records["pair_min_sep"][..., i, j]
    by_step = apart[:, 1:].reshape(episodes, steps, SUBSTEPS, len(i))
    closest = by_step == by_step.min(axis=2, keepdims=True)
    lost = (together & (least < separation_nm))[:, :, None] & ((by_step < separation_nm) | closest)
    none = np.zeros((episodes, 1, len(i)), bool)
    of_episode = np.where(together, least, np.inf).min(axis=1)
    scale = MAP_NM_PER_DEG * np.cos(np.radians(lat_deg))
    return Flights(
        x_nm=scale * dlon,
        y_nm=MAP_NM_PER_DEG * dlat,
        flying=flying_s,
        separation_nm=np.where(flying_s[..., i] & flying_s[..., j], apart, np.nan),
        loss=np.concatenate([none, lost.reshape(episodes, -1, len(i))], axis=1),
        least_nm=np.where(np.isfinite(of_episode), of_episode, np.nan),
        goal_x_nm=scale * before.goal_dlon[:, 0].astype(np.float64),
        goal_y_nm=MAP_NM_PER_DEG * before.goal_dlat[:, 0].astype(np.float64),
    )


def _seconds(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[E, T, N] at both ends of steps to [E, S, N]."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    share = (np.arange(1, SUBSTEPS + 1) / SUBSTEPS)[:, None]
    path = before[:, :, None] + (after - before)[:, :, None] * share
    return np.concatenate([before[:, :1], path.reshape(len(before), -1, before.shape[-1])], axis=1)


# One episode


def episode(flights: Flights, index: int) -> Flights:
    """One of them, up to its last second."""
    one = Flights(*(values[index] for values in flights))
    end = int(one.flying.any(axis=1).sum())
    whole = ("least_nm", "goal_x_nm", "goal_y_nm")
    return one._replace(**{name: getattr(one, name)[:end] for name in one._fields if name not in whole})


class Closest(NamedTuple):
    pair: tuple[int, int]
    second: int
    nm: float


def closest_pair(flight: Flights) -> Closest | None:
    """Who came closest in an episode, when, and how close; None where nobody met anybody."""
    if np.isnan(flight.least_nm).all():
        return None
    pair = int(np.nanargmin(flight.least_nm))
    i, j = pairs_of(flight.x_nm.shape[-1])[pair]
    second = int(np.nanargmin(flight.separation_nm[:, pair]))
    return Closest((int(i), int(j)), second, float(flight.least_nm[pair]))


def losing(flight: Flights) -> np.ndarray:
    """[..., S, N] bool: aircraft that are too close to another."""
    pairs = pairs_of(flight.x_nm.shape[-1])
    involved = np.zeros((len(pairs), flight.x_nm.shape[-1]), int)
    involved[np.arange(len(pairs))[:, None], pairs] = 1
    return flight.loss.astype(int) @ involved > 0


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """`(first, one after the last)` of every run of true values."""
    change = np.diff(np.concatenate([[0], flags.astype(int), [0]]))
    return list(zip(np.flatnonzero(change > 0).tolist(), np.flatnonzero(change < 0).tolist(), strict=True))


# Many episodes


def least_of_episode(flights: Flights) -> np.ndarray:
    """[E] smallest separation of any pair, NM; `NOBODY_NM` where nobody met anybody."""
    least = np.where(np.isnan(flights.least_nm), np.inf, flights.least_nm).min(axis=1)
    return np.where(np.isfinite(least), least, NOBODY_NM)


def loss_midpoints(flights: Flights) -> np.ndarray:
    """[K, 2] x and y half-way between the two of every pair, for every second of its losses of separation."""
    e, s, p = np.nonzero(flights.loss)
    i, j = pairs_of(flights.x_nm.shape[-1])[p].T
    return np.stack([0.5 * (v[e, s, i] + v[e, s, j]) for v in (flights.x_nm, flights.y_nm)], axis=1)


def heat_map(midpoints: np.ndarray, edges_nm: Sequence[np.ndarray], num_episodes: int) -> np.ndarray:
    """[x, y] pair-seconds of lost separation of one episode, between the edges in x and in y."""
    return np.histogram2d(midpoints[:, 0], midpoints[:, 1], bins=list(edges_nm))[0] / num_episodes


class Approaches(NamedTuple):
    """Pairs at the starts of steps, [K] each."""

    tcpa_s: np.ndarray
    """Until the closest point on present courses; negative: it has passed."""
    dcpa_nm: np.ndarray
    """Separation there; the present one where it has passed."""
    now_nm: np.ndarray


def approaches(records: Mapping[str, Any], flying: np.ndarray, lat_deg: float) -> Approaches:
    """Closest points of approach of all pairs that fly, at all steps; arguments as in `flights_of`."""
    state = records["state"]
    i, j = pairs_of(flying.shape[-1]).T
    met = flying[..., i] & flying[..., j]

    def difference(values: np.ndarray) -> np.ndarray:
        return (values[..., j] - values[..., i])[met]

    dlat, dlon = state.dlat.astype(np.float64), state.dlon.astype(np.float64)
    middle = np.cos(np.radians(lat_deg + 0.5 * (dlat[..., i] + dlat[..., j])))[met]
    north, east = NM_PER_DEG * difference(dlat), NM_PER_DEG * difference(dlon) * middle
    hdg, speed = np.radians(state.hdg.astype(np.float64)), state.tas / NM_M
    rates = difference(speed * np.cos(hdg)), difference(speed * np.sin(hdg))
    tcpa, dcpa = (np.asarray(value) for value in closest_approach(north, east, *rates))
    return Approaches(tcpa, dcpa, np.hypot(north, east))


def survival(least_nm: np.ndarray, x_nm: np.ndarray) -> np.ndarray:
    """S(x): share of episodes [E] whose smallest separation is at least x."""
    return 1.0 - np.searchsorted(np.sort(least_nm), x_nm, side="left") / len(least_nm)


def survival_band(share: np.ndarray, num_episodes: int, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of `share`, point by point.

    Resamples of yes-or-no values are binomial, so their percentiles are known without drawing any. Like every bootstrap
    it has no width where all episodes agree.
    """
    from scipy.stats import binom  # takes a second to import, and only figures need it

    tail = (1 - confidence) / 2
    low, high = (binom.ppf(level, num_episodes, share) / num_episodes for level in (tail, 1 - tail))
    return low, high
