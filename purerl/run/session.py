"""The host loop: jitted chunks of updates, and between them logging, evaluation, checkpoints and decisions.

Reading order: `run`, the session and its steps. A resumed run gives the same bits because the
whole state is in the checkpoint.
"""

import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from purerl.config import RunConfig, config_hash
from purerl.run import bundle, checkpoint, display, logs, metrics, preflight, stages, stopping
from purerl.run.counters import Counters, merge_best
from purerl.run.directory import Status, check_run_dir, first_metadata, open_run_dir
from purerl.run.evaluation import Evaluate, Result, make_evaluate
from purerl.run.files import json_ready, sealed, write_json
from purerl.run.history import EVALUATION, Ending, History, read_history
from purerl.run.kept import kept_so_far
from purerl.run.metadata import is_complete, now, write_metadata
from purerl.run.plan import env_steps_after
from purerl.run.process import stop_signals
from purerl.run.program import program_of
from purerl.run.runs import Run
from purerl.run.steps import cases_to_write, write_step_tables
from purerl.types import Data

EXIT_OK, EXIT_DIVERGED = 0, 3

Conclude = Callable[[Run, Path, Ending], None]
"""`(run, run directory, ending)`: what is drawn and shown at the end."""


def run(
    config: RunConfig,
    run_dir: Path | Callable[[], Path],
    resume: bool = False,
    conclude: Conclude = lambda trained, run_dir, ending: None,
    stop: Callable[[], bool] | None = None,
    prepared: preflight.Prepared | None = None,
) -> int:
    """Train as configured and leave everything in `run_dir`; returns the exit code of the command.

    Args:
        run_dir: or a function that makes a new directory; it is called when nothing is left that could be refused.
        stop: whether to save and end after this epoch; None: signals ask for it.
        prepared: this run where it has been prepared before.

    Raises:
        ConfigError: the directory holds a run and `resume` is not set, holds another run, or cannot be written; or the
            configuration does not fit the environment. Nothing has been written then.
    """
    if isinstance(run_dir, Path):
        check_run_dir(config, run_dir, resume)
        if resume and is_complete(run_dir):
            print(f"{run_dir}: this run is already complete")
            return EXIT_OK
        checkpoint.available(run_dir / "checkpoints")  # raises where all were written by an earlier version
    directory = run_dir if isinstance(run_dir, Path) else None
    if prepared is None:
        prepared = preflight.prepare(config, kept_so_far(directory) if resume and directory else None, directory)
    print(prepared.memory)
    trained = prepared.trained
    learned: dict[str, Any] = {}
    if not (resume and directory and checkpoint.available(directory / "checkpoints")):
        learned = stages.learned_before(config, trained.algorithm, prepared.state, directory)
    run_dir = run_dir if isinstance(run_dir, Path) else run_dir()
    open_run_dir(config, run_dir, trained, resume)
    with contextlib.nullcontext(stop) if stop is not None else stop_signals() as stop_requested:
        return _Session(prepared, run_dir, resume, conclude, learned).run(stop_requested)


class _Session:
    """One process working on a run: the compiled program, the state and the host's counters of it."""

    def __init__(
        self, prepared: preflight.Prepared, run_dir: Path, resume: bool, conclude: Conclude, learned: dict[str, Any]
    ):
        trained, data, plan = prepared.trained, prepared.data, prepared.plan
        self.trained, self.conclude = trained, conclude
        self.config, self.algorithm, self.env = trained.config, trained.algorithm, trained.env
        self.report = self.env.assessment.report
        self.plan, self.run_dir = plan, run_dir
        self.checkpoints, saving = run_dir / "checkpoints", self.config.checkpointing
        self.skip = checkpoint.nothing if saving.save_replay else _in_replay(self.algorithm.replay_field)
        self.writer = checkpoint.Writer(self.checkpoints, saving.keep_periodic, saving.every_epochs, self.skip)
        self.program, bounds = prepared.program, run_dir / "eval" / "bounds"
        self.evaluate: Evaluate = make_evaluate(self.algorithm, self.env, bounds, prepared.rollout)
        self.counters = Counters()
        self.chunks: dict[int, Any] = {}
        self.times = {"init_s": 0.0, "compile_s": 0.0, "train_s": 0.0, "evaluation_s": 0.0, "checkpoint_s": 0.0}
        self.started, self.wall_clock_before_s = time.monotonic(), 0.0
        agents, seen = self.env.num_agents or 1, self.env.observation_space(self.env.default_params).shape[-1]
        columns = {name: column._asdict() for name, column in self.env.assessment.columns.items()}
        sizes = {"num_agents": agents, "observation_size": seen, "columns": columns}
        self.metadata = {**first_metadata(self.config, plan, run_dir if resume else None), **sizes}
        self._write_metadata("running")
        display.print_plan(trained, plan, run_dir)
        self.state, self.best_policy = self._first_state(data, resume, learned)
        self.data = self.program.place_data(data)
        self.wall_clock_before_s = self.counters.wall_clock_s
        self.history = read_history(run_dir, self.config, self.counters.epoch) if resume else History([], [])

    # Start

    def _first_state(self, data: Data, resume: bool, learned: dict[str, Any]) -> tuple[Any, Any]:
        """Initial or restored state, and the best policies so far."""
        saved = resume and checkpoint.available(self.checkpoints)
        if resume and not saved:
            print("no checkpoint yet: the run starts from its beginning")
        if saved and self.config.checkpointing.save_replay:
            like = jax.eval_shape(self.program.init, data)
        else:
            with self._timed("init_s"):
                like = jax.block_until_ready(self.program.init(data))
                like = stages.started_from(learned, like) if learned else like
        if not saved:
            self._report_warmup(like)
            return self.program.place(like), self.program.policy(like)
        tree_like = {"state": like, "best_policy": jax.eval_shape(self.program.policy, like)}
        tree, meta = checkpoint.restore(self.checkpoints, tree_like, "latest", self.skip)
        self.counters = Counters.from_json(meta)
        print(f"resumed after epoch {self.counters.epoch}")
        return self.program.place(tree["state"]), tree["best_policy"]

    def _report_warmup(self, state: Any) -> None:
        """What the first actions were like: a replay without one side of the range cannot teach it."""
        report = self.algorithm.warmup_report
        if report is None:
            return
        lifted = report if self.config.num_seeds == 1 else jax.vmap(report)
        values = {name: float(np.mean(value)) for name, value in jax.jit(lifted)(state).items()}
        display.print_warmup(values)

    # Loop

    def run(self, stop_requested: Callable[[], bool]) -> int:
        done = self.counters.epoch
        if done < self.plan.epochs:
            self._chunk(self.plan.updates_of(done + 1))  # before the logs are opened: it may take a minute
        log = logs.open_logs(self.run_dir, self.config, done, self._clock(done), self.history.progress)
        screen = display.open_display(self.config, self.plan.epochs, done)
        try:
            while self.counters.epoch < self.plan.epochs and self._stop_reason() is None and not stop_requested():
                bad = self._epoch(log, screen, stop_requested)
                if bad:
                    return self._diverged(bad)
        finally:
            screen.close()
            log.close()
            self._wait_for_checkpoint()
        if self.counters.epoch < self.plan.epochs and self._stop_reason() is None:
            if self.counters.epoch not in checkpoint.available(self.checkpoints):
                self._save()
                self._wait_for_checkpoint()
            self._write_metadata("interrupted")
            print(f"interrupted and saved after epoch {self.counters.epoch}; continue with --resume")
            return EXIT_OK
        self._finish()
        stop = self._stop_reason() if self.counters.epoch < self.plan.epochs else None
        if stop is not None:
            print(f"stopped after epoch {self.counters.epoch}: {stop}")
        self._write_metadata("finished" if stop is None else "early_stopped", stop_reason=stop or "all epochs done")
        return EXIT_OK

    def _chunk(self, updates: int) -> Any:
        """So many updates, compiled when they are first asked for."""
        if updates not in self.chunks:
            with self._timed("compile_s"):
                same = updates == self.plan.updates_per_epoch
                program = self.program if same else program_of(self.algorithm, self.config, updates)
                self.chunks[updates] = program.chunk(self.state, self.data)
        return self.chunks[updates]

    def _epoch(self, log, screen, stop_requested) -> metrics.BadMetric | None:
        """One chunk and all that follows it; a bad metric means that nothing of this chunk was kept."""
        chunk, start = self._chunk(self.plan.updates_of(self.counters.epoch + 1)), time.monotonic()
        self.state, on_device = chunk(self.state, self.data)
        done = metrics.host_metrics(jax.device_get(on_device))
        seconds = time.monotonic() - start
        self.times["train_s"] += seconds
        bad = metrics.first_bad_metric(done.series)
        if bad:
            return bad
        self.counters.epoch += 1
        self.counters.episodes += round(float(done.episodes.sum(axis=0).mean()))
        self.counters.agent_steps += round(float(done.agent_steps.sum(axis=0).mean()))
        if done.frames is not None:
            self.counters.frames = (self.counters.frames or 0) + round(float(done.frames.sum(axis=0).mean()))
        self._count_bands(done)
        last = self.counters.epoch == self.plan.epochs
        settings = self.config.evaluation
        is_new_best, unit, summary = self._evaluate() if last or self._due(settings.every_epochs) else (False, "", {})
        summary |= self._streaks()
        if self._due(settings.quick_every_epochs):
            self._quick_evaluation()
        self.counters.wall_clock_s = self.wall_clock_before_s + time.monotonic() - self.started
        record = self._record(done.series, unit, summary, seconds)
        # Logs first: whatever a checkpoint contains has been logged, so resuming only ever has to cut logs back.
        log.write(record)
        self.history.progress.append(logs.csv_row(record))
        due = self._due(self.config.checkpointing.every_epochs)
        if due or is_new_best or last or stop_requested() or self._stop_reason() is not None:
            self._save()
        screen.show(record)
        return None

    def _record(self, series: dict[str, metrics.Series], unit: str, summary, seconds: float) -> logs.Epoch:
        a, update = self.algorithm, self.plan.updates_after(self.counters.epoch)
        rate = self.plan.updates_of(self.counters.epoch) * self.config.num_seeds / seconds
        return logs.Epoch(
            epoch=self.counters.epoch,
            update=update,
            env_steps=self._env_steps(self.counters.epoch),
            agent_steps=self.counters.agent_steps,
            gradient_steps=update * a.gradient_steps_per_update,
            episode=self.counters.episodes,
            frames=self.counters.frames,
            metrics=series,
            score_unit=unit,
            evaluation=summary,
            timing={
                "wall_clock_s": self.counters.wall_clock_s,
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
        return self.plan.updates_after(epoch) * self.algorithm.gradient_steps_per_update

    def _env_steps(self, epoch: int) -> int:
        return env_steps_after(self.algorithm, self.plan.updates_after(epoch))

    # Evaluation

    def _due(self, every: int | None) -> bool:
        return every is not None and self.counters.epoch % every == 0

    def _evaluate(self) -> tuple[bool, str, dict[str, float | None]]:
        """Score the current policies; returns whether their mean is the best so far, its unit, and what to log."""
        settings, counters = self.config.evaluation, self.counters
        policy = self.program.policy(self.state)
        with self._timed("evaluation_s"):
            result = self.evaluate(policy, settings.split, settings.episodes, settings.seed)
        scores, summary = result.score.policy, result.summary()
        report = json_ready({"epoch": counters.epoch, **result.to_json()})
        write_json(self.run_dir / "eval" / EVALUATION.format(counters.epoch), sealed(report))
        self.history.evaluations.append(report)
        counters.stops = stopping.after_evaluation(counters.stops, settings, summary, result.score.milestones)
        if not self.config.checkpointing.save_best:
            return False, result.score.unit, summary
        mean = float(np.mean(scores)), float(np.mean(result.returns))
        is_new_best = counters.best_mean is None or mean > counters.best_mean
        if is_new_best:
            counters.best_mean, counters.best_epoch = mean, counters.epoch
        self.best_policy = merge_best(counters, self.best_policy, policy, scores, result.returns)
        self._write_policy("best", self.best_policy)
        return is_new_best, result.score.unit, summary

    def _count_bands(self, done: metrics.Chunk) -> None:
        rule = self.config.evaluation.bands
        if rule is not None:
            mean = done.series[f"{metrics.EPISODE_PREFIX}{rule.metric}"].value
            env_steps = self.algorithm.env_steps_per_update
            self.counters.stops = stopping.after_updates(self.counters.stops, rule, mean, done.episodes, env_steps)

    def _streaks(self) -> dict[str, float | None]:
        """Columns of the log: the shortest streak over seeds, None before the first evaluation."""
        reached, names = self.counters.stops.streaks, self.env.assessment.milestones
        return {f"eval_{name}_streak": float(min(reached[name])) if name in reached else None for name in names}

    def _stop_reason(self) -> str | None:
        return stopping.reason(self.counters.stops, self.config.evaluation)

    def _quick_evaluation(self) -> None:
        """A few episodes of the evaluation split, step by step, as CSV."""
        settings = self.config.evaluation
        policy = self.program.policy(self.state)
        self._write_few(policy, settings.split, settings.seed, f"ep{self.counters.epoch:04d}", singly=True)

    def _write_few(self, policy: Any, split: str, seed: int, suffix: str, singly: bool) -> list[dict[str, Any]]:
        labels = cases_to_write(self.env, split, self.config.evaluation.quick_cases)
        whole = self.report is not None and self.report.whole
        result = self.evaluate(policy, split, None, seed, with_values=True, cases=list(labels.values()), whole=whole)
        return self._write_steps(result, list(labels), suffix, singly)

    def _write_steps(self, result: Result, labels: list[str], suffix: str, singly: bool) -> list[dict[str, Any]]:
        directory = self.run_dir / "eval"
        return write_step_tables(self.env, result, labels, directory, suffix, directory / "bounds", singly)

    # Ends

    def _finish(self) -> None:
        """Policy bundles, the final score of the best policy, and what is shown of it."""
        settings, split = self.config.evaluation, self.config.evaluation.final_split
        self._write_policy("final", self.program.policy(self.state))
        policy = self.best_policy if self.config.checkpointing.save_best else self.program.policy(self.state)
        with self._timed("evaluation_s"):
            result = self.evaluate(policy, split, settings.episodes, settings.final_seed, with_values=True)
        facts = {"epoch": self.counters.epoch, "config_hash": config_hash(self.config)}
        report = json_ready({**facts, **result.to_json()})
        write_json(self.run_dir / "eval" / f"final_{split}.json", sealed(report))
        if self.report is not None and self.report.whole:  # all episodes would be too much to write
            steps = self._write_few(policy, split, settings.final_seed, f"final_{split}", singly=False)
        else:
            labels = [str(case) for case in result.records["case"][0, :, 0]]
            steps = self._write_steps(result, labels, f"final_{split}", singly=False)
        best_scores = self.counters.best_scores
        self.conclude(self.trained, self.run_dir, Ending(self.history, result, report, steps, policy, best_scores))

    def _diverged(self, bad: metrics.BadMetric) -> int:
        self._wait_for_checkpoint()  # to name the last one
        epoch = self.counters.epoch
        update = self.plan.updates_after(epoch) + bad.update + 1
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

    def _save(self) -> None:
        counters = self.counters
        tree = {"state": self.state, "policy": self.program.policy(self.state), "best_policy": self.best_policy}
        meta = {**dataclasses.asdict(counters), "config_hash": config_hash(self.config)}
        with self._timed("checkpoint_s"):
            self.writer.save(counters.epoch, tree, meta, counters.best_epoch)
        self._write_metadata("running")

    def _wait_for_checkpoint(self) -> None:
        with self._timed("checkpoint_s"):
            self.writer.wait()

    def _write_policy(self, name: str, policy: Any) -> None:
        meta = {
            "epoch": self.counters.epoch,
            "best_scores": self.counters.best_scores,
            "config_hash": config_hash(self.config),
        }
        bundle.write_tree(self.run_dir / "policy" / f"{name}.npz", policy, meta)

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
            "epoch": self.counters.epoch,
            "env_steps": self._env_steps(self.counters.epoch),
            "agent_steps": self.counters.agent_steps,
            "episodes": self.counters.episodes,
            "best_scores": self.counters.best_scores,
            "best_returns": self.counters.best_returns,
            "streaks": self.counters.stops.streaks,
            "wall_clock_s": round(self.wall_clock_before_s + time.monotonic() - self.started, 3),
            "session": session,
            **more,
        }
        write_metadata(self.run_dir, values)


def _in_replay(field: str | None) -> checkpoint.Paths:
    """Whether a leaf of what is saved belongs to the replay, which is a field of the state."""
    return lambda path: field is not None and re.match(rf"\['state'\](\.{field}|\['{field}'\])(?!\w)", path) is not None
