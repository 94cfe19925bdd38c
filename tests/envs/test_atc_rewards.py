"""Air traffic: violations and their price, arrivals, ends of episodes, drift, shaping that leaves the optimum alone."""

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from airspaces import assert_same_angles, ends_at, fly, world

import envs_jax
from envs_jax.atc import geometry, rewards, scenarios
from envs_jax.atc.env import Functions
from envs_jax.atc.params import Rules

STEPS = 40


def test_nothing_done_on_head_on():
    """Loss of separation after 193 s, 0 NM after 224 s, waypoints after 45 steps; the entry is paid once."""
    history = fly(*world(), "noop", 46)
    conflict = history["conflict_flag"]
    assert conflict[:, 0].argmax() == 19 and not conflict[:19].any()
    entry = history["reward_parts"]["violate_entry"]
    assert np.array_equal(entry.sum(axis=0), [-25.0, -25.0])
    # 250 kt closing at 0.1604 NM/s: the seconds inside 5 NM, on both sides of the meeting.
    last = ends_at(history)
    assert history["los_events"][last] == 1 and abs(history["los_seconds"][last] - 62) <= 1
    assert history["min_separation_nm"][last] < 0.1 and history["nmac_events"][last] == 1
    assert history["success"][last] == 0 and history["reached_ratio"][last] == 1
    np.testing.assert_allclose(history["reward_parts"]["progress"][5], 0.0594, atol=1e-4)
    np.testing.assert_allclose(history["reward_parts"]["time"][5], -0.005)
    reach = history["reward_parts"]["reach"]
    assert np.array_equal(reach.sum(axis=0), [10, 10]) and (reach[last] == 10).all()


def side_by_side(apart: float, **settings):
    legs = [("A1", (0, 0), 0, (60, 0)), ("A2", (0, apart), 0, (60, apart))]
    return world(scenarios.from_legs("side", scenarios.FIVE_AT, legs), **settings)


def test_step_term_formula():
    """m = 4: -0.2, m = 0.5: -1.575, m = 0: -2.5, from starts side by side with equal velocities."""
    for apart, expected, collisions in ((4.0, -0.2, 0), (0.5, -1.575, 1), (1e-6, -2.5, 1)):
        history = fly(*side_by_side(apart), "noop", 2)
        np.testing.assert_allclose(history["reward_parts"]["violate_step"], expected, atol=3e-3)
        # They started so: no rising edge. Separation was lost all the same, from the first second on.
        assert not history["reward_parts"]["violate_entry"].any()
        tally = history["state"].tally
        assert tally.los_events.tolist() == [1, 1] and tally.los_seconds.tolist() == [10, 20]
        assert tally.collision_events.tolist() == [collisions] * 2
        # In parallel flight the least of the seconds is that at the end.
        np.testing.assert_allclose(history["min_sep"], apart, rtol=1e-3, atol=1e-4)


@pytest.fixture(
    scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["per_aircraft", "per_pair"]
)
def wild(request):
    """64 crossings, every aircraft with commands of its own: `(per pair, info of the steps [T, B, ...])`."""
    env = envs_jax.make("atc/canonical_crossing", entry_per_pair=request.param)
    _, states = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(jax.random.key(0), 64), env.default_params)
    actions = jax.random.uniform(jax.random.key(1), (STEPS, 64, 4, 2), minval=-1, maxval=1)

    @jax.jit
    def run(states):
        def step(states, action):
            piloted = ~states.arrived
            _, after, *_, info = jax.vmap(env.step_env, (None, 0, 0, None))(None, states, action, env.default_params)
            return after, {**info, "piloted": piloted, "places": (after.dlat, after.dlon, states.arrived)}

        return jax.lax.scan(step, states, actions)[1]

    return request.param, jax.device_get(run(states)), np.asarray(states.violating)


def test_an_entry_is_paid_once_in_every_interval(wild):
    per_pair, history, before = wild
    entries = history["reward_parts"]["violate_entry"] / -25
    if per_pair:
        inside = history["pair_min_sep"] < 5
        edges = (inside & ~np.concatenate([np.zeros_like(inside[:1]), inside[:-1]])).sum(axis=-1)
    else:
        inside = history["min_sep"] < 5
        edges = inside & ~np.concatenate([before[None], inside[:-1]])
    assert not before.any() and edges.sum(axis=0).max() >= 2
    np.testing.assert_allclose(entries, edges)
    assert not entries[~history["piloted"]].any()


def test_the_step_term_is_its_formula_and_the_seconds_see_more_than_the_ends(wild):
    _, history, _ = wild
    m = history["min_sep"]
    expected = -np.maximum(5 - m, 0) / 5 * (1 + 1.5 * np.maximum(0, 1 - m))
    np.testing.assert_allclose(history["reward_parts"]["violate_step"], expected * history["piloted"], atol=1e-4)
    assert m.min() < 1 and (m[history["piloted"]] >= 5).any()
    dlat, dlon, gone = history["places"]
    ends = np.full_like(history["pair_min_sep"], 1e3)
    for i, j in zip(*np.triu_indices(4, 1), strict=True):
        cos = np.cos(np.radians(52 + (dlat[..., i] + dlat[..., j]) / 2))
        apart = np.hypot(dlat[..., i] - dlat[..., j], (dlon[..., i] - dlon[..., j]) * cos) * geometry.NM_PER_DEG
        ends[..., i, j] = ends[..., j, i] = np.where(gone[..., i] | gone[..., j], 1e3, apart)
    seconds = history["pair_min_sep"]
    assert (seconds <= ends + 1e-3).all() and (ends - seconds).max() > 0.7


def test_who_has_arrived_is_gone():
    """A1 arrives at once; A2 crosses where A1 would have flown on: in the origin it does, and both pay."""
    legs = [("A1", (0, -3), 90, (0, -1.8)), ("A2", (-6, 0), 0, (12, 0))]
    scenario = scenarios.from_legs("gone", scenarios.FIVE_AT, legs)
    rules, params = world(scenario)
    history = fly(rules, params, "noop", 12)
    assert history["waypoint_reached"][0].tolist() == [True, False]
    assert history["reward_parts"]["reach"][:, 0].tolist() == [10] + [0] * 11
    assert not history["reward"][1:, 0].any() and not history["obs"][:, 0].any()
    assert not history["obs"][:, 1, 8:].any()  # no neighbours
    assert not history["conflict_flag"].any() and (history["min_sep"][1:, 1] == 200).all()
    assert not history["reward_parts"]["violate_entry"].any() and not history["reward_parts"]["violate_step"].any()
    state, functions = jax.tree.map(lambda x: jnp.asarray(x[0]), history["state"]), Functions(rules)
    assert functions.alive(state, params).tolist() == [False, True]
    central = np.asarray(functions.global_state(state, params))
    assert central.shape == (19,) and not central[:9].any() and central[16] == 1

    history = fly(*world(scenario, preset="origin"), "noop", 12)
    parts = history["reward_parts"]
    assert history["waypoint_reached"][0].tolist() == [True, False]
    assert np.array_equal(parts["violate_entry"].sum(axis=0), [-25, -25])
    np.testing.assert_allclose(parts["time"][3], [-0.0005, -0.005])
    assert (parts["progress"][5:, 0] < 0).all()


def test_small_commands_count_as_none_and_cost_nothing():
    """With a dead band of 3 deg and 3 kt; the origin charges them all the same."""
    legs = [("A1", (0, 0), 0, (60, 0)), ("A2", (0, 30), 0, (60, 30))]
    scenario = scenarios.from_legs("side", scenarios.FIVE_AT, legs)
    for settings, charged in (({"action_deadband": (3, 3)}, 0.0), ({"preset": "origin"}, -0.004)):
        history = fly(*world(scenario, **settings), (0.15, 0.25), 1)
        assert_same_angles(history["state"].hdg[0], 0, atol=1e-4)
        np.testing.assert_allclose(history["reward_parts"]["act_cost"][0], charged, atol=1e-7)


@pytest.mark.slow
def test_the_horizon_is_an_end_only_where_it_costs():
    for penalty, ends in ((-10.0, True), (0.0, False)):
        history = fly(*world(max_episode_steps=3, reward={"terminal_not_reached_penalty": penalty}), "noop", 3)
        assert history["done"].tolist() == [False, False, True] == history["truncated"].tolist()
        assert history["terminated"][-1] == ends
        np.testing.assert_allclose(history["reward_parts"]["terminal"][-1], penalty)


def test_an_episode_may_end_with_a_near_miss():
    history = fly(*world(terminate_on_nm=0.5), "noop", 24)
    assert history["terminated"].argmax() == 22 and not history["truncated"].any()


@pytest.mark.slow
def test_absent_aircraft_change_nothing():
    one, two = (fly(*world("head_on", **kw), "mvp", 30) for kw in ({}, {"pad_to": 6}))
    for name in ("obs", "reward", "min_sep", "wp_dist"):
        np.testing.assert_allclose(two[name][:, :2], one[name], atol=1e-5, err_msg=name)
    for name in ("terminated", "los_seconds", "team_phi", "success", "path_ratio", "interventions"):
        np.testing.assert_allclose(two[name], one[name], atol=1e-5, err_msg=name)
    assert not two["obs"][:, 2:].any() and not two["reward"][:, 2:].any()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"neighbor_sort": "threat"}, marks=pytest.mark.slow),
        pytest.param({"neighbor_sort": "tcpa", "preset": "origin", "obs": "body"}, marks=pytest.mark.slow),
    ],
)
def test_coincident_aircraft_and_arrivals_stay_finite(settings):
    """Two in one place with one velocity, then exactly head on, then with nobody left."""
    legs = [(f"A{i}", (0, 0), 90, (0, 0.5)) for i in range(2)]
    rules, params = world(scenarios.from_legs("same", scenarios.FIVE_AT, legs), **settings)
    opposite = dataclasses.replace(params.start, hdg=jnp.array([90.0, 270.0]))
    for start, pilot in itertools.product((params.start, opposite), ("noop", "evade_right", "mvp")):
        history = fly(rules, dataclasses.replace(params, start=start), pilot, 4)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(history))
        if "preset" not in settings:  # there arrivals are seen at the ends of steps, and a mile is flown in one
            assert history["state"].arrived.all() and history["done"][0] and not history["reward"][1:].any()


@pytest.mark.slow
def test_mvp_keeps_a_head_on_apart():
    for pilot, success in (("mvp", 1), ("go_to_waypoint", 0), ("evade_right", 1)):
        history = fly(*world(), pilot, 80)
        assert history["success"][ends_at(history)] == success, pilot


# Drift


def test_a_full_circle_pays_no_drift():
    """24 turns of 15 deg close a polygon. Only where the angle counts both ways does a circle pay nothing."""
    legs = [("A1", (0, 0), 40, (30, 0)), ("A2", (0, 40), 40, (30, 40))]
    scenario = scenarios.from_legs("circle", scenarios.FIVE_AT, legs)
    rules, params = world(scenario)
    history = fly(rules, params, (5 / 6, 0.0), 24)
    assert_same_angles(history["state"].hdg[-1], 40, atol=1e-2)
    paid = history["reward_parts"]["drift"]
    np.testing.assert_allclose(paid.sum(axis=0), 0, atol=5e-4)
    angles = history["state"].off_course_deg
    for mode in ("signed", "positive", "origin"):
        change = rewards._drift(angles[:-1], angles[1:], rules._replace(drift=mode), params.rewards)
        if mode == "signed":
            np.testing.assert_allclose(paid[1:], 0.01 * np.asarray(change), atol=1e-6)
        else:
            assert (change >= 0).all() and (change.sum(axis=0) > 50).all()


# Team


def team(potential_before, phi, ended, gamma: float):
    """The team term of transitions, as the reward of one aircraft has it."""
    zeros = jnp.zeros(jnp.shape(phi))
    state = SimpleNamespace(potential=potential_before, smoothed=zeros)
    facts = SimpleNamespace(ended=ended, arrived=zeros[None] > 0)
    return rewards._team(state, facts, phi, Rules(), SimpleNamespace(team_gamma=gamma))[0][0]


LIMITS = SimpleNamespace(separation_nm=5.0, safe_nm=10.0)


def test_the_potential_of_a_separation():
    found = rewards.potential(jnp.array([0.0, 2.5, 5.0, 7.5, 10.0, 200.0]), LIMITS)
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_the_team_term_sums_to_nothing_over_loops(gamma):
    """Around any loop for a discount of 1; with less around those that start where it is safe. Always it telescopes."""
    rng = np.random.default_rng(0)
    for start in (12.0, 3.0):
        separations = np.array([start, *rng.uniform(0, 12, 30), start])
        phi = rewards.potential(jnp.asarray(separations), LIMITS)
        paid = np.array(team(phi[:-1], phi[1:], jnp.zeros(31, bool), gamma), float)
        total = (gamma ** np.arange(31) * paid).sum()
        np.testing.assert_allclose(total, (gamma**31 - 1) * (float(phi[0]) - 1), atol=1e-5)
        if gamma == 1.0 or start > 10:
            assert abs(total) < 1e-5 and np.abs(paid).max() > 0.1
        # An episode that ends leaves nothing behind but minus its first potential.
        ended = jnp.arange(31) == 30
        total = (gamma ** np.arange(31) * np.array(team(phi[:-1], phi[1:], ended, gamma), float)).sum()
        np.testing.assert_allclose(total, 1 - float(phi[0]), atol=1e-5)


def solve(p, reward, done, gamma):
    """Values Q [states, actions] by value iteration; `reward` and `p` [states, actions, states]."""
    q = np.zeros(p.shape[:2])
    for _ in range(3000):
        q = (p * (reward + gamma * ~done * q.max(axis=1))).sum(axis=2)
    return q


@pytest.mark.parametrize("seed", range(4))
def test_the_team_term_does_not_change_what_is_best(seed):
    """Small random worlds whose states are separations, solved with and without it; a bonus would change them."""
    rng, gamma, n = np.random.default_rng(seed), 0.97, 12
    separations = rng.uniform(0, 12, n)
    done = np.arange(n) >= n - 2
    p = rng.dirichlet(np.full(n, 0.3), (n, 3))
    base = rng.normal(0, 0.3, (n, 3, n))
    phi = np.asarray(rewards.potential(jnp.asarray(separations), LIMITS))
    before, after, ended = (np.broadcast_to(x, (n, n)).reshape(-1) for x in (phi[:, None], phi, done))
    shaping = np.array(team(jnp.asarray(before), jnp.asarray(after), jnp.asarray(ended), gamma), float).reshape(n, 1, n)
    live = ~done
    plain, shaped = (solve(p, reward, done, gamma)[live] for reward in (base, base + 0.6 * shaping))
    np.testing.assert_array_equal(shaped.argmax(axis=1), plain.argmax(axis=1))
    np.testing.assert_allclose(plain - shaped, np.broadcast_to(0.6 * (phi[live, None] - 1), plain.shape), atol=1e-4)
    bonus = solve(p, base + 0.6 * phi, done, gamma)[live]
    assert (bonus.argmax(axis=1) != plain.argmax(axis=1)).any()


def test_the_origins_team_term():
    """A clipped moving average of 0.99 Phi' - Phi, in shares of who is close."""
    rules = Rules(team="smoothed", team_share="responsibility")
    numbers = SimpleNamespace(team_gamma=0.99, team_ema=0.05, team_cap=0.05, team_anneal=1.0)
    pairs = jnp.array([[4.0, 9.0, 12.0]])[..., None]  # 0-1, 1-2, 2-0
    facts = SimpleNamespace(pairs_nm=pairs, paid=jnp.ones((3, 1), bool))
    state = SimpleNamespace(potential=jnp.array([0.9]), smoothed=jnp.array([0.01]))
    term, smoothed = rewards._team(state, facts, jnp.array([0.4]), rules, numbers)
    expected = 0.95 * 0.01 + 0.05 * (0.99 * 0.4 - 0.9)
    np.testing.assert_allclose(smoothed, [expected], rtol=1e-5)
    np.testing.assert_allclose(term[:, 0], np.array([2, 2, 1]) * 3 / 5 * expected, rtol=1e-5)
    state = SimpleNamespace(potential=jnp.array([1.0]), smoothed=jnp.array([-0.5]))
    term, _ = rewards._team(state, facts, jnp.array([0.0]), rules, numbers)
    np.testing.assert_allclose(term.sum(), -3 * 0.05, rtol=1e-5)
