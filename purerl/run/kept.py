"""What an environment gives a run to keep, so that a policy meets the same world whenever the run is opened.

`checkpoints/calibration.json` holds what was fitted on the training data, where there is such, and `data.json` which
data those were and a digest of the calibration. Both are written when a run starts and never change.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from envs_jax.base import Environment
from purerl.run import checkpoint
from purerl.run.files import damaged, read_json, sealed, write_json

CALIBRATION = Path("checkpoints") / "calibration.json"
DATA = "data.json"
_REMEDY = "restore it from a copy of the run: without it nobody knows what the policy was trained with"
_KEYS = ("calibration_sha256", "provenance")


class Kept(NamedTuple):
    """`Environment.calibration` and `Environment.provenance` of the training; None where it has none."""

    calibration: Mapping[str, Any] | None
    provenance: Mapping[str, Any] | None


def write_kept(run_dir: Path, env: Environment) -> None:
    if env.assessment.calibration is not None:
        write_json(run_dir / CALIBRATION, dict(env.assessment.calibration))
    digest = None if env.assessment.calibration is None else _digest(run_dir / CALIBRATION)
    write_json(run_dir / DATA, sealed({"calibration_sha256": digest, "provenance": env.assessment.provenance}))


def read_kept(run_dir: Path) -> Kept:
    """What a run was trained with.

    Raises:
        DamagedError: a file is missing or is not what was written.
    """
    calibration, data = run_dir / CALIBRATION, run_dir / DATA
    if not data.exists():
        raise damaged(data, "missing", _REMEDY)
    stored = read_json(data, _REMEDY, _KEYS)
    if set(stored) != set(_KEYS):
        raise damaged(data, "with keys that nobody wrote", _REMEDY)
    digest = stored["calibration_sha256"]
    if digest is None:
        return Kept(None, stored["provenance"])
    if not calibration.exists():
        raise damaged(calibration, "missing", _REMEDY)
    if digest != _digest(calibration):
        raise damaged(calibration, f"does not fit the digest in {DATA}", _REMEDY)
    return Kept(read_json(calibration, _REMEDY), stored["provenance"])


def kept_so_far(run_dir: Path) -> Kept | None:
    """`read_kept` for a run that is resumed; None where it was ended before it had computed anything."""
    begun = (run_dir / DATA).exists() or checkpoint.available(run_dir / "checkpoints")
    return read_kept(run_dir) if begun else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
