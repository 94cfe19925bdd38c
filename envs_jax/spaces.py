"""Action and observation spaces: shape, bounds, sampling and membership, nothing else.

An action space is a `Box`, a `Discrete` or a `Product` of them; an observation space a `Box`, a `Discrete`, or a dict
of such spaces, one inside the other as deep as you like.
"""

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
        """Uniform; where a bound is missing within one of the other, and where both are, from -1 to 1."""
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        lowest = jnp.where(jnp.isfinite(low), low, jnp.where(jnp.isfinite(high), high - 1, -1))
        highest = jnp.where(jnp.isfinite(high), high, jnp.where(jnp.isfinite(low), low + 1, 1))
        return jax.random.uniform(key, self.shape, minval=lowest, maxval=highest)

    def contains(self, x) -> jax.Array:
        x = jnp.asarray(x)
        if x.shape != self.shape:
            return jnp.asarray(False)
        return jnp.all((x >= self.low) & (x <= self.high))


class Discrete(NamedTuple):
    """Integers 0 .. n-1; with a shape, as many choices at once, each of n."""

    n: int
    shape: tuple[int, ...] = ()

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, self.shape, 0, self.n)

    def contains(self, x) -> jax.Array:
        x = jnp.asarray(x)
        if x.shape != self.shape:
            return jnp.asarray(False)
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


def mask_shape(part: Box | Discrete) -> tuple[int, ...]:
    """Of the legal choices, or of the components in use."""
    return (*part.shape, part.n) if isinstance(part, Discrete) else part.shape


def components(space: Any) -> list[tuple[str, Box | Discrete]]:
    """Name and space of every component of an observation, in the order of `jax.tree.leaves`: a dict's by its keys.

    Raises:
        ValueError: a kind of space that observations cannot have.
    """
    found = jax.tree.leaves_with_path(space, is_leaf=_is_space)
    for path, part in found:
        if not isinstance(part, Box | Discrete):
            raise ValueError(
                f"observation_space: observation{jax.tree_util.keystr(path)} has {type(part).__module__}."
                f"{type(part).__name__}; use Box or Discrete of envs_jax.spaces, or a dict of them"
            )
    return [(f"observation{jax.tree_util.keystr(path)}", part) for path, part in found]


def matched(space: Any, observation: Any) -> list[tuple[str, Box | Discrete, Any]]:
    """Name, space and value of every component of an observation.

    Raises:
        ValueError: the observation has other entries or shapes than its space.
    """
    parts = components(space)
    structure: Any = jax.tree.structure(observation)
    wanted: Any = jax.tree.structure(space, is_leaf=_is_space)
    if structure != wanted:
        raise ValueError(f"the observation is {structure}, its space {wanted}")
    found = [(name, part, value) for (name, part), value in zip(parts, jax.tree.leaves(observation), strict=True)]
    for name, part, value in found:
        if jnp.shape(value) != part.shape:
            raise ValueError(f"{name} shape {jnp.shape(value)} is not the space's {part.shape}")
    return found


def _is_space(part: Any) -> bool:
    return isinstance(part, Box | Discrete | Product)
