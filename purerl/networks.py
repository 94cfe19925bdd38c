"""Networks: a core over time (LSTM, or none) and a multilayer perceptron on top. Parameters are plain dicts.

Reading order: `NetworkConfig`, `Core`, `Head`, `Network` (both as functions of parameters). Time is the first axis,
batch the second.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from purerl.lstm import init_lstm, lstm_sequence, lstm_step

Activation = Literal["relu", "tanh", "silu", "elu"]
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "silu": nn.silu, "elu": nn.elu}


class NetworkConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    lstm_hidden_size: int = Field(0, ge=0, description="0: feed-forward")
    lstm_num_layers: int = Field(1, ge=1)
    lstm_skip: bool = Field(False, description="show the head the observation beside the LSTM output")
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "relu"

    @property
    def recurrent(self) -> bool:
        return self.lstm_hidden_size > 0


class Core(nn.Module):
    """Memory over time: stacked LSTM layers, or the identity for feed-forward networks."""

    config: NetworkConfig

    def layers(self, in_dim: int) -> list[dict[str, jax.Array]]:
        c = self.config
        if not c.recurrent:
            return []
        widths = [in_dim] + [c.lstm_hidden_size] * (c.lstm_num_layers - 1)
        return [self.param(f"lstm_{i}", init_lstm, width, c.lstm_hidden_size) for i, width in enumerate(widths)]

    @nn.compact
    def __call__(self, xs, carry=None, reset=None):
        """Features [T, B, f] of a whole sequence xs [T, B, d].

        Args:
            carry: memory before the first step as in `initial_carry`; None: empty.
            reset: bool [T, B]: empty the memory before this step; None: never.
        """
        h = xs
        for i, params in enumerate(self.layers(xs.shape[-1])):
            h, _ = lstm_sequence(params, h, carry[i] if carry else None, reset)
        return self._join(h, xs)

    @nn.compact
    def step(self, carry, x):
        """One step: (next carry, features [..., f]) for x [..., d]; the same numbers as the whole sequence."""
        h, carries = x, []
        for params, layer_carry in zip(self.layers(x.shape[-1]), carry, strict=True):
            layer_carry, h = lstm_step(params, layer_carry, h)
            carries.append(layer_carry)
        return tuple(carries), self._join(h, x)

    def _join(self, h, x):
        return jnp.concatenate([h, x], axis=-1) if self.config.recurrent and self.config.lstm_skip else h


class Head(nn.Module):
    """Multilayer perceptron with a linear output [..., out_dim]."""

    config: NetworkConfig
    out_dim: int
    out_scale: float = 1.0
    """Scale of the initial output weights: small keeps a fresh policy away from saturation."""

    @nn.compact
    def __call__(self, *parts):
        """Outputs [..., out_dim] for inputs given in parts [..., f_i].

        The first layer multiplies each part by itself: a gradient for one part costs no more than that part, and a part
        that two calls have in common is multiplied once. All layers work on flat rows, because the weight gradient of a
        layer on [T, N, f] would become a product of two transposed copies.
        """
        leading = parts[0].shape[:-1]
        x: Any = [part.reshape(-1, part.shape[-1]) for part in parts]
        for width in self.config.hidden_sizes:
            x = [ACTIVATIONS[self.config.activation](_Linear(width, nn.initializers.lecun_uniform())(x))]
        # Uniform throughout: the inverse error function of normal initialisers is slow to compile.
        init = nn.initializers.variance_scaling(self.out_scale**2, "fan_in", "uniform")
        return _Linear(self.out_dim, init)(x).reshape(*leading, self.out_dim)


class _Linear(nn.Module):
    """x W + b for x = [part_1, part_2, ...], without joining the parts."""

    width: int
    kernel_init: Callable[..., jax.Array]

    @nn.compact
    def __call__(self, parts):
        edges = np.cumsum([0, *(part.shape[-1] for part in parts)])
        kernel = self.param("kernel", self.kernel_init, (int(edges[-1]), self.width))
        out = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        for part, start, end in zip(parts, edges, edges[1:], strict=False):
            out = out + part @ kernel[start:end]
        return out


class Network:
    """A core with a head on top as functions of `(params, inputs)`; params are `{"core": ..., "head": ...}`."""

    def __init__(self, config: NetworkConfig, in_dim: int, out_dim: int, out_scale: float = 1.0):
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        self.core, self.head = Core(config), Head(config, out_dim, out_scale)

    def init(self, key) -> dict[str, Any]:
        key_core, key_head = jax.random.split(key)
        xs = jnp.zeros((1, 1, self.in_dim))
        core: Any = self.core.init(key_core, xs)
        return {"core": core, "head": self.head.init(key_head, self.core.apply(core, xs))}

    def __call__(self, params, xs):
        """Outputs [T, N, out_dim] along sequences xs [T, N, in_dim] that start with an empty memory."""
        return self.head.apply(params["head"], self.core.apply(params["core"], xs))

    def step(self, params, carry, x):
        """`(next carry, outputs [..., out_dim])` of one step x [..., in_dim]."""
        step: Any = self.core.apply(params["core"], carry, x, method="step")
        carry, features = step
        return carry, self.head.apply(params["head"], features)


def initial_carry(config: NetworkConfig, batch_shape: tuple[int, ...]):
    """Empty memory for a batch: a tuple over layers of (h, c), each [*batch_shape, hidden]."""
    if not config.recurrent:
        return ()
    zeros = jnp.zeros((*batch_shape, config.lstm_hidden_size))
    return tuple((zeros, zeros) for _ in range(config.lstm_num_layers))
