"""Utilities of agents: what each expects of every choice it has, from what it has seen and done.

Reading order: `AgentConfig`, `Memory`, `Utilities` (inputs, one step), what is available.

A utility network is a `Network` whose inputs are the observation, the previous action and the number of the agent. Rows
of it are agents of environments; how agents become rows, and whether they share parameters, is the learner's business
(`purerl.learn.trajectory.Team`). Hausknecht and Stone 2015 for values with memory, Rashid et al. 2018 for the inputs.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field

from purerl.nets.distributions import masked
from purerl.nets.networks import MOST_LAYERS, Activation, Network, NetworkConfig, Width, initial_carry

AgentType = Literal["mlp", "rnn", "lstm"]


def _by_type(mlp: Any, rnn: Any, lstm: Any) -> Any:
    return lambda keys: {"mlp": mlp, "rnn": rnn, "lstm": lstm}[keys["type"]]


class AgentConfig(BaseModel):
    """The network of an agent.

    `mlp`: layers and nothing else. `rnn`: layers, then a GRU. `lstm`: layers, then an LSTM; utilities of both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: AgentType = "rnn"
    hidden_dims: tuple[Width, ...] = Field(
        default_factory=_by_type(mlp=(256, 256), rnn=(64,), lstm=(512, 256)),
        max_length=MOST_LAYERS,
        description="layers, with memory: before it",
    )
    rnn_hidden_dim: Width = Field(default_factory=_by_type(mlp=64, rnn=64, lstm=256), description="of the memory")
    rnn_layers: int = Field(1, ge=1, le=MOST_LAYERS)
    activation: Activation = Field(default_factory=_by_type(mlp="relu", rnn="relu", lstm="tanh"))
    dueling: bool = Field(False, description="a value and advantages instead of utilities (Wang et al. 2016)")
    previous_action: bool = Field(True, description="agents see what they did in the step before")
    agent_id: bool = Field(True, description="agents see which of them they are")

    @property
    def recurrent(self) -> bool:
        return self.type != "mlp"

    def network(self) -> NetworkConfig:
        if not self.recurrent:
            return NetworkConfig(hidden_sizes=self.hidden_dims, activation=self.activation)
        return NetworkConfig(
            encoder_sizes=self.hidden_dims,
            cell="gru" if self.type == "rnn" else "lstm",
            lstm_hidden_size=self.rnn_hidden_dim,
            lstm_num_layers=self.rnn_layers,
            lstm_skip=self.type == "lstm",
            hidden_sizes=(),
            activation=self.activation,
        )


class Memory(NamedTuple):
    """What acting carries from step to step; zeros at the start of an episode."""

    network: Any
    """Leaves [..., A, h]."""
    previous: jax.Array | None
    """int [..., A]: one more than the number of the last action, zero before the first. None: agents do not see it."""


class Utilities:
    """The agents' networks as functions of one learner's parameters; inputs and results of agents are [..., A, f]."""

    def __init__(self, config: AgentConfig, obs_dim: int, agents: int, choices: int):
        self.config, self.agents, self.choices = config, agents, choices
        in_dim = obs_dim + config.previous_action * choices + config.agent_id * agents
        self.network = Network(config.network(), in_dim, choices + config.dueling)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return self.network.init(key)

    def empty_memory(self, batch_shape: tuple[int, ...]) -> Memory:
        """At the start of an episode; `batch_shape` includes the agents."""
        previous = jnp.zeros(batch_shape, jnp.int32) if self.config.previous_action else None
        return Memory(initial_carry(self.network.config, batch_shape), previous)

    def inputs(self, obs: jax.Array, previous: jax.Array | None) -> jax.Array:
        """What the networks see [..., A, in_dim] of observations [..., A, d] and previous actions as in `Memory`."""
        parts = [obs]
        if self.config.previous_action:
            assert previous is not None
            parts.append(jax.nn.one_hot(previous - 1, self.choices))  # nothing where there was none
        if self.config.agent_id:
            parts.append(jnp.broadcast_to(jnp.eye(self.agents), (*obs.shape[:-1], self.agents)))
        return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else obs

    def step(self, params, carry, x: jax.Array) -> tuple[Any, jax.Array]:
        """`(next carry, utilities [..., n])` of one step for rows x [..., in_dim]."""
        carry, out = self.network.step(params, carry, x)
        return carry, self._utilities(out)

    def along(self, params, carry, xs: jax.Array, reset: jax.Array | None) -> jax.Array:
        """Utilities [T, N, n] along sequences xs [T, N, in_dim] from a memory; `reset` [T, N] as in `Core`."""
        return self._utilities(self.network(params, xs, carry, reset))

    def _utilities(self, out: jax.Array) -> jax.Array:
        if not self.config.dueling:
            return out
        value, advantage = out[..., :1], out[..., 1:]
        return value + advantage - jnp.mean(advantage, axis=-1, keepdims=True)


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
