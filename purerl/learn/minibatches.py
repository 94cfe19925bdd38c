"""Shuffled minibatches of roll-outs, feed-forward rows or whole sequences, and means over who acts."""

from typing import Any

import jax
import jax.numpy as jnp

from purerl.learn.trajectory import Trajectory
from purerl.nets.actor_critic import Memory


def memory_of(steps: Trajectory, actor_carry, critic_carry, recurrent: bool) -> Memory:
    """Memories before the first step [N, ...]."""
    end = steps.episode_end
    reset = jnp.concatenate([jnp.zeros_like(end[:1]), end[:-1]]) if recurrent else None
    return Memory(actor_carry, critic_carry, reset)


SHUFFLED_BY_ONE_SORT = 2**14
"""Rows up to which the random part of the sorted numbers, 18 bits, makes ties rare."""


def shuffled(key: jax.Array, size: int) -> jax.Array:
    """The numbers 0 .. size - 1 in random order.

    Random bits with the number of the row in the lowest ones are sorted: plain numbers sort four times as fast on a CPU
    as the pairs that `jax.random.permutation` sorts, which took a tenth of a small update. Equal random bits keep their
    order.
    """
    if size > SHUFFLED_BY_ONE_SORT:
        return jax.random.permutation(key, size)
    low = jnp.uint32(2 ** (size - 1).bit_length() - 1)
    bits = jax.random.bits(key, (size,), jnp.uint32)
    return (jnp.sort((bits & ~low) | jnp.arange(size, dtype=jnp.uint32)) & low).astype(jnp.int32)


def minibatches(key, data: Any, memory: Memory, epochs: int, count: int):
    """Shuffled `(data, memory)` of every gradient step, leaves [epochs * count, ...].

    Feed-forward minibatches are made of rows (leaves of `data` [N, ...]), recurrent ones of whole sequences (leaves
    [T, N, ...]). Everything is gathered at once: many small gathers would cost more than the copies.
    """
    axis = 0 if memory.reset is None else 1
    order = orders(key, jax.tree.leaves(data)[0].shape[axis], epochs)
    number = epochs * count
    actor, critic = dealt((memory.actor, memory.critic), order, number, axis=0)
    reset = dealt(memory.reset, order, number, axis=1)
    return dealt(data, order, number, axis), Memory(actor, critic, reset)


def require_even(num_envs: int, env_steps: int, minibatches: int, recurrent: bool) -> None:
    """Raise ValueError unless minibatches are of one size: of steps, or with memory of whole environments."""
    unit, what = (num_envs, "num_envs") if recurrent else (env_steps, "num_envs * steps_per_update")
    if unit % minibatches:
        raise ValueError(f"minibatches {minibatches} must divide {what} = {unit}")


def orders(key: jax.Array, size: int, epochs: int) -> jax.Array:
    """The numbers 0 .. size - 1 in a new order for every epoch, one after the other [epochs * size]."""
    return jax.vmap(lambda k: shuffled(k, size))(jax.random.split(key, epochs)).reshape(-1)


def dealt(tree: Any, order: jax.Array, number: int, axis: int) -> Any:
    """Leaves [..., N, ...] with their `axis` in this order, as `number` equal parts: [number, ..., n, ...]."""

    def one(x):
        x = jnp.take(x, order, axis=axis, mode="clip")
        x = x.reshape(*x.shape[:axis], number, -1, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    return jax.tree.map(one, tree)


def weighted_mean(x: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Mean of `x`; weights have a mean of one (`relative_weight`), so that shares of a batch add up."""
    return jnp.mean(x if weight is None else weight * x)


def relative_weight(weight: jax.Array | None) -> jax.Array | None:
    """Weights with a mean of one over the whole minibatch; all zero where nobody acts."""
    return None if weight is None else weight / jnp.maximum(jnp.mean(weight), 1e-8)
