"""Networks that look at the entities of an observation one by one, whatever their number.

Reading order: `Row` (what a row of inputs is made of), `Each` (outputs for every entity of a kind), `EntityNetwork`:
parameters, tokens, attention, outputs.

The agent itself and every entity become a token of the same width, by layers of their kind. The agent's own token asks
all tokens that are seen, itself included (attention of several heads: Vaswani et al. 2017, section 3.2); what it learns
is added to it, normalised and remembered. With one query for all tokens, keys and values need not be computed token by
token: the query is taken through the keys' weights, and the weighted mean of the tokens through those of the values.
"""

from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Entities
from purerl.nets.distributions import masked
from purerl.nets.networks import ACTIVATIONS, Network, NetworkConfig, cell_of, init_dense, init_kernel, normalised

OWN = "own"
"""The agent's token among those of the kinds."""
PRODUCTS = "query", "key", "value", "out"


class Row(NamedTuple):
    """How many numbers follow each other in a row of inputs."""

    entities: Entities
    """Of the observation, which comes first."""
    previous: int
    """Features of the previous action."""
    rest: int


class Each(NamedTuple):
    """Outputs for every entity of a kind, behind those of the agent.

    Features of the previous action are then equally many for each of them, and part of their tokens.
    """

    kind: str
    outputs: int


class Attended(NamedTuple):
    summary: jax.Array
    """[R, e]"""
    tokens: dict[str, jax.Array]
    """By kind [R, count, e]; the agent's own [R, 1, e] first."""
    weights: jax.Array
    """[R, heads, tokens] in that order."""


class EntityNetwork:
    """`Network` with attention in the place of the layers before its memory; inputs are rows as `Row` says."""

    def __init__(self, config: NetworkConfig, heads: int, row: Row, outputs: int, each: Each | None = None):
        """
        Args:
            config: with memory; `encoder_sizes` are the layers of every token, and the heads share the last width.
            outputs: of the agent.
        """
        self.config, self.heads, self.row, self.each = config, heads, row, each
        self.width = config.encoder_sizes[-1]
        self.memory = Network(config.model_copy(update={"encoder_sizes": ()}), self.width, outputs)
        self.kinds = {name: kind for name, kind in row.entities.kinds.items() if kind.number}

    def init(self, key: jax.Array) -> dict[str, Any]:
        key_products, key_tokens, key_memory, key_each = jax.random.split(key, 4)
        square, sizes = (self.width, self.width), self.sizes()
        products, layers = jax.random.split(key_products, len(PRODUCTS)), jax.random.split(key_tokens, len(sizes))
        params: dict[str, Any] = {
            **{name: init_kernel(k, square) for name, k in zip(PRODUCTS, products, strict=True)},
            "tokens": {name: self._init_layers(k, sizes[name]) for name, k in zip(sizes, layers, strict=True)},
            "memory": self.memory.init(key_memory),
        }
        if self.each is not None:
            remembered = cell_of(self.config).outputs(self.config.lstm_hidden_size)
            key_remembered, key_token, key_out = jax.random.split(key_each, 3)
            params["each"] = {
                "memory": init_dense(key_remembered, (remembered, self.width)),
                "token": init_kernel(key_token, square),
                "out": init_dense(key_out, (self.width, self.each.outputs)),
            }
        return params

    def _init_layers(self, key: jax.Array, size: int) -> list[dict[str, jax.Array]]:
        widths = size, *self.config.encoder_sizes
        keys = jax.random.split(key, len(widths) - 1)
        return [init_dense(k, shape) for k, shape in zip(keys, pairwise(widths), strict=True)]

    def sizes(self) -> dict[str, int]:
        """Numbers of a token of each kind before its layers, the agent's own first."""
        seen = {name: kind.size for name, kind in self.kinds.items()}
        own = self.row.entities.own + self.row.rest
        if self.each is None:
            return {OWN: own + self.row.previous, **seen}
        seen[self.each.kind] += self.row.previous // self.kinds[self.each.kind].number
        return {OWN: own, **seen}

    # One row after the other, [R, ...]

    def parts(self, x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        """Tokens before their layers by kind [R, count, size], and which are seen, bool [R, tokens]."""
        start = self.row.entities.own
        seen = {}
        for name, kind in self.row.entities.kinds.items():
            stop = start + kind.number * kind.size
            if kind.number:
                seen[name] = x[:, start:stop].reshape(-1, kind.number, kind.size)
            start = stop
        flags = [tokens[..., -1] > 0 for tokens in seen.values()]
        previous, rest = x[:, start : start + self.row.previous], x[:, start + self.row.previous :]
        own = [x[:, : self.row.entities.own], rest]
        if self.each is None:
            own.append(previous)
        else:
            tokens = seen[self.each.kind]
            seen[self.each.kind] = jnp.concatenate([tokens, previous.reshape(*tokens.shape[:2], -1)], axis=-1)
        itself = jnp.ones((x.shape[0], 1), bool)
        return {OWN: jnp.concatenate(own, axis=-1)[:, None], **seen}, jnp.concatenate([itself, *flags], axis=-1)

    def attended(self, params, x: jax.Array) -> Attended:
        """What agents make of rows x [R, in_dim]."""
        parts, visible = self.parts(x)
        tokens = {name: self._embedded(params["tokens"][name], part) for name, part in parts.items()}
        own, every = tokens[OWN][:, 0], jnp.concatenate(list(tokens.values()), axis=1)
        query, key, value = (params[name].reshape(self.width, self.heads, -1) for name in PRODUCTS[:3])
        asked = jnp.einsum("rhd,ehd->rhe", jnp.einsum("re,ehd->rhd", own, query), key)
        logit = jnp.einsum("rhe,rme->rhm", asked, every) / np.sqrt(self.width / self.heads)
        weights = jax.nn.softmax(masked(logit, visible[:, None]), axis=-1)
        learned = jnp.einsum("rhe,ehd->rhd", jnp.einsum("rhm,rme->rhe", weights, every), value)
        summary = own + learned.reshape(-1, self.width) @ params["out"]
        return Attended(normalised(summary), tokens, weights)

    def _embedded(self, layers, tokens: jax.Array) -> jax.Array:
        h = tokens.reshape(-1, tokens.shape[-1])
        for layer in layers:
            h = self._activation(h @ layer["kernel"] + layer["bias"])
        return h.reshape(*tokens.shape[:-1], self.width)

    def _activation(self, x: jax.Array) -> jax.Array:
        return ACTIVATIONS[self.config.activation](x)

    def _outputs(self, params, remembered: jax.Array, tokens: dict[str, jax.Array]) -> jax.Array:
        """[R, outputs + count * each's outputs] of what is remembered [R, h]."""
        out: Any = self.memory.head.apply(params["memory"]["head"], remembered)
        if self.each is None:
            return out
        own, each = tokens[self.each.kind], params["each"]
        hidden = (own.reshape(-1, self.width) @ each["token"]).reshape(own.shape)
        hidden = self._activation(hidden + (remembered @ each["memory"]["kernel"] + each["memory"]["bias"])[:, None])
        chosen = hidden.reshape(-1, self.width) @ each["out"]["kernel"] + each["out"]["bias"]
        return jnp.concatenate([out, chosen.reshape(out.shape[0], -1)], axis=-1)

    # As `Network`

    def __call__(self, params, xs, carry=None, reset=None):
        """Outputs [T, N, f] along sequences xs [T, N, in_dim]; `carry` and `reset` as in `Core`."""
        seen = self.attended(params, xs.reshape(-1, xs.shape[-1]))
        summary = seen.summary.reshape(*xs.shape[:-1], self.width)
        remembered: Any = self.memory.core.apply(params["memory"]["core"], summary, carry, reset)
        out = self._outputs(params, remembered.reshape(-1, remembered.shape[-1]), seen.tokens)
        return out.reshape(*xs.shape[:-1], -1)

    def step(self, params, carry, x):
        """`(next carry, outputs [..., f])` of one step x [..., in_dim]."""
        seen = self.attended(params, x.reshape(-1, x.shape[-1]))
        summary = seen.summary.reshape(*x.shape[:-1], self.width)
        step: Any = self.memory.core.apply(params["memory"]["core"], carry, summary, method="step")
        carry, remembered = step
        out = self._outputs(params, remembered.reshape(-1, remembered.shape[-1]), seen.tokens)
        return carry, out.reshape(*x.shape[:-1], -1)

    def shares(self, params, x: jax.Array) -> dict[str, jax.Array]:
        """How much of the attention of rows [..., in_dim] goes to each kind [...], the agent's own token first."""
        weights = jnp.mean(self.attended(params, x.reshape(-1, x.shape[-1])).weights, axis=1)
        found, start = {}, 0
        for name, count in {OWN: 1, **{name: kind.number for name, kind in self.kinds.items()}}.items():
            found[name] = jnp.sum(weights[:, start : start + count], axis=-1).reshape(x.shape[:-1])
            start += count
        return found
