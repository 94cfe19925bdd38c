"""Where and with what numbers were made: versions, commit, device; and `metadata.json`, which keeps it."""

import importlib.metadata
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from purerl.errors import DamagedError
from purerl.run.files import read_json, sealed, write_json

METADATA = "metadata.json"
PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "purerl")


def surroundings() -> dict[str, Any]:
    """What a run directory keeps about the process that worked on it."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "num_devices": jax.device_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
    }


def read_metadata(directory: Path, warn: bool = False) -> dict[str, Any]:
    """What the directory of a run or a sweep says about itself: nothing where there is no such file, or a damaged one.

    Nothing that decides numbers is in it: a continued run takes its counters from the checkpoint and writes it anew.
    """
    try:
        return read_json(directory / METADATA, "written anew, but when and how often the run was started is lost")
    except FileNotFoundError:
        return {}
    except DamagedError as error:
        if warn:
            print(f"warning: {error}", file=sys.stderr)
        return {}


def write_metadata(directory: Path, values: dict[str, Any]) -> None:
    write_json(directory / METADATA, sealed(values))


def is_complete(directory: Path) -> bool:
    """Whether nothing is left to do for the run or the sweep of a directory."""
    return read_metadata(directory).get("status") in ("finished", "early_stopped")


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the source tree that this file is in, if it is one."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
