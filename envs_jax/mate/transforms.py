"""Other forms of observations: what a team shares, places relative to the observer, values in comparable ranges.

Reading order: `Options`, changes of who is seen (`shared`, `remembered`, `enhanced`), `relative`, `rescaled` with the
bounds, the functions that join all (`camera_observation`, `target_observation`, `state_vector`), and `bearings`.

Source: specification, section 12. Their order is fixed: who is seen, relative, rescaled. `remembered` and `bearings`
are not in it.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from envs_jax.mate import observations
from envs_jax.mate.geometry import bearing_deg, direction, identity, sight_range, wrap_deg
from envs_jax.mate.observations import Seen, View, camera_view, flat, global_state_blocks, masked, target_view
from envs_jax.mate.params import MAX_VIEWING_ANGLE_DEG, NUM_WAREHOUSES, TERRAIN, Params
from envs_jax.mate.sightings import freshness
from envs_jax.mate.state import Sighting, State

Sharing = Literal["own", "shared", "remembered", "enhanced"]
FREIGHT, UNITS = 100.0, 8.0
"""What a scaled global state divides freights and bounties, and remaining cargo by."""


class Options(NamedTuple):
    """Static. The defaults are raw observations."""

    view: Sharing = "own"
    """shared: what one of a team sees all of them see; remembered: and where they saw it last, of cameras; enhanced:
    everything is visible"""
    relative: bool = False
    """places as seen from the observer"""
    rescale: bool = False
    """values that have bounds between -1 and 1"""
    zero_masked: bool = False
    """rescaled values of what is hidden are zero, as raw ones are"""
    drop_index: bool = False
    """without the observer's number"""
    bearings: bool = False
    """with the distance and the angle from the camera's axis of every target"""


RAW = Options()


def shared(view: View, team: Literal["cameras", "targets"]) -> View:
    """What one member of a team sees, the others know: opponents, obstacles, emptiness; members know each other."""
    view = view._replace(
        targets=_together(view.targets), obstacles=_together(view.obstacles), cameras=_together(view.cameras)
    )
    if team == "cameras":
        view = view._replace(cameras=_all_visible(view.cameras))
    else:
        view = view._replace(targets=_all_visible(view.targets))
        bits = jnp.max(view.own[:, -NUM_WAREHOUSES:], axis=0, keepdims=True)
        view = _with_empty_bits(view, jnp.broadcast_to(bits, view.own[:, -NUM_WAREHOUSES:].shape))
    return view


def remembered(view: View, sighting: Sighting) -> View:
    """Where targets were seen last, with how fresh that is in place of the flag; the rest is shared."""
    view, fresh = shared(view, "cameras"), freshness(sighting)[None]
    loaded = sighting.loaded[None].astype(view.targets.values.dtype)
    values = jnp.concatenate([sighting.loc[None], view.targets.values[:, :, 2:3], loaded[:, :, None]], axis=2)
    fresh = jnp.broadcast_to(fresh, view.targets.visible.shape).astype(values.dtype)
    return view._replace(targets=Seen(values, fresh > 0, fresh))


def enhanced(view: View, team: Literal["cameras", "targets"], state: State) -> View:
    """Everything is visible; targets know which warehouses have nothing to send."""
    view = View(view.preamble, view.own, *map(_all_visible, (view.targets, view.obstacles, view.cameras)))
    if team == "targets":
        empty = jnp.all(state.remaining == 0, axis=1).astype(view.own.dtype)
        view = _with_empty_bits(view, jnp.broadcast_to(empty[None], view.own[:, -NUM_WAREHOUSES:].shape))
    return view


def _all_visible(seen: Seen) -> Seen:
    return seen._replace(visible=jnp.ones_like(seen.visible))


def _together(seen: Seen) -> Seen:
    anyone = jnp.any(seen.visible, axis=0, keepdims=True)
    return seen._replace(visible=jnp.broadcast_to(anyone, seen.visible.shape))


def _with_empty_bits(view: View, bits) -> View:
    return view._replace(own=jnp.concatenate([view.own[:, :-NUM_WAREHOUSES], bits], axis=1))


def relative(view: View) -> View:
    """Places of warehouses and of all that is visible as seen from the observer; its own block stays as it is."""
    place = view.own[:, :2]
    before, corners, behind = view.preamble[:, :4], view.preamble[:, 4:12], view.preamble[:, 12:]
    corners = corners - jnp.concatenate([place] * NUM_WAREHOUSES, axis=1)

    def from_here(seen: Seen) -> Seen:
        places = seen.values[:, :, :2] - place[:, None]
        rest = seen.values[:, :, 2:]
        rest = jnp.broadcast_to(rest, (*places.shape[:2], *rest.shape[2:]))
        return seen._replace(values=jnp.concatenate([places, rest], axis=2))

    return View(jnp.concatenate([before, corners, behind], axis=1), view.own, *map(from_here, view[2:]))


_FREE, _FLAG, _COORDINATE = (0.0, np.inf), (-1.0, 1.0), (-2 * TERRAIN, 2 * TERRAIN)
_LENGTH, _RADIUS, _ANGLE = (0.0, 2 * TERRAIN), (0.0, TERRAIN), (0.0, MAX_VIEWING_ANGLE_DEG)
BOUNDS = {
    "preamble": [_FREE] * 4 + [_COORDINATE] * 8 + [_RADIUS],
    "camera": [*[_COORDINATE] * 2, _RADIUS, *[_COORDINATE] * 2, _ANGLE, _LENGTH, _ANGLE, _ANGLE],
    "target": [*[_COORDINATE] * 2, _LENGTH, _FLAG, _LENGTH, (1.0, 2.0), *[_FREE] * 4, *[_FLAG] * 4],
    "obstacle": [*[_COORDINATE] * 2, _RADIUS],
}
"""(low, high) of the components of each block."""


def rescaled(values, block: str, axis: int = 1):
    """Components that have two bounds from -1 to 1, the others from 0.

    Args:
        values: the first components of the block, on the axis `axis`.
    """
    count, trailing = values.shape[axis], values.ndim - axis - 1
    low, high = (np.array(x).reshape(count, *[1] * trailing) for x in zip(*BOUNDS[block][:count], strict=True))
    bounded = np.isfinite(high)
    factor, shift = np.where(bounded, 2.0 / (high - low), 1.0), np.where(bounded, 1.0, 0.0)
    low, factor, shift = (x.astype(values.dtype) for x in (low, factor, shift))
    return (values - low) * factor - shift


def camera_observation(state: State, params: Params, options: Options = RAW):
    """Observations of all cameras, (C, d, ...)."""
    raw = camera_view(state, params)
    view = _changed(raw, "cameras", state, options)
    preamble, own, targets, obstacles, cameras = _blocks(view, "camera", options)
    if options.bearings:
        beside = bearings(_changed(raw, "cameras", state, options._replace(relative=False)), state, options)
        targets = jnp.concatenate([targets[:, :, :-1], beside, targets[:, :, -1:]], axis=2)
        own = jnp.concatenate([own, axis_of(state, params)], axis=1)
    return flat([preamble, own, targets, obstacles, cameras])


def target_observation(state: State, params: Params, options: Options = RAW):
    """Observations of all targets, (T, d, ...)."""
    view = _changed(target_view(state, params), "targets", state, options)
    preamble, own, targets, obstacles, cameras = _blocks(view, "target", options)
    return flat([preamble, own, cameras, obstacles, targets])


BEARINGS, AXIS = 7, 3
"""Values that `bearings` adds of every target, and of the camera itself."""
MOST_OFF_AXIS = 2.0
"""Half viewing angles from the axis: what is farther away counts as that."""


def bearings(view: View, state: State, options: Options):
    """Where known targets are as a camera turns, (C, T, 7, ...), zeros of those that are not known.

    Distance in units of the terrain's width, cosine and sine of the angle from the axis, that angle in half viewing
    angles, whether the camera itself sees the target; and unless it knows of its own view alone, the share of the
    others that do, and how near the nearest of these is: 1 at no distance, 0 at the terrain's width or without any.
    """
    x, y = (view.targets.values[:, :, axis] - view.own[:, None, axis] for axis in (0, 1))
    distance = jnp.sqrt(x * x + y * y) / (2 * TERRAIN)
    off_deg = wrap_deg(bearing_deg(x, y) - state.orientation_deg[:, None])
    half = jnp.clip(2.0 * off_deg / state.viewing_angle_deg[:, None], -MOST_OFF_AXIS, MOST_OFF_AXIS) / MOST_OFF_AXIS
    sees = state.sight.c2t
    columns = [distance, *direction(off_deg), half, sees.astype(distance.dtype)]
    if options.view == "own":
        columns += [jnp.zeros_like(distance)] * 2
    else:
        others = sees[None] & ~identity(sees.shape[0], sees.ndim - 2)[:, :, None]  # [of camera, other camera, target]
        nearness = jnp.max(jnp.where(others, jnp.maximum(1.0 - distance, 0.0)[None], 0.0), axis=1)
        columns += [jnp.sum(others, axis=1) / max(sees.shape[0] - 1, 1), nearness]
    return jnp.stack(columns, axis=2) * view.targets.visible[:, :, None]


def axis_of(state: State, params: Params):
    """(C, 3, ...): cosine and sine of the orientation, sight range as a share of the largest."""
    limits = params.camera_min_viewing_angle_deg, params.camera_max_sight_range
    reach = sight_range(state.viewing_angle_deg, *limits) / params.camera_max_sight_range
    return jnp.stack([*direction(state.orientation_deg), reach], axis=1)


def targets_seen(state: State, options: Options):
    """Which targets the cameras know to be where they are, bool (C, T, ...)."""
    if options.view == "own":
        return state.sight.c2t
    if options.view == "enhanced":
        return jnp.ones_like(state.sight.c2t)
    return jnp.broadcast_to(jnp.any(state.sight.c2t, axis=0, keepdims=True), state.sight.c2t.shape)


def _changed(view: View, team: Literal["cameras", "targets"], state: State, options: Options) -> View:
    if options.view == "remembered":
        view = remembered(view, state.sighting) if team == "cameras" else shared(view, team)
    elif options.view == "shared":
        view = shared(view, team)
    elif options.view == "enhanced":
        view = enhanced(view, team, state)
    return relative(view) if options.relative else view


def _blocks(view: View, own: str, options: Options) -> list:
    """Preamble, own, targets, obstacles and cameras, as they enter the vector."""

    def change(block: str, axis: int):
        return lambda values: rescaled(values, block, axis) if options.rescale else values

    preamble = change("preamble", 1)(view.preamble)
    if options.drop_index:
        preamble = jnp.delete(preamble, observations.INDEX, axis=1)
    hidden_too = options.rescale and not options.zero_masked
    kinds = ("target", view.targets), ("obstacle", view.obstacles), ("camera", view.cameras)
    seen = [masked(entities, change(kind, 2), hidden_too) for kind, entities in kinds]
    return [preamble, change(own, 1)(view.own), *seen]


def state_vector(state: State, params: Params, rescale: bool = False, scale: bool = False):
    """The global state, (d, ...).

    Args:
        rescale: components that have bounds between -1 and 1.
        scale: freights and bounties in units of 100, what waits in the warehouses in units of 8.
    """
    preamble, cameras, targets, obstacles, *cargo = global_state_blocks(state, params)
    if rescale:
        preamble = rescaled(preamble, "preamble")
        kinds = ("camera", cameras), ("target", targets), ("obstacle", obstacles)
        cameras, targets, obstacles = (rescaled(values, kind) for kind, values in kinds)
    if scale:
        cargo = [values / unit for values, unit in zip(cargo, (FREIGHT, FREIGHT, UNITS), strict=True)]
    trailing = state.steps.ndim
    blocks = [preamble, cameras, targets, obstacles, *cargo]
    return jnp.concatenate([x.reshape(-1, *x.shape[x.ndim - trailing :]) for x in blocks])
