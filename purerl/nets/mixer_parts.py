"""Parts of mixers: their keys, layers, the state encoder, transformations of utilities, importance of advantages.

Reading order: `MixerConfig`, `Sizes`, layers, the state, and two kinds of parts, each as `(init, apply)`. Mixers are
made of them in `purerl.nets.mixers`, which names the sources.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from purerl.nets.networks import Width, normalised

POSITIVE = 1e-10
"""Added to magnitudes, so that weights are never zero."""


class MixerConfig(BaseModel):
    """Sizes and switches of all mixers; each reads its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mixing_embed_dim: Width = Field(32, description="qmix: hidden units; qplex_atten: size of keys and queries")
    hypernet_embed: Width = Field(64, description="hidden units of what turns the state into weights and biases")
    num_kernel: int = Field(10, ge=1, le=1000, description="qplex: terms of the importance")
    adv_hypernet_layers: int = Field(3, ge=1, le=10, description="qplex, qfix: layers behind the importance")
    adv_hypernet_embed: Width = Field(64, description="qplex, qfix: their hidden units")
    weighted_head: bool = Field(True, description="qplex: utilities are transformed; false: taken as they are")
    is_minus_one: bool = Field(True, description="qplex: importance counts from one; false: from zero")
    stop_gradient_adv: bool = Field(True, description="no gradient through advantages; false rarely learns")
    fixed_importance: bool = Field(False, description="importance is one everywhere: the simpler value that is refined")
    complexity_threshold: float = Field(
        0.6, ge=0, le=1, description="adaptive: from where on the state counts as complex"
    )
    attention_heads: int = Field(4, ge=1, le=1000, description="qplex_atten")
    attention_weighted: bool = Field(False, description="qplex_atten: heads have weights of their own")
    attention_penalty: float = Field(
        0.001, ge=0, description="qplex_atten: weight of the mean squared logit in the loss"
    )
    unit_features: int | None = Field(
        None, ge=1, description="qplex_atten: numbers of the state about each agent, agent by agent from its start; "
        "null: all of it in equal parts"
    )  # fmt: skip
    fixee: Literal["vdn", "qmix"] = Field("vdn", description="qfix: what is made complete")
    fix_each: bool = Field(False, description="qfix with vdn: an importance for every agent instead of one")
    last_layer_scale: float = Field(
        1.0, gt=0, le=1, description="of weights at the start; 0.01 to 0.1 for large states"
    )
    use_state_encoder: bool = Field(
        False, description="layers with normalisation between the state and everything else"
    )
    state_encoder_hidden: Width = 256
    state_encoder_out: Width = 128


# Layers

Layers = list[dict[str, jax.Array]]


def init_layers(key: jax.Array, *sizes: int, last_scale: float = 1.0) -> Layers:
    """Parameters of dense layers, from `sizes[0]` inputs on; uniform within 1 / sqrt(inputs).

    All are drawn at once: a draw for every array would be most of what there is to compile.
    """
    drawn = jax.random.uniform(key, (sum((i + 1) * o for i, o in pairwise(sizes)),), minval=-1.0)
    layers: Layers = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        limit = (last_scale if index == len(sizes) - 2 else 1.0) / np.sqrt(inputs)
        own, drawn = limit * drawn[: (inputs + 1) * outputs], drawn[(inputs + 1) * outputs :]
        layers.append({"kernel": own[outputs:].reshape(inputs, outputs), "bias": own[:outputs]})
    return layers


def dense(layers: Layers, x: jax.Array) -> jax.Array:
    """Outputs [..., f] with ReLU between the layers, none after the last."""
    for layer in layers[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ layers[-1]["kernel"] + layers[-1]["bias"]


class Sizes(NamedTuple):
    """What mixers are made for."""

    agents: int
    choices: int
    """Numbers that describe an agent's action."""
    state: int


# The state


def init_encoder(key: jax.Array, config: MixerConfig, size: int) -> Layers:
    return init_layers(key, size, config.state_encoder_hidden, config.state_encoder_out)


def encoded(layers: Layers, state: jax.Array) -> jax.Array:
    """Dense, layer normalisation, ReLU, dense."""
    h = normalised(state @ layers[0]["kernel"] + layers[0]["bias"])
    return dense(layers[1:], jax.nn.relu(h))


# Transformations of utilities: `(params, state) -> (weight [..., N] > 0, bias [..., N], penalty)`


def no_transformation(config: MixerConfig, sizes: Sizes) -> tuple[Callable, Callable]:
    return lambda key: {}, lambda params, state: (jnp.ones(()), jnp.zeros(()), None)


def general_transformation(config: MixerConfig, sizes: Sizes) -> tuple[Callable, Callable]:
    """Weight and bias of every agent from the state (QPLEX, section 3.2)."""

    def init(key):
        key_weight, key_bias = jax.random.split(key)
        shape = sizes.state, config.hypernet_embed, sizes.agents
        return {
            "weight": init_layers(key_weight, *shape, last_scale=config.last_layer_scale),
            "bias": init_layers(key_bias, *shape, last_scale=config.last_layer_scale),
        }

    def apply(params, state):
        return jnp.abs(dense(params["weight"], state)) + POSITIVE, dense(params["bias"], state), None

    return init, apply


def unit_size(config: MixerConfig, sizes: Sizes) -> int:
    """Numbers of the state about each agent.

    Raises:
        ValueError: the state has no such parts.
    """
    if config.unit_features is not None:
        if config.unit_features * sizes.agents > sizes.state:
            raise ValueError(
                f"mixing_network.unit_features {config.unit_features}: a state of {sizes.state} numbers has no "
                f"{sizes.agents} times as many"
            )
        return config.unit_features
    size, rest = divmod(sizes.state, sizes.agents)
    if rest:
        raise ValueError(
            f"qplex_atten: a state of {sizes.state} numbers has no {sizes.agents} equal parts; set "
            "mixing_network.unit_features to the numbers about each agent at its start"
        )
    return size


def attention_transformation(config: MixerConfig, sizes: Sizes) -> tuple[Callable, Callable]:
    """Weights by attention of the state to the agents' own parts of it, and one bias for the team (Yang et al. 2020,
    arXiv 2002.03939; as in QPLEX's public code)."""
    unit, heads, embed = unit_size(config, sizes), config.attention_heads, config.mixing_embed_dim

    def init(key):
        key_query, key_key, key_value, key_head = jax.random.split(key, 4)
        parts = {
            "query": init_layers(key_query, sizes.state, config.hypernet_embed, heads * embed),
            "key": init_layers(key_key, unit, heads * embed),
            "value": init_layers(key_value, sizes.state, embed, 1, last_scale=config.last_layer_scale),
        }
        if config.attention_weighted:
            parts["head"] = init_layers(key_head, sizes.state, config.hypernet_embed, heads)
        return parts

    def apply(params, state):
        lead = state.shape[:-1]
        units = state[..., : sizes.agents * unit].reshape(*lead, sizes.agents, unit)
        hidden = jax.nn.relu(state @ params["query"][0]["kernel"] + params["query"][0]["bias"])
        query = (hidden @ params["query"][1]["kernel"]).reshape(*lead, heads, embed)
        keys = (units @ params["key"][0]["kernel"]).reshape(*lead, sizes.agents, heads, embed)
        logit = jnp.einsum("...he,...nhe->...hn", query, keys)
        attention = jax.nn.softmax(logit / np.sqrt(embed), axis=-1)
        if config.attention_weighted:
            attention = attention * jnp.abs(dense(params["head"], state))[..., None]
        bias = dense(params["value"], state) / sizes.agents
        penalty = config.attention_penalty * jnp.sum(jnp.mean(logit**2, axis=-1), axis=-1)
        return jnp.sum(attention, axis=-2) + POSITIVE, bias, penalty

    return init, apply


def joined(state: jax.Array, actions: jax.Array) -> jax.Array:
    """[..., s + N A]"""
    return jnp.concatenate([state, actions.reshape(*state.shape[:-1], -1)], axis=-1)


# Importance of the agents' advantages: `(params, state, actions) -> [..., N] > 0`


def importance(config: MixerConfig, sizes: Sizes) -> tuple[Callable, Callable]:
    """lambda_i = sum over kernels of |key(s)| sigmoid(agent(s)_i) sigmoid(action(s, a)_i) (QPLEX, section 3.2)."""
    between = [config.adv_hypernet_embed] * (config.adv_hypernet_layers - 1)
    state_and_actions = sizes.state + sizes.agents * sizes.choices

    def init(key):
        def kernel(key):
            key_key, key_agent, key_action = jax.random.split(key, 3)
            return {
                "key": init_layers(key_key, sizes.state, *between, 1),
                "agent": init_layers(key_agent, sizes.state, *between, sizes.agents),
                "action": init_layers(key_action, state_and_actions, *between, sizes.agents),
            }

        return jax.vmap(kernel)(jax.random.split(key, config.num_kernel))

    def apply(params, state, actions):
        both = joined(state, actions)

        def kernel(params):
            size = jnp.abs(dense(params["key"], state)) + POSITIVE
            return size * jax.nn.sigmoid(dense(params["agent"], state)) * jax.nn.sigmoid(dense(params["action"], both))

        return jnp.sum(jax.vmap(kernel)(params), axis=0)

    return init, apply
