"""Running statistics against numpy over the whole data."""

import jax.numpy as jnp
import numpy as np

from purerl.learn.normalize import empty_stats, merge, scaled, standardised


def test_merging_batches_is_the_statistics_of_all():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3.0, 2.0, size=(n, 4, 3)) * [1, 10, 0.1] for n in (1, 5, 20)]
    stats = empty_stats((3,))
    for batch in batches:
        stats = merge(stats, jnp.asarray(batch))
    everything = np.concatenate(batches).reshape(-1, 3)
    np.testing.assert_allclose(stats.mean, everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.variance, everything.var(0), rtol=1e-4)
    assert float(stats.count) == len(everything)


def test_left_out_rows_do_not_count():
    rows, weight = jnp.array([[1.0], [100.0], [3.0]]), jnp.array([1, 0, 1])
    stats = merge(empty_stats((1,)), rows, weight)
    np.testing.assert_allclose([stats.mean[0], stats.variance[0], stats.count], [2, 1, 2])
    again = merge(stats, rows, jnp.zeros(3))
    np.testing.assert_allclose([again.mean[0], again.variance[0], again.count], [2, 1, 2])


def test_a_far_mean_does_not_cost_the_variance():
    """A million, give or take one: summed squares would have no digit left in float32."""
    stats = empty_stats((1,))
    for seed in range(20):
        stats = merge(stats, jnp.asarray(1e6 + np.random.default_rng(seed).choice([-1.0, 1.0], (64, 1))))
    np.testing.assert_allclose(stats.variance, 1.0, rtol=0.05)


def test_use():
    stats = merge(empty_stats((2,)), jnp.array([[0.0, 5.0], [2.0, 5.0]]))
    np.testing.assert_allclose(standardised(stats, jnp.array([3.0, 5.0])), [2.0, 0.0])
    np.testing.assert_allclose(scaled(stats, jnp.array([3.0, 0.0])), [3.0, 0.0])
    assert float(standardised(stats, jnp.array([1e9, 5.0]))[0]) == 10.0
