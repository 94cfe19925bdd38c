"""A run as a value: built from a configuration, opened from its directory, its policies read back."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

import envs_jax
from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment, Guest
from purerl.config import RunConfig, algorithm_module
from purerl.errors import ConfigError
from purerl.run import bundle, checkpoint, stages
from purerl.run.kept import Kept, read_kept
from purerl.run.stored_config import read_config
from purerl.types import Algorithm, Data, Policy

CheckpointName = Literal["best", "latest"] | int


class Run(NamedTuple):
    """What a configuration stands for."""

    config: RunConfig
    env: Environment
    """With an agent axis."""
    algorithm: Algorithm


def build(
    config: RunConfig,
    kept: Kept | None = None,
    env: Environment | None = None,
    without_data: bool = False,
    run_dir: Path | None = None,
) -> Run:
    """Environment and algorithm of a configuration.

    Args:
        kept: of an earlier run of this configuration: the same data seen through the same calibration.
        env: the environment where it has been made before.
        without_data: see `Environment.provenance`.
        run_dir: of the run, where that is known; its earlier stages lie beside it.

    Raises:
        ConfigError: the environment or the algorithm refuses its settings.
        FileNotFoundError, DataError: from the environment's data.
    """
    env = build_env(config, kept, without_data, run_dir) if env is None else env
    algorithm_config = config.algorithm_config()
    if config.reward_scale != 1 and getattr(algorithm_config, "critic_preview", False):
        raise ConfigError("algo.critic_preview: previews are not scaled; set reward_scale to 1")
    module = algorithm_module(config)
    scaled = {} if config.reward_scale == 1 else {"reward_scale": config.reward_scale}
    if scaled and "reward_scale" not in inspect.signature(module.make).parameters:
        raise ConfigError(f"reward_scale: {config.algo['name']} takes none; set it to 1")
    algorithm = user_input("algo", lambda: module.make(algorithm_config, env, env.default_params, **scaled))
    return Run(config, env, algorithm)


def build_env(
    config: RunConfig, kept: Kept | None = None, without_data: bool = False, run_dir: Path | None = None
) -> Environment:
    """The environment of a configuration, with an agent axis; arguments and errors are those of `build`."""
    settings = config.env_settings()
    if kept is not None:
        settings |= {name: value for name, value in kept._asdict().items() if value is not None}
    if kept is not None and kept.provenance is not None and without_data:
        settings["without_data"] = True
    # What is none is a setting like any other: the factory knows whether it wanted a policy.
    asked = {name: value for name, value in settings.items() if stages.names_a_run(value)}
    if asked:
        settings["guests"] = {
            name: _guest(stages.directory_of(f"env.{name}", value, run_dir)) for name, value in asked.items()
        }
    return user_input("env", lambda: with_agent_axis(envs_jax.make(config.env["name"], **settings)))


def _guest(run_dir: Path) -> Guest:
    run = open_run(run_dir, without_data=True)
    policy, _ = pick_seed(run, *read_policy(run_dir, run, "best"))
    return Guest(policy, run.algorithm.act, run.algorithm.initial_carry)


def user_input(section: str, make: Callable[[], Any]) -> Any:
    """`make()`, with a plain ValueError taken as a setting that does not fit; its own kinds pass unchanged."""
    try:
        return make()
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConfigError(f"{section}: {error}") from error


def require_split(env: Environment, key: str, split: str) -> None:
    """Refuse a split that the environment does not have; `key` is where it was asked for.

    Raises:
        ConfigError: names the nearest split, or what to set.
    """
    problem = env.split_problem(split)
    if problem is not None:
        raise ConfigError(f"{key} {split}: {problem}")


def require_training_split(env: Environment) -> None:
    """Refuse to train an environment whose settings leave out the days, or whatever it has, to train on."""
    if "train" in env.assessment.absent_splits:
        require_split(env, "training on split", "train")


def open_run(run_dir: Path, overrides: Sequence[str] = (), without_data: bool = False) -> Run:
    """The run of a directory on the data it was trained with, and with that calibration even on other data.

    Args:
        overrides: `env.key=value`; where they ask for other data, the run's own do not matter.
        without_data: read no recorded data, where acting is all that is wanted.

    Raises:
        FileNotFoundError: not a run directory. DamagedError: its configuration, or what it keeps of its data, is.
        ConfigError: an override that is not `env.key=value`, or does not fit.
        ValueError: from the environment: the data are no longer those of the run.
    """
    for override in overrides:
        if not override.startswith("env."):
            raise ConfigError(f"override '{override}': only env.key=value can differ from the trained run")
    return build(read_config(run_dir, overrides), read_kept(run_dir), without_data=without_data, run_dir=run_dir)


def read_policy(run_dir: Path, run: Run, name: CheckpointName) -> tuple[Policy, dict[str, Any]]:
    """Policy with a leading seed axis, and what was stored with it (epoch, config hash).

    `best` is the best of every seed by its own evaluations; without any evaluation, the latest.

    Raises:
        CheckpointError: no such checkpoint, or damaged.
    """
    like = policy_like(run)
    best = run_dir / "policy" / "best.npz"
    if name == "best" and best.exists():
        return bundle.read_tree(best, like)
    step: checkpoint.Which = "latest" if name == "best" else name
    tree, meta = checkpoint.restore(run_dir / "checkpoints", {"policy": like}, step)
    return tree["policy"], meta


def pick_seed(run: Run, stacked: Policy, meta: Mapping[str, Any], seed_index: int | None = None) -> tuple[Policy, int]:
    """The policy of one seed of several and its number; None: the one with the best evaluation, else the first.

    Raises:
        ConfigError: no such seed.
    """
    scores = meta.get("best_scores")
    index = seed_index if seed_index is not None else int(np.argmax(scores)) if scores else 0
    if not 0 <= index < run.config.num_seeds:
        raise ConfigError(f"seed index {index}: the run has seeds 0 to {run.config.num_seeds - 1}")
    return jax.tree.map(lambda x: x[index], stacked), index


def policy_like(run: Run) -> Policy:
    """Shapes and dtypes of the stacked policies, without running anything."""
    algorithm = run.algorithm
    data = Data(run.env.default_params)  # what is recorded does not shape a policy

    def policy(key):
        return algorithm.policy(algorithm.init(key, algorithm.hparams, data))

    single = jax.eval_shape(policy, jax.random.key(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((run.config.num_seeds, *x.shape), x.dtype), single)
