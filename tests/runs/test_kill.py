"""`kill -9` at any moment, then `--resume`: the end is that of the uninterrupted run, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

from helpers import assert_same_run, write_config

HERE = Path(__file__).parent
MOMENTS = [
    "at the very start of training",
    "between the logs and the checkpoint",
    "inside a line of the logs",
    "before the digests of a checkpoint",
    "between the items of a checkpoint",
    "before the rename of a checkpoint",
    "while a checkpoint is deleted",
]


def test_killed_at_seven_moments_and_resumed_each_time(finished_run, tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["--config", str(write_config(tmp_path)), "--run-dir", str(run_dir)]
    root = HERE.parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{HERE}", "JAX_PLATFORMS": "cpu"}

    def start(moment: str, expected_code: int, *more: str) -> None:
        command = [sys.executable, str(HERE / "driver.py"), moment, *arguments, *more]
        ended = subprocess.run(command, env=environment, cwd=root, timeout=300, capture_output=True, text=True)
        assert ended.returncode == expected_code, (moment, ended.stderr[-2000:])

    for number, moment in enumerate(MOMENTS):
        start(moment, -9, *(["--resume"] if number else []))
    start("never", 0, "--resume")
    assert_same_run(run_dir, finished_run)
