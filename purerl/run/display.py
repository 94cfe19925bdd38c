"""What a run shows on the screen while it trains: a bar on a terminal, otherwise plain lines."""

import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from purerl.config import RunConfig
from purerl.run.logs import Epoch


class Display(NamedTuple):
    show: Callable[[Epoch], None]
    close: Callable[[], None]


def open_display(config: RunConfig, epochs: int, done: int) -> Display:
    """A progress bar on a terminal, otherwise one plain line per tenth of the run."""
    if not config.logging.progress:
        return Display(lambda epoch: None, lambda: None)
    return _bar(epochs, done) if sys.stdout.isatty() else _plain_lines(epochs, done)


def _bar(epochs: int, done: int) -> Display:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    bar = Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), TextColumn("{task.fields[status]}"))
    bar.start()
    task = bar.add_task("training", total=epochs, completed=done, status="")
    return Display(lambda epoch: bar.update(task, completed=epoch.epoch, status=_status(epoch)), bar.stop)


def _plain_lines(epochs: int, done: int) -> Display:
    started = time.monotonic()

    def show(epoch: Epoch) -> None:
        if epoch.epoch * 10 // epochs == (epoch.epoch - 1) * 10 // epochs:
            return
        left_s = (time.monotonic() - started) / (epoch.epoch - done) * (epochs - epoch.epoch)
        share = f"{epoch.epoch / epochs:4.0%}"
        print(f"{share} epoch {epoch.epoch}/{epochs}  {_status(epoch)}  {left_s:.0f} s left", flush=True)

    return Display(show, lambda: None)


def _status(epoch: Epoch) -> str:
    means, evaluation = epoch.means(), epoch.evaluation
    rates = f"{epoch.timing['env_steps_per_s']:,.0f} env steps/s, {epoch.timing['gradient_steps_per_s']:,.0f} updates/s"
    # What a score means: its unit, and where there is a bound how much of it was reached.
    values = {
        "return {:.4g}": means.get("episode/return"),
        f"eval {{:.4g}} {epoch.score_unit}": evaluation.get("eval_score"),
        "{:.4g} % of bound": evaluation.get("eval_percent_of_bound"),
    }
    shown = [text.format(value) for text, value in values.items() if value is not None and math.isfinite(value)]
    return ", ".join([rates, *shown])
