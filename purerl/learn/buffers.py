"""Replay: a time-major ring of sequences. A transition is a sequence of one step, a day one of 24.

Transitions and whole episodes cross no episode boundary and need no padding. Chunks (`purerl.learn.chunks`) have a
length of their own and may cross ends of episodes; the fields below `span` are theirs. Layout [time, item, ...]:
sampling is one gather along the item axis and yields time-major batches without a transpose. Observations may be kept
in half precision, which halves most of the memory; batches have them in full again.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Sequences:
    """Sequences of T steps, N of them (a batch, or the storage of a ring)."""

    obs: jax.Array
    """[T + 1, N, ...]: observations before every step and after the last."""
    action: jax.Array
    """[T, N, ...]"""
    reward: jax.Array
    """[T, N, ...]"""
    terminated: jax.Array
    """[T, N] or [T, N, ...] bool: no value follows. Truncated steps are not marked: their successor has a value."""
    legal: jax.Array | None = None
    """[T + 1, N, ..., n] bool: legal actions at every observation; None: all, or actions are no choices."""
    alive: jax.Array | None = None
    """[T, N, ...] bool: agents in play before every step; None: all."""
    span: jax.Array | None = None
    """[T, N] frames that a stored step covers (its reward is their discounted sum); None: one each."""
    truncated: jax.Array | None = None
    """[T, N] bool: the episode was cut off after the step."""
    reset: jax.Array | None = None
    """[T, N] bool: an episode starts with this step, and memories are emptied before it; None: nowhere inside."""
    weight: jax.Array | None = None
    """[T, N] in losses: zero while memories only warm up (burn-in) and for padding; None: one everywhere."""
    carry: Any = None
    """Leaves [1, N, A, ...]: memory of the actor before the first step, as it was when the steps were recorded."""
    final_obs: jax.Array | None = None
    """[T, N, ...]: observations after the steps, before any reset; `obs` is then [T, N, ...], before them alone."""
    final_legal: jax.Array | None = None
    """[T, N, ..., n] bool: legal actions there; `legal` is then [T, N, ..., n]."""
    global_state: jax.Array | None = None
    """[T, N, s] before the steps."""
    final_global_state: jax.Array | None = None
    """[T, N, s] after the steps, before any reset."""
    team_reward: jax.Array | None = None
    """[T, N]: one number for all agents."""
    signal: Any = None
    """`purerl.learn.signals.Signal`, leaves [T, N]; None: nothing is followed."""


StoredAs = Literal["float32", "float16"]
OBSERVED = "obs", "final_obs", "global_state", "final_global_state"
"""Fields that may be kept in half precision."""


@struct.dataclass
class Ring:
    data: Sequences
    cursor: jax.Array
    """Next item to be overwritten."""
    size: jax.Array
    """Items filled."""


def make_ring(example: Sequences, capacity: int, stored_as: StoredAs = "float32") -> Ring:
    """Empty ring for `capacity` items of the shapes of `example` ([T, N, ...] leaves).

    Args:
        stored_as: how real observations are kept.
    """
    shapes = _halved(example) if stored_as == "float16" else example
    data = jax.tree.map(lambda x: jnp.zeros((x.shape[0], capacity, *x.shape[2:]), x.dtype), shapes)
    return Ring(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def _halved(example: Sequences) -> Sequences:
    """With shapes of half precision in the place of real observations."""
    fields = {name: getattr(example, name) for name in OBSERVED}
    half = {
        name: jax.ShapeDtypeStruct(x.shape, jnp.float16)
        for name, x in fields.items()
        if x is not None and x.dtype == jnp.float32
    }
    return example.replace(**half)  # type: ignore[attr-defined]


def push(ring: Ring, items: Sequences) -> Ring:
    """Overwrite the oldest items. The capacity must be a multiple of the number of items per push."""
    count, capacity = items.reward.shape[1], ring.data.reward.shape[1]
    if capacity % count:
        raise ValueError(f"ring capacity {capacity} is not a multiple of {count} items per push")
    data = jax.tree.map(
        lambda store, new: jax.lax.dynamic_update_slice_in_dim(store, _narrowed(new, store.dtype), ring.cursor, axis=1),
        ring.data,
        items,
    )
    return Ring(data, (ring.cursor + count) % capacity, jnp.minimum(ring.size + count, capacity))


def _narrowed(x: jax.Array, dtype: Any) -> jax.Array:
    """In the type of the store; what is too large for it becomes the largest that it has, and not infinite."""
    if x.dtype == dtype:
        return x
    most = float(jnp.finfo(dtype).max)
    return jnp.clip(x, -most, most).astype(dtype)


def sample_indices(ring: Ring, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform item numbers with replacement (a draw without replacement would sort the whole ring)."""
    return jax.random.randint(key, shape, 0, ring.size)


def take(ring: Ring, indices: jax.Array) -> Sequences:
    """The items `indices` [N] as a batch, in full precision."""

    def one(store):
        taken = jnp.take(store, indices, axis=1, mode="clip")
        return taken.astype(jnp.float32) if taken.dtype == jnp.float16 else taken

    return jax.tree.map(one, ring.data)


def memory_bytes(ring: Ring) -> int:
    leaves: list[Any] = jax.tree.leaves(ring.data)
    return sum(x.size * x.dtype.itemsize for x in leaves)
