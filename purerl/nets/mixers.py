"""Mixers: from the utilities of agents to one value of the team, so that what is best for each is best for all.

Individual-global-max (IGM): the joint action with the largest joint value is the tuple of the actions with the largest
utilities. Every mixer here keeps it, because its value rises with every agent's utility, or falls with every agent's
distance from its best one.

Reading order: `Joint` and `Mixer`, sums and monotonic values, complete mixers, the table; what they are made of is in
`purerl.nets.mixer_parts`. A mixer is `init(key) -> params` and `value(params, chosen, best, state, actions) -> Joint`:

    chosen   [..., N]     utilities of the actions taken
    best     [..., N]     largest utilities among the actions available
    state    [..., s]     of the world
    actions  [..., N, A]  the actions taken, one-hot, or as bits where each is several choices
    Joint.value  [...]

Sources: VDN (Sunehag et al. 2018), QMIX (Rashid et al. 2018), QPLEX (Wang et al. 2021, arXiv 2008.01062), QFIX (Baisero
et al. 2025, arXiv 2505.10484). Deviations: layers start uniform within 1 / sqrt(inputs), biases too, because a state of
zeros would otherwise give weights of zero, where |x| has no slope; the part of QPLEX's importance that sees the state
alone, and the adaptive mixer, follow public code and not the papers.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from purerl.nets.mixer_parts import (
    POSITIVE,
    MixerConfig,
    Sizes,
    attention_transformation,
    dense,
    encoded,
    general_transformation,
    importance,
    init_encoder,
    init_layers,
    joined,
    no_transformation,
)

MixerName = Literal["vdn", "qmix", "qplex", "qplex_atten", "adaptive", "qfix"]
STEEPNESS = 10.0
"""Of the adaptive mixer's gate around its threshold."""


class Joint(NamedTuple):
    """A joint value and what it was made with."""

    value: jax.Array
    """[...]"""
    importance: jax.Array | None = None
    """[..., N] weights of the agents' advantages: lambda of QPLEX, 1 + w of QFIX; None: mixers without."""
    alpha: jax.Array | None = None
    """[...] share of the complex mixer, in the adaptive one."""
    penalty: jax.Array | None = None
    """[...] to be added to the loss."""


class Mixer(NamedTuple):
    init: Callable[[jax.Array], Any]
    value: Callable[..., Joint]


# Sums and monotonic values


def vdn(config: MixerConfig, sizes: Sizes) -> Mixer:
    """The sum of utilities (Sunehag et al. 2018, eq. 3)."""
    return Mixer(lambda key: {}, lambda params, chosen, best, state, actions: Joint(jnp.sum(chosen, axis=-1)))


def qmix(config: MixerConfig, sizes: Sizes) -> Mixer:
    """A network of one hidden layer whose weights are functions of the state and not negative (Rashid et al. 2018)."""
    hidden, wide, scale = config.mixing_embed_dim, config.hypernet_embed, config.last_layer_scale

    def init(key):
        keys = jax.random.split(key, 4)
        return {
            "weights_1": init_layers(keys[0], sizes.state, wide, sizes.agents * hidden, last_scale=scale),
            "bias_1": init_layers(keys[1], sizes.state, hidden),
            "weights_2": init_layers(keys[2], sizes.state, wide, hidden, last_scale=scale),
            "value": init_layers(keys[3], sizes.state, hidden, 1),
        }

    def value(params, chosen, best, state, actions):
        del best, actions
        weights = jnp.abs(dense(params["weights_1"], state)).reshape(*state.shape[:-1], sizes.agents, hidden)
        h = jax.nn.elu(jnp.einsum("...n,...ne->...e", chosen, weights) + dense(params["bias_1"], state))
        mixed = jnp.sum(h * jnp.abs(dense(params["weights_2"], state)), axis=-1)
        return Joint(mixed + dense(params["value"], state)[..., 0])

    return Mixer(init, value)


# Complete mixers


def qplex(config: MixerConfig, sizes: Sizes, attention: bool = False, adaptive: bool = False) -> Mixer:
    """Transformed utilities and weighted advantages: Q = sum Q'_i + sum stop(A'_i) (lambda_i - 1) (QPLEX, section 3.2).

    As a value this is sum V'_i + sum lambda_i A'_i. Utilities learn through the first sum alone, importance through the
    second. With `fixed_importance` it is the first sum: VDN on transformed utilities.

    Args:
        attention: transformation by attention.
        adaptive: importance only where the state is complex: Q = alpha(s) Q_qplex + (1 - alpha(s)) sum Q'_i. Both have
            their maximum at the utilities' best actions, and alpha does not see actions.
    """
    transformation = general_transformation if config.weighted_head else no_transformation
    init_transformation, transform = (attention_transformation if attention else transformation)(config, sizes)
    init_importance, weigh = importance(config, sizes)

    def init(key):
        keys = jax.random.split(key, 3)
        parts = {"transformation": init_transformation(keys[0])}
        if not config.fixed_importance:
            parts["importance"] = init_importance(keys[1])
        if adaptive:
            parts["complexity"] = init_layers(keys[2], sizes.state, config.hypernet_embed, 1)
        return parts

    def value(params, chosen, best, state, actions):
        weight, bias, penalty = transform(params["transformation"], state)
        total = jnp.sum(weight * chosen + bias, axis=-1)
        if config.fixed_importance:
            return Joint(total, jnp.ones_like(chosen), penalty=penalty)
        advantage = weight * (chosen - best)
        if config.stop_gradient_adv:
            advantage = jax.lax.stop_gradient(advantage)
        lambdas, alpha = weigh(params["importance"], state, actions), None
        if adaptive:
            complexity = jax.nn.sigmoid(dense(params["complexity"], state)[..., 0])
            alpha = jax.nn.sigmoid(STEEPNESS * (complexity - config.complexity_threshold))
            lambdas = 1.0 + alpha[..., None] * (lambdas - 1.0)
        total = total + jnp.sum(advantage * (lambdas - 1.0 if config.is_minus_one else lambdas), axis=-1)
        return Joint(total, lambdas, alpha, penalty)

    return Mixer(init, value)


def qfix(config: MixerConfig, sizes: Sizes) -> Mixer:
    """Another mixer made complete: Q = F + w stop(F - max F) + b(s) with w(s, a) > -1 (QFIX, additive form).

    F is VDN or QMIX. It is largest at the best utilities, so F - max F, times 1 + w > 0, is zero there and negative
    elsewhere. With `fix_each` the sum has a w for every agent. 1 + w is |1 + output|: it starts near one, where the
    value is F + b. With `fixed_importance` it stays there.
    """
    inner = {"vdn": vdn, "qmix": qmix}[config.fixee](config, sizes)
    each = config.fix_each and config.fixee == "vdn"
    between = [config.adv_hypernet_embed] * (config.adv_hypernet_layers - 1)

    def init(key):
        keys = jax.random.split(key, 3)
        size, outputs = sizes.state + sizes.agents * sizes.choices, sizes.agents if each else 1
        parts = {"fixee": inner.init(keys[0])}
        if not config.fixed_importance:
            parts["weight"] = init_layers(keys[1], size, *between, outputs)
        parts["bias"] = init_layers(keys[2], sizes.state, config.hypernet_embed, 1, last_scale=config.last_layer_scale)
        return parts

    def value(params, chosen, best, state, actions):
        fixee = lambda utilities: inner.value(params["fixee"], utilities, best, state, actions).value  # noqa: E731
        total = fixee(chosen)
        advantage = chosen - best if each else (total - fixee(best))[..., None]
        total = total + dense(params["bias"], state)[..., 0]
        if config.fixed_importance:
            return Joint(total, jnp.ones_like(advantage))
        if config.stop_gradient_adv:
            advantage = jax.lax.stop_gradient(advantage)
        both = joined(state, actions)
        weights = jnp.abs(1.0 + dense(params["weight"], both)) + POSITIVE
        return Joint(total + jnp.sum(advantage * (weights - 1.0), axis=-1), weights)

    return Mixer(init, value)


def make_mixer(name: MixerName, config: MixerConfig, sizes: Sizes) -> Mixer:
    """The mixer of that name, behind the state encoder where there is to be one.

    Raises:
        ValueError: `qplex_atten`, and the state has no parts for the agents, or is encoded.
    """
    if not config.use_state_encoder or name == "vdn":
        return _bare(name, config, sizes)
    if name == "qplex_atten":
        raise ValueError("qplex_atten reads the agents' own parts of the state: set use_state_encoder to false")
    inner = _bare(name, config, sizes._replace(state=config.state_encoder_out))

    def init(key):
        key_encoder, key_inner = jax.random.split(key)
        return {"encoder": init_encoder(key_encoder, config, sizes.state), "mixer": inner.init(key_inner)}

    def value(params, chosen, best, state, actions):
        return inner.value(params["mixer"], chosen, best, encoded(params["encoder"], state), actions)

    return Mixer(init, value)


def _bare(name: MixerName, config: MixerConfig, sizes: Sizes) -> Mixer:
    match name:
        case "vdn":
            return vdn(config, sizes)
        case "qmix":
            return qmix(config, sizes)
        case "qplex" | "qplex_atten" | "adaptive":
            return qplex(config, sizes, attention=name == "qplex_atten", adaptive=name == "adaptive")
        case "qfix":
            return qfix(config, sizes)
