"""Actions that select entities: how sure a network is of each, from the utilities of all actions.

Reading order: `margins`, `selection_entropy`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Selection
from purerl.nets.distributions import MASKED, masked


class Margins(NamedTuple):
    margin: jax.Array
    """[..., T]: the best utility with the entity less the best without."""
    free: jax.Array
    """bool [..., T]: both are available."""


def margins(selection: Selection, utility: jax.Array, legal: jax.Array | None) -> Margins:
    """Of utilities [..., n], of factored actions [..., T, 2]; `legal` bool of that shape, None: all."""
    if selection.encoding == "factored":
        margin = utility[..., 1] - utility[..., 0]
        return Margins(margin, jnp.ones_like(margin, bool) if legal is None else jnp.all(legal, axis=-1))
    best = _best_by_entity(selection, masked(utility, legal))
    return Margins(best[..., 1] - best[..., 0], jnp.all(best > MASKED, axis=-1))


def _best_by_entity(selection: Selection, utility: jax.Array) -> jax.Array:
    """The largest utilities without and with each entity [..., T, 2], of one choice among subsets or entities."""
    lead, entities = utility.shape[:-1], range(selection.number)
    if selection.encoding == "subset":
        return jnp.stack(
            [jnp.max(utility.reshape(*lead, 2**bit, 2, -1), axis=(-3, -1)) for bit in entities], axis=-2
        )  # fmt: skip
    others = jnp.where(jnp.eye(selection.number, selection.number + 1, dtype=bool), MASKED, utility[..., None, :])
    return jnp.stack([jnp.max(others, axis=-1), utility[..., :-1]], axis=-1)


def selection_entropy(found: Margins, temperature: float) -> tuple[jax.Array, jax.Array]:
    """`(entropy [...] in nats, the largest that it could be)`, summed over the entities that are free.

    An entity counts as selected with probability sigmoid(margin / temperature).
    """
    logit = jnp.where(found.free, found.margin, 0.0) / temperature
    each = jax.nn.sigmoid(logit) * jax.nn.softplus(-logit) + jax.nn.sigmoid(-logit) * jax.nn.softplus(logit)
    return jnp.sum(jnp.where(found.free, each, 0.0), axis=-1), np.log(2.0) * jnp.sum(found.free, axis=-1)
