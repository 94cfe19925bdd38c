"""TD3 (Fujimoto, van Hoof, Meger 2018), feed-forward on transitions or with an LSTM on whole episodes.

Reading order: `Config`, `HParams`, networks, targets, losses, `make` (acting, one gradient block, update).

Recurrent training works on whole episodes of fixed length (a trading day): the replay stores them complete, every
network starts each with an empty memory, and the targets of all steps come from one unroll of the target networks.
`purerl.nets.critics` says how recurrent critics see actions, `purerl.learn.replay` how experience is collected.

Deviations from the paper, each behind a key: target noise is applied in units of the action range on every step of a
sequence; `target_value` and `actor_value` may be the mean of both critics (the minimum biases long horizons with
gamma 1); a penalty on the pre-squash output and a critic-only start keep the actor out of saturation; gradients are
clipped by their global norm; actor and critic gradients of one step use the same parameters; with `critic_preview` the
critics are told what an action does at once (the environment's `preview`, its immediate reward first) and learn what
follows, which is no longer model-free.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from purerl.learn import sharding
from purerl.learn.buffers import Ring, Sequences, take
from purerl.learn.optimizers import loss_step, make_optimizer
from purerl.learn.replay import Learner, State, advanced, discounts, first_state, source_of, to_batch
from purerl.learn.returns import n_step_returns
from purerl.learn.twin_critics import TwinConfig, critic_loss, critics_of, mean_in_play
from purerl.nets.actions import Actions, action_range
from purerl.nets.critics import Critics, reduce_twins
from purerl.nets.networks import Network, NetworkConfig
from purerl.types import Algorithm, Data
from purerl.validation import StepCount


class Exploration(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    initial_noise_std: float = Field(0.5, ge=0, description="in units of the largest action magnitude")
    final_noise_std: float = Field(0.5, ge=0)
    noise_decay_env_steps: int = Field(1, ge=1, description="linear decay from initial to final after warm-up")
    guided_warmup: bool = Field(False, description="warm up with the environment's rule instead of uniform actions")


class Config(TwinConfig):
    """Keys of TD3 beside those of `TwinConfig`; the defaults are those of the trading days it was first made for."""

    name: Literal["td3"] = "td3"
    total_env_steps: StepCount = 52_800
    num_envs: int = Field(22, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(24, gt=0, description="steps of every environment per update call")
    sequence_length: int = Field(24, gt=0, description="1: transitions; otherwise the episode length")
    batch_size: int = Field(128, gt=0, description="sequences per gradient update")
    gamma: float = Field(1.0, ge=0, le=1)
    tau: float = Field(0.01, gt=0, le=1)
    actor_lr: float = Field(5e-5, gt=0)
    critic_lr: float = Field(5e-5, gt=0)
    actor: NetworkConfig = NetworkConfig(lstm_hidden_size=64)
    critic: NetworkConfig = NetworkConfig(lstm_hidden_size=64)
    policy_delay: int = Field(2, ge=1, description="critic updates per actor and target update")
    target_noise: float = Field(0.5, ge=0)
    noise_clip: float = Field(0.4, ge=0)
    target_clip: float | None = Field(None, gt=0, description="targets are clipped to +- this")
    saturation_penalty: float = Field(0.0, ge=0, description="weight of relu(|pre-squash output| - threshold)^2")
    saturation_threshold: float = Field(1.5, ge=0)
    critic_only_updates: int = Field(0, ge=0, description="updates before the actor starts to learn")
    output_activation: Literal["auto", "tanh", "sigmoid"] = Field("auto", description="auto: sigmoid for [0, 1]")
    exploration: Exploration = Exploration()

    @model_validator(mode="after")
    def _actor_learns(self):
        if self.critic_only_updates > self.num_updates() * self.gradient_steps():
            steps = f"{self.num_updates() * self.gradient_steps()} gradient steps of the run"
            raise ValueError(
                f"critic_only_updates {self.critic_only_updates} are more than the {steps}: the actor would never learn"
            )
        return self


@struct.dataclass
class HParams:
    """The numbers that may be traced: a sweep over them compiles once."""

    gamma: jax.Array
    tau: jax.Array
    actor_lr: jax.Array
    critic_lr: jax.Array
    target_noise: jax.Array
    noise_clip: jax.Array
    initial_noise_std: jax.Array
    final_noise_std: jax.Array
    saturation_penalty: jax.Array


class Pair(NamedTuple):
    """Parameters of the actor and of the twin critics (leaves with a leading axis of 2)."""

    actor: Any
    critics: Any


class Nets(NamedTuple):
    """The two network families. Sequences are [T, N, ...], N = batch * agents."""

    actor: Network
    """Pre-squash outputs [T, N, k]."""
    critics: Critics

    def init(self, key) -> Pair:
        key_actor, key_critics = jax.random.split(key)
        return Pair(self.actor.init(key_actor), self.critics.init(key_critics))


def networks(config: Config, critics: Critics) -> Nets:
    return Nets(Network(config.actor, critics.obs_dim, critics.action_dim, out_scale=0.1), critics)


def targets(config: Config, nets: Nets, actions: Actions, target: Pair, batch: Sequences, h: HParams, noise):
    """Bootstrapped targets [T, N] for all steps, from one unroll of the target networks over T + 1 observations.

    Args:
        noise: standard normal [T, N, k].
    """
    noise = h.target_noise * noise
    next_action = actions.squash(nets.actor(target.actor, batch.obs)[1:])
    next_action = actions.clip(next_action + jnp.clip(noise, -h.noise_clip, h.noise_clip))
    history = nets.critics.history(target.critics, batch.obs, batch.action)
    next_history = jax.tree.map(lambda x: x[1:], history)
    value = reduce_twins(nets.critics.q(target.critics, next_history, batch.obs[1:], next_action), config.target_value)
    y = n_step_returns(batch.reward, discounts(batch, h.gamma), value, config.n_step)
    if config.target_clip is not None:
        y = jnp.clip(y, -config.target_clip, config.target_clip)
    return jax.lax.stop_gradient(y)


def actor_loss(config: Config, nets: Nets, actions: Actions, actor, critics, history, batch: Sequences, penalty):
    """-Q of the actor's own actions, plus the penalty on outputs far into saturation."""
    raw = nets.actor(actor, batch.obs[:-1])
    action = actions.squash(raw)
    history = jax.lax.stop_gradient(history)
    q = reduce_twins(nets.critics.q(critics, history, batch.obs[:-1], action), config.actor_value)
    excess = jnp.maximum(jnp.abs(raw) - config.saturation_threshold, 0.0)
    loss = -mean_in_play(q, batch.alive) + penalty * jnp.mean(excess**2)
    return loss, jnp.mean(actions.saturated(action))


def noise_std(config: Config, h: HParams, updates):
    done = jnp.clip(updates * config.env_steps() / config.exploration.noise_decay_env_steps, 0.0, 1.0)
    return h.initial_noise_std + done * (h.final_noise_std - h.initial_noise_std)


def hparams_of(config: Config) -> HParams:
    e = config.exploration
    values = (
        config.gamma, config.tau, config.actor_lr, config.critic_lr, config.target_noise, config.noise_clip,
        e.initial_noise_std, e.final_noise_std, config.saturation_penalty,
    )  # fmt: skip
    return HParams(*(jnp.asarray(v, jnp.float32) for v in values))


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind TD3 to an environment.

    Raises:
        ValueError: unbounded or discrete actions, or a `sequence_length` that is neither 1 nor the episode length.
    """
    env = with_agent_axis(env)
    env_params = env.default_params if env_params is None else env_params
    actions = action_range(env, env_params, config.output_activation)
    source = source_of(config, env, env_params, actions, reward_scale)
    critics = critics_of(env, env_params, actions, config.critic, config.critic_arch, config.critic_preview)
    nets = networks(config, critics)
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm)

    def act(policy, carry, obs, mask, key, greedy):
        del mask, key, greedy  # deterministic policy; exploration is added in `explore`
        carry, raw = nets.actor.step(policy.actor, carry, obs)
        return actions.squash(raw) * actions.unit, carry

    def networks_here(env_params) -> Nets:
        return nets._replace(critics=nets.critics.seeing(env_params))

    def explore(state: State):
        std = noise_std(config, state.hparams, state.updates)

        def choose(worlds, noise):
            action, carry = act(state.learner.params, worlds.carry, worlds.obs, None, None, False)
            return actions.clip(action / actions.unit + std * noise) * actions.unit, carry, None

        return choose

    def draw_noise(key):
        return jax.random.normal(key, (config.num_envs, source.agents, actions.dim))

    def init(key, hparams, data: Data) -> State:
        key_nets, *keys = jax.random.split(key, 4)
        params = nets.init(key_nets)
        opt = Pair(optimizer.init(params.actor), optimizer.init(params.critics))
        memory = source.empty_memory((config.num_envs,))
        guided = config.exploration.guided_warmup
        return first_state(source, data, keys, params, params, opt, memory, hparams, guided)

    def gradient_block(learner: Learner, ring: Ring, indices, key, h: HParams, data: Data):
        """`policy_delay` critic updates, an actor update with the last of them, and the target update."""
        nets = networks_here(data.env_params)
        params, opt, target, gradient_steps = (
            learner.params, learner.optimizer, learner.target, learner.gradient_steps,
        )  # fmt: skip
        for k in range(config.policy_delay):
            key, key_noise = jax.random.split(key)
            batch = to_batch(take(ring, sharding.own_share(indices[k])))
            # Drawn for the whole batch, so that the numbers do not depend on how many devices share it.
            shape = (config.sequence_length, config.batch_size * source.agents, actions.dim)
            noise = sharding.own_share(jax.random.normal(key_noise, shape), axis=1)
            factor = config.learning_rate_factor(gradient_steps)
            y = targets(config, nets, actions, target, batch, h, noise)
            (loss, (q, history)), critic_norm, critics, critic_opt = loss_step(
                optimizer,
                partial(critic_loss, nets.critics, batch=batch, y=y),
                params.critics,
                opt.critics,
                factor * h.critic_lr,
            )
            old = params
            params, opt = Pair(params.actor, critics), Pair(opt.actor, critic_opt)
            gradient_steps = gradient_steps + 1
        learning = gradient_steps > config.critic_only_updates
        (policy_loss, saturation), actor_norm, actor, actor_opt = loss_step(
            optimizer,
            lambda actor: actor_loss(config, nets, actions, actor, old.critics, history, batch, h.saturation_penalty),
            params.actor,
            opt.actor,
            learning * factor * h.actor_lr,
        )
        params, opt = Pair(actor, params.critics), Pair(actor_opt, opt.critics)
        target = optax.incremental_update(params, target, h.tau)
        metrics = {
            "critic_loss": loss,
            "actor_loss": policy_loss,
            "q1_mean": jnp.mean(q[0, 0]),
            "q2_mean": jnp.mean(q[1, 0]),
            "q1_mean_all": jnp.mean(q[0]),
            "q2_mean_all": jnp.mean(q[1]),
            "target_mean": jnp.mean(y),
            "critic_grad_norm": critic_norm,
            "actor_grad_norm": actor_norm,
            "saturation": saturation,
        }
        return Learner(params, target, opt, gradient_steps), metrics

    def update(state: State, data: Data):
        after, steps, metrics = advanced(
            source, state, data, explore(state), draw_noise, gradient_block, config.policy_delay
        )
        metrics["noise_std"] = noise_std(config, state.hparams, state.updates)
        if config.sequence_length > 1:
            metrics["q_start_bias"] = start_bias(state.learner.params, steps, data.env_params)
        return after, metrics

    def start_bias(policy, steps, env_params):
        """Mean Q(o_0, pi(o_0)) of the collected episodes less the mean of what they returned."""
        obs = steps.obs[:1].reshape(1, -1, source.obs_dim)
        promised = q_values(policy, obs, actions.squash(nets.actor(policy.actor, obs)) * actions.unit, env_params)
        return jnp.mean(promised) - jnp.mean(jnp.sum(steps.reward, axis=0))

    def q_values(policy, obs, action, env_params):
        """Both critics' values [2, T, N] along sequences obs [T, N, d] with the actions taken [T, N, k]."""
        return networks_here(env_params).critics.along(policy.critics, obs, action / actions.unit)

    return Algorithm(
        reward_scale=reward_scale,
        init=init,
        update=update,
        policy=lambda state: state.learner.params,
        act=act,
        initial_carry=source.empty_memory,
        hparams=hparams_of(config),
        load_data=lambda: Data(env_params),
        learned=("learner",),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.gradient_steps(),
        warmup_env_steps=source.warmup_env_steps(),
        num_updates=config.num_updates(),
        vectorise_seeds=not config.recurrent,
        q_values=q_values,
        discount=config.gamma,
        replay_field="ring",
        warmup_report=lambda state: source.warmup_report(state.ring),
    )
