"""What is found out about a run before anything is written, so that what can be refused is refused at its start."""

import contextlib
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from purerl.config import RunConfig
from purerl.errors import ConfigError, is_own
from purerl.run import evaluation, logs, memory, stopping
from purerl.run.kept import Kept
from purerl.run.plan import Plan, plan_of
from purerl.run.program import Program, program_of
from purerl.run.runs import Run, build, require_split, require_training_split, user_input
from purerl.run.steps import cases_to_write
from purerl.types import Algorithm, Data

STATE_KEYS = ("num_envs", "actor", "critic", "q_network")
REPLAY_KEYS = ("buffer_size", "replay_dtype")
UPDATE_KEYS = ("num_envs", "steps_per_update", "batch_size", "actor", "critic", "q_network")


class Prepared(NamedTuple):
    """A run of which everything is known but the numbers; nothing has been written."""

    trained: Run
    data: Data
    plan: Plan
    program: Program
    """Of the shorter epochs; its epoch has been traced."""
    state: Any
    """Shapes of the whole state."""
    rollout: Any
    """Of the evaluations, traced."""
    memory: str
    """What it will take, in one line."""


def prepare(config: RunConfig, kept: Kept | None = None, run_dir: Path | None = None) -> Prepared:
    """Build a run, trace all its programs and compare what they hold with the memory that there is.

    The traces are those that are compiled afterwards, so they are made early and not twice.

    Args:
        kept: of an earlier session of this run.
        run_dir: of the run, where that is known.

    Raises:
        ConfigError, or an error of the environment or its data: what cannot be built or traced, under the run's layout
            of devices too, settings that this world or this length cannot have, or what does not fit the memory.
    """
    logs.require_packages(config.logging)
    trained = build(config, kept, run_dir=run_dir)
    require_sound(trained)
    algorithm, env, data = trained.algorithm, trained.env, trained.algorithm.load_data()
    plan = plan_of(algorithm.num_updates, config.epochs)
    program, rollout = program_of(algorithm, config, plan.updates_per_epoch), evaluation.rollout_of(algorithm, env)
    rules = config.evaluation
    with tracing(f"{config.algo['name']} on {env.name}"):
        state = jax.eval_shape(program.init, data)
        in_loops = memory.bytes_in_loops(program.trace(state, data))
        policy = jax.eval_shape(program.policy, state)
        shapes = (
            evaluation.record_shapes(rollout, env, policy, split, rules.episodes, values)
            for split, values in ((rules.split, False), (rules.final_split, True))
        )
        records = max(map(memory.bytes_of, shapes))
    state_bytes, replay_bytes, has = memory.bytes_of(state), _replay_bytes(algorithm, state), config.algo
    # Cores that share a batch each hold the whole state in the one memory; seeds are spread over them.
    on_cores = jax.default_backend() == "cpu" and config.num_seeds == 1
    copies = min(config.num_devices, len(jax.devices())) if on_cores else 1
    parts = [
        *_state_parts(state_bytes * copies, replay_bytes * copies, has, "num_seeds"),
        memory.Part("updates", max(in_loops - state_bytes, 0) * copies, _keys(has, UPDATE_KEYS, "num_seeds")),
        memory.Part("evaluation", records, ("evaluation.episodes", "num_seeds")),
    ]
    return Prepared(trained, data, plan, program, state, rollout, memory.require_room(parts))


def require_room_for_one(trained: Run, data: Data, program: Any) -> None:
    """Raise ConfigError unless one seed of a run fits into the memory.

    Args:
        program: its `init` and one update, traced together.
    """
    algorithm, has = trained.algorithm, trained.config.algo
    state = jax.eval_shape(algorithm.init, jax.random.key(0), algorithm.hparams, data)
    state_bytes = memory.bytes_of(state)
    updates = max(memory.bytes_in_loops(program) - state_bytes, 0)
    memory.require_room([
        *_state_parts(state_bytes, _replay_bytes(algorithm, state), has),
        memory.Part("updates", updates, _keys(has, UPDATE_KEYS)),
    ])  # fmt: skip


def _replay_bytes(algorithm: Algorithm, state: Any) -> int:
    return 0 if algorithm.replay_field is None else memory.bytes_of(getattr(state, algorithm.replay_field))


def _state_parts(whole: int, replay: int, has: dict[str, Any], *more: str) -> list[memory.Part]:
    """Bytes of the state, those of its replay apart."""
    rest = memory.Part("state", whole - replay, _keys(has, STATE_KEYS, *more))
    keys = _keys(has, REPLAY_KEYS, *more) or rest.keys
    return [memory.Part("replay", replay, keys), rest] if replay else [rest]


def _keys(algo: dict[str, Any], wanted: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return (*(f"algo.{key}" for key in wanted if key in algo), *more)


@contextlib.contextmanager
def tracing(what: str) -> Iterator[None]:
    """Whatever goes wrong while a program is traced becomes one line that names the place; own errors pass.

    A world or an algorithm may be the user's, and there shapes that do not fit are found.
    """
    try:
        yield
    except Exception as error:
        if is_own(error):
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "JAX"
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{what}: cannot be traced: {type(error).__name__}: {reason} ({place})") from error


def require_sound(trained: Run) -> None:
    """Raise ConfigError, or an error of the environment, for settings that this world or this length cannot have."""
    _require_splits(trained)
    stopping.require_known(trained.config.evaluation, trained.env)
    _require_cases(trained)
    _require_time_to_learn(trained)


def _require_splits(trained: Run) -> None:
    """There is something to train on, to choose by and to be scored on."""
    rules = trained.config.evaluation
    require_training_split(trained.env)
    require_split(trained.env, "evaluation.split", rules.split)
    require_split(trained.env, "evaluation.final_split", rules.final_split)


def _require_cases(trained: Run) -> None:
    """The episodes that will be written step by step are there."""
    rules, env = trained.config.evaluation, trained.env
    if rules.quick_cases is not None and env.assessment.report is None:
        raise ConfigError(f"evaluation.quick_cases: {env.name} has no named episodes; leave it out")
    splits = [rules.split] if rules.quick_every_epochs is not None or rules.quick_cases is not None else []
    if env.assessment.report is not None and env.assessment.report.whole:
        splits.append(rules.final_split)
    for split in dict.fromkeys(splits):
        user_input("evaluation.quick_cases", partial(cases_to_write, env, split, rules.quick_cases))


def _require_time_to_learn(trained: Run) -> None:
    algorithm = trained.algorithm
    training = algorithm.num_updates * algorithm.env_steps_per_update
    if training and algorithm.warmup_env_steps > training:
        raise ConfigError(
            f"algo: the warm-up takes {algorithm.warmup_env_steps:,} environment steps and the training after it only "
            f"{training:,}; shorten the one or lengthen the other"
        )
