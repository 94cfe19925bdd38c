"""Networks: a core (convolutions, layers, then memory over time, or none of it) and a multilayer perceptron on top.

Reading order: `NetworkConfig`, `cell_of`, `Core`, `convolved`, `Head`, `Network` (both as functions of parameters).
Time is the first axis, batch the second. Parameters are plain dicts.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from purerl.nets.fast_slow import empty_fast_slow, fast_slow_sequence, fast_slow_step, init_fast_slow, slow_width
from purerl.nets.gru import gru_sequence, gru_step, init_gru
from purerl.nets.lstm import init_lstm, lstm_sequence, lstm_step

Activation = Literal["relu", "tanh", "silu", "elu"]
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "silu": nn.silu, "elu": nn.elu}


class Cell(NamedTuple):
    """A kind of recurrent layer; its carry is any tree of arrays [..., hidden]."""

    init: Callable[..., Any]
    sequence: Callable[..., Any]
    step: Callable[..., Any]
    empty: Callable[[jax.Array], Any]
    """Zeros [..., hidden] -> the carry of an empty memory."""
    outputs: Callable[[int], int] = lambda hidden: hidden
    """Units that it shows of a width."""


Width = Annotated[int, Field(ge=1, le=65_536)]
"""Units of a layer, filters or the side of a picture."""
MOST_LAYERS = 100


class ConvConfig(BaseModel):
    """Convolutions over an observation that is a picture, without padding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grid: tuple[Width, Width, Width] = Field(
        description="height, width and planes of the observation before it was flattened"
    )
    features: tuple[Width, ...] = Field(
        (16,), min_length=1, max_length=MOST_LAYERS, description="filters of every layer"
    )
    kernel: int = Field(3, ge=1, description="height and width of the filters")
    stride: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _fits(self):
        if min(self.sizes()[-2]) < self.kernel:
            raise ValueError(f"a kernel of {self.kernel} does not fit: layers see {[list(s) for s in self.sizes()]}")
        return self

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of the observation and after every layer."""
        sizes = [self.grid[:2]]
        for _ in self.features:
            height, width = ((size - self.kernel) // self.stride + 1 for size in sizes[-1])
            sizes.append((height, width))
        return sizes


class NetworkConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    conv: ConvConfig | None = Field(None, description="look at the observation as a picture first")
    encoder_sizes: tuple[Width, ...] = Field((), max_length=MOST_LAYERS, description="layers before the memory")
    cell: Literal["lstm", "gru", "fast_slow"] = Field("lstm", description="kind of the recurrent layers")
    lstm_hidden_size: int = Field(0, ge=0, le=65_536, description="width of the recurrent layers; 0: feed-forward")
    lstm_num_layers: int = Field(1, ge=1, le=MOST_LAYERS, description="recurrent layers")
    slow_period: int = Field(4, ge=1, description="fast_slow: steps between two updates of its slow half")
    lstm_skip: bool = Field(False, description="show the head the observation beside the recurrent output")
    hidden_sizes: tuple[Width, ...] = Field((64, 64), max_length=MOST_LAYERS)
    activation: Activation = "relu"
    layer_norm: bool = Field(False, description="normalise what goes into the activation of every layer")

    @property
    def recurrent(self) -> bool:
        return self.lstm_hidden_size > 0


def cell_of(config: NetworkConfig) -> Cell:
    """The recurrent layers of a network."""
    match config.cell:
        case "lstm":
            return Cell(init_lstm, lstm_sequence, lstm_step, lambda zeros: (zeros, zeros))
        case "gru":
            return Cell(init_gru, gru_sequence, gru_step, lambda zeros: zeros)
        case "fast_slow":
            return Cell(
                init_fast_slow,
                partial(fast_slow_sequence, period=config.slow_period),
                partial(fast_slow_step, period=config.slow_period),
                empty_fast_slow,
                lambda hidden: hidden + slow_width(hidden),
            )


class Core(nn.Module):
    """Convolutions, layers and memory over time: stacked recurrent layers. The identity where a network has none."""

    config: NetworkConfig

    def layers(self, in_dim: int) -> list[dict[str, jax.Array]]:
        c = self.config
        if not c.recurrent:
            return []
        cell = cell_of(c)
        widths = [in_dim] + [cell.outputs(c.lstm_hidden_size)] * (c.lstm_num_layers - 1)
        return [self.param(f"{c.cell}_{i}", cell.init, width, c.lstm_hidden_size) for i, width in enumerate(widths)]

    def look(self, xs):
        """Features [..., f] of observations [..., d]."""
        c, activation = self.config.conv, ACTIVATIONS[self.config.activation]
        if c is None and not self.config.encoder_sizes:
            return xs
        h = xs.reshape(-1, xs.shape[-1])
        if c is not None:
            h = h.reshape(-1, *c.grid)
            for i, width in enumerate(c.features):
                p = self.param(f"conv_{i}", init_dense, (c.kernel, c.kernel, h.shape[-1], width))
                h = activation(convolved(h, p["kernel"], c.stride) + p["bias"])
            h = h.reshape(h.shape[0], -1)
        for i, width in enumerate(self.config.encoder_sizes):
            p = self.param(f"encoder_{i}", init_dense, (h.shape[-1], width))
            h = h @ p["kernel"] + p["bias"]
            h = activation(_layer_norm(self, i, h) if self.config.layer_norm else h)
        return h.reshape(*xs.shape[:-1], -1)

    @nn.compact
    def __call__(self, xs, carry=None, reset=None):
        """Features [T, B, f] of a whole sequence xs [T, B, d]; without memory any [..., d].

        Args:
            carry: memory before the first step as in `initial_carry`; None: empty.
            reset: bool [T, B]: empty the memory before this step; None: never.
        """
        xs = h = self.look(xs)
        for i, params in enumerate(self.layers(xs.shape[-1])):
            h, _ = cell_of(self.config).sequence(params, h, carry[i] if carry else None, reset)
        return self._join(h, xs)

    @nn.compact
    def step(self, carry, x):
        """One step: (next carry, features [..., f]) for x [..., d]; the same numbers as the whole sequence."""
        x = h = self.look(x)
        carries = []
        for params, layer_carry in zip(self.layers(x.shape[-1]), carry, strict=True):
            layer_carry, h = cell_of(self.config).step(params, layer_carry, h)
            carries.append(layer_carry)
        return tuple(carries), self._join(h, x)

    def _join(self, h, x):
        return jnp.concatenate([h, x], axis=-1) if self.config.recurrent and self.config.lstm_skip else h


def init_dense(key: jax.Array, shape: tuple[int, ...]) -> dict[str, jax.Array]:
    """A layer of this shape [..., in, out], or filters."""
    return {"kernel": init_kernel(key, shape), "bias": jnp.zeros(shape[-1:])}


def init_kernel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return nn.initializers.lecun_uniform()(key, shape)


def normalised(x: jax.Array) -> jax.Array:
    """Layer normalisation without parameters: mean zero and variance one along the last axis (Ba et al. 2016)."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-6)


def _layer_norm(module: nn.Module, number: int, h: jax.Array) -> jax.Array:
    """`h` [..., f] normalised, with a scale and a shift that are parameters of the module."""
    scale = module.param(f"norm_{number}_scale", nn.initializers.ones_init(), h.shape[-1:])
    shift = module.param(f"norm_{number}_shift", nn.initializers.zeros_init(), h.shape[-1:])
    return scale * normalised(h) + shift


def make_core(config: NetworkConfig, in_dim: int) -> Core:
    """The core for inputs [..., in_dim].

    Raises:
        ValueError: a picture of another size.
    """
    if config.conv is not None and (size := int(np.prod(config.conv.grid))) != in_dim:
        raise ValueError(f"conv.grid {list(config.conv.grid)} has {size} values, the network's input {in_dim}")
    return Core(config)


def convolved(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Pictures [N, H, W, C] under a kernel [k, k, C, F], without padding: [N, (H - k) // stride + 1, ..., F].

    Every row of outputs is one product of the k rows of inputs below it with the kernel written out as a band matrix.
    That multiplies by zeros, but the product has a shape that a CPU is fast at, and under `vmap` over networks it stays
    a batched product: for small pictures it beats both XLA's convolution and a product of k x k patches.
    """
    _, height, width, planes = x.shape
    k, _, _, features = kernel.shape
    rows, columns = ((size - k) // stride + 1 for size in (height, width))
    lines = [x[:, i : i + stride * (rows - 1) + 1 : stride].reshape(-1, 1, width * planes) for i in range(k)]
    starts = [stride * column for column in range(columns)]
    band = jnp.stack([jnp.pad(kernel, ((0, 0), (s, width - k - s), (0, 0), (0, 0))) for s in starts], axis=3)
    out = jnp.concatenate(lines, axis=1).reshape(-1, k * width * planes) @ band.reshape(k * width * planes, -1)
    return out.reshape(-1, rows, columns, features)


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
        for i, width in enumerate(self.config.hidden_sizes):
            h = _Linear(width, nn.initializers.lecun_uniform())(x)
            x = [ACTIVATIONS[self.config.activation](_layer_norm(self, i, h) if self.config.layer_norm else h)]
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
        self.core, self.head = make_core(config, in_dim), Head(config, out_dim, out_scale)

    def init(self, key) -> dict[str, Any]:
        key_core, key_head = jax.random.split(key)
        xs = jnp.zeros((1, 1, self.in_dim))
        core: Any = self.core.init(key_core, xs)
        return {"core": core, "head": self.head.init(key_head, self.core.apply(core, xs))}

    def __call__(self, params, xs, carry=None, reset=None):
        """Outputs [T, N, out_dim] along sequences xs [T, N, in_dim]; `carry` and `reset` as in `Core`."""
        return self.head.apply(params["head"], self.core.apply(params["core"], xs, carry, reset))

    def step(self, params, carry, x):
        """`(next carry, outputs [..., out_dim])` of one step x [..., in_dim]."""
        step: Any = self.core.apply(params["core"], carry, x, method="step")
        carry, features = step
        return carry, self.head.apply(params["head"], features)


def initial_carry(config: NetworkConfig, batch_shape: tuple[int, ...]):
    """Empty memory for a batch: a tuple over layers of (h, c), of h, or of `FastSlow`, each [*batch_shape, ...]."""
    if not config.recurrent:
        return ()
    zeros = jnp.zeros((*batch_shape, config.lstm_hidden_size))
    return tuple(cell_of(config).empty(zeros) for _ in range(config.lstm_num_layers))
