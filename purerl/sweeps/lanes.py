"""Training of many configurations times many seeds as one batch of independent runs.

Reading order: lanes and parts, compiling for what the memory holds, scores of lanes, one part.

A point is a configuration, a lane is a point with a seed, a part is as many lanes as are trained together.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters import with_agent_axis
from purerl.learn import sharding
from purerl.run import checkpoint, metrics
from purerl.run.evaluation import choose_cases, rollout_cases, score
from purerl.run.plan import Plan
from purerl.run.program import Chunk, Program, program_of_lanes
from purerl.sweeps.points import Group
from purerl.types import Data

LANES_AT_ONCE = 256
"""Most lanes of one part unless asked for more; beyond that a part only gets longer."""
MEMORY_SHARE = 0.5
"""Of the device's memory, for one part."""


# Lanes and parts


class Lane(NamedTuple):
    point: int
    row: int
    """Of the point in its group's `hparams`."""
    seed: int
    """Index of the seed."""


def lanes_of(group: Group, seeds: int) -> list[Lane]:
    return [Lane(point, row, seed) for row, point in enumerate(group.points) for seed in range(seeds)]


def part_size(lanes: int, at_once: int, devices: int) -> int:
    """Lanes of each of as few equal parts as `at_once` allows; the seed axis divides over the devices."""
    if lanes < devices:
        return lanes
    most = max(at_once // devices, 1) * devices
    parts = -(-lanes // most)
    return -(-lanes // (parts * devices)) * devices


class Compiled(NamedTuple):
    """A group's program for parts of `size` lanes."""

    size: int
    program: Program
    init: Callable[[jax.Array, Any, Any], Any]
    chunks: dict[int, Chunk]
    """By the number of updates; two where epochs do not divide them."""
    seconds: float


def compile_for(group: Group, lanes: int, at_once: int | None, size: int | None) -> Compiled:
    """The program for the largest parts that `at_once` and the memory allow, or for parts of a known `size`."""
    config, start = group.run.config, time.monotonic()
    devices = min(config.num_devices, jax.device_count())
    known, size = size is not None, size or part_size(lanes, at_once or LANES_AT_ONCE, devices)
    while True:
        layout = sharding.layout_of(config.num_devices, size)
        lengths = {group.plan.updates_of(1), group.plan.updates_of(group.plan.epochs)}
        programs = {
            count: program_of_lanes(group.run.algorithm, layout, count, own_data=group.own_data) for count in lengths
        }
        program = programs[max(lengths)]
        keys = jax.eval_shape(_keys, jnp.zeros(size, jnp.int32))
        hparams = jax.tree.map(lambda x, size=size: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), group.hparams)
        data = data_of(group, np.zeros(size, int))
        state, placed = (
            layout.placed_shapes(jax.eval_shape(program.init, keys, hparams, data)),
            program.place_data(data),
        )
        longest = program.chunk(state, placed)
        needed, allowed = _bytes_needed(longest), MEMORY_SHARE * _memory_bytes(devices)
        if known or at_once is not None or size <= devices or needed <= allowed:
            init = program.init.lower(keys, hparams, data).compile()  # type: ignore[attr-defined]
            chunks = {n: longest if n == max(lengths) else programs[n].chunk(state, placed) for n in lengths}
            return Compiled(size, program, init, chunks, time.monotonic() - start)
        size = part_size(lanes, min(int(size * allowed / needed), size - 1), devices)


def data_of(group: Group, rows: np.ndarray) -> Data:
    """What the updates of lanes read, whose points have these rows in the group."""
    own = lambda leaf, is_own: leaf[rows] if is_own else jnp.asarray(leaf)  # noqa: E731
    return jax.tree.map(own, group.data, group.own_data)


def _keys(seeds: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.key)(seeds)


def _bytes_needed(compiled: Any) -> int:
    """What a compiled chunk holds on one device; its argument is donated."""
    analysis = compiled.memory_analysis()
    return 0 if analysis is None else analysis.argument_size_in_bytes + analysis.temp_size_in_bytes


def _memory_bytes(devices: int) -> int:
    """Of one device; cores that work as devices share the machine's."""
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // devices


# Scores


class Scores(NamedTuple):
    """Of the policies of a part, one value per lane."""

    unit: str
    policy: list[float]
    percent_of_bound: list[float] | None
    seconds: float


Scored = Callable[[Any, np.ndarray], Scores]
"""`(policies with a leading axis of lanes, rows of their points in the group) -> Scores`."""


def scored_in(group: Group, cache_dir: Path | None) -> Scored:
    """Greedy episodes of the evaluation split, every lane in the environment of its own point; compiled once."""
    settings, env = group.run.config.evaluation, with_agent_axis(group.run.env)
    params, own_params = sharding.joined([one.split_params(settings.split) for one in group.envs])
    is_own = tuple(jax.tree.leaves(own_params))
    rollout = jax.jit(partial(rollout_cases, group.run.algorithm, env, own_params=is_own))
    cases = choose_cases(env.assessment.num_cases(env.split_params(settings.split)), settings.episodes)

    def scored(policies: Any, rows: np.ndarray) -> Scores:
        start = time.monotonic()
        own = jax.tree.map(lambda leaf, apart: leaf[rows] if apart else leaf, params, own_params)
        key = jax.random.key(settings.seed)
        records = jax.device_get(rollout(own, policies, jnp.asarray(cases, jnp.int32), key))
        policy, percent = np.zeros(len(rows)), np.zeros(len(rows))
        for world in dict.fromkeys(group.envs):
            here = np.flatnonzero([group.envs[row] is world for row in rows])
            if not here.size:
                continue
            reached = score(world, settings.split, jax.tree.map(lambda x, at=here: x[at], records), cache_dir)
            policy[here] = reached.policy
            percent[here] = np.nan if reached.percent_of_bound is None else reached.percent_of_bound
        percents = None if reached.percent_of_bound is None else percent.tolist()
        return Scores(reached.unit, policy.tolist(), percents, time.monotonic() - start)

    return scored


# One part


@dataclasses.dataclass
class Progress:
    """What the host knows of a part; JSON-serialisable, saved with its state."""

    epoch: int = 0
    epochs: list[int] = dataclasses.field(default_factory=list)
    """At which the policies were evaluated."""
    unit: str = ""
    scores: list[list[float]] = dataclasses.field(default_factory=list)
    """[evaluations][lanes]; NaN from where a lane diverged."""
    percent_of_bound: list[list[float]] = dataclasses.field(default_factory=list)
    """As `scores`; empty where the environment has no bound."""
    diverged: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Lane (as text, for JSON) -> first `metric` that was not finite and the `update` it was seen at."""
    seconds: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(("compile_s", "init_s", "train_s", "evaluation_s"), 0.0)
    )


class Part(NamedTuple):
    """A trained part."""

    lanes: list[Lane]
    env_steps: list[int]
    """Of one lane at each evaluation."""
    progress: Progress
    policies: Any
    """Leaves [lanes]."""


Report = Callable[[str], None]


def train_part(
    group: Group,
    compiled: Compiled,
    scored: Scored,
    lanes: Sequence[Lane],
    directory: Path | None,
    stop: Callable[[], bool],
    report: Report,
) -> tuple[Any, Progress] | None:
    """Policies [size] and what is known of them, or None if `stop` ended it before the last epoch.

    Args:
        lanes: as many as the program takes.
        directory: where the state is saved every `checkpointing.every_epochs` epochs and when stopped, and found again.
    """
    if stop():
        return None
    config, plan = group.run.config, group.plan
    settings = config.evaluation
    keys = _keys(jnp.asarray([config.seed + lane.seed for lane in lanes], jnp.int32))
    rows = np.asarray([lane.row for lane in lanes])
    hparams, data = jax.tree.map(lambda leaf: leaf[rows], group.hparams), data_of(group, rows)
    progress = Progress()
    writer = checkpoint.Writer(directory) if directory is not None else None
    if directory is not None and checkpoint.available(directory):
        like = {"state": jax.eval_shape(compiled.program.init, keys, hparams, data)}
        tree, meta = checkpoint.restore(directory, like)
        state = tree["state"]
        progress = Progress(**{field.name: meta[field.name] for field in dataclasses.fields(Progress)})
        report(f"  resumed after epoch {progress.epoch}")
    else:
        start = time.monotonic()
        state = jax.block_until_ready(compiled.init(keys, hparams, data))
        progress.seconds["init_s"] += time.monotonic() - start
    state, data = compiled.program.place(state), compiled.program.place_data(data)
    policies = None
    while progress.epoch < plan.epochs and not stop():
        start = time.monotonic()
        state, on_device = compiled.chunks[plan.updates_of(progress.epoch + 1)](state, data)
        series = metrics.host_metrics(jax.device_get(on_device)).series
        progress.seconds["train_s"] += time.monotonic() - start
        _note_divergence(progress, series, plan)
        progress.epoch += 1
        last = progress.epoch == plan.epochs
        if last or (settings.every_epochs is not None and progress.epoch % settings.every_epochs == 0):
            policies = compiled.program.policy(state)
            _note_scores(progress, scored(policies, rows), plan)
            report(_line(progress, plan, lanes))
        due = progress.epoch % config.checkpointing.every_epochs == 0 or stop()
        if writer is not None and due and not last:
            writer.save(progress.epoch, {"state": state}, dataclasses.asdict(progress))
    if writer is not None:
        writer.wait()
    return (policies, progress) if progress.epoch == plan.epochs else None


def _note_divergence(progress: Progress, series: Mapping[str, metrics.Series], plan: Plan) -> None:
    bad = np.any([~np.isfinite(s.value).all(axis=0) for s in series.values()], axis=0)
    for lane in np.flatnonzero(bad):
        alone = {
            name: s._replace(value=s.value[:, [lane]], weight=s.weight[:, [lane]]) for name, s in series.items()
        }  # fmt: skip
        first = metrics.first_bad_metric(alone)
        assert first is not None
        update = plan.updates_after(progress.epoch) + first.update + 1
        progress.diverged.setdefault(str(lane), {"metric": first.name, "update": update})


def _note_scores(progress: Progress, reached: Scores, plan: Plan) -> None:
    scores = np.array(reached.policy, np.float64)
    for lane in np.flatnonzero(~np.isfinite(scores)):
        update = plan.updates_after(progress.epoch)
        progress.diverged.setdefault(str(lane), {"metric": "score", "update": update})
    # What is not finite acts somehow, and an environment may well put a number on it.
    lost = [int(lane) for lane in progress.diverged]
    scores[lost] = np.nan
    progress.unit = reached.unit
    progress.epochs.append(progress.epoch)
    progress.scores.append(scores.tolist())
    if reached.percent_of_bound is not None:
        percents = np.array(reached.percent_of_bound, np.float64)
        percents[lost] = np.nan
        progress.percent_of_bound.append(percents.tolist())
    progress.seconds["evaluation_s"] += reached.seconds


def _line(progress: Progress, plan: Plan, lanes: Sequence[Lane]) -> str:
    kept = [score for score in progress.scores[-1] if np.isfinite(score)]
    span = f"{progress.unit} {min(kept):.4g} .. {max(kept):.4g}" if kept else "all diverged"
    lost = len({lanes[int(lane)] for lane in progress.diverged})
    return f"  epoch {progress.epoch}/{plan.epochs}  {span}" + (f"  ({lost} diverged)" if lost and kept else "")
