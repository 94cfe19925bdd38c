"""Checkpoints of a run: saved by orbax while training goes on, whole or not there, and checked when read.

A checkpoint is a directory `epoch_000012`. Every top-level part of the saved tree is an item of its own in it, so that
a policy is read and checked without the replay; the item `host` holds the host's counters, the epoch that is the best,
and a table of all leaves. Orbax gives the directory its name only when everything has been written, so a process killed
at any moment leaves whole checkpoints and, perhaps, a temporary directory.

Reading order: names, `Writer`, `restore`, the leaves. `purerl.run.items` is what orbax does of it, and the digests.
"""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from purerl.errors import CheckpointError, DamagedError
from purerl.run import items
from purerl.run.bundle import is_key, require_same
from purerl.run.files import sync_directory, sync_file

_NAME = re.compile(r"epoch_(\d{6,})")
_LEFT = re.compile(r"epoch_\d{6,}\.(orbax-checkpoint-tmp.*|deleted)")
"""What a killed process leaves: a checkpoint that was not finished, or one that was being deleted."""
_KEEP_NEWEST = 2
"""The newest and the one before it, which is the fallback when the newest is damaged."""

Which = Literal["latest", "best"] | int
Paths = Callable[[str], bool]
"""Whether a leaf is meant, by its path in the tree, such as `['state'].ring.data`."""


def nothing(path: str) -> bool:
    return False


# Names


def available(directory: Path) -> list[int]:
    """Numbers of the checkpoints in `directory`, ascending.

    Raises:
        CheckpointError: there are only those of earlier versions, which cannot be read.
    """
    steps = sorted(int(name[1]) for entry in directory.glob("epoch_*") if (name := _NAME.fullmatch(entry.name)))
    if not steps and (old := sorted(directory.glob("epoch_*.npz"))):
        raise CheckpointError(
            f"{old[-1]}: written by an earlier version, whose checkpoints cannot be read; "
            "resume it with that version, or train anew"
        )
    return steps


def path_of(directory: Path, step: int) -> Path:
    return directory.absolute() / f"epoch_{step:06d}"  # orbax takes no relative paths


def best_step(directory: Path) -> int | None:
    """Number of the best checkpoint, as the newest that can be read says."""
    for step in reversed(available(directory)):
        with contextlib.suppress(DamagedError):
            return _host(path_of(directory, step))["best"]
    return None


# Writing


class Writer:
    """Saves the states of one run, one at a time, while training goes on.

    Args:
        directory: of the checkpoints of this run; nothing else writes there.
        keep_periodic: of the multiples of `every`, the last so many are kept beside the newest two and the best.
        skip: leaves that are not saved.
    """

    def __init__(self, directory: Path, keep_periodic: int = 0, every: int = 1, skip: Paths = nothing):
        self.directory, self.keep_periodic, self.every, self.skip = directory.absolute(), keep_periodic, every, skip
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._in_flight: Future[None] | None = None
        self.directory.mkdir(parents=True, exist_ok=True)
        for entry in self.directory.iterdir():
            if _LEFT.fullmatch(entry.name):
                shutil.rmtree(entry)

    def save(self, step: int, tree: Mapping[str, Any], meta: dict[str, Any], best: int | None = None) -> None:
        """Begin to write checkpoint number `step` (the epoch); first waits for the one before.

        The state is copied on its devices, so that `tree` may be donated as soon as this returns.

        Args:
            tree: named parts, each a pytree of arrays, typed PRNG keys included.
            meta: JSON-serialisable counters of the host.
            best: number of the best checkpoint so far, which is kept.

        Raises:
            CheckpointError: this or the checkpoint before could not be written.
        """
        self.wait()
        path = path_of(self.directory, step)
        leaves = {name: leaf for name, leaf in _named(tree).items() if not self.skip(name)}
        table = {name: _described(*leaf) for name, leaf in leaves.items()}
        # Orbax refuses arrays without elements; the table alone brings them back.
        copies = _copied({name: leaf for name, (_, leaf) in leaves.items() if leaf.size})
        parts = _by_part(table, copies)
        host = {"meta": {**meta, "epoch": step}, "best": best, "leaves": table}
        with _writing(path):
            if path.exists():  # damaged, or training would not be here again
                _delete(path)
            written = items.save({**parts, items.HOST: host}, path)
        self._in_flight = self._thread.submit(self._finish, written, path, step, best)

    def wait(self) -> None:
        """Return when nothing is being written any more.

        Raises:
            CheckpointError: the last checkpoint could not be written.
        """
        in_flight, self._in_flight = self._in_flight, None
        if in_flight is not None:
            in_flight.result()

    def _finish(self, written: Any, path: Path, step: int, best: int | None) -> None:
        with _writing(path):
            written.result()
            for file in path.iterdir():  # orbax's own; those of the items are on the disk
                if file.is_file():
                    sync_file(file)
            sync_directory(path)
            sync_directory(self.directory)  # before any other is deleted
            self._prune(step, best)

    def _prune(self, step: int, best: int | None) -> None:
        """Delete what is neither among the newest two, nor the best, nor among the last periodic ones.

        Later ones were damaged, or training would not have come back to `step`.
        """
        steps = available(self.directory)
        until_now = [number for number in steps if number <= step]
        periodic = [number for number in until_now if number % self.every == 0]
        kept = {*until_now[-_KEEP_NEWEST:], *(periodic[-self.keep_periodic :] if self.keep_periodic else []), best}
        for number in steps:
            if number not in kept:
                _delete(path_of(self.directory, number))


def _delete(path: Path) -> None:
    """In two steps: a checkpoint that has lost some of its files must not bear the name of one."""
    renamed = path.with_name(f"{path.name}.deleted")
    shutil.rmtree(renamed, ignore_errors=True)
    os.rename(path, renamed)
    shutil.rmtree(renamed)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a full disk shows as an error of the system, of orbax or of its storage
        text = " ".join(str(error).split())
        raise CheckpointError(f"checkpoint {path} could not be written ({type(error).__name__}: {text})") from error


# Reading


def restore(
    directory: Path, like: Mapping[str, Any], step: Which = "latest", fill: Paths = nothing
) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint into the structure of `like`: some of the saved parts, whole or with some of their leaves.

    Args:
        like: leaves are arrays or `ShapeDtypeStruct`; each is laid out over the devices as its `sharding` says, and
            lies on the default device where it has none. The devices that saved do not matter.
        step: `latest` falls back to the checkpoint before it, and says so, when the newest is damaged.
        fill: leaves that are taken from `like` where they were skipped when saving.

    Raises:
        CheckpointError: nothing to restore, the wanted checkpoint is damaged, or its leaves are not those of `like`.
    """
    steps = available(directory)
    if step != "latest":
        number = best_step(directory) if step == "best" else step
        if number not in steps:
            have = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(f"{directory}: no checkpoint '{step}' (have epochs: {have})")
        return _read(path_of(directory, number), like, fill)
    for index, number in reversed(list(enumerate(steps))):
        try:
            return _read(path_of(directory, number), like, fill)
        except DamagedError as error:
            if index == 0:
                raise
            print(f"{error}; falling back to epoch {steps[index - 1]}", file=sys.stderr)
    raise CheckpointError(f"{directory}: no checkpoint")


def arrays(directory: Path, step: int) -> dict[str, np.ndarray]:
    """All leaves of a checkpoint by their paths, keys as numbers: to look into one without its program.

    Raises:
        DamagedError: the checkpoint is not what was written, or not there.
    """
    path = path_of(directory, step)
    table, layout = _host(path)["leaves"], _default_layout()
    return {name: np.asarray(value) for name, value in _load(path, table, dict.fromkeys(table, layout)).items()}


def _read(path: Path, like: Mapping[str, Any], fill: Paths) -> tuple[Any, dict[str, Any]]:
    host = _host(path)
    expected, table, default = _named(like), host["leaves"], _default_layout()
    for name, (_, leaf) in expected.items():
        if name in table:
            require_same(table[name]["dtype"], table[name]["shape"], leaf, f"{path}: {name}")
        elif not fill(name):
            raise DamagedError(f"{path}: has no '{name}'; it was written by another configuration")
    layouts = {name: getattr(leaf, "sharding", None) or default for name, (_, leaf) in expected.items()}
    loaded = _load(path, table, {name: layout for name, layout in layouts.items() if name in table})
    restored = [
        _typed(loaded[name], table[name]["key"]) if name in loaded else leaf for name, (_, leaf) in expected.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), restored), host["meta"]


def _host(path: Path) -> dict[str, Any]:
    return items.load({items.HOST: None}, path)[items.HOST]


def _load(path: Path, table: Mapping[str, Any], layouts: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
    """Some leaves as they are stored, laid out over the devices as wanted."""
    like = {
        name: jax.ShapeDtypeStruct(table[name]["stored_shape"], table[name]["stored_dtype"], sharding=layout)
        for name, layout in layouts.items()
    }
    parts = _by_part(table, {name: leaf for name, leaf in like.items() if leaf.size})
    stored = items.load(parts, path) if parts else {}
    loaded = {name: value for part in stored.values() for name, value in part.items()}
    for name, leaf in like.items():
        if not leaf.size:
            loaded[name] = jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)
        require_same(loaded[name].dtype, loaded[name].shape, leaf, f"{path}: {name}")  # orbax casts what differs
    return loaded


def _default_layout() -> jax.sharding.Sharding:
    return jnp.zeros(()).sharding


# Leaves


def _named(tree: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Top-level part (an item of the checkpoint) and leaf, by its path in the tree; in the order of its leaves."""
    assert items.HOST not in tree
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): (str(path[0].key), leaf) for path, leaf in paths}


def _described(part: str, leaf: Any) -> dict[str, Any]:
    """A row of the table: the leaf, and how it is stored (keys as numbers)."""
    kind = str(jax.random.key_impl(leaf)) if is_key(leaf) else None
    stored = leaf if kind is None else jax.eval_shape(jax.random.key_data, leaf)
    return {
        "part": part,
        "dtype": str(leaf.dtype),
        "shape": list(leaf.shape),
        "key": kind,
        "stored_dtype": str(stored.dtype),
        "stored_shape": list(stored.shape),
    }


def _by_part(table: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        parts.setdefault(table[name]["part"], {})[name] = value
    return parts


def _copied(leaves: dict[str, Any]) -> dict[str, jax.Array]:
    """Copies on the devices where the leaves are, keys as numbers: one call for all that lie on the same devices."""
    groups: dict[Any, dict[str, Any]] = {}
    for name, leaf in leaves.items():
        devices = leaf.sharding.device_set if isinstance(leaf, jax.Array) else ()
        groups.setdefault(frozenset(devices), {})[name] = leaf
    return {name: copy for group in groups.values() for name, copy in _copy(group).items()}


@jax.jit
def _copy(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.copy(jax.random.key_data(leaf) if is_key(leaf) else leaf) for name, leaf in leaves.items()}


def _typed(stored: jax.Array, kind: str | None) -> jax.Array:
    return stored if kind is None else jax.random.wrap_key_data(stored, impl=kind)
