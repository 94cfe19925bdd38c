"""The host loop: jitted chunks of updates, and between them logging, evaluation, checkpoints and decisions.

Reading order: the plan of a run, `make_train` (a whole run as one pure function), the compiled parts of a run, what
the host remembers, `run` and its steps. Chunked and whole-run training give the same bits because both scan the same
`update`; a resumed run gives the same bits because the whole state is in the checkpoint.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purerl.config import ConfigError, RunConfig, config_hash, first_difference, load_config
from purerl.evaluation import (
    CALIBRATION,
    Evaluate,
    Result,
    Run,
    build,
    make_evaluate,
    print_table,
    score_table,
    write_json,
    write_step_tables,
)
from purerl.learn import sharding
from purerl.run import checkpoint, logs, stopping
from purerl.run.metadata import now, surroundings
from purerl.types import Algorithm

EXIT_OK, EXIT_DIVERGED = 0, 3
SMALL_WARMUP_SPAN = 0.8

Status = Literal["running", "finished", "early_stopped", "interrupted", "diverged"]


class Plan(NamedTuple):
    epochs: int
    updates_per_epoch: int

    @property
    def updates(self) -> int:
        return self.epochs * self.updates_per_epoch


def plan_of(num_updates: int, epochs: int) -> Plan:
    """Equal epochs, as near to the wanted number as whole updates allow; never more updates than `num_updates`."""
    per_epoch = max(1, round(num_updates / epochs))
    return Plan(max(1, num_updates // per_epoch), min(per_epoch, num_updates))


def make_train(config: RunConfig | str | Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """The whole run as a pure function `train(key, hparams=None) -> (state, metrics)`; metrics are stacked [updates].

    It jits, and vmaps over keys and over the numbers in `hparams` (default: those of the configuration). It does not
    log, evaluate or save; `python -m purerl.train` runs the same updates and does. It uses `num_devices` as far as JAX
    has them here; for several on a CPU, call `purerl.learn.sharding.provide_cpu_devices` before anything is computed.
    """
    config = config if isinstance(config, RunConfig) else load_config(config)
    algorithm = build(config).algorithm
    if algorithm.read_data is not None:
        algorithm.read_data()
    plan = plan_of(algorithm.num_updates, config.epochs)
    spread = sharding.spread_of(config.num_devices, num_seeds=1)

    def train(key: jax.Array, hparams: Any = None) -> tuple[Any, dict[str, Any]]:
        if hparams is None:
            # Behind the barrier they are data, as in a chunked run; XLA would otherwise fold them into the loop.
            hparams = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, algorithm.hparams))
        whole_run = spread.over(lambda state: scan_updates(algorithm.update, state, plan.updates))
        return whole_run(algorithm.init(key, hparams))

    return train


def scan_updates(update: Callable[[Any], Any], state: Any, count: int) -> tuple[Any, dict[str, Any]]:
    """`count` updates in a row; metrics are stacked [updates, ...]."""
    return jax.lax.scan(lambda state, _: update(state), state, None, length=count)


# Compiled parts


class Program(NamedTuple):
    init: Callable[..., Any]
    place: Callable[[Any], Any]
    """Lays the state out over the devices, as `chunk` wants it."""
    chunk: Callable[[Any], "Chunk"]
    """One epoch, compiled for states like its argument (arrays or shapes)."""
    policy: Callable[[Any], Any]
    """Policies with a leading seed axis, in memory of their own."""


def program_of(algorithm: Algorithm, config: RunConfig, updates_per_epoch: int) -> Program:
    """The run's functions of the state; with several seeds every leaf of the state has a leading seed axis."""
    hparams = jax.tree.map(jnp.asarray, algorithm.hparams)
    spread = sharding.spread_of(config.num_devices, config.num_seeds)
    if config.num_seeds == 1:
        policy = lambda s: _add_seed_axis(algorithm.policy(s))  # noqa: E731
        program = _program(algorithm.init, algorithm.update, policy, spread, updates_per_epoch)
    else:
        program = program_of_lanes(algorithm, spread, updates_per_epoch, hparams_axis=None)
    return program._replace(init=lambda: program.init(_seed_keys(config), hparams))


def program_of_lanes(
    algorithm: Algorithm, spread: sharding.Spread, updates_per_epoch: int, hparams_axis: int | None = 0
) -> Program:
    """Functions of the states of many independent runs; `init(keys, hparams)` takes one key for each.

    Args:
        hparams_axis: 0 where every run has its own `hparams`, None where they share them.
    """
    init, policy = jax.vmap(algorithm.init, (0, hparams_axis)), jax.vmap(algorithm.policy)
    update = sharding.for_each_seed(algorithm.update, algorithm.vectorise_seeds)
    return _program(init, update, policy, spread, updates_per_epoch)


def _program(init, update, policy, spread: sharding.Spread, updates_per_epoch: int) -> Program:
    # A copy, because a jitted function hands back its own input, and that is donated to the next chunk.
    copy_policy = jax.jit(lambda state: jax.tree.map(jnp.copy, policy(state)))
    return Program(
        init=jax.jit(init),
        place=spread.place,
        chunk=partial(compiled, spread.over(lambda state: scan_updates(update, state, updates_per_epoch)), spread),
        policy=lambda state: jax.device_put(copy_policy(state), jax.devices()[0]),
    )


LARGE_CONSTANT_BYTES = 2**20


class Chunk(NamedTuple):
    """Compiled updates; the state that they are called with is donated."""

    program: Any
    data: list[Any]
    """Large arrays that every call reads and none changes."""

    def __call__(self, state: Any) -> tuple[Any, dict[str, Any]]:
        return self.program(state, self.data)


def compiled(updates: Callable[[Any], Any], spread: sharding.Spread, state: Any) -> Chunk:
    """`updates`, compiled for states like `state`.

    Large arrays that `updates` closes over (a recorded dataset) become arguments of the program: as literals they would
    be written out twice in its text, take seconds to compile and be there once more at run time. In the state they
    would be there once for every seed and in every checkpoint.
    """
    traced, shapes = jax.make_jaxpr(updates, return_shape=True)(state)
    is_large = [getattr(constant, "nbytes", 0) >= LARGE_CONSTANT_BYTES for constant in traced.consts]
    large = spread.copy_to_all([c for c, apart in zip(traced.consts, is_large, strict=True) if apart])

    def run(state: Any, large: Any) -> Any:
        rest = iter(large)
        constants = [next(rest) if apart else c for c, apart in zip(traced.consts, is_large, strict=True)]
        leaves = jax.core.eval_jaxpr(traced.jaxpr, constants, *jax.tree.leaves(state))
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return Chunk(jax.jit(run, donate_argnums=0).lower(state, large).compile(), large)


def _seed_keys(config: RunConfig) -> jax.Array:
    """The key of `seed`, or the keys of `seed`, `seed + 1`, ... of as many single runs."""
    if config.num_seeds == 1:
        return jax.random.key(config.seed)
    return jax.vmap(jax.random.key)(config.seed + jnp.arange(config.num_seeds))


def _add_seed_axis(policy: Any) -> Any:
    return jax.tree.map(lambda x: x[None], policy)


# What the host remembers


@dataclasses.dataclass
class Memory:
    """Host counters, saved with every checkpoint. Step counts are per seed."""

    epoch: int = 0
    episodes: int = 0
    agent_steps: int = 0
    best_scores: list[float] | None = None
    """Best evaluation of every seed."""
    best_returns: list[float] | None = None
    """Returns of those evaluations: they decide between equal scores."""
    best_mean: tuple[float, float] | None = None
    """Best mean score over seeds and its return: decides which checkpoint is the best."""
    stops: stopping.Stops = dataclasses.field(default_factory=stopping.Stops)
    wall_clock_s: float = 0.0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Memory":
        values = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        mean = values["best_mean"]
        return cls(**{**values, "best_mean": mean and tuple(mean), "stops": stopping.Stops.from_json(values["stops"])})


def _merge_best(memory: Memory, best: Any, policy: Any, scores: list[float], returns: list[float]) -> Any:
    """Take over the policy of every seed that improved; returns the best policies."""
    now = list(zip(scores, returns, strict=True))
    if memory.best_scores is None or memory.best_returns is None:
        memory.best_scores, memory.best_returns = list(scores), list(returns)
        return policy
    before = list(zip(memory.best_scores, memory.best_returns, strict=True))
    improved = np.array([new > old for new, old in zip(now, before, strict=True)])
    kept = [max(pair) for pair in zip(now, before, strict=True)]
    memory.best_scores, memory.best_returns = [list(column) for column in zip(*kept, strict=True)]
    return jax.tree.map(lambda old, new: jnp.where(improved.reshape(-1, *[1] * (new.ndim - 1)), new, old), best, policy)


# The run


def select_device(config: RunConfig) -> None:
    """Apply `device`, `num_devices`, `cpu_threads` and `deterministic`; has to come before anything is computed.

    Raises:
        ConfigError: `device: gpu` on a machine where JAX finds none.
    """
    if config.deterministic and config.device != "cpu":
        flag = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    sharding.provide_cpu_devices(config.num_devices, config.cpu_threads)
    if config.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if config.device == "gpu":
        try:
            jax.devices("gpu")
        except RuntimeError as error:
            raise ConfigError("device: gpu: JAX finds no GPU here; use device: auto or cpu") from error
        jax.config.update("jax_default_device", jax.devices("gpu")[0])


def run(config: RunConfig, run_dir: Path, resume: bool = False) -> int:
    """Train as configured and leave everything in `run_dir`; returns the exit code of the command.

    Raises:
        ConfigError: the directory holds a run and `resume` is not set, holds another run, or cannot be written; or the
            configuration does not fit the environment.
    """
    check_run_dir(config, run_dir, resume)
    if resume and is_complete(run_dir):
        print(f"{run_dir}: this run is already complete")
        return EXIT_OK
    logs.require_packages(config.logging)
    trained = build(config)
    stopping.require_known(config.evaluation, trained.env)
    if trained.algorithm.read_data is not None:
        trained.algorithm.read_data()  # before anything is written
    plan = plan_of(trained.algorithm.num_updates, config.epochs)
    _open_run_dir(config, run_dir, trained)
    with stop_signals() as stop_requested:
        return _Session(trained, plan, run_dir, resume).run(stop_requested)


def check_run_dir(config: RunConfig, run_dir: Path, resume: bool, flag: str = "--run-dir") -> None:
    """Refuse to mix runs; nothing has been written when this raises. `flag` names the directory in messages."""
    if not resume:
        if run_dir.is_dir() and any(run_dir.iterdir()):
            raise ConfigError(f"{run_dir}: run directory is not empty; add --resume or choose another {flag}")
        return
    stored = run_dir / "config.yaml"
    if not stored.exists():
        raise ConfigError(f"{run_dir}: nothing to resume (no config.yaml); start it without --resume")
    difference = first_difference(load_config(stored), config)
    if difference:
        raise ConfigError(f"{run_dir}: holds a run with another configuration: {difference}")


def is_complete(run_dir: Path) -> bool:
    """Whether nothing is left to do for the run of a directory."""
    metadata = json.loads((run_dir / "metadata.json").read_text()) if (run_dir / "metadata.json").exists() else {}
    return metadata.get("status") in ("finished", "early_stopped")


def _open_run_dir(config: RunConfig, run_dir: Path, trained: Run) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(run_dir / "config.yaml", config.to_yaml())  # first: from here on it can be resumed
        for name in ("checkpoints", "eval", "plots", "policy", logs.TENSORBOARD_NAME):
            (run_dir / name).mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{run_dir}: run directory cannot be written: {error.strerror}") from error
    if trained.env.calibration is not None and not (run_dir / CALIBRATION).exists():
        write_json(run_dir / CALIBRATION, dict(trained.env.calibration))


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM only ask to stop; a second SIGINT interrupts at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this epoch; the run can be resumed", file=sys.stderr)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's signals are not ours
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Session:
    """One process working on a run: the compiled program, the state and the host's memory of it."""

    def __init__(self, trained: Run, plan: Plan, run_dir: Path, resume: bool):
        self.config, self.algorithm, self.env = trained.config, trained.algorithm, trained.env
        self.plan, self.run_dir = plan, run_dir
        self.checkpoints = run_dir / "checkpoints"
        self.program = program_of(self.algorithm, self.config, plan.updates_per_epoch)
        self.evaluate: Evaluate = make_evaluate(self.algorithm, self.env, run_dir / "eval" / "bounds")
        self.memory = Memory()
        self.times = {"init_s": 0.0, "compile_s": 0.0, "train_s": 0.0, "evaluation_s": 0.0, "checkpoint_s": 0.0}
        self.started, self.wall_clock_before_s = time.monotonic(), 0.0
        agents, seen = self.env.num_agents or 1, self.env.observation_space(self.env.default_params).shape[-1]
        sizes = {"num_agents": agents, "observation_size": seen}
        self.metadata = {**_metadata(self.config, plan, run_dir if resume else None), **sizes}
        self._write_metadata("running")
        self._print_plan()
        self.state, self.best_policy = self._first_state(resume)
        self.wall_clock_before_s = self.memory.wall_clock_s

    # Start

    def _first_state(self, resume: bool) -> tuple[Any, Any]:
        """Initial or restored state, and the best policies so far."""
        saved = resume and checkpoint.available(self.checkpoints)
        if resume and not saved:
            print("no checkpoint yet: the run starts from its beginning")
        if saved and self.config.checkpointing.save_replay:
            like = jax.eval_shape(self.program.init)
        else:
            with self._timed("init_s"):
                like = jax.block_until_ready(self.program.init())
        if not saved:
            self._report_warmup(like)
            return self.program.place(like), self.program.policy(like)
        tree_like = {"state": like, "best_policy": jax.eval_shape(self.program.policy, like)}
        fill = not self.config.checkpointing.save_replay
        tree, meta = checkpoint.restore(self.checkpoints, tree_like, "latest", fill)
        self.memory = Memory.from_json(meta)
        print(f"resumed after epoch {self.memory.epoch}")
        return self.program.place(tree["state"]), tree["best_policy"]

    def _report_warmup(self, state: Any) -> None:
        """What the first actions were like: a replay without one side of the range cannot teach it."""
        report = self.algorithm.warmup_report
        if report is None:
            return
        lifted = report if self.config.num_seeds == 1 else jax.vmap(report)
        values = {name: float(np.mean(value)) for name, value in jax.jit(lifted)(state).items()}
        print("warm-up actions: " + ", ".join(f"{name} {value:.0%}" for name, value in values.items()))
        if values.get("span", 1.0) < SMALL_WARMUP_SPAN:
            print(f"warning: the warm-up covers only {values['span']:.0%} of the action range", file=sys.stderr)

    def _print_plan(self) -> None:
        a, plan, seeds = self.algorithm, self.plan, self.config.num_seeds
        if (plan.epochs, plan.updates) != (self.config.epochs, a.num_updates):
            print(
                f"note: {a.num_updates} updates do not divide into {self.config.epochs} epochs; "
                f"running {plan.epochs} epochs of {plan.updates_per_epoch}"
            )
        env_steps = a.warmup_env_steps + plan.updates * a.env_steps_per_update
        print(
            f"{self.config.algo['name']} on {self.env.name}: {plan.epochs} epochs, {env_steps:,} env steps, "
            f"{plan.updates * a.gradient_steps_per_update:,} gradient steps{f' x {seeds} seeds' if seeds > 1 else ''}, "
            f"{jax.devices()[0].device_kind}, into {self.run_dir}",
            flush=True,
        )

    # Loop

    def run(self, stop_requested: Callable[[], bool]) -> int:
        with self._timed("compile_s"):
            chunk = self.program.chunk(self.state)
        done = self.memory.epoch
        log = logs.open_logs(self.run_dir, self.config, done, self._clock(done))
        display = logs.open_display(self.config, self.plan.epochs, done)
        try:
            while self.memory.epoch < self.plan.epochs and self._stop_reason() is None and not stop_requested():
                bad = self._epoch(chunk, log, display, stop_requested)
                if bad:
                    return self._diverged(bad)
        finally:
            display.close()
            log.close()
        if self.memory.epoch < self.plan.epochs and self._stop_reason() is None:
            if self.memory.epoch not in checkpoint.available(self.checkpoints):
                self._save()
            self._write_metadata("interrupted")
            print(f"interrupted and saved after epoch {self.memory.epoch}; continue with --resume")
            return EXIT_OK
        self._finish()
        stop = self._stop_reason() if self.memory.epoch < self.plan.epochs else None
        if stop is not None:
            print(f"stopped after epoch {self.memory.epoch}: {stop}")
        self._write_metadata("finished" if stop is None else "early_stopped", stop_reason=stop or "all epochs done")
        return EXIT_OK

    def _epoch(self, chunk, log, display, stop_requested) -> logs.BadMetric | None:
        """One chunk and all that follows it; a bad metric means that nothing of this chunk was kept."""
        start = time.monotonic()
        self.state, metrics = chunk(self.state)
        done = logs.host_metrics(jax.device_get(metrics))
        seconds = time.monotonic() - start
        self.times["train_s"] += seconds
        bad = logs.first_bad_metric(done.series)
        if bad:
            return bad
        self.memory.epoch += 1
        self.memory.episodes += round(float(done.episodes.sum(axis=0).mean()))
        self.memory.agent_steps += round(float(done.agent_steps.sum(axis=0).mean()))
        self._count_bands(done)
        last = self.memory.epoch == self.plan.epochs
        settings = self.config.evaluation
        is_new_best, summary = self._evaluate() if last or self._due(settings.every_epochs) else (False, {})
        summary |= self._streaks()
        if self._due(settings.quick_every_epochs):
            self._quick_evaluation()
        self.memory.wall_clock_s = self.wall_clock_before_s + time.monotonic() - self.started
        record = self._record(done.series, summary, seconds)
        # Logs first: whatever a checkpoint contains has been logged, so resuming only ever has to cut logs back.
        log.write(record)
        due = self._due(self.config.checkpointing.every_epochs)
        if due or is_new_best or last or stop_requested() or self._stop_reason() is not None:
            self._save(is_new_best)
        display.show(record)
        return None

    def _record(self, series: dict[str, logs.Series], summary, seconds: float) -> logs.Epoch:
        a, update = self.algorithm, self.memory.epoch * self.plan.updates_per_epoch
        rate = self.plan.updates_per_epoch * self.config.num_seeds / seconds
        return logs.Epoch(
            epoch=self.memory.epoch,
            update=update,
            env_steps=self._env_steps(self.memory.epoch),
            agent_steps=self.memory.agent_steps,
            gradient_steps=update * a.gradient_steps_per_update,
            episode=self.memory.episodes,
            metrics=series,
            evaluation=summary,
            timing={
                "wall_clock_s": self.memory.wall_clock_s,
                "env_steps_per_s": rate * a.env_steps_per_update,
                "gradient_steps_per_s": rate * a.gradient_steps_per_update,
            },
            env_steps_per_update=a.env_steps_per_update,
            gradient_steps_per_update=a.gradient_steps_per_update,
        )

    def _clock(self, epoch: int) -> int:
        """`logs.Epoch.clock` after an epoch."""
        if self.algorithm.env_steps_per_update:
            return self._env_steps(epoch)
        return epoch * self.plan.updates_per_epoch * self.algorithm.gradient_steps_per_update

    def _env_steps(self, epoch: int) -> int:
        updates = epoch * self.plan.updates_per_epoch
        return self.algorithm.warmup_env_steps + updates * self.algorithm.env_steps_per_update

    # Evaluation

    def _due(self, every: int | None) -> bool:
        return every is not None and self.memory.epoch % every == 0

    def _evaluate(self) -> tuple[bool, dict[str, float | None]]:
        """Score the current policies; returns whether their mean is the best so far, and what to log."""
        settings, memory = self.config.evaluation, self.memory
        policy = self.program.policy(self.state)
        with self._timed("evaluation_s"):
            result = self.evaluate(policy, settings.split, settings.episodes, settings.seed)
        scores, summary = result.score.policy, result.summary()
        report = {"epoch": memory.epoch, **result.to_json()}
        write_json(self.run_dir / "eval" / f"epoch_{memory.epoch:06d}.json", report)
        memory.stops = stopping.after_evaluation(memory.stops, settings, summary, result.score.milestones)
        if not self.config.checkpointing.save_best:
            return False, summary
        mean = float(np.mean(scores)), float(np.mean(result.returns))
        is_new_best = memory.best_mean is None or mean > memory.best_mean
        memory.best_mean = mean if is_new_best else memory.best_mean
        self.best_policy = _merge_best(memory, self.best_policy, policy, scores, result.returns)
        self._write_policy("best", self.best_policy)
        return is_new_best, summary

    def _count_bands(self, done: logs.Chunk) -> None:
        rule = self.config.evaluation.bands
        if rule is not None:
            mean = done.series[f"{logs.EPISODE_PREFIX}{rule.metric}"].value
            env_steps = self.algorithm.env_steps_per_update
            self.memory.stops = stopping.after_updates(self.memory.stops, rule, mean, done.episodes, env_steps)

    def _streaks(self) -> dict[str, float | None]:
        """Columns of the log: the shortest streak over seeds, None before the first evaluation."""
        reached = self.memory.stops.streaks
        return {f"eval_{n}_streak": float(min(reached[n])) if n in reached else None for n in self.env.milestones}

    def _stop_reason(self) -> str | None:
        return stopping.reason(self.memory.stops, self.config.evaluation)

    def _quick_evaluation(self) -> None:
        """A few episodes of the evaluation split, step by step, as CSV."""
        settings = self.config.evaluation
        policy = self.program.policy(self.state)
        self._write_few(policy, settings.split, settings.seed, f"ep{self.memory.epoch:04d}", singly=True)

    def _write_few(self, policy: Any, split: str, seed: int, suffix: str, singly: bool) -> None:
        labels = self._quick_cases(split, self.config.evaluation.quick_dates)
        whole = self.env.report is not None and self.env.report.whole
        result = self.evaluate(policy, split, None, seed, with_values=True, cases=list(labels.values()), whole=whole)
        self._write_steps(result, list(labels), suffix, singly)

    def _quick_cases(self, split: str, names: list[str] | None) -> dict[str, int]:
        if self.env.report is not None:
            return self.env.report.cases(split, names)
        available = self.env.num_cases(self.env.split_params(split))
        return {f"case{index}": index for index in range(min(4, available or 4))}

    def _write_steps(self, result: Result, labels: list[str], suffix: str, singly: bool) -> None:
        directory = self.run_dir / "eval"
        write_step_tables(self.env, result, labels, directory, suffix, directory / "bounds", singly)

    # Ends

    def _finish(self) -> None:
        """Policy bundles, the final score of the best policy, and the closing table."""
        settings, split = self.config.evaluation, self.config.evaluation.final_split
        self._write_policy("final", self.program.policy(self.state))
        policy = self.best_policy if self.config.checkpointing.save_best else self.program.policy(self.state)
        with self._timed("evaluation_s"):
            result = self.evaluate(policy, split, settings.episodes, settings.final_seed, with_values=True)
        report = {"epoch": self.memory.epoch, **result.to_json(), "config_hash": config_hash(self.config)}
        write_json(self.run_dir / "eval" / f"final_{split}.json", report)
        if self.env.report is not None and self.env.report.whole:  # all episodes would be too much to write
            self._write_few(policy, split, settings.final_seed, f"final_{split}", singly=False)
        else:
            labels = [str(case) for case in result.records["case"][0, :, 0]]
            self._write_steps(result, labels, f"final_{split}", singly=False)
        self._draw()
        print_table(score_table(result, f"{self.config.algo['name']} on {self.env.name}"))

    def _draw(self) -> None:
        # Imported here: matplotlib takes a second that a run need not wait for at its start.
        from purerl.plot import draw_run

        if self.config.logging.csv:
            draw_run(self.run_dir)

    def _diverged(self, bad: logs.BadMetric) -> int:
        epoch = self.memory.epoch
        update = epoch * self.plan.updates_per_epoch + bad.update + 1
        kept = checkpoint.available(self.checkpoints)
        last = f"last good checkpoint: epoch {kept[-1]}" if kept else "no checkpoint had been written"
        seed = self.config.seed + bad.seed
        print(
            f"error: training diverged: metric '{bad.name}' is {bad.value} at update {update} "
            f"(epoch {epoch + 1}, seed {seed}); {last}",
            file=sys.stderr,
        )
        self._write_metadata("diverged", bad_metric=bad.name, bad_update=update, bad_seed=seed)
        return EXIT_DIVERGED

    def _save(self, is_new_best: bool = False) -> None:
        settings, memory = self.config.checkpointing, self.memory
        tree = {"state": self.state, "policy": self.program.policy(self.state), "best_policy": self.best_policy}
        meta = {**dataclasses.asdict(memory), "config_hash": config_hash(self.config)}
        with self._timed("checkpoint_s"):
            skip = (lambda path: False) if settings.save_replay else _in_replay
            checkpoint.save(self.checkpoints, memory.epoch, tree, meta, skip)
            if is_new_best and memory.best_mean is not None:
                checkpoint.mark_best(self.checkpoints, memory.epoch, memory.best_mean[0])
            checkpoint.prune(self.checkpoints, settings.keep_periodic, settings.every_epochs)
        self._write_metadata("running")

    def _write_policy(self, name: str, policy: Any) -> None:
        meta = {
            "epoch": self.memory.epoch,
            "best_scores": self.memory.best_scores,
            "config_hash": config_hash(self.config),
        }
        checkpoint.write_tree(self.run_dir / "policy" / f"{name}.npz", policy, meta)

    # Metadata

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.times[name] += time.monotonic() - start

    def _write_metadata(self, status: Status, **more: Any) -> None:
        session = {name: round(seconds, 3) for name, seconds in self.times.items()}
        values = {
            **self.metadata,
            "status": status,
            "updated": now(),
            "epoch": self.memory.epoch,
            "env_steps": self._env_steps(self.memory.epoch),
            "agent_steps": self.memory.agent_steps,
            "episodes": self.memory.episodes,
            "best_scores": self.memory.best_scores,
            "best_returns": self.memory.best_returns,
            "streaks": self.memory.stops.streaks,
            "wall_clock_s": round(self.wall_clock_before_s + time.monotonic() - self.started, 3),
            "session": session,
            **more,
        }
        write_json(self.run_dir / "metadata.json", values)


def _in_replay(path: str) -> bool:
    """Whether a leaf belongs to a replay buffer: the state field of that kind is called `ring` or `replay`."""
    return any(name in path for name in (".ring", ".replay", "['ring']", "['replay']"))


def _metadata(config: RunConfig, plan: Plan, resumed_dir: Path | None) -> dict[str, Any]:
    """What does not change while the run lasts. `sessions` counts the processes that worked on it."""
    path = resumed_dir / "metadata.json" if resumed_dir else None
    earlier = json.loads(path.read_text()) if path and path.exists() else {}
    return {
        "algorithm": config.algo["name"],
        "environment": config.env["name"],
        "seed": config.seed,
        "num_seeds": config.num_seeds,
        "created": earlier.get("created", now()),
        "sessions": earlier.get("sessions", 0) + 1,
        "config_hash": config_hash(config),
        "epochs": plan.epochs,
        "updates_per_epoch": plan.updates_per_epoch,
        **surroundings(),
    }
