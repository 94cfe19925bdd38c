"""One training run on several devices: GPUs, or CPU cores that work as devices of their own.

Reading order: making CPU devices, `Layout` (how a run is laid out), several seeds on one device, the two calls that
an algorithm makes.

Seeds are shared out to the devices where they divide evenly, and then never speak to each other. Otherwise every device
holds the whole state, does the same environment steps and computes the gradient of its share of each batch; the means
of the shares are taken before the optimiser, so all copies stay the same.

Cores are worth being devices because small products inside a loop (an LSTM's step) run on one thread each; a second
core is idle unless it has a batch of its own. The partitioner of `jit` could place the same split by itself, but it
reduces the weight gradient in every step of the loop and was measured slower than one device.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purerl.errors import ConfigError

_BATCH, _SEEDS = "batch", "seeds"


def provide_cpu_devices(count: int, threads: int | None = None) -> None:
    """Let `count` threads of this process be devices; without effect once something has been computed.

    Args:
        threads: that XLA shares operations out to; None: as many as there are cores. Programs of many small operations
            are faster on one: handing an operation of microseconds to another thread costs more than it brings.
    """
    if threads is not None:
        os.environ["NPROC"] = str(threads)  # what XLA's CPU client sizes its pool by; JAX has no setting for it
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        if jax.device_count() < count:
            print(f"note: JAX already runs with {jax.device_count()} device(s); num_devices {count} comes too late")


class Layout(NamedTuple):
    """Layout of a run's state over devices; `mesh` is None on one device."""

    mesh: Mesh | None
    spec: PartitionSpec

    def over(
        self, updates: Callable[[Any, Any], tuple[Any, Any]], own_data: Any = None
    ) -> Callable[[Any, Any], tuple[Any, Any]]:
        """`updates(state, data) -> (state, metrics)` on all devices.

        With several seeds the leaves of the state are [seeds, ...] and those of the metrics [updates, seeds].

        Args:
            own_data: see `for_each_seed`.
        """
        if self.mesh is None:
            return updates
        out = self.spec, PartitionSpec(None, *self.spec)
        specs = self.spec, self._data_specs(own_data)
        return jax.shard_map(updates, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)

    def place(self, tree: Any) -> Any:
        return tree if self.mesh is None else jax.device_put(tree, NamedSharding(self.mesh, self.spec))

    def place_data(self, data: Any, own_data: Any = None) -> Any:
        """What updates read, as `over` wants it: whole copies on every device of what all seeds share."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, data)
        mesh, specs = self.mesh, self._data_specs(own_data)
        if own_data is None:
            return jax.device_put(data, NamedSharding(mesh, specs))
        return jax.tree.map(lambda spec, x: jax.device_put(x, NamedSharding(mesh, spec)), specs, data)

    def _data_specs(self, own_data: Any) -> Any:
        if own_data is None:
            return PartitionSpec()
        return jax.tree.map(lambda own: self.spec if own else PartitionSpec(), own_data)

    def placed_shapes(self, shapes: Any) -> Any:
        """Shapes and dtypes of what `place` gives, to compile for it before it exists."""
        layout = None if self.mesh is None else NamedSharding(self.mesh, self.spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), shapes)


def layout_of(num_devices: int, num_seeds: int) -> Layout:
    """Layout for as many of the wanted devices as there are."""
    devices = np.array(jax.devices()[:num_devices])
    if devices.size == 1:
        return Layout(None, PartitionSpec())
    if num_seeds % devices.size == 0:
        return Layout(Mesh(devices, (_SEEDS,)), PartitionSpec(_SEEDS))
    return Layout(Mesh(devices, (_BATCH,)), PartitionSpec())


def for_each_seed(
    function: Callable[[Any, Any], Any], vectorise: bool, own_data: Any = None
) -> Callable[[Any, Any], Any]:
    """`function(state, data)` of one seed for states with a seed axis.

    Args:
        own_data: None where all seeds read the same data; else a tree like `data`, True for leaves [seeds, ...] and
            False for shared ones.
        vectorise: all seeds in one program step. Otherwise seeds take turns on a CPU, whose caches hold the work of one
            seed but not of all; accelerators vectorise always.
    """
    if vectorise or jax.default_backend() != "cpu":
        axes = None if own_data is None else jax.tree.map(lambda own: 0 if own else None, own_data)
        return jax.vmap(function, (0, axes))
    if own_data is None:
        return lambda state, data: jax.lax.map(lambda own: function(own, data), state)

    def in_turns(state, data):
        is_own, leaves = jax.tree.leaves(own_data), jax.tree.leaves(data)
        own = [x for x, apart in zip(leaves, is_own, strict=True) if apart]

        def one(inputs):
            state, own = inputs
            rest = iter(own)
            merged = [next(rest) if apart else x for x, apart in zip(leaves, is_own, strict=True)]
            return function(state, jax.tree.unflatten(jax.tree.structure(data), merged))

        return jax.lax.map(one, (state, own))

    return in_turns


def joined(trees: Sequence[Any]) -> tuple[Any, Any]:
    """Trees of one structure as one, and a tree that is True where it has its own leaves [len(trees), ...].

    Leaves that are the same in all trees are kept once.
    """
    columns = [list(leaves) for leaves in zip(*map(jax.tree.leaves, trees), strict=True)]
    is_own = [any(x is not leaves[0] and not np.array_equal(x, leaves[0]) for x in leaves) for leaves in columns]
    merged = [
        jnp.stack(list(map(jnp.asarray, leaves))) if own else leaves[0]
        for leaves, own in zip(columns, is_own, strict=True)
    ]
    structure = jax.tree.structure(trees[0])
    return jax.tree.unflatten(structure, merged), jax.tree.unflatten(structure, is_own)


def own_share(batch: jax.Array, axis: int = 0) -> jax.Array:
    """The part of a batch that this device works on; all of it where devices share no batch.

    Raises:
        ConfigError: the batch cannot be divided into equal shares.
    """
    count = _sharing()
    if count == 1:
        return batch
    size, rest = divmod(batch.shape[axis], count)
    if rest:
        raise ConfigError(
            f"num_devices {count}: a batch of {batch.shape[axis]} has no {count} equal shares; "
            "change the batch or num_devices"
        )
    return jax.lax.dynamic_slice_in_dim(batch, jax.lax.axis_index(_BATCH) * size, size, axis)


def mean_over_shares(tree: Any) -> Any:
    """Means over the devices that share a batch, of gradients or metrics that are means over their shares."""
    if _sharing() == 1:
        return tree
    flat, unflatten = ravel_pytree(tree)  # devices wait for each other once, not once for every leaf
    return unflatten(jax.lax.pmean(flat, _BATCH))


def sum_over_shares(tree: Any) -> Any:
    """Sums over the devices that share a batch, of what each has counted in its share."""
    return tree if _sharing() == 1 else jax.lax.psum(tree, _BATCH)


def max_over_shares(tree: Any) -> Any:
    """The largest values over the devices that share a batch."""
    return tree if _sharing() == 1 else jax.lax.pmax(tree, _BATCH)


def whole_of(tree: Any, axis: int = 0) -> Any:
    """All devices' shares joined along `axis`: the inverse of `own_share`."""
    if _sharing() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, _BATCH, axis=axis, tiled=True), tree)


def _sharing() -> int:
    try:
        return jax.lax.axis_size(_BATCH)
    except NameError:  # outside of `Layout.over`
        return 1
