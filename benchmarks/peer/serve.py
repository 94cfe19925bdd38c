"""A trainer in an interpreter of its own, asked over standard input. Needs numpy alone; shared by the `run_*.py`.

The request is one JSON argument: `algo` (a purerl configuration's `algo` block, all keys), `task` (the library's name)
and `task_settings`, `env_steps`, `seeds` (trained at once), `bins`, `final_episodes`. The answer's first line names
versions and the seconds of compilation; then every line on standard input is a seed number, answered by
`{"seconds": whole training, "curve": [[sum of returns, episodes] per bin]}`. A bin is an equal share of the training,
and an episode counts where it ends; the returns are those of training, exploration included. One bin: nobody reads it.
With `final_episodes` the answer has `final_returns` besides: for every seed the mean return of so many episodes played
greedily by the final policy, untimed.
"""

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[int], tuple]
"""`seed -> (seconds, curve)`, and a dictionary of what else the answer says."""


def binned(ends_at, returns, env_steps: int, bins: int) -> list[list[float]]:
    """Sums and numbers of episode returns by the share of training in which an episode ended.

    Args:
        ends_at: environment steps done when the episode ended, any shape; `returns` the same shape.
    """
    index = np.minimum((np.asarray(ends_at).ravel() - 1) * bins // env_steps, bins - 1).astype(int)
    sums = np.bincount(index, np.asarray(returns, float).ravel(), bins)
    return np.stack([sums, np.bincount(index, minlength=bins)], axis=1).tolist()


def same_rate(algo: dict[str, Any]) -> float:
    """The one learning rate of a configuration that peers know."""
    if algo["actor_lr"] != algo["critic_lr"]:
        raise ValueError("the peer has one learning rate: set actor_lr and critic_lr alike")
    return algo["critic_lr"]


def updates_per_iteration(algo: dict[str, Any]) -> int:
    """Gradient updates after one step of every environment."""
    updates = algo["updates_per_step"] * algo["num_envs"]
    if updates != int(updates) or updates < 1:
        raise ValueError("updates_per_step * num_envs must be a whole number, at least 1")
    return int(updates)


def serve(build: Callable[[dict[str, Any]], tuple[Run, float]], packages: tuple[str, ...]) -> None:
    """Answer requests until standard input ends; `build(request)` gives the run and the seconds of compilation."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    run, compile_s = build(json.loads(sys.argv[1]))
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(json.dumps({"versions": versions, "compile_s": compile_s}), file=answers, flush=True)
    for line in sys.stdin:
        seconds, curve, *more = run(int(line))
        print(json.dumps({"seconds": seconds, "curve": curve, **dict(*more)}), file=answers, flush=True)
