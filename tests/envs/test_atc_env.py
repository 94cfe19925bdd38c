"""Air traffic: the contract, symmetries, batches."""

import jax
import numpy as np
import pytest
from airspaces import ends_at, fly, stacked, started, world

import envs_jax
from envs_jax.atc import scenarios
from envs_jax.atc.env import Functions
from envs_jax.check import check_env


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("head_on", {"pad_to": 3, "action": "discrete", "action_delay_steps": 2}),
        ("parallel", {"preset": "origin"}),
        ("generic", {"entry_per_pair": True, "pad_to": 7}),
    ],
)
@pytest.mark.slow
def test_contract(name, settings):
    check_env(envs_jax.make(f"atc/{name}", **settings), steps=15)


def turned(scenario, angle_deg: float, north_nm: float, east_nm: float, order):
    """The scene turned about its centre, moved, its aircraft in another order. Exact at the equator, where the plane
    of latitude and longitude is flat for a scene of this size."""
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    scale = np.cos(np.radians(scenario.lat))

    def place(lat, lon):
        north, east = lat - scenario.lat, (lon - scenario.lon) * scale
        return (
            scenario.lat + north * cos - east * sin + north_nm / 60,
            scenario.lon + (north * sin + east * cos + east_nm / 60) / scale,
        )

    def moved(agent):
        (lat, lon), (goal_lat, goal_lon) = place(agent.lat, agent.lon), place(agent.waypoint_lat, agent.waypoint_lon)
        hdg = (agent.hdg_deg + angle_deg) % 360
        return agent._replace(lat=lat, lon=lon, hdg_deg=hdg, waypoint_lat=goal_lat, waypoint_lon=goal_lon)

    return scenario._replace(agents=tuple(moved(scenario.agents[i]) for i in order))


SAME, ORDER = [0, 1, 2, 3], [2, 0, 3, 1]
BASE = scenarios.named("converging")
EQUATOR = BASE._replace(
    lat=0.0, agents=tuple(a._replace(lat=a.lat - BASE.lat, waypoint_lat=a.waypoint_lat - BASE.lat) for a in BASE.agents)
)
CASES = [
    (EQUATOR, 0.0, 0.0, 0.0, SAME), (EQUATOR, 70.0, 0.0, 0.0, SAME), (EQUATOR, 0.0, 5.0, -8.0, SAME),
    (EQUATOR, 0.0, 0.0, 0.0, ORDER), (BASE, 0.0, 0.0, 0.0, SAME), (BASE, 0.0, 0.0, -8.0, ORDER),
]  # fmt: skip


@pytest.fixture(scope="module")
def converging():
    """Parameters and flights to the waypoints of all cases."""
    params = stacked([world(turned(*case))[1] for case in CASES])
    return params, fly(world(BASE)[0], params, "go_to_waypoint", 40)


@pytest.mark.slow
def test_nothing_depends_on_the_compass_the_place_or_the_numbering(converging):
    _, history = converging
    assert np.abs(history["reward"][:8]).max() > 20  # there are conflicts
    for i, (scenario, *_, order) in enumerate(CASES):
        for name in ("obs", "reward"):
            expected = history[name][:8, CASES.index((scenario, 0.0, 0.0, 0.0, SAME))][:, order]
            np.testing.assert_allclose(history[name][:8, i], expected, atol=1e-4, err_msg=f"{name} {CASES[i][1:]}")


def test_whole_episodes_pay_a_team_as_little(converging):
    """From the start through conflicts to the waypoints: minus the first potential, for everyone."""
    params, history = converging
    case = jax.tree.map(lambda x: x[4], params)
    first = float(started(world(BASE)[0])(case.start, case)[1].potential)
    paid = history["reward_parts"]["team"][: ends_at(history)[4] + 1, 4] / 0.6
    total = (0.995 ** np.arange(len(paid))[:, None] * paid).sum(axis=0)
    np.testing.assert_allclose(total, 1 - first, atol=1e-4)
    assert np.abs(paid).max() > 0.1


@pytest.mark.slow
def test_many_airspaces_are_as_one():
    env = envs_jax.make("atc/canonical_crossing")
    params, n = env.default_params, 4096
    keys = jax.random.split(jax.random.key(0), n)
    actions = jax.random.uniform(jax.random.key(1), (n, 4, 2), minval=-1, maxval=1)
    together, alone = jax.jit(jax.vmap(env.step_env, (0, 0, 0, None))), jax.jit(env.step_env)
    with jax.debug_key_reuse(False):
        _, states = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
        for _ in range(3):
            many = together(keys, states, actions, params)
            for i in (0, 1, 2047, 2048, 4095):
                one = alone(keys[i], jax.tree.map(lambda x, i=i: x[i], states), actions[i], params)
                for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
                    np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4)
            states = many[1]
    assert together._cache_size() == alone._cache_size() == 1


@pytest.mark.slow
def test_one_state_meets_many_actions():
    rules, params = world()
    functions, actions = Functions(rules), jax.random.uniform(jax.random.key(0), (5, 2, 2), minval=-1, maxval=1)
    state = started(rules)(params.start, params)[1]
    many = jax.jit(jax.vmap(functions.step, (None, None, 0, None)))(None, state, actions, params)
    one = jax.jit(functions.step)(None, state, actions[3], params)
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a[3], b, atol=1e-5)


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="neighbour_topk"):
        envs_jax.make("atc/head_on", neighbour_topk=3)
    with pytest.raises(ValueError, match="pad_to 2: parallel has 3 aircraft"):
        envs_jax.make("atc/parallel", pad_to=2)
