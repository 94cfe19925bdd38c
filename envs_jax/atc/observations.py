"""What a pilot sees: layouts `body` and `origin18`, and the central state.

Arrays are [N, B], observations [N, features, B].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.atc.geometry import NM_PER_DEG, closest_approach, great_circle_nm, others
from envs_jax.atc.kinematics import DEG
from envs_jax.atc.params import NM_M, Layout, NeighborSort, Rules

OWN = 8
EACH = 8
_ABSENT = 1e9
_NOT_CLOSING = 1e4


class View(NamedTuple):
    """What observations are made of, [N, B]."""

    dlat: jax.Array
    dlon: jax.Array
    cos: jax.Array
    """cos of the heading."""
    sin: jax.Array
    tas: jax.Array
    goal_cos: jax.Array
    """cos of the angle from heading to waypoint."""
    goal_sin: jax.Array
    goal_nm: jax.Array
    progress_nm: jax.Array
    """Decrease of the distance to the waypoint in the last step."""
    safer_nm: jax.Array
    """Increase of the smallest separation."""
    violating: jax.Array
    active: jax.Array
    """bool; others neither see nor are seen."""
    time_left: jax.Array
    """[B] share of the horizon that remains."""
    heard: jax.Array | None = None
    """bool [N - 1, N, B]: pilot i hears of aircraft (i + s) mod N; None: of all."""


def size(layout: Layout, neighbors: int) -> int:
    """Length of an observation."""
    return OWN + EACH * neighbors if layout == "body" else 6 + 4 * neighbors


def observe(view: View, rules: Rules, cos_at, lat_deg) -> jax.Array:
    """Observations [N, features, B]; zeros for aircraft that are not active."""
    layout = _body if rules.layout == "body" else _origin18
    features = [jnp.where(view.active, feature, 0.0) for feature in layout(view, rules, cos_at, lat_deg)]
    return jnp.stack(features, axis=1)


def _others_seen(view: View) -> list[jax.Array]:
    """Whether aircraft (i + s) mod N is there for pilot i, [N, B] for every s."""
    there = others(view.active)
    return there if view.heard is None else [a & b for a, b in zip(there, view.heard, strict=True)]


class _Neighbor(NamedTuple):
    order: jax.Array
    """What neighbours are sorted by; `_ABSENT` where there is none."""
    north: jax.Array
    east: jax.Array
    rate_north: jax.Array
    """m/s, relative."""
    rate_east: jax.Array


def _nearest(neighbors: list[_Neighbor], count: int) -> list[_Neighbor]:
    """The first `count` in order: each neighbour's rank, then for every slot the sum over those of that rank.

    The sums are reductions, which a compiler for CPUs computes once and keeps. Sorting by exchanges is one chain that
    it would compute again for every feature of every slot.
    """
    every = [s.order for s in neighbors]
    ranks = [
        sum(((other < own) if j > i else (other <= own)).astype(jnp.int32) for j, other in enumerate(every) if j != i)
        for i, own in enumerate(every)
    ]
    rank = jnp.stack([jnp.broadcast_to(jnp.asarray(r, jnp.int32), every[0].shape) for r in ranks])
    columns = jax.tree.map(lambda *x: jnp.stack(x), *neighbors)
    slots = range(min(count, len(neighbors)))
    return [jax.tree.map(lambda x, k=k: jnp.sum(jnp.where(rank == k, x, 0.0), axis=0), columns) for k in slots]


def _sort_key(sort: NeighborSort, north, east, rate_north, rate_east, active):
    square = north * north + east * east
    if sort == "distance":
        key = square
    else:
        tcpa, dcpa = closest_approach(north, east, rate_north / NM_M, rate_east / NM_M)
        closing = tcpa > 0
        key = jnp.where(closing, tcpa if sort == "tcpa" else dcpa, _NOT_CLOSING + jnp.sqrt(square))
    return jnp.where(active, key, _ABSENT)


def _body(view: View, rules: Rules, cos_at, lat_deg) -> list[jax.Array]:
    del lat_deg
    velocity_north, velocity_east = view.tas * view.cos, view.tas * view.sin
    around = []
    columns = (others(x) for x in (view.dlat, view.dlon, velocity_north, velocity_east))
    for dlat, dlon, there_north, there_east, active in zip(*columns, _others_seen(view), strict=True):
        north = NM_PER_DEG * (dlat - view.dlat)
        east = NM_PER_DEG * (dlon - view.dlon) * cos_at(0.5 * (dlat + view.dlat))
        rates = there_north - velocity_north, there_east - velocity_east
        key = _sort_key(rules.neighbor_sort, north, east, *rates, active)
        around.append(_Neighbor(key, north, east, *rates))
    own = [
        jnp.tanh(view.goal_nm / 20),
        view.goal_cos,
        view.goal_sin,
        (view.tas - 150) / 40,
        jnp.tanh(view.progress_nm / 2),
        jnp.tanh(view.safer_nm / 5),
        view.violating.astype(view.tas.dtype),
        jnp.broadcast_to(view.time_left, view.tas.shape),
    ]
    slots = _nearest(around, rules.neighbors)
    features = [feature for slot in slots for feature in _body_neighbor(view, slot)]
    missing = EACH * (rules.neighbors - len(slots))
    return own + features + [jnp.zeros_like(view.tas)] * missing


def _body_neighbor(view: View, slot: _Neighbor) -> list[jax.Array]:
    there = slot.order < _ABSENT
    tcpa, dcpa = closest_approach(slot.north, slot.east, slot.rate_north / NM_M, slot.rate_east / NM_M)
    values = [
        jnp.clip((slot.east * view.sin + slot.north * view.cos) / 10, -4, 4),
        jnp.clip((slot.east * view.cos - slot.north * view.sin) / 10, -4, 4),
        (slot.rate_east * view.sin + slot.rate_north * view.cos) / 150,
        (slot.rate_east * view.cos - slot.rate_north * view.sin) / 150,
        jnp.clip(tcpa, 0, 300) / 150,
        jnp.tanh(dcpa / 5),
        jnp.tanh(jnp.sqrt(slot.north**2 + slot.east**2) / 10),
    ]
    return [there.astype(view.tas.dtype), *(jnp.where(there, value, 0.0) for value in values)]


def _origin18(view: View, rules: Rules, cos_at, lat_deg) -> list[jax.Array]:
    """The origin's layout with its scales and its exchanged axes; distances by great circles."""
    velocity_north, velocity_east = (view.tas * x / NM_M for x in (view.cos, view.sin))
    around = []
    columns = (others(x) for x in (view.dlat, view.dlon, velocity_north, velocity_east))
    for dlat, dlon, there_north, there_east, active in zip(*columns, _others_seen(view), strict=True):
        far = great_circle_nm(view.dlat, view.dlon, dlat, dlon, lat_deg)
        north = NM_PER_DEG * (dlat - view.dlat)
        east = NM_PER_DEG * (dlon - view.dlon) * jnp.cos(DEG * (lat_deg + view.dlat))
        key = jnp.where(active, far, _ABSENT)
        around.append(_Neighbor(key, north, east, there_north - velocity_north, there_east - velocity_east))
    slots = _nearest(around, rules.neighbors)

    def column(value, scale: float, limit: float) -> list[jax.Array]:
        zeros = [jnp.zeros_like(view.tas)] * (rules.neighbors - len(slots))
        there = (jnp.where(s.order < _ABSENT, jnp.clip(value(s) / scale, -limit, limit), 0.0) for s in slots)
        return [*there, *zeros]

    return [
        jnp.tanh(view.goal_nm / 20),
        view.goal_cos,
        view.goal_sin,
        jnp.clip((view.tas - 150) / 6, -10, 10),
        jnp.tanh(view.progress_nm / 2),
        jnp.tanh(view.safer_nm / 5),
        *column(lambda s: s.east * NM_M, 20_000, 12),
        *column(lambda s: s.north * NM_M, 20_000, 12),
        *column(lambda s: s.rate_north, 32, 150),
        *column(lambda s: s.rate_east, 66, 150),
    ]


def central_state(dlat, dlon, hdg, tas, goal_dlat, goal_dlon, active, violating, time, lat_deg) -> jax.Array:
    """All aircraft for a central critic: [9 N + 1], the airspace's own axes; zeros for aircraft that are not active.

    Unlike the rest of this module, of one airspace: arrays [N], `time` the elapsed share of the horizon.
    """
    scale = jnp.cos(DEG * lat_deg) * 2  # 60 NM a degree over 30 NM
    columns = [
        scale * dlon, 2 * dlat, jnp.sin(DEG * hdg), jnp.cos(DEG * hdg), (tas - 150) / 40, scale * goal_dlon,
        2 * goal_dlat, jnp.ones_like(dlat), violating.astype(dlat.dtype),
    ]  # fmt: skip
    rows = jnp.where(active[:, None], jnp.stack(columns, axis=1), 0.0)
    return jnp.append(rows.reshape(-1), time)
