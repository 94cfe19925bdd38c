"""Behaviour cloning: the policy that makes recorded actions most likely. The control of offline algorithms.

Feed-forward on transitions or with a recurrent actor on whole episodes; a squashed normal over a range of actions, a
categorical over (legal) choices. Nothing but actions is learned from: rewards and ends are not looked at.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from purerl.learn.offline import OfflineConfig, Recorded, assemble, before, clone_log_prob, learning_rate_factor
from purerl.learn.optimizers import loss_step, make_optimizer
from purerl.learn.twin_critics import mean_in_play
from purerl.nets.actions import actions_of
from purerl.nets.policies import SoftPolicy
from purerl.types import Algorithm


class Config(OfflineConfig):
    name: Literal["bc"] = "bc"


@struct.dataclass
class HParams:
    actor_lr: jax.Array


@struct.dataclass
class Learner:
    actor: Any
    optimizer: Any
    gradient_steps: jax.Array


class Cloned(NamedTuple):
    """All that acting needs."""

    actor: Any


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind cloning to an environment; its dataset is read when training starts.

    Raises:
        ValueError: actions that are neither choices nor in a bounded range.
    """
    env = with_agent_axis(env)
    env_params = env.default_params if env_params is None else env_params
    policy = SoftPolicy(actions_of(env, env_params), config.log_std_min, config.log_std_max)
    recorded = Recorded(config, env, env_params, policy, reward_scale)
    actor = policy.network(config.actor, recorded.world.observation_size)
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm)

    def init_learner(key, hparams):
        del hparams
        params = actor.init(key)
        return Learner(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def gradient_step(learner, batch, key, h, env_params):
        del key, env_params

        def loss(params):
            outputs = actor(params, batch.obs[:-1])
            legal = before(batch.legal)
            log_prob = clone_log_prob(policy, outputs, batch.action, legal)
            entropy = mean_in_play(policy.distribution(outputs, legal).entropy(), batch.alive)
            return -mean_in_play(log_prob, batch.alive), entropy

        rate = learning_rate_factor(config, learner.gradient_steps) * h.actor_lr
        (value, entropy), norm, params, opt = loss_step(optimizer, loss, learner.actor, learner.optimizer, rate)
        metrics = {"actor_loss": value, "entropy": entropy, "actor_grad_norm": norm}
        return Learner(params, opt, learner.gradient_steps + 1), metrics

    hparams = HParams(jnp.asarray(config.actor_lr, jnp.float32))
    return assemble(recorded, actor, init_learner, gradient_step, lambda learner: Cloned(learner.actor), hparams)
