"""SAC (Haarnoja et al. 2018a, b; choices: Christodoulou 2019), feed-forward on transitions or recurrent on episodes.

Reading order: `Config`, `HParams`, networks, targets, losses, `make` (acting, one gradient block, update).
`purerl.nets.policies` has the policy, `purerl.learn.twin_critics` its value, the temperature and the critics' loss,
`purerl.learn.replay` how experience is collected. Agents share one network: their axis is folded into the batch.

Deviations from the papers, each behind a key where one is named: the temperature's gradient is taken with log alpha in
alpha's place; actor and critic gradients of one step use the same parameters; gradients are clipped by their global
norm; n-step returns (`n_step`) count the rewards of the replay without correction and no entropy before the bootstrap;
several critic updates per actor, temperature and target update (`policy_delay`); the mean of both critics instead of
their minimum (`target_value`, `actor_value`); the entropy that choices are steered to is a share of the logarithm of
the number that is legal (`target_entropy_share`; the paper's 0.98 keeps policies near uniform); exploration noise may
be correlated over time (`noise_correlation`; as in Eberhard et al. 2023), each action still distributed as the policy
says; `critic_preview` as in TD3.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from purerl.learn import rollout, sharding
from purerl.learn.buffers import Ring, Sequences, take
from purerl.learn.optimizers import loss_step, make_optimizer
from purerl.learn.replay import Learner, State, advanced, discounts, first_state, source_of, to_batch
from purerl.learn.returns import n_step_returns
from purerl.learn.twin_critics import (
    TwinConfig,
    critic_loss,
    critics_of,
    entropy_aim,
    entropy_target,
    mean_in_play,
    soft_value,
    temperature_loss,
)
from purerl.nets.actions import Actions, Choices, actions_of
from purerl.nets.critics import Critics
from purerl.nets.networks import Network
from purerl.nets.policies import SoftPolicy
from purerl.types import Algorithm, Data
from purerl.validation import LogStd


class Config(TwinConfig):
    """Keys of SAC beside those of `TwinConfig`."""

    name: Literal["sac"] = "sac"
    alpha_lr: float = Field(3e-4, gt=0, description="of the temperature")
    max_grad_norm: float = Field(5.0, gt=0)
    initial_alpha: float = Field(0.1, gt=0)
    learn_alpha: bool = Field(True, description="false: the temperature stays at initial_alpha")
    target_entropy: float | Literal["auto"] = Field(
        "auto", description="auto: minus the number of action components; for choices target_entropy_share"
    )
    target_entropy_share: float = Field(0.5, ge=0, le=1, description="of the log of the number of (legal) choices")
    log_std_min: LogStd = Field(-10.0, description="of the normal before squashing")
    log_std_max: LogStd = 2.0
    noise_correlation: float = Field(0.0, ge=0, lt=1, description="of exploration noise from one step to the next")
    guided_warmup: bool = Field(False, description="warm up with the environment's rule instead of uniform actions")

    @model_validator(mode="after")
    def _ordered(self):
        if self.log_std_min >= self.log_std_max:
            raise ValueError(f"log_std_min {self.log_std_min} must be below log_std_max {self.log_std_max}")
        return self


@struct.dataclass
class HParams:
    """The numbers that may be traced: a sweep over them compiles once."""

    gamma: jax.Array
    tau: jax.Array
    actor_lr: jax.Array
    critic_lr: jax.Array
    alpha_lr: jax.Array
    initial_alpha: jax.Array
    target_entropy: jax.Array
    target_entropy_share: jax.Array
    """Added for choices: times the log of their number."""
    noise_correlation: jax.Array


class Parts(NamedTuple):
    """Parameters, or the states of their optimisers; critics have leaves with a leading axis of 2."""

    actor: Any
    critics: Any
    log_alpha: Any


class Memory(NamedTuple):
    """What acting carries from step to step, empty at the start of an episode."""

    actor: Any
    noise: jax.Array
    """[B, A, k] of the step before."""
    begun: jax.Array
    """[B, 1, 1]: 1 after the first step."""


class Nets(NamedTuple):
    """Networks and what their outputs mean. Sequences are [T, N, ...], N = batch * agents."""

    policy: SoftPolicy
    actor: Network
    critics: Critics

    def init(self, key, initial_alpha) -> Parts:
        key_actor, key_critics = jax.random.split(key)
        return Parts(self.actor.init(key_actor), self.critics.init(key_critics), jnp.log(initial_alpha))


def networks(config: Config, actions: Actions | Choices, critics: Critics) -> Nets:
    policy = SoftPolicy(actions, config.log_std_min, config.log_std_max)
    return Nets(policy, policy.network(config.actor, critics.obs_dim), critics)


def targets(config: Config, nets: Nets, params: Parts, target, batch: Sequences, h: HParams, noise):
    """Bootstrapped targets [T, N] for all steps, from one unroll of actor and target critics over T + 1 observations.

    Args:
        noise: from `policy.draw`, [T, N, k].
    """
    outputs = nets.actor(params.actor, batch.obs)[1:]
    history = nets.critics.history(target, batch.obs, batch.action)
    history = jax.tree.map(lambda x: x[1:], history)
    legal = None if batch.legal is None else batch.legal[1:]
    alpha = jnp.exp(params.log_alpha)
    value, _ = soft_value(
        nets.policy, nets.critics, target, outputs, history, batch.obs[1:], legal, alpha, noise, config.target_value
    )
    y = n_step_returns(batch.reward, discounts(batch, h.gamma), value, config.n_step)
    return jax.lax.stop_gradient(y)


def actor_loss(config: Config, nets: Nets, actor, critics, log_alpha, history, batch: Sequences, noise):
    """-(Q - alpha log pi) of the actor's own actions; and their entropy [T, N]."""
    legal = None if batch.legal is None else batch.legal[:-1]
    outputs, history = nets.actor(actor, batch.obs[:-1]), jax.lax.stop_gradient(history)
    value, entropy = soft_value(
        nets.policy, nets.critics, critics, outputs, history, batch.obs[:-1], legal, jnp.exp(log_alpha), noise,
        config.actor_value,
    )  # fmt: skip
    return -mean_in_play(value, batch.alive), entropy


def alpha_loss(nets: Nets, log_alpha, entropy, batch: Sequences, h: HParams):
    """The temperature's loss with the entropy [T, N] of the actor before its step; and the entropy it steers to."""
    legal = None if batch.legal is None else batch.legal[:-1]
    wanted = entropy_target(nets.policy, h.target_entropy, h.target_entropy_share, legal)
    return temperature_loss(log_alpha, entropy, wanted, batch.alive), mean_in_play(wanted + 0 * entropy, batch.alive)


def hparams_of(config: Config, actions: Actions | Choices) -> HParams:
    values = (
        config.gamma, config.tau, config.actor_lr, config.critic_lr, config.alpha_lr, config.initial_alpha,
        *entropy_aim(actions, config.target_entropy, config.target_entropy_share), config.noise_correlation,
    )  # fmt: skip
    return HParams(*(jnp.asarray(v, jnp.float32) for v in values))


def correlated(memory: Memory, noise, correlation):
    """Standard normal noise that remembers: an autoregression of order one, stationary from the first step on."""
    rest = jnp.where(memory.begun > 0, jnp.sqrt(1.0 - correlation**2), 1.0)
    return correlation * memory.noise + rest * noise


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind SAC to an environment.

    Raises:
        ValueError: a range of actions without bounds, correlated noise with choices, or a `sequence_length` that is
            neither 1 nor the episode length.
    """
    env = with_agent_axis(env)
    env_params = env.default_params if env_params is None else env_params
    actions = actions_of(env, env_params)
    if isinstance(actions, Choices) and config.noise_correlation > 0:
        raise ValueError(f"algo.noise_correlation {config.noise_correlation} needs a range of actions, not choices")
    source = source_of(config, env, env_params, actions, reward_scale)
    critics = critics_of(env, env_params, actions, config.critic, config.critic_arch, config.critic_preview)
    nets = networks(config, actions, critics)
    policy, agents = nets.policy, source.agents
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm)

    def act(actor, carry, obs, mask, key, greedy):
        carry, outputs = nets.actor.step(actor, carry, obs)
        return policy.choose(outputs, mask, key, greedy), carry

    def explore(state: State, data: Data):
        def choose(worlds, noise):
            memory: Memory = worlds.carry
            legal = rollout.facts_of(env, data.env_params, worlds.state).legal
            actor, outputs = nets.actor.step(state.learner.params.actor, memory.actor, worlds.obs)
            noise = correlated(memory, noise, state.hparams.noise_correlation)
            dist = policy.distribution(outputs, legal)
            action = dist.action(dist.sample_from(noise))
            return policy.env_action(action), Memory(actor, noise, jnp.ones_like(memory.begun)), None

        return choose

    def init(key, hparams, data: Data) -> State:
        key_nets, *keys = jax.random.split(key, 4)
        params = nets.init(key_nets, hparams.initial_alpha)
        silence = jnp.zeros((config.num_envs, agents, actions.dim))
        memory = Memory(source.empty_memory((config.num_envs,)), silence, jnp.zeros((config.num_envs, 1, 1)))
        opt = Parts(*(optimizer.init(part) for part in params))
        return first_state(source, data, keys, params, params.critics, opt, memory, hparams, config.guided_warmup)

    def draw_share(key):
        """Noise for a batch, drawn whole, so that the numbers do not depend on how many devices share it."""
        return sharding.own_share(policy.draw(key, (config.sequence_length, config.batch_size * agents)), axis=1)

    def gradient_block(learner: Learner, ring: Ring, indices, key, h: HParams, data: Data):
        """`policy_delay` critic updates; actor, temperature and target updates with the last of them."""
        here = nets._replace(critics=nets.critics.seeing(data.env_params))
        params, opt, gradient_steps = learner.params, learner.optimizer, learner.gradient_steps
        for k in range(config.policy_delay):
            key, key_next = jax.random.split(key)
            batch = to_batch(take(ring, sharding.own_share(indices[k])))
            batch = batch.replace(action=actions.features(batch.action))  # type: ignore[attr-defined]
            factor = config.learning_rate_factor(gradient_steps)
            y = targets(config, here, params, learner.target, batch, h, draw_share(key_next))
            before = params.critics
            (loss, (q, history)), critic_norm, critics, critic_opt = loss_step(
                optimizer,
                partial(critic_loss, here.critics, batch=batch, y=y),
                params.critics,
                opt.critics,
                factor * h.critic_lr,
            )
            params, opt = params._replace(critics=critics), opt._replace(critics=critic_opt)
            gradient_steps = gradient_steps + 1
        noise = draw_share(key)
        (policy_loss, entropy), actor_norm, actor, actor_opt = loss_step(
            optimizer,
            lambda actor: actor_loss(config, here, actor, before, params.log_alpha, history, batch, noise),
            params.actor,
            opt.actor,
            factor * h.actor_lr,
        )
        (temperature, wanted), _, log_alpha, alpha_opt = loss_step(
            optimizer,
            lambda log_alpha: alpha_loss(here, log_alpha, entropy, batch, h),
            params.log_alpha,
            opt.log_alpha,
            factor * h.alpha_lr * config.learn_alpha,
        )
        metrics = {
            "critic_loss": loss,
            "actor_loss": policy_loss,
            "alpha_loss": temperature,
            "alpha": jnp.exp(params.log_alpha),
            "entropy": mean_in_play(entropy, batch.alive),
            "target_entropy": wanted,
            "q1_mean": jnp.mean(q[0]),
            "q2_mean": jnp.mean(q[1]),
            "target_mean": jnp.mean(y),
            "critic_grad_norm": critic_norm,
            "actor_grad_norm": actor_norm,
        }
        target = optax.incremental_update(params.critics, learner.target, h.tau)
        params = Parts(actor, params.critics, log_alpha)
        return Learner(params, target, Parts(actor_opt, opt.critics, alpha_opt), gradient_steps), metrics

    def update(state: State, data: Data):
        draw_noise = lambda key: policy.draw(key, (config.num_envs, agents))  # noqa: E731
        after, _, metrics = advanced(
            source, state, data, explore(state, data), draw_noise, gradient_block, config.policy_delay
        )
        return after, metrics

    return Algorithm(
        reward_scale=reward_scale,
        init=init,
        update=update,
        policy=lambda state: state.learner.params.actor,
        act=act,
        initial_carry=source.empty_memory,
        hparams=hparams_of(config, actions),
        load_data=lambda: Data(env_params),
        learned=("learner",),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.gradient_steps(),
        warmup_env_steps=source.warmup_env_steps(),
        num_updates=config.num_updates(),
        vectorise_seeds=not config.recurrent,
        replay_field="ring",
        warmup_report=None if isinstance(actions, Choices) else lambda state: source.warmup_report(state.ring),
    )
