"""Action and observation spaces: shape, bounds, sampling and membership, nothing else."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Box(NamedTuple):
    """Real vectors of `shape`; `low` and `high` are scalars or arrays that broadcast to it."""

    low: float | np.ndarray
    high: float | np.ndarray
    shape: tuple[int, ...]

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, self.shape, minval=jnp.asarray(self.low), maxval=jnp.asarray(self.high))

    def contains(self, x) -> jax.Array:
        x = jnp.asarray(x)
        if x.shape != self.shape:
            return jnp.asarray(False)
        return jnp.all((x >= self.low) & (x <= self.high))


class Discrete(NamedTuple):
    """Integers 0 .. n-1."""

    n: int
    shape: tuple[int, ...] = ()

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, self.shape, 0, self.n)

    def contains(self, x) -> jax.Array:
        x = jnp.asarray(x)
        return jnp.all((x >= 0) & (x < self.n))


class Product(NamedTuple):
    """Actions made of several parts, such as a choice and a power: a tuple with one element for each."""

    parts: tuple[Box | Discrete, ...]

    def sample(self, key: jax.Array) -> tuple[jax.Array, ...]:
        keys = tuple(jax.random.split(key, len(self.parts)))
        return tuple(part.sample(key) for part, key in zip(self.parts, keys, strict=True))

    def contains(self, x: Any) -> jax.Array:
        if not isinstance(x, tuple) or len(x) != len(self.parts):
            return jnp.asarray(False)
        return jnp.all(jnp.stack([part.contains(value) for part, value in zip(self.parts, x, strict=True)]))


Space = Box | Discrete | Product
