"""Chunks: sequences of a fixed length that may cross ends of episodes, for recurrent values of several agents.

A chunk has `burn_in + length` steps. The first `burn_in` only warm up the memories, from the one that the actor had
when it recorded the chunk (Kapturowski et al. 2019), and have no weight in losses; consecutive chunks overlap by them,
so that every step counts once. What follows a step is its true successor, also where an episode ends:
`trajectory.remembered_outputs` values it with the memory from before the reset. The agent axis stays: a mixer has to
see all agents of a step before anything is folded.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from purerl.learn.buffers import Sequences
from purerl.learn.replay import own_ends
from purerl.learn.rollout import Steps

TeamReward = Literal["sum", "mean"]
"""Of the agents' rewards; environments that pay a team give every agent the whole, and want the mean."""


def chunks_of(steps: Steps, carry: Any, length: int, burn_in: int, team_reward: TeamReward = "sum") -> Sequences:
    """Consecutive steps of B environments as m chunks each.

    Args:
        steps: [burn_in + m * length, B, A, ...]; the first `burn_in` are the last of the call before.
        carry: the actor's memory before every step, leaves [burn_in + m * length, B, A, ...].

    Returns:
        Items [burn_in + length, m * B, A, ...], the chunks of one time beside each other.

    Raises:
        ValueError: the steps do not divide into chunks.
    """
    count, rest = divmod(steps.reward.shape[0] - burn_in, length)
    if rest or count < 1:
        raise ValueError(f"{steps.reward.shape[0]} steps less {burn_in} of burn-in make no chunks of {length} steps")
    starts = [number * length for number in range(count)]
    done = steps.terminated | steps.truncated
    reward = steps.reward.sum(axis=-1) if team_reward == "sum" else steps.reward.mean(axis=-1)
    flat = Sequences(
        obs=steps.obs,
        action=steps.action,
        reward=steps.reward,
        terminated=own_ends(steps)[0],
        legal=steps.facts.legal,
        alive=steps.facts.alive,
        span=steps.frames,
        truncated=steps.truncated,
        reset=jnp.concatenate([jnp.zeros_like(done[:1]), done[:-1]]),  # a memory that starts an episode is empty anyway
        final_obs=steps.final_obs,
        final_legal=steps.final_facts.legal,
        global_state=steps.facts.global_state,
        final_global_state=steps.final_facts.global_state,
        team_reward=reward,
        signal=steps.signal,
    )
    cut = [jax.tree.map(lambda x, at=at: x[at : at + burn_in + length], flat) for at in starts]
    items = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *cut)
    counts = jnp.where(jnp.arange(burn_in + length) < burn_in, 0.0, 1.0)
    memories = [jax.tree.map(lambda x, at=at: x[at : at + 1], carry) for at in starts]
    return items.replace(
        weight=jnp.broadcast_to(counts[:, None], items.team_reward.shape),
        carry=jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *memories),
    )
