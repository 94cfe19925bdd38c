"""Utilities of agents: what each expects of every choice it has, from what it has seen and done.

Reading order: `AgentConfig`, `Memory`, `Utilities` (inputs, one step), what is available.

A utility network is a `Network`, or an `EntityNetwork`, whose inputs are the observation, the previous action and the
number of the agent. Rows of it are agents of environments; how agents become rows, and whether they share parameters,
is the learner's business (`purerl.learn.trajectory.Team`). Hausknecht and Stone 2015 for values with memory, Rashid et
al. 2018 for the inputs.

Where an agent makes m choices at once, its utility is a constant and a sum over them, in which the first option of each
counts zero: c + sum_j u_j(a_j). So 2^m actions need 1 + m outputs, and the best action is the best option of every
choice. Utilities are then [..., m, n], the constant in equal shares among the m rows, and what is chosen or best is
summed over them (`Utilities.of_action`); otherwise they are [..., n].
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.base import Entities, Selection
from purerl.nets.distributions import masked
from purerl.nets.entity_network import Each, EntityNetwork, Row
from purerl.nets.networks import MOST_LAYERS, Activation, Network, NetworkConfig, Width, initial_carry

AgentType = Literal["mlp", "rnn", "lstm", "attention_rnn", "hierarchical_rnn"]
DEFAULTS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_dims": (256, 256), "rnn_hidden_dim": 64, "activation": "relu"},
    "rnn": {"hidden_dims": (64,), "rnn_hidden_dim": 64, "activation": "relu"},
    "lstm": {"hidden_dims": (512, 256), "rnn_hidden_dim": 256, "activation": "tanh"},
    "attention_rnn": {"hidden_dims": (64,), "rnn_hidden_dim": 128, "activation": "relu"},
    "hierarchical_rnn": {"hidden_dims": (64,), "rnn_hidden_dim": 64, "activation": "relu"},
}


def _by_type(key: str) -> Any:
    return lambda keys: DEFAULTS[keys["type"]][key]


class AgentConfig(BaseModel):
    """The network of an agent.

    `mlp`: layers and nothing else. `rnn`: layers, then a GRU. `lstm`: layers, then an LSTM; utilities of both.
    `attention_rnn`: layers of every entity that is seen, attention to them, then a GRU. `hierarchical_rnn`: layers,
    then a GRU that sees every step and one of half its width that follows every `slow_period` steps; utilities of both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: AgentType = "rnn"
    hidden_dims: tuple[Width, ...] = Field(
        default_factory=_by_type("hidden_dims"),
        max_length=MOST_LAYERS,
        description="layers, with memory: before it; attention_rnn: of every entity",
    )
    rnn_hidden_dim: Width = Field(default_factory=_by_type("rnn_hidden_dim"), description="of the memory")
    rnn_layers: int = Field(1, ge=1, le=MOST_LAYERS)
    activation: Activation = Field(default_factory=_by_type("activation"))
    num_attention_heads: int = Field(4, ge=1, le=1000, description="attention_rnn")
    slow_period: int = Field(4, ge=1, description="hierarchical_rnn: steps between two updates of its slow half")
    layer_norm: bool = Field(
        False, description="normalise what goes into the activation of every layer; attention_rnn does so elsewhere"
    )
    dueling: bool = Field(False, description="a value and advantages instead of utilities (Wang et al. 2016)")
    previous_action: bool = Field(True, description="agents see what they did in the step before")
    agent_id: bool = Field(True, description="agents see which of them they are")

    @model_validator(mode="after")
    def _divides(self):
        if self.attends and (not self.hidden_dims or self.hidden_dims[-1] % self.num_attention_heads):
            raise ValueError(
                f"hidden_dims {list(self.hidden_dims)}: attention_rnn shares the last width among num_attention_heads "
                f"{self.num_attention_heads}; make it a multiple of them"
            )
        return self

    @property
    def recurrent(self) -> bool:
        return self.type != "mlp"

    @property
    def attends(self) -> bool:
        return self.type == "attention_rnn"

    def network(self) -> NetworkConfig:
        if not self.recurrent:
            return NetworkConfig(hidden_sizes=self.hidden_dims, activation=self.activation, layer_norm=self.layer_norm)
        return NetworkConfig(
            encoder_sizes=self.hidden_dims,
            cell={"lstm": "lstm", "hierarchical_rnn": "fast_slow"}.get(self.type, "gru"),
            lstm_hidden_size=self.rnn_hidden_dim,
            lstm_num_layers=self.rnn_layers,
            lstm_skip=self.type == "lstm",
            slow_period=self.slow_period,
            hidden_sizes=(),
            activation=self.activation,
            layer_norm=self.layer_norm,
        )


class Memory(NamedTuple):
    """What acting carries from step to step; zeros at the start of an episode."""

    network: Any
    """Leaves [..., A, h]."""
    previous: jax.Array | None
    """int [..., A], or [..., A, m]: one more than the number of the last action, zero before the first. None: agents do
    not see it."""


class Utilities:
    """The agents' networks as functions of one learner's parameters; inputs and results of agents are [..., A, f]."""

    def __init__(
        self, config: AgentConfig, obs_dim: int, agents: int, choices: int, parts: int | None = None,
        entities: Entities | None = None, selection: Selection | None = None,
    ):  # fmt: skip
        """
        Args:
            choices: n, of every part.
            parts: m choices that an agent makes at once; None: one.
            entities: of what observations are made, for `attention_rnn`. Where the choices are about entities of one
                kind, each reads the token of its own.
            selection: which entities that are, if any.
        """
        self.config, self.agents, self.choices, self.parts = config, agents, choices, parts
        self.action_features = choices if parts is None else parts * (choices - 1)
        """Numbers that describe an agent's action: see `features`."""
        previous, numbers = config.previous_action * self.action_features, config.agent_id * agents
        each = choices - (not config.dueling)  # outputs of one among several choices
        outputs = choices + config.dueling if parts is None else 1 + parts * each
        self.network: Network | EntityNetwork = Network(config.network(), obs_dim + previous + numbers, outputs)
        if config.attends:
            assert entities is not None
            kind = _kind_of_parts(parts, entities, selection)
            self.network = EntityNetwork(
                config.network(), config.num_attention_heads, Row(entities, previous, numbers),
                outputs if kind is None else 1, None if kind is None else Each(kind, each),
            )  # fmt: skip

    def init(self, key: jax.Array) -> dict[str, Any]:
        return self.network.init(key)

    def empty_memory(self, batch_shape: tuple[int, ...]) -> Memory:
        """At the start of an episode; `batch_shape` includes the agents."""
        shape = batch_shape if self.parts is None else (*batch_shape, self.parts)
        previous = jnp.zeros(shape, jnp.int32) if self.config.previous_action else None
        return Memory(initial_carry(self.network.config, batch_shape), previous)

    def features(self, action: jax.Array) -> jax.Array:
        """Actions [..., A] or [..., A, m] as numbers [..., A, f]: one-hot, of several choices without the first option,
        which leaves one bit for each where they are between no and yes. Zeros for actions of -1."""
        rows = jax.nn.one_hot(action, self.choices)
        return rows if self.parts is None else rows[..., 1:].reshape(*action.shape[:-1], self.action_features)

    def inputs(self, obs: jax.Array, previous: jax.Array | None) -> jax.Array:
        """What the networks see [..., A, in_dim] of observations [..., A, d] and previous actions as in `Memory`."""
        parts = [obs]
        if self.config.previous_action:
            assert previous is not None
            parts.append(self.features(previous - 1))  # nothing where there was none
        if self.config.agent_id:
            parts.append(jnp.broadcast_to(jnp.eye(self.agents), (*obs.shape[:-1], self.agents)))
        return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else obs

    def step(self, params, carry, x: jax.Array) -> tuple[Any, jax.Array]:
        """`(next carry, utilities)` of one step for rows x [..., in_dim]."""
        carry, out = self.network.step(params, carry, x)
        return carry, self.of_outputs(out)

    def along(self, params, carry, xs: jax.Array, reset: jax.Array | None) -> jax.Array:
        """Utilities along sequences xs [T, N, in_dim] from a memory; `reset` [T, N] as in `Core`."""
        return self.of_outputs(self.network(params, xs, carry, reset))

    def of_outputs(self, out: jax.Array) -> jax.Array:
        """Utilities [..., n] or [..., m, n] of what the network gives."""
        if self.parts is not None:
            return self._utilities_of_parts(out)
        if not self.config.dueling:
            return out
        value, advantage = out[..., :1], out[..., 1:]
        return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)

    def _utilities_of_parts(self, out: jax.Array) -> jax.Array:
        assert self.parts is not None
        each = out[..., 1:].reshape(*out.shape[:-1], self.parts, -1)
        if self.config.dueling:
            each = each - jnp.mean(each, axis=-1, keepdims=True)
        else:
            each = jnp.concatenate([jnp.zeros_like(each[..., :1]), each], axis=-1)
        return each + out[..., :1, None] / self.parts

    def of_action(self, each: jax.Array) -> jax.Array:
        """What is chosen or best in every choice of an agent, [..., A] or [..., A, m], as one number [..., A]."""
        return each if self.parts is None else jnp.sum(each, axis=-1)

    def per_part(self, flags: jax.Array) -> jax.Array:
        """What is so for agents [..., A] for each of their choices: the same, or [..., A, 1]."""
        return flags if self.parts is None else flags[..., None]

    def attention(self, params, x: jax.Array) -> dict[str, jax.Array]:
        """Shares [...] of the attention of rows [..., in_dim] by kind of entity, of networks that attend."""
        assert isinstance(self.network, EntityNetwork)
        return self.network.shares(params, x)


def _kind_of_parts(parts: int | None, entities: Entities, selection: Selection | None) -> str | None:
    """The kind of entities to which the choices of an agent belong, one to one."""
    if parts is None or selection is None or selection.kind is None:
        return None
    kind = entities.kinds.get(selection.kind)
    return selection.kind if kind is not None and kind.number == parts else None


# What is available


def best_available(utility: jax.Array, legal: jax.Array | None) -> jax.Array:
    """The largest utility [...] among legal choices, bool [..., n]; None: among all."""
    return jnp.max(masked(utility, legal), axis=-1)


def greedy(utility: jax.Array, legal: jax.Array | None) -> jax.Array:
    """The choice [...] with the largest utility among legal ones."""
    return jnp.argmax(masked(utility, legal), axis=-1)


def chosen(utility: jax.Array, action: jax.Array) -> jax.Array:
    """Utilities [...] of the choices made [...]."""
    return jnp.take_along_axis(utility, action[..., None], axis=-1)[..., 0]
