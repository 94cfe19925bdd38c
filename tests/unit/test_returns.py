"""Return estimators against numbers worked out by hand and a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purerl.learn.returns import (
    generalised_advantages,
    lambda_returns,
    n_step_returns,
    vtrace_advantages,
    vtrace_errors,
)

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


# Advantages, lambda-returns and V-trace

ONES = jnp.ones(3)


def test_advantages_by_hand():
    """r = 1, 2, 3; v = 1, 1, 1, then 2; gamma 0.5; lambda 0.5: deltas 0.5, 1.5, 3."""
    v_tp1 = jnp.array([1.0, 1.0, 2.0])
    got = generalised_advantages(jnp.array([1.0, 2.0, 3.0]), 0.5 * ONES, 0.5 * ONES, ONES, v_tp1)
    np.testing.assert_allclose(got, [0.5 + 0.25 * 2.25, 1.5 + 0.25 * 3.0, 3.0])


def test_termination_and_truncation_cut_differently():
    """The end after the second step: terminated, nothing follows; truncated, the final observation (worth 9) does."""
    r, v, v_tp1 = jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3), jnp.array([4.0, 9.0, 5.0])
    terminated = generalised_advantages(r, jnp.array([0.5, 0.0, 0.5]), ONES, v, v_tp1)
    np.testing.assert_allclose(terminated, [3.0 + 0.5 * 2.0, 2.0, 5.5])
    truncated = generalised_advantages(r, 0.5 * ONES, jnp.array([1.0, 0.0, 1.0]), v, v_tp1)
    np.testing.assert_allclose(truncated, [3.0 + 0.5 * 6.5, 6.5, 5.5])


def random_trace(seed: int, steps: int = 9, batch: int = 3):
    rng = np.random.default_rng(seed)
    r, v, v_tp1 = (jnp.asarray(x) for x in rng.normal(size=(3, steps, batch)))
    discount = jnp.asarray(0.9 * (rng.random((steps, batch)) > 0.2))
    lam = jnp.asarray(0.8 * (rng.random((steps, batch)) > 0.2))
    return r, discount, lam, v, v_tp1


def test_cutting_a_trace_into_two_episodes_changes_nothing():
    r, discount, lam, v, v_tp1 = random_trace(1)
    lam = lam.at[4].set(0.0)
    whole = generalised_advantages(r, discount, lam, v, v_tp1)
    parts = [generalised_advantages(*(x[s] for x in (r, discount, lam, v, v_tp1))) for s in (slice(5), slice(5, None))]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_advantages_are_lambda_returns_less_values(seed):
    """Where values after a step are those before the next (no cut), both definitions are one."""
    r, discount, lam, v, v_tp1 = random_trace(seed)
    v_tp1 = jnp.concatenate([v[1:], v_tp1[-1:]])
    returns = lambda_returns(r, discount, lam, v_tp1)
    np.testing.assert_allclose(generalised_advantages(r, discount, lam, v, v_tp1), returns - v, atol=1e-5)


def test_lambda_zero_and_one_are_one_step_and_monte_carlo():
    r, discount, _, _, v_tp1 = random_trace(5)
    np.testing.assert_allclose(lambda_returns(r, discount, 0 * r, v_tp1), r + discount * v_tp1, rtol=1e-6)
    everything = n_step_returns(r, discount, v_tp1, 99)
    np.testing.assert_allclose(lambda_returns(r, discount, 0 * r + 1, v_tp1), everything, rtol=1e-5, atol=1e-6)


PUBLISHED_VTRACE = [
    {
        "behaviour": [(8.9, 0.7), (5, 1), (0.6, 0.1), (-0.9, -0.1)],
        "target": [(0.4, 0.5), (9.2, 8.8), (0.7, 4.4), (7.9, 1.4)],
        "actions": [0, 1, 0, 0],
        "rewards": [-1.3, -1.3, 2.3, 42],
        "discounts": [0, 0.89, 0.85, 0.99],
        "values": [2.1, 1.1, -3.1, 0],
        "bootstrap": 8.4,
        "errors": [-1.615514, -3.497322, 1.867053, 50.31600],
    },
    {
        "behaviour": [(0.3, -5), (1, -8), (0.3, 1.7), (4.7, 3.3)],
        "target": [(1, 0.9), (1, -1), (-4.3, 8.7), (0.8, 0.3)],
        "actions": [1, 0, 0, 1],
        "rewards": [1.3, 5.3, -3.3, -5],
        "discounts": [0.88, 1, 0.83, 0.95],
        "values": [3.1, 0.1, -1.1, 7.4],
        "bootstrap": -1.2,
        "errors": [1.466243, 3.611640, -0.000083, -13.54000],
    },
]
"""The two traces of the rlax test-suite (Apache 2.0), clips 1 and lambda 1."""


@pytest.mark.parametrize("trace", PUBLISHED_VTRACE)
def test_vtrace_gives_the_published_errors(trace):
    def log_prob(logits):
        log_p = jax.nn.log_softmax(jnp.array(logits, jnp.float32))
        return log_p[jnp.arange(4), jnp.array(trace["actions"])]

    ratio = jnp.exp(log_prob(trace["target"]) - log_prob(trace["behaviour"]))
    v = jnp.array(trace["values"], jnp.float32)
    v_tp1 = jnp.append(v[1:], trace["bootstrap"])
    r, discount = (jnp.array(trace[name], jnp.float32) for name in ("rewards", "discounts"))
    got = vtrace_errors(r, discount, jnp.ones(4), v, v_tp1, ratio)
    np.testing.assert_allclose(got, trace["errors"], rtol=1e-4, atol=1e-5)


def test_vtrace_on_policy_is_the_advantage_estimate():
    r, discount, lam, v, v_tp1 = random_trace(7)
    ones = jnp.ones_like(r)
    errors = vtrace_errors(r, discount, lam, v, v_tp1, ones)
    np.testing.assert_array_equal(errors, generalised_advantages(r, discount, lam, v, v_tp1))


def test_vtrace_policy_weights_by_hand():
    """Two steps, ratios 0.5 and 2 (clipped to 1), no cut."""
    args = jnp.array([1.0, 2.0]), 0.5 * jnp.ones(2), jnp.ones(2), jnp.array([1.0, 3.0]), jnp.array([3.0, 4.0])
    ratio = jnp.array([0.5, 2.0])
    errors = vtrace_errors(*args, ratio)
    # Second: 2 + 2 - 3 = 1. First: 0.5 (1 + 1.5 - 1) + 0.5 * 0.5 * 1 = 1.
    np.testing.assert_allclose(errors, [1.0, 1.0])
    # First: 0.5 (1 + 0.5 (3 + 1) - 1) = 1.
    np.testing.assert_allclose(vtrace_advantages(*args, ratio, errors), [1.0, 1.0])
