"""Agents of B environments with stochastic policies: the keys their algorithms share, acting, recording.

Reading order: `Settings` (the keys of all algorithms that learn from roll-outs), `Actors` (who record them). What is
done with a roll-out is in `trajectory`, `minibatches` and `policy_gradient`.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from purerl.learn import rollout
from purerl.learn.minibatches import require_even
from purerl.learn.normalize import RunningStats, standardised
from purerl.learn.optimizers import OptimizerName, Schedule
from purerl.learn.trajectory import CriticInput, Team, Trajectory, critic_size, trajectory_of
from purerl.nets import policies
from purerl.nets.actor_critic import ActorCritic
from purerl.nets.networks import NetworkConfig, initial_carry
from purerl.nets.policies import Continuous
from purerl.validation import LogStd, StepCount

TANH = NetworkConfig(hidden_sizes=(64, 64), activation="tanh")


class Settings(BaseModel):
    """The keys that all these algorithms have; each adds its own and its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    total_env_steps: StepCount = 500_000
    num_envs: int = Field(4, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(128, gt=0, description="steps of every environment per update call")
    epochs: int = Field(4, ge=1)
    minibatches: int = Field(4, ge=1, description="per epoch; recurrent: of whole environments")
    gamma: float = Field(0.99, ge=0, le=1)
    clip: float = Field(0.2, gt=0, description="of the probability ratio")
    value_clip: float | None = Field(0.2, gt=0, description="null: no clipping of the value's change")
    normalize_advantage: bool = Field(True, description="in every minibatch")
    entropy_coef: float = Field(0.01, ge=0)
    entropy_schedule: Schedule = Schedule()
    value_coef: float = Field(0.5, ge=0)
    kl_coef: float = Field(0.0, ge=0, description="weight of KL(old || new); the start value with kl_target")
    kl_target: float | None = Field(None, gt=0, description="adapt kl_coef towards this KL after every update call")
    target_kl: float | None = Field(None, gt=0, description="stop the epochs of an update call beyond 1.5 times this")
    lr: float = Field(2.5e-4, gt=0)
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "adam"
    optimizer_eps: float = Field(1e-5, gt=0)
    max_grad_norm: float = Field(0.5, gt=0)
    policy: Continuous = Field("normal", description="of continuous actions")
    initial_log_std: LogStd = 0.0
    normalize_obs: bool = False
    normalize_reward: bool = Field(False, description="divide by the running std of the discounted return")
    shared_parameters: bool = Field(True, description="false: every agent has networks of its own")
    critic_input: CriticInput = Field("obs", description="what the critic sees; the global state makes it central")
    actor: NetworkConfig = TANH
    critic: NetworkConfig = TANH

    @model_validator(mode="after")
    def _consistent(self):
        require_even(self.num_envs, self.env_steps(), self.minibatches, self.recurrent)
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target adapts kl_coef and needs one to start from: set kl_coef above 0")
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent or self.critic.recurrent

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update


def traced(kind: Any, config: BaseModel) -> Any:
    """A dataclass of traced numbers, each from the key of the same name."""
    return kind(**{f.name: jnp.asarray(getattr(config, f.name), jnp.float32) for f in dataclasses.fields(kind)})


class Policy(NamedTuple):
    """All that acting needs; with independent parameters leaves have a leading agent axis."""

    actor: Any
    obs_stats: RunningStats


class RollOut(NamedTuple):
    """What actors record."""

    steps: rollout.Steps
    """`extra` is (raw action, outputs of the policy that acted)."""
    memory: Any
    """Of the actors before the first step, [B, A, ...]."""


class Actors:
    """The agents of B environments with their stochastic policies: acting, exploring, recording."""

    def __init__(self, config: Settings, env: Environment, env_params: Any, reward_scale: float = 1.0):
        """
        Args:
            env_params: of the right shapes; their numbers are given to `start` and `record`.

        Raises:
            ValueError: a squashed policy of actions without bounds, or a central critic without a global state.
        """
        self.config, self.reward_scale = config, reward_scale
        self.env = env = with_agent_axis(env)
        agents, self.obs_dim = env.observation_space(env_params).shape
        self.space = env.action_space(env_params)
        if config.policy == "squashed":
            policies.require_bounded(self.space, env.name)
        critic_dim = critic_size(env, env_params, config.critic_input)
        self.nets = ActorCritic(
            config.actor, config.critic, self.space, self.obs_dim, critic_dim, config.policy, config.initial_log_std,
            same_input=config.critic_input == "obs",
        )  # fmt: skip
        self.team = Team(agents, config.shared_parameters)
        self.rows = self.team.rows(config.num_envs)

    def empty_memory(self, batch_shape: tuple[int, ...]):
        return initial_carry(self.config.actor, (*batch_shape, self.team.agents))

    def start(self, env_params, key) -> rollout.Worlds:
        """Fresh episodes in all environments."""
        num_envs = self.config.num_envs
        return rollout.start_worlds(self.env, env_params, key, num_envs, self.empty_memory((num_envs,)))

    def act(self, policy: Policy, carry, obs, mask, key, greedy: bool):
        """As `Algorithm.act`."""
        carry, outputs = self._outputs(policy, carry, obs)
        dist = self.nets.distribution(outputs, mask)
        return policies.env_action(self.space, dist.mode() if greedy else dist.sample(seed=key)), carry

    def record(self, policy: Policy, env_params, worlds: rollout.Worlds, key):
        """The next roll-out: `(worlds, RollOut, Tally)`."""

        def draw_noise(key):
            return policies.draw_noise(self.space, key, (self.config.num_envs, self.team.agents))

        def choose(worlds, noise):
            legal = rollout.facts_of(self.env, env_params, worlds.state).legal
            carry, outputs = self._outputs(policy, worlds.carry, worlds.obs)
            dist = self.nets.distribution(outputs, legal)
            raw = dist.sample_from(noise)
            return policies.env_action(self.space, dist.action(raw)), carry, (raw, outputs)

        num_steps = self.config.steps_per_update
        after, steps, tally = rollout.collect(
            self.env, env_params, worlds, choose, draw_noise, key, num_steps, reward_scale=self.reward_scale
        )
        return after, RollOut(steps, worlds.carry), tally

    def seen(self, policy: Policy, recorded: RollOut) -> tuple[Trajectory, Any, jax.Array]:
        """The learners' view of a roll-out with `policy`'s normaliser, the actors' memories, and the observations."""
        stats = policy.obs_stats if self.config.normalize_obs else None
        steps = trajectory_of(self.team, recorded.steps, stats, self.config.critic_input)
        return steps, self.team.grouped(recorded.memory, time=False), self.team.grouped(recorded.steps.obs)

    def _outputs(self, policy: Policy, carry, obs):
        if self.config.normalize_obs:
            obs = standardised(policy.obs_stats, obs)
        return self.team.step(self.nets.outputs_step, policy.actor, carry, obs)
