"""A market table as it lies in its file: reading it, choosing its zone, and complaints that name the place.

Reading order: `Table`, `read_table`, `only_zone`, then the numbers of a column and the one way to refuse a row.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

_MISSING_CELLS = ("", "nan", "na", "n/a", "null", "none")


class DataError(ValueError):
    """A table or a split that cannot be used; the message is one line with place and remedy."""


@dataclass(frozen=True, eq=False)
class Table:
    frame: pd.DataFrame
    """Cells as read (text for CSV), indexed by the row number in the file."""
    path: Path
    is_csv: bool

    def at(self, row: int) -> str:
        """Place of the row with index label `row`: the header of a CSV is line 1."""
        return f"{self.path}:{row + 2}" if self.is_csv else f"{self.path}, row {row + 1}"

    def first_of(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self.frame.columns), None)

    def missing_column(self, what: str) -> DataError:
        present = ", ".join(map(str, self.frame.columns))
        return DataError(f"{self.path}: no column {what}; it has {present}: rename one or add it")

    def first_row(self, mask: np.ndarray) -> int:
        return int(self.frame.index[int(np.argmax(mask))])


def read_table(path: Path) -> Table:
    if not path.is_file():
        raise DataError(_not_found(path))
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; give a table with one row per hour")
    is_csv = path.suffix.lower() not in (".parquet", ".pq")
    frame = _read_csv(path) if is_csv else _read_parquet(path)
    frame.columns = frame.columns.map(lambda name: str(name).strip())
    if frame.empty:
        raise DataError(f"{path}: the table is empty (a header without rows); give a table with one row per hour")
    return Table(frame, path, is_csv)


def _not_found(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    remedy = f"did you mean {path.parent / near[0]}?" if near else "leave env.data_path empty for the packaged table"
    return f"{path}: no such file; {remedy}"


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        # Text cells and kept blank lines: only so can an error name the line and show what stands there.
        options = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False, "index_col": False}
        frame = pd.read_csv(path, encoding="utf-8-sig", **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, OSError) as error:
        raise DataError(f"{path}: not a comma-separated UTF-8 table ({_one_line(error)}); export it as CSV") from error
    # A short line is padded with NaN by the reader, hence fillna.
    frame = frame.reset_index(drop=True).fillna("")
    return frame[(frame != "").any(axis=1)]


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs pyarrow; install it or give a CSV file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable parquet file ({_one_line(error)}); export it again") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def only_zone(table: Table, zone: str | None) -> Table:
    if "zone" not in table.frame.columns:
        if zone is not None:
            raise DataError(f"{table.path}: env.zone={zone} but the table has no column zone; leave env.zone out")
        return table
    names = table.frame["zone"].astype(str).str.strip()
    present = sorted(set(names))
    if zone is None and len(present) > 1:
        raise DataError(f"{table.path}: has the zones {', '.join(present)}; choose one with env.zone={present[0]}")
    if zone is not None and zone not in present:
        raise DataError(f"{table.path}: no zone {zone}; choose env.zone from {', '.join(present)}")
    return table if zone is None else Table(table.frame[names == zone], table.path, table.is_csv)


def numbers(table: Table, column: str) -> np.ndarray:
    """float64 [N], NaN for empty cells; text and infinities are errors."""
    cells = table.frame[column]
    if pd.api.types.is_numeric_dtype(cells):
        values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        text = cells.astype(str).str.strip()
        empty = text.str.lower().isin(_MISSING_CELLS) | cells.isna()
        values = pd.to_numeric(text.mask(empty), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        refuse(table, column, np.isnan(values) & ~empty.to_numpy(), "is not a number; correct it")
    refuse(table, column, np.isinf(values), "is not finite; correct it")
    return values


def refuse(table: Table, column: str, bad: np.ndarray, complaint: str) -> None:
    """Raises for the first row where `bad` [N] is true, with its place and content."""
    if bad.any():
        row = table.first_row(bad)
        content = str(table.frame.at[row, column])[:40]
        raise DataError(f"{table.at(row)}: {column} {content!r} {complaint}")
