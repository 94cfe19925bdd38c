"""Air traffic: closest approach against brute force, each pair once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.atc import geometry, kinematics, scenarios
from envs_jax.atc.params import KNOT_MS, NM_M

SECOND_NM = kinematics.tas_of_cas(250 * KNOT_MS) / NM_M


def test_closest_approach_and_loss_are_those_of_brute_force(x64):
    """On a grid of hundredths of a second; the first pairs fly alike, the next straight away from each other."""
    rng = np.random.default_rng(0)
    north, east = rng.uniform(-12, 12, (2, 40))
    rate_n, rate_e = rng.uniform(-0.15, 0.15, (2, 40))
    rate_n[:2] = rate_e[:2] = 0.0
    rate_n[2:4], rate_e[2:4] = north[2:4] * 1e-3, east[2:4] * 1e-3
    north[4], east[4], rate_n[4], rate_e[4] = 20.0, 0.0, -0.16, 0.0  # head on
    times = np.arange(0, 700, 0.01)[:, None]
    path = np.hypot(north + rate_n * times, east + rate_e * times)
    tcpa, dcpa = map(np.asarray, geometry.closest_approach(north, east, rate_n, rate_e))
    seen = tcpa < 700
    assert seen.sum() > 30
    np.testing.assert_allclose(dcpa[seen], path.min(axis=0)[seen], atol=1e-3)
    ahead = seen & (tcpa > 0)
    np.testing.assert_allclose(tcpa[ahead], 0.01 * path.argmin(axis=0)[ahead], atol=0.02)
    assert (tcpa[:2] == 0).all() and (tcpa[2:4] < 0).all() and dcpa[4] < 1e-12
    np.testing.assert_array_equal((tcpa, dcpa), geometry.closest_approach(-north, -east, -rate_n, -rate_e))

    begins, ends, lost = map(np.asarray, geometry.loss_window(north, east, rate_n, rate_e, 5.0))
    inside = path < 5.0
    found = seen & inside.any(axis=0)
    assert 5 < found.sum() < 35 and not lost[:2].any()
    np.testing.assert_array_equal(lost & (ends > 0) & seen, found & (np.arange(40) > 1))
    for pair in np.flatnonzero(found & lost):
        assert abs(max(begins[pair], 0.0) - 0.01 * inside[:, pair].argmax()) <= 0.02
        if ends[pair] < 699:
            assert abs(ends[pair] - 0.01 * np.flatnonzero(inside[:, pair])[-1]) <= 0.02


def of_pairs(x):
    pairs = jnp.stack([jnp.abs(x - there) for there in geometry.partners(x)])
    near = pairs < 1
    return (
        geometry.matrix(pairs, 0.0),
        geometry.least_of_each(pairs),
        geometry.count_of_each(near),
        geometry.total(near * 1),
    )


def test_pairs_meet_once():
    for n in (2, 3, 4, 7):
        x = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
        table, least, count, total = jax.jit(of_pairs)(x)
        expected = np.abs(x[:, None] - x[None])
        np.testing.assert_array_equal(table, expected)
        expected[np.arange(n), np.arange(n)] = np.inf
        np.testing.assert_array_equal(least, expected.min(axis=1))
        np.testing.assert_array_equal(count, (expected < 1).sum(axis=1))
        np.testing.assert_allclose(total, (expected < 1).sum(axis=(0, 1)) / 2)


NOMINAL = {
    "head_on": {"A1-A2": (224, 0.0, 193)},
    "parallel": {},
    "t_formation": {"A1-A2": (187, 1.38, 145), "A1-A3": (147, 3.13, 113)},
    "canonical_crossing": {
        "A0-A1": (156, 0.0, 112), "A0-A2": (156, 0.0, 125), "A0-A3": (156, 0.0, 112), "A1-A2": (156, 0.0, 112),
        "A1-A3": (156, 0.0, 125), "A2-A3": (156, 0.0, 112),
    },
    "converging": {
        "A1-A2": (114, 0.59, 78), "A1-A3": (122, 2.85, 92), "A1-A4": (83, 4.25, 51), "A2-A3": (103, 2.67, 73),
        "A2-A4": (131, 3.74, 110), "A3-A4": (205, 1.89, 147),
    },
}  # fmt: skip
"""pair: time to the closest approach in s, its distance in NM, time to 5 NM in s."""


@pytest.mark.parametrize("name", NOMINAL)
def test_the_five_have_the_conflicts_they_were_made_for(name, x64):
    scenario = scenarios.named(name)
    scale = 60 * np.cos(np.radians(scenario.lat))
    at = np.array([((a.lat - scenario.lat) * 60, (a.lon - scenario.lon) * scale) for a in scenario.agents])
    hdg = np.radians([a.hdg_deg for a in scenario.agents])
    speed = SECOND_NM * np.stack([np.cos(hdg), np.sin(hdg)], axis=1)
    i, j = np.triu_indices(len(hdg), 1)
    flight = (*(at[j] - at[i]).T, *(speed[j] - speed[i]).T)
    tcpa, dcpa = map(np.asarray, geometry.closest_approach(*flight))
    begins, ends, lost = map(np.asarray, geometry.loss_window(*flight, 5.0))
    pairs = [f"{scenario.agents[a].id}-{scenario.agents[b].id}" for a, b in zip(i, j, strict=True)]
    ahead = lost & (ends > 0)
    found = {pairs[k]: (tcpa[k], dcpa[k], begins[k]) for k in np.flatnonzero(ahead)}
    assert found.keys() == NOMINAL[name].keys()
    for pair, expected in NOMINAL[name].items():
        np.testing.assert_allclose(found[pair], expected, atol=1.0, err_msg=pair)
        np.testing.assert_allclose(found[pair][1], expected[1], atol=0.06, err_msg=pair)
