"""PPO (Schulman et al. 2017), feed-forward or recurrent, for discrete (masked), continuous and mixed actions.

Reading order: `Config` (its other keys are `onpolicy.Settings`), `HParams`, `State`, `make` (collect, then what one
learner does with the roll-out: advantages, epochs of minibatches). The loss is in `purerl/policy_gradient.py`.

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

from dataclasses import replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from envs_jax.base import Environment
from purerl.learn import rollout
from purerl.learn.actors import Actors, Policy, Settings, traced
from purerl.learn.minibatches import memory_of
from purerl.learn.policy_gradient import (
    Batch,
    Common,
    Learner,
    Lesson,
    clipped_surrogate,
    coefficients,
    first_learners,
    improved,
    lesson_of,
    obs_stats_of,
    policy_of,
    rewards_of,
)
from purerl.learn.returns import discount_of, generalised_advantages
from purerl.learn.trajectory import values_along
from purerl.types import Algorithm, Data


class Config(Settings):
    name: Literal["ppo"] = "ppo"
    gae_lambda: float = Field(0.95, ge=0, le=1)


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


@struct.dataclass
class State:
    learner: Learner
    worlds: rollout.Worlds
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: HParams


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind PPO to an environment with discrete, continuous or mixed actions.

    Raises:
        ValueError: a squashed policy of actions without bounds, or a central critic without a global state.
    """
    env_params = env.default_params if env_params is None else env_params
    actors = Actors(config, env, env_params, reward_scale)
    nets, team = actors.nets, actors.team

    def init(key, hparams: HParams, data: Data) -> State:
        key_nets, key_worlds, key_run = jax.random.split(key, 3)
        return State(
            learner=first_learners(actors, key_nets, hparams.kl_coef),
            worlds=actors.start(data.env_params, key_worlds),
            key=key_run,
            updates=jnp.zeros((), jnp.int32),
            hparams=hparams,
        )

    def learn(own: Lesson, common: Common):
        """One learner's update from its view of the roll-out; memories and observations as they were before it."""
        learner, steps, h = own.learner, own.steps, common.hparams
        reward, learner = rewards_of(config, learner, steps, h.gamma)
        v_t, v_tp1, critic_carry = values_along(nets, learner.params["critic"], learner.critic_carry, steps)
        discount = discount_of(h.gamma, steps.frames)
        advantage = generalised_advantages(
            reward, discount * (1.0 - steps.terminated), h.gae_lambda * (1.0 - steps.truncated), v_t, v_tp1
        )
        old_log_prob = nets.distribution(steps.outputs, steps.legal).raw_log_prob(steps.raw_action)
        batch = Batch(
            obs=steps.obs,
            critic_obs=steps.critic_obs,
            legal=steps.legal,
            raw_action=steps.raw_action,
            old_outputs=steps.outputs,
            old_log_prob=old_log_prob,
            old_value=v_t,
            advantage=advantage,
            target=advantage + v_t,
            weight=steps.weight,
        )
        memory = memory_of(steps, own.actor_memory, learner.critic_carry, config.recurrent)
        better, metrics = improved(
            nets, config, partial(clipped_surrogate, clip=h.clip), learner, batch, memory, own.key,
            coefficients(config, h, learner, common.env_steps),
        )  # fmt: skip
        stats = obs_stats_of(config, learner, steps, own.raw_obs)
        return replace(better, critic_carry=critic_carry, obs_stats=stats), metrics

    def policy(state: State) -> Policy:
        return policy_of(state.learner)

    def update(state: State, data: Data):
        key, key_collect, key_learn = jax.random.split(state.key, 3)
        worlds, recorded, tally = actors.record(policy(state), data.env_params, state.worlds, key_collect)
        learner, metrics = team.learners(learn)(
            lesson_of(actors, state.learner, recorded, key_learn),
            Common(state.hparams, state.updates * config.env_steps()),
        )
        metrics = {name: jnp.mean(value) for name, value in metrics.items()} | rollout.tally_metrics(tally)
        return State(learner, worlds, key, state.updates + 1, state.hparams), metrics

    return Algorithm(
        reward_scale=reward_scale,
        init=init,
        update=update,
        policy=policy,
        act=actors.act,
        initial_carry=actors.empty_memory,
        hparams=traced(HParams, config),
        load_data=lambda: Data(env_params),
        learned=("learner",),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.epochs * config.minibatches,
        warmup_env_steps=0,
        num_updates=max(config.total_env_steps // config.env_steps(), 1),
    )
