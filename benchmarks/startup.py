"""How long it takes until something answers: `import purerl` and the help of a command, this checkout and another.

    python benchmarks/startup.py ../before --times 7

In turns, each in a process of its own; the time of an empty Python is measured beside them and not taken off.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import record

HERE = Path(__file__).parents[1]
WORKS = {
    "python": ["-c", "pass"],
    "import_purerl": ["-c", "import purerl"],
    "train_help": ["-m", "purerl.train", "--help"],
}


def seconds(checkout: Path, arguments: list[str]) -> float:
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, *arguments], cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--times", type=int, default=7)
    args = parser.parse_args()
    quiet = record.machine()
    found: dict[str, list[float]] = {f"{side} {work}": [] for work in WORKS for side in ("before", "now")}
    for _ in range(args.times):
        for work, arguments in WORKS.items():
            for side, checkout in (("before", args.before.resolve()), ("now", HERE)):
                found[f"{side} {work}"].append(round(seconds(checkout, arguments), 4))
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.3f} s")
    print(record.write("startup", {"median_s": medians, "seconds": found}, quiet))


if __name__ == "__main__":
    main()
