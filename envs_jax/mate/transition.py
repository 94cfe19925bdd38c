"""One frame: cameras turn, targets move, everybody looks, cargo changes hands, figures are taken.

Source: specification, sections 8 and 9. `transition` is pure in explicit noise and works on leading axes: one world, or
with the batch last.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.mate import sightings
from envs_jax.mate.cargo import charge, trade
from envs_jax.mate.motion import move_targets, turn_cameras
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.perception import perceive
from envs_jax.mate.state import NO_GOAL, Metrics, Noise, State


class Frame(NamedTuple):
    """What a frame brought, beside the new state."""

    reward: jax.Array
    """() int32, the targets' team reward, dense or sparse as the rules say; the cameras' is its negative"""
    metrics: Metrics
    terminated: jax.Array
    """() bool, everything is delivered"""
    truncated: jax.Array
    """() bool, the time is up"""


def transition(
    state: State, camera_action, target_action, noise: Noise, params: Params, rules: Rules
) -> tuple[State, Frame]:
    """One frame.

    Args:
        camera_action: (C, 2, ...), rotation and zoom in degrees.
        target_action: (T, 2, ...), where each target wants to move.
    """
    layout = state.layout
    orientation, viewing_angle = turn_cameras(state.orientation_deg, state.viewing_angle_deg, camera_action, params)
    target_loc, colliding = move_targets(state.target_loc, target_action, layout)
    sight = perceive(layout, orientation, viewing_angle, target_loc, noise.transmit, params)
    tracked = is_tracked(sight.c2t)
    bounty, charged = charge(state.bounty, tracked)
    loaded = (state.goal != NO_GOAL).astype(jnp.int32)
    state = state._replace(
        orientation_deg=orientation,
        viewing_angle_deg=viewing_angle,
        target_loc=target_loc,
        colliding=colliding,
        sight=sight,
        bounty=bounty,
        steps_since_load=state.steps_since_load + loaded,
        tracked_since_load=state.tracked_since_load + loaded * tracked,
        steps=state.steps + 1,
    )
    state, gains = trade(state, noise.goal_u, params)
    dense = gains.dense - charged
    state = state._replace(
        sighting=sightings.renewed(state.sighting, target_loc, state.goal != NO_GOAL, tracked),
        team_return=state.team_return + dense,
        delayed_return=state.delayed_return + gains.sparse,
    )
    return state, Frame(
        reward=gains.sparse if rules.sparse_reward else dense,
        metrics=metrics_of(state, params),
        terminated=jnp.all(state.awaiting == 0, axis=0),
        truncated=state.steps >= params.horizon,
    )


def is_tracked(c2t):
    """Targets that some camera tracks, bool (T, ...)."""
    return jnp.any(c2t, axis=0)


def metrics_of(state: State, params: Params) -> Metrics:
    """Figures of a state that are logged and, in part, learned from."""
    tracked, valuable = is_tracked(state.sight.c2t), state.bounty > 0
    real = params.max_team_reward.dtype
    count = lambda x: jnp.sum(x, axis=0, dtype=jnp.int32).astype(real)  # noqa: E731
    price = (params.freight_scale + params.bounty_scale) * state.delivered
    return Metrics(
        coverage_rate=count(tracked) / tracked.shape[0],
        real_coverage_rate=count(tracked & valuable) / jnp.maximum(count(valuable), 1),
        mean_transport_rate=jnp.where(price > 0, state.delayed_return.astype(real) / jnp.maximum(price, 1), 0),
        num_delivered_cargoes=state.delivered.astype(real),
    )
