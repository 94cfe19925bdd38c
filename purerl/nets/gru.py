"""GRU layer (Cho et al. 2014, in the form of cuDNN) over whole sequences.

With gates in the order r, z, n:

    r_t = sigmoid(x_t W_r + h_{t-1} U_r + b_r),   z_t = sigmoid(x_t W_z + h_{t-1} U_z + b_z)
    n_t = tanh(x_t W_n + b_n + r_t (h_{t-1} U_n + b_h)),   h_t = n_t + z_t (h_{t-1} - n_t)

Reading order: parameters, one step, `gru_sequence`.

As in `purerl.lstm` the inputs are projected inside the loop: with one large product before it the forward pass took 2.5
times as long on a CPU. A backward pass by hand gained nothing over what jax derives from the scan, so there is none.
"""

from typing import Any

import jax
import jax.numpy as jnp

from purerl.nets.lstm import Params, emptied


def init_gru(key: jax.Array, in_dim: int, hidden: int, dtype: Any = jnp.float32) -> Params:
    """Parameters `{"w_x": [D, 3H], "w_h": [H, 3H], "b": [3H], "b_h": [H]}`, gates r, z, n; weights LeCun uniform."""
    key_x, key_h = jax.random.split(key)
    uniform = jax.nn.initializers.lecun_uniform()
    return {
        "w_x": uniform(key_x, (in_dim, 3 * hidden), dtype),
        "w_h": uniform(key_h, (hidden, 3 * hidden), dtype),
        "b": jnp.zeros((3 * hidden,), dtype),
        "b_h": jnp.zeros((hidden,), dtype),
    }


def gru_step(params: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One time step: carry h [..., H] and x [..., D] give the next carry and the output, both h [..., H]."""
    x_r, x_z, x_n = jnp.split(x @ params["w_x"] + params["b"], 3, axis=-1)
    h_r, h_z, h_n = jnp.split(h @ params["w_h"], 3, axis=-1)
    r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * (h_n + params["b_h"]))
    h = n + z * (h - n)
    return h, h


def gru_sequence(
    params: Params, xs: jax.Array, h0: jax.Array | None = None, reset: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Runs the layer over a batch of sequences.

    Args:
        params: from `init_gru`.
        xs: inputs [T, B, D], time first.
        h0: memory before the first step [B, H]; zeros if absent.
        reset: bool [T, B]; where set, the memory is zeroed before that step. None compiles no reset at all.

    Returns:
        Outputs hs [T, B, H] and the memory after the last step [B, H].
    """
    if h0 is None:
        h0 = jnp.zeros((xs.shape[1], params["w_h"].shape[0]), xs.dtype)

    def body(h, inputs):
        x, reset_t = inputs
        return gru_step(params, emptied(reset_t, h), x)

    h, hs = jax.lax.scan(body, h0, (xs, reset))
    return hs, h
