"""What a run leaves behind while it trains: CSV, JSON lines, TensorBoard and Weights & Biases.

Reading order: the record of an epoch, its rows, one writer per format. A writer is a pair of functions; `open_logs`
combines those that the configuration asks for. When a run is resumed, every file is cut back to the epoch of the
checkpoint first, so that nothing appears twice.
"""

import json
import os
import re
import secrets
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from purerl.config import Logging, RunConfig
from purerl.errors import ConfigError
from purerl.run.files import csv_text, damaged, read_text, write_csv, write_text
from purerl.run.history import COUNTERS, CSV_NAME, JSONL_NAME, SINGLE_UPDATES_UP_TO, Row, read_jsonl, warn_of_holes
from purerl.run.metrics import EPISODE_PREFIX, Series, by_seed, mean_over_seeds

TENSORBOARD_NAME, WANDB_NAME = "tensorboard", "wandb_id"
EVALUATION_COLUMNS = ("eval_score", "eval_return", "eval_percent_of_bound", "eval_q_start_bias")
TIMING_COLUMNS = ("wall_clock_s", "env_steps_per_s", "gradient_steps_per_s")


class Epoch(NamedTuple):
    """All that is logged after a chunk of updates. Counters are totals since the start of the run, per seed."""

    epoch: int
    update: int
    env_steps: int
    agent_steps: int
    gradient_steps: int
    episode: int
    frames: int | None
    """Of the world, warm-up apart; None where every step is one."""
    metrics: dict[str, Series]
    score_unit: str
    """Of `eval_score`; empty where this epoch was not evaluated."""
    evaluation: dict[str, float | None]
    """`EVALUATION_COLUMNS` where this epoch was evaluated, and the streaks of the environment's milestones, if any."""
    timing: dict[str, float]
    env_steps_per_update: int
    gradient_steps_per_update: int

    @property
    def clock(self) -> int:
        """What curves are drawn over: environment steps, or gradient steps of an algorithm that takes none."""
        return self.env_steps if self.env_steps_per_update else self.gradient_steps

    def counters(self) -> dict[str, int]:
        known = {name: getattr(self, name) for name in COUNTERS}
        return {name: count for name, count in known.items() if count is not None}

    def means(self) -> dict[str, float | None]:
        """Of the whole chunk, averaged over the seeds."""
        return {name: mean_over_seeds(by_seed(series)) for name, series in self.metrics.items()}


def _column(name: str) -> str:
    return name.removeprefix(EPISODE_PREFIX)


def csv_row(epoch: Epoch) -> Row:
    """The epoch under the columns of the CSV."""
    metrics = dict(sorted(epoch.means().items(), key=lambda item: not item[0].startswith(EPISODE_PREFIX)))
    evaluation = dict.fromkeys(EVALUATION_COLUMNS) | dict(epoch.evaluation)
    return {**epoch.counters(), **{_column(k): v for k, v in metrics.items()}, **evaluation, **epoch.timing}


def _json_rows(epoch: Epoch) -> list[dict[str, Any]]:
    """One row per update, or per epoch when those are many; timing is left out so that equal runs give equal files."""
    updates, seeds = next(iter(epoch.metrics.values())).value.shape
    spans = [slice(i, i + 1) for i in range(updates)] if updates <= SINGLE_UPDATES_UP_TO else [slice(0, updates)]
    rows = []
    for span in spans:
        behind = updates - span.stop
        row: dict[str, Any] = {
            "epoch": epoch.epoch,
            "update": epoch.update - behind,
            "env_steps": epoch.env_steps - behind * epoch.env_steps_per_update,
            "gradient_steps": epoch.gradient_steps - behind * epoch.gradient_steps_per_update,
        }
        per_seed = {_column(name): by_seed(series, span) for name, series in epoch.metrics.items()}
        row |= {name: mean_over_seeds(values) for name, values in per_seed.items()}
        if seeds > 1:
            row["per_seed"] = per_seed
        rows.append(row)
    totals = {"agent_steps": epoch.agent_steps, "episode": epoch.episode, "frames": epoch.frames}
    rows[-1] |= {name: total for name, total in totals.items() if total is not None}
    rows[-1] |= epoch.evaluation
    return rows


# Writers


class Writer(NamedTuple):
    write: Callable[[Epoch], None]
    close: Callable[[], None]


def open_logs(
    run_dir: Path, config: RunConfig, resumed_epoch: int, resumed_clock: int, earlier: Sequence[Row] = ()
) -> Writer:
    """A writer for every format that is switched on; what lies beyond the resumed epoch is removed first.

    Args:
        earlier: rows of the CSV up to the resumed epoch.
    """
    settings = config.logging
    writers = []
    if settings.csv:
        writers.append(_csv_writer(run_dir / CSV_NAME, earlier))
    if settings.jsonl:
        writers.append(_jsonl_writer(run_dir / JSONL_NAME, resumed_epoch))
    if settings.tensorboard:
        writers.append(_tensorboard_writer(run_dir / TENSORBOARD_NAME, resumed_epoch, resumed_clock))
    if settings.wandb is not None:
        writers.append(_wandb_writer(run_dir, config))
    if settings.saturation_warning is not None:
        writers.append(_saturation_warning(settings))

    def write(epoch: Epoch) -> None:
        for writer in writers:
            writer.write(epoch)

    def close() -> None:
        for writer in writers:
            writer.close()

    return Writer(write, close)


def _csv_writer(path: Path, earlier: Sequence[Row]) -> Writer:
    """Earlier rows first, which may have lost columns: then all are written under those of the first new row."""
    earlier = list(earlier)
    columns = list(dict.fromkeys(name for row in earlier for name in row))
    write_csv(path, earlier, columns)
    stream = open(path, "a")  # noqa: SIM115 - open for the length of the run

    def write(epoch: Epoch) -> None:
        nonlocal columns, stream
        row = csv_row(epoch)
        if not set(row) <= set(columns):
            stream.close()
            columns = list(dict.fromkeys([*row, *columns]))
            write_csv(path, earlier, columns)
            stream = open(path, "a")  # noqa: SIM115
        stream.write(csv_text([row], columns, header=False))
        stream.flush()

    return Writer(write, lambda: stream.close())


def _jsonl_writer(path: Path, resumed_epoch: int) -> Writer:
    kept = [(line, row) for line, row in read_jsonl(path) if row["epoch"] <= resumed_epoch]
    warn_of_holes(path, [row for _, row in kept], resumed_epoch)
    write_text(path, "".join(line for line, _ in kept))
    stream = open(path, "a")  # noqa: SIM115 - open for the length of the run

    def write(epoch: Epoch) -> None:
        stream.write("".join(json.dumps(row) + "\n" for row in _json_rows(epoch)))
        stream.flush()

    return Writer(write, stream.close)


def _tensorboard_writer(directory: Path, resumed_epoch: int, resumed_clock: int) -> Writer:
    for path in directory.glob("events.*"):
        if resumed_epoch == 0:
            path.unlink()
        else:
            _keep_events(path, resumed_clock)
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    # Not `SummaryWriter`: its thread may still hold an epoch when the checkpoint of that epoch is written. The suffix
    # keeps processes apart that start within one second, because the file's name has no finer time.
    events = EventsWriter(str(directory / "events"), f".{resumed_epoch}")

    def write(epoch: Epoch) -> None:
        values = {**{_tag(k): v for k, v in epoch.means().items()}, **epoch.evaluation}
        values |= {f"speed/{name}": value for name, value in epoch.timing.items()}
        for tag, value in values.items():
            if value is not None:
                summary = scalar(tag.replace("eval_", "eval/", 1), value)
                events.write_event(Event(wall_time=time.time(), step=epoch.clock, summary=summary))
        events.flush()

    return Writer(write, events.close)


def _tag(metric: str) -> str:
    return metric if "/" in metric else f"train/{metric}"


def _keep_events(path: Path, last_env_step: int) -> None:
    """Cut a TensorBoard file back: records of later steps, and a record that a killed process left unfinished."""
    kept = b"".join(record for record, event in read_events(path) if event.step <= last_env_step)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(kept)
    os.replace(temporary, path)


def read_events(path: Path) -> list[tuple[bytes, Any]]:
    """Records of a TensorBoard file as raw bytes and parsed event: length u64, CRC u32, data, CRC u32."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event

    records: list[tuple[bytes, Any]] = []
    data, start = path.read_bytes(), 0
    while start + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + 16 + length
        if end > len(data):
            break
        try:
            event = Event.FromString(data[start + 12 : end - 4])
        except DecodeError:
            print(f"warning: {path}: damaged, cut after {len(records)} records", file=sys.stderr)
            break
        records.append((data[start:end], event))
        start = end
    return records


def require_packages(settings: Logging) -> None:
    """Raise ConfigError if Weights & Biases is asked for and not installed."""
    if settings.wandb is None:
        return
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise ConfigError("logging.wandb: wandb is not installed; pip install 'purerl[wandb]'") from error


def _wandb_writer(run_dir: Path, config: RunConfig) -> Writer:
    import wandb

    settings = config.logging.wandb
    assert settings is not None
    run = wandb.init(
        project=settings.project, entity=settings.entity, name=settings.name or run_dir.name, mode=settings.mode,
        id=_wandb_identity(run_dir / WANDB_NAME), resume="allow", dir=str(run_dir),
        config=config.model_dump(mode="json"),
    )  # fmt: skip
    return Writer(lambda epoch: run.log(csv_row(epoch), step=epoch.clock), run.finish)


def _wandb_identity(path: Path) -> str:
    """Drawn once for a run directory and kept there: a resumed run continues its own curves, and nobody else's."""
    if not path.exists():
        write_text(path, f"{secrets.token_hex(8)}\n")
    remedy = "delete it to log the rest of the run under a new identity"
    identity = read_text(path, remedy).strip()
    if not re.fullmatch("[0-9a-f]{16}", identity):
        raise damaged(path, "not 16 hexadecimal digits", remedy)
    return identity


def _saturation_warning(settings: Logging) -> Writer:
    limit = settings.saturation_warning
    warned: list[int] = []

    def write(epoch: Epoch) -> None:
        share = epoch.means().get("saturation")
        if limit is not None and share is not None and share > limit and not warned:
            warned.append(epoch.epoch)
            print(
                f"warning: epoch {epoch.epoch}: {share:.0%} of the actor's actions sit at a bound; it may have stopped "
                "learning (lower algo.actor_lr or raise algo.saturation_penalty)",
                file=sys.stderr,
            )

    return Writer(write, lambda: None)
