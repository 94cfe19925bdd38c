"""Bundles: one small tree (policies, and what is known of them) in one file, whole or not there, checked when read.

A bundle is an uncompressed zip archive in NumPy's `npz` layout with one member per leaf of the tree and one for the
host's numbers. It is written beside its place, flushed to the disk and renamed, so a process killed at any moment
leaves either the old or the new file. Zip keeps a CRC-32 of every member, which is how a truncated or altered file is
noticed.
The state of a run is saved by `purerl.run.checkpoint`.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purerl.errors import CheckpointError, DamagedError
from purerl.run.files import sync_directory

_HEADER = "__header__"


def write_tree(path: Path, tree: Any, meta: dict[str, Any]) -> None:
    """Write the leaves of `tree` and `meta` (JSON-serialisable) to `path` in one atomic step."""
    named = {jax.tree_util.keystr(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    arrays = {name: _to_numpy(leaf) for name, leaf in named.items()}
    key_kinds = {name: str(jax.random.key_impl(leaf)) for name, leaf in named.items() if is_key(leaf)}
    header = np.array(json.dumps({"meta": meta, "key_kinds": key_kinds}))
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as stream:
        np.savez(stream, allow_pickle=False, **{_HEADER: header, **arrays})
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def read_tree(path: Path, like: Any) -> tuple[Any, dict[str, Any]]:
    """The tree, in the structure of `like` (arrays or `ShapeDtypeStruct`), and `meta`; a sub-tree reads only itself.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the leaves are not those of `like`; DamagedError: the file is not what was written.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(str(archive[_HEADER]))
            leaves = []
            for key_path, expected in paths:
                name = jax.tree_util.keystr(key_path)
                if name not in archive.files:
                    raise CheckpointError(f"{path}: has no '{name}'; it was written by another configuration")
                key_kind = header["key_kinds"].get(name)
                leaves.append(_from_numpy(archive[name], expected, key_kind, f"{path}: {name}"))
    except (CheckpointError, FileNotFoundError):
        raise
    except Exception as error:  # altered bytes can make the zip and array readers fail in any way
        raise DamagedError(f"{path} is damaged ({' '.join(str(error).split())})") from error
    return jax.tree.unflatten(structure, leaves), header["meta"]


def is_key(leaf: Any) -> bool:
    """Whether an array (or its shape and dtype) holds typed PRNG keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def require_same(stored_dtype: Any, stored_shape: Any, like: Any, place: str) -> None:
    """Refuse a stored leaf of another type or shape than expected.

    Raises:
        CheckpointError: with the `place`, and what is stored and expected.
    """
    if tuple(stored_shape) != like.shape or str(stored_dtype) != str(like.dtype):
        raise CheckpointError(
            f"{place} is {stored_dtype}{list(stored_shape)}, expected {like.dtype}{list(like.shape)}; "
            "it was written by another configuration"
        )


def _to_numpy(leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    # NumPy files know only NumPy's own types: bfloat16 and its relatives are kept as their bits.
    return array if array.dtype.kind != "V" else array.view(f"u{array.dtype.itemsize}")


def _from_numpy(array: np.ndarray, like: Any, key_kind: str | None, place: str) -> jax.Array:
    if key_kind is not None:
        restored = jax.random.wrap_key_data(jnp.array(array), impl=key_kind)
    else:
        foreign = not is_key(like) and np.dtype(like.dtype).kind == "V"
        restored = jnp.array(array.view(like.dtype) if foreign else array)
    require_same(restored.dtype, restored.shape, like, place)
    return restored
