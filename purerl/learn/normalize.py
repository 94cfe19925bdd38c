"""Running mean and variance of vectors, merged batch by batch (Chan, Golub, LeVeque 1983), and their use.

The statistics are part of an algorithm's state: they are saved with the policy and frozen at evaluation.
"""

import jax
import jax.numpy as jnp
from flax import struct

SMALLEST_STD = 1e-4
"""Components that never change are divided by this."""


@struct.dataclass
class RunningStats:
    mean: jax.Array
    variance: jax.Array
    count: jax.Array
    """Vectors seen, as float32: exact up to 1.6e7, and the weight of a new batch is right far beyond."""


def empty_stats(shape: tuple[int, ...]) -> RunningStats:
    return RunningStats(jnp.zeros(shape), jnp.ones(shape), jnp.zeros(()))


def merge(stats: RunningStats, batch: jax.Array, weight: jax.Array | None = None) -> RunningStats:
    """Statistics of everything seen so far and of `batch` [..., *shape].

    Args:
        weight: [...] ones and zeros; zero leaves a vector out. None takes all.
    """
    flat = batch.reshape(-1, *stats.mean.shape)
    w = jnp.ones(flat.shape[0]) if weight is None else weight.reshape(-1).astype(flat.dtype)
    count = jnp.sum(w)
    w = w.reshape(-1, *[1] * stats.mean.ndim)
    mean = jnp.sum(w * flat, axis=0) / jnp.maximum(count, 1.0)
    variance = jnp.sum(w * (flat - mean) ** 2, axis=0) / jnp.maximum(count, 1.0)
    total = jnp.maximum(stats.count + count, 1.0)
    share = count / total
    shift = mean - stats.mean
    # With an empty past the share is one and the initial variance drops out.
    merged = (1 - share) * stats.variance + share * variance + share * (1 - share) * shift**2
    keep = count == 0
    return RunningStats(
        jnp.where(keep, stats.mean, stats.mean + share * shift),
        jnp.where(keep, stats.variance, merged),
        stats.count + count,
    )


def standardised(stats: RunningStats, x: jax.Array, limit: float = 10.0) -> jax.Array:
    """(x - mean) / std, clipped to +- `limit`."""
    std = jnp.maximum(jnp.sqrt(stats.variance), SMALLEST_STD)
    return jnp.clip((x - stats.mean) / std, -limit, limit)


def scaled(stats: RunningStats, x: jax.Array, limit: float = 10.0) -> jax.Array:
    """x / std, clipped to +- `limit`: for rewards, whose sign has to stay."""
    return jnp.clip(x / jnp.maximum(jnp.sqrt(stats.variance), SMALLEST_STD), -limit, limit)
