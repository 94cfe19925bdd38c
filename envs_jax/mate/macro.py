"""Target selection: what a camera's macro action means, which are legal, who executes it, and how it is held.

Reading order: how subsets of targets are written as actions (`envs_jax.selections` has the rest) with masks, `executor`
(one frame), `counts` (how much of a selection was worth it), `hold` (a macro step as a scan of frames).

Source: specification, section 16. Subsets are bool [C, T].
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.base import FRAMES
from envs_jax.mate.aim import aim
from envs_jax.mate.camera_players import limits
from envs_jax.mate.params import Params
from envs_jax.mate.state import State
from envs_jax.selections import Encoding, from_subset
from envs_jax.spaces import Discrete

MOST_TARGETS = 8
"""With more, a choice among all subsets (2^T of them) becomes one binary choice for every target."""


def encoding_of(num_targets: int, multi_selection: bool, head: Literal["subset", "factored"] | None = None) -> Encoding:
    """`subset`: a number of 2^T, target 0 its highest bit; `single`: one target or, last, none; `factored`: T bits.

    Args:
        head: which of the two for several targets; None: `subset` while there are few.
    """
    if not multi_selection:
        return "single"
    return head or ("subset" if num_targets <= MOST_TARGETS else "factored")


def action_space(encoding: Encoding, num_targets: int) -> Discrete:
    """Of one camera."""
    match encoding:
        case "subset":
            return Discrete(2**num_targets)
        case "single":
            return Discrete(num_targets + 1)
        case "factored":
            return Discrete(2, (num_targets,))


def valid_actions(encoding: Encoding, visible):
    """Which actions select visible targets alone; none at all always may be selected.

    Args:
        visible: bool [..., T].

    Returns:
        bool [..., n], of `factored` [..., T, 2].
    """
    num_targets = visible.shape[-1]
    match encoding:
        case "subset":
            hidden = from_subset("subset", ~visible)
            return jnp.arange(2**num_targets) & hidden[..., None] == 0
        case "single":
            return jnp.concatenate([visible, jnp.ones_like(visible[..., :1])], axis=-1)
        case "factored":
            return jnp.stack([jnp.ones_like(visible), visible], axis=-1)


# One frame

SWEEP = -1.0
"""In units of the largest rotation and zoom: what a camera does without a selected target in its view."""


def executor(subset, state: State, params: Params):
    """Actions (C, 2, ...) of cameras that watch `subset`, bool (C, T, ...).

    A camera aims at the middle of what it selected and sees right now; seeing nothing of it, it turns clockwise at full
    speed and narrows its view.
    """
    watched = subset & state.sight.c2t
    count = jnp.sum(watched, axis=1)
    x, y = (
        jnp.sum(jnp.where(watched, loc[None], 0.0), axis=1) / jnp.maximum(count, 1)
        for loc in (state.target_loc[:, 0], state.target_loc[:, 1])
    )
    cameras = state.layout.camera_loc
    aimed = aim(x - cameras[:, 0], y - cameras[:, 1], state.orientation_deg, state.viewing_angle_deg, params)
    return jnp.where((count > 0)[:, None], aimed, SWEEP * limits(params)[None])


class Counts(NamedTuple):
    """Of the cameras' selections after a frame, (C, ...) each."""

    num_selected_targets: jax.Array
    num_valid_selected_targets: jax.Array
    """Selected and visible."""
    num_invalid_selected_targets: jax.Array
    invalid_target_selection_rate: jax.Array
    """Invalid ones among the selected, 0 without any."""


def counts(subset, visible) -> Counts:
    """How much of a selection is in view; both bool (C, T, ...)."""
    number = lambda x: jnp.sum(x, axis=1, dtype=jnp.int32).astype(float)  # noqa: E731
    selected, valid = number(subset), number(subset & visible)
    invalid = selected - valid
    return Counts(selected, valid, invalid, invalid / jnp.maximum(selected, 1.0))


# Held frames

Reduction = Literal["sum", "mean", "last"]


class Frame(NamedTuple):
    """What one frame of a world brings."""

    state: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]


def hold(frame: Callable[[Any, Any], Frame], state: Any, randomness: Any, reductions: Mapping[str, Reduction]) -> Frame:
    """Several frames as one step: an action is held until they are over or the episode ends.

    Args:
        frame: `(state, random)`: one frame with the action that is held.
        randomness: keys or recorded noise of the frames, leaves [frames, ...].
        reductions: of the entries of `info`; what is not named keeps its last value.

    Returns:
        The state reached, with the sum of the rewards, and `info` with the number of frames that were run.
    """
    length = jax.tree.leaves(randomness)[0].shape[0]
    first = jax.eval_shape(lambda state, random: frame(state, random), state, jax.tree.map(lambda x: x[0], randomness))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first._replace(state=()))

    def one(carried: tuple[Frame, jax.Array], random: Any) -> tuple[tuple[Frame, jax.Array], None]:
        so_far, frames = carried
        ended = so_far.terminated | so_far.truncated
        now = frame(so_far.state, random)

        def merged(name: str):
            old, new = so_far.info[name], now.info[name]
            return jnp.where(ended, old, new if reductions.get(name, "last") == "last" else old + new)

        kept = Frame(
            state=jax.tree.map(lambda old, new: jnp.where(ended, old, new), so_far.state, now.state),
            reward=jnp.where(ended, so_far.reward, so_far.reward + now.reward),
            terminated=so_far.terminated | (now.terminated & ~ended),
            truncated=so_far.truncated | (now.truncated & ~ended),
            info={name: merged(name) for name in now.info},
        )
        return (kept, jnp.where(ended, frames, frames + 1)), None

    start = nothing._replace(state=state), jnp.zeros(first.terminated.shape, jnp.int32)
    (result, frames), _ = jax.lax.scan(one, start, randomness, length=length)
    info = {name: value / frames if reductions.get(name) == "mean" else value for name, value in result.info.items()}
    return result._replace(info={**info, FRAMES: frames})
