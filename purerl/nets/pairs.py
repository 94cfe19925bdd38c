"""Actor and critic side by side: two perceptrons of the same shape as one, so that every layer is one batched product.

Reading order: `can_pair`, `paired` and `unpaired` (parameters there and back), `apply_pair`.

Small networks spend their time on the number of operations, not on arithmetic: on CartPole's minibatches of 128 rows
one pass for both has fewer of them. Rows are the last axis inside: the gradient of a narrow output layer is then a
product that a CPU is fast at, too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purerl.nets.networks import ACTIVATIONS, Activation, NetworkConfig


class Layer(NamedTuple):
    kernel: jax.Array
    """[2, out, in]; of the first layer, whose inputs both share, [2 * out, in]."""
    bias: jax.Array
    """[2, out, 1]"""


def can_pair(actor: NetworkConfig, critic: NetworkConfig) -> bool:
    """Perceptrons with the same hidden layers, without memory or convolutions."""
    return actor == critic and bool(actor.hidden_sizes) and not actor.recurrent and actor.conv is None


def paired(actor: Any, critic: Any) -> list[Layer]:
    """Two heads' parameters as one; the narrower output is padded with zeros, whose gradient stays zero."""
    layers = []
    for a, c in zip(actor["params"].values(), critic["params"].values(), strict=True):
        width = max(a["bias"].size, c["bias"].size)
        kernels, biases = zip(*(_padded(layer, width) for layer in (a, c)), strict=True)
        layers.append(Layer(jnp.stack(kernels), jnp.stack(biases)))
    first = layers[0]
    return [Layer(first.kernel.reshape(-1, first.kernel.shape[-1]), first.bias), *layers[1:]]


def _padded(layer: Any, width: int) -> tuple[jax.Array, jax.Array]:
    pad = width - layer["bias"].size
    return jnp.pad(layer["kernel"], ((0, 0), (0, pad))).T, jnp.pad(layer["bias"], (0, pad))[:, None]


def unpaired(layers: list[Layer], actor: Any, critic: Any) -> tuple[Any, Any]:
    """The inverse of `paired`: two heads' parameters in the structure of `actor` and `critic`."""

    def side(i: int, like: Any) -> Any:
        def one(layer: Layer, shape: Any) -> Any:
            out = shape["bias"].size
            kernel = layer.kernel.reshape(2, layer.bias.shape[1], -1)[i, :out]
            return {"kernel": kernel.T, "bias": layer.bias[i, :out, 0]}

        return {"params": {name: one(layers[k], shape) for k, (name, shape) in enumerate(like["params"].items())}}

    return side(0, actor), side(1, critic)


def apply_pair(layers: list[Layer], activation: Activation, x: jax.Array) -> jax.Array:
    """Outputs [2, out, N] of actor and critic for rows x [N, d]."""
    first, *rest = layers
    h = (first.kernel @ x.T).reshape(2, -1, x.shape[0]) + first.bias
    for layer in rest:
        h = layer.kernel @ ACTIVATIONS[activation](h) + layer.bias
    return h
