"""Tables for people, on the screen."""

from typing import Any

import numpy as np

from purerl.run.evaluation import Result


def score_table(result: Result, title: str) -> Any:
    """A `rich` table: policy with its deviation over seeds, baselines, bound."""
    from rich.table import Table

    score = result.score
    table = Table(title=title, caption=f"{result.records['reward'].shape[1]} episodes of split '{result.split}'")
    table.add_column("")
    table.add_column(score.unit, justify="right")
    table.add_column("% of bound", justify="right")
    seeds = len(score.policy)
    deviation = f" ± {np.std(score.policy):.4g}" if seeds > 1 else ""
    percent = "" if score.percent_of_bound is None else f"{np.mean(score.percent_of_bound):.2f}"
    if score.percent_of_bound is not None and seeds > 1:
        percent += f" ± {np.std(score.percent_of_bound):.2f}"
    name = "policy" if seeds == 1 else f"policy (mean of {seeds} seeds)"
    table.add_row(name, f"{np.mean(score.policy):.6g}{deviation}", percent, style="bold")
    baseline_percent = score.percent_of_bound_baselines or {}
    for baseline, value in sorted(score.baselines.items(), key=lambda item: -item[1]):
        share = f"{baseline_percent[baseline]:.2f}" if baseline in baseline_percent else ""
        table.add_row(baseline, f"{value:.6g}", share)
    if score.bound is not None:
        table.add_row("bound", f"{score.bound:.6g}", "100.00")
    return table


def print_table(table: Any) -> None:
    from rich.console import Console

    Console().print(table)
