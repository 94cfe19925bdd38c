"""`kill -9` at any moment, then `--resume`: the end is that of the uninterrupted run, bit for bit."""

import multiprocessing

from driver import drive
from helpers import assert_same_run, write_config

MOMENTS = [
    "at the very start of training",
    "between the logs and the checkpoint",
    "inside a line of the logs",
    "before the digests of a checkpoint",
    "between the items of a checkpoint",
    "before the rename of a checkpoint",
    "while a checkpoint is deleted",
]


FORKS = multiprocessing.get_context("forkserver")
"""Processes that start with everything imported, which is most of what starting one takes."""
FORKS.set_forkserver_preload(["driver"])


def test_killed_at_seven_moments_and_resumed_each_time(finished_run, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    run_dir = tmp_path / "run"
    arguments = ["--config", str(write_config(tmp_path)), "--run-dir", str(run_dir)]

    def start(moment: str, expected_code: int, *more: str) -> None:
        process = FORKS.Process(target=drive, args=(moment, [*arguments, *more]))
        process.start()
        process.join(300)
        assert process.exitcode == expected_code, moment

    for number, moment in enumerate(MOMENTS):
        start(moment, -9, *(["--resume"] if number else []))
    start("never", 0, "--resume")
    assert_same_run(run_dir, finished_run)
