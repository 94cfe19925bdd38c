"""Networks: the LSTM against a plain cell and plain differentiation, convolutions against those of XLA, sequences
against single steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from purerl.nets.lstm import init_lstm, lstm_sequence
from purerl.nets.networks import ACTIVATIONS, ConvConfig, Core, Head, NetworkConfig, convolved, initial_carry, make_core

STEPS, BATCH, IN, HIDDEN = 5, 3, 4, 5


@pytest.fixture(scope="module")
def layer():
    """LSTM parameters and an input [T, B, D]."""
    rng = np.random.default_rng(0)
    shapes = {"w_x": (IN, 4 * HIDDEN), "w_h": (HIDDEN, 4 * HIDDEN), "b": (4 * HIDDEN,)}
    params = {name: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32) for name, shape in shapes.items()}
    return params, jnp.asarray(rng.normal(size=(STEPS, BATCH, IN)), jnp.float32)


def plain_lstm(params, xs, carry, resets=None):
    """The cell equations, step by step, in the gate order i, f, o, g."""
    sigmoid = lambda z: 1 / (1 + jnp.exp(-z))  # noqa: E731
    h, c = carry
    hs = []
    for t in range(xs.shape[0]):
        if resets is not None:
            h, c = (jnp.where(resets[t][:, None], 0, v) for v in (h, c))
        i, f, o, g = jnp.split(xs[t] @ params["w_x"] + h @ params["w_h"] + params["b"], 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        hs.append(h)
    return jnp.stack(hs), (h, c)


RESETS = jnp.zeros((STEPS, BATCH), bool).at[2, 1].set(True).at[0, 0].set(True).at[4].set(True)


@pytest.mark.parametrize("resets", [None, RESETS], ids=["plain", "resets"])
def test_lstm_and_its_gradient_equal_the_plain_cell(layer, resets):
    """Outputs, last carry, and gradients in parameters, inputs and first carry; two sets of parameters under vmap."""
    params, xs = layer
    rng = np.random.default_rng(1)
    weight = jnp.asarray(rng.normal(size=(STEPS, BATCH, HIDDEN)), jnp.float32)
    carry = tuple(jnp.asarray(rng.normal(size=(BATCH, HIDDEN)), jnp.float32) for _ in range(2))
    both = jax.tree.map(lambda x: jnp.stack([x, 1.5 * x]), params)

    def of(run):
        def loss(params, xs, carry):
            hs, (h, c) = run(params, xs, carry, resets)
            return jnp.sum(weight * hs) + jnp.sum(h * c), (hs, h, c)

        return jax.vmap(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), (0, None, None))

    together = jax.jit(lambda *a: [of(run)(*a) for run in (lstm_sequence, plain_lstm)])
    got, expected = together(both, xs, carry)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)


def test_initial_lstm_parameters():
    """Uniform weights of variance 1 / inputs, and a memory that forgets little at first."""
    params = init_lstm(jax.random.key(0), IN, 50)
    for name, inputs in (("w_x", IN), ("w_h", 50)):
        np.testing.assert_allclose(np.std(params[name]), 1 / np.sqrt(inputs), rtol=0.06)
        assert np.abs(params[name]).max() <= np.sqrt(3 / inputs)
    np.testing.assert_array_equal(params["b"], [0] * 50 + [1] * 50 + [0] * 100)


TWO_LAYERS = NetworkConfig(lstm_hidden_size=HIDDEN, lstm_num_layers=2, lstm_skip=True)
PICTURE = NetworkConfig(conv=ConvConfig(grid=(2, 2, 1), features=(3,), kernel=2))
CORES = {
    "feed-forward": (NetworkConfig(), IN),
    "lstm": (NetworkConfig(lstm_hidden_size=HIDDEN), HIDDEN),
    "two layers and skip": (TWO_LAYERS, HIDDEN + IN),
    "gru, two layers and skip": (TWO_LAYERS.model_copy(update={"cell": "gru"}), HIDDEN + IN),
    "convolution": (PICTURE, 3),
    "gru after a convolution, skip": (
        PICTURE.model_copy(update={"cell": "gru", "lstm_hidden_size": HIDDEN, "lstm_skip": True}),
        HIDDEN + 3,
    ),
}


@pytest.mark.parametrize(("config", "width"), CORES.values(), ids=CORES)
def test_core_step_by_step_equals_the_sequence(config, width, layer):
    _, xs = layer
    core = Core(config)
    params = filled(jax.eval_shape(core.init, jax.random.key(0), xs))

    def one_by_one(params, xs):
        carry, outputs = initial_carry(config, (BATCH,)), []
        for x in xs:
            carry, features = core.apply(params, carry, x, method="step")
            outputs.append(features)
        return jnp.stack(outputs)

    run = jax.jit(lambda *a: (core.apply(*a), one_by_one(*a)))
    features, steps = run(params, xs)
    assert features.shape == (STEPS, BATCH, width)
    np.testing.assert_allclose(steps, features, atol=1e-6)
    if config.conv is None and (config.lstm_skip or not config.recurrent):
        np.testing.assert_array_equal(features[..., -IN:], xs)


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (3, 2), (1, 1)])
def test_convolution_and_its_gradients_equal_those_of_xla(stride, kernel):
    rng = np.random.default_rng(5)
    x, weights = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 8, 7, 2), (kernel, kernel, 2, 5)))

    def plain(x, weights):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, weights, (stride, stride), "VALID", dimension_numbers=layout)

    def of(convolution):
        loss = lambda *args: (jnp.sum(jnp.sin(convolution(*args))), convolution(*args))  # noqa: E731
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, weights)

    got, expected = jax.jit(lambda: (of(lambda x, w: convolved(x, w, stride)), of(plain)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected)


def test_pictures_are_read_in_the_order_in_which_they_were_flattened():
    """A filter that copies one plane, on sequences [T, B, d] and on rows [N, d]."""
    config = NetworkConfig(conv=ConvConfig(grid=(3, 2, 4), features=(1,), kernel=1))
    picture = np.random.default_rng(6).random((5, 2, 3, 2, 4)).astype(np.float32)
    params = {"params": {"conv_0": {"kernel": jnp.eye(4)[None, None, :, 2:3], "bias": jnp.zeros(1)}}}
    expected = picture[..., 2].reshape(5, 2, 6)
    np.testing.assert_array_equal(Core(config).apply(params, picture.reshape(5, 2, 24)), expected)
    np.testing.assert_array_equal(Core(config).apply(params, picture.reshape(10, 24)), expected.reshape(10, 6))


def test_layers_of_convolutions_see_the_ones_before():
    conv = ConvConfig(grid=(10, 10, 4), features=(16, 8), kernel=3, stride=2)
    assert conv.sizes() == [(10, 10), (4, 4), (1, 1)]
    core = Core(NetworkConfig(conv=conv))
    shapes = jax.eval_shape(core.init, jax.random.key(0), jnp.zeros((2, 400)))
    assert shapes["params"]["conv_1"]["kernel"].shape == (3, 3, 16, 8)
    assert jax.eval_shape(core.apply, shapes, jnp.zeros((2, 400))).shape == (2, 8)


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="a kernel of 4 does not fit"):
        ConvConfig(grid=(9, 3, 1), kernel=4)
    with pytest.raises(ValueError, match=r"conv.grid \[2, 2, 1\] has 4 values, the network's input 5"):
        make_core(PICTURE, 5)


def test_second_layer_reads_the_first(layer):
    params, xs = layer
    second = filled(jax.eval_shape(lambda: init_lstm(jax.random.key(0), HIDDEN, HIDDEN)))
    both = {"params": {"lstm_0": params, "lstm_1": second}}
    zeros = (jnp.zeros((BATCH, HIDDEN)),) * 2
    run = jax.jit(
        lambda: (Core(TWO_LAYERS).apply(both, xs), plain_lstm(second, plain_lstm(params, xs, zeros)[0], zeros)[0]),
    )
    got, expected = run()
    np.testing.assert_allclose(got[..., :HIDDEN], expected, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_head_is_a_perceptron_with_a_linear_output(activation):
    head = Head(NetworkConfig(hidden_sizes=(6, 5), activation=activation), out_dim=2)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(3, IN)), jnp.float32)
    params = filled(jax.eval_shape(head.init, jax.random.key(0), x))
    dense = [params["params"][f"_Linear_{i}"] for i in range(3)]
    h = x
    for layer in dense[:2]:
        h = ACTIVATIONS[activation](h @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(head.apply(params, x), h @ dense[2]["kernel"] + dense[2]["bias"], atol=1e-5)


def test_small_output_scale_keeps_a_fresh_policy_near_zero():
    def kernel(scale):
        head = Head(NetworkConfig(hidden_sizes=()), 400, out_scale=scale)
        return head.init(jax.random.key(0), jnp.ones((1, IN)))["params"]["_Linear_0"]["kernel"]

    kernels = {scale: kernel(scale) for scale in (1.0, 0.1)}
    np.testing.assert_allclose(kernels[0.1], 0.1 * kernels[1.0], atol=1e-6)
    np.testing.assert_allclose(np.std(kernels[1.0]), 1 / np.sqrt(IN), rtol=0.1)


def filled(shapes, seed: int = 3):
    """Arrays of these shapes with random numbers: initialisers take long to compile and are not what is tested."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) / 2, s.dtype), shapes)
