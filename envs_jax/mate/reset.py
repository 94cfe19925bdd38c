"""How an episode starts: who stands where, what waits in the warehouses, who carries what.

Reading order: `start` (one world) and its parts `place`, `draw_cargo`, `first_loads`; `Pool`, which makes starts cheap
where every step of a batch contains a reset.

Source: specification, section 10.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.mate import sightings
from envs_jax.mate.cargo import new_load, trade
from envs_jax.mate.geometry import sight_range, wrap_deg
from envs_jax.mate.layout import layout_of
from envs_jax.mate.params import (
    CAMERA_GAP,
    MAX_REDRAWS,
    MAX_VIEWING_ANGLE_DEG,
    NUM_WAREHOUSES,
    TERRAIN,
    WAREHOUSE_DISC,
    WAREHOUSES,
    Params,
    Rules,
)
from envs_jax.mate.perception import perceive
from envs_jax.mate.state import NO_GOAL, State

AT_ONCE = 16
"""Placements of an entity that are tried side by side. In the presets with up to nine obstacles the first of them that
is free came within four; Navigation needs further rounds."""
MARGIN = 1.2
"""Factor on a radius: so far from the edge of the terrain a centre stays."""
CAMERAS_APART = 0.1
"""Of the smaller sight range of two cameras: they are not closer than that."""
TOUCH = 1e-6
"""Relative tolerance of the test whether two discs overlap."""


def start(key: jax.Array, params: Params, rules: Rules) -> State:
    """A new episode of one world."""
    key_capacity, key_place, key_cargo, key_transmit, key_goal, key_load = jax.random.split(key, 6)
    high = jnp.arange(rules.num_targets) < rules.num_high_capacity
    if rules.shuffle_entities:
        high = jax.random.permutation(key_capacity, high)
    capacity = 1 + high.astype(jnp.int32)
    placed = place(key_place, params, rules)
    layout = layout_of(placed.camera_loc, placed.obstacle_loc, placed.obstacle_radius, capacity, params, rules)
    transmit = jax.random.bernoulli(key_transmit, params.transmittance, (rules.num_cameras, rules.num_targets))
    sight = perceive(layout, placed.orientation_deg, placed.viewing_angle_deg, placed.target_loc, transmit, params)
    remaining = draw_cargo(key_cargo, rules)
    nothing, none = jnp.zeros((), jnp.int32), jnp.zeros(rules.num_targets, jnp.int32)
    state = State(
        layout=layout,
        orientation_deg=placed.orientation_deg,
        viewing_angle_deg=placed.viewing_angle_deg,
        target_loc=placed.target_loc,
        goal=none + NO_GOAL,
        load=none,
        empty_bits=jnp.zeros((rules.num_targets, NUM_WAREHOUSES), bool),
        freight=none,
        bounty=none,
        remaining=remaining,
        awaiting=jnp.sum(remaining, axis=0),
        delivered=nothing,
        team_return=nothing,
        delayed_return=nothing,
        steps=nothing,
        sight=sight,
        sighting=sightings.first(placed.target_loc, none > 0, jnp.any(sight.c2t, axis=0)),
        colliding=none > 0,
        delivered_now=none > 0,
        steps_since_load=none,
        tracked_since_load=none,
    )
    state, _ = trade(state, jax.random.uniform(key_goal, (rules.num_targets,)), params)
    state = first_loads(key_load, state, params) if rules.start_loaded else state
    return state._replace(sighting=state.sighting._replace(loaded=state.goal != NO_GOAL))


class Placement(NamedTuple):
    camera_loc: jax.Array
    """(C, 2)"""
    orientation_deg: jax.Array
    """(C,), a multiple of the rotation step"""
    viewing_angle_deg: jax.Array
    """(C,)"""
    obstacle_loc: jax.Array
    """(O, 2)"""
    obstacle_radius: jax.Array
    """(O,), 0: no place was found"""
    target_loc: jax.Array
    """(T, 2)"""


class _Discs(NamedTuple):
    """What stands on the terrain, or candidates for it; [N] each."""

    loc: jax.Array
    """[N, 2]"""
    radius: jax.Array
    sight: jax.Array
    """Sight range of a camera, 0 of others."""
    orientation_deg: jax.Array
    viewing_angle_deg: jax.Array


def place(key: jax.Array, params: Params, rules: Rules) -> Placement:
    """Cameras, obstacles and targets, one after the other, each where it overlaps nothing placed before.

    An entity is redrawn up to `MAX_REDRAWS` times, in rounds of `AT_ONCE`. One that finds no place keeps the last one
    tried, an obstacle with radius 0.
    """
    key_boxes, key_draws = jax.random.split(key)
    c, o, t = rules.num_cameras, rules.num_obstacles, rules.num_targets
    boxes = [params.camera_boxes, params.obstacle_boxes, params.target_boxes]
    if rules.shuffle_entities:
        boxes = [
            jax.random.permutation(k, of_team) for k, of_team in zip(jax.random.split(key_boxes, 3), boxes, strict=True)
        ]
    total = c + o + t
    number = np.arange(total)
    is_camera, is_obstacle = number < c, (number >= c) & (number < c + o)

    def add(stand: _Discs, entity):
        own_key, box, number, is_camera, is_obstacle = entity
        key = jax.random.wrap_key_data(own_key, impl=kind)
        used = jnp.arange(NUM_WAREHOUSES + total) < NUM_WAREHOUSES + number
        gap = jnp.where(is_camera | is_obstacle, CAMERA_GAP, 0.0)
        disc, found = _first_free(
            key, lambda key: _candidates(key, box, is_camera, is_obstacle, params), stand, used, gap
        )
        disc = disc._replace(radius=jnp.where(is_obstacle & ~found, 0.0, disc.radius))
        return jax.tree.map(lambda all_, one: all_.at[NUM_WAREHOUSES + number].set(one), stand, disc), None

    # Keys as plain numbers: `vmap` moves their axis, which JAX's check of key reuse takes for a use.
    kind, keys = jax.random.key_impl(key_draws), jax.random.key_data(jax.random.split(key_draws, total))
    entities = keys, jnp.concatenate(boxes), jnp.asarray(number), is_camera, is_obstacle
    stand, _ = jax.lax.scan(add, _warehouse_discs(total), entities)
    cameras, obstacles, targets = (
        jax.tree.map(lambda x: x[NUM_WAREHOUSES + first : NUM_WAREHOUSES + end], stand)  # noqa: B023
        for first, end in ((0, c), (c, c + o), (c + o, total))
    )
    return Placement(
        camera_loc=cameras.loc,
        orientation_deg=cameras.orientation_deg,
        viewing_angle_deg=cameras.viewing_angle_deg,
        obstacle_loc=obstacles.loc,
        obstacle_radius=obstacles.radius,
        target_loc=targets.loc,
    )


def _warehouse_discs(total: int) -> _Discs:
    """The phantom discs of the warehouses, and room for `total` more."""
    none = jnp.zeros(NUM_WAREHOUSES + total)
    radius = none.at[:NUM_WAREHOUSES].set(WAREHOUSE_DISC)
    loc = jnp.zeros((NUM_WAREHOUSES + total, 2)).at[:NUM_WAREHOUSES].set(jnp.asarray(WAREHOUSES, none.dtype))
    return _Discs(loc, radius, none, none, none)


def _candidates(key: jax.Array, box, is_camera, is_obstacle, params: Params) -> _Discs:
    """`AT_ONCE` placements of one entity in its box (4,)."""
    x, y, size, turn, zoom = jax.random.uniform(key, (5, AT_ONCE))
    span = params.obstacle_radius_high - params.obstacle_radius_low
    radius = jnp.where(
        is_obstacle, params.obstacle_radius_low + size * span, jnp.where(is_camera, params.camera_radius, 0.0)
    )
    inside = (TERRAIN - MARGIN * radius)[:, None]
    loc = jnp.stack([box[0] + x * (box[1] - box[0]), box[2] + y * (box[3] - box[2])], axis=1)
    step, narrowest = params.camera_rotation_step_deg, params.camera_min_viewing_angle_deg
    viewing = narrowest + zoom * (MAX_VIEWING_ANGLE_DEG - narrowest)
    return _Discs(
        loc=jnp.clip(loc, -inside, inside),
        radius=radius,
        sight=jnp.where(is_camera, sight_range(viewing, narrowest, params.camera_max_sight_range), 0.0),
        orientation_deg=wrap_deg(step * jnp.floor(turn * jnp.floor(360.0 / step))),
        viewing_angle_deg=viewing,
    )


def _first_free(key: jax.Array, candidates, stand: _Discs, used, gap) -> tuple[_Discs, jax.Array]:
    """The first of the candidates that overlaps nothing of what is `used` in `stand`, else the last one, and which."""

    def tries(carried):
        tried, found, _ = carried
        return ~found & (tried < MAX_REDRAWS)

    def further(carried):
        tried, _, _ = carried
        drawn = candidates(jax.random.fold_in(key, tried))
        counts = tried + jnp.arange(AT_ONCE) < MAX_REDRAWS
        free = ~jnp.any(_overlap(drawn, stand, gap) & used, axis=1) & counts
        found = jnp.any(free)
        chosen = jnp.where(found, jnp.argmax(free), jnp.sum(counts) - 1)
        return tried + AT_ONCE, found, jax.tree.map(lambda x: x[chosen], drawn)

    nowhere = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), stand)
    _, found, disc = jax.lax.while_loop(tries, further, (jnp.zeros((), jnp.int32), jnp.zeros((), bool), nowhere))
    return disc, found


def _overlap(one: _Discs, other: _Discs, gap):
    """Which discs of `one` [N] are too close to which of `other` [M], bool [N, M]."""
    apart = one.loc[:, None] - other.loc[None]
    distance = jnp.sqrt(apart[..., 0] ** 2 + apart[..., 1] ** 2)
    touch = distance * (1 + TOUCH) < one.radius[:, None] + other.radius[None] + gap
    return touch | (distance < CAMERAS_APART * jnp.minimum(one.sight[:, None], other.sight[None]))


def draw_cargo(key: jax.Array, rules: Rules) -> jax.Array:
    """Units that wait in [sender] for [recipient], int32 (4, 4).

    A batch of `num_cargoes` units, each for a uniform pair of two warehouses; further batches as long as a warehouse
    has nothing to send.
    """
    pair = [(sender, recipient) for sender in range(4) for recipient in range(4) if sender != recipient]
    cells = np.array([NUM_WAREHOUSES * sender + recipient for sender, recipient in pair])

    def lacks(carried):
        return ~jnp.all(jnp.any(carried[1] > 0, axis=1))

    def batch(carried):
        batches, remaining = carried
        key_now = jax.random.fold_in(key, batches)
        drawn = jnp.asarray(cells)[jax.random.randint(key_now, (rules.num_cargoes,), 0, len(pair))]
        units = jnp.sum(drawn[:, None] == jnp.arange(NUM_WAREHOUSES**2), axis=0, dtype=jnp.int32)
        return batches + 1, remaining + units.reshape(NUM_WAREHOUSES, NUM_WAREHOUSES)

    none = jnp.zeros((NUM_WAREHOUSES, NUM_WAREHOUSES), jnp.int32)
    return jax.lax.while_loop(lacks, batch, (jnp.zeros((), jnp.int32), none))[1]


def first_loads(key: jax.Array, state: State, params: Params) -> State:
    """Each target without a goal takes something from the first warehouse, in a random order, that has anything."""
    key_order, key_goal = jax.random.split(key)
    count = state.goal.shape[0]
    order_u = jax.random.uniform(key_order, (count, NUM_WAREHOUSES))
    goal_u = jax.random.uniform(key_goal, (count,))

    def one(remaining, target):
        goal, load, capacity, order_u, goal_u = target
        sends = jnp.any(remaining > 0, axis=1)
        sender = jnp.argmin(jnp.where(sends, order_u, jnp.inf))
        recipient, units = new_load(remaining[sender], capacity, goal_u)
        units = jnp.where(goal == NO_GOAL, units, 0)
        remaining = remaining.at[sender, recipient].add(-units)
        return remaining, (jnp.where(units > 0, recipient, goal), jnp.where(units > 0, units, load))

    remaining, (goal, load) = jax.lax.scan(
        one, state.remaining, (state.goal, state.load, state.layout.capacity, order_u, goal_u)
    )
    return state._replace(
        goal=goal,
        load=load,
        remaining=remaining,
        freight=load * params.freight_scale,
        bounty=load * params.bounty_scale,
    )


# Pools: every step of a batch of worlds contains a reset, and a draw from a pool costs next to nothing


class Pool(NamedTuple):
    """Starts that were drawn once."""

    rows: jax.Array
    """[size, n], one start in each: copying one array costs a third of copying all that a state has"""
    example: State
    """One of them; it says what the numbers of a row are"""


def draw_pool(key: jax.Array, size: int, params: Params, rules: Rules) -> Pool:
    """`size` starts, drawn together."""
    states = jax.jit(jax.vmap(lambda key: start(key, params, rules)))(jax.random.split(key, size))
    # Whole numbers of a start are small: floats hold them exactly.
    columns = [x.reshape(size, -1).astype(states.target_loc.dtype) for x in jax.tree.leaves(states)]
    return Pool(jnp.concatenate(columns, axis=1), jax.tree.map(lambda x: x[0], states))


def from_pool(key: jax.Array, pool: Pool) -> State:
    """One of the starts of a pool."""
    size = pool.rows.shape[0]
    return _of_row(pool.rows[jax.random.bits(key, (), jnp.uint32) % size], pool.example)


def all_of(pool: Pool) -> State:
    """All starts of a pool, leaves [size, ...]."""
    return jax.vmap(_of_row, (0, None))(pool.rows, pool.example)


def _of_row(row: jax.Array, example: State) -> State:
    leaves, first = [], 0
    for leaf in jax.tree.leaves(example):
        leaves.append(row[first : first + leaf.size].reshape(leaf.shape).astype(leaf.dtype))
        first += leaf.size
    return jax.tree.unflatten(jax.tree.structure(example), leaves)
