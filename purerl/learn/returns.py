"""Return estimators. Time is the first axis; names carry their time index: `r_t` is earned between o_t and o_t+1."""

import chex
import jax
import jax.numpy as jnp


def discount_of(gamma: jax.Array | float, frames_t: jax.Array | None) -> jax.Array | float:
    """Discount over a step: `gamma` for each of its frames (semi-Markov decisions: Sutton, Precup, Singh 1999).

    Args:
        frames_t: how many the steps took; None: one each.
    """
    return gamma if frames_t is None else gamma**frames_t


def n_step_returns(
    r_t: jax.Array, discount_t: jax.Array, v_tp1: jax.Array, n: int, truncated_t: jax.Array | None = None
) -> jax.Array:
    """n-step bootstrapped returns inside one sequence (Sutton and Barto 2018, eq. 7.1).

    Args:
        r_t: rewards [T, ...].
        discount_t: gamma * (1 - terminated) [T, ...]; zero cuts the bootstrap.
        v_tp1: value of the observation after each step [T, ...], that of the final observation included.
        n: steps until the bootstrap; windows that reach past the end bootstrap from the last observation.
        truncated_t: bool [T, ...]; a window ends with such a step and bootstraps there, because the next step belongs
            to another episode. None: the sequence is of one episode.

    Returns:
        [T, ...] estimates of the return from each step. `n >= T` is Monte Carlo with a final bootstrap.
    """
    chex.assert_equal_shape([r_t, discount_t, v_tp1])
    one_step = estimate = r_t + discount_t * v_tp1
    for _ in range(min(n, r_t.shape[0]) - 1):
        longer = r_t[:-1] + discount_t[:-1] * estimate[1:]
        if truncated_t is not None:
            longer = jnp.where(truncated_t[:-1], one_step[:-1], longer)
        estimate = jnp.concatenate([longer, estimate[-1:]])
    return estimate


def generalised_advantages(
    r_t: jax.Array, discount_t: jax.Array, lambda_t: jax.Array, v_t: jax.Array, v_tp1: jax.Array
) -> jax.Array:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16).

    Args:
        r_t: rewards [T, ...].
        discount_t: gamma * (1 - terminated) [T, ...]; zero cuts bootstrap and trace.
        lambda_t: lambda * (1 - truncated) [T, ...]; zero cuts the trace alone, because the next step belongs to another
            episode.
        v_t: values of the observations that were acted on [T, ...].
        v_tp1: values of the observations after each step [T, ...], before any reset.

    Returns:
        [T, ...] advantages; added to `v_t` they are lambda-returns.
    """
    chex.assert_equal_shape([r_t, discount_t, lambda_t, v_t, v_tp1])
    delta_t = r_t + discount_t * v_tp1 - v_t
    return _discounted_sums(delta_t, discount_t * lambda_t)


def lambda_returns(r_t: jax.Array, discount_t: jax.Array, lambda_t: jax.Array, v_tp1: jax.Array) -> jax.Array:
    """Lambda-returns (Sutton and Barto 2018, eq. 12.20); arguments as for `generalised_advantages`.

    Returns:
        [T, ...]: g_t = r_t + discount_t ((1 - lambda_t) v_tp1 + lambda_t g_tp1); the last step bootstraps fully.
    """
    chex.assert_equal_shape([r_t, discount_t, lambda_t, v_tp1])
    lambda_t = lambda_t.at[-1].set(0.0)
    return _discounted_sums(r_t + discount_t * (1.0 - lambda_t) * v_tp1, discount_t * lambda_t)


def vtrace_errors(
    r_t: jax.Array,
    discount_t: jax.Array,
    lambda_t: jax.Array,
    v_t: jax.Array,
    v_tp1: jax.Array,
    ratio_t: jax.Array,
    clip_rho: float | jax.Array = 1.0,
    clip_c: float | jax.Array = 1.0,
) -> jax.Array:
    """V-trace targets less the values (Espeholt et al. 2018, eq. 1 and remark 1).

    Args:
        ratio_t: pi(a_t | o_t) / mu(a_t | o_t) [T, ...]: target policy over the policy that acted.
        clip_rho, clip_c: the paper's rho-bar and c-bar.
        r_t, discount_t, lambda_t, v_t, v_tp1: as for `generalised_advantages`.

    Returns:
        [T, ...] `vs_t - v_t`. With ratios of one they are generalised advantages.
    """
    chex.assert_equal_shape([r_t, discount_t, lambda_t, v_t, v_tp1, ratio_t])
    delta_t = jnp.minimum(ratio_t, clip_rho) * (r_t + discount_t * v_tp1 - v_t)
    return _discounted_sums(delta_t, discount_t * lambda_t * jnp.minimum(ratio_t, clip_c))


def vtrace_advantages(
    r_t: jax.Array,
    discount_t: jax.Array,
    lambda_t: jax.Array,
    v_t: jax.Array,
    v_tp1: jax.Array,
    ratio_t: jax.Array,
    errors_t: jax.Array,
    clip_rho: float | jax.Array = 1.0,
) -> jax.Array:
    """Weights of the policy gradient with V-trace targets (Espeholt et al. 2018, section 4.2).

    The target of the next step continues the episode where the trace does (`lambda_t` times the next error), and is the
    value of the final observation where it was cut.
    """
    chex.assert_equal_shape([r_t, discount_t, lambda_t, v_t, v_tp1, ratio_t, errors_t])
    next_error = jnp.concatenate([errors_t[1:], jnp.zeros_like(errors_t[:1])])
    return jnp.minimum(ratio_t, clip_rho) * (r_t + discount_t * (v_tp1 + lambda_t * next_error) - v_t)


def _discounted_sums(x_t: jax.Array, factor_t: jax.Array) -> jax.Array:
    """y_t = x_t + factor_t y_{t+1}, with zero after the last step."""

    def body(y, inputs):
        x, factor = inputs
        y = x + factor * y
        return y, y

    _, y_t = jax.lax.scan(body, jnp.zeros_like(x_t[0]), (x_t, factor_t), reverse=True)
    return y_t
