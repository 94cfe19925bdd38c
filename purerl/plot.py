"""`python -m purerl.plot training --run DIR`, `compare --runs DIR DIR ... --out FILE` and `sweep --run DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from purerl.cli import Parser, run_command


def parser() -> argparse.ArgumentParser:
    """`training`, `compare` and `sweep`, each with its own flags."""
    top = Parser("python -m purerl.plot", "Draw figures of runs from the files in their directories.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)
    training = commands.add_parser("training", help="all figures of one run, into its plots/ folder")
    training.add_argument("--run", type=Path, required=True, help="run directory")
    training.add_argument("--out", type=Path, help="folder for the figures (default: plots/ of the run)")
    compare = commands.add_parser("compare", help="learning curves and final scores of several runs in one figure")
    compare.add_argument("--runs", type=Path, nargs="+", required=True, help="run directories")
    compare.add_argument("--out", type=Path, required=True, help="PNG file to write")
    sweep = commands.add_parser("sweep", help="scores over the swept values and learning curves of a sweep")
    sweep.add_argument("--run", type=Path, required=True, help="directory of a finished sweep")
    sweep.add_argument("--out", type=Path, help="PNG file to write (default: sweep.png of the sweep)")
    return top


def draw_run(run_dir: Path, out: Path | None = None) -> list[Path]:
    """Draw everything that the files of a run allow; returns the figures' paths.

    Raises:
        ConfigError: the directory holds no training log.
    """
    # Imported here: matplotlib takes a second and training starts without it.
    import pandas as pd

    from purerl import plots

    drawn = plots.training_figures(run_dir)
    report = plots.final_report(run_dir)
    figures = _figures_of(run_dir)
    if report is not None and figures is not None:
        steps = pd.read_csv(next((run_dir / "eval").glob(f"*_final_{report['split']}.csv")))
        drawn |= figures(report, steps)
    return plots.save_figures(drawn, out or run_dir / "plots")


def _figures_of(run_dir: Path):
    """The figure function of the run's environment, found without loading its data."""
    import envs_jax
    from purerl.config import load_config

    return envs_jax.figure_function(load_config(run_dir / "config.yaml").env["name"])


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    if args.command == "training":
        paths = draw_run(args.run, args.out)
    else:
        from purerl import plots
        from purerl.config import ConfigError

        out = args.out or args.run / "sweep.png"
        if out.suffix != ".png":
            raise ConfigError(f"--out {out}: write a .png file")
        figure = plots.compare_figure(args.runs) if args.command == "compare" else plots.sweep_figure(args.run)
        paths = plots.save_figures({out.stem: figure}, out.parent)
    for path in paths:
        print(path)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
