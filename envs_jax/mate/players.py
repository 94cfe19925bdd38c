"""Scripted players: what they are, the tables of both teams, and players made of others.

Reading order: `Player`, the tables `CAMERAS` and `TARGETS`, `watching` (a selection of targets, held for some frames,
as a player), `mixture`. A player moves all members of its team at once, so that messages reach team-mates within the
frame. It reads of a state only what its members observe, and random numbers are arguments: a recorded game can be
played again. The players are in `camera_players`, `heuristic_cameras` and `target_players`, selections in `baselines`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.mate import camera_players as cameras
from envs_jax.mate import heuristic_cameras as heuristic
from envs_jax.mate import target_players as targets
from envs_jax.mate.baselines import Selection
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.state import State
from envs_jax.words import uniform_01

Memory = Any
Draws = Any


class Player(NamedTuple):
    """Pure functions of one world.

    Those of all but heuristic cameras and `watching` also work with a batch behind.
    """

    num_words: Callable[[Rules], int]
    """How many random words a frame takes."""
    draw: Callable[[jax.Array, Rules], Draws]
    """`(words, rules)`: the random numbers of one frame, from uint32 [num_words]."""
    start: Callable[[Draws, State, Params], Memory]
    """Memory at the start of an episode; it takes draws of its own."""
    act: Callable[[Memory, State, Draws, Params], tuple[Memory, jax.Array]]
    """`(memory, state, draws, params)`: the next memory and the team's actions (N, 2): rotation and zoom in degrees, or
    motion."""


CAMERAS: dict[str, Player] = {
    "random": Player(cameras.num_words_random, cameras.draw_random, cameras.start_random, cameras.act_random),
    "naive": Player(cameras.num_words_naive, cameras.draw_naive, cameras.start_naive, cameras.act_naive),
    "greedy": Player(cameras.num_words_greedy, cameras.draw_greedy, cameras.start_greedy, cameras.act_greedy),
    "heuristic": Player(heuristic.num_words, heuristic.draw, heuristic.start, heuristic.act),
}
TARGETS: dict[str, Player] = {
    "random": Player(targets.num_words_random, targets.draw_random, targets.start_random, targets.act_random),
    "naive": Player(targets.num_words, targets.draw, targets.start_naive, targets.act_naive),
    "greedy": Player(targets.num_words, targets.draw, targets.start_greedy, targets.act_greedy),
    "heuristic": Player(targets.num_words, targets.draw, targets.start_greedy, targets.act_heuristic),
}


class Watching(NamedTuple):
    """Memory of cameras that hold a selection."""

    subset: jax.Array
    """(C, T) bool"""
    age: jax.Array
    """() int32, frames since the start"""
    selected: jax.Array
    """() int32, sum of the selected targets over cameras and frames so far"""
    valid: jax.Array
    """() int32, those of them that were visible after the frame"""


def watching(
    select: Selection, execute: Callable[[jax.Array, State, Params], jax.Array], frame_skip: int = 5
) -> Player:
    """Cameras that select anew every `frame_skip` frames and meanwhile `execute(subset, state, params)`."""

    def draw(words: jax.Array, rules: Rules) -> jax.Array:
        """The key of a selection."""
        return jax.random.wrap_key_data(words, impl="threefry2x32")

    def start(key: jax.Array, state: State, params: Params) -> Watching:
        none = jnp.zeros((), jnp.int32)
        return Watching(jnp.zeros_like(state.sight.c2t), none, none, none)

    def act(memory: Watching, state: State, key: jax.Array, params: Params) -> tuple[Watching, jax.Array]:
        selected = memory.selected + jnp.sum(memory.subset)
        valid = memory.valid + jnp.sum(memory.subset & state.sight.c2t)
        subset = jnp.where(memory.age % frame_skip == 0, select(key, state, params), memory.subset)
        return Watching(subset, memory.age + 1, selected, valid), execute(subset, state, params)

    return Player(lambda rules: 2, draw, start, act)


class Mixed(NamedTuple):
    """Memory of a mixture."""

    number: jax.Array
    """() int32, of the player of this episode."""
    memories: tuple[Memory, ...]


def mixture(weights: Mapping[str, float], players: Mapping[str, Player]) -> Player:
    """A player that is another one in every episode, drawn with these weights by name.

    All of them act in every frame: a compiled program cannot choose which to run.

    Raises:
        ValueError: a weight is negative, or none is positive.
    """
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise ValueError(f"weights of opponents must not be negative, and one must be positive: {dict(weights)}")
    present = {name: weight for name, weight in weights.items() if weight > 0}
    members, shares = [players[name] for name in present], list(present.values())
    if len(members) == 1:
        return members[0]
    bounds = [sum(shares[:number]) / total for number in range(1, len(members))]

    def num_words(rules: Rules) -> int:
        return 1 + sum(player.num_words(rules) for player in members)

    def draw(words: jax.Array, rules: Rules) -> Draws:
        draws, first = [], 1
        for player in members:
            end = first + player.num_words(rules)
            draws.append(player.draw(words[first:end], rules))
            first = end
        return uniform_01(words[0]), tuple(draws)

    def start(draws: Draws, state: State, params: Params) -> Mixed:
        u, each = draws
        memories = tuple(player.start(own, state, params) for player, own in zip(members, each, strict=True))
        return Mixed(sum((u >= bound).astype(jnp.int32) for bound in bounds), memories)

    def act(memory: Mixed, state: State, draws: Draws, params: Params) -> tuple[Mixed, jax.Array]:
        _, each = draws
        moves = [
            player.act(own, state, numbers, params)
            for player, own, numbers in zip(members, memory.memories, each, strict=True)
        ]
        memories, (action, *others) = zip(*moves, strict=True)
        for number, other in enumerate(others, start=1):
            action = jnp.where(memory.number == number, other, action)
        return Mixed(memory.number, memories), action

    return Player(num_words, draw, start, act)
