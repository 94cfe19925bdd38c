"""Return estimators against numbers worked out by hand and a plain loop."""

import jax.numpy as jnp
import numpy as np
import pytest

from purerl.returns import n_step_returns

REWARD = [1.0, 2.0, 3.0, 4.0]
VALUE_AFTER = [10.0, 20.0, 30.0, 40.0]
HALF = [0.5] * 4


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [6, 12, 18, 24]),
        (2, [7, 11, 15, 24]),
        (3, [6.5, 9.5, 15, 24]),
        (4, [5.75, 9.5, 15, 24]),  # 1 + 2/2 + 3/4 + 4/8 + 40/16
        (99, [5.75, 9.5, 15, 24]),
    ],
)
def test_by_hand(n, expected):
    got = n_step_returns(jnp.array(REWARD), jnp.array(HALF), jnp.array(VALUE_AFTER), n)
    np.testing.assert_allclose(got, expected)


def test_termination_cuts_the_bootstrap_and_what_follows():
    discount = jnp.array([0.5, 0.0, 0.5, 0.5])
    got = n_step_returns(jnp.array(REWARD), discount, jnp.array(VALUE_AFTER), 4)
    np.testing.assert_allclose(got, [2, 2, 15, 24])


def test_a_day_of_24_steps_without_discount_is_monte_carlo():
    reward = np.random.default_rng(0).normal(size=24)
    discount = np.where(np.arange(24) == 23, 0.0, 1.0)
    got = n_step_returns(jnp.asarray(reward), jnp.asarray(discount), jnp.full(24, 1e6), 24)
    np.testing.assert_allclose(got, np.cumsum(reward[::-1])[::-1], atol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 7, 24, 30])
def test_equals_the_definition(n):
    """Sum of discounted rewards up to n steps, then the value there, or that of the last observation."""
    rng = np.random.default_rng(n)
    steps, batch = 24, 3
    reward, value = rng.normal(size=(2, steps, batch))
    discount = 0.9 * (rng.random((steps, batch)) > 0.1)
    expected = np.zeros((steps, batch))
    for start in range(steps):
        factor = np.ones(batch)
        for t in range(start, min(start + n, steps)):
            expected[start] += factor * reward[t]
            factor *= discount[t]
        expected[start] += factor * value[t]
    got = n_step_returns(*(jnp.asarray(x) for x in (reward, discount, value)), n)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_shapes_must_agree():
    with pytest.raises(AssertionError):
        n_step_returns(jnp.zeros(4), jnp.zeros(4), jnp.zeros(5), 1)
