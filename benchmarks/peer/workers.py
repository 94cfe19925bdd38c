"""Processes that wait between repetitions, each in the interpreter of its own environment, and taking turns."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PAUSE_S = 0.05
"""Between two measurements, so that the threads of one side have gone to sleep before the other starts."""


class Spread(NamedTuple):
    median: float
    lowest: float
    highest: float


def spread(values: list[float], digits: int = 2) -> Spread:
    return Spread(*(round(v, digits) for v in (statistics.median(values), min(values), max(values))))


class Worker:
    """A script of this folder: its request as one JSON argument, its answers one line of JSON each."""

    def __init__(self, interpreter: str, script: str, request: dict[str, Any], env: dict[str, str] | None = None):
        self.process = subprocess.Popen(
            [interpreter, str(Path(__file__).with_name(script)), json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        self.first = self.answer()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the peer's process ended with code {self.process.wait()}")
        return json.loads(line)

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def missing(interpreter: str | None, module: str) -> str | None:
    """Why a module cannot be had from an interpreter, or None."""
    if interpreter is None:
        return "no interpreter named"
    try:
        found = subprocess.run([interpreter, "-c", f"import {module}"], capture_output=True, check=False)
    except OSError as error:
        return f"{interpreter}: {error.strerror}"
    return None if found.returncode == 0 else f"{interpreter} has no module {module}"


def in_turns(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[Any]]:
    """Answers of every side, one repetition of each after the other."""
    answers: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            time.sleep(PAUSE_S)
            answers[name].append(run())
    return answers
