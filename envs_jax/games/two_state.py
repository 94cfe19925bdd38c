"""`two_state`: the small game in which fitted values diverge unless the team's value can be represented.

Two agents with two choices. At home (the start) both choosing 0 pays 1 and stays, both choosing 1 pays nothing and
leaves for good, anything else pays nothing and stays. Away nothing is ever paid. Staying for ever is worth
1 / (1 - gamma). Every agent sees where the team is as a one-hot pair; the global state is that pair twice
(Wang et al. 2021, appendix; the numbers are those of a linear analysis of VDN, which diverges for gamma > 0.8).

Reading order: `State`, `make`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.base import Assessment, Environment, Guidance
from envs_jax.games.config import TwoStateConfig
from envs_jax.games.scoring import scorer
from envs_jax.spaces import Box, Discrete

AGENTS, STAY, LEAVE = 2, 0, 1


class State(NamedTuple):
    away: jax.Array
    time: jax.Array
    """Steps of the episode that are done."""


def place(state: State) -> jax.Array:
    """[away, at home] as numbers."""
    return jnp.stack([state.away, ~state.away]).astype(jnp.float32)


def observe(state: State) -> jax.Array:
    return jnp.tile(place(state), (AGENTS, 1))


def make(**settings: Any) -> Environment:
    """The game of `TwoStateConfig`; rewards [A] are the team's for every agent."""
    horizon = TwoStateConfig(**settings).horizon

    def reset_env(key, params):
        state = State(jnp.array(False), jnp.zeros((), jnp.int32))
        return observe(state), state

    def step_env(key, state: State, action, params):
        together = action[0] == action[1]
        paid = jnp.where(~state.away & together & (action[0] == STAY), 1.0, 0.0)
        state = State(state.away | (together & (action[0] == LEAVE)), state.time + 1)
        return observe(state), state, jnp.full(AGENTS, paid), jnp.array(False), state.time >= horizon, {"paid": paid}

    def random(key, state, params):
        return jax.random.randint(key, (AGENTS,), 0, 2)

    return Environment(
        name="two_state",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(0.0, 1.0, (AGENTS, 2)),
        action_space=lambda params: Discrete(2, (AGENTS,)),
        episode_length=horizon,
        max_episode_length=horizon,
        num_agents=AGENTS,
        global_state=lambda state, params: jnp.tile(place(state), AGENTS),
        guidance=Guidance(
            rules={"random": random, "stay": lambda key, state, params: jnp.full(AGENTS, STAY, jnp.int32)}
        ),
        assessment=Assessment(
            num_cases=lambda params: 1,
            score=scorer("steps paid", "paid", 0.0, float(horizon)),
            has_bound=True,
            compared=("stay",),
        ),
    )
