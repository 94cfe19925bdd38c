"""Checkpoints: one file per saved state, whole or not there, and checked when read.

A checkpoint is an uncompressed zip archive in NumPy's `npz` layout with one member per leaf of the state's pytree and
one for the host's counters. It is written beside its place, flushed to the disk and renamed, so a process killed at
any moment leaves either the old or the new file. Zip keeps a CRC-32 of every member, which is how a truncated or
altered file is noticed. (Orbax was measured first: it saves a 70 MB replay in 0.6 s against 0.3 s here, and it
returned wrong numbers without an error after one flipped byte.)
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from purerl.errors import CheckpointError, DamagedError
from purerl.run.files import sync_directory, write_text

_HEADER = "__header__"
_NAME = re.compile(r"epoch_(\d{6,})\.npz")
_BEST = "best.json"
_KEEP_NEWEST = 2
"""The newest and the one before it, which is the fallback when the newest is damaged."""

Which = Literal["latest", "best"] | int


def save(
    directory: Path, step: int, state: Any, meta: dict[str, Any], skip: Callable[[str], bool] = lambda path: False
) -> Path:
    """Write checkpoint number `step` (the epoch) and return its file.

    Args:
        state: pytree of arrays, typed PRNG keys included.
        meta: JSON-serialisable counters of the host.
        skip: paths (such as `.ring.data.obs`) to leave out.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"epoch_{step:06d}.npz"
    write_tree(path, state, {**meta, "epoch": step}, skip)
    return path


def mark_best(directory: Path, step: int, score: float) -> None:
    """Remember checkpoint `step` as the best; it is then kept by `prune`."""
    write_text(directory / _BEST, json.dumps({"epoch": step, "score": score}))


def prune(directory: Path, keep_periodic: int, every: int) -> None:
    """Delete what is neither among the newest two, nor the best, nor among the last `keep_periodic` multiples."""
    steps = available(directory)
    periodic = [step for step in steps if step % every == 0]
    kept = {*steps[-_KEEP_NEWEST:], *(periodic[-keep_periodic:] if keep_periodic else []), best_step(directory)}
    for step in steps:
        if step not in kept:
            _file(directory, step).unlink()


def available(directory: Path) -> list[int]:
    """Numbers of the checkpoints in `directory`, ascending."""
    names = (_NAME.fullmatch(entry.name) for entry in directory.glob("epoch_*.npz"))
    return sorted(int(name[1]) for name in names if name)


def best_step(directory: Path) -> int | None:
    path = directory / _BEST
    return int(json.loads(path.read_text())["epoch"]) if path.exists() else None


def restore(directory: Path, like: Any, step: Which = "latest", fill: bool = False) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint into the structure of `like` (arrays or `ShapeDtypeStruct`); a sub-tree reads only itself.

    Args:
        step: `latest` falls back to the checkpoint before it, and says so, when the newest is damaged.
        fill: take leaves that were skipped when saving from `like`.

    Raises:
        CheckpointError: nothing to restore, the wanted checkpoint is damaged, or its leaves are not those of `like`.
    """
    steps = available(directory)
    if step != "latest":
        number = best_step(directory) if step == "best" else step
        if number not in steps:
            have = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(f"{directory}: no checkpoint '{step}' (have epochs: {have})")
        return read_tree(_file(directory, number), like, fill)
    for index, number in reversed(list(enumerate(steps))):
        try:
            return read_tree(_file(directory, number), like, fill)
        except DamagedError as error:
            if index == 0:
                raise
            print(f"{error}; falling back to epoch {steps[index - 1]}", file=sys.stderr)
    raise CheckpointError(f"{directory}: no checkpoint")


def _file(directory: Path, step: int) -> Path:
    return directory / f"epoch_{step:06d}.npz"


def write_tree(path: Path, tree: Any, meta: dict[str, Any], skip: Callable[[str], bool] = lambda path: False) -> None:
    """Write the leaves of `tree` and `meta` to `path` in one atomic step."""
    named = {jax.tree_util.keystr(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    kept = {name: leaf for name, leaf in named.items() if not skip(name)}
    arrays = {name: _to_numpy(leaf) for name, leaf in kept.items()}
    key_kinds = {name: str(jax.random.key_impl(leaf)) for name, leaf in kept.items() if _is_key(leaf)}
    header = np.array(json.dumps({"meta": meta, "key_kinds": key_kinds}))
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as stream:
        np.savez(stream, allow_pickle=False, **{_HEADER: header, **arrays})
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def read_tree(path: Path, like: Any, fill: bool = False) -> tuple[Any, dict[str, Any]]:
    """The tree and `meta` of a file written by `write_tree`; see `restore`."""
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    try:
        with np.load(path, allow_pickle=False) as archive:
            header = json.loads(str(archive[_HEADER]))
            leaves = []
            for key_path, expected in paths:
                name = jax.tree_util.keystr(key_path)
                if name in archive.files:
                    key_kind = header["key_kinds"].get(name)
                    leaves.append(_from_numpy(archive[name], expected, key_kind, f"{path}: {name}"))
                elif fill:
                    leaves.append(expected)
                else:
                    raise CheckpointError(f"{path}: has no '{name}'; it was written by another configuration")
    except (CheckpointError, FileNotFoundError):
        raise
    except Exception as error:  # altered bytes can make the zip and array readers fail in any way
        raise DamagedError(f"checkpoint {path} is damaged ({' '.join(str(error).split())})") from error
    return jax.tree.unflatten(structure, leaves), header["meta"]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> np.ndarray:
    array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    # NumPy files know only NumPy's own types: bfloat16 and its relatives are kept as their bits.
    return array if array.dtype.kind != "V" else array.view(f"u{array.dtype.itemsize}")


def _from_numpy(array: np.ndarray, like: Any, key_kind: str | None, place: str) -> jax.Array:
    if key_kind is not None:
        restored = jax.random.wrap_key_data(jnp.array(array), impl=key_kind)
    else:
        foreign = not _is_key(like) and np.dtype(like.dtype).kind == "V"
        restored = jnp.array(array.view(like.dtype) if foreign else array)
    if restored.shape != like.shape or restored.dtype != like.dtype:
        raise CheckpointError(
            f"{place} is {restored.dtype}{list(restored.shape)}, expected {like.dtype}{list(like.shape)}; "
            "it was written by another configuration"
        )
    return restored
