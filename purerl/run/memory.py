"""What a program will hold in memory, from the shapes of its arrays alone, and what the machine has.

An estimate from below, and cheap: nothing is compiled. It counts arguments, results and what loops carry and collect;
what happens between two operations is left to the compiler. So what is refused cannot fit, and what is not may still
be too much.

Reading order: sizes of shapes, of a traced program, what the machine has, `require_room`.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.interpreters import partial_eval

from purerl.errors import ConfigError

LOOPS = ("scan", "while")


class Part(NamedTuple):
    what: str
    size_bytes: int
    keys: tuple[str, ...]
    """Of the configuration, or flags, that decide it."""


def bytes_of(tree: Any) -> int:
    """Of all arrays, or their shapes, in a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))


def bytes_in_loops(traced: Any) -> int:
    """Most that the nested loops of a traced program (`jax.jit(f).trace(...)`) carry and collect at one time."""
    jaxpr = traced.jaxpr.jaxpr
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))  # as the compiler drops what nobody reads
    return _held(used)


def _held(jaxpr: Any) -> int:
    most = 0
    for equation in jaxpr.eqns:
        own = bytes_of([v.aval for v in equation.outvars]) if equation.primitive.name in LOOPS else 0
        most = max(most, own + max(map(_held, _inner(equation.params.values())), default=0))
    return most


def _inner(values: Any) -> Iterator[Any]:
    """Programs among the parameters of an operation."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _inner(value)
        elif hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)


def available_bytes() -> int:
    """Free memory of the first device: of the machine where that is a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return min(_free_ram(), _free_in_group())


def _free_ram() -> int:
    path = Path("/proc/meminfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_in_group() -> int:
    """What a container leaves; as good as endless without one."""
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    try:
        return int(limit.read_text()) - int(used.read_text())
    except (OSError, ValueError):
        return 2**63


def require_room(parts: Sequence[Part]) -> str:
    """One line that says what the parts take together and what there is.

    Raises:
        ConfigError: they cannot fit; the line names the keys of the largest part.
    """
    needed, free = sum(part.size_bytes for part in parts), available_bytes()
    listed = ", ".join(f"{part.what} {shown(part.size_bytes)}" for part in parts)
    largest = max(parts, key=lambda part: part.size_bytes)
    if needed > free:
        raise ConfigError(
            f"memory: this needs at least {shown(needed)} ({listed}) and {shown(free)} are free; "
            f"lower {' or '.join(largest.keys)}"
        )
    return f"memory: at least {shown(needed)} ({listed}) of {shown(free)} free; decided by {', '.join(largest.keys)}"


def shown(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.0f} TB"
