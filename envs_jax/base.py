"""The environment contract: one record of pure functions, auto-reset written once.

An environment module builds an `Environment` from functions; nothing is inherited. `step` and `reset` follow
gymnax 1.0 (`step` returns observation, state, reward, terminated, truncated, info and resets itself).
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.selections import Encoding
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
    percent_of_bound_baselines: Mapping[str, float] | None = None
    """Of `baselines`, in %."""


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


class Column(NamedTuple):
    """A column of the training log: a number of every episode that ends, of which the log shows the mean."""

    source: str
    """The scalar of `info`."""
    reduction: Literal["sum", "mean", "last"] = "sum"
    """What makes one number of the steps of an episode."""
    label: str = ""
    """What figures call it; nothing: its name."""
    share: bool = False
    """It lies between 0 and 1 and its mean is a share of episodes: figures draw it, and bands can judge it."""


class Group(NamedTuple):
    """Conditions that one compiled program can test: they differ in numbers alone."""

    env: "Environment"
    """Same observations and actions of an agent; other static rules, and maybe other agents, than at the training."""
    labels: list[dict[str, Any]]
    """Of every condition, JSON-serialisable. Compared one by one, a condition has its name as `condition`. As a change
    it has `kind` ("none": unchanged), `who`, `axis` (a direction or a choice), `size` along it, `unit` and `scale`
    (small, large)."""
    params: Params
    """Leaves [K, ...]."""
    left_out: Mapping[str, int] = {}
    """Kind -> number of changes that the rules of the test exclude."""


class Conditions(NamedTuple):
    """One kind of test under other conditions than those of the training."""

    groups: Callable[[Sequence[str] | None], Sequence[Group]]
    """`(names, or None for all)`: what is tested; names of collections may stand for their members. Raises ValueError
    for a name that is not known."""
    compared: Literal["changes", "one by one"]
    """`changes`: how much each takes from the unchanged case, which is the first entry of every group, from the same
    starts; one run. `one by one`: every run and the world's rules in every condition."""
    own: str | None = None
    """One by one: the condition of the training."""
    why_left_out: str = ""
    """Changes: what is wrong with those that are left out."""


Rule = Callable[[jax.Array, State, Params], Any]
"""`(key, state, params)`: an action. It jits and vmaps."""


class Guidance(NamedTuple):
    """What a world knows about acting well in it. Nothing of it is needed to train."""

    rules: Mapping[str, Rule] = {}
    """Rule-based policies by name; `purerl.record` plays them."""
    guided_action: Rule | None = None
    """A rule-based exploratory action for warm-up."""
    preview: Callable[[jax.Array, jax.Array, Params], jax.Array] | None = None
    """`(obs, action, params)`: differentiable features of what the action does at once, the immediate reward first."""


class Assessment(NamedTuple):
    """How a policy of a world is judged and shown. By default: by its mean return from random starts."""

    splits: Mapping[str, Params] = {}
    """Parameters by split name (`train`, `val`, `test`); without any, every name means `default_params`."""
    absent_splits: Mapping[str, str] = {}
    """Splits that the settings leave out, and what the user can do to have them (`set env.val_dates`)."""
    num_cases: Callable[[Params], int | None] = lambda params: None
    """Number of distinct evaluation episodes in `params`, or None when they are unlimited (random starts)."""
    reset_case: Callable[[jax.Array, jax.Array, Params], tuple[Any, State]] | None = None
    """`(key, index, params)`: start of evaluation episode number `index`; None: `reset_env` with the key."""
    score: Scorer | None = None
    has_bound: bool | None = None
    """Whether `score` has a `percent_of_bound`; None: only scoring tells."""
    condense: Callable[[Mapping[str, Any], Params], dict[str, Any]] | None = None
    """`(whole records of one episode [T, ...], params)`: further entries of its records, pytrees of small arrays [T].
    It runs on the device, so that what `score` needs beyond scalars reaches the host and the rest does not. Records are
    those of `envs_jax.episodes`, with an agent axis."""
    milestones: tuple[str, ...] = ()
    """Names of the milestones that `score` reports."""
    yardsticks: "Environment | None" = None
    """The same world for rules that this environment's actions cannot say: those that see more, act more often, or
    remember. It has an agent axis, the same parameters, starts of a key, steps and records; what its actions mean is
    its own affair, as its `guidance.rules` alone are played."""
    compared: tuple[str, ...] = ()
    """Names of rules, of `yardsticks` or else of `Guidance.rules`, that an evaluation plays from the policy's starts
    and scores beside it."""
    shown: tuple[str, ...] = ()
    """Entries of the score's `detail`, one number per seed, that tests under other conditions show beside the score;
    `a.b` is entry `b` of `a`, shown as `b`. NaN where there is nothing to tell."""
    conditions: Mapping[str, Conditions] = {}
    """Tests under other conditions than those of the training, by name."""
    report: Reporter | None = None
    columns: Mapping[str, Column] = {}
    """What the training log shows of episodes, by the name of its column."""
    calibration: Mapping[str, Any] | None = None
    """JSON-serialisable values fitted on the training split (normalisation, reward scale). `make` takes them back as
    the keyword `calibration`, so a policy sees other data through the glasses it was trained with."""
    provenance: Mapping[str, Any] | None = None
    """JSON-serialisable: which recorded data the splits are made of, with digests. Where there is one, `make` takes it
    back as the keyword `provenance` and gives the same splits, or refuses data that have changed since; and with
    `without_data=True` it reads no data and needs none: such an environment serves to act, not to be played."""


class Guest(NamedTuple):
    """A trained policy that acts inside another world: an opponent, or the lower of two levels.

    Where a setting of an environment is `run:DIR`, its factory is given `guests`, a mapping from the setting's name to
    the best policy of that run. `policy` belongs into the world's parameters, so that it may change between updates.
    """

    policy: Any
    act: Callable[[Any, Any, Any, Any, Any, bool], tuple[Any, Any]]
    """`(policy, carry, obs [..., A, d], mask, key, greedy)`: actions [..., A, ...] and the next carry."""
    initial_carry: Callable[[tuple[int, ...]], Any]
    """Its memory at the start of an episode for a batch shape (without the agent axis)."""


class EntityKind(NamedTuple):
    """Entities of one kind in an agent's observation, side by side."""

    number: int
    size: int
    """Values of each. The last is one where the agent sees the entity, less where it remembers it, zero where it does
    not know of it."""


class Entities(NamedTuple):
    """How an agent's observation is divided, so that networks may look at entities one by one."""

    own: int
    """Values at its start: about the agent itself, and about the world at large."""
    kinds: Mapping[str, EntityKind]
    """By name, in the order of the observation, which they fill."""


class Selection(NamedTuple):
    """That actions say which entities an agent selects."""

    encoding: Encoding
    """`subset`: a number whose bits, the highest first, stand for one entity each; `single`: one entity or, last, none;
    `factored`: a choice between no and yes for each."""
    number: int
    kind: str | None = None
    """Of `Entities.kinds`, in that order; None: they are no part of the observation."""


NO_GUIDANCE, BY_RETURN = Guidance(), Assessment()


@dataclass(frozen=True, eq=False)
class Environment:
    """A world as pure functions: its dynamics, and beside them what is known about acting in it and judging it.

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
    """`(state, params)`: legal actions, bool (n,) or (A, n); of a `Box` the components in use, where actions are padded
    to a common length, bool of its shape; for a `Product` a tuple, None for parts without a mask."""
    alive: Callable[[State, Params], jax.Array] | None = None
    """`(state, params)`: bool (A,), the agents that act in this state. One that does not has had its last reward: its
    own episode has terminated, and what it does is ignored."""
    entities: Entities | None = None
    """Of what observations (A, d) or (d,) are made; None: not told."""
    selection: Selection | None = None
    """What actions select; None: they are something else."""
    differentiable: bool = False
    guidance: Guidance = NO_GUIDANCE
    assessment: Assessment = BY_RETURN

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
        return self.assessment.splits.get(split, self.default_params)

    def split_problem(self, split: str) -> str | None:
        """Why there is no such split, with the remedy or the nearest name; None where there is."""
        splits, absent = self.assessment.splits, self.assessment.absent_splits
        if not splits or split in splits:
            return None
        near = difflib.get_close_matches(split, [*splits, *absent], n=1)
        remedy = absent.get(split) or (f"did you mean '{near[0]}'?" if near else "")
        return f"{self.name} has {', '.join(splits)}" + (f"; {remedy}" if remedy else "")


def restarted(done: jax.Array, fresh: tuple[Any, State], stepped: tuple[Any, State]) -> tuple[Any, State]:
    """`(obs, state)` after a step: those of the next episode where this one is `done`."""
    return jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, stepped)


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose Python runs once for the same shapes: programs that step a world repeat its operations.

    A run has several such programs (first episodes, updates, evaluations), and tracing a world takes seconds.
    """
    return jax.jit(function, inline=True)
