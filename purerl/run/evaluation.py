"""Evaluation: greedy episodes on the device, then scores against the environment's baselines and bound on the host."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters import with_agent_axis
from envs_jax.base import FRAMES, Environment, Params, Score
from envs_jax.episodes import play, play_rules
from purerl.types import Algorithm, Policy

RANDOM_EPISODES = 100
"""Evaluation episodes where an environment has no finite set of cases."""
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
    own_params: tuple[bool, ...] | None = None,
) -> dict[str, Any]:
    """Play every case once, greedily, with every seed's policy.

    Args:
        env: with an agent axis.
        policy: leaves with a leading seed axis S.
        case_indices: [N]; the random numbers of a case depend on its index alone, and are the same for all seeds.
        with_values: also the critics' estimates `q1`, `q2`, ... of every step.
        whole: everything that is known of a step, see `envs_jax.episodes.Episodes`.
        own_params: which leaves of `params` are [S, ...], one for every seed; None: all seeds share them.

    Returns:
        The records of `envs_jax.episodes.play` [S, N, T, ...], and [S, N] `q_start`, the mean of the critics at the
        first step, where the algorithm has `q_values`.
    """

    def one_seed(policy: Policy, params: Params) -> dict[str, Any]:
        def act(memory, obs, state, key):
            mask = None if env.action_mask is None else jax.vmap(env.action_mask, (0, None))(state, params)
            return algorithm.act(policy, memory, obs, mask, key, True)

        memory = algorithm.initial_carry(case_indices.shape)
        records, obs, action = play(env, params, act, memory, case_indices, key, whole)
        if algorithm.q_values is not None:
            values = _team_values(algorithm, policy, obs[:1], action[:1], params) / algorithm.reward_scale
            records["q_start"] = jnp.mean(values[:, :, 0], axis=0)
            if with_values:
                for number, values in enumerate(_team_values(algorithm, policy, obs, action, params), start=1):
                    records[f"q{number}"] = values / algorithm.reward_scale
        return records

    axes = None
    if own_params is not None:
        axes = jax.tree.unflatten(jax.tree.structure(params), [0 if own else None for own in own_params])
    return jax.vmap(one_seed, (0, axes))(policy, params)


def _team_values(algorithm: Algorithm, policy: Policy, obs: jax.Array, action: jax.Array, params: Params) -> jax.Array:
    """Critics' estimates [critics, N, T], summed over agents, for obs [T, N, A, d] and action [T, N, A, k]."""
    assert algorithm.q_values is not None
    steps, cases, agents = obs.shape[:3]
    values = algorithm.q_values(
        policy, obs.reshape(steps, cases * agents, -1), action.reshape(steps, cases * agents, -1), params
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
            "percent_of_bound_baselines": score.percent_of_bound_baselines,
            "return": _mean(self.returns),
            "return_per_seed": self.returns,
            "q_start_bias": _mean(self.q_start_bias),
            "q_start_bias_per_seed": self.q_start_bias,
            "detail": score.detail,
        }


def _mean(values: Sequence[float] | None) -> float | None:
    return float(np.mean(values)) if values is not None else None


Evaluate = Callable[..., Result]


def rollout_of(algorithm: Algorithm, env: Environment) -> Any:
    """`rollout_cases` of an algorithm in an environment, compiled."""
    roll = partial(rollout_cases, algorithm, with_agent_axis(env))
    return jax.jit(roll, static_argnames=("with_values", "whole"))


def record_shapes(
    rollout: Any, env: Environment, policy: Policy, split: str, episodes: int | None, with_values: bool = False
) -> Any:
    """What an evaluation records, as shapes; `policy` may be shapes, too."""
    params = env.split_params(split)
    count = number_of_cases(env.assessment.num_cases(params), episodes)
    cases = jax.ShapeDtypeStruct((count,), jnp.int32)
    return rollout.eval_shape(params, policy, cases, jax.random.key(0), with_values=with_values, whole=False)


def make_evaluate(
    algorithm: Algorithm, env: Environment, cache_dir: Path | None, rollout: Any | None = None
) -> Evaluate:
    """`(policy, split, episodes, seed, with_values=False, cases=None, whole=False) -> Result`.

    Compiled once per number of cases. `cases` names some by their indices; `whole` keeps everything about their steps.
    `rollout` is what `rollout_of` gives, where it has been traced before.
    """
    env = with_agent_axis(env)
    rollout = rollout_of(algorithm, env) if rollout is None else rollout
    by_rules = jax.jit(partial(play_rules, env), static_argnames="names")

    @lru_cache(maxsize=4)
    def beside(split: str, indices: tuple[int, ...], seed: int) -> Score | None:
        """Score of the environment's rules from the same starts, as if they were seeds."""
        if not env.assessment.compared:
            return None
        cases = jnp.asarray(indices, jnp.int32)
        key = jax.random.key(seed)
        records = by_rules(env.split_params(split), names=env.assessment.compared, case_indices=cases, key=key)
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
        indices = choose_cases(env.assessment.num_cases(params), episodes) if cases is None else np.asarray(cases)
        options = {"with_values": with_values, "whole": whole}
        key = jax.random.key(seed)
        records = jax.device_get(rollout(params, policy, jnp.asarray(indices, jnp.int32), key, **options))
        reached = score(env, split, records, cache_dir)
        # Cases that somebody names are looked at one by one, not scored against anybody.
        rules = beside(split, tuple(indices.tolist()), seed) if cases is None else None
        if rules is not None:
            reached = _with_rules(reached, env.assessment.compared, rules)
        return Result(split, reached, *_returns(algorithm, records), records)

    return evaluate


def _with_rules(reached: Score, names: Sequence[str], rules: Score) -> Score:
    """A policy's score with those of rules beside it; `detail["rules"]` is theirs, one value per rule in this order."""
    detail = {**reached.detail, "rules": {"names": list(names), **rules.detail}}
    return reached._replace(
        baselines={**reached.baselines, **dict(zip(names, rules.policy, strict=True))}, detail=detail
    )


def number_of_cases(available: int | None, wanted: int | None) -> int:
    """How many `choose_cases` gives."""
    if available is None:
        return wanted or RANDOM_EPISODES
    return available if wanted is None else min(wanted, available)


def choose_cases(available: int | None, wanted: int | None) -> np.ndarray:
    """Indices of the cases to play: all, or `wanted` of them evenly apart."""
    if available is None:
        return np.arange(wanted or RANDOM_EPISODES)
    if wanted is None or wanted >= available:
        return np.arange(available)
    return np.unique(np.linspace(0, available - 1, wanted).round().astype(int))


def score(env: Environment, split: str, records: Records, cache_dir: Path | None = None) -> Score:
    """The environment's own score, or the mean undiscounted return, which has no bound."""
    if env.assessment.score is not None:
        return env.assessment.score(split, records, cache_dir)
    returns = records["reward"].sum(axis=2, dtype=np.float64)
    lengths = records["active"].sum(axis=2)
    detail = {"return_std": returns.std(axis=1).tolist(), "episode_length": lengths.mean(axis=1).tolist()}
    return Score("return", returns.mean(axis=1).tolist(), {}, None, None, detail)


def _returns(algorithm: Algorithm, records: Records) -> tuple[list[float], list[float] | None]:
    reward = records["reward"].astype(np.float64)
    returns = reward.sum(axis=2).mean(axis=1).tolist()
    if "q_start" not in records:
        return returns, None
    frames = np.asarray(records.get(FRAMES, np.ones_like(reward)), np.float64)
    before = np.cumsum(frames, axis=2) - frames
    realised = (reward * algorithm.discount**before).sum(axis=2).mean(axis=1)
    return returns, (records["q_start"].mean(axis=1) - realised).tolist()
