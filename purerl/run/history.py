"""What a run has logged and scored so far: kept in memory while it trains, read back where it is resumed or drawn.

The training log is there twice. Rows that `training_progress.csv` has lost are made from `metrics.jsonl`; what neither
has is said and left out.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from purerl.config import RunConfig
from purerl.errors import DamagedError
from purerl.run.evaluation import Result
from purerl.run.files import read_json
from purerl.run.metrics import EPISODE_PREFIX, EXTREMES
from purerl.types import Policy

CSV_NAME, JSONL_NAME = "training_progress.csv", "metrics.jsonl"
EVALUATION = "epoch_{:06d}.json"
"""Name of the report of an evaluation during training, in `eval/`."""
REPORT_KEYS = ("split", "unit", "policy_per_seed", "baselines", "bound", "percent_of_bound_per_seed", "detail")
"""What is drawn of the report of an evaluation."""
COUNTERS = ("epoch", "update", "env_steps", "agent_steps", "gradient_steps", "episode", "frames")
SINGLE_UPDATES_UP_TO = 50
"""Updates per epoch up to which the JSON lines hold every update; beyond that, one mean per epoch."""
FOLDS = {name.removeprefix(EPISODE_PREFIX): {"min": min, "max": max}[fold] for name, fold in EXTREMES.items()}

Row = dict[str, Any]


class History(NamedTuple):
    progress: list[Row]
    """One row per epoch, under the columns of the CSV; None where nothing is known."""
    evaluations: list[dict[str, Any]]
    """Reports of the evaluations during training, ascending."""


class Ending(NamedTuple):
    """All that is shown of a run that has ended."""

    history: History
    result: Result
    """The final score,"""
    report: dict[str, Any]
    """as it is written,"""
    steps: list[Row]
    """and the rows of its table of steps."""
    policies: Policy
    """Those that were scored, with a leading seed axis."""
    best_scores: list[float] | None
    """Best evaluation of every seed."""


def read_history(run_dir: Path, config: RunConfig, last_epoch: int | None = None) -> History:
    """History of a run from its directory; one line on stderr for each file that has lost something.

    Args:
        last_epoch: up to which it is wanted, and expected; None: whatever is there.
    """
    return History(_read_progress(run_dir, config, last_epoch), list(_read_evaluations(run_dir / "eval", last_epoch)))


def _read_progress(run_dir: Path, config: RunConfig, last_epoch: int | None) -> list[Row]:
    logged, lines = read_csv(run_dir / CSV_NAME), read_jsonl(run_dir / JSONL_NAME)
    by_epoch = _by_epoch(row for _, row in lines)
    last = max([*logged, *by_epoch], default=0) if last_epoch is None else last_epoch
    lost = [epoch for epoch in range(1, last + 1) if epoch not in logged]
    made = {epoch: _mean_row(by_epoch[epoch]) for epoch in lost if epoch in by_epoch and _closes(by_epoch[epoch][-1])}
    if config.logging.csv:
        path = run_dir / CSV_NAME
        _warn(path, made, f"lost or damaged; taken from {JSONL_NAME}: means over updates, without times")
        _warn(path, [epoch for epoch in lost if epoch not in made], f"lost or damaged, and not in {JSONL_NAME} either")
    rows = {**logged, **made}
    return [rows[epoch] for epoch in sorted(rows) if epoch <= last]


def _warn(path: Path, epochs: Iterable[int], what: str) -> None:
    if epochs := list(epochs):
        print(f"warning: {path}: {_listed(epochs)} {what}", file=sys.stderr)


def _listed(epochs: Sequence[int]) -> str:
    """`epochs 1-3, 7`."""
    starts = [e for e in epochs if e - 1 not in epochs]
    ends = [e for e in epochs if e + 1 not in epochs]
    spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return f"epoch{'s' if len(epochs) > 1 else ''} {', '.join(spans)}"


# The CSV


def read_csv(path: Path) -> dict[int, Row]:
    """Epoch -> row, of the rows that are whole; none where the header is not."""
    if not path.exists():
        return {}
    # What follows the last line break was left by a process that was killed.
    header, *lines = [line.split(",") for line in path.read_bytes().decode(errors="replace").split("\n")[:-1]] or [[""]]
    if header[0] != "epoch" or "" in header or len(set(header)) < len(header):
        return {}
    rows = {}
    for cells in lines:
        try:
            row = dict(zip(header, map(_number, cells), strict=True))
        except ValueError:
            continue
        if isinstance(row["epoch"], int) and row["epoch"] > 0:
            rows[row["epoch"]] = row
    return rows


def _number(cell: str) -> float | int | None:
    if not cell:
        return None
    # Written again, it has to give the same text: not an integer are 1e5 and -0.
    return int(cell) if cell.isascii() and cell.isdigit() else float(cell)


# The JSON lines


def read_jsonl(path: Path) -> list[tuple[str, Row]]:
    """Lines, with their line break, and what they hold, of those that can be read."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().decode(errors="replace").split("\n")[:-1]:
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(row, dict) and _is_line(row):
            found.append((f"{line}\n", row))
    return found


def _is_line(row: Row) -> bool:
    numbers = all(value is None or isinstance(value, int | float) for name, value in row.items() if name != "per_seed")
    return numbers and isinstance(row.get("epoch"), int) and isinstance(row.get("update"), int)


def warn_of_holes(path: Path, rows: Iterable[Row], last_epoch: int) -> None:
    """Say which epochs up to the last one are not whole in the JSON lines."""
    by_epoch = _by_epoch(rows)
    ends = {0: 0} | {epoch: own[-1]["update"] for epoch, own in by_epoch.items() if _closes(own[-1])}

    def whole(epoch: int) -> bool:
        if epoch not in ends or epoch - 1 not in ends:
            return epoch in ends
        updates = ends[epoch] - ends[epoch - 1]
        return len(by_epoch[epoch]) == (updates if updates <= SINGLE_UPDATES_UP_TO else 1)

    holes = [epoch for epoch in range(1, last_epoch + 1) if not whole(epoch)]
    _warn(path, holes, "lost or damaged, wholly or in part")


def _closes(row: Row) -> bool:
    """Whether a line is the last of its epoch: that has the counters of the whole epoch."""
    return "episode" in row


def _by_epoch(rows: Iterable[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["epoch"], []).append(row)
    return found


def _mean_row(rows: Sequence[Row]) -> Row:
    """A row of the CSV from an epoch's lines. They do not say how many episodes each update ended: all count alike."""
    row = {name: rows[-1][name] for name in COUNTERS if name in rows[-1]}
    for name in dict.fromkeys(name for each in rows for name in each):
        if name not in COUNTERS and name != "per_seed":
            known = [each[name] for each in rows if each.get(name) is not None]
            row[name] = FOLDS.get(name, _mean)(known) if known else None
    return row


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# Evaluations


def _read_evaluations(directory: Path, last_epoch: int | None) -> Iterable[dict[str, Any]]:
    for path in sorted(directory.glob("epoch_*.json")):
        if last_epoch is not None and path.name > EVALUATION.format(last_epoch):
            return
        try:
            yield read_json(path, "left out of figures", ("epoch", *REPORT_KEYS))
        except DamagedError as error:
            print(f"warning: {error}", file=sys.stderr)
