"""Conservative Q-learning (Kumar, Zhou, Tucker, Levine 2020, arXiv 2006.04779): CQL(H) on a recorded dataset.

Reading order: `Config`, `HParams`, `Learner`, the log-sum-exp of Q over actions, targets, losses, `make`.

A soft actor-critic whose critics also learn to value recorded actions above others: beside the squared error, they
minimise w (log-sum-exp_a Q(s, a) - Q(s, a recorded)), equation 4. The log-sum-exp is exact over (legal) choices; over a
range it is the importance-weighted estimate of appendix F from uniform actions and actions of the policy at s and at
the next observation. No environment step is taken; evaluation is online.

Differences from the paper and its reference code:
- the estimate is a mean over samples, so it tends to the logarithm of the integral over the action range (in units of
  the half range); the reference code's sum is larger by the logarithm of their number, and so are its thresholds;
- the Lagrange form has one weight w for both critics, ascends log w in place of w, and thresholds the gap itself, not
  the gap times a fixed weight;
- the actor's cloning phase is as in the reference code: log pi(recorded action) takes the place of Q;
- recurrent networks on whole episodes, an environment's preview for the critics, action masks and agents out of play as
  in the other algorithms with a replay.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from pydantic import Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from purerl.learn.buffers import Sequences
from purerl.learn.offline import (
    OfflineConfig,
    Recorded,
    assemble,
    before,
    clone_log_prob,
    draw_for_batch,
    learning_rate_factor,
)
from purerl.learn.optimizers import loss_step, make_optimizer
from purerl.learn.replay import discounts
from purerl.learn.twin_critics import (
    critic_loss,
    critics_of,
    entropy_aim,
    entropy_target,
    mean_in_play,
    soft_value,
    temperature_loss,
)
from purerl.nets.actions import Actions, Choices, actions_of
from purerl.nets.critics import CriticArch, Critics, Reduction
from purerl.nets.networks import Network, NetworkConfig
from purerl.nets.policies import SoftPolicy
from purerl.types import Algorithm

SMALLEST_WEIGHT = 1e-6
"""Keeps the logarithm of an unused weight finite."""


class Config(OfflineConfig):
    name: Literal["cql"] = "cql"
    gamma: float = Field(0.99, ge=0, le=1)
    tau: float = Field(0.005, gt=0, le=1)
    critic_lr: float = Field(3e-4, gt=0)
    alpha_lr: float = Field(3e-4, gt=0, description="of the temperature")
    initial_alpha: float = Field(0.1, gt=0)
    learn_alpha: bool = Field(True, description="false: the temperature stays at initial_alpha")
    target_entropy: float | Literal["auto"] = Field(
        "auto", description="auto: minus the number of action components; for choices target_entropy_share"
    )
    target_entropy_share: float = Field(0.5, ge=0, le=1, description="of the log of the number of (legal) choices")
    backup_entropy: bool = Field(False, description="whether the targets' next value contains the entropy")
    min_q_weight: float = Field(5.0, ge=0, description="weight of the conservative term; initial one in Lagrange form")
    lagrange_threshold: float | None = Field(None, description="gap that the weight is adapted to; null: fixed weight")
    lagrange_lr: float = Field(3e-4, gt=0)
    num_actions: int = Field(10, ge=1, description="samples of each of the three kinds in the log-sum-exp of a range")
    bc_updates: int = Field(0, ge=0, description="gradient steps in which the actor clones the recorded actions")
    target_value: Literal["min", "mean"] = Field("min", description="of both target critics")
    actor_value: Reduction = Field("min", description="of both critics, for the actor")
    critic_arch: CriticArch = "history"
    critic_preview: bool = Field(
        False,
        description="critics see the environment's preview of the action and learn what follows the previewed reward",
    )
    critic: NetworkConfig = NetworkConfig(hidden_sizes=(256, 256))

    @model_validator(mode="after")
    def _weighted(self):
        if self.lagrange_threshold is not None and self.min_q_weight == 0:
            raise ValueError("lagrange_threshold adapts min_q_weight and needs one to start from: set it above 0")
        if self.bc_updates > self.total_gradient_steps:
            raise ValueError("bc_updates exceed total_gradient_steps: the actor would only clone, as algo bc does")
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent or self.critic.recurrent


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
    min_q_weight: jax.Array
    lagrange_threshold: jax.Array
    lagrange_lr: jax.Array


class Params(NamedTuple):
    actor: Any
    critics: Any
    log_alpha: jax.Array
    """Temperature."""
    log_weight: jax.Array
    """Weight of the conservative term in Lagrange form."""


class Optimizers(NamedTuple):
    actor: Any
    critics: Any
    alpha: Any
    weight: Any


@struct.dataclass
class Learner:
    params: Params
    target: Any
    """Of the critics."""
    optimizer: Optimizers
    gradient_steps: jax.Array


class Policy(NamedTuple):
    actor: Any
    critics: Any


class Nets(NamedTuple):
    policy: SoftPolicy
    actor: Network
    critics: Critics


class Candidates(NamedTuple):
    """Actions at which Q is asked for, and the logarithms of the densities they were drawn from."""

    action: jax.Array
    """[M, T, N, k] in units."""
    log_density: jax.Array
    """[M, T, N], of the action in units of the half range."""


def candidates(policy: SoftPolicy, outputs, uniform, noise) -> Candidates:
    """Actions for the log-sum-exp before T steps: uniform ones, and the policy's at this and the next observation.

    Args:
        outputs: of the actor [T + 1, N, m].
        uniform: actions in units [M, T, N, k]; noise: standard normal [2, M, T, N, k].
    """
    assert isinstance(policy.actions, Actions)
    half_range_density = -policy.actions.dim * float(np.log(2.0))
    parts = [Candidates(uniform, jnp.full(uniform.shape[:-1], half_range_density))]
    for at, drawn in zip((outputs[:-1], outputs[1:]), noise, strict=True):
        dist = policy.distribution(at)
        raw = dist.sample_from(drawn)
        parts.append(Candidates(policy.actions.squash(raw), dist.raw_log_prob(raw)))
    return jax.lax.stop_gradient(jax.tree.map(lambda *x: jnp.concatenate(x), *parts))


def log_sum_exp(critics: Critics, params, history, obs, legal, drawn: Candidates | None):
    """log of the sum (choices) or integral (range, estimated from `drawn`) of exp Q(s, a) over actions, [2, T, N].

    E over densities p of exp(Q(a)) / p(a) is the integral, whatever the p: they only decide the variance.
    """
    if drawn is None:
        q = critics.q_each(params, history)
        return jax.nn.logsumexp(q if legal is None else jnp.where(legal, q, -jnp.inf), axis=-1)
    q = jax.vmap(lambda action: critics.q(params, history, obs, action))(drawn.action)
    weighted = q - drawn.log_density[:, None]
    return jax.nn.logsumexp(weighted, axis=0) - float(np.log(drawn.action.shape[0]))


def targets(config: Config, nets: Nets, target, outputs, batch: Sequences, alpha, gamma, noise):
    """Bootstrapped targets [T, N] of all steps."""
    history = nets.critics.history(target, batch.obs, batch.action)
    value, _ = soft_value(
        nets.policy, nets.critics, target, outputs[1:], jax.tree.map(lambda x: x[1:], history), batch.obs[1:],
        None if batch.legal is None else batch.legal[1:], alpha * config.backup_entropy, noise, config.target_value,
    )  # fmt: skip
    return jax.lax.stop_gradient(batch.reward + discounts(batch, gamma) * value)


def conservative_loss(nets: Nets, params, batch: Sequences, y, drawn: Candidates | None, weight):
    """Squared error plus `weight` times the gap (equation 4): `(loss, (error, gap, q, history))`."""
    error, (q, history) = critic_loss(nets.critics, params, batch, y)
    all_actions = log_sum_exp(nets.critics, params, history, batch.obs[:-1], before(batch.legal), drawn)
    gap = mean_in_play(jnp.mean(all_actions - q, axis=0), batch.alive)
    return error + weight * gap, (error, gap, q, history)


def weight_loss(log_weight, gap, threshold):
    """Descending it raises the weight while the gap is above the threshold and lowers it below (equation 30)."""
    return -log_weight * jax.lax.stop_gradient(gap - threshold)


def actor_loss(config: Config, nets: Nets, actor, critics, history, batch: Sequences, stored, alpha, cloning, noise):
    """-(Q + alpha entropy) of the actor's actions, with log pi of the `stored` action for Q while `cloning`."""
    outputs, legal = nets.actor(actor, batch.obs[:-1]), before(batch.legal)
    value, entropy = soft_value(
        nets.policy, nets.critics, critics, outputs, jax.lax.stop_gradient(history), batch.obs[:-1], legal, alpha,
        noise, config.actor_value,
    )  # fmt: skip
    cloned = clone_log_prob(nets.policy, outputs, stored, legal) + alpha * entropy
    return -mean_in_play(jnp.where(cloning, cloned, value), batch.alive), entropy


def hparams_of(config: Config, actions: Actions | Choices) -> HParams:
    values = (
        config.gamma, config.tau, config.actor_lr, config.critic_lr, config.alpha_lr, config.initial_alpha,
        *entropy_aim(actions, config.target_entropy, config.target_entropy_share), config.min_q_weight,
        config.lagrange_threshold or 0.0, config.lagrange_lr,
    )  # fmt: skip
    return HParams(*(jnp.asarray(v, jnp.float32) for v in values))


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind CQL to an environment; its dataset is read when training starts.

    Raises:
        ValueError: actions that are neither choices nor in a bounded range.
    """
    env = with_agent_axis(env)
    env_params = env.default_params if env_params is None else env_params
    policy = SoftPolicy(actions_of(env, env_params), config.log_std_min, config.log_std_max)
    recorded = Recorded(config, env, env_params, policy, reward_scale)
    agents = recorded.world.num_agents
    actor = policy.network(config.actor, recorded.world.observation_size)
    critics = critics_of(env, env_params, policy.actions, config.critic, config.critic_arch, config.critic_preview)
    nets = Nets(policy, actor, critics)
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm)
    discrete = isinstance(policy.actions, Choices)

    def init_learner(key, h: HParams):
        key_actor, key_critics = jax.random.split(key)
        log_alpha, log_weight = jnp.log(h.initial_alpha), jnp.log(jnp.maximum(h.min_q_weight, SMALLEST_WEIGHT))
        params = Params(nets.actor.init(key_actor), nets.critics.init(key_critics), log_alpha, log_weight)
        return Learner(
            params=params,
            target=jax.tree.map(jnp.copy, params.critics),  # donated state: the same buffer must not appear twice
            optimizer=Optimizers(*(optimizer.init(part) for part in params)),
            gradient_steps=jnp.zeros((), jnp.int32),
        )

    def gradient_step(learner: Learner, batch: Sequences, key, h: HParams, env_params):
        here = nets._replace(critics=nets.critics.seeing(env_params))
        params, opt, stored = learner.params, learner.optimizer, batch.action
        batch = batch.replace(action=policy.actions.features(stored))  # type: ignore[attr-defined]
        key_next, key_actor, key_uniform, key_policy = jax.random.split(key, 4)
        noise_of = lambda key, *samples: draw_for_batch(  # noqa: E731
            config, agents, lambda shape: policy.draw(key, shape), *samples
        )
        factor = learning_rate_factor(config, learner.gradient_steps)
        alpha = jnp.exp(params.log_alpha)
        weight = h.min_q_weight if config.lagrange_threshold is None else jnp.exp(params.log_weight)
        outputs = nets.actor(params.actor, batch.obs)
        drawn = None
        if isinstance(policy.actions, Actions):
            choices = policy.actions
            uniform = draw_for_batch(config, agents, lambda s: choices.draw_uniform(key_uniform, s), config.num_actions)
            drawn = candidates(policy, outputs, uniform, noise_of(key_policy, 2, config.num_actions))

        y = targets(config, here, learner.target, outputs, batch, alpha, h.gamma, noise_of(key_next))
        (_, (error, gap, q, history)), critic_norm, critics, critic_opt = loss_step(
            optimizer, lambda p: conservative_loss(here, p, batch, y, drawn, weight), params.critics, opt.critics,
            factor * h.critic_lr,
        )  # fmt: skip
        cloning = learner.gradient_steps < config.bc_updates
        noise = noise_of(key_actor)
        (policy_loss, entropy), actor_norm, actor_params, actor_opt = loss_step(
            optimizer,
            lambda p: actor_loss(config, here, p, params.critics, history, batch, stored, alpha, cloning, noise),
            params.actor, opt.actor, factor * h.actor_lr,
        )  # fmt: skip
        wanted = entropy_target(policy, h.target_entropy, h.target_entropy_share, before(batch.legal))
        (_, _), _, log_alpha, alpha_opt = loss_step(
            optimizer, lambda p: (temperature_loss(p, entropy, wanted, batch.alive), ()), params.log_alpha, opt.alpha,
            config.learn_alpha * factor * h.alpha_lr,
        )  # fmt: skip
        (_, _), _, log_weight, weight_opt = loss_step(
            optimizer, lambda p: (weight_loss(p, gap, h.lagrange_threshold), ()), params.log_weight, opt.weight,
            (config.lagrange_threshold is not None) * factor * h.lagrange_lr,
        )  # fmt: skip
        metrics = {
            "critic_loss": error,
            "conservative_gap": gap,
            "min_q_weight": weight,
            "actor_loss": policy_loss,
            "alpha": alpha,
            "entropy": mean_in_play(entropy, batch.alive),
            "q1_mean_all": jnp.mean(q[0]),
            "q2_mean_all": jnp.mean(q[1]),
            "target_mean": jnp.mean(y),
            "critic_grad_norm": critic_norm,
            "actor_grad_norm": actor_norm,
        }
        return Learner(
            Params(actor_params, critics, log_alpha, log_weight),
            optax.incremental_update(critics, learner.target, h.tau),
            Optimizers(actor_opt, critic_opt, alpha_opt, weight_opt),
            learner.gradient_steps + 1,
        ), metrics

    def q_values(params, obs, action, env_params):
        """Both critics' values [2, T, N] along sequences obs [T, N, d] with the actions taken [T, N, k]."""
        stored = policy.actions.stored(action[..., 0] if discrete else action)
        return nets.critics.seeing(env_params).along(params.critics, obs, policy.actions.features(stored))

    def policy_of(learner: Learner) -> Policy:
        return Policy(learner.params.actor, learner.params.critics)

    hparams = hparams_of(config, policy.actions)
    return assemble(
        recorded, actor, init_learner, gradient_step, policy_of, hparams, q_values=q_values, discount=config.gamma
    )
