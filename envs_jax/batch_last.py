"""`batch_last`: array functions of one world that run with the batch as the last axis when they are mapped over."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap


def batch_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for one world and, under `jax.vmap`, for a batch of them in one call with the batch axis last.

    A world of a few objects has arrays with short axes, and with the batch in front of them every loop of the compiled
    program runs over three or four elements. With the batch last it runs over the batch.

    Args:
        function: pytrees to a pytree. Every leaf it gets has one axis more than in one world, at the end: the batch, or
            1 where that argument is the same for all. It must work on leading axes alone and hold no random numbers.

    Returns:
        A function of one world (no batch axis). Only the innermost `vmap` is treated so; further ones add a leading
        axis as usual. Not differentiable.
    """

    @custom_vmap
    def one(*args):
        return jax.tree.map(lambda x: x[..., 0], function(*jax.tree.map(lambda x: jnp.asarray(x)[..., None], args)))

    @one.def_vmap
    def many(size, mapped, *args):
        moved = jax.tree.map(
            lambda x, is_mapped: jnp.moveaxis(x, 0, -1) if is_mapped else x[..., None], args, tuple(mapped)
        )
        out = jax.tree.map(lambda x: jnp.moveaxis(jnp.broadcast_to(x, (*x.shape[:-1], size)), -1, 0), function(*moved))
        return out, jax.tree.map(lambda _: True, out)

    return one
