"""What a run shows on the screen: its plan, and while it trains a bar on a terminal, otherwise plain lines."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax

from purerl.config import RunConfig
from purerl.run.logs import Epoch
from purerl.run.plan import Plan, env_steps_after
from purerl.run.runs import Run

SMALL_WARMUP_SPAN = 0.8


def print_plan(run: Run, plan: Plan, run_dir: Path) -> None:
    a, seeds = run.algorithm, run.config.num_seeds
    if plan.epochs != run.config.epochs:
        print(f"note: the run has only {plan.updates} updates, one for each of {plan.epochs} epochs")
    elif plan.longer_epochs:
        print(
            f"note: {plan.updates} updates do not divide into {plan.epochs} epochs; "
            f"the last {plan.longer_epochs} have {plan.updates_per_epoch + 1} instead of {plan.updates_per_epoch}, "
            "which is compiled as a second program"
        )
    print(
        f"{run.config.algo['name']} on {run.env.name}: {plan.epochs} epochs, "
        f"{env_steps_after(a, plan.updates):,} env steps, "
        f"{plan.updates * a.gradient_steps_per_update:,} gradient steps{f' x {seeds} seeds' if seeds > 1 else ''}, "
        f"{jax.devices()[0].device_kind}, into {run_dir}",
        flush=True,
    )


def print_warmup(shares: Mapping[str, float]) -> None:
    """Shares of the first actions, and a warning where they leave out much of the range."""
    print("warm-up actions: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    if shares.get("span", 1.0) < SMALL_WARMUP_SPAN:
        print(f"warning: the warm-up covers only {shares['span']:.0%} of the action range", file=sys.stderr)


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
