"""From a roll-out with advantages to a better learner: losses and epochs of minibatches, for all on-policy algorithms.

Reading order: `Learner`, `Batch`, the objectives of a policy, the loss, `improved` (epochs of minibatches), the KL
coefficient. Algorithms differ in the advantages they fill a `Batch` with and in the objective they choose.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from purerl.learn import sharding
from purerl.learn.actors import Actors, Policy, RollOut, Settings
from purerl.learn.minibatches import minibatches, relative_weight, weighted_mean
from purerl.learn.normalize import RunningStats, empty_stats, merge
from purerl.learn.optimizers import descend, gradient_norm, make_optimizer
from purerl.learn.trajectory import Trajectory, scaled_rewards
from purerl.nets.actor_critic import ActorCritic, Memory
from purerl.nets.networks import initial_carry


@struct.dataclass
class Learner:
    """What one set of parameters needs to learn from N rows; independent agents are stacked, [A, ...] leaves."""

    params: dict[str, Any]
    """`actor` and `critic`."""
    optimizer: Any
    """Of the packed parameters (`ActorCritic.packed`)."""
    critic_carry: Any
    """The critic's memory [N, ...] before the next step."""
    obs_stats: RunningStats
    return_stats: RunningStats
    running_return: jax.Array
    """Discounted sums of rewards [N], for the scale of rewards."""
    kl_coef: jax.Array


def optimizer_of(config: Settings) -> optax.GradientTransformation:
    return make_optimizer(config.optimizer, config.max_grad_norm, config.optimizer_eps)


def first_learners(actors: Actors, key: jax.Array, kl_coef: jax.Array) -> Learner:
    """Fresh learners of a team."""

    def first(key: jax.Array, kl_coef: jax.Array) -> Learner:
        params = actors.nets.init(key)
        return Learner(
            params=params,
            optimizer=optimizer_of(actors.config).init(actors.nets.packed(params)),
            critic_carry=initial_carry(actors.config.critic, (actors.rows,)),
            obs_stats=empty_stats((actors.obs_dim,)),
            return_stats=empty_stats(()),
            running_return=jnp.zeros((actors.rows,)),
            kl_coef=jnp.copy(kl_coef),
        )

    return actors.team.learners(first)(actors.team.split(key), kl_coef)


def policy_of(learner: Learner) -> Policy:
    return Policy(learner.params["actor"], learner.obs_stats)


class Lesson(NamedTuple):
    """What one learner learns from in an update call; of independent agents leaves have a leading agent axis."""

    learner: Learner
    steps: Trajectory
    actor_memory: Any
    """Of the actors before the first step [N, ...]."""
    raw_obs: jax.Array
    """Observations before they were normalised [T, N, d]."""
    key: jax.Array
    target: Any = None
    """Actor parameters of a target network, for algorithms that have one."""


class Common(NamedTuple):
    """What all learners of a team are told."""

    hparams: Any
    env_steps: jax.Array
    """Of training so far."""


def lesson_of(actors: Actors, learner: Learner, recorded: RollOut, key: jax.Array, target: Any = None) -> Lesson:
    """A recorded roll-out as the team's learners see it, with their normalisers as they are before the update."""
    steps, memory, raw_obs = actors.seen(policy_of(learner), recorded)
    return Lesson(learner, steps, memory, raw_obs, actors.team.split(key), target)


def rewards_of(config: Settings, learner: Learner, steps: Trajectory, gamma) -> tuple[jax.Array, Learner]:
    """Rewards to learn from, and the learner with its scale of rewards brought up to date."""
    if not config.normalize_reward:
        return steps.reward, learner
    reward, stats, running = scaled_rewards(steps, learner.return_stats, learner.running_return, gamma)
    return reward, replace(learner, return_stats=stats, running_return=running)


def obs_stats_of(config: Settings, learner: Learner, steps: Trajectory, raw_obs) -> RunningStats:
    """Statistics of observations with those of a roll-out [T, N, d]."""
    return merge(learner.obs_stats, raw_obs, steps.weight) if config.normalize_obs else learner.obs_stats


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


Objective = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""`(log_prob, ratio, advantage) -> (objective, clipped)` of every row; `ratio` is new over old probability."""


def clipped_surrogate(log_prob, ratio, advantage, clip):
    """PPO's objective (Schulman et al. 2017, eq. 7)."""
    # The paper's minimum, as a choice: gradients of `min` and `clip` take a dozen operations to share out ties.
    limit = jnp.where(advantage >= 0, 1.0 + clip, 1.0 - clip)
    return jnp.where((ratio - limit) * advantage > 0, limit, ratio) * advantage, jnp.abs(ratio - 1.0) > clip


class Coefficients(NamedTuple):
    """Numbers of the gradient steps of one update call, schedules applied."""

    lr: jax.Array
    lr_factor: jax.Array
    """Share of the first rate."""
    entropy: jax.Array
    value: jax.Array
    kl: jax.Array


def coefficients(config: Settings, h: Any, learner: Learner, env_steps) -> Coefficients:
    """After `env_steps` of training; `h` are the algorithm's traced numbers."""
    total = config.total_env_steps
    factor = config.lr_schedule.factor(env_steps, total)
    entropy = h.entropy_coef * config.entropy_schedule.factor(env_steps, total)
    return Coefficients(h.lr * factor, factor, entropy, h.value_coef, learner.kl_coef)


def loss(
    nets: ActorCritic, config: Settings, objective: Objective, packed, batch: Batch, memory: Memory, c: Coefficients
):
    """The policy's objective, value error, entropy bonus and KL penalty, as means; and the numbers to watch."""
    outputs, value = nets.outputs_and_values(packed, batch.obs, batch.critic_obs, memory)
    dist = nets.distribution(outputs, batch.legal)
    log_prob = dist.raw_log_prob(batch.raw_action)
    log_ratio = log_prob - batch.old_log_prob
    ratio = jnp.exp(log_ratio)
    gain, clipped = objective(log_prob, ratio, batch.advantage)

    error = (value - batch.target) ** 2
    if config.value_clip is not None:
        moved = value - batch.old_value
        near = batch.old_value + jnp.sign(moved) * config.value_clip
        far_error = jnp.where(jnp.abs(moved) > config.value_clip, (near - batch.target) ** 2, 0.0)
        error = jnp.where(far_error > error, far_error, error)

    def mean(x):
        return weighted_mean(x, batch.weight)

    value_loss, policy_loss, entropy = 0.5 * mean(error), -mean(gain), mean(dist.entropy())
    total = policy_loss + c.value * value_loss - c.entropy * entropy
    watched = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        # (ratio - 1) - log ratio: never negative, and far less noisy than -log ratio (Schulman's k3).
        "approx_kl": mean(ratio - 1.0 - log_ratio),
        "clip_fraction": mean(jnp.where(clipped, 1.0, 0.0)),
    }
    if config.kl_coef > 0:
        watched["kl"] = mean(nets.distribution(batch.old_outputs, batch.legal).kl_divergence(dist))
        total = total + c.kl * watched["kl"]
    return total, watched


def standardised_advantage(advantage, weight=None):
    """Advantages with mean 0 and standard deviation 1; `weight` as in `Batch`."""
    centred = advantage - weighted_mean(advantage, weight)
    return centred / (jnp.sqrt(weighted_mean(centred**2, weight)) + 1e-8)


def improved(
    nets: ActorCritic,
    config: Settings,
    objective: Objective,
    learner: Learner,
    data: Batch,
    memory: Memory,
    key: jax.Array,
    c: Coefficients,
) -> tuple[Learner, dict[str, jax.Array]]:
    """The learner after its epochs of minibatches, and means of what was watched.

    Args:
        data: of a whole roll-out, [T, N, ...].
    """
    if not config.recurrent:
        data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)
    optimizer = optimizer_of(config)

    def prepared(batch: Batch) -> Batch:
        batch = batch._replace(weight=relative_weight(batch.weight))
        if not config.normalize_advantage:
            return batch
        return batch._replace(advantage=standardised_advantage(batch.advantage, batch.weight))

    def step(carry, minibatch):
        params, opt, go_on = carry
        batch, start = _own_rows(*minibatch)
        (_, watched), gradient = jax.value_and_grad(
            lambda p: loss(nets, config, objective, p, batch, start, c), has_aux=True
        )(params)
        gradient, watched = sharding.mean_over_shares((gradient, watched))
        new = descend(optimizer, gradient, opt, params, c.lr)
        if config.target_kl is not None:
            go_on = go_on & (watched["approx_kl"] <= 1.5 * config.target_kl)
            new = jax.tree.map(lambda a, b: jnp.where(go_on, a, b), new, (params, opt))
        return (*new, go_on), {**watched, "grad_norm": gradient_norm(gradient), "steps_taken": go_on}

    batches, starts = minibatches(key, data, memory, config.epochs, config.minibatches)
    (params, opt, _), watched = jax.lax.scan(
        step, (nets.packed(learner.params), learner.optimizer, jnp.array(True)), (jax.vmap(prepared)(batches), starts)
    )
    params = nets.unpacked(params, learner.params)
    metrics = {name: jnp.mean(value) for name, value in watched.items()}
    metrics["kl_coef"] = learner.kl_coef
    metrics["learning_rate_factor"] = c.lr_factor
    metrics["explained_variance"] = 1.0 - jnp.var(data.target - data.old_value) / (jnp.var(data.target) + 1e-8)
    metrics["value_mean"] = jnp.mean(data.old_value)
    last_kl = jnp.mean(watched["approx_kl"][-config.minibatches :])
    kl_coef = adapted_kl_coef(config, learner.kl_coef, last_kl)
    return replace(learner, params=params, optimizer=opt, kl_coef=kl_coef), metrics


def _own_rows(batch: Batch, start: Memory) -> tuple[Batch, Memory]:
    """This device's share of a minibatch."""
    recurrent = start.reset is not None
    batch = jax.tree.map(lambda x: sharding.own_share(x, 1 if recurrent else 0), batch)
    actor, critic = jax.tree.map(sharding.own_share, (start.actor, start.critic))
    reset = None if start.reset is None else sharding.own_share(start.reset, 1)
    return batch, Memory(actor, critic, reset)


def adapted_kl_coef(config: Settings, coefficient, kl):
    """PPO's rule (Schulman et al. 2017, section 4), with its factors of 1.5 and 2."""
    if config.kl_target is None:
        return coefficient
    factor = jnp.where(kl > 1.5 * config.kl_target, 2.0, jnp.where(kl < config.kl_target / 1.5, 0.5, 1.0))
    return coefficient * factor
