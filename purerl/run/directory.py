"""The directory of a run: opening it, refusing to mix runs, and its first metadata."""

import contextlib
from pathlib import Path
from typing import Any, Literal

from purerl.config import RunConfig, config_hash, first_difference
from purerl.errors import ConfigError
from purerl.run import logs
from purerl.run.kept import DATA, write_kept
from purerl.run.metadata import now, read_metadata, surroundings
from purerl.run.plan import Plan
from purerl.run.runs import Run
from purerl.run.stored_config import CONFIG, read_config, write_config

Status = Literal["running", "finished", "early_stopped", "interrupted", "diverged"]


def check_run_dir(config: RunConfig, run_dir: Path, resume: bool, flag: str = "--run-dir") -> None:
    """Refuse to mix runs; nothing has been written when this raises. `flag` names the directory in messages."""
    if not resume:
        if run_dir.is_dir() and any(run_dir.iterdir()):
            raise ConfigError(f"{run_dir}: run directory is not empty; add --resume or choose another {flag}")
        return
    if not (run_dir / CONFIG).exists():
        raise ConfigError(f"{run_dir}: nothing to resume (no {CONFIG}); start it without --resume")
    difference = first_difference(read_config(run_dir), config)
    if difference:
        raise ConfigError(f"{run_dir}: holds a run with another configuration: {difference}")


MOST_AT_ONCE = 10_000
"""Directories of one name and second."""


def claim(path: Path) -> Path:
    """A new directory for this process alone: `path`, or where another process was first `path_2`, `path_3`, ...

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, MOST_AT_ONCE):
            free = path if number == 1 else path.with_name(f"{path.name}_{number}")
            with contextlib.suppress(FileExistsError):
                free.mkdir()  # fails where it exists: of two processes one makes it
                return free
    except OSError as error:
        raise ConfigError(f"{path}: directory cannot be made: {error.strerror}") from error
    raise ConfigError(f"{path}: so many of this name exist already; name one yourself")


def open_run_dir(config: RunConfig, run_dir: Path, trained: Run, resume: bool) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not resume and any(run_dir.iterdir()):  # another process may have been first since `check_run_dir`
            raise ConfigError(f"{run_dir}: run directory is not empty any more; choose another")
        write_config(run_dir, config)  # first: from here on it can be resumed
        for name in ("checkpoints", "eval", "plots", "policy", logs.TENSORBOARD_NAME):
            (run_dir / name).mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{run_dir}: run directory cannot be written: {error.strerror}") from error
    if not (run_dir / DATA).exists():
        write_kept(run_dir, trained.env)


def first_metadata(config: RunConfig, plan: Plan, resumed_dir: Path | None) -> dict[str, Any]:
    """What does not change while the run lasts. `sessions` counts the processes that worked on it."""
    earlier = read_metadata(resumed_dir, warn=True) if resumed_dir else {}
    return {
        "algorithm": config.algo["name"],
        "environment": config.env["name"],
        "seed": config.seed,
        "num_seeds": config.num_seeds,
        "created": earlier.get("created", now()),
        "sessions": earlier.get("sessions", 0) + 1,
        "config_hash": config_hash(config),
        "epochs": plan.epochs,
        "updates": plan.updates,
        "updates_per_epoch": plan.updates_per_epoch,
        **surroundings(),
    }
