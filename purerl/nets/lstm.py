"""LSTM layer (Hochreiter and Schmidhuber 1997, forget gate of Gers et al. 2000) over whole sequences, fast on CPU.

With u_t = [x_t, h_{t-1}, 1], W = [w_x; w_h; b] and gates in the order i, f, o, g:

    z_t = u_t W,   c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),   h_t = sigmoid(o) tanh(c_t)

Reading order: parameters, one step, the sequence forward, its backward pass, `lstm_sequence`.

Two choices here were measured on XLA:CPU; both are worth a factor, none changes the mathematics.

- The inputs are projected inside the loop. One large product before it looks cheaper, but XLA then fuses the slice of
  its result into the gates, reads the slice's index again for every element and emits scalar code, four times slower.
- The backward pass is written by hand. The forward pass stores the six coefficients that turn dL/dh and dL/dc into
  dL/dz, each in an array of its own, so that the backward loop is a handful of multiplications that vectorise; the
  weight gradient is summed in the same loop, so that dL/dz is stored only where the inputs need a gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp

Params = dict[str, jax.Array]
Carry = tuple[jax.Array, jax.Array]


def init_lstm(key: jax.Array, in_dim: int, hidden: int, dtype: Any = jnp.float32) -> Params:
    """Parameters `{"w_x": [D, 4H], "w_h": [H, 4H], "b": [4H]}` with gates in the order i, f, o, g.

    Weights are LeCun uniform, the forget bias is one (Jozefowicz et al. 2015). Orthogonal recurrent blocks would need
    batched QR factorisations, and two of those at once can block each other for ever in a CPU pool of two threads.
    """
    key_x, key_h = jax.random.split(key)
    uniform = jax.nn.initializers.lecun_uniform()
    return {
        "w_x": uniform(key_x, (in_dim, 4 * hidden), dtype),
        "w_h": uniform(key_h, (hidden, 4 * hidden), dtype),
        "b": jnp.zeros((4 * hidden,), dtype).at[hidden : 2 * hidden].set(1.0),
    }


def _stack(params: Params) -> jax.Array:
    return jnp.concatenate([params["w_x"], params["w_h"], params["b"][None]])


def _inputs(x: jax.Array, h: jax.Array) -> jax.Array:
    return jnp.concatenate([x, h, jnp.ones_like(h[:, :1])], axis=-1)


def _gates(z: jax.Array) -> tuple[jax.Array, ...]:
    """Activations i, f, o, g. One tanh serves all four (sigmoid(z) = tanh(z / 2) / 2 + 1 / 2): unlike exp, it
    vectorises inside fusions."""
    hidden = z.shape[-1] // 4
    is_g = jnp.arange(4 * hidden) >= 3 * hidden
    i, f, o, g = jnp.split(jnp.tanh(z * jnp.where(is_g, 1.0, 0.5).astype(z.dtype)), 4, axis=-1)
    return 0.5 * i + 0.5, 0.5 * f + 0.5, 0.5 * o + 0.5, g


def _advance(weights: jax.Array, carry: Carry, x: jax.Array) -> tuple[Carry, tuple[jax.Array, ...]]:
    """The next carry and (i, f, o, g, tanh(c))."""
    h, c = carry
    i, f, o, g = _gates(_inputs(x, h) @ weights)
    c = f * c + i * g
    tanh_c = jnp.tanh(c)
    return (o * tanh_c, c), (i, f, o, g, tanh_c)


def lstm_step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
    """One time step: carry (h, c), each [..., H], and x [..., D] give the next carry and h [..., H]."""
    batch = x.shape[:-1]
    flat = jax.tree.map(lambda v: v.reshape(-1, v.shape[-1]), (carry, x))
    carry, _ = _advance(_stack(params), *flat)
    carry = jax.tree.map(lambda v: v.reshape(*batch, -1), carry)
    return carry, carry[0]


def emptied(reset: jax.Array | None, tree: Any) -> Any:
    """Leaves [B, H], zeroed in the rows where `reset` [B] is set."""
    return tree if reset is None else jax.tree.map(lambda v: jnp.where(reset[:, None], 0.0, v), tree)


@jax.custom_vjp
def _unroll(weights, xs, carry, reset):
    def body(carry, inputs):
        x, reset_t = inputs
        carry, _ = _advance(weights, emptied(reset_t, carry), x)
        return carry, carry[0]

    carry, hs = jax.lax.scan(body, carry, (xs, reset))
    return hs, carry


def _unroll_forward(weights, xs, carry0, reset):
    def body(carry, inputs):
        x, reset_t = inputs
        carry = emptied(reset_t, carry)
        c_before = carry[1]
        carry, (i, f, o, g, tanh_c) = _advance(weights, carry, x)
        coefficients = (
            g * i * (1 - i),  # dz_i / dc
            c_before * f * (1 - f),  # dz_f / dc
            tanh_c * o * (1 - o),  # dz_o / dh
            i * (1 - g * g),  # dz_g / dc
            o * (1 - tanh_c * tanh_c),  # dc / dh
            emptied(reset_t, f),  # dc_{t-1} / dc
        )
        return carry, (carry[0], coefficients)

    carry, (hs, coefficients) = jax.lax.scan(body, carry0, (xs, reset))
    return (hs, carry), (weights, xs, carry0[0], reset, hs, coefficients)


def _unroll_backward(saved, gradients):
    weights, xs, h0, reset, hs, coefficients = saved
    d_hs, d_carry = gradients
    in_dim, hidden = xs.shape[-1], h0.shape[-1]
    w_h_transposed = weights[in_dim : in_dim + hidden].T
    hs_before = jnp.concatenate([h0[None], hs[:-1]])

    def body(carry, inputs):
        d_h, d_c, d_weights = carry
        x, h_before, reset_t, d_h_out, (k_i, k_f, k_o, k_g, dc_dh, forget) = inputs
        d_h = d_h + d_h_out
        d_c = d_c + d_h * dc_dh
        # Stacked on an axis of their own: a concatenation of columns would not vectorise.
        d_z = jnp.stack([d_c * k_i, d_c * k_f, d_h * k_o, d_c * k_g], axis=1).reshape(d_h.shape[0], 4 * hidden)
        d_weights = d_weights + _inputs(x, emptied(reset_t, h_before)).T @ d_z
        return (emptied(reset_t, d_z @ w_h_transposed), d_c * forget, d_weights), d_z

    inputs = (xs, hs_before, reset, d_hs, coefficients)
    (d_h0, d_c0, d_weights), d_zs = jax.lax.scan(body, (*d_carry, jnp.zeros_like(weights)), inputs, reverse=True)
    return d_weights, d_zs @ weights[:in_dim].T, (d_h0, d_c0), None


_unroll.defvjp(_unroll_forward, _unroll_backward)


def lstm_sequence(
    params: Params, xs: jax.Array, carry0: Carry | None = None, reset: jax.Array | None = None
) -> tuple[jax.Array, Carry]:
    """Runs the layer over a batch of sequences; differentiable (reverse mode) in `params`, `xs` and `carry0`.

    Networks of one shape run fastest together: `vmap` over stacked parameters makes each step one batched product.

    Args:
        params: from `init_lstm`.
        xs: inputs [T, B, D], time first.
        carry0: (h, c), each [B, H]; zeros if absent.
        reset: bool [T, B]; where set, the memory is zeroed before that step. None compiles no reset at all.

    Returns:
        Outputs hs [T, B, H] and the carry after the last step.
    """
    if carry0 is None:
        zeros = jnp.zeros((xs.shape[1], params["w_h"].shape[0]), xs.dtype)
        carry0 = (zeros, zeros)
    return _unroll(_stack(params), xs, carry0, reset)
