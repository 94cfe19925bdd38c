"""`python -m purerl.plot training --run DIR [--all]`, `compare --runs DIR DIR ... --out FILE` and `sweep --run DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from purerl.cli import Parser, run_command, whole_number


def parser() -> argparse.ArgumentParser:
    """`training`, `compare` and `sweep`, each with its own flags."""
    top = Parser("python -m purerl.plot", "Draw figures of runs from the files in their directories.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)
    training = commands.add_parser("training", help="all figures of one run, into its plots/ folder")
    training.add_argument("--run", type=Path, required=True, help="run directory")
    training.add_argument("--out", type=Path, help="folder for the figures (default: plots/ of the run)")
    training.add_argument("--all", action="store_true", help="also animations, and counts over thousands of episodes")
    training.add_argument("--episodes", type=whole_number(1), metavar="N", help="how many episodes to count over")
    compare = commands.add_parser("compare", help="learning curves and final scores of several runs in one figure")
    compare.add_argument("--runs", type=Path, nargs="+", required=True, help="run directories")
    compare.add_argument("--out", type=Path, required=True, help="PNG file to write")
    sweep = commands.add_parser("sweep", help="scores over the swept values and learning curves of a sweep")
    sweep.add_argument("--run", type=Path, required=True, help="directory of a finished sweep")
    sweep.add_argument("--out", type=Path, help="PNG file to write (default: sweep.png of the sweep)")
    return top


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    from purerl.errors import ConfigError

    if args.command == "training":
        from purerl.run import process
        from purerl.run.stored_config import read_config

        process.select_device(read_config(args.run))
        from purerl.report import draw, shown

        paths = draw.draw_run(shown.from_directory(args.run), args.out or args.run / "plots", args.all, args.episodes)
    else:
        out = args.out or args.run / "sweep.png"
        if out.suffix != ".png":
            raise ConfigError(f"--out {out}: write a .png file")
        from purerl.report import draw, style, sweep_figures

        if args.command == "compare":
            paths = draw.draw_comparison(args.runs, out)
        else:
            paths = style.save_figures({out.stem: sweep_figures.sweep_figure(args.run)}, out.parent)
    for path in paths:
        print(path)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
