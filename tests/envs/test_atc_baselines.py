"""Air traffic: scripted pilots, and what they are paid in the preset `origin` (calibration of the specification)."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from airspaces import assert_same_angles, ends_at, fly, stacked, started, world
from atc_recordings import each_recording, load, options_of, shifted

from envs_jax.atc import baselines, kinematics, scenarios
from envs_jax.atc.params import GRAVITY, KNOT_MS, NM_M, TAN_BANK

NAMES = (*scenarios.FIVE, *scenarios.NINE)


def after_guidance(scenario):
    """The scenario two seconds on: before its first observation the original flies them under route guidance, from
    positions with six decimals and headings in whole degrees along the great circle to the waypoint. A wind rises after
    the first of them."""
    from_deg, wind_kt = scenario.wind or (0.0, 0.0)
    agents = []
    for agent in scenario.agents:
        places = agent.lat, agent.lon, agent.waypoint_lat, agent.waypoint_lon
        lat, lon, to_lat, to_lon = np.radians(np.round(places, 6))
        hdg = float(round(agent.hdg_deg))
        tas = kinematics.tas_of_cas(agent.spd_kt * KNOT_MS)
        for wind_ms in (0.0, wind_kt * KNOT_MS):
            wind_north, wind_east = -wind_ms * np.cos(np.radians(from_deg)), -wind_ms * np.sin(np.radians(from_deg))
            east = np.sin(to_lon - lon) * np.cos(to_lat)
            north = np.cos(lat) * np.sin(to_lat) - np.sin(lat) * np.cos(to_lat) * np.cos(to_lon - lon)
            most, track = np.degrees(GRAVITY * TAN_BANK / tas), np.arctan2(east, north)
            across = wind_north * np.sin(track) - wind_east * np.cos(track)
            wanted = np.degrees(track + np.arcsin(across / tas))
            hdg += np.clip(kinematics.wrap_deg(wanted - hdg), -most, most)
            lat += (tas * np.cos(np.radians(hdg)) + wind_north) / 6_371_000
            lon += (tas * np.sin(np.radians(hdg)) + wind_east) / 6_371_000 / np.cos(lat)
        agents.append(agent._replace(lat=np.degrees(lat), lon=np.degrees(lon), hdg_deg=hdg % 360))
    return scenario._replace(agents=tuple(agents))


@each_recording
def test_two_seconds_of_guidance_are_the_originals(path):
    rollout = load(path)
    scenario = shifted(scenarios.named(str(rollout["scenario"])), options_of(rollout))
    agents, state = after_guidance(scenario).agents, rollout["state"][0]
    np.testing.assert_allclose([(a.lat, a.lon) for a in agents], state[:, :2], rtol=0, atol=1e-9)
    assert_same_angles([a.hdg_deg for a in agents], state[:, 2], atol=1e-9)


@pytest.fixture(scope="module")
def flights():
    """`noop` and `evade_right` in the fourteen scenarios: what a row of the specification's table says of each."""
    with jax.enable_x64(True):
        rules, _ = world("canonical_crossing", preset="origin")
        scenes = [after_guidance(scenarios.named(name)) for name in NAMES]
        params = stacked([world(scene, preset="origin", pad_to=4)[1] for scene in scenes])
        return {pilot: rows(fly(rules, params, pilot, 150)) for pilot in ("noop", "evade_right")}


def rows(history) -> dict[str, SimpleNamespace]:
    found = {}
    for i, (name, last) in enumerate(zip(NAMES, ends_at(history), strict=True)):
        n = len(scenarios.named(name).agents)
        lost, reward, least, arrived = (
            history[key][: last + 1, i, :n] for key in ("conflict_flag", "reward", "min_sep", "waypoint_reached")
        )
        lost = lost.any(axis=1)
        found[name] = SimpleNamespace(
            steps=len(lost), reward=reward.sum(axis=0), least=least.min(), lost=lost.sum(), first=lost.argmax(),
            arrived=arrived[-1].all(),
        )  # fmt: skip
    return found


NOOP = {
    "head_on": (44, [-16.77, -16.77], 0.42, 6, 19),
    "parallel": (36, [11.81, 10.81, 9.67], 8.01, 0, 0),
    "t_formation": (49, [-17.10, -17.05, -16.64], 1.56, 11, 11),
    "canonical_crossing": (30, [-19.14, -19.36, -19.15, -19.36], 0.41, 9, 10),
    "converging": (14, [-18.70, -18.51, -16.85, -15.69], 0.61, 10, 4),
}
"""steps, returns, least separation, steps with a loss of it, the first of them."""


@pytest.mark.parametrize("name", NOOP)
def test_doing_nothing_pays_in_the_origin_what_it_did(flights, name):
    found, (steps, reward, least, lost, first) = flights["noop"][name], NOOP[name]
    np.testing.assert_allclose(found.reward, reward, atol=0.01)
    np.testing.assert_allclose(found.least, least, atol=0.0101)
    assert (found.steps, found.lost, found.first, found.arrived) == (steps, lost, first, True)


@pytest.mark.parametrize("name", scenarios.NINE)
def test_doing_nothing_in_the_nine(flights, name):
    """Of them the specification has ranges."""
    found = flights["noop"][name]
    assert found.arrived
    if name.startswith("chase"):
        assert (found.steps, found.lost) == (36, 0) and abs(found.least - 6.0) < 0.01 and (found.reward > 9).all()
    elif name.startswith("cross"):
        crossing = found.reward[:3] if name == "cross_3p1" else found.reward
        assert (found.steps, found.lost, found.first) == (36, 8, 14) and abs(found.least - 0.50) < 0.01
        np.testing.assert_allclose(crossing, -18.8, atol=0.3)
        if name == "cross_3p1":
            np.testing.assert_allclose(found.reward[3], 11.5, atol=0.05)
    else:
        merging = found.reward[:3] if name == "merge_3p1" else found.reward
        assert found.steps in (61, 62) and 0.1 <= found.least <= 0.4 and 23 <= found.lost <= 35
        assert merging.min() > -35 and merging.max() < -24.5


def test_evading_to_the_right_in_the_origin(flights):
    """Where the rule works it keeps everyone apart for about the same return, and elsewhere makes things worse."""
    for name, reward in {"head_on": 12.3, "canonical_crossing": 11.6, "cross_2x2": 12, "cross_4all": 12}.items():
        found = flights["evade_right"][name]
        np.testing.assert_allclose(found.reward, reward, atol=0.6, err_msg=name)
        assert found.lost == 0 and 8 < found.least < 9.1 and found.arrived
    for name in ("parallel", "t_formation", "converging", "chase_4all", "merge_4all"):
        assert flights["evade_right"][name].lost > 0 and flights["evade_right"][name].least < 4, name


def cpa_state(*aircraft):
    """`(state, params)` of aircraft (north, east, hdg, waypoint), at the equator so that the plane is flat."""
    legs = [(f"A{i}", (n, e), hdg, goal) for i, (n, e, hdg, goal) in enumerate(aircraft)]
    rules, params = world(scenarios.from_legs("cpa", (0.0, 0.0), legs))
    return started(rules)(params.start, params)[1], params


def voltage(at, velocity, margin: float):
    """Change of velocity [N, 2] in NM/s: the specification's text, aircraft by aircraft."""
    change = np.zeros_like(at)
    radius = margin * 5.0
    conflict = np.zeros(len(at), bool)
    for i in range(len(at)):
        for j in range(len(at)):
            r, w = at[j] - at[i], velocity[j] - velocity[i]
            if i == j or w @ w < 1e-12:
                continue
            tcpa = -(r @ w) / (w @ w)
            c, distance = r + w * tcpa, np.hypot(*r)
            if np.hypot(*c) >= radius:
                continue
            half = np.sqrt(radius**2 - c @ c) / np.hypot(*w)
            if not (tcpa + half > 0 and tcpa - half < 300):
                continue
            conflict[i] = True
            if np.hypot(*c) < 10 / NM_M:
                c = 10 / NM_M * np.array([-r[1], r[0]]) / distance
            size = np.hypot(*c)
            e = np.cos(np.arcsin(radius / distance) - np.arcsin(size / distance)) if distance > radius else 1.0
            change[i] -= (radius / e - size) / (abs(tcpa) * size) * c
    return change, conflict


def test_mvp_is_the_voltage_potential(x64):
    """Against its text, in random traffic with exact encounters among it, for both margins."""
    rng = np.random.default_rng(0)
    seen = 0
    for case in range(12):
        at, hdg = rng.uniform(-14, 14, (4, 2)), rng.uniform(0, 360, 4)
        if case < 2:
            at[:2], hdg[:2] = [(-12, 3), (12, 3)], (0, 180)  # exactly head on
        goals = at + 40 * np.stack([np.cos(np.radians(hdg + 9)), np.sin(np.radians(hdg + 9))], axis=1)
        state, params = cpa_state(*((*at[i], hdg[i], tuple(goals[i])) for i in range(4)))
        flat = 3440.065 * np.pi / 180 / 60  # the world's NM of a sixtieth of a degree
        tas = np.asarray(state.tas)
        velocity = (tas / NM_M * np.stack([np.cos(np.radians(hdg)), np.sin(np.radians(hdg))])).T
        for margin in (1.2, 1.05):
            change, conflict = voltage(at * flat, velocity, margin)
            wanted = velocity + change
            turn = (np.degrees(np.arctan2(wanted[:, 1], wanted[:, 0])) - hdg + 180) % 360 - 180
            speed = np.clip(np.hypot(*wanted.T) * NM_M, 60, kinematics.tas_of_cas(180.0))
            faster = (kinematics.cas_of_tas(speed) - kinematics.cas_of_tas(tas)) / KNOT_MS
            # Without a conflict to the waypoint, which is nine degrees to the right, and back to 250 kt.
            free = np.stack([np.full(4, 0.5), (250 - kinematics.cas_of_tas(tas) / KNOT_MS) / 10], axis=1)
            expected = np.where(conflict[:, None], np.stack([turn / 18, faster / 10], axis=1), free)
            found = jax.jit(baselines.mvp)(state, params, margin)
            np.testing.assert_allclose(found, np.clip(expected, -1, 1), atol=2e-3, err_msg=f"{case} {margin}")
            seen += conflict.sum()
    assert 20 < seen < 90


def test_pilots_in_two_encounters():
    ahead = cpa_state((0, 0, 0, (30, 0)), (13, 0, 180, (-30, 0)))
    evade_right, mvp = jax.jit(baselines.evade_right), jax.jit(baselines.mvp)
    np.testing.assert_allclose(evade_right(*ahead), [[0.8, 0], [0.8, 0]])
    np.testing.assert_array_equal(baselines.noop(*ahead), np.zeros((2, 2)))
    # Fifteen miles are far; 51 deg off course is enough; arrived aircraft are nobody's concern.
    far = cpa_state((0, 0, 0, (30, 5)), (15, 0, 180, (-30, 0)))
    np.testing.assert_allclose(evade_right(*far)[0], [np.degrees(np.arctan2(5, 30)) / 18, 0], atol=1e-5)
    off = cpa_state((0, 0, 51, (30, 0)), (13, 0, 180, (-30, 0)))
    np.testing.assert_allclose(evade_right(*off)[0], [-1, 0], atol=1e-5)
    state, params = ahead
    gone = state.replace(arrived=jnp.array([False, True]))
    for pilot in (evade_right, mvp):
        np.testing.assert_allclose(pilot(gone, params)[0], [0, 0], atol=1e-4)
