"""Evaluation: greedy episodes on the device, then scores against the environment's baselines and bound on the host.

Reading order: rolling out, scoring, tables for people, and opening a run directory for those who evaluate later.
"""

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs_jax
from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment, Params, Score
from envs_jax.episodes import play, play_rules
from purerl.config import ConfigError, RunConfig, algorithm_module, load_config
from purerl.run import checkpoint
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
    whole: bool = False,
) -> dict[str, Any]:
    """Play every case once, greedily, with every seed's policy.

    Args:
        env: with an agent axis.
        policy: leaves with a leading seed axis S.
        case_indices: [N]; the random numbers of a case depend on its index alone, and are the same for all seeds.
        with_values: also the critics' estimates `q1`, `q2`, ... of every step.
        whole: everything that is known of a step, see `envs_jax.episodes.Episodes`.

    Returns:
        The records of `envs_jax.episodes.play` [S, N, T, ...], and [S, N] `q_start`, the mean of the critics at the
        first step, where the algorithm has `q_values`.
    """

    def one_seed(policy: Policy) -> dict[str, Any]:
        def act(memory, obs, state, key):
            mask = None if env.action_mask is None else jax.vmap(env.action_mask, (0, None))(state, params)
            return algorithm.act(policy, memory, obs, mask, key, True)

        memory = algorithm.initial_carry(case_indices.shape)
        records, obs, action = play(env, params, act, memory, case_indices, key, whole)
        if algorithm.q_values is not None:
            values = _team_values(algorithm, policy, obs[:1], action[:1]) / env.reward_scale
            records["q_start"] = jnp.mean(values[:, :, 0], axis=0)
            if with_values:
                for number, values in enumerate(_team_values(algorithm, policy, obs, action), start=1):
                    records[f"q{number}"] = values / env.reward_scale
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
    """`(policy, split, episodes, seed, with_values=False, cases=None, whole=False) -> Result`.

    Compiled once per number of cases. `cases` names some by their indices; `whole` keeps everything about their steps.
    """
    env = with_agent_axis(env)
    rollout = jax.jit(partial(rollout_cases, algorithm, env), static_argnames=("with_values", "whole"))
    by_rules = jax.jit(partial(play_rules, env), static_argnames="names")

    @lru_cache(maxsize=4)
    def beside(split: str, indices: tuple[int, ...], seed: int) -> Score | None:
        """Score of the environment's rules from the same starts, as if they were seeds."""
        if not env.compared:
            return None
        cases = jnp.asarray(indices, jnp.int32)
        key = jax.random.key(seed)
        records = by_rules(env.split_params(split), names=env.compared, case_indices=cases, key=key)
        return score(env, split, jax.device_get(records), cache_dir)

    def evaluate(
        policy: Policy,
        split: str,
        episodes: int | None,
        seed: int,
        with_values: bool = False,
        cases: Sequence[int] | None = None,
        whole: bool = False,
    ) -> Result:
        params = env.split_params(split)
        indices = choose_cases(env.num_cases(params), episodes) if cases is None else np.asarray(cases)
        options = {"with_values": with_values, "whole": whole}
        key = jax.random.key(seed)
        records = jax.device_get(rollout(params, policy, jnp.asarray(indices, jnp.int32), key, **options))
        reached = score(env, split, records, cache_dir)
        # Cases that somebody names are looked at one by one, not scored against anybody.
        rules = beside(split, tuple(indices.tolist()), seed) if cases is None else None
        if rules is not None:
            reached = _with_rules(reached, env.compared, rules)
        return Result(split, reached, *_returns(algorithm, records), records)

    return evaluate


def _with_rules(reached: Score, names: Sequence[str], rules: Score) -> Score:
    """A policy's score with those of rules beside it; `detail["rules"]` is theirs, one value per rule in this order."""
    detail = {**reached.detail, "rules": {"names": list(names), **rules.detail}}
    return reached._replace(
        baselines={**reached.baselines, **dict(zip(names, rules.policy, strict=True))}, detail=detail
    )


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
        one = _one_episode(result.records, seed, position)
        columns = env.report.table(result.split, label, one, cache_dir) if env.report else {"label": label, **one}
        tables.append(_rows(columns, max(np.size(values) for values in columns.values())))
    for label, rows in zip(labels, tables, strict=True) if singly else ():
        _write_csv(directory / f"{step_name}_{suffix}_{label}.csv", rows)
    _write_csv(directory / f"{step_name}_{suffix}.csv", [row for rows in tables for row in rows])


def _one_episode(records: Records, seed: int, position: int) -> dict[str, Any]:
    """The steps of one episode [T, ...], without those after its end."""
    active = records["active"][seed, position]
    steps = {name: values for name, values in records.items() if name != "q_start"}
    return jax.tree.map(lambda values: values[seed, position][active], steps)


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
    env = dataclasses.replace(env, reward_scale=config.reward_scale)
    algorithm_config = config.algorithm_config()
    if config.reward_scale != 1 and getattr(algorithm_config, "critic_preview", False):
        raise ConfigError("algo.critic_preview: previews are not scaled; set reward_scale to 1")
    module = algorithm_module(config)
    algorithm = user_input("algo", lambda: module.make(algorithm_config, env, env.default_params))
    return Run(config, env, algorithm)


def build_env(config: RunConfig, calibration: Mapping[str, Any] | None = None) -> Environment:
    """The environment of a configuration, with an agent axis; raises as `build` does."""
    settings = config.env_settings()
    if calibration is not None:
        settings["calibration"] = calibration
    return with_agent_axis(user_input("env", lambda: envs_jax.make(config.env["name"], **settings)))


def user_input(section: str, make: Callable[[], Any]) -> Any:
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
