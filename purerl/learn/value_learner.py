"""How a team learns its values from chunks: what the replay keeps of a roll-out, and one gradient step.

Reading order: `ValueLearner`, `moved_target`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from purerl.learn import rollout, sharding
from purerl.learn.buffers import Ring, Sequences, take
from purerl.learn.chunks import chunks_of
from purerl.learn.joint_values import Parts, ValueNets, targets, td_loss
from purerl.learn.optimizers import loss_step, make_optimizer
from purerl.learn.replay import Learner
from purerl.learn.signals import shaped
from purerl.types import Data


class ValueLearner:
    """The networks of a team with their optimiser, bound to the keys of `purerl.algos.qplex.Config`."""

    def __init__(self, config: Any, nets: ValueNets, reward_scale: float):
        self.config, self.nets, self.reward_scale = config, nets, reward_scale
        eps = config.optimizer_eps**2 if config.optimizer == "rmsprop" else config.optimizer_eps
        self.optimizer = make_optimizer(config.optimizer, config.max_grad_norm, eps)

    def cut(self, steps: rollout.Steps) -> Sequences:
        """Items of the replay; `steps.extra` is `Chosen`."""
        config, memory = self.config, steps.extra.memory
        return chunks_of(steps._replace(extra=None), memory, config.chunk_length, config.burn_in, config.team_reward)

    def gradient_step(self, learner: Learner, ring: Ring, indices, key, h: Any, data: Data):
        """As `GradientBlock`; `h` has the numbers of `purerl.algos.qplex.HParams`."""
        del key, data
        config, nets = self.config, self.nets
        batch = take(ring, sharding.own_share(indices[0]))
        if config.shaping != "none":
            batch = shaped(config.shaping, batch, h.gamma, h.shaping_weight * self.reward_scale)
        y = targets(config.target_config(), nets, learner.params, learner.target, batch, config.burn_in, h)
        loss = partial(td_loss, nets, batch=batch, y=y, burn_in=config.burn_in, config=config.loss_config())
        rate = config.learning_rate_factor(learner.gradient_steps) * h.lr
        (_, watched), norm, params, opt = loss_step(self.optimizer, loss, learner.params, learner.optimizer, rate)
        done = learner.gradient_steps + 1
        target = moved_target(params, learner.target, h.tau, done % config.target_update_interval == 0)
        return Learner(params, target, opt, done), {**watched, "grad_norm": norm}


def moved_target(params: Parts, target: Parts, tau, due) -> Parts:
    """The target network a share `tau` nearer to the parameters where an update of it is due."""
    moved = optax.incremental_update(params, target, tau)
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, target)
