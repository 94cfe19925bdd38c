"""Air traffic: airspeeds, envelopes and acceleration of the types, turns, wind, actions."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from airspaces import assert_same_angles, fly, started, world

import envs_jax
from envs_jax.atc import geometry, kinematics, scenarios
from envs_jax.atc.actions import as_discrete
from envs_jax.atc.params import GRAVITY, KNOT_MS, NM_M, SOUND_MS, TAN_BANK, TYPES, Rules
from envs_jax.atc.step import _taken

TAS_MS = np.array([80, 95, 110, 125, 140, 150, 160, 175, 187.0])
ACCELERATION = {
    "A320": [1.053, 1.100, 1.079, 1.019, 0.934, 0.867, 0.794, 0.675, 0.572],
    "B738": [0.991, 1.049, 1.033, 0.975, 0.890, 0.822, 0.748, 0.626, 0.520],
    "B744": [0.577, 0.712, 0.747, 0.725, 0.668, 0.617, 0.556, 0.500, 0.500],
    "CRJ9": [1.220, 1.234, 1.186, 1.101, 0.993, 0.911, 0.823, 0.680, 0.558],
}
ENVELOPE = {
    "A320": (130.238, 316.847, 0.80),
    "B738": (139.957, 312.959, 0.80),
    "B744": (139.957, 349.892, 0.87),
    "CRJ9": (124.406, 309.072, 0.79),
}
"""kt calibrated, kt calibrated, Mach."""


@pytest.mark.parametrize(
    ("cas_kt", "tas_kt", "step_nm", "rate", "radius_nm"),
    [
        (130.2, 151.23, 0.4201, 3.368, 0.715),
        (200, 231.58, 0.6433, 2.199, 1.676),
        (250, 288.71, 0.8020, 1.764, 2.605),
        (300, 345.38, 0.9594, 1.475, 3.728),
        (316.8, 364.37, 1.0121, 1.398, 4.149),
    ],
)
def test_speeds_at_the_flight_level(cas_kt, tas_kt, step_nm, rate, radius_nm):
    tas = kinematics.tas_of_cas(cas_kt * KNOT_MS)
    turn = GRAVITY * TAN_BANK / tas
    found = tas / KNOT_MS, 10 * tas / NM_M, np.degrees(turn), tas / turn / NM_M
    np.testing.assert_allclose(found, (tas_kt, step_nm, rate, radius_nm), rtol=1e-3)
    np.testing.assert_allclose(kinematics.cas_of_tas(tas), cas_kt * KNOT_MS, rtol=1e-12)


@pytest.mark.parametrize("name", TYPES)
def test_types_accelerate_as_the_simulators(name):
    able = kinematics.performance_of([name])
    exact = np.asarray(kinematics.acceleration_limit(able, TAS_MS))
    np.testing.assert_allclose(exact, ACCELERATION[name], atol=6e-4)
    # The polynomial for float32, over all that the type can fly.
    low, high = (float(kinematics.tas_of_cas(cas)) for cas in (able.cas_min_ms[0], able.cas_max_ms[0]))
    tas = np.linspace(low, min(high, float(able.tas_max_ms[0])), 300)
    fast = np.maximum(kinematics._polynomial([c[0] for c in able.acceleration], tas), 0.5)
    np.testing.assert_allclose(fast, kinematics.acceleration_limit(able, tas), atol=2e-3)
    cas = kinematics.cas_of_tas(tas)
    np.testing.assert_allclose(kinematics.fast_tas_of_cas(cas), tas, atol=1e-3)
    np.testing.assert_allclose(kinematics.fast_cas_of_tas(tas), cas, atol=1e-3)


def far_apart():
    """One aircraft of each type, all northbound, ten miles between them."""
    legs = [(f"A{i}", (0, 10.0 * i), 0, (90, 10.0 * i)) for i in range(4)]
    return world(scenarios.from_legs("types", scenarios.FIVE_AT, legs), aircraft_type=list(ENVELOPE))


@pytest.mark.parametrize("faster", [-1.0, 1.0])
def test_types_keep_to_their_envelopes(faster):
    """Sent to their slowest and fastest flight."""
    tas = fly(*far_apart(), (0.0, faster), 16)["state"].tas
    for i, (low, high, mach) in enumerate(ENVELOPE.values()):
        limit = kinematics.tas_of_cas((low if faster < 0 else high) * KNOT_MS)
        np.testing.assert_allclose(tas[-1, i], min(limit, mach * SOUND_MS), atol=0.02)
    # 10 kt are reached within the step.
    np.testing.assert_allclose(kinematics.cas_of_tas(tas[0]) / KNOT_MS, 250 + 10 * faster, atol=0.02)


def test_a_turn_takes_its_time():
    """At 250 kt a full command of 18 deg turns 17.64 deg; the rest is dropped."""
    history = fly(*far_apart(), (1.0, 0.0), 2)
    assert_same_angles(history["state"].hdg[:, 0], [17.64, 35.28], atol=0.01)


def test_an_unknown_type_is_an_error():
    with pytest.raises(ValueError, match="unknown aircraft type 'A999'"):
        kinematics.performance_of(["A999"])
    with pytest.raises(ValueError, match="aircraft_type 'A999': known are A320"):
        envs_jax.make("atc/head_on", aircraft_type="A999")
    with pytest.raises(ValueError, match="3 types for the 2 aircraft of head_on"):
        envs_jax.make("atc/head_on", aircraft_type=["A320"] * 3)


@pytest.mark.slow
def test_wind_from_the_west_drifts_east():
    settings: list[dict] = [{}, {"wind": {"dir_deg": 270, "kt": 20}}]
    still, windy = (fly(*world(**kw), "noop", 6)["state"] for kw in settings)
    east_nm = (windy.dlon - still.dlon)[-1] * geometry.NM_PER_DEG * np.cos(np.radians(52))
    np.testing.assert_allclose(east_nm, 60 * 20 * KNOT_MS / NM_M, rtol=2e-2)
    assert_same_angles(windy.hdg, still.hdg, atol=1e-5)


@pytest.mark.slow
def test_tracks_are_held_against_the_wind():
    """The command fixes the track; as the aircraft gets faster its nose turns so that the track stays."""
    wind_ms = 40 * KNOT_MS
    state = fly(*world(wind={"dir_deg": 270, "kt": 40}, steering="hold_track"), (0.0, 1.0), 1)["state"]
    track = np.degrees(np.arctan2(wind_ms, kinematics.tas_of_cas(250 * KNOT_MS)))
    hdg, tas = np.radians(state.hdg[0, 0]), state.tas[0, 0]
    flown = np.degrees(np.arctan2(tas * np.sin(hdg) + wind_ms, tas * np.cos(hdg)))
    assert_same_angles(flown, track, atol=1e-3)
    assert 0.2 < state.hdg[0, 0] < 0.4


def test_a_delay_holds_actions_back_in_their_order():
    rules, params = world(action_delay_steps=2)
    _, state = started(rules)(params.start, params)
    assert state.queue.shape == (2, 2, 2) and not state.queue.any()  # nothing waits when an episode starts
    taken, waiting = [], state.queue[..., None]
    for action in (1.0, -3.0, 0.5, 0.25):
        now, waiting = _taken(SimpleNamespace(queue=waiting), jnp.full((2, 2, 1), action), params, rules)
        taken.append(float(now[0, 0, 0]))
    assert taken == [0, 0, 1, -1]  # within their limits
    np.testing.assert_array_equal(waiting[:, 0, 0, 0], [0.5, 0.25])


def test_discrete_actions_are_fifteen_of_the_continuous():
    pairs = [(turn, faster) for turn in (-1, -0.5, 0, 0.5, 1) for faster in (-1, 0, 1)]
    state = SimpleNamespace(dlat=jnp.zeros((15, 1)), queue=None)
    taken, _ = _taken(state, jnp.arange(15)[:, None], None, Rules(discrete=True))
    np.testing.assert_array_equal(taken[..., 0], pairs)
    np.testing.assert_array_equal(as_discrete(jnp.array(pairs)), np.arange(15))
