"""Training of many configurations times many seeds as one batch of independent runs.

Reading order: lanes and parts, compiling for what the memory holds, one part, `train_points`, what a directory keeps.

A point is a configuration, a lane is a point with a seed, a part is as many lanes as are trained together.
"""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purerl.config import ConfigError, RunConfig, config_hash
from purerl.evaluation import Evaluate, Run, make_evaluate, policy_like, write_json
from purerl.learn import sharding
from purerl.run import checkpoint, logs
from purerl.runner import Chunk, Plan, Program, program_of_lanes
from purerl.sweeps.points import Group, Point, groups_of, how_swept, label, point_configs, without_effect

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
    init: Callable[[jax.Array, Any], Any]
    chunk: Chunk
    seconds: float


def compile_for(group: Group, lanes: int, at_once: int | None, size: int | None) -> Compiled:
    """The program for the largest parts that `at_once` and the memory allow, or for parts of a known `size`."""
    config, start = group.run.config, time.monotonic()
    devices = min(config.num_devices, jax.device_count())
    known, size = size is not None, size or part_size(lanes, at_once or LANES_AT_ONCE, devices)
    while True:
        spread = sharding.spread_of(config.num_devices, size)
        program = program_of_lanes(group.run.algorithm, spread, group.plan.updates_per_epoch)
        keys = jax.eval_shape(_keys, jnp.zeros(size, jnp.int32))
        hparams = jax.tree.map(lambda x, size=size: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), group.hparams)
        state = spread.placed_shapes(jax.eval_shape(program.init, keys, hparams))
        chunk = program.chunk(state)
        needed, allowed = _bytes_needed(chunk.program), MEMORY_SHARE * _memory_bytes(devices)
        if known or at_once is not None or size <= devices or needed <= allowed:
            init = program.init.lower(keys, hparams).compile()  # type: ignore[attr-defined]
            return Compiled(size, program, init, chunk, time.monotonic() - start)
        size = part_size(lanes, min(int(size * allowed / needed), size - 1), devices)


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
    evaluate: Evaluate,
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
    hparams = jax.tree.map(lambda leaf: leaf[rows], group.hparams)
    progress = Progress()
    if directory is not None and checkpoint.available(directory):
        like = jax.eval_shape(compiled.program.init, keys, hparams)
        state, meta = checkpoint.restore(directory, like)
        progress = Progress(**{field.name: meta[field.name] for field in dataclasses.fields(Progress)})
        report(f"  resumed after epoch {progress.epoch}")
    else:
        start = time.monotonic()
        state = jax.block_until_ready(compiled.init(keys, hparams))
        progress.seconds["init_s"] += time.monotonic() - start
    state = compiled.program.place(state)
    policies = None
    while progress.epoch < plan.epochs and not stop():
        start = time.monotonic()
        state, metrics = compiled.chunk(state)
        series = logs.host_metrics(jax.device_get(metrics)).series
        progress.seconds["train_s"] += time.monotonic() - start
        _note_divergence(progress, series, plan)
        progress.epoch += 1
        last = progress.epoch == plan.epochs
        if last or (settings.every_epochs is not None and progress.epoch % settings.every_epochs == 0):
            policies = compiled.program.policy(state)
            _note_scores(progress, evaluate, policies, settings, plan)
            report(_line(progress, plan, lanes))
        due = progress.epoch % config.checkpointing.every_epochs == 0 or stop()
        if directory is not None and due and not last:
            checkpoint.save(directory, progress.epoch, state, dataclasses.asdict(progress))
            checkpoint.prune(directory, 0, 1)
    return (policies, progress) if progress.epoch == plan.epochs else None


def _note_divergence(progress: Progress, series: Mapping[str, logs.Series], plan: Plan) -> None:
    bad = np.any([~np.isfinite(s.value).all(axis=0) for s in series.values()], axis=0)
    for lane in np.flatnonzero(bad):
        alone = {
            name: s._replace(value=s.value[:, [lane]], weight=s.weight[:, [lane]]) for name, s in series.items()
        }  # fmt: skip
        first = logs.first_bad_metric(alone)
        assert first is not None
        update = progress.epoch * plan.updates_per_epoch + first.update + 1
        progress.diverged.setdefault(str(lane), {"metric": first.name, "update": update})


def _note_scores(progress: Progress, evaluate: Evaluate, policies: Any, settings: Any, plan: Plan) -> None:
    start = time.monotonic()
    score = evaluate(policies, settings.split, settings.episodes, settings.seed).score
    scores = np.array(score.policy, np.float64)
    for lane in np.flatnonzero(~np.isfinite(scores)):
        update = progress.epoch * plan.updates_per_epoch
        progress.diverged.setdefault(str(lane), {"metric": "score", "update": update})
    # What is not finite acts somehow, and an environment may well put a number on it.
    lost = [int(lane) for lane in progress.diverged]
    scores[lost] = np.nan
    progress.unit = score.unit
    progress.epochs.append(progress.epoch)
    progress.scores.append(scores.tolist())
    if score.percent_of_bound is not None:
        percents = np.array(score.percent_of_bound, np.float64)
        percents[lost] = np.nan
        progress.percent_of_bound.append(percents.tolist())
    progress.seconds["evaluation_s"] += time.monotonic() - start


def _line(progress: Progress, plan: Plan, lanes: Sequence[Lane]) -> str:
    kept = [score for score in progress.scores[-1] if np.isfinite(score)]
    spread = f"{progress.unit} {min(kept):.4g} .. {max(kept):.4g}" if kept else "all diverged"
    lost = len({lanes[int(lane)] for lane in progress.diverged})
    return f"  epoch {progress.epoch}/{plan.epochs}  {spread}" + (f"  ({lost} diverged)" if lost and kept else "")


# All of them


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Trained points. P points, S seeds, E evaluations (the last is that of the final policies)."""

    config: RunConfig
    points: list[Point]
    seeds: list[int]
    groups: list[Group]
    keys: dict[str, str]
    """Swept key -> `traced` or `in sequence`."""
    unit: str
    epochs: list[list[int]]
    """[P][E] at which the policies were evaluated; E differs only between programs of different length."""
    env_steps: list[list[int]]
    """[P][E], of one seed."""
    curves: list[np.ndarray]
    """P times [E, S] scores; NaN from where a seed diverged."""
    percent_of_bound: list[np.ndarray] | None
    """P times [S], of the final policies."""
    diverged: dict[tuple[int, int], dict[str, Any]]
    """(point, seed index) -> `metric` and `update`."""
    policies: list[Any]
    """P times final policies, leaves [S, ...]."""
    parts: list[dict[str, Any]]
    """Times, lanes and environment steps of every part."""
    compare_s: float
    """Time to find out which points share a program."""

    @property
    def scores(self) -> np.ndarray:
        """Final scores [P, S]."""
        return np.stack([curve[-1] for curve in self.curves])

    def run_of(self, point: int) -> Run:
        """Environment and algorithm that evaluate the policies of a point."""
        return next(group.run for group in self.groups if point in group.points)


def train_points(
    config: RunConfig,
    points: Sequence[Point],
    seeds: int | None = None,
    at_once: int | None = None,
    directory: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Report = lambda line: None,
    begin: Callable[[], Any] = lambda: None,
) -> Sweep | None:
    """Train every point with the seeds `config.seed`, `config.seed + 1`, ... and score the policies greedily.

    Each lane is the run of `purerl.make_train` with that point's configuration and seed, to rounding. All lanes play
    the same evaluation episodes. Nothing is written unless there is a `directory`.

    Args:
        points: dotted keys and values, such as `[{"algo.lr": 1e-4}, {"algo.lr": 1e-3}]`.
        seeds: number of seeds; default `config.num_seeds`.
        at_once: lanes trained together at most; default: what fits half of the memory, up to 256.
        directory: finished parts, and states of unfinished ones, are kept here and not computed again.
        stop: asked after every epoch.
        begin: called when all points have been found sound, before anything is written.

    Returns:
        None if `stop` ended the sweep before all points were trained.

    Raises:
        ConfigError: a point that the schema, the environment or the algorithm refuses; nothing has been trained then.
    """
    start = time.monotonic()
    configs = point_configs(config, points)
    groups, seeds = groups_of(configs), seeds or config.num_seeds
    compare_s = time.monotonic() - start
    begin()
    if directory is not None:
        _claim(directory, [config_hash(c) for c in configs], seeds)
    keys = how_swept(points, groups)
    _announce(config, points, seeds, groups, keys, report)
    parts: list[Part] = []
    for number, group in enumerate(groups):
        trained = _train_group(group, number, seeds, at_once, directory, stop, report)
        if trained is None:
            return None
        parts += trained
    return _collected(config, list(points), seeds, groups, keys, parts, compare_s)


def _claim(directory: Path, hashes: list[str], seeds: int) -> None:
    """A directory belongs to one sweep; what it holds of another must not pass for this one's."""
    owner, path = {"points": hashes, "seeds": seeds}, directory / "points.json"
    if path.exists() and json.loads(path.read_text()) != owner:
        raise ConfigError(f"{directory}: holds parts of another sweep")
    write_json(path, owner)


def _announce(config, points, seeds, groups, keys, report: Report) -> None:
    report(
        f"{len(points)} point(s) x {seeds} seed(s) = {len(points) * seeds} runs in {len(groups)} program(s); "
        + "; ".join(f"{key} {how}" for key, how in keys.items())
    )
    if config.evaluation.early_stop is not None:
        report("note: evaluation.early_stop is not applied: all points are trained for the same number of updates")
    for earlier, later in without_effect(groups):
        report(f"note: {label(points[earlier])} and {label(points[later])} are the same program with the same numbers")


def _train_group(group: Group, number: int, seeds, at_once, directory, stop, report) -> list[Part] | None:
    """All parts of a group; finished ones are read. None if stopped before."""
    lanes = lanes_of(group, seeds)
    files = _Files(directory, number)
    size = files.lanes_at_once()
    done: dict[int, Part] = {}
    if size is not None:
        starts = range(0, len(lanes), size)
        done = {start: files.read(start, group, lanes[start : start + size]) for start in starts if files.has(start)}
        if len(done) == len(starts):
            return list(done.values())
    if stop():
        return None
    compiled = compile_for(group, len(lanes), at_once, size)
    evaluate = make_evaluate(group.run.algorithm, group.run.env, directory / "bounds" if directory else None)
    files.write_layout(compiled.size)
    compile_s, parts = compiled.seconds, []
    for start in range(0, len(lanes), compiled.size):
        if start not in done:
            own = lanes[start : start + compiled.size]
            report(f"program {number + 1}: runs {start + 1} to {start + len(own)} of {len(lanes)} at once")
            # The last part is filled up with copies of its last lane, so that all parts share one compiled program.
            filled = own + own[-1:] * (compiled.size - len(own))
            trained = train_part(group, compiled, evaluate, filled, files.states(start), stop, report)
            if trained is None:
                return None
            done[start] = _own_lanes(group, own, *trained)
            done[start].progress.seconds["compile_s"], compile_s = compile_s, 0.0
            files.write(start, done[start])
        parts.append(done[start])
    return parts


def _own_lanes(group: Group, lanes: list[Lane], policies: Any, progress: Progress) -> Part:
    """The part without the copies that filled it up."""
    count = len(lanes)
    kept = dataclasses.replace(
        progress,
        scores=[scores[:count] for scores in progress.scores],
        percent_of_bound=[percents[:count] for percents in progress.percent_of_bound],
        diverged={lane: what for lane, what in progress.diverged.items() if int(lane) < count},
    )
    return Part(lanes, _env_steps(group, progress), kept, jax.tree.map(lambda x: np.asarray(x[:count]), policies))


def _env_steps(group: Group, progress: Progress) -> list[int]:
    algorithm, per_epoch = group.run.algorithm, group.plan.updates_per_epoch
    return [
        algorithm.warmup_env_steps + epoch * per_epoch * algorithm.env_steps_per_update for epoch in progress.epochs
    ]


class _Files(NamedTuple):
    """What a directory keeps of one group; nothing is kept without a directory."""

    directory: Path | None
    group: int

    def _path(self, ending: str) -> Path | None:
        return self.directory / f"program_{self.group}{ending}" if self.directory else None

    def lanes_at_once(self) -> int | None:
        """As decided when the sweep was started, perhaps on a machine with other memory."""
        path = self._path(".json")
        return json.loads(path.read_text())["lanes_at_once"] if path and path.exists() else None

    def write_layout(self, size: int) -> None:
        if path := self._path(".json"):
            write_json(path, {"lanes_at_once": size})

    def states(self, start: int) -> Path | None:
        return self._path(f"_from_{start:05d}")

    def _part(self, start: int) -> Path | None:
        return self._path(f"_from_{start:05d}.npz")

    def has(self, start: int) -> bool:
        path = self._part(start)
        return path is not None and path.exists()

    def write(self, start: int, part: Part) -> None:
        path, states = self._part(start), self.states(start)
        if path and states:
            checkpoint.write_tree(path, part.policies, dataclasses.asdict(part.progress))
            shutil.rmtree(states, ignore_errors=True)

    def read(self, start: int, group: Group, lanes: list[Lane]) -> Part:
        path = self._part(start)
        assert path is not None
        config = group.run.config.model_copy(update={"num_seeds": len(lanes)})
        policies, meta = checkpoint.read_tree(path, policy_like(group.run._replace(config=config)))
        progress = Progress(**meta)
        return Part(lanes, _env_steps(group, progress), progress, jax.tree.map(np.asarray, policies))


def _collected(config, points, seeds: int, groups, keys, parts: list[Part], compare_s: float) -> Sweep:
    where = {(lane.point, lane.seed): (part, i) for part in parts for i, lane in enumerate(part.lanes)}
    by_point = [[where[point, seed] for seed in range(seeds)] for point in range(len(points))]
    with_bound = all(part.progress.percent_of_bound for part in parts)
    return Sweep(
        config=config,
        points=points,
        seeds=[config.seed + seed for seed in range(seeds)],
        groups=groups,
        keys=keys,
        unit=parts[0].progress.unit,
        epochs=[row[0][0].progress.epochs for row in by_point],
        env_steps=[row[0][0].env_steps for row in by_point],
        curves=[np.array([np.array(p.progress.scores)[:, i] for p, i in row]).T for row in by_point],
        percent_of_bound=[np.array([p.progress.percent_of_bound[-1][i] for p, i in row]) for row in by_point]
        if with_bound
        else None,
        diverged={
            (lane.point, lane.seed): part.progress.diverged[str(i)]
            for part in parts
            for i, lane in enumerate(part.lanes)
            if str(i) in part.progress.diverged
        },
        policies=[_stack([jax.tree.map(lambda x, i=i: x[i], p.policies) for p, i in row]) for row in by_point],
        parts=[
            {"runs": len(part.lanes), "env_steps": len(part.lanes) * part.env_steps[-1], **part.progress.seconds}
            for part in parts
        ],
        compare_s=compare_s,
    )


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
