"""Scripted targets: random, naive, greedy, heuristic.

Reading order: random numbers of a frame, how targets head for a warehouse, then the players: `act_greedy` (the usual
opponent), `act_heuristic` (it also avoids views), `act_naive`, `act_random`.

Source: specification, section 15. Leading axes as in `state`, any batch behind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.mate.cargo import new_load
from envs_jax.mate.draws import halves, periodic, symmetric_pairs
from envs_jax.mate.geometry import bearing_deg, direction, offsets, sight_range, wrap_deg
from envs_jax.mate.nearest import least_first
from envs_jax.mate.params import NUM_WAREHOUSES, WAREHOUSE_RADIUS, WAREHOUSES, Params, Rules
from envs_jax.mate.state import NO_GOAL, State

WANDER = 0.5
"""Of the longest step: the most that the random part of a motion has in each coordinate, and that an escape adds."""
CHANGE, CHANGE_STUCK = 0.05, 0.75
"""Probability that the random part changes in a frame."""
STUCK = 0.2
"""Of the longest step: who moved less in the last frame is stuck."""
ARRIVED = 0.9 * WAREHOUSE_RADIUS
"""From a warehouse's centre: naive targets go on to the next."""
NEAR_VIEW = 1.2
"""Factor on a view's range and angle: targets avoid views that they are about to enter."""


class Draws(NamedTuple):
    """What is random in a frame."""

    change_u: jax.Array
    """(T,) uniform in [0, 1): whether the random part of the motion changes"""
    wander: jax.Array
    """(T, 2) uniform in [-1, 1): the new one, in units of its largest"""
    choice_u: jax.Array
    """(T,) uniform in [0, 1): which warehouse, or which way round"""


def num_words(rules: Rules) -> int:
    return 2 * rules.num_targets


def draw(words: jax.Array, rules: Rules) -> Draws:
    change, choice = halves(words[: rules.num_targets])
    return Draws(change, symmetric_pairs(words[rules.num_targets :]), choice)


class Path(NamedTuple):
    """What a target remembers of its way."""

    loc: jax.Array
    """(T, 2), where it was when it last acted"""
    wander: jax.Array
    """(T, 2), the random part of its motion"""


def _start_path(draws: Draws, state: State) -> Path:
    return Path(state.target_loc, WANDER * state.layout.step_size[:, None] * draws.wander)


def _head_for(goal, path: Path, state: State, draws: Draws) -> tuple[Path, jax.Array]:
    """Straight for the warehouse `goal` (T, ...), nowhere for `NO_GOAL`, plus the random part."""
    longest = state.layout.step_size
    way = _centres(goal) - state.target_loc
    way = jnp.where((goal == NO_GOAL)[:, None], 0.0, way)
    distance = jnp.sqrt(_squared(way))
    way = way * (longest / jnp.maximum(distance, longest))[:, None]
    stuck = _squared(state.target_loc - path.loc) <= (STUCK * longest) ** 2
    changes = draws.change_u < jnp.where(stuck, CHANGE_STUCK, CHANGE)
    wander = jnp.where(changes[:, None], WANDER * longest[:, None] * draws.wander, path.wander)
    limit = longest[:, None]
    return Path(state.target_loc, wander), jnp.clip(way + wander, -limit, limit)


def _centres(goal):
    """(T, 2, ...) of warehouses (T, ...)."""
    corners = [sum(jnp.where(goal == w, WAREHOUSES[w, axis], 0.0) for w in range(NUM_WAREHOUSES)) for axis in range(2)]
    return jnp.stack(corners, axis=1)


def _squared(vector):
    return vector[:, 0] ** 2 + vector[:, 1] ** 2


# Greedy: the load's goal, else any warehouse of which no target knows that it is empty


class Greedy(NamedTuple):
    """Memory of greedy and heuristic targets."""

    goal: jax.Array
    """(T,) int32"""
    empty: jax.Array
    """(4,) bool, warehouses that any member has seen empty; what one sees, all know in the same frame"""
    path: Path


def start_greedy(draws: Draws, state: State, params: Params) -> Greedy:
    return Greedy(state.goal, jnp.zeros_like(state.empty_bits[0]), _start_path(draws, state))


def act_greedy(memory: Greedy, state: State, draws: Draws, params: Params) -> tuple[Greedy, jax.Array]:
    empty = memory.empty | jnp.any(state.empty_bits, axis=0)
    given_up = memory.goal == NO_GOAL
    for w in range(NUM_WAREHOUSES):
        given_up = given_up | ((memory.goal == w) & empty[w])
    # As if a unit for every open warehouse waited: one of them at random, no units if there is none.
    another, found = new_load((~empty)[:, None].astype(jnp.int32), 1, draws.choice_u)
    wanted = jnp.where(given_up, jnp.where(found > 0, another, NO_GOAL), memory.goal)
    goal = jnp.where(state.goal == NO_GOAL, wanted, state.goal)
    path, action = _head_for(goal, memory.path, state, draws)
    return Greedy(goal, empty, path), action


# Heuristic: greedy, and away from the middle of the view that is closest


def act_heuristic(memory: Greedy, state: State, draws: Draws, params: Params) -> tuple[Greedy, jax.Array]:
    memory, action = act_greedy(memory, state, draws, params)
    if state.sight.t2c.shape[1] == 0:
        return memory, action
    half = state.viewing_angle_deg / 2
    reach = sight_range(state.viewing_angle_deg, params.camera_min_viewing_angle_deg, params.camera_max_sight_range)
    ahead = reach / (1.0 + jnp.sin(jnp.radians(jnp.minimum(half, 90.0))))
    unit_x, unit_y = direction(state.orientation_deg)
    x, y = offsets(state.layout.camera_loc, state.target_loc)
    # Signed: whoever is clockwise of the axis counts as near, as in the reference.
    beside = wrap_deg(bearing_deg(x, y) - state.orientation_deg[:, None])
    near = (jnp.sqrt(x * x + y * y) <= NEAR_VIEW * reach[:, None]) & (beside <= NEAR_VIEW * half[:, None])
    away_x, away_y = x - (ahead * unit_x)[:, None], y - (ahead * unit_y)[:, None]
    distance = jnp.sqrt(away_x**2 + away_y**2)
    depth = distance / (reach - ahead)[:, None]
    depth = jnp.where(near & jnp.swapaxes(state.sight.t2c, 0, 1), depth, jnp.inf)
    _, *away = least_first(list(zip(depth, away_x, away_y, strict=True)))
    drift = jnp.stack(away, axis=1)
    longest = WANDER * state.layout.step_size
    drift = drift * (longest / jnp.maximum(jnp.sqrt(_squared(drift)), longest))[:, None]
    along = action[:, 0] * drift[:, 0] + action[:, 1] * drift[:, 1]
    escapes = jnp.any(jnp.isfinite(depth), axis=0) & (along >= 0.0)
    limit = state.layout.step_size[:, None]
    return memory, jnp.where(escapes[:, None], jnp.clip(action + drift, -limit, limit), action)


# Naive: one warehouse after the other


class Naive(NamedTuple):
    goal: jax.Array
    """(T,) int32"""
    turn: jax.Array
    """(T,) int32, 1 or -1: which way round"""
    path: Path


def start_naive(draws: Draws, state: State, params: Params) -> Naive:
    number = jnp.floor(draws.choice_u * (2 * NUM_WAREHOUSES)).astype(jnp.int32)
    return Naive(number // 2, 2 * (number % 2) - 1, _start_path(draws, state))


def act_naive(memory: Naive, state: State, draws: Draws, params: Params) -> tuple[Naive, jax.Array]:
    there = _squared(_centres(memory.goal) - state.target_loc) <= ARRIVED**2
    any_will_do = (state.goal != NO_GOAL) | jnp.all(state.empty_bits, axis=1)
    goal = memory.goal
    # The first open one on the way round; the last candidate is where it stands.
    for further in range(NUM_WAREHOUSES, 0, -1):
        candidate = (memory.goal + further * memory.turn) % NUM_WAREHOUSES
        empty = jnp.take_along_axis(state.empty_bits, candidate[:, None], axis=1)[:, 0]
        goal = jnp.where(there & (any_will_do | ~empty), candidate, goal)
    path, action = _head_for(goal, memory.path, state, draws)
    return Naive(goal, memory.turn, path), action


# Random


class RandomDraws(NamedTuple):
    motion: jax.Array
    """(T, 2) uniform in [-1, 1), in units of the longest step"""


def num_words_random(rules: Rules) -> int:
    return rules.num_targets


def draw_random(words: jax.Array, rules: Rules) -> RandomDraws:
    return RandomDraws(symmetric_pairs(words))


start_random, act_random = periodic(lambda draws, state, params: draws.motion * state.layout.step_size[:, None])
