"""`python -m purerl.plot training --run DIR [--all]`, `compare --runs DIR DIR ... --out FILE` and `sweep --run DIR`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from purerl.cli import Parser, run_command

if TYPE_CHECKING:
    from envs_jax.episodes import Replay


def parser() -> argparse.ArgumentParser:
    """`training`, `compare` and `sweep`, each with its own flags."""
    top = Parser("python -m purerl.plot", "Draw figures of runs from the files in their directories.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)
    training = commands.add_parser("training", help="all figures of one run, into its plots/ folder")
    training.add_argument("--run", type=Path, required=True, help="run directory")
    training.add_argument("--out", type=Path, help="folder for the figures (default: plots/ of the run)")
    training.add_argument("--all", action="store_true", help="also animations, and counts over thousands of episodes")
    training.add_argument("--episodes", type=int, metavar="N", help="how many episodes to count over")
    compare = commands.add_parser("compare", help="learning curves and final scores of several runs in one figure")
    compare.add_argument("--runs", type=Path, nargs="+", required=True, help="run directories")
    compare.add_argument("--out", type=Path, required=True, help="PNG file to write")
    sweep = commands.add_parser("sweep", help="scores over the swept values and learning curves of a sweep")
    sweep.add_argument("--run", type=Path, required=True, help="directory of a finished sweep")
    sweep.add_argument("--out", type=Path, help="PNG file to write (default: sweep.png of the sweep)")
    return top


def draw_run(
    run_dir: Path, out: Path | None = None, everything: bool = False, episodes: int | None = None
) -> list[Path]:
    """Draw everything that the files of a run allow; returns the figures' paths.

    Args:
        everything, episodes: see `envs_jax.episodes.Material`.

    Raises:
        ConfigError: the directory holds no training log.
    """
    # Imported here: matplotlib takes a second and training starts without it.
    import pandas as pd

    import envs_jax
    from envs_jax.episodes import Material
    from purerl import plots
    from purerl.config import load_config

    drawn = plots.training_figures(run_dir)
    report = plots.final_report(run_dir)
    name = load_config(run_dir / "config.yaml").env["name"]
    figures = envs_jax.figure_function(name)  # found without loading the environment's data
    if report is not None and figures is not None:
        steps = pd.read_csv(next((run_dir / "eval").glob(f"*_final_{report['split']}.csv")))
        drawn |= figures(Material(report, steps, lambda: replay_of(run_dir), everything, episodes))
    return plots.save_figures(drawn, out or run_dir / "plots")


def replay_of(run_dir: Path) -> "Replay":
    """The best policy of a run, of several seeds the best, from the starts of its final score."""
    import jax
    import jax.numpy as jnp

    from envs_jax.episodes import POLICY, Replay, play_rules
    from purerl.evaluation import open_run, pick_seed, read_policy, rollout_cases

    run = open_run(run_dir)
    settings = run.config.evaluation
    params = run.env.split_params(settings.final_split)
    policy, _ = pick_seed(run, *read_policy(run_dir, run, "best"))

    @partial(jax.jit, static_argnums=0)
    def fly(player, policy, params, cases, key):
        if player != POLICY:
            records = play_rules(run.env, params, [player], cases, key, whole=True)
        else:
            stacked = jax.tree.map(lambda leaf: leaf[None], policy)
            records = rollout_cases(run.algorithm, run.env, params, stacked, cases, key, whole=True)
        return jax.tree.map(lambda values: values[0], records)

    def play(player: str, cases: np.ndarray) -> dict[str, Any]:
        key = jax.random.key(settings.final_seed)  # the same for all, and so the starts
        return jax.device_get(fly(player, policy, params, jnp.asarray(cases, jnp.int32), key))

    return Replay(run.env, params, play)


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    from purerl.config import ConfigError, load_config

    if args.command == "training":
        from purerl import runner

        if args.episodes is not None and args.episodes < 1:
            raise ConfigError(f"--episodes {args.episodes}: must be at least 1")
        if (args.run / "config.yaml").exists():
            runner.select_device(load_config(args.run / "config.yaml"))
        paths = draw_run(args.run, args.out, args.all, args.episodes)
    else:
        from purerl import plots

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
