"""The GRU layer against flax's cell, with resets and carries, and against finite differences."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purerl.nets.gru import gru_sequence, gru_step, init_gru

T, B, D, H = 9, 6, 5, 8


def plain_sequence(params, xs, h, reset):
    """flax's cell, one step after the other."""
    w_x, w_h, b = (jnp.split(params[name], 3, axis=-1) for name in ("w_x", "w_h", "b"))
    cell = {f"i{gate}": {"kernel": w_x[i], "bias": b[i]} for i, gate in enumerate("rzn")}
    cell |= {"hr": {"kernel": w_h[0]}, "hz": {"kernel": w_h[1]}, "hn": {"kernel": w_h[2], "bias": params["b_h"]}}
    hs = []
    for x, reset_t in zip(xs, reset, strict=True):
        h, _ = nn.GRUCell(H).apply({"params": cell}, jnp.where(reset_t[:, None], 0.0, h), x)
        hs.append(h)
    return jnp.stack(hs), h


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32)
        for name, leaf in jax.eval_shape(partial(init_gru, in_dim=D, hidden=H), jax.random.key(0)).items()
    }
    xs, h0 = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((T, B, D), (B, H)))
    return params, xs, h0, jnp.asarray(rng.random((T, B)) < 0.2)


def assert_close(actual, expected, tolerance):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=tolerance, rtol=tolerance), actual, expected)


@pytest.mark.parametrize("resets", [False, True])
def test_values_and_gradients_equal_the_cell_of_flax(case, resets):
    """Outputs, last memory, and gradients in parameters, inputs and first memory."""
    *inputs, reset = case
    reset = reset if resets else jnp.zeros_like(reset)
    weight = jnp.cos(jnp.arange(T * B * H, dtype=jnp.float32)).reshape(T, B, H)

    def of(run):
        def loss(params, xs, h0):
            hs, h = run(params, xs, h0)
            return jnp.sum(weight * hs) + jnp.sum(h**2), (hs, h)

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*inputs)

    ours = lambda p, x, h: gru_sequence(p, x, h, reset if resets else None)  # noqa: E731
    got, expected = jax.jit(lambda: (of(ours), of(lambda p, x, h: plain_sequence(p, x, h, reset))))()
    assert_close(got, expected, 2e-5)


def test_reset_forgets_everything_before_it(case):
    params, xs, h0, _ = case
    at = 4
    reset = jnp.zeros((T, B), bool).at[at].set(True)
    hs, last = gru_sequence(params, xs, h0, reset)
    fresh_hs, fresh_last = gru_sequence(params, xs[at:])
    assert_close((hs[at:], last), (fresh_hs, fresh_last), 1e-6)
    d_xs, d_h0 = jax.grad(lambda x, h: jnp.sum(gru_sequence(params, x, h, reset)[0][at:]), argnums=(0, 1))(xs, h0)
    assert not jnp.any(d_xs[:at]) and jnp.all(jnp.any(d_xs[at:], axis=(1, 2)))
    assert not jnp.any(d_h0)


def test_steps_of_any_batch_shape_equal_the_sequence(case):
    params, xs, h0, _ = case
    hs, _ = gru_sequence(params, xs, h0)
    carry = h0.reshape(2, B // 2, H)
    for x, h in zip(xs, hs, strict=True):
        carry, out = gru_step(params, carry, x.reshape(2, B // 2, D))
        np.testing.assert_array_equal(carry, out)
        np.testing.assert_allclose(out.reshape(B, H), h, atol=1e-6)


def test_initial_parameters():
    params = init_gru(jax.random.key(3), 40, 64)
    assert {k: v.shape for k, v in params.items()} == {"w_x": (40, 192), "w_h": (64, 192), "b": (192,), "b_h": (64,)}
    for name, fan_in in (("w_x", 40), ("w_h", 64)):
        assert 0.96 < float(jnp.std(params[name])) * np.sqrt(fan_in) < 1.04
    assert not jnp.any(params["b"]) and not jnp.any(params["b_h"])
