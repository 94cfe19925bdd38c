"""Small files: replaced in one atomic step, and read with damage told in one line.

Reading order: text, JSON and its seal, CSV. Whatever a run or a sweep reads back of its own goes through the functions
here, so that a damaged file is named together with what puts it right.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from purerl.errors import DamagedError

if TYPE_CHECKING:
    import pandas as pd

SEAL = "sha256"
"""Entry of a sealed JSON file: the digest of all others."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a small file in one atomic step."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Replace a small text file in one atomic step."""
    write_bytes(path, text.encode())


def sync_file(path: Path) -> None:
    """Make the content of a file survive a power cut."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: Path, remedy: str) -> str:
    """The text of a file.

    Args:
        remedy: what the user can do when it is damaged; it ends the message.

    Raises:
        DamagedError: not text. FileNotFoundError: no such file.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise damaged(path, "not text", remedy) from error


def damaged(path: Path, why: object, remedy: str) -> DamagedError:
    return DamagedError(f"{path}: damaged ({why}); {remedy}")


# JSON


def json_text(value: Any) -> str:
    """NumPy numbers become numbers, and what is not finite becomes null."""
    return json.dumps(json_ready(value), indent=2, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step, see `json_text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json_text(value))


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with a digest of it under `SEAL`, for `write_json`; `read_json` then notices any change."""
    ready = json_ready(value)
    return {**ready, SEAL: _digest(ready)}


def read_json(path: Path, remedy: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping in a JSON file, without its seal; a seal that is there has to fit.

    Args:
        remedy: see `read_text`.
        keys: that have to be there.

    Raises:
        DamagedError: not a JSON mapping, altered since it was sealed, or a key is missing.
        FileNotFoundError: no such file.
    """
    try:
        value = json.loads(read_text(path, remedy))
    except (json.JSONDecodeError, RecursionError) as error:
        raise damaged(path, error, remedy) from error
    if not isinstance(value, dict):
        raise damaged(path, "not a mapping", remedy)
    seal = value.pop(SEAL, None)
    if seal is not None and seal != _digest(value):
        raise damaged(path, f"does not fit its {SEAL}", remedy)
    missing = [key for key in keys if key not in value]
    if missing:
        raise damaged(path, f"without '{missing[0]}'", remedy)
    return value


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def json_ready(value: Any) -> Any:
    """As `json_text` writes it and `read_json` gives it back."""
    if isinstance(value, Mapping):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return json_ready(np.asarray(value).tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


# CSV


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, header: bool = True) -> str:
    """Rows below each other; numbers have nine digits, None, NaN and what a row does not have are empty.

    Args:
        columns: default: those of all rows, in the order in which they come up.
    """
    text = io.StringIO()
    names = columns or list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    if header and names:
        writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Replace a CSV file in one step, see `csv_text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, csv_text(rows, columns))


def _cell(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value


def read_table(path: Path, remedy: str, numbers: Sequence[str] = ()) -> "pd.DataFrame":
    """A CSV file as a data frame.

    Args:
        remedy: see `read_text`.
        numbers: columns that have to be there and hold numbers or nothing.

    Raises:
        DamagedError: no table, or one without these columns. FileNotFoundError: no such file.
    """
    import pandas as pd  # takes a second, and training reads no tables

    try:
        table = pd.read_csv(path)
    except ValueError as error:  # also what pandas raises of its own, and text that is none
        raise damaged(path, error, remedy) from error
    if not isinstance(table.index, pd.RangeIndex):
        raise damaged(path, "rows are longer than the header", remedy)
    for name in numbers:
        if name not in table:
            raise damaged(path, f"without column '{name}'", remedy)
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise damaged(path, f"column '{name}' holds more than numbers", remedy)
    return table
