"""Policies under other conditions than those of their training, which their world declares.

Reading order: what plays a group of conditions (`by_policy`, `by_rules`), the numbers of every condition, then
`play_changes` and `play_one_by_one` with their tables and files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Conditions, Environment, Group, Params
from envs_jax.episodes import play_rules
from purerl.errors import ConfigError
from purerl.report import condition_figures, style
from purerl.run import evaluation, runs
from purerl.run.evaluation import choose_cases, rollout_cases
from purerl.run.files import write_csv
from purerl.run.runs import Run
from purerl.types import Algorithm, Policy

CHANGE_EPISODES = 64
"""Of every change, where nobody says how many."""
AT_ONCE = 2048
"""Episodes of one call: the records of more would take gigabytes."""

Play = Callable[[Params], Any]
"""`params [C, ...] -> records [C, S, N, T]` of S seeds, or rules, and N episodes."""
Numbers = dict[str, float]
"""The score under the name of its unit, then what the environment shows beside it."""


class Trained(NamedTuple):
    """A run whose policy is tested."""

    run_dir: Path
    run: Run
    policy: Policy
    """Leaves with a leading seed axis."""
    facts: Mapping[str, Any]
    """What reports say of it."""


class Starts(NamedTuple):
    """Which episodes are played: with equal numbers those of a plain evaluation."""

    cases: jax.Array
    seed: int
    split: str


def starts_of(env: Environment, episodes: int | None, seed: int, split: str) -> Starts:
    cases = choose_cases(env.assessment.num_cases(env.split_params(split)), episodes)
    return Starts(jnp.asarray(cases, jnp.int32), seed, split)


def by_policy(trained: Trained, env: Environment, starts: Starts) -> Play:
    """The policy in an environment that may have another number of agents than its own.

    Raises:
        ConfigError: the policy's parameters are for so many agents alone.
    """
    env = with_agent_axis(env)
    rollout = jax.jit(jax.vmap(partial(rollout_cases, _algorithm_for(trained, env), env), (0, None, None, None)))
    return lambda params: rollout(params, trained.policy, starts.cases, jax.random.key(starts.seed))


def _algorithm_for(trained: Trained, env: Environment) -> Algorithm:
    run = trained.run
    if env.num_agents == run.env.num_agents:
        return run.algorithm
    other = runs.build(run.config, env=env)
    needed = [x.shape for x in jax.tree.leaves(runs.policy_like(other))]
    if needed != [x.shape for x in jax.tree.leaves(trained.policy)]:
        raise ConfigError(
            f"{trained.run_dir}: a policy for {run.env.num_agents} agents without shared parameters cannot act for the "
            f"{env.num_agents} of {env.name}"
        )
    return other.algorithm


def by_rules(env: Environment, starts: Starts) -> Play:
    """The rules that the world compares with, from the policy's starts."""
    env = with_agent_axis(env)
    names = env.assessment.compared
    rollout = jax.jit(jax.vmap(lambda params, key: play_rules(env, params, names, starts.cases, key), (0, None)))
    return lambda params: rollout(params, jax.random.key(starts.seed))


def each_seed(group: Group, play: Play, starts: Starts, seeds: int) -> Iterator[dict[str, Sequence[float]]]:
    """Every condition's numbers [S]; all calls of `play` have one shape.

    Args:
        seeds: S.
    """
    count = len(group.labels)
    at_once = min(count, max(1, AT_ONCE // (seeds * starts.cases.size)))
    for first in range(0, count, at_once):
        chosen = np.minimum(np.arange(first, first + at_once), count - 1)
        records = jax.device_get(play(jax.tree.map(lambda x, at=chosen: x[at], group.params)))
        for place in range(min(at_once, count - first)):
            of_one = jax.tree.map(lambda x, at=place: x[at], records)
            score, shown = evaluation.score(group.env, starts.split, of_one), group.env.assessment.shown
            yield {score.unit: score.policy, **{_last(path): _entry(score.detail, path) for path in shown}}


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _entry(detail: Mapping[str, Any], path: str) -> Any:
    """Entry `a.b` of nested mappings."""
    return reduce(lambda inner, name: inner[name], path.split("."), detail)


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of those that are not NaN; NaN without any."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else float("nan")


def of_policy(trained: Trained, group: Group, starts: Starts) -> list[Numbers]:
    """Every condition's numbers, means over the seeds that have them."""
    play = by_policy(trained, group.env, starts)
    every = each_seed(group, play, starts, trained.run.config.num_seeds)
    return [{name: mean_of_known(values) for name, values in one.items()} for one in every]


def changes(numbers: Numbers, reference: Numbers | None) -> dict[str, float | None]:
    return {f"{name}_change": value - reference[name] if reference else None for name, value in numbers.items()}


class Test(NamedTuple):
    """What a user asked for."""

    name: str
    """Of the conditions."""
    wanted: Sequence[str] | None
    """Those of them; None: all."""
    flag: str
    """For messages."""


def conditions_of(env: Environment, test: Test) -> Conditions:
    """What the world declares under the name of the test.

    Raises:
        ConfigError: it declares no such conditions.
    """
    declared = env.assessment.conditions
    if test.name not in declared:
        known = f"; it has {', '.join(declared)}" if declared else ""
        raise ConfigError(f"{test.flag}: {env.name} has no {test.name}{known}")
    return declared[test.name]


def groups_of(env: Environment, test: Test) -> Sequence[Group]:
    """The groups to play.

    Raises:
        ConfigError: conditions that the world does not have.
    """
    conditions = conditions_of(env, test)
    return runs.user_input(test.flag, lambda: conditions.groups(test.wanted))


# Changes


def play_changes(trained: Trained, test: Test, episodes: int | None, seed: int, split: str) -> dict[str, Any]:
    """A report whose entry `<name of the test>` is labels, numbers and changes against the unchanged entry of the same
    group.

    Raises:
        ConfigError: conditions that the world does not have.
    """
    env = trained.run.env
    groups = groups_of(env, test)
    starts = starts_of(env, episodes or CHANGE_EPISODES, seed, split)
    rows, columns, left_out = [], list[str](), dict[str, int]()
    for group in groups:
        numbers = of_policy(trained, group, starts)
        columns = list(numbers[0])
        rows += [{**label, **own, **changes(own, numbers[0])} for label, own in zip(group.labels, numbers, strict=True)]
        left_out |= group.left_out
    return {
        **trained.facts,
        "conditions": test.name,
        "columns": columns,
        "episodes": int(starts.cases.size),
        "seed": seed,
        "left_out": left_out,
        "why_left_out": conditions_of(env, test).why_left_out,
        test.name: rows,
    }


def change_table(report: Mapping[str, Any], title: str) -> Any:
    """A `rich` table: a line for the small and one for the large changes of every kind."""
    from rich.table import Table

    name, columns = report["conditions"], report["columns"]
    rows, excluded = report[name], sum(report["left_out"].values())
    changed = [row for row in rows if row["kind"] != "none"]
    why = f": {report['why_left_out']}" if report["why_left_out"] else ""
    caption = f"{len(changed)} {name}, {report['episodes']} episodes each; {excluded} {name} left out{why}"
    table = Table(title=title, caption=caption, pad_edge=False)
    table.add_column("", no_wrap=True)
    # Room for the numbers of five columns in 80 characters: the names fold.
    for column in columns:
        table.add_column(column, justify="right", overflow="fold", min_width=5)
    for column in ("change", "worst change"):
        table.add_column(column, justify="right", overflow="fold", min_width=6)
    table.add_row("unchanged", *(_short(rows[0][column]) for column in columns), "", "", style="bold")
    for kind, scale in dict.fromkeys((row["kind"], row["scale"]) for row in changed):
        own = [row for row in changed if (row["kind"], row["scale"]) == (kind, scale)]
        means = [_short(mean_of_known([row[column] for row in own])) for column in columns]
        change = [row[f"{columns[0]}_change"] for row in own]
        table.add_row(f"{kind} {scale} ({len(own)})", *means, f"{np.mean(change):+.3f}", f"{min(change):+.3f}")
    return table


def _short(value: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def write_changes(report: Mapping[str, Any], run_dir: Path) -> list[Path]:
    """`eval/<name>.csv` and a figure for every number; returns the files."""
    name = report["conditions"]
    table = run_dir / "eval" / f"{name}.csv"
    write_csv(table, report[name])
    rows = pd.DataFrame(report[name])
    figures = {f"{name}_{column}": condition_figures.change_figure(rows, column, name) for column in report["columns"]}
    return [table, *style.save_figures(figures, run_dir / "plots")]


# One by one


def play_one_by_one(runs: Sequence[Trained], test: Test, episodes: int | None, seed: int, split: str) -> dict[str, Any]:
    """A report whose `cells` are the runs and the rules of their world with their numbers in every condition.

    All start from the same places. Changes are against the condition of the training, where it is among those wanted.
    Rules play in the settings of the first run.

    Raises:
        ConfigError: runs of different worlds, or conditions that the world does not have.
    """
    worlds = {str(trained.run_dir): trained.run.env.name.partition("/")[0] for trained in runs}
    if len(set(worlds.values())) > 1:
        raise ConfigError(f"runs of different worlds: {', '.join(f'{run} is {name}' for run, name in worlds.items())}")
    starts = starts_of(runs[0].run.env, episodes, seed, split)
    short = [trained.run_dir.name for trained in runs]
    rows = []
    for trained in runs:
        found: dict[str, Numbers] = {}
        for group in groups_of(trained.run.env, test):
            found |= _by_condition(group, of_policy(trained, group, starts))
        alone = short.count(trained.run_dir.name) == 1
        name = trained.run_dir.name if alone else str(trained.run_dir)
        rows += _matrix_rows(name, conditions_of(trained.run.env, test).own, found)
    rules = runs[0].run.env.assessment.compared
    by_rule: dict[str, dict[str, Numbers]] = {rule: {} for rule in rules}
    for group in groups_of(runs[0].run.env, test) if rules else ():
        every = list(each_seed(group, by_rules(group.env, starts), starts, len(rules)))
        for number, rule in enumerate(rules):
            own = [{name: float(values[number]) for name, values in one.items()} for one in every]
            by_rule[rule] |= _by_condition(group, own)
    rows += [row for rule, found in by_rule.items() for row in _matrix_rows(rule, None, found)]
    return {
        "runs": [dict(trained.facts) for trained in runs],
        "conditions": test.name,
        "columns": list(next(iter(found.values()))),
        "episodes": int(starts.cases.size),
        "seed": seed,
        "cells": rows,
    }


def _by_condition(group: Group, numbers: Sequence[Numbers]) -> dict[str, Numbers]:
    return {label["condition"]: own for label, own in zip(group.labels, numbers, strict=True)}


def _matrix_rows(player: str, trained_on: str | None, found: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    at_home = found.get(trained_on or "")
    return [
        {"player": player, "trained_on": trained_on, "condition": condition, **own, **changes(own, at_home)}
        for condition, own in found.items()
    ]


def matrices(report: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Players x conditions of every number, in the order of the report."""
    cells = pd.DataFrame(report["cells"])
    order = {name: list(dict.fromkeys(cells[name])) for name in ("player", "condition")}
    table = cells.pivot(index="player", columns="condition").reindex(order["player"])
    return {name: table[name][order["condition"]] for name in report["columns"]}


def matrix_tables(report: Mapping[str, Any]) -> list[Any]:
    """A `rich` table for every number, a line for each condition; a star where a player was trained there."""
    from rich.table import Table

    trained = {row["player"]: row["trained_on"] for row in report["cells"]}
    tables = []
    for name, matrix in matrices(report).items():
        caption = f"{report['episodes']} episodes of each of the {report['conditions']}; * trained there"
        table = Table(title=name, caption=caption)
        table.add_column("", no_wrap=True)
        for player in matrix.index:
            table.add_column(str(player), justify="right", overflow="fold")
        for condition in matrix.columns:
            stars = ["*" if trained[player] == condition else "" for player in matrix.index]
            cells = (f"{star}{_short(value)}" for star, value in zip(stars, matrix[condition], strict=True))
            table.add_row(str(condition), *cells)
        tables.append(table)
    return tables


def write_matrices(report: Mapping[str, Any], run_dir: Path) -> list[Path]:
    """`eval/<name>.csv` and `plots/<name>.png`; returns the files."""
    table = run_dir / "eval" / f"{report['conditions']}.csv"
    write_csv(table, report["cells"])
    trained = {row["player"]: row["trained_on"] for row in report["cells"]}
    figure = condition_figures.matrix_figure(matrices(report), trained)
    return [table, *style.save_figures({report["conditions"]: figure}, run_dir / "plots")]
