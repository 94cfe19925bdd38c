"""What the figures of a run are made of: in memory when it ends, or the same read from its directory."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from envs_jax.episodes import POLICY, Replay, play_rules
from purerl.config import RunConfig
from purerl.errors import DamagedError
from purerl.run.evaluation import rollout_cases
from purerl.run.files import read_json, read_table
from purerl.run.history import REPORT_KEYS, Ending, History, read_history
from purerl.run.metadata import read_metadata
from purerl.run.runs import Run, open_run, pick_seed, read_policy
from purerl.run.stored_config import read_config
from purerl.types import Policy


class Shown(NamedTuple):
    config: RunConfig
    history: History
    shares: Mapping[str, str]
    """Columns of training episodes that are shares, as the world declares them, and what they are called."""
    report: Mapping[str, Any] | None
    """The final score; None for a run that has not ended."""
    steps: pd.DataFrame | None
    """The episodes of the final score step by step, or those of them that the world thinks worth a look."""
    replay: Callable[[], Replay]
    """Of the best policy, of several seeds the best, from the starts of the final score."""


def from_memory(run: Run, ending: Ending) -> Shown:
    policy, _ = pick_seed(run, ending.policies, {"best_scores": ending.best_scores})
    steps = pd.DataFrame(ending.steps)
    shares = _shares({name: column._asdict() for name, column in run.env.assessment.columns.items()})
    return Shown(run.config, ending.history, shares, ending.report, steps, lambda: replay_of(run, policy))


def from_directory(run_dir: Path) -> Shown:
    """What the files of a run allow.

    Raises:
        FileNotFoundError: not a run directory. DamagedError: its configuration or final score cannot be read.
    """
    config = read_config(run_dir)
    path = run_dir / "eval" / f"final_{config.evaluation.final_split}.json"
    remedy = f"write it again: python -m purerl.evaluate --run {run_dir} --json {path}"
    report = read_json(path, remedy, REPORT_KEYS) if path.exists() else None

    def replay() -> Replay:
        run = open_run(run_dir)
        return replay_of(run, pick_seed(run, *read_policy(run_dir, run, "best"))[0])

    steps = _read_steps(run_dir, report["split"]) if report is not None else None
    shares = _shares(read_metadata(run_dir).get("columns", {}))
    return Shown(config, read_history(run_dir, config), shares, report, steps, replay)


def _shares(columns: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: column["label"] or name for name, column in columns.items() if column["share"]}


def _read_steps(run_dir: Path, split: str) -> pd.DataFrame | None:
    """The table of the final episodes; without it the world's own figures cannot be drawn, which is said."""
    name, remedy = f"*_final_{split}.csv", "figures of single steps are left out"
    try:
        return read_table(next((run_dir / "eval").glob(name)), remedy)
    except StopIteration:
        print(f"warning: {run_dir / 'eval'}: no {name}; {remedy}", file=sys.stderr)
    except DamagedError as error:
        print(f"warning: {error}", file=sys.stderr)
    return None


def replay_of(run: Run, policy: Policy) -> Replay:
    """A policy and the rules of its world, to be watched from the starts of the final score.

    Args:
        policy: of one seed.
    """
    settings = run.config.evaluation
    params = run.env.split_params(settings.final_split)

    @partial(jax.jit, static_argnums=0)
    def fly(player, policy, params, cases, key):
        if player != POLICY:
            records = play_rules(run.env, params, [player], cases, key, whole=True)
        else:
            stacked = jax.tree.map(lambda leaf: leaf[None], policy)
            records = rollout_cases(run.algorithm, run.env, params, stacked, cases, key, whole=True)
        return jax.tree.map(lambda values: values[0], records)

    def play(player: str, cases: np.ndarray) -> dict[str, Any]:
        key = jax.random.key(settings.final_seed)  # the same for all, and so the starts
        return jax.device_get(fly(player, policy, params, jnp.asarray(cases, jnp.int32), key))

    return Replay(run.env, params, play)
