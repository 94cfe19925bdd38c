"""Scripted pilots (specification, section 18): functions of a state to actions, jittable, for one airspace.

`BASELINES` is the table under the names that scores are printed with. All return [N, 2] in [-1, 1].
"""

from collections.abc import Callable

import jax.numpy as jnp

from envs_jax.atc.geometry import NM_PER_DEG, closest_approach, loss_window
from envs_jax.atc.kinematics import DEG, cas_of_tas, tas_of_cas, wrap_deg
from envs_jax.atc.params import KNOT_MS, NM_M, SPEED_KT, TURN_DEG, AtcParams, AtcState, is_piloted

Baseline = Callable[[AtcState, AtcParams], object]
"""`(state, params) -> action [N, 2]`."""

CRUISE_KT = 250.0
"""Calibrated."""
LOOKAHEAD_S = 300.0
MVP_MARGIN = 1.2
MVP_MARGIN_PUBLISHED = 1.05
EVADE_NM, EVADE_OFF_COURSE_DEG = 14.0, 50.0


def noop(state: AtcState, params: AtcParams):
    """Straight on."""
    return jnp.zeros((*state.hdg.shape, 2), state.hdg.dtype)


def go_to_waypoint(state: AtcState, params: AtcParams):
    """Turn towards the waypoint."""
    turn = jnp.clip(_course_error_deg(state, params) / TURN_DEG, -1.0, 1.0)
    return jnp.stack([turn, jnp.zeros_like(turn)], axis=1)


def evade_right(state: AtcState, params: AtcParams):
    """Turn right while somebody is within 14 NM and the course less than 50 deg off; else to the waypoint."""
    north, east, _, _, other = _relative(state, params)
    near = jnp.any(other & (jnp.sqrt(north**2 + east**2) < EVADE_NM), axis=1)
    evade = near & (jnp.abs(_course_error_deg(state, params)) < EVADE_OFF_COURSE_DEG)
    away = jnp.array([0.8, 0.0], state.hdg.dtype)
    return jnp.where(evade[:, None], away, go_to_waypoint(state, params))


def mvp(state: AtcState, params: AtcParams, margin: float = MVP_MARGIN):
    """Modified voltage potential (Hoekstra, van Gent, Ruigrok 2002), every aircraft the full change.

    Without a conflict to the waypoint and back to cruising speed.

    Args:
        margin: factor on the separation, for detection and resolution. The published 1.05 misses the separation by a
            few tenths of a mile with commands of ten seconds and a limited turn rate.
    """
    radius = margin * params.limits.separation_nm
    north, east, rate_north, rate_east, other = _relative(state, params)
    tcpa, _ = closest_approach(north, east, rate_north, rate_east)
    miss_n, miss_e = north + rate_north * tcpa, east + rate_east * tcpa
    begins, ends, lost = loss_window(north, east, rate_north, rate_east, radius)
    conflict = other & lost & (ends > 0) & (begins < LOOKAHEAD_S)
    miss = jnp.sqrt(miss_n**2 + miss_e**2)
    far = jnp.maximum(jnp.sqrt(north**2 + east**2), 1e-6)
    # Where the paths meet exactly any side is right: ten metres to the right of the line of sight.
    least = 10.0 / NM_M
    head_on = miss < least
    miss_n = jnp.where(head_on, -east / far * least, miss_n)
    miss_e = jnp.where(head_on, north / far * least, miss_e)
    miss = jnp.maximum(miss, least)
    ratio, ratio_miss = jnp.clip(radius / far, 0.0, 1.0), jnp.clip(miss / far, 0.0, 1.0)
    erosion = jnp.where(far > radius, jnp.cos(jnp.arcsin(ratio) - jnp.arcsin(ratio_miss)), 1.0)
    size = (radius / erosion - miss) / (jnp.maximum(jnp.abs(tcpa), 1e-3) * miss)
    size = jnp.where(conflict, size, 0.0)
    change_n, change_e = -jnp.sum(size * miss_n, axis=1), -jnp.sum(size * miss_e, axis=1)

    cos, sin = jnp.cos(DEG * state.hdg), jnp.sin(DEG * state.hdg)
    wanted_n, wanted_e = state.tas / NM_M * cos + change_n, state.tas / NM_M * sin + change_e
    turn = wrap_deg(jnp.arctan2(wanted_e, wanted_n) / DEG - state.hdg)
    cas_kt = cas_of_tas(state.tas) / KNOT_MS
    # Beyond what any type flies the conversion would leave its range.
    tas = jnp.clip(jnp.sqrt(wanted_n**2 + wanted_e**2) * NM_M, 60.0, tas_of_cas(180.0))
    faster = cas_of_tas(tas) / KNOT_MS - cas_kt
    resolving = jnp.clip(jnp.stack([turn / TURN_DEG, faster / SPEED_KT], axis=1), -1.0, 1.0)
    back_to_cruise = jnp.clip((CRUISE_KT - cas_kt) / SPEED_KT, -1.0, 1.0)
    free = go_to_waypoint(state, params).at[:, 1].set(back_to_cruise)
    return jnp.where(jnp.any(conflict, axis=1)[:, None], resolving, free)


def mvp_published(state: AtcState, params: AtcParams):
    """`mvp` with the published margin of 1.05."""
    return mvp(state, params, MVP_MARGIN_PUBLISHED)


BASELINES: dict[str, Baseline] = {
    "noop": noop,
    "go_to_waypoint": go_to_waypoint,
    "evade_right": evade_right,
    "mvp": mvp,
    "mvp_1.05": mvp_published,
}


def _course_error_deg(state: AtcState, params: AtcParams):
    """Signed angle from heading to waypoint [N], [-180, 180)."""
    cos = jnp.cos(DEG * (params.lat + 0.5 * (state.dlat + state.goal_dlat)))
    north, east = state.goal_dlat - state.dlat, (state.goal_dlon - state.dlon) * cos
    return wrap_deg(jnp.arctan2(east, north) / DEG - state.hdg)


def _relative(state: AtcState, params: AtcParams):
    """Position in NM and velocity in NM/s of j seen from i, [N, N]; `other` marks traffic, never oneself."""
    cos = jnp.cos(DEG * (params.lat + 0.5 * (state.dlat[None] + state.dlat[:, None])))
    north = NM_PER_DEG * (state.dlat[None] - state.dlat[:, None])
    east = NM_PER_DEG * (state.dlon[None] - state.dlon[:, None]) * cos
    velocity_n, velocity_e = (state.tas / NM_M * f(DEG * state.hdg) for f in (jnp.cos, jnp.sin))
    active = is_piloted(state)
    other = active[None] & active[:, None] & ~jnp.eye(state.hdg.shape[0], dtype=bool)
    return north, east, velocity_n[None] - velocity_n[:, None], velocity_e[None] - velocity_e[:, None], other
