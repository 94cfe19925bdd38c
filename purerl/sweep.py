"""`python -m purerl.sweep`: seeds x hyper-parameters of a configuration.

    python -m purerl.sweep --config configs/cartpole_ppo.yaml --seeds 8 "algo.lr=[1e-4, 3e-4, 1e-3]" --out runs/lr
    python -m purerl.sweep --config configs/cartpole_ppo.yaml --seeds 8 "algo.lr=[1e-4, 1e-3]" \\
        "algo.entropy_coef=[0, 0.01]" algo.num_envs=8 --out runs/lr_entropy
    python -m purerl.sweep --config configs/cartpole_ppo.yaml --seeds 8 --random 20 \\
        "algo.lr={low: 1e-5, high: 1e-2, log: true}" "algo.gamma=[0.98, 0.99]" --out runs/random
    python -m purerl.sweep --resume --out runs/lr

A list sweeps its elements (one value that is a list is written `[[64, 64]]`); several lists make a grid. `--random N`
draws N points instead, from lists and from ranges. Everything else is as in `purerl.train`.

**One program.** Runs are trained as one batch wherever their compiled programs are the same but for the numbers in the
algorithm's `hparams`; that is found out by comparing the programs, not by a list of keys. The other points follow in
sequence. The output says which keys were `traced` and which were trained `in sequence`.

**Scores.** Final policies and, at `evaluation.every_epochs`, those on the way play the same greedy episodes of
`evaluation.split`. A point's score is the interquartile mean (IQM) over its seeds with a 95 % percentile-bootstrap
interval; the table's is the IQM of all scores, the bootstrap stratified by point (Agarwal et al. 2021). The strata of
the paper are tasks: with the one task of a configuration, stratification leaves the plain bootstrap over seeds. The
best point is that with the highest IQM. Having been chosen by it, that IQM is too good; so the best point alone is
scored once more, on `evaluation.final_split` or, where the environment has no splits, on new episodes. A point of which
a seed diverged has no IQM: leaving that seed out would flatter the point.

**Files.** `config.yaml` (resolved), `sweep.json` (all of the below and the best point), `table.csv` (a row per point
and seed), `summary.csv` (a row per point), `curves.csv`, `sweep.png`, `metadata.json` (versions, commit, times) and
`parts/` (policies and scores of finished parts, states of unfinished ones; what `--resume` goes on from).

In a notebook: `purerl.sweep.train_points(config, [{"algo.lr": 1e-4}, {"algo.lr": 1e-3}], seeds=8)`.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purerl.cli import Parser, run_command, whole_number
from purerl.errors import UsageError

if TYPE_CHECKING:
    from purerl.sweeps.run import Definition
    from purerl.sweeps.training import train_points

__all__ = ["main", "train_points"]

DESCRIPTION = """Train seeds x hyper-parameters of a configuration, as one compiled program where that is possible.

key=[A, B, ...] sweeps a key; several make a grid. Exit code 0: trained, or interrupted after saving; 2: bad input (one
line says what); 3: every point diverged."""


def __getattr__(name: str) -> Any:
    if name == "train_points":  # imported when used, so that --help is quick
        from purerl.sweeps.training import train_points

        return train_points
    raise AttributeError(f"module 'purerl.sweep' has no attribute '{name}'")


def parser() -> argparse.ArgumentParser:
    parser = Parser("python -m purerl.sweep", DESCRIPTION)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file; with --resume it may be left out")
    parser.add_argument("--seeds", type=whole_number(1), metavar="N", help="seeds per point; the same as num_seeds=N")
    parser.add_argument("--random", type=whole_number(1), metavar="N", help="N random points instead of the whole grid")
    parser.add_argument(
        "--at-once",
        type=whole_number(1),
        metavar="N",
        help="runs trained together at most (default: what fits half the memory)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/<config>_sweep_<timestamp>")
    parser.add_argument("--resume", action="store_true", help="continue the sweep in --out; finished parts are kept")
    parser.add_argument(
        "overrides", nargs="*", metavar="dotted.key=value",
        help="a list sweeps the key, {low: A, high: B, log: true} is a range for --random; other values are set",
    )  # fmt: skip
    return parser


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_intermixed_args(argv)
    if args.resume and args.out is None:
        raise UsageError("--resume needs --out: the directory of the sweep to continue")
    # Imported here so that --help and mistyped flags answer at once.
    from purerl.run import directory, process
    from purerl.sweeps import run

    asked = _as_before(args) if args.resume and args.config is None else _asked_for(args)
    process.select_device(asked.config)
    return run.run(asked, args.out or (lambda: directory.claim(default_out(args.config))), args.resume)


def default_out(config_path: Path) -> Path:
    return Path("runs") / f"{config_path.stem}_sweep_{datetime.now():%Y%m%d_%H%M%S}"


def _asked_for(args: argparse.Namespace) -> "Definition":
    from purerl.config import load_config
    from purerl.sweeps.points import grid, random_points, split_overrides
    from purerl.sweeps.run import Definition

    if args.config is None:
        raise UsageError("--config FILE is missing")
    fixed, axes = split_overrides(args.overrides)
    seeds = [f"num_seeds={args.seeds}"] if args.seeds is not None else []
    config = load_config(args.config, [*fixed, *seeds])
    points = grid(axes) if args.random is None else random_points(axes, args.random, config.seed)
    return Definition(config, axes, points, args.random, args.at_once)


def _as_before(args: argparse.Namespace) -> "Definition":
    """Everything from the directory."""
    from purerl.sweeps.run import read_definition

    given = {"--seeds": args.seeds, "--random": args.random, "--at-once": args.at_once, "overrides": args.overrides}
    for what, value in given.items():
        if value:
            raise UsageError(f"{what}: --resume takes everything from --out; leave it out, or repeat the whole command")
    return read_definition(args.out)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
