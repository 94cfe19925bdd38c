"""Train a configuration as a user does and keep the record of its time and of the final score of its best policy.

    python benchmarks/learning.py configs/bess_td3.yaml --seeds 5
    python benchmarks/learning.py configs/atc_merges_ppo.yaml --scenario merge_2x2
    python benchmarks/learning.py configs/bess_td3.yaml --run-dir runs/mine --finished
    python benchmarks/learning.py configs/bess_td3.yaml --data de2018=prices.csv env.zone=DE

The commands are the project's own, in processes of their own, so the wall-clock includes imports and compilation.
`--scenario` is one member of a configuration that trains on several. `--data NAME=FILE` also scores the policy on every
day of another price table, with the overrides that follow.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record
import yaml


def run(*arguments: str) -> float:
    """Wall-clock of one command in seconds."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", *arguments], check=True)
    return time.monotonic() - start


def score(run_dir: Path, *arguments: str) -> dict[str, Any]:
    """What `purerl.evaluate` reports, without the table by month and the folders of this machine."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        seconds = run("purerl.evaluate", "--run", str(run_dir), "--json", file.name, *arguments)
        report = json.loads(Path(file.name).read_text())
    report["detail"].pop("months", None)
    report.pop("run", None)
    report["env"] = {k: Path(v).name if k == "data_path" and v else v for k, v in report["env"].items()}
    return {**report, "evaluation_wall_clock_s": round(seconds, 1)}


def curve(run_dir: Path) -> dict[str, list[float]]:
    """The mean score of all seeds in the evaluations while it trained, by environment steps."""
    with (run_dir / "training_progress.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("eval_score")]
    return {"env_steps": [int(row["env_steps"]) for row in rows], "score": [float(row["eval_score"]) for row in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=1, help="trained at once")
    parser.add_argument("--name", help="of the record (default: from the configuration and the seeds)")
    parser.add_argument("--run-dir", type=Path, help="keep the run here")
    parser.add_argument("--finished", action="store_true", help="the run in --run-dir has been trained; record it")
    parser.add_argument("--scenario", help="of `env.name` whose part after the slash is several scenarios")
    parser.add_argument("--data", metavar="NAME=FILE", help="another price table to score on")
    parser.add_argument("overrides", nargs="*", help="env.key=value for the other price table")
    args = parser.parse_intermixed_args()

    if args.finished and not args.run_dir:
        parser.error("--finished: give --run-dir")
    before = record.machine()
    run_dir = args.run_dir or Path(tempfile.mkdtemp()) / "run"
    chosen = [f"num_seeds={args.seeds}"]
    stem = args.config.stem
    if args.scenario:
        world = yaml.safe_load(args.config.read_text())["env"]["name"].partition("/")[0]
        chosen.append(f"env.name={world}/{args.scenario}")
        stem = f"{world}_{args.scenario}_{stem.rpartition('_')[2]}"
    train_s = None
    if not args.finished:
        train_s = round(run("purerl.train", "--config", str(args.config), "--run-dir", str(run_dir), *chosen), 1)
    test = json.loads(next((run_dir / "eval").glob("final_*.json")).read_text())
    test["detail"].pop("months", None)
    values: dict[str, Any] = {"train_wall_clock_s": train_s, "curve": curve(run_dir), "test": test}
    metadata = json.loads((run_dir / "metadata.json").read_text())
    values["session"] = metadata["session"]
    if args.data:
        name, _, file = args.data.partition("=")
        values[name] = score(run_dir, "--data", file, *args.overrides)
    path = record.write(args.name or f"{stem}_{args.seeds}_seeds", values, before)
    print(path)


if __name__ == "__main__":
    main()
