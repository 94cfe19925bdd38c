"""Trained air-traffic policies under other conditions: the matrix of training x test, and the grid of shifts.

    python benchmarks/atc_tests.py scenarios runs/generic runs/head_on ... --names five nine generic --episodes 256
    python benchmarks/atc_tests.py shift runs/canonical_crossing

Both run `purerl.evaluate` in a process of its own, so the wall-clock includes imports, compilation and drawing; records
and the figure of the matrix come from what it writes. Of shifts the record keeps the means of every kind and scale.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import record

FIGURES = Path(__file__).parent / "figures"


def evaluated(runs: list[Path], *arguments: str) -> tuple[dict[str, Any], float]:
    """`(report, wall-clock in s)` of one command."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        began = time.monotonic()
        command = ["purerl.evaluate", "--run", *map(str, runs), *arguments, "--json", file.name]
        subprocess.run([sys.executable, "-m", *command], check=True)
        return json.loads(Path(file.name).read_text()), round(time.monotonic() - began, 1)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def scenarios(runs: list[Path], names: list[str], episodes: int) -> dict[str, Any]:
    report, seconds = evaluated(runs, "--scenarios", *names, "--episodes", str(episodes))
    cells = [rounded({k: v for k, v in cell.items() if not k.endswith("_change")}) for cell in report["cells"]]
    return {"episodes": report["episodes"], "seed": report["seed"], "wall_clock_s": seconds, "cells": cells}


def shifts(run: Path) -> dict[str, Any]:
    report, seconds = evaluated([run], "--shift")
    rows = pd.DataFrame(report["shifts"])
    first, columns = report["columns"][0], report["columns"]
    means = []
    for (kind, scale), own in rows[rows["kind"] != "none"].groupby(["kind", "scale"], sort=False):
        row = {"kind": kind, "scale": scale, "shifts": len(own), **own[columns].astype(float).mean().to_dict()}
        means.append(rounded({**row, "worst_change": own[f"{first}_change"].min()}))
    unshifted = rounded(rows.loc[0, columns].to_dict())
    return {
        "episodes": report["episodes"], "shifts": int((rows["kind"] != "none").sum()), "left_out": report["left_out"],
        "wall_clock_s": seconds, "unshifted": unshifted, "means": means,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scenarios", "shift"))
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--names", nargs="+", default=["all"], help="of scenarios")
    parser.add_argument("--episodes", type=int, default=256, help="of every scenario")
    parser.add_argument("--name", help="of the record")
    args = parser.parse_args()
    before = record.machine()
    if args.what == "shift":
        run = args.runs[0]
        print(record.write(args.name or f"shifts_{run.name}", shifts(run), before))
        return
    name = args.name or "scenarios_atc"
    values = scenarios(args.runs, args.names, args.episodes)
    shutil.copy(args.runs[0] / "plots" / "scenarios.png", FIGURES / f"{name}.png")
    print(record.write(name, values, before))


if __name__ == "__main__":
    main()
