"""A step of airspaces, the batch last: what happens between an action and the next observation.

Reading order: `begin`, the start of an episode; `advance`, the step, in the order in which things happen: the action
taken, ten seconds of flight, separations, end, rewards, memory, metrics, observation; then the parts of both.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.atc import geometry, kinematics, metrics, observations, sensing
from envs_jax.atc.actions import as_continuous
from envs_jax.atc.kinematics import DEG, Flight, Wind
from envs_jax.atc.observations import View
from envs_jax.atc.params import (
    CAS_RANGE_KT,
    FAR_NM,
    KNOT_MS,
    KNOTS_PER_MS,
    NM_M,
    SPEED_KT,
    SUBSTEPS,
    TURN_DEG,
    AtcParams,
    AtcState,
    Held,
    Rules,
    Start,
    is_flying,
    is_piloted,
)
from envs_jax.atc.rewards import Facts, potential, reward_parts
from envs_jax.words import expanded


def begin(start: Start, params: AtcParams, rules: Rules, errors=None):
    """Observation and state at a start; batch last.

    Args:
        errors: random words of `sensing.reports`; None: pilots see the truth.
    """
    batch = jnp.broadcast_shapes(*(x.shape for x in jax.tree.leaves((start, params))))[-1:]
    shape = (rules.num_aircraft, *batch)
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, shape), start)
    zeros, dtype = jnp.zeros(shape, start.dlat.dtype), start.dlat.dtype
    exact = rules.kinematics == "exact"
    cos, sin = (jnp.cos(DEG * start.hdg), jnp.sin(DEG * start.hdg)) if exact else kinematics.fast_cos_sin(start.hdg)
    course = _course(start.dlat, start.dlon, cos, sin, start, params, rules)
    pairs_nm = jnp.where(geometry.both(start.present), _separations(start.dlat, start.dlon, params, rules), FAR_NM)
    least = geometry.least_of_each(pairs_nm)
    inside = pairs_nm < params.limits.separation_nm if rules.entry_per_pair else least < params.limits.separation_nm
    state = AtcState(
        dlat=start.dlat,
        dlon=start.dlon,
        hdg=start.hdg,
        tas=(kinematics.tas_of_cas if exact else kinematics.fast_tas_of_cas)(start.cas),
        goal_dlat=start.goal_dlat,
        goal_dlon=start.goal_dlon,
        present=start.present,
        arrived=jnp.zeros(shape, bool),
        goal_nm=course.nm,
        min_sep_nm=geometry.alone_or(least),
        off_course_deg=zeros if rules.blank_memory else _off_course_deg(course, rules),
        violating=jnp.zeros_like(inside) if rules.blank_memory else inside,
        potential=_phi(pairs_nm, params),
        smoothed=zeros[0],
        steps=jnp.zeros(batch, jnp.int32),
        held=None if rules.leave_on_arrival else Held(start.hdg, start.cas / KNOT_MS),
        queue=jnp.zeros((rules.delay_steps, rules.num_aircraft, 2, *batch), dtype) if rules.delay_steps else None,
        tally=metrics.start(course.nm),
    )
    return _observe(state, cos, sin, course, zeros, zeros, least, params, rules, errors), state


def advance(state: AtcState, action, params: AtcParams, rules: Rules, seed=None):
    """One control step of airspaces, batch last: observation, state, reward, terminated, truncated, info.

    Args:
        seed: uint32 [2, B] of the errors of sensing, where there are some.
    """
    limits, rewards = params.limits, params.rewards
    pairs_active, there = _traffic_pairs(state, rules)
    piloted = is_piloted(state)

    # The action taken
    taken, queue = _taken(state, action, params, rules)
    a0, a1 = taken[:, 0], taken[:, 1]
    turn, faster = TURN_DEG * a0, SPEED_KT * a1
    turn = jnp.where(piloted & (jnp.abs(turn) >= limits.deadband_deg), turn, 0.0)
    faster = jnp.where(piloted & (jnp.abs(faster) >= limits.deadband_kt), faster, 0.0)
    if rules.charge_raw_action:
        effort = jnp.abs(a0) + jnp.abs(a1)
    else:
        effort = jnp.abs(turn) / TURN_DEG + jnp.abs(faster) / SPEED_KT

    # Ten seconds of flight
    flown = _fly(state, turn, faster, piloted, params, rules)
    flight, cos, sin = flown.flight, flown.cos, flown.sin
    course = _course(flight.dlat, flight.dlon, cos, sin, state, params, rules)

    # Separations
    seen = flown.watched
    pairs_second_nm = jnp.where(pairs_active, jnp.sqrt(jnp.stack(seen.least)), FAR_NM)
    if rules.each_second:
        pairs_end_nm = jnp.where(pairs_active, jnp.sqrt(jnp.stack(seen.last)), FAR_NM)
        pairs_nm, goal_least_nm = pairs_second_nm, jnp.sqrt(seen.goal)
    else:
        pairs_end_nm = jnp.where(pairs_active, _separations(flight.dlat, flight.dlon, params, rules), FAR_NM)
        pairs_nm, goal_least_nm = pairs_end_nm, course.nm
    least = geometry.least_of_each(pairs_nm)
    min_sep = geometry.alone_or(least)
    reached = piloted & (goal_least_nm < limits.waypoint_nm)
    arrived = state.arrived | reached

    # End
    steps = state.steps + 1
    all_arrived = jnp.all(arrived | ~state.present, axis=0)
    horizon = (steps >= limits.horizon) & ~all_arrived
    breached = (limits.terminate_nm > 0) & (geometry.least_of_all(pairs_nm) < limits.terminate_nm)
    terminated = all_arrived | breached
    if not rules.bootstrap_at_horizon:
        terminated = terminated | horizon
    truncated = horizon & ~breached

    # Rewards
    inside = pairs_nm < limits.separation_nm if rules.entry_per_pair else least < limits.separation_nm
    began = inside & ~state.violating
    still_there = dataclasses.replace(state, arrived=arrived)
    pairs_left, _ = _traffic_pairs(still_there, rules)
    pairs_end_nm = jnp.where(pairs_left, pairs_end_nm, FAR_NM)
    phi = _phi(pairs_end_nm, params)
    facts = Facts(
        paid=there,
        piloted=piloted,
        effort=effort,
        goal_nm=course.nm,
        off_course_deg=_off_course_deg(course, rules),
        min_sep_nm=min_sep,
        entries=geometry.count_of_each(began) if rules.entry_per_pair else began.astype(min_sep.dtype),
        reached=reached,
        arrived=arrived,
        pairs_nm=pairs_end_nm,
        ended=terminated,
        horizon=horizon,
    )
    parts, smoothed = reward_parts(state, facts, phi, rules, rewards, limits)
    reward = sum(parts.values())

    # Memory, metrics, observation
    done = terminated | truncated
    words = [jnp.stack(words) for words in zip(*seen.counts, strict=True)]
    tally = metrics.update(
        state.tally, words, pairs_second_nm, pairs_active, flown.path_m / NM_M, turn, faster, effort, piloted
    )
    state_next = dataclasses.replace(
        state,
        dlat=flight.dlat,
        dlon=flight.dlon,
        hdg=flight.hdg,
        tas=flight.tas,
        arrived=arrived,
        goal_nm=course.nm,
        min_sep_nm=min_sep,
        off_course_deg=facts.off_course_deg,
        violating=inside,
        potential=phi,
        smoothed=smoothed,
        steps=steps,
        held=flown.held,
        queue=queue,
        tally=tally,
    )
    progress_nm, safer_nm = state.goal_nm - course.nm, min_sep - state.min_sep_nm
    if rules.blank_memory:
        progress_nm, safer_nm = (jnp.where(state.steps == 0, 0.0, x) for x in (progress_nm, safer_nm))
    errors = None if seed is None else expanded(seed, sensing.words(rules.num_aircraft))
    obs = _observe(state_next, cos, sin, course, progress_nm, safer_nm, least, params, rules, errors)
    conflict = there & (least < limits.separation_nm)
    info = {
        **metrics.report(tally, state.present, arrived, done, limits),
        "reward_parts": parts,
        "team_phi": phi,
        "min_sep": min_sep,
        "wp_dist": course.nm,
        "conflict_flag": conflict,
        "collision_flag": there & (least < limits.collision_nm),
        "waypoint_reached": arrived,
        "pair_min_sep": geometry.matrix(pairs_nm),
        "sim_time": steps.astype(phi.dtype) * SUBSTEPS,
        "horizon": horizon,
        "dlat": flight.dlat,
        "dlon": flight.dlon,
        "hdg": flight.hdg,
        "tas": flight.tas,
    }
    return obs, state_next, reward, terminated, truncated, info


def _taken(state: AtcState, action, params: AtcParams, rules: Rules):
    """`(action [N, 2, B] that is carried out now, next queue)`."""
    if rules.discrete:
        action = jnp.stack(as_continuous(action, state.dlat.dtype), axis=1)
    action = jnp.clip(action, -1.0, 1.0)
    if state.queue is None:
        return action, None
    newest = jnp.broadcast_to(action.astype(state.queue.dtype), (1, *state.queue.shape[1:]))
    waiting = jnp.concatenate([state.queue, newest])
    if params.delay_steps is None:
        return waiting[0], waiting[1:]
    number = jnp.arange(rules.delay_steps + 1)[:, None, None, None]
    return jnp.sum(jnp.where(number == rules.delay_steps - params.delay_steps, waiting, 0.0), axis=0), waiting[1:]


class _Flown(NamedTuple):
    """Ten seconds, [N, B] unless said."""

    flight: Flight
    cos: jax.Array
    """cos of the heading at the end."""
    sin: jax.Array
    path_m: jax.Array
    watched: "_Watched"
    held: Held | None


def _fly(state: AtcState, turn, faster, piloted, params: AtcParams, rules: Rules) -> _Flown:
    flight = Flight(state.dlat, state.dlon, state.hdg, state.tas)
    exact = rules.kinematics == "exact"
    to_cas, to_tas = (
        (kinematics.cas_of_tas, kinematics.tas_of_cas)
        if exact
        else (kinematics.fast_cas_of_tas, kinematics.fast_tas_of_cas)
    )
    # Tenths of a knot hide that the origin's two factors are not inverse; without rounding a speed would creep.
    per_ms = KNOTS_PER_MS if rules.rounded_commands else 1 / KNOT_MS
    cas_kt = jnp.clip(to_cas(state.tas) * per_ms + faster, *CAS_RANGE_KT)
    held, wind = None, _wind(params)
    heading = state.hdg + turn
    if rules.rounded_commands:
        cas_kt, heading = _tenths(cas_kt), _tenths(heading % 360.0)
    if rules.steering == "hold_track":
        heading = kinematics.track_of(flight, heading, wind)
    if state.held is not None:
        heading = jnp.where(piloted, heading, state.held.heading_deg)
        cas_kt = jnp.where(piloted, cas_kt, state.held.cas_kt)
        held = Held(heading % 360.0, cas_kt)
    able = params.performance
    cas = jnp.clip(cas_kt * KNOT_MS, able.cas_min_ms, able.cas_max_ms)
    tas = jnp.minimum(to_tas(cas), able.tas_max_ms)
    watch = _watch(state, params)
    watched = _nothing_watched(state, params, jnp.broadcast_shapes(state.dlat.shape, turn.shape))
    if exact:
        hold_track = rules.steering == "hold_track"
        end, path_m, path = kinematics.fly_exact(flight, heading, tas, able, params.lat, wind, hold_track)
        watched, _ = jax.lax.scan(lambda w, second: (watch(w, *second), None), watched, (path.dlat, path.dlon))
        return _Flown(end, jnp.cos(DEG * end.hdg), jnp.sin(DEG * end.hdg), path_m, watched, held)
    blowing = wind if rules.windy else None
    end, (cos, sin), path_m, watched = kinematics.fly_fast(flight, turn, tas, able, params.lat, blowing, watch, watched)
    return _Flown(end, cos, sin, path_m, watched, held)


def _tenths(x):
    return jnp.round(x * 10) / 10


class _Watched(NamedTuple):
    """What is seen of the seconds of a step; pairs as a list over shifts of [N, B], distances squared, NM2."""

    least: list[jax.Array]
    """Closest so far."""
    last: list[jax.Array]
    """After the last second."""
    counts: list[list[jax.Array]]
    """Packed as `metrics.counted` does."""
    goal: jax.Array
    """[N, B] closest to the waypoint so far."""


def _squared_separations(dlat, dlon, cos_at) -> list[jax.Array]:
    there = zip(geometry.partners(dlat), geometry.partners(dlon), strict=True)
    offsets = (geometry.flat(dlat, dlon, *at, cos_at) for at in there)
    return [north * north + east * east for north, east in offsets]


def _nothing_watched(state: AtcState, params: AtcParams, shape: tuple[int, ...]) -> _Watched:
    """Before the first second; `shape` [N, B], as one state may meet many actions."""
    far, none = jnp.full(shape, FAR_NM**2, state.dlat.dtype), jnp.zeros(shape, jnp.int32)
    # An episode starts from afar: pairs that are too close from its start on have lost their separation, too.
    last = [jnp.where(state.steps == 0, far, x) for x in _squared_separations(state.dlat, state.dlon, _cos_at(params))]
    return _Watched([far for _ in last], last, [[none, none] for _ in last], far)


def _watch(state: AtcState, params: AtcParams) -> kinematics.Watch:
    cos_at, limits = _cos_at(params), params.limits

    def watch(seen: _Watched, dlat, dlon) -> _Watched:
        now = _squared_separations(dlat, dlon, cos_at)
        north, east = geometry.flat(dlat, dlon, state.goal_dlat, state.goal_dlon, cos_at)
        return _Watched(
            least=[jnp.minimum(least, square) for least, square in zip(seen.least, now, strict=True)],
            last=now,
            counts=[
                metrics.counted(words, before, square, limits)
                for words, before, square in zip(seen.counts, seen.last, now, strict=True)
            ],
            goal=jnp.minimum(seen.goal, north * north + east * east),
        )

    return watch


class _Course(NamedTuple):
    """Where an aircraft's waypoint is, [N, B]."""

    nm: jax.Array
    cos: jax.Array
    """Of the angle from heading to waypoint."""
    sin: jax.Array


def _cos_at(params: AtcParams):
    """cos(latitude) as a function of the offset from the centre."""
    cos, sin = jnp.cos(DEG * params.lat), jnp.sin(DEG * params.lat)
    return lambda dlat: kinematics.cos_latitude(cos, sin, dlat)


def _course(dlat, dlon, cos, sin, leg: Start | AtcState, params: AtcParams, rules: Rules) -> _Course:
    north, east = geometry.flat(dlat, dlon, leg.goal_dlat, leg.goal_dlon, _cos_at(params))
    distance = jnp.sqrt(north * north + east * east)
    # On top of the waypoint every course is right.
    scale = jnp.where(distance > 0, 1 / jnp.where(distance > 0, distance, 1.0), 0.0)
    ahead, right = (north * cos + east * sin) * scale, (east * cos - north * sin) * scale
    if not rules.each_second:
        distance = geometry.great_circle_nm(dlat, dlon, leg.goal_dlat, leg.goal_dlon, params.lat)
    return _Course(distance, jnp.where(distance > 0, ahead, 1.0), right)


def _off_course_deg(course: _Course, rules: Rules):
    if rules.kinematics == "exact":
        return jnp.abs(jnp.arctan2(course.sin, course.cos)) * (1 / DEG)
    return kinematics.fast_angle_deg(course.cos, course.sin)


def _wind(params: AtcParams) -> Wind:
    return Wind(jnp.asarray(params.wind_north_ms), jnp.asarray(params.wind_east_ms))


def _traffic_pairs(state: AtcState, rules: Rules):
    """[N // 2, N, B] pairs that can come close; aircraft [N, B] that are in the way of others."""
    there = is_flying(state, rules)
    return geometry.both(there), there


def _separations(dlat, dlon, params: AtcParams, rules: Rules):
    """Distances of all pairs, NM, [N // 2, N, B]."""
    there = zip(geometry.partners(dlat), geometry.partners(dlon), strict=True)
    if not rules.each_second:
        return jnp.stack([geometry.great_circle_nm(dlat, dlon, *at, params.lat) for at in there])
    cos_at = _cos_at(params)
    offsets = (geometry.flat(dlat, dlon, *at, cos_at) for at in there)
    return jnp.stack([jnp.sqrt(north * north + east * east) for north, east in offsets])


def _phi(pairs_nm, params: AtcParams):
    least = geometry.least_of_all(pairs_nm)
    return potential(jnp.where(least < FAR_NM, least, params.limits.safe_nm), params.limits)


def _observe(
    state: AtcState, cos, sin, course: _Course, progress_nm, safer_nm, least, params: AtcParams, rules: Rules, errors
):
    dlat, dlon, tas, heard = state.dlat, state.dlon, state.tas, None
    if errors is not None:
        dlat, dlon, tas, heard = sensing.reports(errors, dlat, dlon, tas, params)
        course = _course(dlat, dlon, cos, sin, state, params, rules)
    view = View(
        dlat=dlat,
        dlon=dlon,
        cos=cos,
        sin=sin,
        tas=tas,
        goal_cos=course.cos,
        goal_sin=course.sin,
        goal_nm=course.nm,
        progress_nm=progress_nm,
        safer_nm=safer_nm,
        violating=least < params.limits.separation_nm,
        active=is_flying(state, rules),
        time_left=1 - state.steps.astype(state.dlat.dtype) / params.limits.horizon,
        heard=heard,
    )
    return observations.observe(view, rules, _cos_at(params), params.lat)
