"""Cameras and targets matched one to one at the smallest total distance, exactly and under `jit`.

Dynamic programming over subsets: with the n members of the smaller side as bits of a number, the least cost of every
subset is carried through the members of the larger side, one after the other. That is larger x 2^n x n work (16,384 for
eight and eight), where trying all permutations is n! of them.
"""

import jax
import jax.numpy as jnp
import numpy as np

MOST = 12
"""Members of the smaller side."""


def can_match(num_cameras: int, num_targets: int) -> bool:
    """Whether the subsets of the smaller side are few enough."""
    return min(num_cameras, num_targets) <= MOST


def require_small(num_cameras: int, num_targets: int) -> None:
    """Raises ValueError where they are not."""
    if not can_match(num_cameras, num_targets):
        raise ValueError(
            f"{num_cameras} cameras and {num_targets} targets cannot be matched exactly: at most {MOST} on one side"
        )


def cheapest_matching(cost):
    """Which pairs a cheapest matching of all members of the smaller side consists of.

    Args:
        cost: [C, T], finite.

    Returns:
        bool [C, T], min(C, T) of them true. Among equally cheap ones, any.

    Raises:
        ValueError: both sides are larger than `MOST`.
    """
    require_small(*cost.shape)
    rows = cost if cost.shape[0] >= cost.shape[1] else cost.T
    n = rows.shape[1]
    subsets = np.arange(2**n)
    member = (subsets[:, None] >> np.arange(n)) & 1 == 1
    without = subsets[:, None] & ~(1 << np.arange(n))

    def add_row(least, row):
        """Each subset as it was, or without one member that this row takes; `n` stands for none."""
        options = jnp.where(member, least[without] + row, jnp.inf)
        options = jnp.concatenate([options, least[:, None]], axis=1)
        return jnp.min(options, axis=1), jnp.argmin(options, axis=1)

    none_yet = jnp.where(subsets == 0, 0.0, jnp.inf).astype(cost.dtype)
    _, taken = jax.lax.scan(add_row, none_yet, rows)

    def undo_row(subset, choices):
        chosen = choices[subset]
        took = (jnp.arange(n) == chosen) & (chosen < n)
        return jnp.where(chosen < n, subset & ~(1 << jnp.minimum(chosen, n - 1)), subset), took

    _, pairs = jax.lax.scan(undo_row, jnp.asarray(2**n - 1), taken, reverse=True)
    return pairs if cost.shape[0] >= cost.shape[1] else pairs.T
