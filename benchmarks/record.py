"""One JSON record per measurement: command, commit, machine, date, values. Shared by the benchmark scripts."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor model and cores, and GPUs where there are any; nothing that names the machine."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    gpus = {"gpus": names} if (names := _gpus()) else {}
    return {"cpu": model, "cores": os.cpu_count(), **gpus, "load_1min_before": round(os.getloadavg()[0], 2)}


def _gpus() -> list[str]:
    """Asked of the driver: JAX would start its devices, and a script may still want to choose them."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


def commit() -> str:
    """Short commit of the checkout, with a mark where the working tree differs from it in more than records."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=RESULTS.parents[1], capture_output=True, text=True, check=False)

    name = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    same = git("diff", "--quiet", "HEAD", "--", ".", ":!benchmarks/results").returncode == 0
    return f"{name}{'' if same else '-dirty'}" if name else "unknown"


COMMIT = commit()
"""Of the checkout when the measurement began."""


def _without_folders(argument: str) -> str:
    """Files outside the checkout are named without the folders they lie in on the machine of the measurement."""
    key, equals, value = argument.rpartition("=")
    path = Path(value)
    outside = path.is_absolute() or ".." in path.parts
    return f"{key}{equals}{path.name}" if outside else argument


def write(name: str, values: dict[str, Any], before: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json`; `before` is what `machine()` said when the measurement started."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_folders, sys.argv[1:])])
    record = {
        "command": command,
        "commit": COMMIT,
        "machine": before,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "values": values,
    }
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path
