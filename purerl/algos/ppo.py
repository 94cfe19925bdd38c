"""PPO (Schulman et al. 2017), feed-forward or recurrent, for discrete (masked), continuous and mixed actions.

Reading order: `Config`, `HParams`, `Policy`, `Learner`, `State`, the loss, `make` (collect, then what one learner does
with the roll-out: advantages, epochs of minibatches).

Several agents are IPPO (de Witt et al. 2020) with one set of parameters, their axis folded into the batch, or with
`shared_parameters: false` as many learners; `critic_input` other than `obs` makes it MAPPO (Yu et al. 2022). Steps of
agents that no longer act count nowhere: not in the loss, the statistics or the entropy. A recurrent policy trains on
whole roll-outs: minibatches are made of rows with all their steps, memories start from where the roll-out started and
are emptied inside where an episode ended. Values of the step after are those of the true final observation, seen with
the memory from before the reset, so a time limit is no end.

Beyond the paper, each behind a key: value clipping, an entropy bonus with a schedule, a KL penalty with an adaptive
coefficient (the paper's section 4), a stop of the epochs at a target KL, running normalisation of observations and of
rewards, a squashed normal. Observation statistics are those from before the roll-out, so that the roll-out and the
epochs on it see the same numbers.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from purerl import policies, rollout, sharding
from purerl.networks import NetworkConfig, initial_carry
from purerl.normalize import RunningStats, empty_stats, merge, standardised
from purerl.onpolicy import (
    ActorCritic,
    CriticInput,
    Memory,
    Team,
    Trajectory,
    critic_size,
    memory_of,
    minibatches,
    relative_weight,
    scaled_rewards,
    trajectory_of,
    values_along,
    weighted_mean,
)
from purerl.optimizers import OptimizerName, Schedule, descend, make_optimizer
from purerl.policies import Continuous
from purerl.returns import generalised_advantages
from purerl.types import Algorithm

TANH = NetworkConfig(hidden_sizes=(64, 64), activation="tanh")


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["ppo"] = "ppo"
    total_env_steps: int = Field(500_000, gt=0)
    num_envs: int = Field(4, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(128, gt=0, description="steps of every environment per update call")
    epochs: int = Field(4, ge=1)
    minibatches: int = Field(4, ge=1, description="per epoch; recurrent: of whole environments")
    gamma: float = Field(0.99, ge=0, le=1)
    gae_lambda: float = Field(0.95, ge=0, le=1)
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
    adam_eps: float = Field(1e-5, gt=0)
    max_grad_norm: float = Field(0.5, gt=0)
    policy: Continuous = Field("normal", description="of continuous actions")
    initial_log_std: float = 0.0
    normalize_obs: bool = False
    normalize_reward: bool = Field(False, description="divide by the running std of the discounted return")
    shared_parameters: bool = Field(True, description="false: every agent has networks of its own")
    critic_input: CriticInput = Field("obs", description="what the critic sees; the global state makes it central")
    actor: NetworkConfig = TANH
    critic: NetworkConfig = TANH

    @model_validator(mode="after")
    def _consistent(self):
        unit, what = self.num_envs, "num_envs"
        if not self.recurrent:
            unit, what = self.env_steps(), "num_envs * steps_per_update"
        if unit % self.minibatches:
            raise ValueError(f"minibatches {self.minibatches} must divide {what} = {unit}")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target adapts kl_coef and needs one to start from: set kl_coef above 0")
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent or self.critic.recurrent

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update


@struct.dataclass
class HParams:
    """The numbers that may be traced: a sweep over them compiles once."""

    lr: jax.Array
    gamma: jax.Array
    gae_lambda: jax.Array
    clip: jax.Array
    entropy_coef: jax.Array
    value_coef: jax.Array
    kl_coef: jax.Array


class Policy(NamedTuple):
    """All that acting needs; with independent parameters leaves have a leading agent axis."""

    actor: Any
    obs_stats: RunningStats


@struct.dataclass
class Learner:
    """What one set of parameters needs to learn from N rows; independent agents are stacked, [A, ...] leaves."""

    params: dict[str, Any]
    """`actor` and `critic`."""
    optimizer: Any
    critic_carry: Any
    """The critic's memory [N, ...] before the next step."""
    obs_stats: RunningStats
    return_stats: RunningStats
    running_return: jax.Array
    """Discounted sums of rewards [N], for the scale of rewards."""
    kl_coef: jax.Array


@struct.dataclass
class State:
    learner: Learner
    worlds: rollout.Worlds
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: HParams


class Batch(NamedTuple):
    """What the loss reads. Feed-forward: rows [N, ...]. Recurrent: sequences [T, N, ...]."""

    obs: jax.Array
    critic_obs: jax.Array
    legal: Any
    raw_action: Any
    old_outputs: Any
    old_log_prob: jax.Array
    old_value: jax.Array
    advantage: jax.Array
    target: jax.Array
    weight: jax.Array | None
    """Relative weights with a mean of one in the minibatch; None: all count the same."""


# Loss


def loss(nets: ActorCritic, config: Config, params, batch: Batch, memory: Memory, h: HParams, entropy_coef, kl_coef):
    """Clipped surrogate, value error, entropy bonus and KL penalty, as means; and the numbers to watch."""
    outputs = nets.outputs(params["actor"], batch.obs, memory.actor, memory.reset)
    dist = nets.distribution(outputs, batch.legal)
    log_ratio = dist.log_prob(batch.raw_action) - batch.old_log_prob
    ratio = jnp.exp(log_ratio)
    surrogate = jnp.minimum(ratio * batch.advantage, jnp.clip(ratio, 1 - h.clip, 1 + h.clip) * batch.advantage)

    value = nets.value(params["critic"], batch.critic_obs, memory.critic, memory.reset)
    error = (value - batch.target) ** 2
    if config.value_clip is not None:
        near = batch.old_value + jnp.clip(value - batch.old_value, -config.value_clip, config.value_clip)
        error = jnp.maximum(error, (near - batch.target) ** 2)

    def mean(x):
        return weighted_mean(x, batch.weight)

    value_loss, policy_loss, entropy = 0.5 * mean(error), -mean(surrogate), mean(dist.entropy())
    total = policy_loss + h.value_coef * value_loss - entropy_coef * entropy
    if config.kl_coef > 0:
        total = total + kl_coef * mean(nets.distribution(batch.old_outputs, batch.legal).kl(dist))
    watched = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        # (ratio - 1) - log ratio: never negative, and far less noisy than -log ratio (Schulman's k3).
        "approx_kl": mean(ratio - 1.0 - log_ratio),
        "clip_fraction": mean(jnp.where(jnp.abs(ratio - 1.0) > h.clip, 1.0, 0.0)),
    }
    return total, watched


def standardised_advantage(advantage, weight=None):
    """Advantages with mean 0 and standard deviation 1; `weight` as in `Batch`."""
    centred = advantage - weighted_mean(advantage, weight)
    return centred / (jnp.sqrt(weighted_mean(centred**2, weight)) + 1e-8)


def adapted_kl_coef(config: Config, coefficient, kl):
    """The paper's rule (section 4), with its factors of 1.5 and 2."""
    if config.kl_target is None:
        return coefficient
    factor = jnp.where(kl > 1.5 * config.kl_target, 2.0, jnp.where(kl < config.kl_target / 1.5, 0.5, 1.0))
    return coefficient * factor


def hparams_of(config: Config) -> HParams:
    names = ("lr", "gamma", "gae_lambda", "clip", "entropy_coef", "value_coef", "kl_coef")
    return HParams(**{name: jnp.asarray(getattr(config, name), jnp.float32) for name in names})


# The algorithm


def make(config: Config, env: Environment, env_params=None) -> Algorithm:
    """Bind PPO to an environment with discrete, bounded continuous or mixed actions.

    Raises:
        ValueError: a continuous action space without bounds, or a central critic without a global state.
    """
    env = with_agent_axis(env)
    env_params = env.default_params if env_params is None else env_params
    agents, obs_dim = env.observation_space(env_params).shape
    space = env.action_space(env_params)
    policies.require_bounded(space, "PPO", env.name)
    critic_dim = critic_size(env, env_params, config.critic_input)
    nets = ActorCritic(config.actor, config.critic, space, obs_dim, critic_dim, config.policy, config.initial_log_std)
    team = Team(agents, config.shared_parameters)
    rows = team.rows(config.num_envs)
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm, config.adam_eps)

    # Acting

    def outputs_step(policy: Policy, carry, obs):
        if config.normalize_obs:
            obs = standardised(policy.obs_stats, obs)
        return team.step(nets.outputs_step, policy.actor, carry, obs)

    def act(policy: Policy, carry, obs, mask, key, greedy):
        carry, outputs = outputs_step(policy, carry, obs)
        dist = nets.distribution(outputs, mask)
        raw = dist.mode() if greedy else dist.sample(key)
        return policies.env_action(space, dist.action(raw)), carry

    def empty_memory(batch_shape):
        return initial_carry(config.actor, (*batch_shape, agents))

    def policy_of(state: State) -> Policy:
        return Policy(state.learner.params["actor"], state.learner.obs_stats)

    def draw_noise(key):
        return policies.draw_noise(space, key, (config.num_envs, agents))

    def explore(policy: Policy):
        def choose(worlds, noise):
            legal = rollout.facts_of(env, env_params, worlds.state).legal
            carry, outputs = outputs_step(policy, worlds.carry, worlds.obs)
            dist = nets.distribution(outputs, legal)
            raw = dist.sample_from(noise)
            return policies.env_action(space, dist.action(raw)), carry, (raw, outputs)

        return choose

    # Start

    def first_learner(key, hparams: HParams) -> Learner:
        params = nets.init(key)
        return Learner(
            params=params,
            optimizer=optimizer.init(params),
            critic_carry=initial_carry(config.critic, (rows,)),
            obs_stats=empty_stats((obs_dim,)),
            return_stats=empty_stats(()),
            running_return=jnp.zeros((rows,)),
            kl_coef=jnp.copy(hparams.kl_coef),
        )

    def init(key, hparams) -> State:
        key_nets, key_worlds, key_run = jax.random.split(key, 3)
        return State(
            learner=team.learners(first_learner, shared_args=(1,))(team.split(key_nets), hparams),
            worlds=rollout.start_worlds(env, env_params, key_worlds, config.num_envs, empty_memory((config.num_envs,))),
            key=key_run,
            updates=jnp.zeros((), jnp.int32),
            hparams=hparams,
        )

    # Learning

    def learn(learner: Learner, steps: Trajectory, actor_carry, raw_obs, key, h: HParams, env_steps):
        """One learner's update from its view of the roll-out; memories and observations as they were before it."""
        reward, return_stats, running_return = steps.reward, learner.return_stats, learner.running_return
        if config.normalize_reward:
            reward, return_stats, running_return = scaled_rewards(steps, return_stats, running_return, h.gamma)
        v_t, v_tp1, critic_carry = values_along(nets, learner.params["critic"], learner.critic_carry, steps)
        advantage = generalised_advantages(
            reward, h.gamma * (1.0 - steps.terminated), h.gae_lambda * (1.0 - steps.truncated), v_t, v_tp1
        )
        old_log_prob = nets.distribution(steps.outputs, steps.legal).log_prob(steps.raw_action)
        data = Batch(
            steps.obs, steps.critic_obs, steps.legal, steps.raw_action, steps.outputs, old_log_prob, v_t, advantage,
            advantage + v_t, steps.weight,
        )  # fmt: skip
        if not config.recurrent:
            data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)
        memory = memory_of(steps, actor_carry, learner.critic_carry, config.recurrent)
        lr = h.lr * config.lr_schedule.factor(env_steps, config.total_env_steps)
        entropy_coef = h.entropy_coef * config.entropy_schedule.factor(env_steps, config.total_env_steps)

        def step(carry, minibatch):
            params, opt, go_on = carry
            batch, start = minibatch
            batch = batch._replace(weight=relative_weight(batch.weight))
            if config.normalize_advantage:
                batch = batch._replace(advantage=standardised_advantage(batch.advantage, batch.weight))
            batch, start = own_rows(batch, start)
            (_, watched), gradient = jax.value_and_grad(
                lambda p: loss(nets, config, p, batch, start, h, entropy_coef, learner.kl_coef), has_aux=True
            )(params)
            gradient, watched = sharding.mean_over_shares((gradient, watched))
            new = descend(optimizer, gradient, opt, params, lr)
            if config.target_kl is not None:
                go_on = go_on & (watched["approx_kl"] <= 1.5 * config.target_kl)
                new = jax.tree.map(lambda a, b: jnp.where(go_on, a, b), new, (params, opt))
            return (*new, go_on), {**watched, "grad_norm": optax.tree.norm(gradient), "steps_taken": go_on}

        (params, opt, _), watched = jax.lax.scan(
            step,
            (learner.params, learner.optimizer, jnp.array(True)),
            minibatches(key, data, memory, config.epochs, config.minibatches),
        )
        metrics = {name: jnp.mean(value) for name, value in watched.items()}
        metrics["explained_variance"] = 1.0 - jnp.var(advantage) / (jnp.var(advantage + v_t) + 1e-8)
        metrics["value_mean"] = jnp.mean(v_t)
        metrics["kl_coef"] = learner.kl_coef
        metrics["learning_rate_factor"] = lr / h.lr
        last_kl = jnp.mean(watched["approx_kl"][-config.minibatches :])
        return Learner(
            params=params,
            optimizer=opt,
            critic_carry=critic_carry,
            obs_stats=merge(learner.obs_stats, raw_obs, steps.weight) if config.normalize_obs else learner.obs_stats,
            return_stats=return_stats,
            running_return=running_return,
            kl_coef=adapted_kl_coef(config, learner.kl_coef, last_kl),
        ), metrics

    def own_rows(batch: Batch, start: Memory) -> tuple[Batch, Memory]:
        """This device's share of a minibatch."""
        batch = jax.tree.map(lambda x: sharding.own_share(x, 1 if config.recurrent else 0), batch)
        actor, critic = jax.tree.map(sharding.own_share, (start.actor, start.critic))
        reset = None if start.reset is None else sharding.own_share(start.reset, 1)
        return batch, Memory(actor, critic, reset)

    def update(state: State):
        key, key_collect, key_learn = jax.random.split(state.key, 3)
        started, policy = state.worlds.carry, policy_of(state)
        worlds, steps, sums = rollout.collect(
            env, env_params, state.worlds, explore(policy), draw_noise, key_collect, config.steps_per_update
        )
        stats = policy.obs_stats if config.normalize_obs else None
        seen = trajectory_of(team, steps, stats, config.critic_input)
        env_steps = state.updates * config.env_steps()
        learner, metrics = team.learners(learn, shared_args=(5, 6))(
            state.learner, seen, team.grouped(started, time=False), team.grouped(steps.obs), team.split(key_learn),
            state.hparams, env_steps,
        )  # fmt: skip
        metrics = {name: jnp.mean(value) for name, value in metrics.items()} | rollout.episode_means(sums)
        return State(learner, worlds, key, state.updates + 1, state.hparams), metrics

    return Algorithm(
        init=init,
        update=update,
        policy=policy_of,
        act=act,
        initial_carry=empty_memory,
        hparams=hparams_of(config),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.epochs * config.minibatches,
        warmup_env_steps=0,
        num_updates=max(config.total_env_steps // config.env_steps(), 1),
    )
