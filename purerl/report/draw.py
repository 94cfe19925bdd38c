"""Drawing all figures of a run, and several runs in one."""

from collections.abc import Sequence
from pathlib import Path

import envs_jax
from envs_jax.episodes import Material
from purerl.errors import ConfigError
from purerl.report import style, training_figures
from purerl.report.shown import Shown, from_directory


def draw_run(shown: Shown, out: Path, everything: bool = False, episodes: int | None = None) -> list[Path]:
    """Draw everything that is known of a run into a folder; returns the figures' paths.

    Args:
        everything, episodes: see `envs_jax.episodes.Material`.
    """
    drawn = training_figures.training_figures(shown.history, shown.shares)
    figures = envs_jax.figure_function(shown.config.env["name"])  # found without loading the environment's data
    if shown.report is not None and shown.steps is not None and figures is not None:
        drawn |= figures(Material(shown.report, shown.steps, shown.replay, everything, episodes))
    return style.save_figures(drawn, out)


def draw_comparison(run_dirs: Sequence[Path], out: Path) -> list[Path]:
    """Learning curves and final scores of several runs of one world in one figure.

    Raises:
        ConfigError: a run without evaluations, or runs whose scores mean different things.
    """
    runs = {run_dir: from_directory(run_dir) for run_dir in run_dirs}
    for run_dir, shown in runs.items():
        if not training_figures.evaluated(shown.history):
            raise ConfigError(f"{run_dir}: no evaluations to compare")
    for what, of_run in (("different worlds", _world), ("scores in different units", training_figures.unit_of)):
        found = {run_dir: of_run(shown) for run_dir, shown in runs.items()}
        if len(set(found.values())) > 1:
            each = ", ".join(f"{run_dir}: {value}" for run_dir, value in found.items())
            raise ConfigError(f"--runs: {what} have no common axis ({each}); draw them apart")
    names = [run_dir.name for run_dir in runs]
    named = {run_dir.name if names.count(run_dir.name) == 1 else str(run_dir): runs[run_dir] for run_dir in runs}
    return style.save_figures({out.stem: training_figures.compare_figure(named)}, out.parent)


def _world(shown: Shown) -> str:
    return shown.config.env["name"].partition("/")[0]
