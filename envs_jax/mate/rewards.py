"""What learners are paid: weighted terms of every agent, reduced over the agents.

Reading order: `camera_terms`, `target_terms`, `reduced`.

Source: specification, section 14. Leading axes as in `state`, any batch behind.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp

from envs_jax.mate.params import NUM_WAREHOUSES, TERRAIN, WAREHOUSE_RADIUS, WAREHOUSES, Params
from envs_jax.mate.soft_coverage import soft_scores
from envs_jax.mate.state import NO_GOAL, State
from envs_jax.mate.transition import Frame, is_tracked

Reduction = Literal["mean", "sum", "max", "min", "none"]


def camera_terms(names, state: State, frame: Frame, params: Params) -> dict[str, jax.Array]:
    """The terms `names` of all cameras, (C, ...) each, or (1, ...) where it is the team's."""
    real, metrics = state.target_loc.dtype, frame.metrics
    terms: dict[str, Any] = {
        "raw_reward": lambda: -frame.reward.astype(real)[None],
        "coverage_rate": lambda: metrics.coverage_rate[None],
        "real_coverage_rate": lambda: metrics.real_coverage_rate[None],
        "mean_transport_rate": lambda: metrics.mean_transport_rate[None],
        "soft_coverage_score": lambda: camera_scores(state, params),
        "num_tracked": lambda: jnp.sum(state.sight.c2t, axis=1, dtype=jnp.int32).astype(real),
        "baseline": lambda: jnp.ones_like(metrics.coverage_rate)[None],
    }
    return {name: terms[name]() for name in names}


def target_terms(names, state: State, frame: Frame, params: Params) -> dict[str, jax.Array]:
    """The terms `names` of all targets, (T, ...) each, or (1, ...) where it is the team's."""
    real, metrics = state.target_loc.dtype, frame.metrics
    terms: dict[str, Any] = {
        "raw_reward": lambda: frame.reward.astype(real)[None],
        "coverage_rate": lambda: metrics.coverage_rate[None],
        "real_coverage_rate": lambda: metrics.real_coverage_rate[None],
        "mean_transport_rate": lambda: metrics.mean_transport_rate[None],
        "normalized_goal_distance": lambda: goal_distance(state) / (2 * TERRAIN),
        "sparse_delivery": lambda: state.delivered_now.astype(real),
        "soft_coverage_score": lambda: jnp.sum(jnp.where(state.sight.c2t, soft_scores(state, params), 0), axis=0),
        "is_tracked": lambda: is_tracked(state.sight.c2t).astype(real),
        "is_colliding": lambda: state.colliding.astype(real),
        "baseline": lambda: jnp.ones_like(metrics.coverage_rate)[None],
    }
    return {name: terms[name]() for name in names}


def camera_scores(state: State, params: Params):
    """Soft coverage of each camera (C, ...): sum over the targets it tracks, squashed maximum if it tracks none."""
    each, tracks = soft_scores(state, params), state.sight.c2t
    some = jnp.sum(jnp.where(tracks, each, 0), axis=1)
    return jnp.where(jnp.any(tracks, axis=1), some, jnp.tanh(jnp.max(each, axis=1)))


def goal_distance(state: State):
    """How far each target is from where it wants to go, (T, ...).

    From the square of its goal, or without one from the nearest warehouse that it does not believe empty; the terrain's
    half width if it believes all empty.
    """
    trailing = state.goal.ndim - 1
    x, y = (WAREHOUSES[:, axis].reshape(1, NUM_WAREHOUSES, *[1] * trailing) for axis in range(2))
    loc = state.target_loc
    distance = jnp.sqrt((x - loc[:, None, 0]) ** 2 + (y - loc[:, None, 1]) ** 2).astype(loc.dtype)
    distance = jnp.maximum(distance - WAREHOUSE_RADIUS, 0.0)
    number = jnp.arange(NUM_WAREHOUSES).reshape(1, NUM_WAREHOUSES, *[1] * trailing)
    goes = jnp.where((state.goal == NO_GOAL)[:, None], ~state.empty_bits, number == state.goal[:, None])
    nearest = jnp.min(jnp.where(goes, distance, jnp.inf), axis=1)
    return jnp.where(jnp.any(goes, axis=1), nearest, TERRAIN)


def reduced(terms: Mapping[str, jax.Array], weights: Mapping[str, jax.Array], count: int, reduction: Reduction):
    """Weighted sum of the terms of `count` agents, (count, ...); but for `none`, all get the team's."""
    own = reduce(jnp.add, (weights[name] * term for name, term in terms.items()))
    own = jnp.broadcast_to(own, (count, *own.shape[1:]))
    if reduction == "none":
        return own
    over: Any = {"mean": jnp.mean, "sum": jnp.sum, "max": jnp.max, "min": jnp.min}[reduction]
    return jnp.broadcast_to(over(own, axis=0, keepdims=True), own.shape)
