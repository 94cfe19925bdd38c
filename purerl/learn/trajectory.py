"""A roll-out as learners see it: agents as rows, what the critic reads, ends of episodes, values along it.

Reading order: `Team` (agents that share parameters or do not), `Trajectory`, values, the scale of rewards.

A learner sees N rows: with shared parameters these are environments times agents, because agents are folded into the
batch. Independent agents are as many learners, each with its own parameters and one row per environment; `Team` maps
over them, so nothing else needs to know.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.base import Environment
from purerl.learn import rollout
from purerl.learn.normalize import RunningStats, merge, scaled, standardised
from purerl.learn.returns import discount_of
from purerl.nets.actor_critic import ActorCritic
from purerl.nets.policies import Outputs

CriticInput = Literal["obs", "global_state", "global_state_and_obs"]
"""`global_state` makes the critic central (MAPPO): one value for all agents; with `obs` beside it one for each."""


class Team(NamedTuple):
    """How agents become rows of learners."""

    agents: int
    shared: bool
    """One set of parameters for all agents; otherwise every leaf of a learner has a leading agent axis."""

    def rows(self, num_envs: int) -> int:
        """Rows of one learner."""
        return num_envs * self.agents if self.shared else num_envs

    def learners(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """`function(own, common)` of one learner for all: `own` is every learner's own, `common` the same for all."""
        return function if self.shared else jax.vmap(function, (0, None))

    def split(self, key: jax.Array) -> jax.Array:
        """A key for every learner."""
        return key if self.shared else jax.random.split(key, self.agents)

    def grouped(self, tree: Any, time: bool = True) -> Any:
        """Leaves [T, B, A, ...] as one learner's [T, B * A, ...], or as [A, T, B, ...]; without `time` no T."""
        axis = 1 if time else 0

        def one(x):
            if self.shared:
                return x.reshape(*x.shape[:axis], x.shape[axis] * self.agents, *x.shape[axis + 2 :])
            return jnp.moveaxis(x, axis + 1, 0)

        return jax.tree.map(one, tree)

    def ungrouped(self, tree: Any) -> Any:
        """The inverse of `grouped`, with time: leaves [T, B, A, ...]."""

        def one(x):
            if self.shared:
                return x.reshape(x.shape[0], -1, self.agents, *x.shape[2:])
            return jnp.moveaxis(x, 0, 2)

        return jax.tree.map(one, tree)

    def step(self, function: Callable[..., Any], params: Any, carry: Any, obs: jax.Array) -> tuple[Any, Any]:
        """`function(params, carry, obs)` of acting agents: leaves of carry, obs and results are [..., A, f]."""
        if self.shared:
            return function(params, carry, obs)
        return jax.vmap(function, (0, -2, -2), -2)(params, carry, obs)


class Trajectory(NamedTuple):
    """A roll-out as one learner sees it, [T, N, ...]."""

    obs: jax.Array
    """What the actor saw, normalised."""
    critic_obs: jax.Array
    final_critic_obs: jax.Array
    """After the step, before a reset."""
    raw_action: Any
    outputs: Outputs
    """Of the policy that acted."""
    legal: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    """Both [T, N]: of the agent. One that stops acting while the others go on has terminated."""
    episode_end: jax.Array
    """[T, N] bool: of the environment, where memories start anew."""
    weight: jax.Array | None
    """[T, N]: one where the agent acted, zero where it did not; None: all act always."""
    frames: jax.Array | None = None
    """[T, N] that the steps took; None: one each."""


def critic_size(env: Environment, env_params, critic_input: CriticInput) -> int:
    """Inputs of the critic.

    Raises:
        ValueError: a central critic, and the environment has no global state.
    """
    obs_dim = env.observation_space(env_params).shape[-1]
    if critic_input == "obs":
        return obs_dim
    if env.global_state is None:
        raise ValueError(f"critic_input: {env.name} offers no global state; use obs")
    shapes = jax.eval_shape(lambda key: env.reset_env(key, env_params)[1], jax.random.key(0))
    size = jax.eval_shape(env.global_state, shapes, env_params).shape[-1]
    return size + (obs_dim if critic_input == "global_state_and_obs" else 0)


def trajectory_of(
    team: Team, steps: rollout.Steps, obs_stats: RunningStats | None, critic_input: CriticInput
) -> Trajectory:
    """The learner's view of recorded steps whose `extra` is (raw action, outputs).

    Args:
        obs_stats: of the observations, as they were while acting; None: not normalised.
    """
    raw, outputs = steps.extra
    agents = steps.obs.shape[2]
    obs, final_obs = steps.obs, steps.final_obs
    if obs_stats is not None:
        obs, final_obs = standardised(obs_stats, obs), standardised(obs_stats, final_obs)

    def seen_by_critic(obs, facts: rollout.Facts):
        if critic_input == "obs":
            return obs
        state = jnp.broadcast_to(facts.global_state[:, :, None], (*obs.shape[:3], facts.global_state.shape[-1]))
        return state if critic_input == "global_state" else jnp.concatenate([state, obs], axis=-1)

    def per_agent(flags):
        return jnp.broadcast_to(flags[:, :, None], (*flags.shape, agents))

    terminated, truncated = per_agent(steps.terminated), per_agent(steps.truncated)
    weight = steps.facts.alive
    if weight is not None:
        left = weight & ~steps.final_facts.alive
        terminated, truncated = terminated | left, truncated & ~left
        weight = weight.astype(steps.reward.dtype)
    end = per_agent(steps.terminated | steps.truncated)
    return team.grouped(
        Trajectory(
            obs=obs,
            critic_obs=seen_by_critic(obs, steps.facts),
            final_critic_obs=seen_by_critic(final_obs, steps.final_facts),
            raw_action=raw,
            outputs=outputs,
            legal=steps.facts.legal,
            reward=steps.reward,
            terminated=terminated,
            truncated=truncated,
            episode_end=end,
            weight=weight,
            frames=None if steps.frames is None else per_agent(steps.frames),
        )
    )


def values_along(nets: ActorCritic, params, carry, steps: Trajectory):
    """Values before and after every step [T, N], and the critic's memory for the next roll-out."""
    if not nets.recurrent_critic:
        v = nets.value(params, jnp.stack([steps.critic_obs, steps.final_critic_obs]))
        return v[0], v[1], carry
    step = lambda carry, x: nets.value_step(params, carry, x)  # noqa: E731
    return remembered_outputs(step, carry, steps.critic_obs, steps.final_critic_obs, steps.episode_end)


def remembered_outputs(step: Callable, carry, obs, final_obs, episode_end):
    """Outputs of a recurrent network before and after every step, and its memory after the last.

    It sees the final observation with the memory from before the reset.

    Args:
        step: `(carry, x [N, d]) -> (carry, outputs)` of one step, leaves [N, ...].
        obs, final_obs: before and after every step [T, N, d]; `episode_end`: bool [T, N].
    """

    def body(carry, inputs):
        x, x_final, done = inputs
        carry, out = step(carry, x)
        _, out_after = step(carry, x_final)
        return jax.tree.map(lambda c: jnp.where(done[:, None], 0.0, c), carry), (out, out_after)

    carry, (before, after) = jax.lax.scan(body, carry, (obs, final_obs, episode_end))
    return before, after, carry


def scaled_rewards(steps: Trajectory, stats: RunningStats, running_return, gamma):
    """Rewards in units of the running std of the discounted return; the statistics and the running returns [N]."""

    def body(total, inputs):
        r, end, frames = inputs
        total = total * discount_of(gamma, frames) + r
        return jnp.where(end, 0.0, total), total

    inputs = steps.reward, steps.terminated | steps.truncated, steps.frames
    running_return, totals = jax.lax.scan(body, running_return, inputs)
    stats = merge(stats, totals, steps.weight)
    return scaled(stats, steps.reward), stats, running_return
