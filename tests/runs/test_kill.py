"""`kill -9` at any moment, then `--resume`: the end is that of the uninterrupted run, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import assert_same_run, write_config

HERE = Path(__file__).parent
MOMENTS = [
    "at the very start of training",
    "between the logs and the checkpoint",
    "inside a line of the logs",
    "at a random write",
    "inside a checkpoint write",
    "before the rename of a checkpoint",
]


def test_killed_at_six_moments_and_resumed_each_time(finished_run, compiled_programs, tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["--config", str(write_config(tmp_path)), "--run-dir", str(run_dir)]
    root = HERE.parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{HERE}", "JAX_PLATFORMS": "cpu"}

    def start(moment: str, *more: str) -> int:
        command = [sys.executable, str(HERE / "driver.py"), moment, str(compiled_programs), *arguments, *more]
        return subprocess.run(command, env=environment, cwd=root, timeout=300, capture_output=True).returncode

    for number, moment in enumerate(MOMENTS):
        code = start(moment, *(["--resume"] if number else []))
        assert code == -9, moment
    assert start("never", "--resume") == 0
    assert_same_run(run_dir, finished_run)
