"""What a team of cameras remembers of the targets: where each was when one of them saw it last, and how long ago.

Reading order: `first`, `renewed` (frame by frame), `freshness` (what observations say of it).
"""

import jax.numpy as jnp

from envs_jax.mate.state import NEVER, Sighting

HALVED_AFTER_FRAMES = 25.0
"""When a sighting counts half: as long as greedy cameras remember one."""


def first(loc, loaded, tracked) -> Sighting:
    """At the start.

    Args:
        loc: (T, 2, ...), where targets are.
        loaded, tracked: bool (T, ...), those that carry something, and those that a camera sees.
    """
    return Sighting(loc, loaded, jnp.where(tracked, 0, NEVER).astype(jnp.int32))


def renewed(before: Sighting, loc, loaded, tracked) -> Sighting:
    """After a frame; arguments as of `first`."""
    older = jnp.where(before.frames_ago == NEVER, NEVER, before.frames_ago + 1)
    return Sighting(
        loc=jnp.where(tracked[:, None], loc, before.loc),
        loaded=jnp.where(tracked, loaded, before.loaded),
        frames_ago=jnp.where(tracked, 0, older),
    )


def freshness(sighting: Sighting):
    """(T, ...): 1 of what is seen now, less the longer ago it was seen, 0 of what never was."""
    fresh = HALVED_AFTER_FRAMES / (HALVED_AFTER_FRAMES + sighting.frames_ago)
    return jnp.where(sighting.frames_ago == NEVER, 0.0, fresh)
