"""Training of all points of a sweep, and what its directory keeps.

Reading order: `Sweep`, `train_points`, a group, the files of finished and unfinished parts.
"""

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purerl.config import RunConfig, config_hash
from purerl.errors import ConfigError
from purerl.run import bundle
from purerl.run.files import json_text, read_json, sealed, write_json
from purerl.run.plan import env_steps_after
from purerl.run.runs import Run, policy_like
from purerl.sweeps.lanes import Lane, Part, Progress, Report, compile_for, lanes_of, scored_in, train_part
from purerl.sweeps.points import Group, Point, groups_of, how_swept, label, point_configs, without_effect


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
        group = next(group for group in self.groups if point in group.points)
        return group.run._replace(env=group.envs[group.points.index(point)])


def train_points(
    config: RunConfig,
    points: Sequence[Point],
    seeds: int | None = None,
    at_once: int | None = None,
    directory: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Report = lambda line: None,
    begin: Callable[[], Path | None] = lambda: None,
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
        begin: called when all points have been found sound, before anything is written; may return the `directory`.

    Returns:
        None if `stop` ended the sweep before all points were trained.

    Raises:
        ConfigError: a point that the schema, the environment or the algorithm refuses; nothing has been trained then.
    """
    start = time.monotonic()
    configs = point_configs(config, points)
    groups, seeds = groups_of(configs), seeds or config.num_seeds
    compare_s = time.monotonic() - start
    directory = begin() or directory
    if directory is not None:
        _claim(directory, [config_hash(c) for c in configs], seeds, groups)
    keys = how_swept(points, groups)
    _announce(config, points, seeds, groups, keys, report)
    parts: list[Part] = []
    for number, group in enumerate(groups):
        trained = _train_group(group, number, seeds, at_once, directory, stop, report)
        if trained is None:
            return None
        parts += trained
    return _collected(config, list(points), seeds, groups, keys, parts, compare_s)


def _claim(directory: Path, hashes: list[str], seeds: int, groups: Sequence[Group]) -> None:
    """A directory belongs to one sweep on the same data; what it holds of another must not pass for this one's."""
    kept = [
        json_text([env.assessment.calibration, env.assessment.provenance]).encode()
        for group in groups
        for env in group.envs
    ]
    data = [hashlib.sha256(text).hexdigest()[:12] for text in kept]
    owner, path = {"points": hashes, "seeds": seeds, "data": data}, directory / "points.json"
    remedy = "delete it if the parts beside it are of this sweep"
    if path.exists() and (found := read_json(path, remedy)) != owner:
        same_points = {**found, "data": data} == owner
        what = "this sweep on data that have changed since; start it elsewhere" if same_points else "another sweep"
        raise ConfigError(f"{directory}: holds parts of {what}")
    write_json(path, sealed(owner))


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
    scored = scored_in(group, directory / "bounds" if directory else None)
    files.write_layout(compiled.size)
    compile_s, parts = compiled.seconds, []
    for start in range(0, len(lanes), compiled.size):
        if start not in done:
            own = lanes[start : start + compiled.size]
            report(f"program {number + 1}: runs {start + 1} to {start + len(own)} of {len(lanes)} at once")
            # The last part is filled up with copies of its last lane, so that all parts share one compiled program.
            filled = own + own[-1:] * (compiled.size - len(own))
            trained = train_part(group, compiled, scored, filled, files.states(start), stop, report)
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
    return [env_steps_after(group.run.algorithm, group.plan.updates_after(epoch)) for epoch in progress.epochs]


class _Files(NamedTuple):
    """What a directory keeps of one group; nothing is kept without a directory."""

    directory: Path | None
    group: int

    def _path(self, ending: str) -> Path | None:
        return self.directory / f"program_{self.group}{ending}" if self.directory else None

    def lanes_at_once(self) -> int | None:
        """As decided when the sweep was started, perhaps on a machine with other memory."""
        path, remedy = self._path(".json"), "delete the folder that it is in: its parts are trained again"
        return read_json(path, remedy, ["lanes_at_once"])["lanes_at_once"] if path and path.exists() else None

    def write_layout(self, size: int) -> None:
        if path := self._path(".json"):
            write_json(path, sealed({"lanes_at_once": size}))

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
            bundle.write_tree(path, part.policies, dataclasses.asdict(part.progress))
            shutil.rmtree(states, ignore_errors=True)

    def read(self, start: int, group: Group, lanes: list[Lane]) -> Part:
        path = self._part(start)
        assert path is not None
        config = group.run.config.model_copy(update={"num_seeds": len(lanes)})
        policies, meta = bundle.read_tree(path, policy_like(group.run._replace(config=config)))
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
