"""Memory at two speeds: a GRU that sees every step, and one of half its width that follows it every few steps.

Reading order: parameters, one step, `fast_slow_sequence`.

What the slow one holds changes seldom, so that less of it is forgotten and its gradient passes through fewer steps
(El Hihi and Bengio 1995; Koutnik et al. 2014). It reads the fast one, which has seen the steps between. The first step
of an episode updates both.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purerl.nets.gru import gru_step, init_gru
from purerl.nets.lstm import emptied


class FastSlow(NamedTuple):
    """What is carried, leaves [..., n]; zeros are an empty memory."""

    fast: jax.Array
    slow: jax.Array
    since: jax.Array
    """[..., 1] steps since the slow one was updated; at zero it is due."""


def slow_width(hidden: int) -> int:
    return max(hidden // 2, 1)


def init_fast_slow(key: jax.Array, in_dim: int, hidden: int) -> dict[str, Any]:
    """Parameters of two GRU layers, `fast` of `hidden` units and `slow` of half as many."""
    key_fast, key_slow = jax.random.split(key)
    return {"fast": init_gru(key_fast, in_dim, hidden), "slow": init_gru(key_slow, hidden, slow_width(hidden))}


def empty_fast_slow(zeros: jax.Array) -> FastSlow:
    """The empty memory for zeros [..., hidden]."""
    return FastSlow(zeros, zeros[..., : slow_width(zeros.shape[-1])], zeros[..., :1])


def fast_slow_step(params, carry: FastSlow, x: jax.Array, period: int) -> tuple[FastSlow, jax.Array]:
    """One step: carry and x [..., D] give the next carry and both memories side by side [..., hidden + slow]."""
    fast, _ = gru_step(params["fast"], carry.fast, x)
    followed, _ = gru_step(params["slow"], carry.slow, fast)
    slow = jnp.where(carry.since == 0, followed, carry.slow)
    since = jnp.where(carry.since + 1 < period, carry.since + 1, 0.0)
    return FastSlow(fast, slow, since), jnp.concatenate([fast, slow], axis=-1)


def fast_slow_sequence(
    params, xs: jax.Array, carry: FastSlow | None, reset: jax.Array | None, period: int
) -> tuple[jax.Array, FastSlow]:
    """Outputs [T, B, hidden + slow] along xs [T, B, D] and the memory after them; arguments as for `gru_sequence`."""
    if carry is None:
        carry = empty_fast_slow(jnp.zeros((xs.shape[1], params["fast"]["w_h"].shape[0]), xs.dtype))

    def body(carry, inputs):
        x, reset_t = inputs
        return fast_slow_step(params, emptied(reset_t, carry), x, period)

    after, hs = jax.lax.scan(body, carry, (xs, reset))
    return hs, after
