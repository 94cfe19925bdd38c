"""Alert scoring: every rule by hand, flights of scripted pilots, and the origin's own scores of its recordings."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from airspaces import assert_same_angles
from atc_recordings import each_recording, load, scenario_of

import envs_jax
from envs_jax.atc import alerts, baselines, scenarios
from envs_jax.atc.alerts import AlertRules, Signals, Traffic
from envs_jax.atc.config import AtcConfig
from envs_jax.atc.env import Functions, params_of
from envs_jax.atc.geometry import NM_PER_DEG, great_circle_course
from envs_jax.atc.params import FAR_NM, NM_M, SPEED_KT, TURN_DEG
from envs_jax.atc.recorded import episode_signals
from envs_jax.atc.scoring import score
from envs_jax.episodes import play_rules

COUNTED = {
    "tp", "fp", "fn", "tn", "tn_pct", "precision", "recall", "f1_score", "ghost_conflict", "missed_conflict",
    "alert_duty_cycle", "total_alert_time_s", "avg_lead_time_s", "resolution_fail_rate", "los_failure_rate",
    "excess_alert_time_s", "unwanted_interventions", "num_interventions", "num_interventions_matched",
    "num_interventions_false", "num_conflict_steps",
}  # fmt: skip
"""Numbers of a recording that follow from counts. `min_CPA_nm`, `min_separation_nm`, `num_los_events` and
`total_los_duration` are compared as well. Not compared: lengths and times of paths, which are no matter of alerts;
`escape_improve_hits` and `avg_alert_*`, which the specification does not define; `oscillation_rate`, which it defines
otherwise (see below for what that says of commands)."""


signals = jax.jit(alerts.signals, static_argnames="rules")
with_predictor = jax.jit(alerts.with_predictor, static_argnames="rules")


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def real(request):
    with jax.enable_x64(request.param is np.float64):
        yield request.param


PADDED = 160, 4
"""Steps and aircraft of the arrays of all recordings, which share a program; longer ones have a multiple of both."""


def padded(values):
    """[T, N] with zeros to the common shape."""
    steps, aircraft = values.shape
    whole = np.zeros((-(-steps // PADDED[0]) * PADDED[0], -(-aircraft // PADDED[1]) * PADDED[1]), values.dtype)
    whole[:steps, :aircraft] = values
    return whole


@each_recording
def test_the_origins_scores_of_its_recordings(path, real):
    rollout = load(path)
    expected = json.loads(str(rollout["hd_metrics"]))
    lat_deg, lon_deg = rollout["center"]
    lat, lon, hdg, _, tas, _, _ = np.moveaxis(rollout["state"], 2, 0)
    goals = np.array([(a.waypoint_lat, a.waypoint_lon) for a in scenario_of(rollout).agents]) - rollout["center"]
    places = lat - lat_deg, lon - lon_deg, hdg, tas, *(np.broadcast_to(goal, lat.shape) for goal in goals.T)
    arrived = np.concatenate([np.zeros_like(rollout["waypoint_reached"][:1]), rollout["waypoint_reached"]])
    whole = Traffic(*(x.astype(real) for x in places), active=~arrived, flying=np.ones_like(arrived))
    traffic = Traffic(*map(padded, alerts.paired(whole, "after")))
    turn_deg, speed_kt = (padded(x.astype(real)) for x in np.moveaxis(rollout["action"] * [TURN_DEG, SPEED_KT], 2, 0))
    steps = len(rollout["action"])

    seen = signals(traffic, turn_deg, speed_kt, np.arange(len(turn_deg)) < steps, lat_deg, alerts.ORIGIN)
    seen = Signals(*(x[:steps] for x in jax.device_get(seen)))
    np.testing.assert_array_equal(seen.truth, rollout["hd_gt"].astype(bool))
    np.testing.assert_array_equal(seen.alert, rollout["hd_alert"].astype(bool))
    metrics = alerts.origin_metrics(alerts.count(seen))
    assert metrics.keys() == COUNTED
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(seen.dcpa_nm.min(), expected["min_CPA_nm"], atol=1e-4)
    np.testing.assert_allclose(seen.separation_nm.min(), expected["min_separation_nm"], atol=1e-4)
    lost = seen.separation_nm < 5
    assert (len(alerts.events(lost)), lost.sum()) == (expected["num_los_events"], expected["total_los_duration"])


@each_recording
def test_the_origin_records_no_commands_of_who_has_arrived(path):
    """Its rate of oscillation says so, too: half the share of turns of 2 deg or more that follow
    on one to the other side, half the mean change of the sizes of commands, in units of the largest. Commands of a step
    are averaged over all aircraft, those of who arrived in an earlier step as zero."""
    rollout = load(path)
    arrived = np.concatenate([np.zeros_like(rollout["waypoint_reached"][:1]), rollout["waypoint_reached"][:-1]])
    taken = np.where(arrived[..., None], 0.0, rollout["action"])
    turns = TURN_DEG * taken[..., 0].mean(axis=1)
    large = (np.abs(turns[1:]) >= 2) & (np.abs(turns[:-1]) >= 2)
    flips = np.sum(large & (turns[1:] * turns[:-1] < 0)) / max(1, large.sum())
    changes = np.abs(np.diff(np.abs(taken).mean(axis=1), axis=0)).mean()
    expected = json.loads(str(rollout["hd_metrics"]))["oscillation_rate"]
    np.testing.assert_allclose(0.5 * (flips + changes), expected, rtol=1e-6)


def test_great_circles_start_as_navigators_compute_them(x64):
    lat_deg = 52.0
    dlat_1, dlon_1, dlat_2, dlon_2 = np.random.default_rng(0).uniform(-2, 2, (4, 50))
    north, east = great_circle_course(dlat_1, dlon_1, dlat_2, dlon_2, lat_deg)
    lat_1, lat_2, across = (np.radians(x) for x in (lat_deg + dlat_1, lat_deg + dlat_2, dlon_2 - dlon_1))
    expected_east = np.sin(across) * np.cos(lat_2)
    expected_north = np.cos(lat_1) * np.sin(lat_2) - np.sin(lat_1) * np.cos(lat_2) * np.cos(across)
    expected = np.degrees(np.arctan2(expected_east, expected_north))
    assert_same_angles(np.degrees(np.arctan2(east, north)), expected, atol=1e-8)


def traffic_at(north_nm, east_nm, hdg, speed_nm_s=0.1, goal_nm=(100.0, 0.0), lat_deg=0.0, active=True, flying=True):
    """Aircraft [T, N] at the centre's latitude; the waypoint is north and east of each of them."""
    wide = (np.asarray(x, float) for x in (north_nm, east_nm, hdg, speed_nm_s, *goal_nm))
    north, east, hdg, speed, goal_north, goal_east, active, flying = np.broadcast_arrays(*wide, active, flying)
    dlat, goal_dlat = north / NM_PER_DEG, (north + goal_north) / NM_PER_DEG
    per_deg = NM_PER_DEG * np.cos(np.radians(lat_deg))
    dlon, goal_dlon = east / per_deg, (east + goal_east) / per_deg
    return Traffic(dlat, dlon, hdg, speed * NM_M, goal_dlat, goal_dlon, active, flying)


def seen_in(traffic, turn=0.0, speed=0.0, flown=None, **settings) -> Signals:
    shape = traffic.dlat.shape
    flown = np.ones(shape[0], bool) if flown is None else flown
    commands = (np.broadcast_to(np.asarray(x, float), shape) for x in (turn, speed))
    return jax.device_get(signals(traffic, *commands, flown, 0.0, AlertRules(**settings)))


def test_conflict_is_a_closest_approach_below_5_nm_within_two_minutes():
    """Head-on at 0.2 NM/s, 24 NM in 120 s."""
    apart = np.array([28.9, 29.1, 60.0])[:, None] * [0.0, 1.0]
    seen = seen_in(traffic_at(apart, 0.0, [0.0, 180.0]))
    assert seen.truth.tolist() == [True, False, False]
    np.testing.assert_allclose(seen.dcpa_nm, [4.9, 5.1, 36.0], atol=1e-4)
    np.testing.assert_allclose(seen.separation_nm, apart[:, 1], rtol=1e-5)
    away = np.array([4.9, 5.1])[:, None] * [0.0, 1.0]
    assert seen_in(traffic_at(away, 0.0, [180.0, 0.0])).truth.tolist() == [True, False]
    assert not seen_in(traffic_at(away, 0.0, [0.0, 0.0], active=[True, False])).truth.any()


def test_a_third_aircraft_counts_for_the_pair_it_is_in():
    traffic = traffic_at([[0.0, 100.0, 104.0, -100.0]] * 2, 0.0, 0.0, active=[[True] * 4, [True, True, False, True]])
    seen = seen_in(traffic)
    assert seen.truth.tolist() == [True, False] and seen.aircraft.tolist() == [4, 3]


def test_alerts_are_large_commands():
    """Towards each other, so that any turn is off course: 3 deg or 5 kt by one of them."""
    turn = np.array([3.0, -3.0, 2.9, 0.0, 0.0, 0.0])[:, None] * [0.0, 1.0]
    speed = np.array([0.0, 0.0, -4.9, 5.0, -5.0, 0.0])[:, None] * [1.0, 0.0]
    traffic = traffic_at([[0.0, 20.0]] * 6, 0.0, [0.0, 180.0], goal_nm=([100.0, -100.0], 0.0))
    seen = seen_in(traffic, turn, speed)
    assert seen.raw.tolist() == [True, True, False, True, True, False]
    assert seen.intervened.tolist() == seen.raw.tolist()
    assert not seen_in(traffic._replace(active=np.zeros((6, 2), bool)), turn, speed).raw.any()


def test_alerts_need_somebody_within_6_nm():
    """Side by side; who has arrived gives no commands, but is still in the way of others while it flies."""
    east = np.array([5.9, 6.1, 5.9, 5.9, 5.9])[:, None] * [0.0, 1.0]
    active = [[True, True], [True, True], [False, True], [True, False], [True, False]]
    flying = [[True, True], [True, True], [True, True], [True, True], [True, False]]
    seen = seen_in(traffic_at(0.0, east, 0.0, active=active, flying=flying), turn=[10.0, 0.0])
    assert seen.raw.tolist() == [True, False, False, True, False]
    assert seen.intervened.tolist() == [True, True, False, True, True] and not seen.truth.any()
    np.testing.assert_allclose(seen.separation_nm[-1], FAR_NM)


def test_turns_towards_the_waypoint_are_navigation():
    """Waypoints 30 deg to the right, 1 deg of slack, the short way round; nothing else of the command matters then."""
    ahead = 100 * np.array([np.cos(np.radians(30)), np.sin(np.radians(30))])
    turn = np.array([10.0, -10.0, 0.9, 0.9, 1.1, 58.9, 59.1])[:, None] * [1.0, 0.0]
    speed = np.array([-10.0, 0.0, 0.0, 10.0, 10.0, 0.0, 0.0])[:, None] * [1.0, 0.0]
    expected = [False, True, False, True, False, False, True]
    assert seen_in(traffic_at(0.0, [[0.0, 4.0]] * 7, 0.0, goal_nm=ahead), turn, speed).raw.tolist() == expected
    across = traffic_at(0.0, [[0.0, 4.0]] * 7, 345.0, goal_nm=100 * np.array([np.cos(0.25), np.sin(0.25)]))
    slack = seen_in(across, turn, navigation_deg=0.0)
    assert slack.raw.tolist() == [False, True, False, False, False, True, True]


@pytest.mark.parametrize("pairing", ["before", "after"])
def test_who_arrives_in_a_step_was_asked_and_who_arrived_before_was_not(pairing):
    """The second arrives in the second of three steps; it flies on and is given large commands all the time."""
    active = [[True, True], [True, True], [True, False], [True, False]]
    traffic = alerts.paired(traffic_at([[0.0, 30.0]] * 4, 0.0, 0.0, active=active), pairing)
    large = np.full((3, 1), 9.0) * [0.0, 1.0]
    assert seen_in(traffic, large).intervened.tolist() == [True, True, False]


def lasting(raw: str, flown: int | None = None) -> str:
    mask = np.array([c == "1" for c in raw])
    kept = alerts.lasting(mask, np.arange(len(raw)) < (len(raw) if flown is None else flown))
    return "".join("01"[int(x)] for x in np.asarray(kept))


def test_alerts_last_two_of_three_steps_and_grow_by_one():
    assert lasting("0101000010") == "0011100000"
    assert lasting("0100100000") == "0000000000"
    assert lasting("0001110000") == "0001111100"
    assert lasting("1100000000") == "1111000000"
    assert lasting("0000000011") == "0000000011"
    assert lasting("0001100000", flown=5) == "0001100000"


def test_events_are_runs_that_are_widened_and_clipped_but_not_merged():
    mask = np.array([0, 1, 1, 0, 0, 1, 0], bool)
    assert alerts.events(mask).tolist() == [[1, 3], [5, 6]]
    assert alerts.events(mask, 3).tolist() == [[0, 6], [2, 7]]
    assert alerts.events(np.ones(3, bool), 1).tolist() == [[0, 3]]
    assert alerts.events(np.zeros(3, bool), 1).shape == alerts.events(np.zeros(0, bool), 1).shape == (0, 2)


def test_overlap_is_of_half_open_intervals():
    others = np.array([[2, 6], [4, 6], [5, 6], [0, 4], [1, 2]])
    np.testing.assert_allclose(alerts.overlap(np.array([0, 4]), others), [2 / 6, 0, 0, 1, 1 / 4])


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        ([[0, 10]], [[9, 10]], [(0, 0)]),  # a tenth is enough
        ([[0, 11]], [[10, 11]], []),
        ([[0, 10], [5, 15]], [[5, 15]], [(0, 0)]),  # the first in time takes what would fit the second better
        ([[0, 10], [5, 15]], [[5, 15], [1, 9]], [(0, 1), (1, 0)]),
        ([[0, 10]], [[0, 4], [6, 10]], [(0, 0)]),  # equally good: the first
        ([[0, 4], [2, 6]], [[0, 6]], [(0, 0)]),  # each alert once
        ([], [[0, 3]], []),
        ([[0, 3]], [], []),
    ],
)
def test_conflicts_take_alerts_in_order_of_time(truth, found, expected):
    truth, found = (np.array(x, int).reshape(-1, 2) for x in (truth, found))
    assert alerts.match(truth, found, least_iou=0.1) == expected


def made(steps: int, truth, alert, lost=(), intervened=(), padding: int = 0) -> Signals:
    """Signals of two aircraft from runs of steps; the padding says nonsense."""

    def mask(runs, rest):
        values = np.full(steps + padding, rest)
        values[:steps] = False
        for start, end in runs:
            values[start:end] = True
        return values

    separation_nm = np.where(mask(lost, True), 4.0, 8.0)
    aircraft = np.where(np.arange(steps + padding) < steps, 2, 0)
    return Signals(
        mask(truth, True), mask(alert, True), mask(alert, True), mask(intervened, True), separation_nm, separation_nm,
        aircraft, np.arange(steps + padding) < steps,
    )  # fmt: skip


def episode(padding: int = 0) -> Signals:
    """Conflicts with their margins 17-33, 47-55, 93-100; alerts 21-29, 69-75, 96-100."""
    return made(
        100, truth=[(20, 30), (50, 52), (96, 100)], alert=[(22, 28), (70, 74), (97, 99)],
        lost=[(18, 19), (34, 35), (99, 100)], intervened=[(10, 12), (22, 25), (70, 71)], padding=padding,
    )  # fmt: skip


@pytest.mark.parametrize("padding", [0, 7])
def test_an_episode_counted_by_hand(padding):
    assert alerts.count(episode(padding)) == alerts.Counts(
        steps=100, aircraft_steps=200, tp=2, fp=1, fn=1, tn=80, truth_steps=16, alert_steps=12, excess_steps=6,
        late_steps=4 + 3, resolved=0, breached=2, interventions=6, interventions_right=5,
    )  # fmt: skip


def test_rates_by_hand():
    values = alerts.rates(alerts.count(episode()))
    expected = {
        "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "missed_conflict": 1 / 3, "ghost_rate_per_hour": 1.8,
        "alert_duty_cycle": 0.12, "alert_time_s": 120, "excess_alert_time_s": 60, "lead_time_s": -35,
        "resolution_fail_rate": 1, "los_failure_rate": 1, "interventions": 6,
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, err_msg=name)
    origin = alerts.origin_metrics(alerts.count(episode()))
    np.testing.assert_allclose(origin["ghost_conflict"], 1 / 81)
    assert origin["avg_lead_time_s"] == 35 and origin["num_interventions_false"] == 1


def test_a_conflict_is_resolved_if_the_minute_after_it_has_no_loss():
    """Conflict 6-13 with its margins: the minute is 13-19. At the end of the episode it is the last minute."""
    for lost, resolved, breached in [(12, 1, 1), (13, 0, 0), (18, 0, 0), (19, 1, 0)]:
        counted = alerts.count(made(40, [(9, 10)], [(8, 12)], [(lost, lost + 1)]))
        assert (counted.tp, counted.resolved, counted.breached) == (1, resolved, breached), lost
    for lost, resolved in [(33, 1), (34, 0)]:
        counted = alerts.count(made(40, [(37, 40)], [(37, 40)], [(lost, lost + 1)]))
        assert (counted.tp, counted.resolved) == (1, resolved), lost


def test_early_alerts_lead():
    assert alerts.rates(alerts.count(made(40, [(20, 25)], [(10, 25)])))["lead_time_s"] == 80


def test_counts_of_episodes_add_up():
    episodes = [episode(), made(60, [(5, 9)], [], padding=40), made(1, [], [], padding=99)]
    each = alerts.counts(Signals(*(np.stack(x) for x in zip(*episodes, strict=True))))
    assert each.tp.tolist() == [2, 0, 0] and each.fn.tolist() == [1, 1, 0] and each.tn.tolist() == [80, 56, 1]
    rates = alerts.rates(each)
    np.testing.assert_allclose(rates["recall"], [2 / 3, 0, np.nan])
    np.testing.assert_allclose(rates["precision"], [2 / 3, np.nan, np.nan])
    together = alerts.rates(alerts.Counts(*(np.sum(x) for x in each)))
    np.testing.assert_allclose([together["recall"], together["f1"]], [2 / 4, 4 / 7])
    origin = alerts.origin_metrics(each)
    np.testing.assert_allclose(origin["precision"], [2 / 3, 0, 0])
    np.testing.assert_allclose(origin["avg_lead_time_s"], [35, 0, 0])
    np.testing.assert_allclose(origin["resolution_fail_rate"], [1, np.nan, np.nan])


def test_gaps_in_an_episode_are_refused():
    with pytest.raises(ValueError, match="not flown"):
        alerts.count(episode()._replace(flown=np.arange(100) != 3))


def test_a_predictor_without_errors_sees_the_truth():
    apart = np.linspace(40, 20, 30)[:, None] * [0.0, 1.0]
    traffic = traffic_at(apart, 0.0, [0.0, 180.0])
    seen = seen_in(traffic, flown=np.arange(30) < 28)
    predicted = with_predictor(seen, traffic, jax.random.key(0), 0.0, position_nm=0.0, speed_kt=0.0)
    np.testing.assert_array_equal(predicted.raw, seen.truth)
    np.testing.assert_array_equal(predicted.alert, seen.truth)  # later by one step, wider by one
    counted = alerts.count(jax.device_get(predicted))
    assert (counted.tp, counted.fp, counted.fn, counted.steps) == (1, 0, 0, 28)


@pytest.mark.parametrize(
    ("north_nm", "east_nm", "position_nm", "speed_kt"),
    [(0.0, 5.5, 0.5, 0.0), (5.5, 0.0, 0.5, 0.0), (8.0, 0.0, 0.0, 90.0)],
    ids=["east", "north", "speed"],
)
def test_errors_of_a_predictor_have_their_units(north_nm, east_nm, position_nm, speed_kt):
    """One standard deviation of the difference makes a conflict: half a mile nearer, or 90 kt faster, 3 NM in 120 s."""
    steps = 6000
    places = ([[0.0, x]] * steps for x in (north_nm, east_nm))
    traffic = traffic_at(*places, 0.0, lat_deg=60.0)
    noise = {"position_nm": position_nm / 2**0.5, "speed_kt": speed_kt / 2**0.5}
    raw = with_predictor(seen_in(traffic), traffic, jax.random.key(1), 60.0, **noise).raw
    assert abs(float(raw.mean()) - 0.1587) < 0.025  # errors across add a hundredth


@pytest.fixture(scope="module")
def flights():
    """Signals [E, T] of three jittered head-ons by pilot, and their sources; `blind` sees nothing but its waypoint."""
    config = AtcConfig()
    scenario = scenarios.named("head_on")
    functions = Functions(config.rules(3, windy=False))
    params = params_of(config, scenario, 3)

    @jax.jit
    def fly(keys, acts):
        def step(carried, _):
            state, flown = carried
            action = jnp.where(acts, baselines.mvp(state, params), baselines.go_to_waypoint(state, params))
            _, following, _, terminated, truncated, info = functions.step(None, state, action, params)
            return (following, flown & ~(terminated | truncated)), (state, action, flown, jnp.min(info["min_sep"]))

        def flight(key):
            begin = functions.reset(key, params)[1], jnp.ones((), bool)
            (last, _), (states, action, flown, least) = jax.lax.scan(step, begin, None, length=60)
            path = jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), states, last)
            traffic = alerts.paired(alerts.traffic_of(path, functions.rules), "before")
            commands = TURN_DEG * action[..., 0], SPEED_KT * action[..., 1]
            seen = alerts.signals(traffic, *commands, flown, params.lat)
            return seen._replace(separation_nm=least), traffic, commands

        return jax.vmap(flight)(keys)

    with jax.debug_key_reuse(False):  # both pilots meet the same starts
        keys = jax.random.split(jax.random.key(3), 3)
        return {pilot: jax.device_get(fly(keys, pilot == "mvp")) for pilot in ("blind", "mvp")} | {"lat": params.lat}


def test_pilots_who_act_on_conflicts_are_told_from_those_who_do_not(flights):
    blind, mvp = (alerts.counts(flights[pilot][0]) for pilot in ("blind", "mvp"))
    assert blind.tp.tolist() == [0] * 3 and blind.fn.tolist() == [1] * 3 and blind.alert_steps.tolist() == [0] * 3
    assert blind.steps.max() < 60 and np.all(blind.aircraft_steps <= 2 * blind.steps)  # the third is padding
    # Between its commands `mvp` turns back into the conflict: one alert answers a series of conflicts.
    assert mvp.tp.min() >= 1 and mvp.fp.tolist() == [0] * 3 and mvp.alert_steps.min() > mvp.truth_steps.max()
    rates = alerts.rates(mvp)
    assert np.all(rates["resolution_fail_rate"] == 0) and np.all(rates["los_failure_rate"] == 0)


def test_signals_of_many_episodes_are_those_of_each_without_its_padding(flights):
    many, traffic, commands = flights["mvp"]
    steps = int(many.flown[0].sum())
    alone, turn, speed = jax.tree.map(lambda x: x[0, :steps, :2], (traffic, *commands))
    seen = signals(alone, turn, speed, np.ones(steps, bool), flights["lat"])
    for name in ("truth", "raw", "alert", "intervened", "aircraft"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(many, name)[0, :steps], err_msg=name)
        assert not getattr(many, name)[0, steps:].any()


def test_a_good_predictor_finds_what_a_blind_one_misses(flights):
    seen, traffic, _ = flights["blind"]

    @jax.jit
    def predicted(keys, position_nm):
        one = functools.partial(alerts.with_predictor, lat_deg=flights["lat"])
        return jax.vmap(lambda s, t, k: one(s, t, k, position_nm=position_nm))(seen, traffic, keys)

    good, blind = (
        alerts.counts(jax.device_get(predicted(jax.random.split(jax.random.key(i), 3), noise)))
        for i, noise in enumerate((0.1, 50.0))
    )
    assert good.tp.tolist() == [1] * 3 and good.fn.tolist() == [0] * 3
    assert blind.alert_steps.sum() < 0.5 * good.alert_steps.sum()


@pytest.mark.parametrize("preset", ["standard", pytest.param("origin", marks=pytest.mark.slow)])
def test_alerts_of_condensed_records_are_those_of_whole_ones(preset):
    settings = {"preset": preset, "max_episode_steps": 45}
    env = envs_jax.make("atc/head_on", enable_hallucination_detection=True, **settings)
    names = ("go_to_waypoint", "mvp")
    fly = jax.jit(lambda key: play_rules(env, env.default_params, names, jnp.arange(2), key, whole=True))
    records = jax.device_get(fly(jax.random.key(5)))
    rules = AtcConfig(**settings).rules(2, windy=False)
    look = jax.jit(lambda one, flown: episode_signals(one, flown, env.default_params, rules)[0])
    each = [
        [look(one, one["active"]) for one in (jax.tree.map(lambda x, at=(pilot, n): x[at], records) for n in (0, 1))]
        for pilot in (0, 1)
    ]
    for pilot, episodes in enumerate(each):
        for number, expected in enumerate(episodes):
            for name in ("truth", "alert", "intervened", "aircraft", "flown"):
                found = getattr(records["signals"], name)[pilot, number]
                np.testing.assert_array_equal(found, getattr(expected, name), err_msg=name)
            closest = records["min_sep"][pilot, number].min(axis=-1)
            if preset == "standard":
                np.testing.assert_array_equal(records["signals"].separation_nm[pilot, number], closest)
    scored = score("test", records).detail["alerts"]
    for pilot, episodes in enumerate(each):
        counted = [alerts.count(jax.device_get(seen)) for seen in episodes]
        for name, value in alerts.rates(alerts.Counts(*map(sum, zip(*counted, strict=True)))).items():
            np.testing.assert_allclose(scored["pilots"][name][pilot], value, err_msg=name)
    blind, mvp = scored["pilots"]["f1"]
    assert blind == 0 < mvp
    found = records["predicted"]
    np.testing.assert_array_equal(found[:, :, 0], found[0, :, 0][None].repeat(2, axis=0))
    assert scored["predictor"]["f1"][0] > 0.5


def test_alerts_are_scored_where_somebody_asks_and_under_other_conditions():
    plain = envs_jax.make("atc/head_on")
    assert plain.assessment.condense is None
    (shifted,), (other,) = (
        plain.assessment.conditions[name].groups([kind])
        for name, kind in (("shifts", "speed"), ("scenarios", "parallel"))
    )
    for env in (shifted.env, other.env):
        assert env.assessment.condense is not None and env.assessment.shown[-1] == "alerts.pilots.f1"
