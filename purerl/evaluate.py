"""`python -m purerl.evaluate`: score the policy of a run against its environment's baselines and bound."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from purerl.cli import Parser, checkpoint_name, run_command

DESCRIPTION = """Score a trained policy: greedy, with fixed seeds, against the environment's baselines and bound."""

ALL_DAYS = "0001-01-01..9999-12-31"


def parser() -> argparse.ArgumentParser:
    parser = Parser("python -m purerl.evaluate", DESCRIPTION)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="directory of a run")
    parser.add_argument(
        "--checkpoint", type=checkpoint_name, default="best", metavar="best|latest|EPOCH",
        help="which policy (default: best, of every seed the best by its own evaluations)",
    )  # fmt: skip
    parser.add_argument("--split", metavar="NAME", help="train, val or test (default: evaluation.final_split)")
    parser.add_argument("--episodes", type=int, metavar="N", help="default: all cases, or 100 random episodes")
    parser.add_argument("--data", metavar="FILE", help="other data; all of it, unless env.test_dates=... says less")
    parser.add_argument("--scenario", metavar="NAME", help="the same as env.scenario=NAME")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the result as JSON")
    parser.add_argument("overrides", nargs="*", metavar="env.key=value", help="replace a key of the environment")
    return parser


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_intermixed_args(argv)
    # Imported here so that --help and mistyped flags answer at once.
    from purerl import evaluation, runner
    from purerl.config import ConfigError, config_hash, load_config

    if args.episodes is not None and args.episodes < 1:
        raise ConfigError(f"--episodes {args.episodes}: must be at least 1")
    trained = args.run / "config.yaml"
    if not trained.exists():
        raise FileNotFoundError(f"{args.run}: not a run directory (no config.yaml)")
    runner.select_device(load_config(trained))
    run = evaluation.open_run(args.run, _overrides(args, load_config(trained).env_settings()))
    settings = run.config.evaluation
    split = args.split or settings.final_split
    if run.env.splits and split not in run.env.splits:
        raise ConfigError(f"--split {split}: {run.env.name} has {', '.join(run.env.splits)}")
    policy, meta = evaluation.read_policy(args.run, run, args.checkpoint)
    evaluate = evaluation.make_evaluate(run.algorithm, run.env, args.run / "eval" / "bounds")
    result = evaluate(policy, split, args.episodes or settings.episodes, settings.final_seed)
    evaluation.print_table(evaluation.score_table(result, f"{args.run}, checkpoint {args.checkpoint}"))
    if args.json:
        report = {
            "run": str(args.run),
            "checkpoint": args.checkpoint,
            "epoch": meta["epoch"],
            "config_hash": config_hash(load_config(trained)),
            "env": run.config.env,
            **result.to_json(),
        }
        evaluation.write_json(args.json, report)
    return 0


def _overrides(args: argparse.Namespace, env_settings: dict[str, Any]) -> list[str]:
    """Flags as overrides, weakest first."""
    overrides = []
    if args.data is not None:
        if not Path(args.data).exists():
            raise FileNotFoundError(f"{args.data}: no such file")
        other_data = {"split": "dates", "train_dates": "null", "val_dates": "null", "test_dates": f"'{ALL_DAYS}'"}
        overrides += [f"env.{key}={value}" for key, value in other_data.items() if key in env_settings]
        overrides.append(f"env.data_path='{args.data}'")
    if args.scenario is not None:
        overrides.append(f"env.scenario='{args.scenario}'")
    return [*overrides, *args.overrides]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
