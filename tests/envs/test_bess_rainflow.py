"""Rainflow counting against the standard's example, and its wear against the hourly model it judges."""

import numpy as np
import pytest

from envs_jax.bess.params import HOURS, Rules, limits_of, plant_of
from envs_jax.bess.physics import simulate_day
from envs_jax.bess.rainflow import rainflow_cycles, rainflow_wear_eur, turning_points

LIMITS = limits_of("default")
ENERGY_MWH = LIMITS.bess.energy_capacity_mwh


def wear_eur(path) -> float:
    return rainflow_wear_eur(np.asarray(path), ENERGY_MWH, LIMITS.degradation)


def test_example_of_the_standard():
    """ASTM E1049-85, figure 6: counts per range."""
    ranges, counts = rainflow_cycles(np.array([-2, 1, -3, 5, -1, 3, -4, 4, -2]))
    table = {r: counts[ranges == r].sum() for r in np.unique(ranges)}
    assert table == {3: 0.5, 4: 1.5, 6: 0.5, 8: 1.0, 9: 0.5}


def test_turning_points_skip_what_lies_between():
    assert turning_points(np.array([0.5, 0.5, 0.7, 0.9, 0.9, 0.4, 0.4, 0.6])).tolist() == [0.5, 0.9, 0.4, 0.6]
    assert turning_points(np.array([0.3, 0.3])).tolist() == [0.3]


def test_inner_cycle_is_a_full_one():
    ranges, counts = rainflow_cycles(np.array([0.1, 0.9, 0.5, 0.7, 0.1]))
    np.testing.assert_allclose(ranges, [0.2, 0.8, 0.8])
    np.testing.assert_allclose(counts, [1.0, 0.5, 0.5])


@pytest.mark.parametrize("seed", range(5))
def test_counted_ranges_cover_the_whole_path(seed):
    """Every stretch of the path belongs to exactly one half cycle."""
    path = np.random.default_rng(seed).uniform(0.1, 0.9, 200)
    ranges, counts = rainflow_cycles(path)
    np.testing.assert_allclose(np.sum(2 * ranges * counts), np.abs(np.diff(path)).sum())
    assert ranges.max() == np.ptp(path)


def test_wear_of_a_cycle_at_the_reference_depth():
    """One of 5000 full cycles uses up 1/5000 of the cells; half the depth lasts 2**1.774 times longer."""
    np.testing.assert_allclose(wear_eur([0.1, 0.9, 0.1]), 175_000 * 3.5 / 5000)
    np.testing.assert_allclose(wear_eur([0.3, 0.7, 0.3]), 175_000 * 3.5 / 5000 / 2**1.774)
    assert wear_eur([0.5, 0.5, 0.5]) == 0


def test_segment_model_equals_rainflow_for_one_dominant_cycle(x64):
    """Charging from empty and back: the hourly segment costs add up to the wear of the cycle."""
    command = np.array([-0.9] * 3 + [0.0] * 5 + [0.85] * 3 + [0.0] * 13)  # commands more than is stored, so ends empty
    zeros = np.zeros(HOURS)
    _, hours, soc = simulate_day(plant_of(LIMITS), Rules(wear="segment"), command, zeros, zeros, zeros, soc_start=0.1)
    depth = 3 * 0.9 * 0.97 / 3.5
    segment = float(np.sum(hours.wear_eur))
    exact = wear_eur([0.1, *np.asarray(soc)])
    np.testing.assert_allclose(np.max(soc) - 0.1, depth)
    # Eight linear pieces of the convex curve: exact at their ends, a little above between them.
    assert exact <= segment <= 1.01 * exact
