"""Air traffic under other conditions: the grid, what shifts change and leave alone, errors of sensing, scenarios."""

import math
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from airspaces import assert_same_angles

import envs_jax
from envs_jax.atc import scenarios
from envs_jax.atc.params import KNOT_MS, NM_M
from envs_jax.atc.shifts import KINDS, crossing

NEAR = {0.03, 0.05, 0.08, 0.10, 0.12, 0.15}
STEPS = {2, 5, 8, 10}, {15, 20, 25, 30, 35}
TABLE = {
    ("speed", ""): STEPS,
    ("heading", ""): STEPS,
    ("position", "north"): (NEAR, {0.18, 0.20, 0.25, 0.30, 0.35}),
    ("position", "east"): (NEAR, {0.20, 0.25, 0.30, 0.35, 0.40}),
    ("waypoint", "north"): ({0.03, 0.05, 0.08}, {0.15, 0.20, 0.25, 0.30}),
    ("waypoint", "east"): ({0.03, 0.05, 0.08}, {0.15, 0.20, 0.25, 0.30}),
    ("waypoint", "northeast"): (set(), {0.15, 0.20}),
    ("waypoint", "southeast"): (set(), {0.15, 0.20}),
    ("wind", "north"): ({10, 15}, {25, 35}),
    ("wind", "east"): ({10, 15}, {25, 35}),
    ("wind", "northeast"): (set(), {30}),
    ("wind", "southeast"): (set(), {30}),
}
"""Sizes, small and large, each in both directions."""


def changed(env, kinds):
    return env.assessment.conditions["shifts"].groups(kinds)


def elsewhere(env, names):
    return env.assessment.conditions["scenarios"].groups(names)


@pytest.fixture(scope="module")
def crossing_env():
    return envs_jax.make("atc/canonical_crossing")


@pytest.fixture(scope="module")
def groups(crossing_env):
    return changed(crossing_env, None)


def flown(env, params, steps=30):
    """Observations [K, T + 1, N, d] and states [K, T, N] of flights that turn all the time, from one key."""

    @jax.jit
    @jax.vmap
    def run(params):
        def step(state, key):
            obs, state, *_ = env.step_env(key, state, action, params)
            return state, (obs, state)

        action = jnp.tile(jnp.array([1.0, 0.0]), (4, 1))
        obs, state = env.reset_env(jax.random.key(3), params)
        _, (later, states) = jax.lax.scan(step, state, jax.random.split(jax.random.key(4), steps))
        return jnp.concatenate([obs[None], later]), states

    return jax.device_get(run(params))


@pytest.fixture(scope="module")
def disturbed(groups):
    """`(kind, axis, size) -> (observations, states)` in wind, with delay and with errors of sensing."""
    group = groups[1]
    flights = flown(group.env, group.params)
    names = [(label["kind"], label["axis"], label["size"]) for label in group.labels]
    return {name: jax.tree.map(lambda x, i=i: x[i], flights) for i, name in enumerate(names)}


UNSHIFTED = "none", "", 0.0


def labels(groups, kind):
    return [label for group in groups for label in group.labels if label["kind"] == kind]


def test_the_grid_is_the_table(groups):
    for (kind, axis), sizes in TABLE.items():
        found = defaultdict(set)
        for label in labels(groups, kind):
            if label["axis"] == axis:
                found[label["who"], label["scale"]].add(label["size"])
        for who in ("all",) if kind == "wind" else ("A0", "A1", "A2", "A3", "all"):
            for scale, expected in zip(("small", "large"), sizes, strict=True):
                both_ways = {sign * size for size in expected for sign in (1, -1)}
                if kind == "position":  # some are too close to others
                    assert found[who, scale] <= both_ways, (kind, axis, who, scale)
                else:
                    assert found[who, scale] == both_ways, (kind, axis, who, scale)
    assert {(x["axis"], x["who"]) for x in labels(groups, "type")} == {
        (name, who) for name in ("B738", "B744", "CRJ9") for who in ("A0", "A1", "A2", "A3", "all")
    }
    assert [x["size"] for x in labels(groups, "delay")] == [1, 2, 3]
    assert [x["size"] for x in labels(groups, "noise")] == [0.1, 0.2, 0.5]
    assert all(group.labels[0]["kind"] == "none" for group in groups)
    assert {label["kind"] for group in groups for label in group.labels} == {"none", *KINDS}


def test_streams_of_aircraft_have_shorter_sides():
    (group,) = changed(envs_jax.make("atc/merge_4all"), ["position"])
    east = {abs(x["size"]) for x in group.labels if x["axis"] == "east" and x["who"] == "A1"}
    assert max(east) == 0.25


def test_starts_that_are_too_close_are_left_out(groups):
    agents, scale = scenarios.named("canonical_crossing").agents, 60 * math.cos(math.radians(52))
    expected, kept = 0, len(labels(groups, "position"))
    for axis, (small, large) in (item for item in TABLE.items() if item[0][0] == "position"):
        for size in (sign * size for size in small | large for sign in (1, -1)):
            for moved in range(4):
                places = [(60 * a.lat, scale * a.lon) for a in agents]
                north, east = (60 * size, 0.0) if axis[1] == "north" else (0.0, scale * size)
                places[moved] = places[moved][0] + north, places[moved][1] + east
                expected += min(math.dist(p, q) for i, p in enumerate(places) for q in places[:i]) < 6.0
    assert expected > 0 and groups[0].left_out == {"position": expected}
    assert kept + expected == 5 * 2 * 22


def test_one_aircraft_shifted_leaves_the_others_alone(groups):
    group, nominal = groups[0], None
    for place, label in enumerate(group.labels):
        one = jax.tree.map(lambda x, i=place: x[i], group.params)
        nominal = one if nominal is None else nominal
        others = [i for i in range(4) if label["who"] not in ("all", f"A{i}")]
        of_aircraft = [jax.tree.leaves((params.start, params.performance)) for params in (one, nominal)]
        for a, b in zip(*of_aircraft, strict=True):
            np.testing.assert_array_equal(a[others], b[others], err_msg=str(label))
        pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(nominal), strict=True))
        assert all(np.array_equal(a, b) for a, b in pairs) == (label["kind"] == "none"), label
        assert all(a.dtype == b.dtype for a, b in pairs)
    by_label = {(x["kind"], x["who"], x["axis"], x["size"]): i for i, x in enumerate(group.labels)}
    start, place = group.params.start, by_label["speed", "A1", "", -15.0]
    np.testing.assert_allclose((start.cas[place] - start.cas[0]) / KNOT_MS, [0, -15, 0, 0], atol=1e-4)
    place = by_label["waypoint", "all", "southeast", 0.15]
    np.testing.assert_allclose(start.goal_dlat[place] - start.goal_dlat[0], -0.15, atol=1e-6)
    np.testing.assert_allclose(start.goal_dlon[place] - start.goal_dlon[0], 0.15, atol=1e-6)


@pytest.mark.slow
def test_unshifted_is_the_plain_world(crossing_env, disturbed):
    plain = flown(crossing_env, jax.tree.map(lambda x: x[None], crossing_env.default_params))
    obs, states = jax.tree.map(lambda x: x[0], plain)
    np.testing.assert_allclose(disturbed[UNSHIFTED][0], obs, rtol=1e-4, atol=1e-4)
    found = disturbed[UNSHIFTED][1]
    assert_same_angles(found.hdg, states.hdg, atol=4e-3)
    for name in ("dlat", "dlon", "tas", "arrived"):
        np.testing.assert_allclose(getattr(found, name), getattr(states, name), rtol=1e-5, atol=1e-5)


def test_nothing_random_is_drawn_in_a_plain_step(crossing_env, groups):
    def step_of(env):
        params = env.default_params
        state = jax.eval_shape(env.reset_env, jax.random.key(0), params)[1]
        action = jax.ShapeDtypeStruct((4, 2), jnp.float32)
        return str(jax.make_jaxpr(env.step_env)(jax.random.key(0), state, action, params))

    assert "random_bits" not in step_of(crossing_env)
    assert "random_bits" in step_of(groups[1].env)
    assert crossing_env.default_params.sensing is None and crossing_env.default_params.delay_steps is None


@pytest.mark.slow
def test_delay_holds_actions_back(disturbed):
    prompt = disturbed[UNSHIFTED][1]
    turns = np.diff(prompt.hdg[:8], axis=0) % 360
    assert np.all((turns > 10) & (turns < 19))
    for delay in (1, 2, 3):
        late = disturbed["delay", "", float(delay)][1]
        np.testing.assert_array_equal(late.hdg[:delay], late.hdg[:1].repeat(delay, axis=0))
        assert_same_angles(late.hdg[delay:8], prompt.hdg[: 8 - delay], atol=1e-2)


@pytest.mark.slow
def test_wind_blows_from_its_axis(disturbed):
    still = disturbed[UNSHIFTED][1]
    for axis, size, (north, east) in (("north", 35.0, (-1, 0)), ("east", -25.0, (0, 1)), ("northeast", 30.0, (-1, -1))):
        windy = disturbed["wind", axis, size][1]
        drift = 60 * abs(size) * KNOT_MS / NM_M / math.hypot(north, east)  # after a minute
        scale = 60 * math.cos(math.radians(52))
        np.testing.assert_allclose(60 * (windy.dlat - still.dlat)[5], drift * north, atol=0.02 * drift)
        np.testing.assert_allclose(scale * (windy.dlon - still.dlon)[5], drift * east, atol=0.02 * drift)


@pytest.mark.slow
def test_errors_of_sensing_have_their_size_and_leave_the_flight_alone(disturbed):
    obs, states = disturbed[UNSHIFTED]
    wrong, same = disturbed["noise", "", 0.5]
    for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    there = ~states.arrived
    tas_ms = 40 * (wrong - obs)[1:, :, 3][there]
    assert np.std(tas_ms) == pytest.approx(25 * KNOT_MS, rel=0.2) and abs(np.mean(tas_ms)) < 4
    # The nearest neighbour, of which both positions err; seldom another one seems nearer.
    ahead_nm = 10 * (wrong - obs)[1:, :, 9][there]
    assert np.median(np.abs(ahead_nm)) == pytest.approx(0.674 * 0.5 * math.sqrt(2), rel=0.35)
    assert not np.array_equal(wrong[0], obs[0])


@pytest.mark.slow
def test_neighbours_go_unheard(disturbed):
    heard = {share: disturbed["dropout", "", share][0][:, :, 8::8].sum() for share in (0.1, 0.25, 0.5, 1.0)}
    everyone = disturbed[UNSHIFTED][0][:, :, 8::8].sum()
    for share, number in heard.items():
        assert number / everyone == pytest.approx(1 - share, abs=0.1 * (share < 1)), share


def test_more_aircraft_keep_clear_of_the_others(groups):
    for name in (*scenarios.FIVE, *scenarios.NINE):
        scenario = scenarios.named(name)
        agents = (*scenario.agents, *crossing(scenario, 2))
        scale = 60 * math.cos(math.radians(scenario.lat))
        places = [(60 * a.lat, scale * a.lon) for a in agents]
        assert all(math.dist(places[i], q) >= 8 - 1e-6 for i in (-1, -2) for q in places[:i]), name
        scenarios.check(scenario._replace(agents=agents))
    group = groups[2]
    assert [label["size"] for label in group.labels] == [0, 1, 2] and group.env.num_agents == 6
    np.testing.assert_array_equal(group.params.start.present.sum(axis=1), [4, 5, 6])
    np.testing.assert_array_equal(group.params.start.dlat[:, :4], group.params.start.dlat[:1, :4].repeat(3, axis=0))


def test_random_traffic_has_shifts_of_its_own():
    env = envs_jax.make("atc/generic", traffic={"max_aircraft": 2, "families": {"circle": 1}}, pad_to=5)
    (group,) = changed(env, ["aircraft"])
    assert group.env.num_agents == 5
    reset = jax.jit(jax.vmap(lambda params: group.env.reset_env(jax.random.key(1), params)))
    obs, state = jax.device_get(reset(group.params))
    np.testing.assert_array_equal(state.present.sum(axis=1), [2, 3, 4])
    assert np.isfinite(obs).all()
    np.testing.assert_array_equal(state.dlat[0], state.dlat[2])
    with pytest.raises(ValueError, match="unknown kind 'speed' for random traffic; known are type, wind"):
        changed(env, ["speed"])
    with pytest.raises(ValueError, match=r"unknown kind 'rain'; known are type, wind"):
        changed(env, ["rain"])


def test_scenarios_of_as_many_aircraft_are_one_group(crossing_env):
    groups = elsewhere(crossing_env, ["five", "merge_4all", "generic", "parallel"])
    names = [[label["condition"] for label in group.labels] for group in groups]
    assert names == [
        ["head_on"], ["parallel", "t_formation"], ["canonical_crossing", "converging", "merge_4all"], ["generic"]
    ]  # fmt: skip
    assert [group.env.num_agents for group in groups] == [2, 3, 4, 6]
    assert groups[2].env.max_episode_length == 150
    np.testing.assert_array_equal(groups[2].params.limits.horizon, [100, 100, 150])
    alone = envs_jax.make("atc/converging").default_params
    for a, b in zip(jax.tree.leaves(groups[2].params), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a[1], b)
    assert sum(len(group.labels) for group in elsewhere(crossing_env, ["all"])) == 17
    with pytest.raises(ValueError, match="unknown scenario 'sixfold'; known are head_on"):
        elsewhere(crossing_env, ["sixfold"])


def test_arrays_are_as_wide_as_a_scenario_needs():
    env = envs_jax.make("atc/head_on", pad_to=3, max_episode_steps=40)
    groups = {group.labels[0]["condition"]: group for group in elsewhere(env, ["head_on", "converging"])}
    assert groups["head_on"].env.num_agents == 3 and groups["converging"].env.num_agents == 4
    assert groups["head_on"].env.max_episode_length == 40 and groups["converging"].env.max_episode_length == 100
