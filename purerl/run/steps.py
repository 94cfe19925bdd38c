"""Single episodes step by step, as CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs_jax.base import Environment
from purerl.run.evaluation import Records, Result
from purerl.run.files import write_csv

SOME_CASES = 4
"""Written where the environment does not say which."""


def cases_to_write(env: Environment, split: str, names: Sequence[str] | None) -> dict[str, int]:
    """Label -> case index of the few episodes that are written step by step; `names` as in `Reporter.cases`.

    Raises:
        ValueError: the split has no such case; kinds of the environment.
    """
    if env.assessment.report is not None:
        return env.assessment.report.cases(split, names)
    available = env.assessment.num_cases(env.split_params(split))
    return {f"case{index}": index for index in range(min(SOME_CASES, available or SOME_CASES))}


def write_step_tables(
    env: Environment,
    result: Result,
    labels: Sequence[str],
    directory: Path,
    suffix: str,
    cache_dir: Path | None,
    singly: bool,
) -> list[dict[str, Any]]:
    """CSV with one row per step of every episode of the seed with the best score; returns these rows.

    Args:
        labels: names of the episodes, in the order in which `result` holds them.
        suffix: such as `ep0010`; the file is `<step name>_<suffix>.csv`.
        singly: also write one file per label, `<step name>_<suffix>_<label>.csv`.
    """
    seed = int(np.argmax(result.score.policy))
    report = env.assessment.report
    step_name = report.step_name if report else "steps"
    tables = []
    for position, label in enumerate(labels):
        one = _one_episode(result.records, seed, position)
        columns = report.table(result.split, label, one, cache_dir) if report else {"label": label, **one}
        tables.append(_rows(columns, max(np.size(values) for values in columns.values())))
    for label, rows in zip(labels, tables, strict=True) if singly else ():
        write_csv(directory / f"{step_name}_{suffix}_{label}.csv", rows)
    together = [row for rows in tables for row in rows]
    write_csv(directory / f"{step_name}_{suffix}.csv", together)
    return together


def _one_episode(records: Records, seed: int, position: int) -> dict[str, Any]:
    """The steps of one episode [T, ...], without those after its end."""
    active = records["active"][seed, position]
    steps = {name: values for name, values in records.items() if name != "q_start"}
    return jax.tree.map(lambda values: values[seed, position][active], steps)


def _rows(columns: Mapping[str, Any], length: int) -> list[dict[str, Any]]:
    whole = {name: np.broadcast_to(np.asarray(values), (length,)) for name, values in columns.items()}
    return [{name: values[t] for name, values in whole.items()} for t in range(length)]
