"""Random numbers of players from random words, and actions that are kept for a while.

Words are uint32 [n], any batch behind; `envs_jax.words` and `jax.random.bits` make them. Where 16 bits are enough, a
word gives two numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.mate.params import Params
from envs_jax.mate.state import State

PERIOD = 20
"""Frames for which random players keep an action."""


def halves(words):
    """Two arrays of uniform numbers in [0, 1), of the shape of the words; 16 bits each."""
    real = jnp.result_type(float)
    return (words >> 16).astype(real) * 2.0**-16, (words & 0xFFFF).astype(real) * 2.0**-16


def symmetric_pairs(words):
    """Words (N, ...) as uniform numbers in [-1, 1), (N, 2, ...)."""
    return 2.0 * jnp.stack(halves(words), axis=1) - 1.0


class Kept(NamedTuple):
    """Memory of a random player."""

    action: jax.Array
    """(N, 2)"""
    age: jax.Array
    """() int32, frames since the start"""


def periodic(drawn: Callable[[Any, State, Params], jax.Array]) -> tuple[Any, Any]:
    """`(start, act)` of a player whose actions are `drawn(draws, state, params)` and redrawn every `PERIOD` frames."""

    def start(draws: Any, state: State, params: Params) -> Kept:
        return Kept(drawn(draws, state, params), jnp.zeros_like(state.steps))

    def act(memory: Kept, state: State, draws: Any, params: Params) -> tuple[Kept, jax.Array]:
        action = jnp.where(memory.age % PERIOD == 0, drawn(draws, state, params), memory.action)
        return Kept(action, memory.age + 1), action

    return start, act
