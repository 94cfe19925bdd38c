"""What tests of learners of teams share: a world of two agents, and small networks."""

import jax
import jax.numpy as jnp

from envs_jax.base import Environment, Selection
from envs_jax.spaces import Box, Discrete
from purerl.nets.mixer_parts import MixerConfig
from purerl.nets.utilities import AgentConfig

AGENTS, CHOICES, PARTS = 2, 3, 3
MIXING = MixerConfig(mixing_embed_dim=4, hypernet_embed=4, num_kernel=2, adv_hypernet_layers=2, adv_hypernet_embed=4)
RNN = AgentConfig(type="rnn", hidden_dims=(4,), rnn_hidden_dim=4)


def progress(kind, time):
    """What `info` tells after that many steps."""
    return 0.1 * time + 0.2 * kind


def team_world(parts: int | None = None) -> Environment:
    """Two agents of three choices in episodes of three steps that end, or of five that are cut off.

    A step takes as many frames as its number. Choice number (step mod 3) is not available to the first agent. In the
    longer episodes the second agent leaves after its second step. With `parts` an agent selects among as many things;
    number (step mod 3) cannot be selected by the first.
    """

    def observe(state):
        kind, time = state
        return jnp.stack([jnp.stack([kind - 0.5, 0.3 * time, agent - 0.5]) for agent in range(AGENTS)])

    def reset_env(key, params):
        state = jax.random.randint(key, (), 0, 2), jnp.zeros((), jnp.int32)
        return observe(state), state

    def step_env(key, state, action, params):
        kind, time = state
        state = kind, time + 1
        done = action if parts is None else action.sum(axis=-1)
        reward = 0.1 * (time + 1.0) * jnp.arange(1.0, AGENTS + 1) + 0.5 * done
        ends = state[1] == jnp.where(kind == 0, 3, 5)
        info = {"frames": time + 1, "progress": progress(kind, time + 1)}
        return observe(state), state, reward, ends & (kind == 0), ends & (kind == 1), info

    def action_mask(state, params):
        may = jnp.stack([jnp.arange(CHOICES) != state[1] % CHOICES, jnp.ones(CHOICES, bool)])
        return may if parts is None else jnp.stack([jnp.ones_like(may), may], axis=-1)

    return Environment(
        name="team",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-10.0, 10.0, (AGENTS, 3)),
        action_space=lambda params: Discrete(CHOICES, (AGENTS,)) if parts is None else Discrete(2, (AGENTS, parts)),
        num_agents=AGENTS,
        global_state=lambda state, params: jnp.stack([state[0] - 0.5, 0.2 * state[1]]),
        action_mask=action_mask,
        alive=lambda state, params: jnp.stack([jnp.array(True), (state[0] == 0) | (state[1] < 2)]),
        selection=None if parts is None else Selection("factored", parts),
    )
