"""The team that is not trained: a scripted player, a mixture of some, or the policy of a run.

Reading order: `Opponent`, `scripted`, `guest`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.base import Guest
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.players import CAMERAS, TARGETS, mixture
from envs_jax.mate.state import State

Team = Literal["cameras", "targets"]
ONE_BY_ONE = {("cameras", "heuristic")}
"""Scripted teams that act in one world at a time."""


class Opponent(NamedTuple):
    """Pure functions, with the batch last."""

    num_words: int
    """Random words of a frame."""
    draw: Callable[[Any], Any]
    """`(words (num_words, B))`: the random numbers of one frame."""
    start: Callable[[Any, State, Params, Any], Any]
    """`(draws, state, params, policy)`: memory at the start of an episode; it takes draws of its own."""
    act: Callable[[Any, State, Any, Params, Any], tuple[Any, jax.Array]]
    """`(memory, state, draws, params, policy)`: the next memory and what the team does, (N, 2, B)."""


def scripted(names: str | Mapping[str, float], team: Team, rules: Rules) -> Opponent:
    """A scripted player, or one drawn by weight at the start of every episode."""
    weights = {names: 1.0} if isinstance(names, str) else names
    player = mixture(weights, CAMERAS if team == "cameras" else TARGETS)
    draw = lambda words: player.draw(words, rules)  # noqa: E731
    start = lambda draws, state, params, policy: player.start(draws, state, params)  # noqa: E731
    act = lambda memory, state, draws, params, policy: player.act(memory, state, draws, params)  # noqa: E731
    if any((team, name) in ONE_BY_ONE for name in weights):
        draw, start, act = one_by_one(draw), one_by_one(start), one_by_one(act)
    return Opponent(player.num_words(rules), draw, start, act)


def guest(visitor: Guest, observe: Callable[[State, Params], Any], mask: Callable[[State], Any], decode) -> Opponent:
    """A trained policy, which acts in every frame as it would in an evaluation.

    Args:
        observe: `(state, params)`: what its agents see, (N, d, B).
        mask: `(state)`: their legal actions (N, n, B), or None.
        decode: `(action (N, ..., B), state, params)`: what it means, (N, 2, B).
    """

    def start(draws, state: State, params: Params, policy):
        memory = visitor.initial_carry(())
        return jax.tree.map(lambda x: jnp.broadcast_to(x[..., None], (*x.shape, *state.steps.shape)), memory)

    def act(memory, state: State, words, params: Params, policy):
        legal = mask(state)

        def one(policy, memory, obs, legal, words):
            return visitor.act(policy, memory, obs, legal, jax.random.wrap_key_data(words), True)

        shared = all(leaf.shape[-1] == 1 for leaf in jax.tree.leaves(policy))
        policy = jax.tree.map(lambda leaf: leaf[..., 0], policy) if shared else policy
        many = jax.vmap(one, in_axes=(None if shared else -1, -1, -1, None if legal is None else -1, -1), out_axes=-1)
        action, memory = many(policy, memory, observe(state, params), legal, words)
        return memory, decode(action, state, params)

    return Opponent(2, lambda words: words, start, act)


def one_by_one(function):
    """A function of one world as one with the batch last."""

    def many(*args):
        size = max(leaf.shape[-1] for leaf in jax.tree.leaves(args))
        full = jax.tree.map(lambda x: jnp.broadcast_to(x, (*x.shape[:-1], size)), args)
        return jax.vmap(function, in_axes=-1, out_axes=-1)(*full)

    return many
