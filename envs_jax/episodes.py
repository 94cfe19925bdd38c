"""Whole episodes of many cases at once: what evaluations, rule-based policies and pictures of flights are made of."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Environment, Params, traced_once

Act = Callable[[Any, Any, Any, jax.Array], tuple[Any, Any]]
"""`(memory, obs, state, key) -> (action, memory)` of a batch of cases."""


class Episodes(NamedTuple):
    records: dict[str, Any]
    """[N, T] `reward` (summed over agents, zero after the end), `active` (the episode had not ended before the step),
    `case`, every scalar of `info`, `action` where it is one number, and what the environment's `condense` adds.
    `whole`: all of `info`, `action` and `state` (before the step), [N, T, ...], and `rewards` of the agents [N, T, A].
    """
    obs: Any
    """[T, N, A, d]"""
    action: Any
    """[T, N, A, ...]"""


def play(
    env: Environment,
    params: Params,
    act: Act,
    memory: Any,
    case_indices: jax.Array,
    key: jax.Array,
    whole: bool = False,
) -> Episodes:
    """Play every case once, up to the longest possible episode.

    Args:
        env: with an agent axis.
        memory: of `act` at the start of all cases.
        case_indices: [N]; the random numbers of a case depend on its index and `key` alone.
        whole: records hold everything that is known of a step instead of its scalars.
    """
    key_reset, key_steps = jax.random.split(key)
    step = jax.vmap(traced_once(env.step_env), (0, 0, 0, None))
    num_steps = env.episode_length or env.max_episode_length
    num_cases = case_indices.shape[0]

    def keys_by_case(key: jax.Array) -> jax.Array:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, case_indices)

    def start() -> tuple[Any, Any]:
        if env.assessment.reset_case is not None:
            return jax.vmap(env.assessment.reset_case, (0, 0, None))(keys_by_case(key_reset), case_indices, params)
        return jax.vmap(traced_once(env.reset_env), (0, None))(keys_by_case(key_reset), params)

    def body(carried, key):
        obs, state, memory, active = carried
        key_act, key_env = jax.random.split(key)
        action, memory = act(memory, obs, state, key_act)
        keys = keys_by_case(key_env)
        obs_next, state_next, reward, terminated, truncated, info = step(keys, state, action, params)
        team_reward = jnp.where(active, reward.reshape(num_cases, -1).sum(axis=1), 0.0)
        own = {"reward": team_reward, "active": active}
        kept = info, own, state, reward, action, obs
        return (obs_next, state_next, memory, active & ~(terminated | truncated)), kept

    obs, state = start()
    carried = obs, state, memory, jnp.ones(num_cases, bool)
    # The compiler drops from the loop what is not used below.
    _, (*steps, obs) = jax.lax.scan(body, carried, jax.random.split(key_steps, num_steps))
    info, own, states, rewards, actions = jax.tree.map(lambda values: jnp.swapaxes(values, 0, 1), steps)
    own["case"] = jnp.broadcast_to(case_indices[:, None], (num_cases, num_steps))
    everything = {**info, "action": actions, "state": states, "rewards": rewards, **own}
    records = everything if whole else {**_scalars(info, actions), **own}
    if env.assessment.condense is not None:
        records = {**records, **jax.vmap(env.assessment.condense, (0, None))(everything, params)}
    return Episodes(records, obs, steps[-1])


def _scalars(info: Mapping[str, Any], action: Any) -> dict[str, jax.Array]:
    """Entries that are one number in each step, [N, T]."""
    kept = {name: value for name, value in info.items() if getattr(value, "ndim", 0) == 2}
    if isinstance(action, jax.Array) and math.prod(action.shape[2:]) == 1:
        kept.setdefault("action", action.reshape(action.shape[:2]))
    return kept


def play_rules(
    env: Environment, params: Params, names: Sequence[str], case_indices: jax.Array, key: jax.Array, whole: bool = False
) -> dict[str, Any]:
    """Records of `play` with rules of the environment or of its yardsticks [rule, N, T, ...], each from the starts that
    a policy has.

    All rules of one world fly in one batch, each with the action of its own: a program for each would take as many
    times as long to compile.

    Args:
        whole: as in `play`; then all `names` are of one world, as the states of two are not alike.
    """
    beside = env.assessment.yardsticks
    special = [name for name in names if beside is not None and name in beside.guidance.rules]
    usual = [name for name in names if name not in special]
    parts = [
        _in_one_batch(world, params, own, case_indices, jax.random.clone(key), whole)  # the same starts
        for world, own in ((env, usual), (beside, special))
        if world is not None and own
    ]
    order = np.array([[*usual, *special].index(name) for name in names])
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x)[order], *parts)


def _in_one_batch(
    env: Environment, params: Params, names: Sequence[str], case_indices: jax.Array, key: jax.Array, whole: bool
) -> dict[str, Any]:
    rules = [jax.vmap(env.guidance.rules[name], (0, 0, None)) for name in names]
    count, cases = len(rules), case_indices.shape[0]
    own = jnp.repeat(jnp.arange(count), cases)

    def act(memory, obs, state, key):
        actions = [
            rule(jax.random.split(k, own.size), state, params) for rule, k in zip(rules, split(key), strict=True)
        ]

        def chosen(*each):
            return jnp.stack(each)[own, jnp.arange(own.size)]

        return jax.tree.map(chosen, *actions), memory

    def split(key):
        return [jax.random.fold_in(key, number) for number in range(count)]

    records = play(env, params, act, (), jnp.tile(case_indices, count), key, whole).records
    return jax.tree.map(lambda x: x.reshape(count, cases, *x.shape[1:]), records)


# What figures are drawn from

POLICY = "policy"


class Replay(NamedTuple):
    """The best policy of a run and the environment's rules, to be watched from the same starts."""

    env: Environment
    """With an agent axis."""
    params: Params
    """Of the split of the final score."""
    play: Callable[[str, np.ndarray], dict[str, Any]]
    """`(POLICY or the name of a rule, case numbers [N])`: records with everything that is known, on the host. Compiled
    once per player and N."""


class Material(NamedTuple):
    """What the figures of an environment show of a finished run."""

    report: Mapping[str, Any]
    """The final score."""
    steps: Any
    """Its table of steps, a data frame."""
    replay: Callable[[], Replay]
    """Opens the run, for figures that need more than the files hold."""
    everything: bool = False
    """Also what takes its time: animations, and thousands of episodes where a figure counts."""
    episodes: int | None = None
    """How many episodes to count; None: as many as the environment finds enough."""
