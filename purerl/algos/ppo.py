"""PPO (Schulman et al. 2017), feed-forward or recurrent, for discrete (masked) and continuous actions.

Reading order: `Config`, `HParams`, `State`, the policy's outputs as a distribution, values, the loss, `make` (collect,
advantages, epochs of minibatches).

Agents share one network: their axis is folded into the batch, which is IPPO with shared parameters. A recurrent policy
trains on whole roll-outs: minibatches are made of environments, memories start from where the roll-out started and are
emptied inside where an episode ended. Values of the step after are those of the true final observation, seen with the
memory from before the reset, so a time limit is no end.

Beyond the paper, each behind a key: value clipping, an entropy bonus with a schedule, a KL penalty with an adaptive
coefficient (the paper's section 4), a stop of the epochs at a target KL, running normalisation of observations and of
rewards, a squashed normal. Observation statistics are those from before the roll-out, so that the roll-out and the
epochs on it see the same numbers.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete, Space
from purerl import rollout, sharding
from purerl.distributions import Categorical, Distribution, Normal, SquashedNormal, masked
from purerl.networks import Core, Head, NetworkConfig, initial_carry
from purerl.normalize import RunningStats, empty_stats, merge, scaled, standardised
from purerl.optimizers import OptimizerName, Schedule, descend, make_optimizer
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
    policy: Literal["normal", "squashed"] = Field("normal", description="of continuous actions")
    initial_log_std: float = 0.0
    normalize_obs: bool = False
    normalize_reward: bool = Field(False, description="divide by the running std of the discounted return")
    actor: NetworkConfig = TANH
    critic: NetworkConfig = TANH

    @model_validator(mode="after")
    def _consistent(self):
        unit, what = (
            (self.num_envs, "num_envs") if self.recurrent else (self.env_steps(), "num_envs * steps_per_update")
        )
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
    """All that acting needs."""

    actor: Any
    obs_stats: RunningStats


@struct.dataclass
class State:
    params: dict[str, Any]
    """`actor` and `critic`."""
    optimizer: Any
    worlds: rollout.Worlds
    critic_carry: Any
    """The critic's memory [B * A, ...] before the next step."""
    obs_stats: RunningStats
    return_stats: RunningStats
    running_return: jax.Array
    """Discounted sums of rewards [B * A], for the scale of rewards."""
    kl_coef: jax.Array
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: HParams


class Batch(NamedTuple):
    """What the loss reads. Feed-forward: rows [N, ...]. Recurrent: sequences [T, N, ...]."""

    obs: jax.Array
    legal: jax.Array | None
    raw_action: jax.Array
    old_outputs: Any
    old_log_prob: jax.Array
    old_value: jax.Array
    advantage: jax.Array
    target: jax.Array


class Memory(NamedTuple):
    """Where a recurrent minibatch starts, and where its episodes start anew."""

    actor: Any
    critic: Any
    reset: jax.Array | None
    """bool [T, N]: empty the memory before this step."""


# Networks


class Nets:
    """Actor and critic as functions of (params, inputs). Sequences are [T, N, ...], N = environments * agents."""

    def __init__(self, config: Config, obs_dim: int, space: Space):
        self.config, self.obs_dim, self.space = config, obs_dim, space
        self.out_dim = space.n if isinstance(space, Discrete) else int(space.shape[-1])
        self.actor_core, self.actor_head = Core(config.actor), Head(config.actor, self.out_dim, out_scale=0.01)
        self.critic_core, self.critic_head = Core(config.critic), Head(config.critic, 1)

    def init(self, key) -> dict[str, Any]:
        keys = jax.random.split(key, 4)
        xs = jnp.zeros((1, 1, self.obs_dim))

        def one(core, head, key_core, key_head):
            params: Any = core.init(key_core, xs)
            return {"core": params, "head": head.init(key_head, core.apply(params, xs))}

        actor = one(self.actor_core, self.actor_head, keys[0], keys[1])
        if isinstance(self.space, Box):
            actor["log_std"] = jnp.full((self.out_dim,), self.config.initial_log_std)
        return {"actor": actor, "critic": one(self.critic_core, self.critic_head, keys[2], keys[3])}

    def outputs(self, params, xs, carry=None, reset=None):
        """The actor's outputs for sequences, or for rows [N, d] of a feed-forward actor."""
        features = self.actor_core.apply(params["core"], xs, carry, reset)
        return self._with_spread(params, self.actor_head.apply(params["head"], features))

    def outputs_step(self, params, carry, x):
        step: Any = self.actor_core.apply(params["core"], carry, x, method="step")
        return step[0], self._with_spread(params, self.actor_head.apply(params["head"], step[1]))

    def value(self, params, xs, carry=None, reset=None):
        features = self.critic_core.apply(params["core"], xs, carry, reset)
        value: Any = self.critic_head.apply(params["head"], features)
        return value[..., 0]

    def value_step(self, params, carry, x):
        step: Any = self.critic_core.apply(params["core"], carry, x, method="step")
        value: Any = self.critic_head.apply(params["head"], step[1])
        return step[0], value[..., 0]

    def _with_spread(self, params, outputs):
        if isinstance(self.space, Discrete):
            return outputs
        return outputs, jnp.broadcast_to(params["log_std"], outputs.shape)

    def noise(self, key, leading: tuple[int, ...]):
        """Random numbers that `sample_from` of this policy's distribution turns into actions."""
        draw = jax.random.gumbel if isinstance(self.space, Discrete) else jax.random.normal
        return draw(key, (*leading, self.out_dim))

    def distribution(self, outputs, legal=None) -> Distribution:
        if isinstance(self.space, Discrete):
            return Categorical(masked(outputs, legal))
        kind = SquashedNormal if self.config.policy == "squashed" else Normal
        return kind(*outputs)


def env_action(space: Space, action):
    """Policy actions in units of the half range -> what the environment takes."""
    if isinstance(space, Discrete):
        return action
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high))
    return (low + high) / 2 + (high - low) / 2 * jnp.clip(action, -1.0, 1.0)


# Loss


def loss(nets: Nets, params, batch: Batch, memory: Memory, h: HParams, entropy_coef, kl_coef):
    """Clipped surrogate, value error, entropy bonus and KL penalty, as means; and the numbers to watch."""
    c = nets.config
    outputs = nets.outputs(params["actor"], batch.obs, memory.actor, memory.reset)
    dist = nets.distribution(outputs, batch.legal)
    log_ratio = dist.log_prob(batch.raw_action) - batch.old_log_prob
    ratio = jnp.exp(log_ratio)
    surrogate = jnp.minimum(ratio * batch.advantage, jnp.clip(ratio, 1 - h.clip, 1 + h.clip) * batch.advantage)

    value = nets.value(params["critic"], batch.obs, memory.critic, memory.reset)
    error = (value - batch.target) ** 2
    if c.value_clip is not None:
        near = batch.old_value + jnp.clip(value - batch.old_value, -c.value_clip, c.value_clip)
        error = jnp.maximum(error, (near - batch.target) ** 2)
    value_loss = 0.5 * jnp.mean(error)

    policy_loss, entropy = -jnp.mean(surrogate), jnp.mean(dist.entropy())
    total = policy_loss + h.value_coef * value_loss - entropy_coef * entropy
    if c.kl_coef > 0:
        total = total + kl_coef * jnp.mean(nets.distribution(batch.old_outputs, batch.legal).kl(dist))
    watched = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        # (ratio - 1) - log ratio: never negative, and far less noisy than -log ratio (Schulman's k3).
        "approx_kl": jnp.mean(ratio - 1.0 - log_ratio),
        "clip_fraction": jnp.mean(jnp.abs(ratio - 1.0) > h.clip),
    }
    return total, watched


def standardised_advantage(advantage):
    return (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)


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
    """Bind PPO to an environment with a discrete or a bounded continuous action space.

    Raises:
        ValueError: a continuous action space without bounds.
    """
    env = with_agent_axis(env)
    env_params = env.default_params if env_params is None else env_params
    agents, obs_dim = env.observation_space(env_params).shape
    space = env.action_space(env_params)
    if isinstance(space, Box) and not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f"PPO needs a bounded action space, {env.name} has [{space.low}, {space.high}]")
    nets = Nets(config, obs_dim, space)
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm, config.adam_eps)
    rows = config.num_envs * agents

    def seen(obs_stats: RunningStats, obs):
        return standardised(obs_stats, obs) if config.normalize_obs else obs

    def act(policy: Policy, carry, obs, mask, key, greedy):
        carry, outputs = nets.outputs_step(policy.actor, carry, seen(policy.obs_stats, obs))
        dist = nets.distribution(outputs, mask)
        raw = dist.mode() if greedy else dist.sample(key)
        return env_action(space, dist.action(raw)), carry

    def empty_memory(batch_shape):
        return initial_carry(config.actor, (*batch_shape, agents))

    def init(key, hparams) -> State:
        key_nets, key_worlds, key_run = jax.random.split(key, 3)
        params = nets.init(key_nets)
        zero = jnp.zeros((), jnp.int32)
        return State(
            params=params,
            optimizer=optimizer.init(params),
            worlds=rollout.start_worlds(env, env_params, key_worlds, config.num_envs, empty_memory((config.num_envs,))),
            critic_carry=initial_carry(config.critic, (rows,)),
            obs_stats=empty_stats((obs_dim,)),
            return_stats=empty_stats(()),
            running_return=jnp.zeros((rows,)),
            kl_coef=jnp.copy(hparams.kl_coef),
            key=key_run,
            updates=zero,
            hparams=hparams,
        )

    def draw_noise(key):
        return nets.noise(key, (config.num_envs, agents))

    def explore(state: State):
        def choose(worlds, noise):
            legal = None if env.action_mask is None else jax.vmap(env.action_mask, (0, None))(worlds.state, env_params)
            carry, outputs = nets.outputs_step(state.params["actor"], worlds.carry, seen(state.obs_stats, worlds.obs))
            dist = nets.distribution(outputs, legal)
            raw = dist.sample_from(noise)
            return env_action(space, dist.action(raw)), carry, (raw, outputs, legal)

        return choose

    def fold(tree):
        """[T, B, A, ...] -> [T, B * A, ...]: agents share the networks."""
        return jax.tree.map(lambda x: x.reshape(x.shape[0], rows, *x.shape[3:]), tree)

    def per_agent(flags):
        """[T, B] -> [T, B * A]"""
        return jnp.repeat(flags, agents, axis=1)

    def values(params, carry, obs, final_obs, done):
        """Values before and after every step [T, N], and the critic's memory for the next roll-out."""
        if not config.critic.recurrent:
            v = nets.value(params, jnp.stack([obs, final_obs]))
            return v[0], v[1], carry

        def body(carry, inputs):
            x, x_final, done = inputs
            carry, v = nets.value_step(params, carry, x)
            _, v_after = nets.value_step(params, carry, x_final)
            return jax.tree.map(lambda c: jnp.where(done[:, None], 0.0, c), carry), (v, v_after)

        carry, (v_t, v_tp1) = jax.lax.scan(body, carry, (obs, final_obs, done))
        return v_t, v_tp1, carry

    def scaled_rewards(state: State, reward, done):
        """Rewards in units of the running std of the discounted return, and the statistics."""
        if not config.normalize_reward:
            return reward, state.return_stats, state.running_return

        def body(total, inputs):
            r, end = inputs
            total = total * state.hparams.gamma + r
            return jnp.where(end, 0.0, total), total

        running, totals = jax.lax.scan(body, state.running_return, (reward, done))
        stats = merge(state.return_stats, totals)
        return scaled(stats, reward), stats, running

    def minibatches(key, data: Batch, memory: Memory):
        """Shuffled `(data, memory)` of every gradient step, leaves [epochs * minibatches, ...].

        Feed-forward minibatches are made of rows, recurrent ones of environments with all their steps. Everything is
        gathered at once: many small gathers would cost more than the copies.
        """
        axis = 1 if config.recurrent else 0
        count = data.target.shape[axis]
        keys = jax.random.split(key, config.epochs)
        order = jax.vmap(lambda k: jax.random.permutation(k, count))(keys).reshape(-1)

        def dealt(x, axis):
            x = jnp.take(x, order, axis=axis, mode="clip")
            x = x.reshape(*x.shape[:axis], config.epochs * config.minibatches, -1, *x.shape[axis + 1 :])
            return jnp.moveaxis(x, axis, 0)

        actor, critic = jax.tree.map(lambda x: dealt(x, 0), (memory.actor, memory.critic))
        reset = None if memory.reset is None else dealt(memory.reset, 1)
        return jax.tree.map(lambda x: dealt(x, axis), data), Memory(actor, critic, reset)

    def update(state: State):
        h = state.hparams
        key, key_collect, key_shuffle = jax.random.split(state.key, 3)
        started = state.worlds.carry
        worlds, steps, sums = rollout.collect(
            env, env_params, state.worlds, explore(state), draw_noise, key_collect, config.steps_per_update
        )
        raw, outputs, legal = fold(steps.extra)
        obs, final_obs, reward = fold((steps.obs, steps.final_obs, steps.reward))
        terminated, truncated = per_agent(steps.terminated), per_agent(steps.truncated)
        done = terminated | truncated
        obs_stats = merge(state.obs_stats, obs) if config.normalize_obs else state.obs_stats
        obs, final_obs = seen(state.obs_stats, obs), seen(state.obs_stats, final_obs)
        reward, return_stats, running_return = scaled_rewards(state, reward, done)
        v_t, v_tp1, critic_carry = values(state.params["critic"], state.critic_carry, obs, final_obs, done)
        advantage = generalised_advantages(
            reward, h.gamma * (1.0 - terminated), h.gae_lambda * (1.0 - truncated), v_t, v_tp1
        )
        old_log_prob = nets.distribution(outputs, legal).log_prob(raw)
        data = Batch(obs, legal, raw, outputs, old_log_prob, v_t, advantage, advantage + v_t)
        reset = jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]]) if config.recurrent else None
        memory = Memory(jax.tree.map(lambda x: x.reshape(rows, -1), started), state.critic_carry, reset)
        if not config.recurrent:
            data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)

        env_steps = state.updates * config.env_steps()
        lr = h.lr * config.lr_schedule.factor(env_steps, config.total_env_steps)
        entropy_coef = h.entropy_coef * config.entropy_schedule.factor(env_steps, config.total_env_steps)
        axis = 1 if config.recurrent else 0

        def step(carry, minibatch):
            params, opt, go_on = carry
            batch, start = minibatch
            if config.normalize_advantage:
                batch = batch._replace(advantage=standardised_advantage(batch.advantage))
            batch = jax.tree.map(lambda x: sharding.own_share(x, axis), batch)
            if start.reset is not None:
                actor, critic = jax.tree.map(sharding.own_share, (start.actor, start.critic))
                start = Memory(actor, critic, sharding.own_share(start.reset, 1))
            (_, watched), gradient = jax.value_and_grad(
                lambda p: loss(nets, p, batch, start, h, entropy_coef, state.kl_coef), has_aux=True
            )(params)
            gradient, watched = sharding.mean_over_shares((gradient, watched))
            new = descend(optimizer, gradient, opt, params, lr)
            if config.target_kl is not None:
                go_on = go_on & (watched["approx_kl"] <= 1.5 * config.target_kl)
                new = jax.tree.map(lambda a, b: jnp.where(go_on, a, b), new, (params, opt))
            return (*new, go_on), {**watched, "grad_norm": optax.tree.norm(gradient), "steps_taken": go_on}

        (params, opt, _), watched = jax.lax.scan(
            step, (state.params, state.optimizer, jnp.array(True)), minibatches(key_shuffle, data, memory)
        )
        metrics = {name: jnp.mean(value) for name, value in watched.items()}
        metrics |= rollout.episode_means(sums)
        metrics["explained_variance"] = 1.0 - jnp.var(advantage) / (jnp.var(advantage + v_t) + 1e-8)
        metrics["value_mean"] = jnp.mean(v_t)
        metrics["kl_coef"] = state.kl_coef
        metrics["learning_rate_factor"] = lr / h.lr
        last_kl = jnp.mean(watched["approx_kl"][-config.minibatches :])
        return State(
            params=params,
            optimizer=opt,
            worlds=worlds,
            critic_carry=critic_carry,
            obs_stats=obs_stats,
            return_stats=return_stats,
            running_return=running_return,
            kl_coef=adapted_kl_coef(config, state.kl_coef, last_kl),
            key=key,
            updates=state.updates + 1,
            hparams=h,
        ), metrics

    return Algorithm(
        init=init,
        update=update,
        policy=lambda state: Policy(state.params["actor"], state.obs_stats),
        act=act,
        initial_carry=empty_memory,
        hparams=hparams_of(config),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.epochs * config.minibatches,
        warmup_env_steps=0,
        num_updates=max(config.total_env_steps // config.env_steps(), 1),
    )
