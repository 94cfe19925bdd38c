"""The environment contract: one record of pure functions, auto-reset written once.

An environment module builds an `Environment` from functions; nothing is inherited. `step` and `reset` follow
gymnax 1.0 (`step` returns observation, state, reward, terminated, truncated, info and resets itself).
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.spaces import Space

Params = Any
State = Any
StepResult = tuple[Any, State, jax.Array, jax.Array, jax.Array, dict[str, Any]]


FRAMES = "frames"
"""Entry of `info`, a positive whole number: how many frames of the world a step took, where that is not always one (a
decision that is held). Rewards of such a step are sums over its frames, and discounts count frames."""


class Score(NamedTuple):
    """Result of scoring one or more seeds of a policy on a split. Numbers are in `unit` unless said."""

    unit: str
    policy: list[float]
    """One value per seed, larger is better."""
    baselines: dict[str, float]
    bound: float | None
    percent_of_bound: list[float] | None
    """One value per seed, in %."""
    detail: dict[str, Any]
    """Anything JSON-serialisable that the environment's users look for."""
    milestones: Mapping[str, list[bool]] = {}
    """Name -> per seed, whether this evaluation met it. Evaluations in a row that did can end a run."""


class Scorer(Protocol):
    """Host-side scoring of recorded evaluation episodes."""

    def __call__(self, split: str, records: Mapping[str, np.ndarray], cache_dir: Path | None = None) -> Score:
        """Score `records`: arrays [seed, case, time] of `reward`, `active` and every scalar of `info`, and what
        `condense` makes of the steps.

        `records["case"]` are the indices of the cases, repeated to that shape.
        `cache_dir` is where costly bounds may be kept between calls.
        """
        ...


class Reporter(NamedTuple):
    """How single episodes are written for people, one row per step."""

    step_name: str
    """Prefix of the files, such as `hourly`."""
    cases: Callable[[str, Sequence[str] | None], dict[str, int]]
    """`(split, wanted names or None)`: label -> case index of the few episodes worth looking at."""
    table: Callable[[str, str, Mapping[str, Any], Path | None], dict[str, np.ndarray]]
    """`(split, label, records of one episode [time], cache_dir)`: columns [rows]; `records["case"]` is its index."""
    whole: bool = False
    """`table` wants everything that is known of a step (`envs_jax.episodes`), not its scalars alone."""


class ShiftGroup(NamedTuple):
    """Conditions that one compiled program can test: they differ in numbers alone."""

    env: "Environment"
    """Same observations and actions of an agent; other static rules, and maybe other agents, than at the training."""
    labels: list[dict[str, Any]]
    """Of every condition, JSON-serialisable. A shift has `kind` ("none": unshifted), `who`, `axis` (a direction or a
    choice), `size` along it, `unit`, `scale` (small, large); a scenario has `scenario`."""
    params: Params
    """Leaves [K, ...]."""
    left_out: Mapping[str, int] = {}
    """Kind -> number of shifts that the rules of the test exclude."""


@dataclass(frozen=True, eq=False)
class Environment:
    """A world as pure functions.

    Args of the fields: `key` a typed PRNG key, `state` and `params` pytrees, `action` an element of `action_space`.
    With `num_agents` set, obs, action and reward have a leading agent axis.
    """

    name: str
    default_params: Params
    """Parameters of the training split."""
    reset_env: Callable[[jax.Array, Params], tuple[Any, State]]
    step_env: Callable[[jax.Array, State, Any, Params], StepResult]
    """One transition without auto-reset; the observation is that of the state reached."""
    observation_space: Callable[[Params], Any]
    """A `Box`, a `Discrete` or a dict of such spaces; with an agent axis (`envs_jax.adapters`) a `Box` (A, d)."""
    action_space: Callable[[Params], Space]
    episode_length: int | None = None
    """Steps of every episode where that is fixed (whole-day environments), else None."""
    max_episode_length: int = 1000
    """Upper bound on the steps of an episode: evaluation stops there."""
    num_agents: int | None = None
    agent_names: tuple[str, ...] = ()
    """What tables and figures call the agents."""
    global_state: Callable[[State, Params], jax.Array] | None = None
    action_mask: Callable[[State, Params], Any] | None = None
    """`(state, params)`: legal actions, bool (n,) or (A, n); for a `Product` a tuple, None for parts without a mask."""
    alive: Callable[[State, Params], jax.Array] | None = None
    """`(state, params)`: bool (A,), the agents that act in this state. One that does not has had its last reward: its
    own episode has terminated, and what it does is ignored."""
    splits: Mapping[str, Params] = field(default_factory=dict)
    """Parameters by split name (`train`, `val`, `test`); without any, every name means `default_params`."""
    absent_splits: Mapping[str, str] = field(default_factory=dict)
    """Splits that the settings leave out, and what the user can do to have them (`set env.val_dates`)."""
    num_cases: Callable[[Params], int | None] = lambda params: None
    """Number of distinct evaluation episodes in `params`, or None when they are unlimited (random starts)."""
    reset_case: Callable[[jax.Array, jax.Array, Params], tuple[Any, State]] | None = None
    """`(key, index, params)`: start of evaluation episode number `index`; None: `reset_env` with the key."""
    reward_scale: float = 1.0
    """Algorithms learn from rewards times this. Returns that are reported, and recorded data, are not scaled."""
    score: Scorer | None = None
    has_bound: bool | None = None
    """Whether `score` has a `percent_of_bound`; None: only scoring tells."""
    condense: Callable[[Mapping[str, Any], Params], dict[str, Any]] | None = None
    """`(whole records of one episode [T, ...], params)`: further entries of its records, pytrees of small arrays [T].
    It runs on the device, so that what `score` needs beyond scalars reaches the host and the rest does not. Records are
    those of `envs_jax.episodes`, with an agent axis."""
    milestones: tuple[str, ...] = ()
    """Names of the milestones that `score` reports."""
    report: Reporter | None = None
    guided_action: Callable[[jax.Array, State, Params], jax.Array] | None = None
    """`(key, state, params)`: a rule-based exploratory action for warm-up."""
    rules: Mapping[str, Callable[[jax.Array, State, Params], jax.Array]] = field(default_factory=dict)
    """Rule-based policies by name, `(key, state, params)`: an action. They jit and vmap; `purerl.record` plays them."""
    compared: tuple[str, ...] = ()
    """Names of `rules` that an evaluation plays from the policy's starts and scores beside it."""
    shown: tuple[str, ...] = ()
    """Entries of the score's `detail`, one number per seed, that tests under other conditions show beside the score;
    `a.b` is entry `b` of `a`, shown as `b`. NaN where there is nothing to tell."""
    shifts: "Callable[[Sequence[str] | None], Sequence[ShiftGroup]] | None" = None
    """`(kinds, or None for all)`: conditions that differ from those of the training. The first entry of every group is
    unshifted: changes are against it, from the same starts."""
    scenarios: "Callable[[Sequence[str]], Sequence[ShiftGroup]] | None" = None
    """`(names)`: the same world in these scenarios; names of collections stand for their members."""
    preview: Callable[[jax.Array, jax.Array, Params], jax.Array] | None = None
    """`(obs, action, params)`: differentiable features of what the action does at once, the immediate reward first."""
    episode_sums: Mapping[str, str] = field(default_factory=dict)
    """Log column -> name of the scalar in `info` whose sum over an episode it shows."""
    differentiable: bool = False
    calibration: Mapping[str, Any] | None = None
    """JSON-serialisable values fitted on the training split (normalisation, reward scale). `make` takes them back as
    the keyword `calibration`, so a policy sees other data through the glasses it was trained with."""
    provenance: Mapping[str, Any] | None = None
    """JSON-serialisable: which recorded data the splits are made of, with digests. Where there is one, `make` takes it
    back as the keyword `provenance` and gives the same splits, or refuses data that have changed since; and with
    `without_data=True` it reads no data and needs none: such an environment serves to act, not to be played."""

    def reset(self, key: jax.Array, params: Params | None = None) -> tuple[Any, State]:
        """First observation and state of a new episode."""
        return self.reset_env(key, self.default_params if params is None else params)

    def step(self, key: jax.Array, state: State, action: Any, params: Params | None = None) -> StepResult:
        """One transition; where it ends the episode, observation and state are those of the next one.

        `info["final_observation"]` is always the observation before a reset: value it when bootstrapping.
        """
        params = self.default_params if params is None else params
        key_step, key_reset = jax.random.split(key)
        final_obs, state, reward, terminated, truncated, info = self.step_env(key_step, state, action, params)
        obs, state = restarted(terminated | truncated, self.reset_env(key_reset, params), (final_obs, state))
        return obs, state, reward, terminated, truncated, {**info, "final_observation": final_obs}

    def split_params(self, split: str) -> Params:
        """Parameters of a split; environments without splits use the same for all.

        Raises:
            ValueError: the environment has splits and none of this name.
        """
        problem = self.split_problem(split)
        if problem is not None:
            raise ValueError(f"no split '{split}': {problem}")
        return self.splits.get(split, self.default_params)

    def split_problem(self, split: str) -> str | None:
        """Why there is no such split, with the remedy or the nearest name; None where there is."""
        if not self.splits or split in self.splits:
            return None
        near = difflib.get_close_matches(split, [*self.splits, *self.absent_splits], n=1)
        remedy = self.absent_splits.get(split) or (f"did you mean '{near[0]}'?" if near else "")
        return f"{self.name} has {', '.join(self.splits)}" + (f"; {remedy}" if remedy else "")


def restarted(done: jax.Array, fresh: tuple[Any, State], stepped: tuple[Any, State]) -> tuple[Any, State]:
    """`(obs, state)` after a step: those of the next episode where this one is `done`."""
    return jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, stepped)
