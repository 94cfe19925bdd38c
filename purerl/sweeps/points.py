"""Points of a sweep: swept keys, the configurations they stand for, and which of them share a compiled program.

Points share a program exactly if their programs, lowered with the algorithm's `hparams` and the environment's
parameters as arguments, are the same text. So no list of keys can go stale: a key that changes anything but these
numbers (a shape, a branch that a number switches on) leads to a program of its own.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from envs_jax.base import Environment
from purerl.config import RunConfig, config_hash, resolve_config
from purerl.errors import ConfigError
from purerl.learn.sharding import joined
from purerl.run import preflight
from purerl.run.evaluation import rollout_cases
from purerl.run.plan import Plan, plan_of
from purerl.run.runs import Run, build
from purerl.types import Data
from purerl.yaml_rules import parse_yaml

Point = dict[str, Any]
"""Dotted key -> value."""

RANGE_DIGITS = 4
"""Significant digits of numbers drawn from a range."""


# Swept keys and points


class Range(NamedTuple):
    """Numbers from `low` to `high`; whole ones if both ends are."""

    low: float
    high: float
    log: bool = False


Axes = dict[str, list[Any] | Range]


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], Axes]:
    """Overrides for all points, and swept keys: a list sweeps its elements, `{low: A, high: B, log: true}` is a range.

    Raises:
        ConfigError: an empty list, a wrong range, or a swept key that is given twice.
    """
    fixed, axes = [], {}
    keys = [text.partition("=")[0] for text in overrides]
    for key, text in zip(keys, overrides, strict=True):
        try:
            value = parse_yaml(text.partition("=")[2])
        except yaml.YAMLError:
            value = None  # loading the configuration says what is wrong with it
        values = _axis(key, value)
        if values is None:
            fixed.append(text)
        elif keys.count(key) > 1:
            raise ConfigError(f"override: {key} is swept and given twice")
        elif isinstance(values, list) and len(values) == 1:
            fixed.append(f"{key}={json.dumps(values[0])}")
        else:
            axes[key] = values
    return fixed, axes


def _axis(key: str, value: Any) -> list[Any] | Range | None:
    if isinstance(value, dict) and set(value) in ({"low", "high"}, {"low", "high", "log"}):
        low, high, log = value["low"], value["high"], value.get("log", False)
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
        if not numbers or not isinstance(log, bool) or not low < high or (log and low <= 0):
            raise ConfigError(f"override: {key}: a range is {{low: A, high: B}} with A < B, log: true only for A > 0")
        return Range(low, high, log)
    if value == []:
        raise ConfigError(f"override: {key}: the list to sweep is empty")
    return value if isinstance(value, list) else None


def grid(axes: Mapping[str, list[Any] | Range]) -> list[Point]:
    """All combinations; the last key varies fastest."""
    for key, values in axes.items():
        if isinstance(values, Range):
            raise ConfigError(f"override: {key}: a range is for --random N; a grid takes a list of values")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def random_points(axes: Mapping[str, list[Any] | Range], count: int, seed: int) -> list[Point]:
    """`count` independent draws, without those that repeat an earlier one."""
    rng = np.random.default_rng(seed)
    drawn = [{key: _draw(rng, values) for key, values in axes.items()} for _ in range(count)]
    return list({json.dumps(point): point for point in drawn}.values())


def _draw(rng: np.random.Generator, values: list[Any] | Range) -> Any:
    if isinstance(values, list):
        return values[rng.integers(len(values))]
    low, high, log = values
    if isinstance(low, int) and isinstance(high, int) and not log:
        return int(rng.integers(low, high + 1))
    number = np.exp(rng.uniform(np.log(low), np.log(high))) if log else rng.uniform(low, high)
    whole = isinstance(low, int) and isinstance(high, int)
    return round(number) if whole else min(max(float(f"{number:.{RANGE_DIGITS}g}"), low), high)


def point_configs(config: RunConfig, points: Sequence[Point]) -> list[RunConfig]:
    """The configuration of every point, validated like any other.

    Raises:
        ConfigError: a key or value that the schema refuses, a key that is no hyper-parameter, or two equal points.
    """
    base, configs = config.model_dump(mode="json"), []
    seen: dict[str, Point] = {}
    for point in points:
        for key, value in point.items():
            _require_sweepable(base, key, value)
        configs.append(resolve_config(base, "sweep", [f"{key}={json.dumps(value)}" for key, value in point.items()]))
        earlier = seen.setdefault(config_hash(configs[-1]), point)
        if earlier is not point:
            raise ConfigError(f"override: two points are the same: {label(earlier)} and {label(point)}")
    return configs


def _require_sweepable(base: dict[str, Any], key: str, value: Any) -> None:
    section, _, rest = key.partition(".")
    if section not in ("algo", "env") or rest in ("", "name"):
        hint = "; --seeds N trains several seeds" if key in ("seed", "num_seeds") else ""
        raise ConfigError(f"override: {key} cannot be swept, only keys of algo and env can{hint}")
    old: Any = base
    for part in key.split("."):
        old = old.get(part) if isinstance(old, dict) else None
    if isinstance(old, list) and not isinstance(value, list):
        raise ConfigError(
            f"override: a list sweeps its elements and {key} = {value} is no list; for one value write {key}=[[...]]"
        )


def label(point: Point) -> str:
    """Such as `lr 0.001, gamma 0.99`."""
    return ", ".join(f"{key.rpartition('.')[2]} {_text(value)}" for key, value in point.items()) or "as configured"


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# Which points share a program


class Group(NamedTuple):
    """Points that one compiled program trains."""

    points: tuple[int, ...]
    run: Run
    """Of the first point; the others differ in `hparams` and numbers of the environment only."""
    plan: Plan
    hparams: Any
    """Leaves [points]."""
    data: Data
    """What updates read; leaves in which the points differ are [points, ...]."""
    own_data: Data
    """True for those leaves, False for shared ones."""
    envs: tuple[Environment, ...]
    """Of every point."""


def groups_of(configs: Sequence[RunConfig]) -> list[Group]:
    """Points by the program that trains them, in the order of the first of each.

    Raises:
        ConfigError: a point that cannot be built or traced, or of which not even one seed fits into the memory.
    """
    envs: dict[str, Environment] = {}
    members: dict[str, list[int]] = {}
    runs, loaded = [], []
    for number, config in enumerate(configs):
        settings = json.dumps(config.env, sort_keys=True)
        run = build(config, env=envs.get(settings))
        preflight.require_sound(run)
        envs[settings] = run.env
        data = run.algorithm.load_data()
        program = traced_program(run, data)
        preflight.require_room_for_one(run, data, program)
        members.setdefault(program_fingerprint(run, program), []).append(number)
        runs.append(run)
        loaded.append(data)
    return [_group([runs[n] for n in numbers], [loaded[n] for n in numbers], numbers) for numbers in members.values()]


def _group(runs: Sequence[Run], loaded: Sequence[Data], numbers: Sequence[int]) -> Group:
    first = runs[0]
    data, own_data = joined(loaded)
    return Group(
        points=tuple(numbers),
        run=first,
        plan=plan_of(first.algorithm.num_updates, first.config.epochs),
        hparams=jax.tree.map(_stacked, *(run.algorithm.hparams for run in runs)),
        data=data,
        own_data=own_data,
        envs=tuple(run.env for run in runs),
    )


def traced_program(run: Run, data: Data) -> Any:
    """All that is compiled for a run, traced: `init`, `update`, `policy` and `act`, with `hparams`, `data` and the
    parameters of the evaluation as arguments.

    Raises:
        ConfigError: it cannot be traced.
    """
    algorithm, env = run.algorithm, run.env

    def everything(key, key_play, hparams, data, params):
        state, metrics = algorithm.update(algorithm.init(key, hparams, data), data)
        policy = jax.tree.map(lambda x: x[None], algorithm.policy(state))
        return metrics, rollout_cases(algorithm, env, params, policy, jnp.zeros(1, jnp.int32), key_play)

    numbers = _strong(algorithm.hparams), _strong(data), _strong(env.split_params(run.config.evaluation.split))
    with preflight.tracing(f"{run.config.algo['name']} on {env.name}"):
        return jax.jit(everything).trace(jax.random.key(0), jax.random.key(1), *numbers)


def program_fingerprint(run: Run, program: Any) -> str:
    """Hash of a `traced_program` and of how often and over what it is run."""
    algorithm = run.algorithm
    counts = (
        algorithm.num_updates, algorithm.env_steps_per_update, algorithm.warmup_env_steps, algorithm.vectorise_seeds,
    )  # fmt: skip
    return hashlib.sha256(f"{run.env.name} {counts} {program.lower().as_text()}".encode()).hexdigest()


def without_effect(groups: Sequence[Group]) -> list[tuple[int, int]]:
    """Pairs of points with the same program and the same numbers: what tells them apart does nothing."""
    pairs = []
    for group in groups:
        seen: dict[bytes, int] = {}
        own = [leaf for leaf, is_own in zip(*map(jax.tree.leaves, (group.data, group.own_data)), strict=True) if is_own]
        rows = [np.asarray(leaf, np.float64) for leaf in (*jax.tree.leaves(group.hparams), *own)]
        columns = np.concatenate([row.reshape(len(group.points), -1) for row in rows], axis=1)
        for number, row in zip(group.points, columns, strict=True):
            if (earlier := seen.setdefault(row.tobytes(), number)) != number:
                pairs.append((earlier, number))
    return pairs


def how_swept(points: Sequence[Point], groups: Sequence[Group]) -> dict[str, str]:
    """`traced` for keys of which one program holds several values, `in sequence` where every value has its own."""
    return {
        key: "traced"
        if any(len({json.dumps(points[n].get(key)) for n in group.points}) > 1 for group in groups)
        else "in sequence"
        for key in dict.fromkeys(key for point in points for key in point)
    }


def _strong(hparams: Any) -> Any:
    """Numbers as arrays of a fixed type, so that no program depends on how they were written."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(jnp.asarray(x))), hparams)


def _stacked(*numbers: Any) -> jax.Array:
    return jnp.asarray(np.stack([np.asarray(jnp.asarray(number)) for number in numbers]))
