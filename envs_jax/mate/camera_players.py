"""Scripted cameras that decide for themselves: random, naive, greedy.

Reading order: actions without a target (`Idle`), random, naive, then greedy: `exchange` (what cameras remember and tell
each other) and `nearest_remembered` (what they do with it).

Source: specification, section 15. Leading axes as in `state`, any batch behind.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.mate.aim import aim
from envs_jax.mate.draws import periodic, symmetric_pairs
from envs_jax.mate.geometry import identity, offsets
from envs_jax.mate.nearest import least_first
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.state import NO_GOAL, State
from envs_jax.words import uniform_01

CHANGE = 0.1
"""Probability that a camera without a target redraws its action in a frame."""
SWEEP = 0.4
"""Of the largest step: how fast naive cameras turn and widen at most."""
MEMORY_FRAMES = 25
"""A sighting is remembered for so long."""
REACH = 1.1
"""Factor on the largest sight range: targets within it concern a camera."""
DELAY_FRAMES = MEMORY_FRAMES // 4, 2 * MEMORY_FRAMES
"""A camera waits between two messages to the same one: at least the first and less than the second."""


def limits(params: Params):
    """(2, ...), the largest rotation and zoom of one frame."""
    return jnp.stack([params.camera_rotation_step_deg, params.camera_zooming_step_deg])


class RandomDraws(NamedTuple):
    action: jax.Array
    """(C, 2) uniform in [-1, 1), in units of the largest step"""


def num_words_random(rules: Rules) -> int:
    return rules.num_cameras


def draw_random(words: jax.Array, rules: Rules) -> RandomDraws:
    return RandomDraws(symmetric_pairs(words))


start_random, act_random = periodic(lambda draws, state, params: draws.action * limits(params)[None])


# Naive: ever wider, anticlockwise


class NaiveDraws(NamedTuple):
    speed: jax.Array
    """(C,) uniform in [0, 1), in units of the largest speed"""


def num_words_naive(rules: Rules) -> int:
    return rules.num_cameras


def draw_naive(words: jax.Array, rules: Rules) -> NaiveDraws:
    return NaiveDraws(uniform_01(words))


def start_naive(draws: NaiveDraws, state: State, params: Params) -> tuple[()]:
    return ()


def act_naive(memory: tuple[()], state: State, draws: NaiveDraws, params: Params) -> tuple[tuple[()], jax.Array]:
    return memory, SWEEP * draws.speed[:, None] * limits(params)[None]


# Greedy: the nearest target that it remembers


class Idle(NamedTuple):
    """What cameras do that know of no target: as before, or now and then something new."""

    change_u: jax.Array
    """(C,) uniform in [0, 1)"""
    action: jax.Array
    """(C, 2) uniform in [-1, 1), in units of the largest step"""


def num_words_idle(rules: Rules) -> int:
    return 2 * rules.num_cameras


def draw_idle(words: jax.Array, rules: Rules) -> Idle:
    return Idle(uniform_01(words[: rules.num_cameras]), symmetric_pairs(words[rules.num_cameras :]))


def idle_action(previous, draws: Idle, params: Params):
    """(C, 2, ...)"""
    return jnp.where((draws.change_u < CHANGE)[:, None], draws.action * limits(params)[None], previous)


class GreedyDraws(NamedTuple):
    idle: Idle
    delay: jax.Array
    """(C, C) int32, uniform: frames until the next message from [sender] to [recipient] if one is sent now"""


def num_words_greedy(rules: Rules) -> int:
    return num_words_idle(rules) + rules.num_cameras**2


def draw_greedy(words: jax.Array, rules: Rules) -> GreedyDraws:
    first, count, (least, end) = num_words_idle(rules), rules.num_cameras, DELAY_FRAMES
    delay_u = uniform_01(words[first:]).reshape(count, count, *words.shape[1:])
    return GreedyDraws(draw_idle(words[:first], rules), (least + delay_u * (end - least)).astype(jnp.int32))


class Greedy(NamedTuple):
    """Memory of greedy cameras."""

    loc: jax.Array
    """(C, T, 2), where each camera knows that a target was"""
    frames_left: jax.Array
    """(C, T) int32, for how long it is remembered"""
    delay: jax.Array
    """(C, C) int32, frames until a camera may tell another what it sees"""
    introduced: jax.Array
    """() bool, the cameras have told each other where they stand"""
    action: jax.Array
    """(C, 2), the previous one"""
    loaded: jax.Array
    """(C, T) bool, the target carried something when it was seen"""
    ever_loaded: jax.Array
    """(C, T) bool, in any sighting so far"""


def start_greedy(draws: GreedyDraws, state: State, params: Params) -> Greedy:
    seen = state.sight.c2t
    nowhere = jnp.zeros((*seen.shape[:2], 2, *seen.shape[2:]), state.target_loc.dtype)
    return Greedy(
        loc=nowhere,
        frames_left=jnp.zeros(seen.shape, jnp.int32),
        delay=jnp.zeros(state.sight.c2c.shape, jnp.int32),
        introduced=jnp.zeros(state.steps.shape, bool),
        action=jnp.zeros_like(state.layout.camera_loc),
        loaded=jnp.zeros_like(seen),
        ever_loaded=jnp.zeros_like(seen),
    )


def act_greedy(memory: Greedy, state: State, draws: GreedyDraws, params: Params) -> tuple[Greedy, jax.Array]:
    memory = exchange(memory, state, draws.delay, params)
    aimed, has_target = nearest_remembered(memory, state, params)
    action = jnp.where(has_target[:, None], aimed, idle_action(memory.action, draws.idle, params))
    return memory._replace(action=action), action


def exchange(memory: Greedy, state: State, new_delay, params: Params) -> Greedy:
    """Sightings of this frame, own ones and those that team-mates send.

    In the first frame everybody only says where it stands. Later a camera that owes a team-mate no delay tells it which
    targets it sees within that one's reach; with none, it says nothing and keeps its turn.
    """
    seen = state.sight.c2t
    x, y = offsets(state.layout.camera_loc, state.target_loc)
    concerns = x * x + y * y < (REACH * params.camera_max_sight_range) ** 2
    # [sender, recipient, target]
    to_tell = seen[:, None] & concerns[None]
    delay = jnp.maximum(memory.delay - 1, 0)
    may = (delay == 0) & ~identity(delay.shape[0], delay.ndim - 2)
    speaks = may & (jnp.any(to_tell, axis=2) | ~memory.introduced)
    heard = jnp.any((speaks & memory.introduced)[:, :, None] & to_tell, axis=0)
    known = seen | heard
    carries = jnp.broadcast_to((state.goal != NO_GOAL)[None], known.shape)
    return memory._replace(
        loc=jnp.where(known[:, :, None], state.target_loc[None], memory.loc),
        frames_left=jnp.where(known, MEMORY_FRAMES, jnp.maximum(memory.frames_left - 1, 0)),
        delay=jnp.where(speaks, new_delay, delay),
        introduced=jnp.ones_like(memory.introduced),
        loaded=jnp.where(known, carries, memory.loaded),
        ever_loaded=memory.ever_loaded | (known & carries),
    )


def nearest_remembered(memory: Greedy, state: State, params: Params, ignore_unloaded: bool = False):
    """Actions (C, 2, ...) that aim at the nearest remembered target within reach, and who has one, bool (C, ...).

    Args:
        ignore_unloaded: no target counts that carried something before and does not now.
    """
    x = memory.loc[:, :, 0] - state.layout.camera_loc[:, None, 0]
    y = memory.loc[:, :, 1] - state.layout.camera_loc[:, None, 1]
    squared = x * x + y * y
    counts = (memory.frames_left > 0) & (squared < (REACH * params.camera_max_sight_range) ** 2)
    if ignore_unloaded:
        counts = counts & (memory.loaded | ~memory.ever_loaded)
    rows = zip(*(jnp.moveaxis(values, 1, 0) for values in (jnp.where(counts, squared, jnp.inf), x, y)), strict=True)
    _, x, y = least_first(list(rows))
    return aim(x, y, state.orientation_deg, state.viewing_angle_deg, params), jnp.any(counts, axis=1)
