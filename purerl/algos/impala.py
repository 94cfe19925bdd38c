"""IMPALA (Espeholt et al. 2018) and APPO: V-trace with clipped surrogate and target network (IMPACT, Luo et al. 2020).

Reading order: `Config` (its other keys are `onpolicy.Settings`), `HParams`, `State`, the two ratios, `make`
(record, queue, then what one learner does with the oldest roll-out: V-trace, epochs of minibatches). The loss is in
`purerl/policy_gradient.py`. `name: impala` and `name: appo` are one algorithm with other defaults; `surrogate` is the
difference. Agents, memories, masks and ends of episodes are treated as in `purerl/algos/ppo.py`.

Lag. A queue of `actor_lag` roll-outs stands between actors and learner: each update call records a roll-out with the
newest parameters, puts it in, and learns from the oldest, which the parameters of `actor_lag` update calls ago recorded
together with their outputs. `init` fills the queue. This gives the learner the data that a lagging actor would have
sent, always equally old, and thereby what V-trace has to correct; it gives none of the speed of actors that do not
wait, and no lag that varies between actors or within a roll-out. One process has no need of lag: it is here to study
what it does, and to reproduce settings of distributed systems. With lag 0 all ratios are one, V-trace is generalised
advantages, and `appo` with a fresh target is PPO.

Deviations. IMPALA: losses are means over the batch and not sums, so learning rates and norms are on another scale, and
an RMSProp epsilon meant for sums over n rows is epsilon / n^2 here; the default optimiser is Adam. Values and V-trace
targets are computed once per update call, with the parameters it starts from; with several minibatches or epochs, the
importance weight of the policy gradient is that of each gradient step. A trace may decay with a lambda (remark 2 of the
paper), and ends at a time limit with the value of the true final observation. The learner's normaliser and critic see
what the actors saw; nothing but their outputs is taken over. APPO: a roll-out is used for `epochs` and then dropped,
where IMPACT keeps a circular buffer; V-trace corrects from the actors to the target network, as there, with values of
the learner's critic; `kl_coef` keeps to the target network (with `policy_gradient`: to the actors).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from pydantic import Field

from envs_jax.base import Environment
from purerl.learn import rollout
from purerl.learn.actors import Actors, Policy, RollOut, Settings, traced
from purerl.learn.minibatches import memory_of, relative_weight, weighted_mean
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
from purerl.learn.returns import discount_of, vtrace_advantages, vtrace_errors
from purerl.learn.trajectory import values_along
from purerl.types import Algorithm, Data

LOG_LIMIT = float(np.log(2.0))
"""Of mu / pi_target: IMPACT's rho."""


def _default(impala: Any, appo: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda keys: appo if keys["name"] == "appo" else impala


class Config(Settings):
    name: Literal["impala", "appo"] = Field("impala", description="appo: other defaults, a clipped surrogate above all")
    surrogate: Literal["policy_gradient", "clipped"] = Field(
        default_factory=_default(impala="policy_gradient", appo="clipped"),
        description="clipped: PPO's, around a target network",
    )
    actor_lag: int = Field(1, ge=0, description="update calls between recording a roll-out and learning from it")
    vtrace_lambda: float = Field(1.0, ge=0, le=1)
    vtrace_clip_rho: float = Field(1.0, gt=0, description="of the temporal differences: rho-bar")
    vtrace_clip_c: float = Field(1.0, gt=0, description="of the trace: c-bar")
    vtrace_clip_pg_rho: float = Field(1.0, gt=0, description="of the policy gradient")
    target_update_every: int = Field(1, ge=1, description="clipped: update calls between updates of the target network")
    target_tau: float = Field(1.0, gt=0, le=1, description="clipped: how far the target network then moves")

    num_envs: int = Field(32, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(20, gt=0, description="steps of every environment per update call")
    epochs: int = Field(default_factory=_default(impala=1, appo=2), ge=1)
    minibatches: int = Field(
        default_factory=_default(impala=1, appo=4), ge=1, description="per epoch; recurrent: of whole environments"
    )
    value_clip: float | None = Field(None, gt=0, description="null: no clipping of the value's change")
    normalize_advantage: bool = Field(False, description="in every minibatch")
    lr: float = Field(default_factory=_default(impala=6e-4, appo=3e-4), gt=0)


@struct.dataclass
class HParams:
    """The numbers that may be traced: a sweep over them compiles once."""

    lr: jax.Array
    gamma: jax.Array
    vtrace_lambda: jax.Array
    vtrace_clip_rho: jax.Array
    vtrace_clip_c: jax.Array
    vtrace_clip_pg_rho: jax.Array
    clip: jax.Array
    entropy_coef: jax.Array
    value_coef: jax.Array
    kl_coef: jax.Array
    target_tau: jax.Array


@struct.dataclass
class State:
    learner: Learner
    target: Any
    """Actor parameters of the target network; None without."""
    queue: tuple[RollOut, ...]
    """Recorded and not learned from yet, the oldest first."""
    worlds: rollout.Worlds
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: HParams


def weighted_policy_gradient(log_prob, ratio, advantage, clip_rho):
    """Advantage times log-probability, with a clipped importance weight (Espeholt et al. 2018, section 4.2)."""
    rho = jax.lax.stop_gradient(jnp.minimum(ratio, clip_rho))
    return rho * advantage * log_prob, ratio > clip_rho


def anchor_log_prob(log_target, log_behaviour):
    """What stands below pi in IMPACT's ratio min(mu / pi_target, 2) pi / mu, as one log-probability."""
    return jnp.maximum(log_target, log_behaviour - LOG_LIMIT)


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind IMPALA or APPO to an environment with discrete, continuous or mixed actions.

    Raises:
        ValueError: a squashed policy of actions without bounds, or a central critic without a global state.
    """
    env_params = env.default_params if env_params is None else env_params
    actors = Actors(config, env, env_params, reward_scale)
    nets, team = actors.nets, actors.team
    clipped = config.surrogate == "clipped"

    def policy(state: State) -> Policy:
        return policy_of(state.learner)

    def init(key, hparams: HParams, data: Data) -> State:
        key_nets, key_worlds, key_run = jax.random.split(key, 3)
        learner, worlds = first_learners(actors, key_nets, hparams.kl_coef), actors.start(data.env_params, key_worlds)
        queue: tuple[RollOut, ...] = ()
        if config.actor_lag:
            key_run, key_fill = jax.random.split(key_run)

            def fill(worlds, key, _):
                worlds, recorded, _ = actors.record(policy_of(learner), data.env_params, worlds, key)
                return worlds, recorded

            keys = jax.random.split(key_fill, config.actor_lag)
            worlds, filled = rollout.scan_with_keys(fill, worlds, keys)
            queue = tuple(jax.tree.map(lambda x, i=i: x[i], filled) for i in range(config.actor_lag))
        return State(
            learner=learner,
            target=jax.tree.map(jnp.copy, learner.params["actor"]) if clipped else None,
            queue=queue,
            worlds=worlds,
            key=key_run,
            updates=jnp.zeros((), jnp.int32),
            hparams=hparams,
        )

    def learn(own: Lesson, common: Common):
        """One learner's update from its view of the roll-out; memories and observations as they were before it."""
        learner, steps, h = own.learner, own.steps, common.hparams
        reward, learner = rewards_of(config, learner, steps, h.gamma)
        v_t, v_tp1, critic_carry = values_along(nets, learner.params["critic"], learner.critic_carry, steps)
        memory = memory_of(steps, own.actor_memory, learner.critic_carry, config.recurrent)
        anchor = own.target if clipped else learner.params["actor"]
        outputs = nets.outputs(anchor, steps.obs, memory.actor, memory.reset)
        behaviour_log_prob = nets.distribution(steps.outputs, steps.legal).raw_log_prob(steps.raw_action)
        log_prob = nets.distribution(outputs, steps.legal).raw_log_prob(steps.raw_action)
        ratio = jnp.exp(log_prob - behaviour_log_prob)
        discount = discount_of(h.gamma, steps.frames)
        trace = reward, discount * (1.0 - steps.terminated), h.vtrace_lambda * (1.0 - steps.truncated), v_t, v_tp1
        errors = vtrace_errors(*trace, ratio, h.vtrace_clip_rho, h.vtrace_clip_c)
        if clipped:
            objective = partial(clipped_surrogate, clip=h.clip)
            advantage = vtrace_advantages(*trace, ratio, errors, h.vtrace_clip_pg_rho)
            old_outputs, old_log_prob = outputs, anchor_log_prob(log_prob, behaviour_log_prob)
        else:
            objective = partial(weighted_policy_gradient, clip_rho=h.vtrace_clip_pg_rho)
            advantage = vtrace_advantages(*trace, jnp.ones_like(ratio), errors)  # the objective weights it
            old_outputs, old_log_prob = steps.outputs, behaviour_log_prob
        batch = Batch(
            obs=steps.obs,
            critic_obs=steps.critic_obs,
            legal=steps.legal,
            raw_action=steps.raw_action,
            old_outputs=old_outputs,
            old_log_prob=old_log_prob,
            old_value=v_t,
            advantage=advantage,
            target=errors + v_t,
            weight=steps.weight,
        )
        better, metrics = improved(
            nets, config, objective, learner, batch, memory, own.key,
            coefficients(config, h, learner, common.env_steps),
        )  # fmt: skip
        weight = relative_weight(steps.weight)
        metrics["vtrace_rho"] = weighted_mean(jnp.minimum(ratio, h.vtrace_clip_rho), weight)
        metrics["behaviour_kl"] = weighted_mean(ratio - 1.0 - (log_prob - behaviour_log_prob), weight)
        stats = obs_stats_of(config, learner, steps, own.raw_obs)
        return replace(better, critic_carry=critic_carry, obs_stats=stats), metrics

    def next_target(state: State, learner: Learner):
        if not clipped:
            return None
        moved = optax.incremental_update(learner.params["actor"], state.target, state.hparams.target_tau)
        due = (state.updates + 1) % config.target_update_every == 0
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, state.target)

    def update(state: State, data: Data):
        key, key_collect, key_learn = jax.random.split(state.key, 3)
        worlds, recorded, tally = actors.record(policy(state), data.env_params, state.worlds, key_collect)
        oldest, *waiting = *state.queue, recorded
        learner, metrics = team.learners(learn)(
            lesson_of(actors, state.learner, oldest, key_learn, state.target),
            Common(state.hparams, state.updates * config.env_steps()),
        )
        metrics = {name: jnp.mean(value) for name, value in metrics.items()} | rollout.tally_metrics(tally)
        target = next_target(state, learner)
        return State(learner, target, tuple(waiting), worlds, key, state.updates + 1, state.hparams), metrics

    return Algorithm(
        reward_scale=reward_scale,
        init=init,
        update=update,
        policy=policy,
        act=actors.act,
        initial_carry=actors.empty_memory,
        hparams=traced(HParams, config),
        load_data=lambda: Data(env_params),
        learned=("learner", "target"),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.epochs * config.minibatches,
        warmup_env_steps=config.actor_lag * config.env_steps(),
        num_updates=max(config.total_env_steps // config.env_steps(), 1),
    )
