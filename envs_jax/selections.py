"""Subsets of entities as actions, in each of the ways that `envs_jax.base.Selection` knows."""

from typing import Literal

import jax.numpy as jnp

Encoding = Literal["subset", "single", "factored"]


def to_subset(encoding: Encoding, action, number: int):
    """Actions, int [...] or of `factored` [..., T], to subsets of `number` entities, bool [..., T]."""
    match encoding:
        case "subset":
            return (action[..., None] >> _shifts(number)) & 1 == 1
        case "single":
            return action[..., None] == jnp.arange(number)
        case "factored":
            return action == 1


def from_subset(encoding: Encoding, subset):
    """The action of a subset, bool [..., T], int32; `single` takes the first of several."""
    number = subset.shape[-1]
    match encoding:
        case "subset":
            return jnp.sum(subset.astype(jnp.int32) << _shifts(number), axis=-1)
        case "single":
            return jnp.where(subset.any(axis=-1), jnp.argmax(subset, axis=-1), number).astype(jnp.int32)
        case "factored":
            return subset.astype(jnp.int32)


def _shifts(number: int):
    return jnp.arange(number - 1, -1, -1)
