"""Evaluation: greedy episodes on the device, then scores against the environment's baselines and bound on the host.

Reading order: rolling out, scoring, tables for people, and opening a run directory for those who evaluate later.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs_jax
from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment, Params, Score
from purerl import checkpoint
from purerl.config import ConfigError, RunConfig, algorithm_module, load_config
from purerl.types import Algorithm, Policy

RANDOM_EPISODES = 100
"""Evaluation episodes where an environment has no finite set of cases."""

CALIBRATION = Path("checkpoints") / "calibration.json"
"""What the environment fitted on the training split, inside the run directory."""

CheckpointName = Literal["best", "latest"] | int
Records = dict[str, np.ndarray]


def rollout_cases(
    algorithm: Algorithm,
    env: Environment,
    params: Params,
    policy: Policy,
    case_indices: jax.Array,
    key: jax.Array,
    with_values: bool = False,
) -> dict[str, jax.Array]:
    """Play every case once, greedily, with every seed's policy.

    Args:
        env: with an agent axis.
        policy: leaves with a leading seed axis S.
        case_indices: [N]; the random numbers of a case depend on its index alone, and are the same for all seeds.
        with_values: also the critics' estimates `q1`, `q2`, ... of every step.

    Returns:
        [S, N, T] `reward` (summed over agents, zero after the end), `active` (the episode had not ended before the
        step), `case`, every scalar of `info`, `action` where it is one number, and [S, N] `q_start`, the mean of the
        critics at the first step, where the algorithm has `q_values`.
    """
    key_reset, key_steps = jax.random.split(key)
    num_steps = env.episode_length or env.max_episode_length
    num_cases = case_indices.shape[0]

    def keys_by_case(key: jax.Array) -> jax.Array:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, case_indices)

    def start() -> tuple[Any, Any]:
        if env.reset_case is not None:
            return jax.vmap(env.reset_case, (0, 0, None))(keys_by_case(key_reset), case_indices, params)
        return jax.vmap(env.reset_env, (0, None))(keys_by_case(key_reset), params)

    def one_seed(policy: Policy) -> dict[str, jax.Array]:
        def body(carried, key):
            obs, state, memory, active = carried
            key_act, key_env = jax.random.split(key)
            mask = None if env.action_mask is None else jax.vmap(env.action_mask, (0, None))(state, params)
            action, memory = algorithm.act(policy, memory, obs, mask, key_act, True)
            obs_next, state, reward, terminated, truncated, info = jax.vmap(env.step_env, (0, 0, 0, None))(
                keys_by_case(key_env), state, action, params
            )
            scalars = {name: value for name, value in info.items() if jnp.ndim(value) == 1}
            if isinstance(action, jax.Array) and action.size == num_cases:
                scalars.setdefault("action", action.reshape(num_cases))
            team_reward = jnp.where(active, reward.reshape(num_cases, -1).sum(axis=1), 0.0)
            step = {**scalars, "reward": team_reward, "active": active}
            return (obs_next, state, memory, active & ~(terminated | truncated)), (step, obs, action)

        obs, state = start()
        carried = obs, state, algorithm.initial_carry((num_cases,)), jnp.ones(num_cases, bool)
        _, (steps, obs, action) = jax.lax.scan(body, carried, jax.random.split(key_steps, num_steps))
        records = {name: jnp.swapaxes(values, 0, 1) for name, values in steps.items()}
        records["case"] = jnp.broadcast_to(case_indices[:, None], (num_cases, num_steps))
        if algorithm.q_values is not None:
            records["q_start"] = jnp.mean(_team_values(algorithm, policy, obs[:1], action[:1])[:, :, 0], axis=0)
            if with_values:
                for number, values in enumerate(_team_values(algorithm, policy, obs, action), start=1):
                    records[f"q{number}"] = values
        return records

    return jax.vmap(one_seed)(policy)


def _team_values(algorithm: Algorithm, policy: Policy, obs: jax.Array, action: jax.Array) -> jax.Array:
    """Critics' estimates [critics, N, T], summed over agents, for obs [T, N, A, d] and action [T, N, A, k]."""
    assert algorithm.q_values is not None
    steps, cases, agents = obs.shape[:3]
    values = algorithm.q_values(
        policy, obs.reshape(steps, cases * agents, -1), action.reshape(steps, cases * agents, -1)
    )
    return jnp.swapaxes(values.reshape(-1, steps, cases, agents).sum(axis=-1), 1, 2)


class Result(NamedTuple):
    """An evaluated policy."""

    split: str
    score: Score
    returns: list[float]
    """Mean undiscounted sum of rewards, one value per seed."""
    q_start_bias: list[float] | None
    """Critics' mean estimate at the first step minus the mean discounted return, one value per seed."""
    records: Records

    def summary(self) -> dict[str, float | None]:
        """Means over seeds under the names of the log columns."""
        return {
            "eval_score": _mean(self.score.policy),
            "eval_return": _mean(self.returns),
            "eval_percent_of_bound": _mean(self.score.percent_of_bound),
            "eval_q_start_bias": _mean(self.q_start_bias),
        }

    def to_json(self) -> dict[str, Any]:
        score = self.score
        return {
            "split": self.split,
            "unit": score.unit,
            "episodes": int(self.records["reward"].shape[1]),
            "policy": _mean(score.policy),
            "policy_per_seed": list(score.policy),
            "policy_std": float(np.std(score.policy)),
            "baselines": dict(score.baselines),
            "bound": score.bound,
            "percent_of_bound": _mean(score.percent_of_bound),
            "percent_of_bound_per_seed": score.percent_of_bound,
            "return": _mean(self.returns),
            "return_per_seed": self.returns,
            "q_start_bias": _mean(self.q_start_bias),
            "q_start_bias_per_seed": self.q_start_bias,
            "detail": score.detail,
        }


def _mean(values: Sequence[float] | None) -> float | None:
    return float(np.mean(values)) if values is not None else None


Evaluate = Callable[..., Result]


def make_evaluate(algorithm: Algorithm, env: Environment, cache_dir: Path | None) -> Evaluate:
    """`(policy, split, episodes, seed, with_values=False) -> Result`; compiled once per number of cases."""
    env = with_agent_axis(env)
    play = jax.jit(partial(rollout_cases, algorithm, env), static_argnames="with_values")

    def evaluate(
        policy: Policy,
        split: str,
        episodes: int | None,
        seed: int,
        with_values: bool = False,
        cases: Sequence[int] | None = None,
    ) -> Result:
        params = env.split_params(split)
        indices = choose_cases(env.num_cases(params), episodes) if cases is None else np.asarray(cases)
        records = jax.device_get(
            play(params, policy, jnp.asarray(indices, jnp.int32), jax.random.key(seed), with_values=with_values)
        )
        return Result(split, score(env, split, records, cache_dir), *_returns(algorithm, records), records)

    return evaluate


def choose_cases(available: int | None, wanted: int | None) -> np.ndarray:
    """Indices of the cases to play: all, or `wanted` of them spread evenly."""
    if available is None:
        return np.arange(wanted or RANDOM_EPISODES)
    if wanted is None or wanted >= available:
        return np.arange(available)
    return np.unique(np.linspace(0, available - 1, wanted).round().astype(int))


def score(env: Environment, split: str, records: Records, cache_dir: Path | None = None) -> Score:
    """The environment's own score, or the mean undiscounted return, which has no bound."""
    if env.score is not None:
        return env.score(split, records, cache_dir)
    returns = records["reward"].sum(axis=2, dtype=np.float64)
    lengths = records["active"].sum(axis=2)
    detail = {"return_std": returns.std(axis=1).tolist(), "episode_length": lengths.mean(axis=1).tolist()}
    return Score("return", returns.mean(axis=1).tolist(), {}, None, None, detail)


def _returns(algorithm: Algorithm, records: Records) -> tuple[list[float], list[float] | None]:
    reward = records["reward"].astype(np.float64)
    returns = reward.sum(axis=2).mean(axis=1).tolist()
    if "q_start" not in records:
        return returns, None
    gamma = float(getattr(algorithm.hparams, "gamma", 1.0))
    realised = (reward * gamma ** np.arange(reward.shape[2])).sum(axis=2).mean(axis=1)
    return returns, (records["q_start"].mean(axis=1) - realised).tolist()


# For people


def score_table(result: Result, title: str) -> Any:
    """A `rich` table: policy with its spread over seeds, baselines, bound."""
    from rich.table import Table

    score = result.score
    table = Table(title=title, caption=f"{result.records['reward'].shape[1]} episodes of split '{result.split}'")
    table.add_column("")
    table.add_column(score.unit, justify="right")
    table.add_column("% of bound", justify="right")
    seeds = len(score.policy)
    spread = f" ± {np.std(score.policy):.4g}" if seeds > 1 else ""
    percent = "" if score.percent_of_bound is None else f"{np.mean(score.percent_of_bound):.2f}"
    if score.percent_of_bound is not None and seeds > 1:
        percent += f" ± {np.std(score.percent_of_bound):.2f}"
    name = "policy" if seeds == 1 else f"policy (mean of {seeds} seeds)"
    table.add_row(name, f"{np.mean(score.policy):.6g}{spread}", percent, style="bold")
    baseline_percent = score.detail.get("percent_of_bound_baselines") or {}
    for baseline, value in sorted(score.baselines.items(), key=lambda item: -item[1]):
        share = f"{baseline_percent[baseline]:.2f}" if baseline in baseline_percent else ""
        table.add_row(baseline, f"{value:.6g}", share)
    if score.bound is not None:
        table.add_row("bound", f"{score.bound:.6g}", "100.00")
    return table


def print_table(table: Any) -> None:
    from rich.console import Console

    Console().print(table)


def write_step_tables(
    env: Environment,
    result: Result,
    labels: Sequence[str],
    directory: Path,
    suffix: str,
    cache_dir: Path | None,
    singly: bool,
) -> None:
    """CSV with one row per step of every episode of the seed with the best score.

    Args:
        labels: names of the episodes, in the order in which `result` holds them.
        suffix: such as `ep0010`; the file is `<step name>_<suffix>.csv`.
        singly: also write one file per label, `<step name>_<suffix>_<label>.csv`.
    """
    seed = int(np.argmax(result.score.policy))
    step_name = env.report.step_name if env.report else "steps"
    tables = []
    for position, label in enumerate(labels):
        active = result.records["active"][seed, position]
        one = {k: v[seed, position][active] for k, v in result.records.items() if v.ndim == 3}
        columns = env.report.table(result.split, label, one, cache_dir) if env.report else {"label": label, **one}
        tables.append(_rows(columns, int(active.sum())))
    for label, rows in zip(labels, tables, strict=True) if singly else ():
        _write_csv(directory / f"{step_name}_{suffix}_{label}.csv", rows)
    _write_csv(directory / f"{step_name}_{suffix}.csv", [row for rows in tables for row in rows])


def _rows(columns: Mapping[str, Any], length: int) -> list[dict[str, Any]]:
    whole = {name: np.broadcast_to(np.asarray(values), (length,)) for name, values in columns.items()}
    return [{name: _plain(values[t]) for name, values in whole.items()} for t in range(length)]


def _plain(value: Any) -> Any:
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else f"{value:.9g}"
    return value.item() if isinstance(value, np.generic) else value


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step; NumPy numbers become numbers, and what is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text(path, json.dumps(_json_ready(value), indent=2, allow_nan=False) + "\n")


def _json_ready(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _json_ready(np.asarray(value).tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


# Runs


class Run(NamedTuple):
    """What a configuration stands for."""

    config: RunConfig
    env: Environment
    """With an agent axis."""
    algorithm: Algorithm


def build(config: RunConfig, calibration: Mapping[str, Any] | None = None, env: Environment | None = None) -> Run:
    """Environment and algorithm of a configuration; `env` is the environment where it has been made before.

    Raises:
        ConfigError: the environment or the algorithm refuses its settings.
        FileNotFoundError, DataError: from the environment's data.
    """
    env = build_env(config, calibration) if env is None else env
    algorithm_config = config.algorithm_config()
    module = algorithm_module(config)
    algorithm = _user_input("algo", lambda: module.make(algorithm_config, env, env.default_params))
    return Run(config, env, algorithm)


def build_env(config: RunConfig, calibration: Mapping[str, Any] | None = None) -> Environment:
    """The environment of a configuration, with an agent axis; raises as `build` does."""
    settings = config.env_settings()
    if calibration is not None:
        settings["calibration"] = calibration
    return with_agent_axis(_user_input("env", lambda: envs_jax.make(config.env["name"], **settings)))


def _user_input(section: str, make: Callable[[], Any]) -> Any:
    """`make()`, with a plain ValueError taken as a setting that does not fit; its own kinds pass unchanged."""
    try:
        return make()
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise ConfigError(f"{section}: {error}") from error


def open_run(run_dir: Path, overrides: Sequence[str] = ()) -> Run:
    """The run of a directory, with the calibration it was trained with even if overrides bring other data.

    Raises:
        FileNotFoundError: not a run directory.
        ConfigError: an override that is not `env.key=value`, or does not fit.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        raise FileNotFoundError(f"{run_dir}: not a run directory (no config.yaml)")
    for override in overrides:
        if not override.startswith("env."):
            raise ConfigError(f"override '{override}': only env.key=value can differ from the trained run")
    calibration = run_dir / CALIBRATION
    stored = json.loads(calibration.read_text()) if calibration.exists() else None
    return build(load_config(path, overrides), stored)


def read_policy(run_dir: Path, run: Run, name: CheckpointName) -> tuple[Policy, dict[str, Any]]:
    """Policy with a leading seed axis, and what was stored with it (epoch, config hash).

    `best` is the best of every seed by its own evaluations; without any evaluation, the latest.

    Raises:
        CheckpointError: no such checkpoint, or damaged.
    """
    like = policy_like(run)
    best = run_dir / "policy" / "best.npz"
    if name == "best" and best.exists():
        return checkpoint.read_tree(best, like)
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
    single = jax.eval_shape(lambda key: algorithm.policy(algorithm.init(key, algorithm.hparams)), jax.random.key(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((run.config.num_seeds, *x.shape), x.dtype), single)
