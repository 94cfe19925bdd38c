"""`python -m purerl.train`: train as a configuration says."""

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from purerl.cli import Parser, run_command

DESCRIPTION = """Train an agent as a configuration file says.

Exit code 0: trained, stopped early, or interrupted after saving; 2: bad input (one line says what); 3: training
diverged (the last good checkpoint is kept)."""


def parser() -> argparse.ArgumentParser:
    parser = Parser("python -m purerl.train", DESCRIPTION)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file; with --resume it may be left out")
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="where everything is written (default: runs/<config>_<timestamp>)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --run-dir from its last checkpoint")
    parser.add_argument("--seed", type=int, metavar="N", help="the same as seed=N")
    parser.add_argument(
        "overrides", nargs="*", metavar="dotted.key=value", help="replace a key of the configuration, value in YAML"
    )
    return parser


def command(argv: Sequence[str] | None) -> int:
    args = parser().parse_intermixed_args(argv)
    # Imported here so that --help and mistyped flags answer at once.
    from purerl.config import ALONE, load_members
    from purerl.errors import ConfigError

    if args.resume and args.run_dir is None:
        raise ConfigError("--resume needs --run-dir: the directory of the run to continue")
    if args.config is None and not args.resume:
        raise ConfigError("--config FILE is missing")
    seed = [f"seed={args.seed}"] if args.seed is not None else []
    overrides = [*args.overrides, *seed]
    # A mistake in a configuration is told before JAX is imported.
    given = load_members(args.config, overrides) if args.config is not None else {}

    from purerl.report.closing import conclude
    from purerl.run import directory, process, session
    from purerl.run import members as several
    from purerl.run.stored_config import read_config

    if not given and several.begun_in(args.run_dir):
        raise ConfigError(f"{args.run_dir}: holds several runs; name the file that they are of, too: --config FILE")
    members = given or {ALONE: read_config(args.run_dir, overrides)}
    process.select_device(next(iter(members.values())))
    run_dir = args.run_dir or (lambda: directory.claim(default_run_dir(args.config)))
    if ALONE in members:
        return session.run(members[ALONE], run_dir, args.resume, conclude)
    return several.run_all(members, run_dir, args.resume, conclude)


def default_run_dir(config_path: Path) -> Path:
    return Path("runs") / f"{config_path.stem}_{datetime.now():%Y%m%d_%H%M%S}"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
