"""The configuration of a run or a sweep in its directory: `config.yaml`, whose last line is a checksum of the rest."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from purerl.config import RunConfig, load_config
from purerl.run.files import damaged, read_text, write_text

CONFIG = "config.yaml"
CHECKSUM = "# sha256 of all lines above: "


def write_config(directory: Path, config: RunConfig) -> None:
    """Replace the file in one atomic step."""
    text = config.to_yaml()
    write_text(directory / CONFIG, f"{text}{CHECKSUM}{_digest(text)}\n")


def read_config(directory: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """What the directory was begun with, with overrides; a file without a checksum is taken as it is.

    Raises:
        FileNotFoundError: not the directory of a run.
        DamagedError: the file is not what was written. ConfigError: what `load_config` refuses.
    """
    path = directory / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{directory}: not a run directory (no {CONFIG})")
    text = read_text(path, "restore it")
    lines, found, digest = text.partition(CHECKSUM)
    if found and digest != f"{_digest(lines)}\n":
        remedy = "restore it, or take out the last line if it was changed on purpose"
        raise damaged(path, "does not fit the checksum in its last line", remedy)
    return load_config(path, overrides)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
