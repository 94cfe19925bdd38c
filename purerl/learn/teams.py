"""Teams that act by their values: keys that all their algorithms have, and agents that choose greedily or explore.

Reading order: `TeamConfig`, exploration schedules, `networks`, `Players` (acting, exploring).
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from purerl.learn import rollout
from purerl.learn.chunks import TeamReward
from purerl.learn.joint_values import ValueNets
from purerl.learn.trajectory import Team
from purerl.nets.actions import choices_of, kind_of
from purerl.nets.mixer_parts import MixerConfig, Sizes
from purerl.nets.mixers import MixerName, make_mixer
from purerl.nets.utilities import AgentConfig, Memory, Utilities, greedy

Mixing = Literal["iql"] | MixerName
"""`iql`: no mixer, independent learners."""
Schedule = Literal["linear", "exponential"]


class TeamConfig(BaseModel):
    """Keys of every algorithm in which a team acts by its values.

    Epsilon is the share of choices that are drawn uniformly; it falls with the steps of all environments together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epsilon_schedule: Schedule = "linear"
    epsilon_start: float = Field(1.0, ge=0, le=1)
    epsilon_end: float = Field(0.05, ge=0, le=1)
    epsilon_anneal_steps: int = Field(50_000, ge=1, description="linear: environment steps from start to end")
    epsilon_decay: float = Field(0.9995, gt=0, le=1, description="exponential: factor of every environment step")
    team_reward: TeamReward = Field("mean", description="of the agents' rewards")
    share_params: bool = Field(True, description="false: every agent has a network of its own")
    q_network: AgentConfig = AgentConfig()
    mixing_network: MixerConfig = MixerConfig()


def epsilon_after(schedule: Schedule, h: Any, env_steps: jax.Array) -> jax.Array:
    """The share after `env_steps`, a float: an integer may overflow. `h` has the numbers of `TeamConfig`."""
    if schedule == "exponential":
        return jnp.maximum(h.epsilon_end, h.epsilon_start * h.epsilon_decay**env_steps)
    done = jnp.clip(env_steps / h.epsilon_anneal_steps, 0.0, 1.0)
    return h.epsilon_start + done * (h.epsilon_end - h.epsilon_start)


def networks(
    config: TeamConfig, mixer: Mixing, env: Environment, env_params, choices: int, parts: int | None = None
) -> ValueNets:
    """The agents' networks and the mixer for an environment (with an agent axis).

    Args:
        choices, parts: as for `Utilities`.

    Raises:
        ValueError: a mixer that the global state does not fit, or attention to entities of which nothing is told.
    """
    agents, obs_dim = env.observation_space(env_params).shape
    if config.q_network.attends and env.entities is None:
        raise ValueError(
            f"q_network.type {config.q_network.type}: {env.name} does not tell of which entities its observations are "
            "made; use rnn"
        )
    utilities = Utilities(config.q_network, obs_dim, agents, choices, parts, env.entities, env.selection)
    mixing = None
    if mixer != "iql":
        size = agents * obs_dim
        if env.global_state is not None:
            start = jax.eval_shape(lambda key: env.reset_env(key, env_params)[1], jax.random.key(0))
            (size,) = jax.eval_shape(env.global_state, start, env_params).shape
        mixing = make_mixer(mixer, config.mixing_network, Sizes(agents, utilities.action_features, size))
    return ValueNets(Team(agents, config.share_params), utilities, mixing, env.selection)


class Chosen(NamedTuple):
    """What a roll-out keeps of acting beside the actions."""

    memory: Memory
    """Before the step."""
    hit: jax.Array
    """bool [B, A], or [B, A, m]: the choice was the greedy one."""


class Players:
    """The agents of B environments, each of which makes a choice in every step, or several at once."""

    def __init__(self, name: str, config: TeamConfig, mixer: Mixing, env: Environment, env_params: Any):
        """
        Args:
            name: of the algorithm, for messages.

        Raises:
            ValueError: actions that are no choices, or a mixer that the global state does not fit.
        """
        self.env = env = with_agent_axis(env)
        actions = choices_of(env, env_params)
        if actions is None:
            has = kind_of(env.action_space(env_params))
            raise ValueError(
                f"{name} takes one choice of every agent, or several; {env.name} has {has}: use ppo or sac"
            )
        self.actions, self.config = actions, config
        self.agents, self.obs_dim = env.observation_space(env_params).shape
        self.nets = networks(config, mixer, env, env_params, actions.n, actions.parts)

    def act(self, policy, memory: Memory, obs, mask, key, greedy: bool):
        """As `Algorithm.act`; `policy` are the agents' parameters. Always greedy: `exploring` adds exploration."""
        del key, greedy
        carry, action = self._step(policy, memory, obs, mask)
        return action, self._remembered(carry, action)

    def exploring(self, agents, env_params, epsilon, num_envs: int) -> tuple[rollout.Act, rollout.Draw]:
        """How `rollout.collect` acts with these parameters; what it keeps is `Chosen`.

        Args:
            epsilon: the share of uniform choices, or a function of the worlds that gives it for each, [B, 1].
        """

        def choose(worlds, drawn):
            legal = rollout.facts_of(self.env, env_params, worlds.state).legal
            share = epsilon(worlds) if callable(epsilon) else epsilon
            return self.choose(agents, worlds.carry, worlds.obs, legal, share, drawn)

        return choose, lambda key: self.draw(key, (num_envs,))

    def choose(self, agents, memory: Memory, obs, legal, share, drawn) -> tuple[jax.Array, Memory, Chosen]:
        """Actions, what is remembered after them, and what a roll-out keeps; `share` of the choices are uniform."""
        coin, noise = drawn
        carry, best = self._step(agents, memory, obs, legal)
        explores = self.nets.utilities.per_part(coin < share)
        action = jnp.where(explores, self.actions.uniform(noise, legal), best)
        return action, self._remembered(carry, action), Chosen(memory, action == best)

    def draw(self, key, batch_shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """Random numbers for `choose`."""
        key_coin, key_noise = jax.random.split(key)
        shape = *batch_shape, self.agents
        return jax.random.uniform(key_coin, shape), self.actions.draw_uniform(key_noise, shape)

    def _step(self, agents, memory: Memory, obs, legal) -> tuple[Any, jax.Array]:
        """The networks' next carry, and greedy actions."""
        utilities = self.nets.utilities
        x = utilities.inputs(obs, memory.previous)
        carry, out = self.nets.team.step(utilities.network.step, agents, memory.network, x)
        return carry, greedy(utilities.of_outputs(out), legal)

    def _remembered(self, carry, action) -> Memory:
        return Memory(carry, action.astype(jnp.int32) + 1 if self.config.q_network.previous_action else None)
