"""`python -m purerl.record`: play behaviours in an environment and write their steps as a dataset."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from purerl.cli import Parser, run_command, whole_number

DESCRIPTION = """Play behaviours in the environment of a configuration (its training split) and record every step.

A behaviour is written NAME[:SHARE[:NOISE]]: `random` (uniform legal actions), a rule of the environment, or `run:DIR`
(the best policy of a trained run, greedy). SHARE is its weight among the episodes (default 1). NOISE (default 0) is,
for continuous actions, the standard deviation of normal noise in units of the largest action, and for discrete
actions the probability of a uniformly random legal action instead."""


def behaviour(text: str) -> tuple[str, float, float]:
    """`(name, share, noise)` of `NAME[:SHARE[:NOISE]]`, where NAME may be `run:DIR`."""
    prefix = "run:" if text.startswith("run:") else ""
    name, *rest = text.removeprefix(prefix).split(":")
    try:
        share, noise = [*(float(number) for number in rest), *(1.0, 0.0)[len(rest) :]]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME[:SHARE[:NOISE]] with two numbers") from None
    if not name or not share > 0 or not noise >= 0:
        raise argparse.ArgumentTypeError(f"'{text}': needs a name, a positive share and a noise of 0 or more")
    from purerl.validation import not_representable  # here, so that --help is quick

    for number in (share, noise):
        if wrong := not_representable(number):
            raise argparse.ArgumentTypeError(f"'{text}': {number} {wrong}")
    if prefix + name == "random" and noise:
        raise argparse.ArgumentTypeError(f"'{text}': random actions take no noise")
    return prefix + name, share, noise


def parser() -> argparse.ArgumentParser:
    parser = Parser("python -m purerl.record", DESCRIPTION)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML file that names the env")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the dataset, .npz; never overwritten")
    parser.add_argument(
        "--behaviour", type=behaviour, required=True, nargs="+", metavar="NAME[:SHARE[:NOISE]]", help="who plays"
    )
    parser.add_argument(
        "--episodes", type=whole_number(1), required=True, metavar="N", help="episodes of all behaviours together"
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="S", help="of starts, actions and noise (default: 0)"
    )
    parser.add_argument(
        "--num-envs", type=whole_number(1), default=64, metavar="B", help="played at once (default: 64)"
    )
    parser.add_argument(
        "--override", nargs="*", default=[], metavar="env.key=value", help="replace a key of the configuration's env"
    )
    return parser


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_args(argv)
    # Imported here so that --help and mistyped flags answer at once.
    from purerl.config import load_config
    from purerl.errors import ConfigError
    from purerl.learn import dataset
    from purerl.run import process, recording, runs

    for override in args.override:
        if not override.startswith("env."):
            raise ConfigError(f"override '{override}': only env.key=value concerns a recording")
    dataset.require_new(args.out)  # before the work, not after it
    config = load_config(args.config, args.override)
    process.select_device(config)
    env = runs.build_env(config)
    behaviours = [recording.Behaviour(*given) for given in args.behaviour]
    recorded = recording.record(env, behaviours, args.episodes, args.seed, args.num_envs, config.env)
    dataset.write(args.out, recorded)
    for part in recorded.metadata.played:
        print(f"{part.behaviour}: {part.episodes} episodes, {part.steps} steps, mean return {part.mean_return:.6g}")
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
