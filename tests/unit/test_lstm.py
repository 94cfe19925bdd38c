"""The hand-written LSTM against a plain one that jax differentiates by itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from purerl.nets.lstm import init_lstm, lstm_sequence, lstm_step

T, B, D, H = 9, 6, 5, 8
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def plain_sequence(params, xs, carry0, reset):
    """Textbook cell, gates i, f, o, g."""

    def body(carry, step):
        x, reset_t = step
        h, c = (jnp.where(reset_t[:, None], 0.0, v) for v in carry)
        i, f, o, g = jnp.split(x @ params["w_x"] + h @ params["w_h"] + params["b"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    carry, hs = jax.lax.scan(body, carry0, (xs, reset))
    return hs, carry


def case(dtype, seed=0):
    keys = jax.random.split(jax.random.key(seed), 6)
    normal = partial(jax.random.normal, dtype=dtype)
    params = init_lstm(keys[0], D, H, dtype)
    params = params | {"b": params["b"] + 0.5 * normal(keys[1], (4 * H,))}
    carry0 = (jnp.tanh(normal(keys[2], (B, H))), normal(keys[3], (B, H)))
    reset = jax.random.bernoulli(keys[5], 0.2, (T, B))
    return params, normal(keys[4], (T, B, D)), carry0, reset


def weighted_sum(outputs):
    """A scalar in which every output has a weight of its own."""
    return sum(jnp.sum(v * jnp.cos(1.0 + jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)) for v in outputs)


def outputs_and_gradients(sequence, params, xs, carry0):
    def loss(*args):
        hs, carry = sequence(*args)
        return weighted_sum((hs, *carry)), (hs, carry)

    (_, outputs), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, xs, carry0)
    return outputs, gradients


def assert_close(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * max(1.0, float(jnp.abs(e).max())))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("resets", [False, True])
def test_values_and_gradients_equal_the_plain_cell(dtype, resets):
    with jax.enable_x64(dtype == "float64"):
        params, xs, carry0, reset = case(dtype)
        never = jnp.zeros_like(reset)
        ours = partial(outputs_and_gradients, lambda p, x, c: lstm_sequence(p, x, c, reset if resets else None))
        plain = partial(outputs_and_gradients, lambda p, x, c: plain_sequence(p, x, c, reset if resets else never))
        assert_close(jax.jit(ours)(params, xs, carry0), jax.jit(plain)(params, xs, carry0), TOLERANCE[dtype])


def test_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        params, xs, carry0, reset = case("float64", seed=1)

        def loss(*args):
            hs, carry = lstm_sequence(*args, reset)
            return weighted_sum((hs, *carry))

        check_grads(jax.jit(loss), (params, xs, carry0), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_reset_forgets_everything_before_it():
    params, xs, carry0, _ = case("float32")
    at = 4
    reset = jnp.zeros((T, B), bool).at[at].set(True)
    hs, carry = lstm_sequence(params, xs, carry0, reset)
    fresh_hs, fresh_carry = lstm_sequence(params, xs[at:])
    assert_close((hs[at:], carry), (fresh_hs, fresh_carry), 1e-6)
    after = jax.jit(jax.grad(lambda x, c: jnp.sum(lstm_sequence(params, x, c, reset)[0][at:]), argnums=(0, 1)))
    d_xs, (d_h0, d_c0) = after(xs, carry0)
    assert not jnp.any(d_xs[:at]) and jnp.all(jnp.any(d_xs[at:], axis=(1, 2)))
    assert not jnp.any(d_h0) and not jnp.any(d_c0)


def test_steps_equal_the_sequence():
    params, xs, carry, _ = case("float32")
    hs, last = lstm_sequence(params, xs, carry)
    for t in range(T):
        carry, h = lstm_step(params, carry, xs[t])
        np.testing.assert_allclose(h, hs[t], atol=1e-6)
    assert_close(carry, last, 1e-6)


def test_step_takes_any_batch_shape():
    params, xs, carry, _ = case("float32")
    folded = jax.tree.map(lambda v: v.reshape(2, B // 2, -1), (carry, xs[0]))
    (h, c), out = lstm_step(params, *folded)
    (h_flat, c_flat), out_flat = lstm_step(params, carry, xs[0])
    assert_close((h, c, out), tuple(v.reshape(2, B // 2, H) for v in (h_flat, c_flat, out_flat)), 1e-6)
    single = lstm_step(params, jax.tree.map(lambda v: v[0], carry), xs[0, 0])[1]
    np.testing.assert_allclose(single, out_flat[0], atol=1e-6)


def test_absent_carry_is_zero():
    params, xs, _, _ = case("float32")
    zeros = jnp.zeros((B, H))
    assert_close(lstm_sequence(params, xs), lstm_sequence(params, xs, (zeros, zeros)), 0.0)


def test_vmap_over_stacked_networks_equals_one_at_a_time():
    cases = [case("float32", seed) for seed in range(3)]
    _, xs, carry0, reset = cases[0]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(c[0] for c in cases))
    ours = partial(outputs_and_gradients, lambda p, x, c: lstm_sequence(p, x, c, reset))
    together = jax.jit(jax.vmap(ours, in_axes=(0, None, None)))(stacked, xs, carry0)
    for n, (params, *_) in enumerate(cases):
        assert_close(jax.tree.map(lambda v, n=n: v[n], together), jax.jit(ours)(params, xs, carry0), 1e-5)


def test_nested_vmap_over_seeds_and_networks_equals_one_at_a_time():
    seeds = [[case("float32", 2 * s + n)[0] for n in range(2)] for s in range(2)]
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
    params = stack([stack(nets) for nets in seeds])
    xs = jnp.stack([case("float32", 10 + s)[1] for s in range(2)])
    ours = lambda p, x: jax.grad(lambda p: weighted_sum(lstm_sequence(p, x)[:1]))(p)  # noqa: E731
    together = jax.jit(jax.vmap(jax.vmap(ours, in_axes=(0, None))))(params, xs)
    ours = jax.jit(ours)
    for s in range(2):
        for n in range(2):
            assert_close(jax.tree.map(lambda v, s=s, n=n: v[s, n], together), ours(seeds[s][n], xs[s]), 1e-5)


def test_vmap_over_the_batch_equals_the_batch():
    params, xs, carry0, reset = case("float32")

    def one(x, carry, reset_one):  # a batch of one per lane
        hs, carry = lstm_sequence(params, x[:, None], jax.tree.map(lambda v: v[None], carry), reset_one[:, None])
        return hs[:, 0], jax.tree.map(lambda v: v[0], carry)

    hs, carry = jax.vmap(one, in_axes=(1, 0, 1), out_axes=(1, 0))(xs, carry0, reset)
    assert_close((hs, carry), lstm_sequence(params, xs, carry0, reset), 1e-6)


def test_initial_parameters():
    params = init_lstm(jax.random.key(3), 40, 64)
    assert {k: v.shape for k, v in params.items()} == {"w_x": (40, 256), "w_h": (64, 256), "b": (256,)}
    for name, fan_in in (("w_x", 40), ("w_h", 64)):
        assert 0.97 < float(jnp.std(params[name])) * np.sqrt(fan_in) < 1.03
    np.testing.assert_array_equal(params["b"], np.repeat([0.0, 1.0, 0.0, 0.0], 64))  # forget gate second
