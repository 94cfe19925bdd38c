"""LSTM layer over whole sequences with a hand-written backward pass, fast on CPU, linear to vmap and to stack.

Cell (Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000), gates in the order i, f, o, g:

    z_t = x_t w_x + h_{t-1} w_h + b
    c_t = sigmoid(f_t) c_{t-1} + sigmoid(i_t) tanh(g_t)
    h_t = sigmoid(o_t) tanh(c_t)
"""

import jax
import jax.numpy as jnp

Params = dict[str, jax.Array]
Carry = tuple[jax.Array, jax.Array]


def init_lstm(key: jax.Array, in_dim: int, hidden: int, dtype: jnp.dtype = jnp.float32) -> Params:
    """Parameters `{"w_x": [D, 4H], "w_h": [H, 4H], "b": [4H]}`, gate order i, f, o, g."""
    key_x, key_h = jax.random.split(key)
    orthogonal = jax.nn.initializers.orthogonal()
    return {
        "w_x": jax.nn.initializers.lecun_uniform()(key_x, (in_dim, 4 * hidden), dtype),
        "w_h": jnp.concatenate(list(jax.vmap(lambda k: orthogonal(k, (hidden, hidden), dtype))(jax.random.split(key_h, 4))), axis=1),
        "b": jnp.zeros((4 * hidden,), dtype).at[hidden : 2 * hidden].set(1.0),
    }


def _gates(z: jax.Array) -> tuple[jax.Array, ...]:
    i, f, o, g = jnp.split(z, 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)


def _advance(w_h, carry, z_x):
    h, c = carry
    i, f, o, g = _gates(jax.lax.optimization_barrier(z_x + h @ w_h))
    c = f * c + i * g
    h = o * jnp.tanh(c)
    return h, c, jnp.concatenate([i, f, o, g], axis=-1)


def lstm_step(params: Params, carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
    """One time step: carry (h, c) each [B, H], x [B, D]; returns the next carry and h [B, H]."""
    h, c, _ = _advance(params["w_h"], carry, x @ params["w_x"] + params["b"])
    return (h, c), h


def _zero_where(reset, carry):
    return carry if reset is None else jax.tree.map(lambda v: jnp.where(reset[:, None], 0, v), carry)


def _run(w_h, z_x, carry0, reset):
    def body(carry, step):
        z, r = step
        carry = _zero_where(r, carry)
        h, c, gates = _advance(w_h, carry, z)
        return (h, c), (h, c, gates)

    return jax.lax.scan(body, carry0, (z_x, reset))


@jax.custom_vjp
def _recur(w_h, z_x, carry0, reset):
    def body(carry, step):
        z, r = step
        h, c, _ = _advance(w_h, _zero_where(r, carry), z)
        return (h, c), h

    carry, hs = jax.lax.scan(body, carry0, (z_x, reset))
    return hs, carry


def _recur_fwd(w_h, z_x, carry0, reset):
    carry, (hs, cs, gates) = _run(w_h, z_x, carry0, reset)
    return (hs, carry), (w_h, carry0, reset, hs, cs, gates)


def _recur_bwd(residuals, cotangents):
    w_h, carry0, reset, hs, cs, gates = residuals
    d_hs, d_carry = cotangents
    h_prev = jnp.concatenate([carry0[0][None], hs[:-1]])
    c_prev = jnp.concatenate([carry0[1][None], cs[:-1]])
    if reset is not None:
        h_prev = jnp.where(reset[..., None], 0, h_prev)
        c_prev = jnp.where(reset[..., None], 0, c_prev)

    def body(d_carry, step):
        d_h_out, gate, c, c_before, r = step
        d_h, d_c = d_carry
        i, f, o, g = jnp.split(gate, 4, axis=-1)
        d_h = d_h + d_h_out
        tanh_c = jnp.tanh(c)
        d_c = d_c + d_h * o * (1 - tanh_c**2)
        d_z = jnp.concatenate(
            [d_c * g * i * (1 - i), d_c * c_before * f * (1 - f), d_h * tanh_c * o * (1 - o), d_c * i * (1 - g**2)],
            axis=-1,
        )
        d_z = jax.lax.optimization_barrier(d_z)
        return _zero_where(r, (d_z @ w_h.T, d_c * f)), d_z

    d_carry0, d_z = jax.lax.scan(body, d_carry, (d_hs, gates, cs, c_prev, reset), reverse=True)
    d_w_h = jnp.einsum("tbh,tbk->hk", h_prev, d_z)
    return d_w_h, d_z, d_carry0, None


_recur.defvjp(_recur_fwd, _recur_bwd)


def lstm_sequence(
    params: Params, xs: jax.Array, carry0: Carry | None = None, reset: jax.Array | None = None
) -> tuple[jax.Array, Carry]:
    """Runs the layer over xs [T, B, D]; returns hs [T, B, H] and the last carry."""
    if carry0 is None:
        zeros = jnp.zeros((xs.shape[1], params["w_h"].shape[0]), xs.dtype)
        carry0 = (zeros, zeros)
    return _recur(params["w_h"], xs @ params["w_x"] + params["b"], carry0, reset)
