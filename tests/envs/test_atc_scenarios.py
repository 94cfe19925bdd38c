"""Air traffic: scenarios and their files, jittered starts, random traffic."""

import json
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from airspaces import assert_same_angles, positions_nm, world

import envs_jax
from envs_jax.atc import geometry, kinematics, scenarios, traffic
from envs_jax.atc.config import AtcConfig, TrafficConfig
from envs_jax.atc.env import Functions, params_of
from envs_jax.atc.params import KNOT_MS, NM_M
from purerl import train

# Files


def test_scenarios_survive_their_files(tmp_path):
    all_of_them = [scenarios.named(name) for name in (*scenarios.FIVE, *scenarios.NINE, *scenarios.CIRCLES)]
    assert len(all_of_them) == 16
    extras = {"seed": 7, "notes": "west wind", "wind": (270.0, 20.0), "jitter": {"position_nm": 1.0}}
    for scenario in (*all_of_them, all_of_them[0]._replace(**extras)):
        scenarios.check(scenario)
        scenarios.write(scenario, tmp_path / "one.json")
        assert scenarios.read(tmp_path / "one.json") == scenario


def test_a_file_is_flown_as_the_scenario_in_it(tmp_path):
    scenario = scenarios.named("merge_4all")
    scenario = scenario._replace(wind=(270.0, 20.0), jitter={"heading_deg": 3.0})
    scenarios.write(scenario, tmp_path / "one.json")
    env = envs_jax.make("atc/head_on", scenario_file=str(tmp_path / "one.json"))
    assert (env.num_agents, env.max_episode_length, env.name) == (4, 150, "atc/merge_4all")
    params = env.default_params
    np.testing.assert_allclose((params.wind_east_ms, params.wind_north_ms), (20 * KNOT_MS, 0), atol=1e-5)
    np.testing.assert_allclose((params.jitter.heading_deg, params.jitter.position_nm), (3, 0))


def test_converging_is_the_published_one():
    published = [
        (51.855394809176154, 3.948342288242974, 20.077294807668068, 52.04333333333334, 4.059556539001034),
        (52.113208888623795, 3.8590522263912144, 140.0966580934106, 51.96, 4.067677885228448),
        (52.07306296886672, 4.249807852804951, 259.992380242021, 52.038333333333334, 3.9296149993624145),
        (51.80512444470954, 4.146354248422229, 319.90382170678566, 51.958333333333336, 3.937736345589828),
    ]
    found = [agent[1:6] for agent in scenarios.named("converging").agents]
    np.testing.assert_allclose(found, published, rtol=0, atol=1e-9)


def test_circles_are_round_and_cross_their_centre():
    for name, count in (("circle_10", 10), ("circle_16", 16)):
        agents, scale = scenarios.named(name).agents, 60 * np.cos(np.radians(52))
        starts = np.array([((a.lat - 52) * 60, (a.lon - 4) * scale) for a in agents])
        goals = np.array([((a.waypoint_lat - 52) * 60, (a.waypoint_lon - 4) * scale) for a in agents])
        assert len(agents) == count and len({a.id for a in agents}) == count
        np.testing.assert_allclose(np.hypot(*starts.T), 25.0)
        np.testing.assert_allclose(goals, -starts, atol=1e-9)
        course = np.degrees(np.arctan2(*(goals - starts).T[::-1]))
        assert_same_angles(course, [a.hdg_deg for a in agents], atol=1e-9)


def test_scenarios_have_their_parameters():
    other = scenarios.t_formation(7.5)
    scale = 60 * np.cos(np.radians(52))
    starts = [((a.lat - 52) * 60, (a.lon - 4) * scale) for a in other.agents]
    goals = [((a.waypoint_lat - 52) * 60, (a.waypoint_lon - 4) * scale) for a in other.agents]
    np.testing.assert_allclose(starts, [(0, -7.5), (-10, -7), (-6, -7)], atol=1e-9)
    np.testing.assert_allclose(goals, [(0, 7.5), (8, -7), (6, -7)], atol=1e-9)
    faster = scenarios.with_speed_spread(scenarios.named("parallel"), 20.0)
    assert [a.spd_kt for a in faster.agents] == [270, 260, 250]
    one = envs_jax.make("atc/t_formation", t_arm_nm=7.5).default_params.start
    np.testing.assert_allclose(positions_nm(one.dlat, one.dlon, 52)[1], [-7.5, -7, -7], atol=0.05)


BAD_FILES = [
    (lambda d: d["agents"][0].update(type="A999"), "aircraft A1: unknown type 'A999'; known: A320, B738, B744, CRJ9"),
    (lambda d: d["agents"][1].update(id="A1"), "aircraft A1: id appears twice"),
    (lambda d: d["agents"][0].update(lat=float("nan")), "aircraft A1: lat is nan, not a finite number"),
    (lambda d: d["agents"][0].update(lat="52"), "aircraft A1: lat is '52', not a finite number"),
    (lambda d: d["agents"][0].update(lat=10**400), "not a finite number"),
    (lambda d: d["agents"][0].update(spd_kt=400), "aircraft A1: spd_kt 400 is outside the envelope 130.2 to 316.8 kt"),
    (lambda d: d["agents"][0].update(hdg_deg=360), "hdg_deg 360 is not in [0, 360)"),
    (lambda d: d["agents"][0].update(alt_ft=12000), "aircraft A1: alt_ft 12000: only 10000 can be simulated"),
    (lambda d: d["agents"][0].update(lat=52.29), "aircraft A1 and A2 start 0.60 NM apart, closer than 5"),
    (lambda d: d["agents"][0].update(lat=32.0), "aircraft A1: start 32, 4 is too far from the centre"),
    (lambda d: d.update(agent=[]), "unknown key 'agent'; known: agents"),
    (lambda d: d["agents"][0].pop("waypoint"), "aircraft A1: waypoint: missing"),
    (lambda d: d["agents"][0].pop("id"), "agents[0]: id must be a text"),
    (lambda d: d.update(agents=[]), "at least one aircraft"),
    (lambda d: d.update(max_episode_steps=2.5), "max_episode_steps 2.5: must be a whole number from 1 to 10000"),
    (lambda d: d.update(sim_dt_s=0.5), "sim_dt_s 0.5: only 1.0 can be simulated"),
    (lambda d: d.update(wind={"dir_deg": 0, "kt": 900}), "wind: kt 900 is not in [0, 100]"),
    (lambda d: d.update(jitter={"speed_kt": -1}), "jitter: speed_kt -1 is negative"),
    ("{", "cannot be read as JSON"),
    ("[]", "the file: missing, or not an object with agents"),
]


@pytest.mark.parametrize(("change", "message"), BAD_FILES)
def test_bad_files_are_one_line_and_exit_code_2(tmp_path, capsys, change, message):
    """Given to the trainer, as users do."""
    data = scenarios.to_json(scenarios.named("head_on"))
    text = change if isinstance(change, str) else json.dumps((change(data), data)[1])
    path, config = tmp_path / "bad.json", tmp_path / "run.yaml"
    path.write_text(text)
    env = {"name": "atc/head_on", "scenario_file": str(path)}
    config.write_text(yaml.safe_dump({"device": "cpu", "env": env, "algo": {"name": "ppo"}}))
    with pytest.raises(scenarios.ScenarioError):
        scenarios.read(path)
    assert train.main(["--config", str(config), "--run-dir", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "bad.json" in line and message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("env.scenario_file=gone.json", "gone.json: no such file"),
        ("env.scenario=head_of", "scenario 'head_of': known are head_on"),
        ("env.neighbour_topk=2", "did you mean 'env.neighbor_topk'?"),
        ("env.pad_to=2", "env: pad_to 2: parallel has 3 aircraft"),
        ("env.aircraft_type=A999", "aircraft_type 'A999': known are A320"),
        ("env.traffic={min_aircraft: 9}", "min_aircraft must not exceed max_aircraft"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch, setting, message):
    monkeypatch.chdir(tmp_path)
    config = {"device": "cpu", "env": {"name": "atc/parallel"}, "algo": {"name": "ppo"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert train.main(["--config", "run.yaml", "--run-dir", "run", setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


# Jitter


@lru_cache
def _resets(rules):
    return jax.jit(jax.vmap(Functions(rules).reset, (0, None)))


def reset_many(rules, params, count: int):
    return jax.device_get(_resets(rules)(jax.random.split(jax.random.key(0), count), params)[1])


def test_jitter_keeps_starts_apart_and_inside():
    rules, params = world("parallel", jitter={})
    state = reset_many(rules, params, 500)
    nominal = positions_nm(params.start.dlat, params.start.dlon, 52)[:, None]
    for moved in positions_nm(state.dlat, state.dlon, 52) - nominal:
        assert 1.9 < np.abs(moved).max() <= 2.02 and abs(moved.mean()) < 0.1
    assert state.min_sep_nm.min() >= 6.0
    turned = kinematics.wrap_deg(state.hdg)
    assert 9.5 < np.abs(turned).max() <= 10.001 and abs(turned.mean()) < 0.5
    cas_kt = kinematics.cas_of_tas(state.tas) / KNOT_MS
    assert 14 < np.abs(cas_kt - 250).max() <= 15.01
    assert len(np.unique(state.dlat[:, 0])) > 490


def test_a_start_owes_nothing_to_others_that_need_more_draws(same_keys):
    rules, params = world("converging", jitter={"position_nm": 3.0})
    keys = jax.random.split(jax.random.key(1), 40)
    together = jax.device_get(_resets(rules)(keys, params)[1])
    alone = [jax.device_get(_resets(rules)(keys[i : i + 1], params)[1]) for i in range(len(keys))]
    each = jax.tree.map(lambda *states: np.concatenate(states), *alone)
    assert_same_angles(together.hdg, each.hdg, atol=4e-4)
    for name in ("dlat", "dlon"):
        np.testing.assert_allclose(getattr(together, name), getattr(each, name), rtol=1e-6)


def test_starts_that_cannot_be_apart_stay_where_they_were():
    """5.5 NM apart and moved by a tenth of a mile they never come to 6; without jitter nothing moves."""
    legs = [("A1", (0, 0), 0, (30, 0)), ("A2", (0, 5.5), 0, (30, 5.5))]
    scenario = scenarios.from_legs("close", scenarios.FIVE_AT, legs)
    for jitter in ({"position_nm": 0.1}, 0):
        rules, params = world(scenario, jitter=jitter)
        state = reset_many(rules, params, 20)
        np.testing.assert_array_equal(state.dlat, np.broadcast_to(params.start.dlat, (20, 2)))
        np.testing.assert_array_equal(state.dlon, np.broadcast_to(params.start.dlon, (20, 2)))
        assert (np.ptp(state.hdg) > 0) == (jitter != 0)


# Random traffic


def drawn(count: int, **settings):
    """Starts [B, N] of random traffic, and the first of their random numbers, which chooses the family."""
    config = TrafficConfig(**settings)
    params = params_of(AtcConfig(), traffic.placeholder(config.max_aircraft, None), config.max_aircraft)
    generator = traffic.generator(config, config.max_aircraft)
    words = jax.random.bits(jax.random.key(3), (generator.words, count), jnp.uint32)
    start = jax.jit(generator.draw)(words, jax.tree.map(lambda x: x[..., None], params))
    return jax.tree.map(lambda x: np.asarray(x).T, start), np.asarray(words[0]) / 2**32


def separations(start) -> np.ndarray:
    """[B, N, N] of those present, else far."""
    cos = np.cos(np.radians(52 + 0.5 * (start.dlat[:, None] + start.dlat[:, :, None])))
    north = start.dlat[:, None] - start.dlat[:, :, None]
    east = (start.dlon[:, None] - start.dlon[:, :, None]) * cos
    pairs = start.present[:, None] & start.present[:, :, None] & ~np.eye(start.dlat.shape[1], dtype=bool)
    return np.where(pairs, np.hypot(north, east) * geometry.NM_PER_DEG, 1e3)


FAMILIES = list(traffic._FAMILIES)


@pytest.fixture(scope="module")
def scenes():
    """Start of 4000 scenes of three to five aircraft, of all families."""
    return drawn(4000, families=dict.fromkeys(FAMILIES, 1.0), min_aircraft=3, max_aircraft=5)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_traffic_is_apart_turned_and_shuffled(scenes, family):
    start = jax.tree.map(lambda x: x[np.floor(scenes[1] * len(FAMILIES)) == FAMILIES.index(family)], scenes[0])
    present, many = start.present, len(start.present)
    assert 480 < many < 660
    assert (separations(start) >= 8.0 - 1e-3).all()
    counts = np.bincount(present.sum(axis=1), minlength=6) / many
    assert counts[0] == 0 and counts[3:].sum() > 0.8, counts
    quarters = np.histogram(start.hdg[present], 4, (0, 360))[0]
    assert quarters.min() > 0.85 * quarters.mean()
    # No seat is special: everyone is there, and has the longest way, as often as anyone.
    here, goal = positions_nm(start.dlat, start.dlon, 52), positions_nm(start.goal_dlat, start.goal_dlon, 52)
    longest = np.bincount(np.where(present, np.hypot(*(goal - here)), 0).argmax(axis=1), minlength=5) / many
    assert np.ptp(present.mean(axis=0)) < 0.12
    assert np.ptp(longest) < 0.12 or family == "uniform"  # where all ways are equally long
    cas_kt = start.cas[present] / KNOT_MS
    assert cas_kt.min() >= 225 - 1e-3 and cas_kt.max() <= 275 + 1e-3
    assert np.ptp(cas_kt) > 20 or family == "converging"
    # Headings are those to the waypoint, with ten degrees of jitter; in streams those of the stream, some miles aside.
    cos = np.cos(np.radians(52 + 0.5 * (start.dlat + start.goal_dlat)))
    course = np.degrees(np.arctan2((start.goal_dlon - start.dlon) * cos, start.goal_dlat - start.dlat))
    off = np.abs(kinematics.wrap_deg(course - start.hdg))[present]
    assert 4 < np.median(off) < 6.5 and off.max() < (17 if family in ("chase", "lattice") else 13)
    if family == "circle":  # where nobody has to stay away: as many as asked for, around the circle
        np.testing.assert_allclose(counts[3:], 1 / 3, atol=0.07)
        far = np.hypot(*here)[present]
        assert far.min() >= 22.99 and far.max() <= 27.01


def test_crossing_aircraft_lose_separation_when_and_as_closely_as_drawn():
    """With the headings before their jitter: loss in 100 to 300 s, miss distance up to 5 NM on either side."""
    start, _ = drawn(2000, families={"crossing": 1.0}, min_aircraft=2, max_aircraft=2)
    start = jax.tree.map(lambda x: x[start.present.all(axis=1)].astype(float), start)
    assert len(start.hdg) > 1800
    at, goal = positions_nm(start.dlat, start.dlon, 52), positions_nm(start.goal_dlat, start.goal_dlon, 52)
    speed = kinematics.tas_of_cas(start.cas) / NM_M * (goal - at) / np.hypot(*(goal - at))
    flight = (*(at[..., 1] - at[..., 0]), *(speed[..., 1] - speed[..., 0]))
    begins, _, lost = map(np.asarray, geometry.loss_window(*flight, 5.001))
    miss = np.asarray(geometry.closest_approach(*flight)[1])
    assert lost.mean() > 0.999
    begins, miss = begins[lost], miss[lost]
    # Near a miss distance of 5 NM a thousandth of it moves the moment of the loss by seconds.
    assert 95 < begins.min() < 115 and 290 < begins.max() < 301 and abs(begins.mean() - 205) < 10
    assert miss.min() < 0.1 and 4.9 < miss.max() <= 5.0011 and abs(miss.mean() - 2.5) < 0.15
    side = np.sign(flight[0] * flight[3] - flight[1] * flight[2])
    assert abs(side.mean()) < 0.1
