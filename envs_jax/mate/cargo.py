"""What targets earn and lose in a frame, and what they load and unload.

Source: specification, section 8. Leading axes as in `state`, any batch behind. Everything is int32: all sums are exact.

Reading order: `charge` (tracked targets lose bounty), `trade` (the pass over the targets), `visit` (one target),
`new_load` (what it takes along).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.mate.params import NUM_WAREHOUSES, WAREHOUSE_RADIUS, WAREHOUSES, Params
from envs_jax.mate.state import NO_GOAL, State


class Gains(NamedTuple):
    """int32, of the targets' team in one frame."""

    dense: jax.Array
    sparse: jax.Array


class _Stock(NamedTuple):
    """What the targets of a pass share."""

    remaining: Any
    awaiting: Any
    delivered: Any
    gains: Gains


class _Cargo(NamedTuple):
    """What one target carries and believes, with where it stands."""

    goal: Any
    load: Any
    freight: Any
    bounty: Any
    empty_bits: Any
    """(4, ...)"""


def charge(bounty, tracked):
    """Bounties after a frame in which `tracked` targets were seen, and what the team lost: (T, ...), (...)."""
    loses = tracked & (bounty > 0)
    return bounty - loses, jnp.sum(loses, axis=0, dtype=jnp.int32)


def warehouse_of(loc):
    """Which warehouse each target (T, 2, ...) stands in, bool (T, 4, ...)."""
    centres = WAREHOUSES.reshape(1, NUM_WAREHOUSES, 2, *[1] * (loc.ndim - 2)).astype(loc.dtype)
    return jnp.all(jnp.abs(loc[:, None] - centres) <= WAREHOUSE_RADIUS, axis=2)


def trade(state: State, goal_u, params: Params) -> tuple[State, Gains]:
    """All targets unload and load where they stand, one after the other: later ones find what earlier ones left.

    Args:
        state: `bounty` is that after `charge`.
        goal_u: (T, ...) in [0, 1), which recipient each would carry for.

    Returns:
        The state with all that is traded, and what was earned with deliveries.
    """
    nothing = jnp.zeros_like(state.delivered)
    stock = _Stock(state.remaining, state.awaiting, state.delivered, Gains(nothing, nothing))
    cargo = _Cargo(state.goal, state.load, state.freight, state.bounty, state.empty_bits)

    def one(stock, target):
        here, cargo, capacity, goal_u = target
        return visit(stock, here, cargo, capacity, goal_u, params)

    here = warehouse_of(state.target_loc)
    stock, (cargo, took, gave) = jax.lax.scan(one, stock, (here, cargo, state.layout.capacity, goal_u))
    carries = cargo.goal != NO_GOAL
    return state._replace(
        **cargo._asdict(),
        remaining=stock.remaining,
        awaiting=stock.awaiting,
        delivered=stock.delivered,
        delivered_now=gave,
        steps_since_load=jnp.where(carries & ~took, state.steps_since_load, 0),
        tracked_since_load=jnp.where(carries & ~took, state.tracked_since_load, 0),
    ), stock.gains


def visit(stock: _Stock, here, cargo: _Cargo, capacity, goal_u, params: Params):
    """One target in the warehouse `here` (4, ...), which may be none."""
    inside = jnp.any(here, axis=0)
    index = _warehouses(here.ndim)
    at_goal = jnp.any(here & (index == cargo.goal), axis=0)
    # What arrives is paid and no longer awaited.
    gain = jnp.where(at_goal, cargo.freight + cargo.bounty, 0)
    lost = jnp.where(at_goal, cargo.load * params.bounty_scale - cargo.bounty, 0)
    given = jnp.where(at_goal, cargo.load, 0)
    gains = Gains(stock.gains.dense + gain, stock.gains.sparse + gain - lost)
    loaded = (cargo.goal != NO_GOAL) & ~at_goal
    # The row of this warehouse: what waits here for whom.
    row = jnp.sum(jnp.where(here[:, None], stock.remaining, 0), axis=0, dtype=jnp.int32)
    takes = inside & ~loaded
    recipient, units = new_load(row, capacity, goal_u)
    units = jnp.where(takes, units, 0)
    taken = jnp.where(index == recipient, units, 0)
    took = units > 0
    left = row - taken
    old = cargo.goal
    cargo = _Cargo(
        goal=jnp.where(loaded | ~inside, cargo.goal, jnp.where(took, recipient, NO_GOAL)),
        load=jnp.where(loaded | ~inside, cargo.load, units),
        freight=jnp.where(loaded | ~inside, cargo.freight, units * params.freight_scale),
        bounty=jnp.where(loaded | ~inside, cargo.bounty, units * params.bounty_scale),
        empty_bits=jnp.where(here, jnp.all(left == 0, axis=0), cargo.empty_bits),
    )
    stock = _Stock(
        remaining=stock.remaining - jnp.where(here[:, None], taken, 0),
        awaiting=stock.awaiting - jnp.where(here, given, 0),
        delivered=stock.delivered + given,
        gains=gains,
    )
    return stock, (cargo, took, (old != NO_GOAL) & (cargo.goal != old))


def new_load(row, capacity, goal_u):
    """For whom (...) and how many units (...) a target takes of what waits in its warehouse, `row` (4, ...).

    A recipient uniformly among those for whom something waits. Without any, 0 units for nobody in particular.
    """
    waits = row > 0
    rank = jnp.cumsum(waits, axis=0, dtype=jnp.int32)
    count = rank[-1]
    chosen = jnp.minimum((goal_u * count).astype(jnp.int32), count - 1)
    picked = waits & (rank == chosen + 1)
    recipient = jnp.sum(jnp.where(picked, _warehouses(row.ndim), 0), axis=0, dtype=jnp.int32)
    return recipient, jnp.minimum(capacity, jnp.sum(jnp.where(picked, row, 0), axis=0, dtype=jnp.int32))


def _warehouses(ndim: int):
    return jnp.arange(NUM_WAREHOUSES, dtype=jnp.int32).reshape(NUM_WAREHOUSES, *[1] * (ndim - 1))
