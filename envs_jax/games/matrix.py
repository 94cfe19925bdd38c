"""`matrix`: one step, one payoff for the team. What a value of the team can represent is decided here, not by control.

Nothing is to be seen: observations and global state are zeros, so a policy is one joint choice. Agents with fewer
choices than others have the rest masked.

Reading order: `Params`, rules, `make`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Assessment, Column, Environment, Guidance
from envs_jax.games.config import MatrixConfig, table_of
from envs_jax.games.scoring import scorer
from envs_jax.spaces import Box, Discrete

OBSERVED = 2
"""Zeros that an agent sees, and that the global state is made of."""


class Params(NamedTuple):
    payoff: jax.Array
    """[n_1, ..., n_A]"""


def best_on_average(payoff: jax.Array) -> jax.Array:
    """For every agent the choice [A] that pays most while all others choose uniformly: caution without agreement."""
    axes = range(payoff.ndim)
    return jnp.stack([jnp.argmax(jnp.mean(payoff, axis=tuple(o for o in axes if o != own))) for own in axes])


def make(**settings: Any) -> Environment:
    """The game of `MatrixConfig`; rewards [A] are the payoff for every agent."""
    table = table_of(MatrixConfig(**settings).payoff)
    agents, choices = table.ndim, max(table.shape)
    legal = np.arange(choices) < np.array(table.shape)[:, None]

    def reset_env(key, params):
        return jnp.zeros((agents, OBSERVED)), jnp.zeros(OBSERVED)

    def step_env(key, state, action, params: Params):
        payoff = params.payoff[tuple(action)]
        ends, info = jnp.array(True), {"payoff": payoff}
        return jnp.zeros((agents, OBSERVED)), state, jnp.full(agents, payoff), ends, ~ends, info

    def random(key, state, params: Params):
        return jnp.stack(
            [jax.random.randint(jax.random.fold_in(key, own), (), 0, n) for own, n in enumerate(table.shape)]
        )

    return Environment(
        name="matrix",
        default_params=Params(jnp.asarray(table)),
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-1.0, 1.0, (agents, OBSERVED)),
        action_space=lambda params: Discrete(choices, (agents,)),
        episode_length=1,
        max_episode_length=1,
        num_agents=agents,
        global_state=lambda state, params: state,
        action_mask=None if legal.all() else lambda state, params: jnp.asarray(legal),
        guidance=Guidance(
            rules={"random": random, "best_on_average": lambda key, state, params: best_on_average(params.payoff)}
        ),
        assessment=Assessment(
            num_cases=lambda params: 1,
            score=scorer("payoff", "payoff", float(table.min()), float(table.max())),
            has_bound=True,
            compared=("best_on_average",),
            columns={"payoff": Column("payoff", label="payoff")},
        ),
    )
