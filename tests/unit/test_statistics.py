"""Interquartile mean and bootstrap intervals against scipy and hand-computed numbers."""

import numpy as np
import pytest
from scipy import stats

from purerl.report.statistics import bootstrap_interval, interquartile_mean


@pytest.mark.parametrize("count", range(1, 14))
def test_interquartile_mean_is_the_trimmed_mean_of_scipy(count):
    scores = np.random.default_rng(count).normal(size=(3, count))
    np.testing.assert_allclose(interquartile_mean(scores), stats.trim_mean(scores, 0.25, axis=1), rtol=1e-12)


def test_interquartile_mean_by_hand():
    assert interquartile_mean(np.array([500, 0, 10, 20, 30, 40, -300, 9.0])) == (9 + 10 + 20 + 30) / 4
    assert interquartile_mean(np.array([1.0, 2.0, 6.0])) == 3.0
    assert np.isnan(interquartile_mean(np.array([1.0, np.nan, 2.0, 3.0, 4.0])))


def test_the_interval_of_two_runs_by_hand():
    """Resamples of (0, 1) are 0, 1/2 and 1 with probability 1/4, 1/2, 1/4."""
    scores = np.array([[0.0, 1.0]])
    assert bootstrap_interval(scores, confidence=0.95) == (0.0, 1.0)
    assert bootstrap_interval(scores, confidence=0.4) == (0.5, 0.5)


def test_one_stratum_is_the_ordinary_percentile_bootstrap():
    scores = np.random.default_rng(0).normal(size=12)
    expected = stats.bootstrap(
        (scores,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), method="percentile", n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(bootstrap_interval(scores[None]), expected, atol=0.03)


def test_strata_are_resampled_on_their_own():
    """Differences between strata are no uncertainty; drawn from all runs together they would be."""
    scores = np.repeat([[0.0], [1.0]], 4, axis=1)
    assert bootstrap_interval(scores) == (0.5, 0.5)
    low, high = bootstrap_interval(scores.reshape(1, -1))
    assert low < 0.5 < high


def test_what_says_nothing_about_spread_has_no_interval():
    assert np.isnan(bootstrap_interval(np.array([[3.0], [4.0]]))).all()
    assert np.isnan(bootstrap_interval(np.array([[3.0, np.nan, 4.0]]))).all()
