"""State of one camera world, what is random in a frame, and what a frame reports.

Reading order: `Layout` (constants of an episode), `Sight` (who sees whom), `State`, `Noise`, `Metrics`.

Shapes are those of one world: C cameras, T targets, O obstacles, M knots of an occlusion table, 4 warehouses. The
arithmetic of this package works on these leading axes alone and takes its random numbers as arguments. So the same
functions serve one world and, with `envs_jax.batch_last`, a batch of worlds whose axis follows: (T, 2, B).
"""

from typing import Any, NamedTuple

import jax

NO_GOAL = -1


class OcclusionTable(NamedTuple):
    """How far each camera can see in every direction: polylines around the circle."""

    angle_deg: jax.Array
    """(C, M), ascending from -180; unused entries at the end repeat the last knot."""
    free_range: jax.Array
    """(C, M); linear in between."""


class Outline(NamedTuple):
    """What each camera could see at its smallest viewing angle, for soft coverage; K points of the far side."""

    near: OcclusionTable
    far_angle_deg: jax.Array
    """(C, K), in no order"""
    far_range: jax.Array
    """(C, K), up to where a view leaves the obstacle that it enters"""


class Layout(NamedTuple):
    """What does not change in an episode; `envs_jax.mate.layout.layout_of` derives all of it from the placement."""

    camera_loc: jax.Array
    """(C, 2)"""
    camera_radius: jax.Array
    """(C,)"""
    obstacle_loc: jax.Array
    """(O, 2)"""
    obstacle_radius: jax.Array
    """(O,); 0: the obstacle found no place"""
    capacity: jax.Array
    """(T,) int32, units of cargo that a target can carry, 1 or 2"""
    step_size: jax.Array
    """(T,), longest step of a target, target_step_size / capacity"""
    c2o: jax.Array
    """(C, O) bool, cameras that know of an obstacle"""
    c2c_clear: jax.Array
    """(C, C) bool, cameras with no obstacle between them"""
    occlusion: OcclusionTable | None
    """None where `Rules.occlusion` is analytic."""
    outline: Outline | None
    """None without `Rules.outlines`."""


class Sight(NamedTuple):
    """Who sees whom at the present instant, bool; rows are the observers."""

    c2t: jax.Array
    """(C, T)"""
    c2c: jax.Array
    """(C, C), the diagonal is True"""
    t2c: jax.Array
    """(T, C)"""
    t2t: jax.Array
    """(T, T), the diagonal is True"""
    t2o: jax.Array
    """(T, O)"""


class Sighting(NamedTuple):
    """What was last seen of the targets, by whichever camera."""

    loc: jax.Array
    """(T, 2)"""
    loaded: jax.Array
    """(T,) bool"""
    frames_ago: jax.Array
    """(T,) int32, 0: now; `NEVER`: not yet"""


NEVER = -1


class State(NamedTuple):
    """One world between two frames."""

    layout: Layout
    orientation_deg: jax.Array
    """(C,), of the cameras, in [-180, 180)"""
    viewing_angle_deg: jax.Array
    """(C,), full angle of the cameras' sectors"""
    target_loc: jax.Array
    """(T, 2)"""
    goal: jax.Array
    """(T,) int32, warehouse that the target's load is for; `NO_GOAL`: it carries nothing"""
    load: jax.Array
    """(T,) int32, units carried towards the goal"""
    empty_bits: jax.Array
    """(T, 4) bool, warehouses that had nothing to send when this target last stood in them"""
    freight: jax.Array
    """(T,) int32, what the load earns"""
    bounty: jax.Array
    """(T,) int32, what it earns in addition, one less for every frame in which the target was tracked"""
    remaining: jax.Array
    """(4, 4) int32, units that wait in [sender] for [recipient]"""
    awaiting: jax.Array
    """(4,) int32, units that have not yet arrived at [recipient]"""
    delivered: jax.Array
    """() int32, units"""
    team_return: jax.Array
    """() int32, sum of the targets' dense rewards"""
    delayed_return: jax.Array
    """() int32, sum of their sparse ones"""
    steps: jax.Array
    """() int32, frames since the start"""
    sight: Sight
    sighting: Sighting
    colliding: jax.Array
    """(T,) bool, targets that did not arrive where they wanted to"""
    delivered_now: jax.Array
    """(T,) bool, targets that delivered in the last frame"""
    steps_since_load: jax.Array
    """(T,) int32, frames since the load was taken, 0 without one"""
    tracked_since_load: jax.Array
    """(T,) int32, those of them in which a camera tracked the target"""


def without_layout(state: State) -> State:
    """What changes: all that the frames of a step have to hand on."""
    nothing: Any = None
    return state._replace(layout=nothing)


class Noise(NamedTuple):
    """What is random in a frame."""

    transmit: jax.Array
    """(C, T) bool, true with probability `Params.transmittance`: this camera would see through an obstacle"""
    goal_u: jax.Array
    """(T,) uniform in [0, 1), decides which recipient a new load is for"""


class Metrics(NamedTuple):
    """Figures of a state, by the names of the reference."""

    coverage_rate: jax.Array
    """(), share of the targets that are tracked"""
    real_coverage_rate: jax.Array
    """(), the same among targets with bounty left; 0 if there are none"""
    mean_transport_rate: jax.Array
    """(), delayed return over the price of what was delivered; 0 if nothing was. The targets' efficiency"""
    num_delivered_cargoes: jax.Array
    """()"""
