"""Scores of alerts: do pilots act as if there were a conflict when there is one, and only then?

Specification, section 12. Reading order: `AlertRules`; `Traffic`, the states that go with the commands, and `paired`;
what happens in each step, on the device (`signals`, `with_predictor`); events and their matching, on the host (`count`,
`counts`); what the counts say (`rates`, and `origin_metrics` under the names and conventions of the origin).

    traffic = paired(traffic_of(states, functions.rules), "before")
    each = jax.vmap(signals, (0, 0, 0, 0, None))(traffic, turn_deg, speed_kt, flown, params.lat)
    rates(counts(jax.device_get(each)))

Arrays of an episode are time-major [T, N]. Wind needs no place here, as all aircraft have the same.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.atc import geometry
from envs_jax.atc.kinematics import DEG, wrap_deg
from envs_jax.atc.metrics import INTERVENTION_DEG, INTERVENTION_KT
from envs_jax.atc.params import FAR_NM, KNOT_MS, NM_M, SUBSTEPS, AtcState, Rules, is_flying, is_piloted

Pairing = Literal["before", "after"]


class AlertRules(NamedTuple):
    """What is a conflict, what is an alert, and when they are one event."""

    horizon_s: float = 120.0
    """How far closest approaches look ahead."""
    separation_nm: float = 5.0
    """A pair that comes closer is in conflict."""
    alert_nm: float = 6.0
    """Commands of an aircraft that nobody comes closer to are no alert."""
    turn_deg: float = INTERVENTION_DEG
    speed_kt: float = INTERVENTION_KT
    """Smallest turn and smallest change of speed of an alert."""
    navigation_deg: float = 1.0
    """A turn that brings the nose closer to the waypoint by more than this is navigation."""
    debounce_least: int = 2
    debounce_steps: int = 3
    """An alert needs `debounce_least` raw alerts in so many steps."""
    widen_steps: int = 1
    """By which alerts grow on both sides before they are events."""
    truth_margin_s: float = 30.0
    alert_margin_s: float = 10.0
    """By which events grow on both sides before they are matched."""
    least_iou: float = 0.1
    """Smallest overlap of a match: intersection over union. The origin's text says 0.3, its program 0.1."""
    resolution_s: float = 60.0
    """After a conflict, in which a resolved one has no loss of separation."""
    origin_geometry: bool = False
    """In closest approaches east is at the latitude of the first of two aircraft instead of that between them, which
    separations have in either case; bearings are those of great circles."""


STANDARD = AlertRules()
ORIGIN = AlertRules(origin_geometry=True)


class Traffic(NamedTuple):
    """States, [T, N] each; T + 1 of an episode of T steps before they are `paired`."""

    dlat: jax.Array
    """deg from the centre, as `dlon` and waypoints."""
    dlon: jax.Array
    hdg: jax.Array
    """deg"""
    tas: jax.Array
    """m/s, true."""
    goal_dlat: jax.Array
    goal_dlon: jax.Array
    active: jax.Array
    """bool; present and not arrived: who is in conflicts and gives alerts."""
    flying: jax.Array
    """bool; who is in the way of others. Aircraft of the origin fly on after their arrival."""
    piloted: jax.Array | None = None
    """bool; who was asked for the command, set by `paired`: active when it was given. None: who is active."""


class Signals(NamedTuple):
    """What happens in each step, [T] each; nothing in steps that were not flown."""

    truth: jax.Array
    """bool; some pair is in conflict."""
    raw: jax.Array
    """bool; some command is an alert."""
    alert: jax.Array
    """bool; raw alerts that lasted, widened."""
    intervened: jax.Array
    """bool; some command of a piloted aircraft is as large as that of an alert."""
    dcpa_nm: jax.Array
    """Smallest distance at a closest approach; `FAR_NM` without pairs."""
    separation_nm: jax.Array
    """Smallest distance of the states, `FAR_NM` without pairs. Where the seconds of the steps were watched, replace it
    by the smallest of them (`min_sep` in `info`)."""
    aircraft: jax.Array
    """int32; how many are active."""
    flown: jax.Array
    """bool"""


Count = int | np.ndarray


class Counts(NamedTuple):
    """What an episode had, ints or arrays of episodes; sums over episodes are counts too."""

    steps: Count
    aircraft_steps: Count
    """Steps of active aircraft, which are their flight hours."""
    tp: Count
    """Events: conflicts with an alert of their own, alerts without a conflict (`fp`), conflicts without one (`fn`)."""
    fp: Count
    fn: Count
    tn: Count
    """Steps with neither."""
    truth_steps: Count
    alert_steps: Count
    excess_steps: Count
    """Length of the events in `fp`."""
    late_steps: Count
    """Sum over matches of start of the alert minus start of the conflict."""
    resolved: Count
    """Matched conflicts without loss of separation in the minute after them; `breached` with one while they last."""
    breached: Count
    interventions: Count
    """Steps with a large command; `interventions_right` in conflict and alert or, so the origin, in neither."""
    interventions_right: Count


def traffic_of(states: AtcState, rules: Rules) -> Traffic:
    """Traffic of states that are stacked over time, [T + 1, N]; `rules` are the world's."""
    place = states.dlat, states.dlon, states.hdg, states.tas, states.goal_dlat, states.goal_dlon
    return Traffic(*place, active=is_piloted(states), flying=is_flying(states, rules))


def paired(traffic: Traffic, pairing: Pairing) -> Traffic:
    """Of T + 1 states those that T commands are judged on, first axis.

    "before": the state in which a command was given. "after" is the origin's: the state after the step, in which an
    alert has partly resolved what it was for and a turn counts twice when it is told from navigation. Commands are in
    either case those of who was active before: one who arrives in a step has been asked, one who arrived earlier not.
    """
    judged = slice(None, -1) if pairing == "before" else slice(1, None)
    return jax.tree.map(lambda x: x[judged], traffic)._replace(piloted=traffic.active[:-1])


def signals(traffic: Traffic, turn_deg, speed_kt, flown, lat_deg, rules: AlertRules = STANDARD) -> Signals:
    """What happens in each step of one episode; map over episodes with `vmap`.

    Args:
        traffic: `paired` with the commands, [T, N].
        turn_deg, speed_kt: [T, N] commanded changes of heading and of calibrated airspeed.
        flown: [T] bool; False in the padding after the end.
        lat_deg: of the centre.
    """
    # Time takes the place of the batch in `geometry`.
    now, turn_deg, speed_kt = jax.tree.map(jnp.transpose, (traffic, turn_deg, speed_kt))
    distances_nm, threats_nm, conflicts_nm = _pairs(now, lat_deg, rules)
    dcpa_nm, separation_nm = (jnp.min(x, axis=(0, 1)) for x in (conflicts_nm, distances_nm))
    large = (jnp.abs(turn_deg) >= rules.turn_deg) | (jnp.abs(speed_kt) >= rules.speed_kt)
    threatened = jnp.min(threats_nm, axis=0) <= rules.alert_nm
    alerting = now.active & large & threatened & ~_navigates(now, turn_deg, lat_deg, rules)
    raw = jnp.any(alerting, axis=0) & flown
    return Signals(
        truth=(dcpa_nm < rules.separation_nm) & flown,
        raw=raw,
        alert=lasting(raw, flown, rules),
        intervened=jnp.any((now.active if now.piloted is None else now.piloted) & large, axis=0) & flown,
        dcpa_nm=jnp.where(flown, dcpa_nm, FAR_NM),
        separation_nm=jnp.where(flown, separation_nm, FAR_NM),
        aircraft=jnp.sum(now.active & flown, axis=0, dtype=jnp.int32),
        flown=flown,
    )


def with_predictor(
    seen: Signals, traffic: Traffic, key, lat_deg, position_nm=0.1, speed_kt=5.0, rules: AlertRules = STANDARD
) -> Signals:
    """`seen` with the alerts of a predictor instead of those of the pilots.

    The predictor sees each aircraft with Gaussian errors, new ones in each step, of standard deviation `position_nm` in
    both coordinates and `speed_kt` in true airspeed, and alerts where what it sees is a conflict. Its alerts have to
    last as those of pilots, so even without errors it misses a conflict of one step.
    """
    position_key, speed_key = jax.random.split(key)
    shape, dtype = traffic.dlat.shape, jnp.result_type(traffic.dlat)
    north, east = position_nm / geometry.NM_PER_DEG * jax.random.normal(position_key, (2, *shape), dtype)
    faster = speed_kt * KNOT_MS * jax.random.normal(speed_key, shape, dtype)
    dlon = traffic.dlon + east / _cos_at(lat_deg)(traffic.dlat)
    blurred = traffic._replace(dlat=traffic.dlat + north, dlon=dlon, tas=traffic.tas + faster)
    now = jax.tree.map(jnp.transpose, blurred)
    raw = (jnp.min(_pairs(now, lat_deg, rules)[2], axis=(0, 1)) < rules.separation_nm) & seen.flown
    return seen._replace(raw=raw, alert=lasting(raw, seen.flown, rules))


def lasting(raw, flown, rules: AlertRules = STANDARD) -> jax.Array:
    """Raw alerts [T] that are not alone in the last steps, each widened on both sides within the episode."""
    lasts = _count_around(raw, rules.debounce_steps - 1, 0) >= rules.debounce_least
    return (_count_around(lasts, rules.widen_steps, rules.widen_steps) > 0) & flown


def _count_around(mask, before: int, after: int) -> jax.Array:
    """[T] how many are true from `before` steps earlier to `after` steps later."""
    padded = jnp.pad(mask.astype(jnp.int32), (before, after))
    return sum((padded[k : k + len(mask)] for k in range(1, before + after + 1)), padded[: len(mask)])


def events(mask: np.ndarray, margin: int = 0) -> np.ndarray:
    """[K, 2] half-open runs of a mask, each widened by `margin` steps inside it; those that then overlap stay apart."""
    # `np.pad`, `np.diff` and `np.clip` would take most of the time of counting thousands of episodes.
    padded = np.zeros(len(mask) + 2, bool)
    padded[1:-1] = mask
    edges = (padded[1:] != padded[:-1]).nonzero()[0].reshape(-1, 2)
    return np.minimum(np.maximum(edges + np.array([-margin, margin]), 0), len(mask))


def overlap(event: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[L] of an event [2] and others [L, 2]: length in both over length from the first start to the last end."""
    inside = np.minimum(event[1], others[:, 1]) - np.maximum(event[0], others[:, 0])
    around = np.maximum(event[1], others[:, 1]) - np.minimum(event[0], others[:, 0])
    return np.maximum(inside, 0) / np.maximum(around, 1)


def match(truth: np.ndarray, alerts: np.ndarray, least_iou: float) -> list[tuple[int, int]]:
    """`(conflict, alert)` numbers: each conflict in turn takes the alert left that overlaps most, if it is enough."""
    matches = []
    free = np.ones(len(alerts), bool)
    for number, event in enumerate(truth):
        shares = np.where(free, overlap(event, alerts), -1.0)
        if len(shares) and shares.max() >= least_iou:
            best = int(shares.argmax())
            free[best] = False
            matches.append((number, best))
    return matches


def count(seen: Signals, rules: AlertRules = STANDARD) -> Counts:
    """Counts of one episode, from signals [T] on the host.

    Events have their margins where they are matched, followed and timed. A conflict up to the end of the episode is
    resolved if its last minute is without loss of separation.
    """
    flown = np.asarray(seen.flown)
    steps = int(flown.sum())
    if not flown[:steps].all():
        raise ValueError("steps that were not flown lie before the end of the episode")
    truth, alert, intervened, separation_nm = (
        np.asarray(x)[:steps] for x in (seen.truth, seen.alert, seen.intervened, seen.separation_nm)
    )
    conflicts = events(truth, round(rules.truth_margin_s / SUBSTEPS))
    alerts = events(alert, round(rules.alert_margin_s / SUBSTEPS))
    matches = match(conflicts, alerts, rules.least_iou)
    unmatched = np.delete(alerts, [number for _, number in matches], axis=0)
    minute = round(rules.resolution_s / SUBSTEPS)
    resolved = breached = 0
    for start, end in (conflicts[number] for number, _ in matches):
        after = separation_nm[end : end + minute] if end < steps else separation_nm[-minute:]
        resolved += int(after.min() > rules.separation_nm)
        breached += int(separation_nm[start:end].min() < rules.separation_nm)
    return Counts(
        steps=steps,
        aircraft_steps=int(np.sum(seen.aircraft)),
        tp=len(matches),
        fp=len(unmatched),
        fn=len(conflicts) - len(matches),
        tn=int(np.sum(~truth & ~alert)),
        truth_steps=int(truth.sum()),
        alert_steps=int(alert.sum()),
        excess_steps=int(np.sum(unmatched[:, 1] - unmatched[:, 0])),
        late_steps=int(sum(alerts[b, 0] - conflicts[a, 0] for a, b in matches)),
        resolved=resolved,
        breached=breached,
        interventions=int(intervened.sum()),
        interventions_right=int(np.sum(intervened & (truth == alert))),
    )


def counts(seen: Signals, rules: AlertRules = STANDARD) -> Counts:
    """Counts [E] of episodes, from signals [E, T] on the host."""
    each = [count(Signals(*episode), rules) for episode in zip(*map(np.asarray, seen), strict=True)]
    return Counts(*(np.array(column) for column in zip(*each, strict=True)))


def rates(counted: Counts) -> dict[str, np.ndarray]:
    """What counts say of an episode, of each of many, or of all together (`Counts` of sums).

    Rates of nothing are NaN: a precision without alerts, a lead without a match. `lead_time_s` is positive where alerts
    come before conflicts; `ghost_rate_per_hour` is per flight hour of an aircraft; alert times are sums.
    """
    tp, fp, fn = counted.tp, counted.fp, counted.fn
    values: dict[str, Count] = {
        **{"tp": tp, "fp": fp, "fn": fn, "tn": counted.tn, "interventions": counted.interventions},
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "missed_conflict": _ratio(fn, tp + fn),
        "ghost_rate_per_hour": _ratio(3600 * fp, SUBSTEPS * counted.aircraft_steps),
        "alert_duty_cycle": _ratio(counted.alert_steps, counted.steps),
        "alert_time_s": SUBSTEPS * counted.alert_steps,
        "excess_alert_time_s": SUBSTEPS * counted.excess_steps,
        "lead_time_s": -SUBSTEPS * _ratio(counted.late_steps, tp),
        "resolution_fail_rate": _ratio(tp - counted.resolved, tp),
        "los_failure_rate": _ratio(counted.breached, tp),
    }
    return {name: np.asarray(value) for name, value in values.items()}


def origin_metrics(counted: Counts) -> dict[str, np.ndarray]:
    """The origin's numbers under its names; for signals paired "after" and seen with the rules `ORIGIN`.

    `ghost_conflict` mixes events and steps, a lead is positive where alerts come late, and most rates of nothing are 0.
    """
    own = rates(counted)
    same = ("tp", "fp", "fn", "tn", "precision", "recall", "missed_conflict", "alert_duty_cycle", "excess_alert_time_s")
    values = {
        **{name: own[name] for name in same},
        "f1_score": own["f1"],
        "tn_pct": _ratio(counted.tn, counted.steps),
        "ghost_conflict": _ratio(counted.fp, counted.fp + counted.tn),
        "avg_lead_time_s": -own["lead_time_s"],
        "total_alert_time_s": own["alert_time_s"],
        "num_conflict_steps": counted.truth_steps,
        "unwanted_interventions": counted.fp,
        "num_interventions": counted.interventions,
        "num_interventions_matched": counted.interventions_right,
        "num_interventions_false": counted.interventions - counted.interventions_right,
    }
    unknown = {name: own[name] for name in ("resolution_fail_rate", "los_failure_rate")}
    return {name: np.nan_to_num(value) for name, value in values.items()} | unknown


def _ratio(part, whole) -> np.ndarray:
    whole = np.asarray(whole, float)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def _cos_at(lat_deg):
    return lambda dlat: jnp.cos(DEG * (lat_deg + dlat))


def _pairs(now: Traffic, lat_deg, rules: AlertRules) -> tuple[jax.Array, ...]:
    """Each aircraft with each other, NM, [N - 1, N, T] in the order of `geometry.others`; `FAR_NM` where there is none.

    Distances of those that fly, their distances at the closest approach within the horizon, and these of those that are
    active, each pair once, seen from the aircraft of the smaller number.
    """
    cos_at, number = _cos_at(lat_deg), jnp.arange(len(now.dlat))[:, None]
    rate_north, rate_east = (now.tas / NM_M * f(DEG * now.hdg) for f in (jnp.cos, jnp.sin))
    own = now.dlat, now.dlon, rate_north, rate_east, now.active, now.flying, number
    rows = []
    for dlat, dlon, north_nm_s, east_nm_s, active, flying, other in zip(*map(geometry.others, own), strict=True):
        apart = north, east = geometry.flat(now.dlat, now.dlon, dlat, dlon, cos_at)
        if rules.origin_geometry:
            north, east = geometry.flat(now.dlat, now.dlon, dlat, dlon, lambda _: cos_at(now.dlat))
        rates_nm_s = north_nm_s - rate_north, east_nm_s - rate_east
        _, dcpa = geometry.closest_approach(north, east, *rates_nm_s, rules.horizon_s)
        there, rivals = now.flying & flying, now.active & active & (number < other)
        pairs = (there, jnp.sqrt(apart[0] * apart[0] + apart[1] * apart[1])), (there, dcpa), (rivals, dcpa)
        rows.append([jnp.where(mask, distance, FAR_NM) for mask, distance in pairs])
    return tuple(jnp.stack(x) for x in zip(*rows, strict=True))


def _navigates(now: Traffic, turn_deg, lat_deg, rules: AlertRules) -> jax.Array:
    """[N, T] bool; the turn is one towards the waypoint."""
    places = now.dlat, now.dlon, now.goal_dlat, now.goal_dlon
    if rules.origin_geometry:
        north, east = geometry.great_circle_course(*places, lat_deg)
    else:
        north, east = geometry.flat(*places, _cos_at(lat_deg))
    error_deg = wrap_deg(jnp.arctan2(east, north) / DEG - now.hdg)
    return jnp.abs(wrap_deg(error_deg - turn_deg)) + rules.navigation_deg < jnp.abs(error_deg)
