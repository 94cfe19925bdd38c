"""`python -m purerl.evaluate`: score the policy of a run against its environment's baselines and bound, and test it
under other conditions than those of its training."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from purerl.cli import Parser, checkpoint_name, run_command, whole_number

DESCRIPTION = """Score a trained policy: greedy, with fixed seeds, against the environment's baselines and bound.

With --conditions it is played under other conditions instead, which its world declares by name: changes against the
unchanged case, or cases one by one, there beside other runs and the rules of the world. Tables and figures of these go
to eval/ and plots/ of the (first) run."""


def parser() -> argparse.ArgumentParser:
    parser = Parser("python -m purerl.evaluate", DESCRIPTION)
    parser.add_argument(
        "--run", nargs="+", required=True, metavar="DIR", help="directory of a run; for conditions one by one, several"
    )
    parser.add_argument(
        "--conditions", "--test", nargs="+", metavar=("NAME", "KIND"),
        help="play under the conditions NAME of the world, those of these kinds (none named: all); changes with 64 "
        "episodes each",
    )  # fmt: skip
    parser.add_argument("--shift", nargs="*", metavar="KIND", help="the same as --conditions shifts KIND ...")
    parser.add_argument("--scenarios", nargs="+", metavar="NAME", help="the same as --conditions scenarios NAME ...")
    parser.add_argument(
        "--checkpoint", type=checkpoint_name, default="best", metavar="best|latest|EPOCH",
        help="which policy (default: best, of every seed the best by its own evaluations)",
    )  # fmt: skip
    parser.add_argument("--split", metavar="NAME", help="train, val or test (default: evaluation.final_split)")
    parser.add_argument(
        "--episodes", type=whole_number(1), metavar="N", help="default: all cases, or 100 random episodes"
    )
    parser.add_argument("--data", metavar="FILE", help="other data; all of it, unless overrides say less")
    parser.add_argument("--scenario", metavar="NAME", help="the same as env.scenario=NAME")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the result as JSON")
    parser.add_argument("overrides", nargs="*", metavar="env.key=value", help="replace a key of the environment")
    return parser


def command(argv: Sequence[str] | None) -> int:
    args = _sorted_out(parser().parse_intermixed_args(argv))
    # Imported here so that --help and mistyped flags answer at once.
    from purerl.errors import ConfigError
    from purerl.run import process
    from purerl.run.stored_config import read_config

    given = [f"--{name}" for name in ("conditions", "shift", "scenarios") if getattr(args, name) is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are two commands; give one of them")
    if args.scenario is not None and args.scenarios is not None:
        raise ConfigError("--scenario and --scenarios are two commands; give one of them")
    if len(args.run) > 1 and (not given or args.shift is not None):
        raise ConfigError("--run: several runs are compared with --scenarios or --conditions; else give one")
    configs = [read_config(run_dir) for run_dir in args.run]
    process.select_device(configs[0])
    report = _deployed(args) if given else _score(args)
    if args.json:
        from purerl.run import files

        files.write_json(args.json, report)
    return 0


def _sorted_out(args: argparse.Namespace) -> argparse.Namespace:
    """Flags that take several words leave `env.key=value` to the overrides."""
    for name in ("run", "conditions", "shift", "scenarios"):
        words = getattr(args, name)
        if words is not None:
            args.overrides += [word for word in words if _is_override(word)]
            setattr(args, name, [word for word in words if not _is_override(word)])
    args.run = [Path(word) for word in dict.fromkeys(args.run)]
    return args


def _is_override(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _opened(args: argparse.Namespace, run_dir: Path) -> Any:
    """The run of a directory with its policy: `purerl.report.conditions.Trained`."""
    from purerl.config import config_hash
    from purerl.report import conditions
    from purerl.run import runs
    from purerl.run.stored_config import read_config

    trained = read_config(run_dir)
    run = runs.open_run(run_dir, _overrides(args, trained))
    policy, meta = runs.read_policy(run_dir, run, args.checkpoint)
    facts = {
        "run": str(run_dir),
        "checkpoint": args.checkpoint,
        "epoch": meta["epoch"],
        "config_hash": config_hash(trained),
        "env": run.config.env,
    }
    return conditions.Trained(run_dir, run, policy, facts)


def _split(args: argparse.Namespace, run: Any) -> str:
    from purerl.run import runs

    split = args.split or run.config.evaluation.final_split
    runs.require_split(run.env, "--split" if args.split else "evaluation.final_split", split)
    return split


def _score(args: argparse.Namespace) -> dict[str, Any]:
    from purerl.report import tables
    from purerl.run import evaluation

    run_dir, run, policy, facts = _opened(args, args.run[0])
    settings, split = run.config.evaluation, _split(args, run)
    _require_room(args, run, policy, split)
    evaluate = evaluation.make_evaluate(run.algorithm, run.env, run_dir / "eval" / "bounds")
    result = evaluate(policy, split, args.episodes or settings.episodes, settings.final_seed)
    tables.print_table(tables.score_table(result, f"{run_dir}, checkpoint {args.checkpoint}"))
    return {**facts, **result.to_json()}


def _require_room(args: argparse.Namespace, run: Any, policy: Any, split: str) -> None:
    """Refuse more episodes than the memory holds."""
    from purerl.run import evaluation, memory

    rollout, episodes = evaluation.rollout_of(run.algorithm, run.env), args.episodes or run.config.evaluation.episodes
    records = evaluation.record_shapes(rollout, run.env, policy, split, episodes)
    memory.require_room([memory.Part("records of the episodes", memory.bytes_of(records), ("--episodes",))])


def _test(args: argparse.Namespace) -> Any:
    """The conditions that were asked for: `purerl.report.conditions.Test`."""
    from purerl.errors import ConfigError
    from purerl.report.conditions import Test

    if args.shift is not None:
        return Test("shifts", args.shift or None, "--shift")
    if args.scenarios is not None:
        return Test("scenarios", args.scenarios or None, "--scenarios")
    if not args.conditions:
        raise ConfigError("--conditions: name the conditions")
    name, *wanted = args.conditions
    return Test(name, wanted or None, "--conditions")


def _deployed(args: argparse.Namespace) -> dict[str, Any]:
    from purerl.errors import ConfigError
    from purerl.report import conditions, tables

    opened, test = [_opened(args, run_dir) for run_dir in args.run], _test(args)
    settings, split, run_dir = opened[0].run.config.evaluation, _split(args, opened[0].run), args.run[0]
    _require_room(args, opened[0].run, opened[0].policy, split)
    if conditions.conditions_of(opened[0].run.env, test).compared == "changes":
        if len(opened) > 1:
            raise ConfigError(f"--run: {test.name} are changes, which are played for one run alone")
        report = conditions.play_changes(opened[0], test, args.episodes, settings.final_seed, split)
        shown = [conditions.change_table(report, f"{run_dir}, checkpoint {args.checkpoint}")]
        paths = conditions.write_changes(report, run_dir)
    else:
        episodes = args.episodes or settings.episodes
        report = conditions.play_one_by_one(opened, test, episodes, settings.final_seed, split)
        shown = conditions.matrix_tables(report)
        paths = conditions.write_matrices(report, run_dir)
    for table in shown:
        tables.print_table(table)
    for path in paths:
        print(path)
    return report


def _overrides(args: argparse.Namespace, trained: Any) -> list[str]:
    """Flags as overrides of the configuration `trained`, weakest first."""
    overrides = []
    if args.data is not None:
        if not Path(args.data).exists():
            raise FileNotFoundError(f"{args.data}: no such file")
        import envs_jax

        split = args.split or trained.evaluation.final_split
        settings = envs_jax.on_other_data(trained.env["name"], args.data, split)
        overrides += [f"env.{key}={json.dumps(value)}" for key, value in settings.items()]
    if args.scenario is not None:
        overrides.append(f"env.scenario='{args.scenario}'")
    return [*overrides, *args.overrides]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
