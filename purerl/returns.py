"""Return estimators. Time is the first axis; names carry their time index: `r_t` is earned between o_t and o_t+1."""

import chex
import jax
import jax.numpy as jnp


def n_step_returns(r_t: jax.Array, discount_t: jax.Array, v_tp1: jax.Array, n: int) -> jax.Array:
    """n-step bootstrapped returns inside one sequence (Sutton and Barto 2018, eq. 7.1).

    Args:
        r_t: rewards [T, ...].
        discount_t: gamma * (1 - terminated) [T, ...]; zero cuts the bootstrap.
        v_tp1: value of the observation after each step [T, ...], that of the final observation included.
        n: steps until the bootstrap; windows that reach past the end bootstrap from the last observation.

    Returns:
        [T, ...] estimates of the return from each step. `n >= T` is Monte Carlo with a final bootstrap.
    """
    chex.assert_equal_shape([r_t, discount_t, v_tp1])
    estimate = r_t + discount_t * v_tp1
    for _ in range(min(n, r_t.shape[0]) - 1):
        longer = r_t[:-1] + discount_t[:-1] * estimate[1:]
        estimate = jnp.concatenate([longer, estimate[-1:]])
    return estimate
