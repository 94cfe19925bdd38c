"""Yardsticks: rules without a memory that choose what cameras watch, and one that sees everything.

Reading order: the selections (`SELECTIONS`, what macro policies choose from), `matched`, `privileged`. Scripted cameras
with a memory are in `players`.

Source: specification, section 21. One world at a time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from envs_jax.mate.aim import aim
from envs_jax.mate.assignment import cheapest_matching
from envs_jax.mate.geometry import offsets
from envs_jax.mate.params import Params
from envs_jax.mate.state import State

Selection = Callable[[jax.Array, State, Params], jax.Array]
"""`(key, state, params)`: which targets each camera watches, bool (C, T)."""

FAR = 1e5
"""Stands for the distance to what may not be matched: more than all real distances together."""


def never(key: jax.Array, state: State, params: Params) -> jax.Array:
    """Nothing: a permanent sweep."""
    return jnp.zeros_like(state.sight.c2t)


def all_targets(key: jax.Array, state: State, params: Params) -> jax.Array:
    """Visible or not: those that come into view are watched at once."""
    return jnp.ones_like(state.sight.c2t)


def all_visible(key: jax.Array, state: State, params: Params) -> jax.Array:
    return state.sight.c2t


def nearest_visible(key: jax.Array, state: State, params: Params) -> jax.Array:
    distance = jnp.where(state.sight.c2t, _distances(state), jnp.inf)
    nearest = jnp.argmin(distance, axis=1)[:, None] == jnp.arange(distance.shape[1])
    return nearest & state.sight.c2t


def random_half(key: jax.Array, state: State, params: Params) -> jax.Array:
    """Each visible target with probability a half."""
    return state.sight.c2t & jax.random.bernoulli(key, shape=state.sight.c2t.shape)


def matched(key: jax.Array, state: State, params: Params) -> jax.Array:
    """Every camera one visible target of its own, as many as possible, at the smallest total distance."""
    pairs = cheapest_matching(jnp.where(state.sight.c2t, _distances(state), FAR))
    return pairs & state.sight.c2t


def matched_and_unclaimed(key: jax.Array, state: State, params: Params) -> jax.Array:
    """The same, and every visible target that is nobody's."""
    own = matched(key, state, params)
    return own | (state.sight.c2t & ~jnp.any(own, axis=0))


def matched_and_free(key: jax.Array, state: State, params: Params) -> jax.Array:
    """Every camera its own one and all that are nobody's, visible or not: it is there when they come into view."""
    own = matched(key, state, params)
    return own | ~jnp.any(own, axis=0)


SELECTIONS: dict[str, Selection] = {
    "never": never,
    "random_half": random_half,
    "nearest_visible": nearest_visible,
    "all_visible": all_visible,
    "all_targets": all_targets,
    "matched": matched,
    "matched_and_unclaimed": matched_and_unclaimed,
    "matched_and_free": matched_and_free,
}


def privileged(state: State) -> jax.Array:
    """A target of its own for every camera, by where all of them are, at the smallest total distance: bool (C, T).

    With more cameras than targets the others take the nearest one.
    """
    distance = _distances(state)
    pairs = cheapest_matching(distance)
    nearest = jnp.argmin(distance, axis=1)[:, None] == jnp.arange(distance.shape[1])
    return jnp.where(jnp.any(pairs, axis=1, keepdims=True), pairs, nearest)


def aim_at(chosen, state: State, params: Params):
    """Actions (C, 2) that aim each camera at its target, one of each row of `chosen`, seen or not."""
    loc = jnp.where(chosen[..., None], state.target_loc[None], 0.0).sum(axis=1)
    away = loc - state.layout.camera_loc
    return aim(away[:, 0], away[:, 1], state.orientation_deg, state.viewing_angle_deg, params)


def privileged_action(key: jax.Array, state: State, params: Params) -> jax.Array:
    """Assigned anew in every frame."""
    return aim_at(privileged(state), state, params)


def _distances(state: State) -> jax.Array:
    """(C, T)"""
    x, y = offsets(state.layout.camera_loc, state.target_loc)
    return jnp.sqrt(x * x + y * y)
