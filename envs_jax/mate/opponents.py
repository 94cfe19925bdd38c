"""The team that is not trained: a scripted player, a mixture of some, or the policy of a run.

Reading order: `Opponent`, `scripted`, `numbered` (one of several, by a parameter), `guest`, `either`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.errors
import jax
import jax.numpy as jnp

from envs_jax.base import Guest
from envs_jax.mate.config import Control
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.players import CAMERAS, TARGETS, Player, mixture
from envs_jax.mate.state import State
from envs_jax.mate.teams import Setup, Team, action_space, legal, members, motions, observation_size, observed
from envs_jax.spaces import Box, Discrete, mask_shape
from envs_jax.words import uniform_01

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
    player = mixture(weights, players_of(team))
    return acting(player, rules, alone=any((team, name) in ONE_BY_ONE for name in weights))


def numbered(names: Sequence[str], team: Team, rules: Rules) -> Opponent:
    """Scripted players of which the parameters, in place of a policy, say by its number which acts."""
    mixed = mixture(dict.fromkeys(names, 1.0), players_of(team))
    opponent = acting(mixed, rules, alone=any((team, name) in ONE_BY_ONE for name in names))
    if len(names) == 1:
        return opponent

    def start(draws, state: State, params: Params, number):
        return opponent.start(draws, state, params, ())._replace(number=number)

    return opponent._replace(start=start)


def players_of(team: Team) -> Mapping[str, Player]:
    return CAMERAS if team == "cameras" else TARGETS


def acting(player: Player, rules: Rules, alone: bool) -> Opponent:
    """A player as a team.

    Args:
        alone: it acts in one world at a time.
    """
    draw = lambda words: player.draw(words, rules)  # noqa: E731
    start = lambda draws, state, params, policy: player.start(draws, state, params)  # noqa: E731
    act = lambda memory, state, draws, params, policy: player.act(memory, state, draws, params)  # noqa: E731
    if alone:
        draw, start, act = one_by_one(draw), one_by_one(start), one_by_one(act)
    return Opponent(player.num_words(rules), draw, start, act)


class Visit(NamedTuple):
    """Memory of a policy as opponent."""

    carry: Any
    action: jax.Array
    """(N, ..., B), what it holds"""
    age: jax.Array
    """(B,) int32, frames since the start"""


def guest(visitor: Guest, team: Team, control: Control, held: int, setup: Setup, world: Params) -> Opponent:
    """A trained policy, which acts greedily on what its team observes under the forms of the learners' observations.

    Args:
        held: frames for which it holds an action.
        world: parameters, for its action space.

    Raises:
        ValueError: the policy does not take these observations or gives other actions.
    """
    count, space = members(team, setup.rules), action_space((team,), control, setup, world)
    _require_fit(visitor, space, (count, observation_size(team, setup)), control)

    def act_once(policy, carry, obs, allowed, words):
        return visitor.act(policy, carry, obs, allowed, jax.random.wrap_key_data(words), True)

    def start(draws, state: State, params: Params, policy) -> Visit:
        fresh = jax.tree.map(lambda x: jnp.broadcast_to(x[..., None], (*x.shape, *state.steps.shape)),
                             visitor.initial_carry(()))  # fmt: skip
        kind = jnp.int32 if isinstance(space, Discrete) else state.target_loc.dtype
        return Visit(fresh, jnp.zeros((*space.shape, *state.steps.shape), kind), jnp.zeros_like(state.steps))

    def act(memory: Visit, state: State, words, params: Params, policy):
        allowed = legal(state, setup) if control == "macro" else None
        shared = all(leaf.shape[-1] == 1 for leaf in jax.tree.leaves(policy))
        policy = jax.tree.map(lambda leaf: leaf[..., 0], policy) if shared else policy
        axes = None if shared else -1, -1, -1, None if allowed is None else -1, -1
        many = jax.vmap(act_once, in_axes=axes, out_axes=-1)
        action, carry = many(policy, memory.carry, observed(team, state, params, setup), allowed, words)
        now = memory.age % held == 0
        choose = lambda new, old: jnp.where(now, new.astype(old.dtype), old)  # noqa: E731
        action, carry = choose(action, memory.action), jax.tree.map(choose, carry, memory.carry)
        return Visit(carry, action, memory.age + 1), motions(team, control, action, state, params, setup)

    return Opponent(2, lambda words: words, start, act)


class Either(NamedTuple):
    """Memory of a team that is one of two."""

    is_first: jax.Array
    """(B,) bool, in this episode"""
    memories: tuple[Any, Any]


def either(first: Opponent, second: Opponent, share: float) -> Opponent:
    """A team that is the first with probability `share`, drawn in every episode; both act in every frame."""

    def draw(words):
        end = 1 + first.num_words
        return uniform_01(words[0]), first.draw(words[1:end]), second.draw(words[end:])

    def start(draws, state: State, params: Params, policy) -> Either:
        u, *each = draws
        memories = (team.start(own, state, params, policy) for team, own in zip((first, second), each, strict=True))
        return Either(jnp.broadcast_to(u < share, state.steps.shape), tuple(memories))

    def act(memory: Either, state: State, draws, params: Params, policy) -> tuple[Either, jax.Array]:
        acted = [
            team.act(own, state, numbers, params, policy)
            for team, own, numbers in zip((first, second), memory.memories, draws[1:], strict=True)
        ]
        memories, (one, other) = zip(*acted, strict=True)
        return Either(memory.is_first, memories), jnp.where(memory.is_first, one, other)

    return Opponent(1 + first.num_words + second.num_words, draw, start, act)


def _require_fit(visitor: Guest, space: Box | Discrete, observation: tuple[int, int], control: Control) -> None:
    """Raises ValueError where a policy cannot act here."""
    obs = jax.ShapeDtypeStruct(observation, jnp.result_type(float))
    mask = jax.ShapeDtypeStruct(mask_shape(space), bool) if control == "macro" else None
    try:
        action, _ = jax.eval_shape(
            lambda policy, carry, obs, mask, key: visitor.act(policy, carry, obs, mask, key, True),
            visitor.policy, visitor.initial_carry(()), obs, mask, jax.random.key(0),
        )  # fmt: skip
        fits = action.shape == space.shape and jnp.issubdtype(action.dtype, jnp.integer) == isinstance(space, Discrete)
    except (TypeError, ValueError, flax.errors.FlaxError):
        fits = False
    if not fits:
        raise ValueError(
            f"opponent: this policy does not act as {observation[0]} agents with observations of {observation[1]} "
            f"numbers and control {control}; it is of another preset or other settings, or set opponent_control"
        )


def one_by_one(function):
    """A function of one world as one with the batch last."""

    def many(*args):
        size = max(leaf.shape[-1] for leaf in jax.tree.leaves(args))
        full = jax.tree.map(lambda x: jnp.broadcast_to(x, (*x.shape[:-1], size)), args)
        return jax.vmap(function, in_axes=-1, out_axes=-1)(*full)

    return many
