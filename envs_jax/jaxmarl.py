"""Tasks of JaxMARL (Rutherford et al. 2024) as `Environment`s: `jaxmarl:<task>`, with the optional package `jaxmarl`.

Reading order: `Family` (what its worlds tell each in a way of their own), `jaxmarl_env` (a task by its name), `adapted`
(a world of the library as an environment), settings.

Observations of an agent become one row and are padded with zeros to the longest, as the library's own baselines do;
choices are padded likewise and masked. The global state is what the world gives as `world_state`, or all observations
side by side. Rewards are every agent's own, also where all are paid the same (`team_reward` makes one of them); a team
goes on being paid for agents that have left. The library tells one end of an episode: which of them are time limits is
said here. Keys are used as the library uses them, so the same key gives the same episode.
"""

import contextlib
import importlib
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.adapters import nearest, strong, with_types_of
from envs_jax.base import Assessment, Column, Environment
from envs_jax.spaces import Box, Discrete

EXTRA = "pip install 'purerl[jaxmarl]'"


def _never(world: Any, state: Any) -> Any:
    return False


class Family(NamedTuple):
    """Worlds that end alike. `world` is an environment of the library, `state` one of its states."""

    tasks: tuple[str, ...]
    """How their names begin."""
    longest: Callable[[Any], int]
    """`world`: steps of the longest episode."""
    cut_off: Callable[[Any, Any], Any] = _never
    """`(world, state)`: whether an episode that ended in this state was cut off by a time limit."""
    fixed: bool = False
    """All episodes are as long as the longest."""
    leaving: bool = False
    """Agents may be done before the others."""
    won: Callable[[Any, Any], Any] | None = None
    """`(world, state)`: whether an episode that ended in this state was won."""


def _survivors(world: Any, state: Any) -> tuple[Any, Any]:
    """Whether any of ours and of theirs is left in a battle."""
    alive = getattr(state, "state", state).unit_alive  # of one team's world it is inside
    return jnp.any(alive[: world.num_allies]), jnp.any(alive[world.num_allies :])


def _undecided(world: Any, state: Any) -> Any:
    ours, theirs = _survivors(world, state)
    return ours & theirs


def _won(world: Any, state: Any) -> Any:
    ours, theirs = _survivors(world, state)
    return ours & ~theirs


def _most_turns_of_hanabi(world: Any) -> int:
    """Every turn plays or discards a card, or gives a hint: those there are, and those that cards give back."""
    return int(2 * world.deck_size + world.max_info_tokens + world.num_colors)


def _always(world: Any, state: Any) -> Any:
    return True


FAMILIES = (
    # The limit is looked at before the clock moves on: episodes have a step more than `max_steps`.
    Family(("MPE_",), lambda world: world.max_steps + 1, _always, fixed=True),
    Family(
        ("SMAX", "HeuristicEnemySMAX", "LearnedPolicyEnemySMAX"),
        lambda world: world.max_steps + 1,
        _undecided,
        leaving=True,
        won=_won,
    ),
    Family(("overcooked",), lambda world: world.max_steps, _always, fixed=True),
    Family(
        ("jaxnav",), lambda world: world.max_steps, lambda world, state: state.step >= world.max_steps, leaving=True
    ),
    # They start over by themselves, and what comes after the last step is not shown: a bootstrap would see a new start.
    Family(("storm", "coin_game"), lambda world: world.num_inner_steps * world.num_outer_steps, fixed=True),
    Family(("hanabi",), _most_turns_of_hanabi),
    Family(("",), lambda world: getattr(world, "max_steps", 1000)),
)
"""The first that fits counts. Where nothing is said of a limit it is a rule of the game: the riddle's is."""


class State(NamedTuple):
    """A state of the library, and what an algorithm asks of it that only a step tells."""

    world: Any
    alive: jax.Array
    """bool (A,): agents that are not done."""
    seen: jax.Array
    """(s,): the global state."""


def jaxmarl_env(task: str, **settings: Any) -> Environment:
    """A task of JaxMARL such as `MPE_simple_spread_v3`; `settings` are the keywords of its class.

    `scenario` of the battles and `layout` of the kitchens are names of the library: `scenario: 3m`.

    Raises:
        ValueError: the package is not there; an unknown task, setting or name; settings that its class refuses.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # importing it prints
            library = importlib.import_module("jaxmarl")
    except ImportError as error:
        raise ValueError(f"jaxmarl:{task} needs an optional package ({error}): {EXTRA}") from error
    if task not in library.registered_envs:
        raise ValueError(f"unknown task '{task}' of JaxMARL; {nearest(task, list(library.registered_envs))}")
    world = _made(library, task, {})
    if settings:
        _require_known(task, world, settings)
        world = _made(library, task, _without_names(task, settings))
    return adapted(task, world)


def adapted(task: str, world: Any) -> Environment:
    """An environment of the library as one of ours, with an agent axis.

    Raises:
        ValueError: actions that are not all of one kind, one choice or numbers within bounds.
    """
    family = next(family for family in FAMILIES if task.startswith(family.tasks))
    agents = list(world.agents)
    first = jax.eval_shape(world.reset, jax.random.key(0))
    sizes = [row.size for row in jax.eval_shape(lambda obs: _rows(agents, obs), first[0])]
    space, widths = _padded_space(task, [world.action_space(agent) for agent in agents])
    one_choice = isinstance(space, Discrete)
    used = np.arange(space.n if isinstance(space, Discrete) else space.shape[1]) < np.array(widths)[:, None]
    legal_of = _legal_function(world, first[1], agents, widths) if one_choice else None

    def looked(obs: Any) -> tuple[jax.Array, jax.Array]:
        """Observations (A, d) and the global state (s,)."""
        rows = _rows(agents, obs)
        whole = obs["world_state"] if isinstance(obs, Mapping) and "world_state" in obs else None
        seen = jnp.concatenate(rows) if whole is None or whole.ndim != 1 else _row(whole)
        return jnp.stack([jnp.pad(row, (0, max(sizes) - row.size)) for row in rows]), seen

    def reset_env(key, params):
        obs, state = world.reset(key)
        rows, seen = looked(obs)
        return rows, State(jax.tree.map(strong, state), jnp.ones(len(agents), bool), seen)

    def step_env(key, state: State, action, params):
        actions = {agent: action[i] if one_choice else action[i, : widths[i]] for i, agent in enumerate(agents)}
        obs, after, reward, done, info = world.step_env(key, state.world, actions)
        ended = _flag(done["__all__"])
        truncated = ended & family.cut_off(world, after)
        own = jnp.stack([_flag(part) for part in _of_agents(agents, done, ended)])
        left = own & ~(truncated & jnp.all(own))  # where a limit ends it for all, nobody has left
        rows, seen = looked(obs)
        told = {} if family.won is None else {"won": (ended & family.won(world, after)).astype(jnp.float32)}
        return (
            rows,
            State(with_types_of(state.world, after), state.alive & ~left, seen),
            jnp.stack([jnp.asarray(part, jnp.float32).reshape(()) for part in _of_agents(agents, reward)]),
            ended & ~truncated,
            truncated,
            {**info, **told},
        )

    def action_mask(state: State, params):
        if legal_of is None:
            return jnp.asarray(used)
        rows = [row > 0 for row in _rows(agents, legal_of(state.world))]
        legal = jnp.stack([jnp.pad(row, (0, used.shape[1] - row.size)) for row in rows])
        return jnp.where(jnp.any(legal, axis=1, keepdims=True), legal, used)  # nobody is left without a choice

    longest = int(family.longest(world))
    return Environment(
        name=f"jaxmarl:{task}",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-np.inf, np.inf, (len(agents), max(sizes))),
        action_space=lambda params: space,
        episode_length=longest if family.fixed else None,
        max_episode_length=longest,
        num_agents=len(agents),
        agent_names=tuple(map(str, agents)),
        global_state=lambda state, params: state.seen,
        action_mask=None if legal_of is None and used.all() else action_mask,
        alive=(lambda state, params: state.alive) if family.leaving else None,
        assessment=Assessment(
            columns={} if family.won is None else {"won": Column("won", "last", "episodes won", share=True)}
        ),
    )


def _of_agents(agents: Sequence[Any], values: Any, default: Any = None) -> list[Any]:
    """The part of every agent: by its name, or by its number where the library gives no names."""
    if not isinstance(values, Mapping):
        return [values[i] for i in range(len(agents))]
    return [next((values[key] for key in (agent, f"agent_{agent}") if key in values), default) for agent in agents]


def _rows(agents: Sequence[Any], obs: Any) -> list[jax.Array]:
    """What every agent sees, as one vector each."""
    if isinstance(obs, Mapping) and "observations" in obs:  # of all at once; everybody's goods, here one's own first
        return [_row((obs["observations"][i], jnp.roll(obs["inventory"], -i, axis=1))) for i in range(len(agents))]
    return [_row(part) for part in _of_agents(agents, obs)]


def _row(tree: Any) -> jax.Array:
    """All numbers in one vector, in the order of `jax.tree.leaves`."""
    return jnp.concatenate([jnp.asarray(leaf, jnp.float32).reshape(-1) for leaf in jax.tree.leaves(tree)])


def _flag(value: Any) -> jax.Array:
    return jnp.asarray(value, bool).reshape(())


def _padded_space(task: str, spaces: list[Any]) -> tuple[Discrete | Box, list[int]]:
    """A space (A,) or (A, k) that holds every agent's, and how many choices or numbers each has."""
    if all(hasattr(space, "n") for space in spaces):
        widths = [int(space.n) for space in spaces]
        return Discrete(max(widths), (len(spaces),)), widths
    if not all(hasattr(space, "low") and len(space.shape) == 1 for space in spaces):
        kinds = ", ".join(sorted({type(space).__name__ for space in spaces}))
        raise ValueError(f"agents of JaxMARL's {task} have actions of the kinds {kinds}: one choice or one vector each")
    widths = [space.shape[0] for space in spaces]

    def bound(name: str) -> np.ndarray:
        rows = [np.broadcast_to(np.asarray(getattr(space, name), np.float32), space.shape) for space in spaces]
        return np.stack([np.pad(row, (0, max(widths) - row.size), mode="edge") for row in rows])

    with jax.ensure_compile_time_eval():
        low, high = bound("low"), bound("high")
    return Box(low, high, low.shape), widths


def _legal_function(world: Any, state: Any, agents: Sequence[Any], widths: list[int]) -> Callable[[Any], Any] | None:
    """The library's function of what is available in a state; None where the world has none for these choices."""
    for name in ("get_legal_moves", "get_avail_actions"):
        function = getattr(world, name, None)
        if function is not None:
            with contextlib.suppress(NotImplementedError):
                rows = jax.eval_shape(lambda state, ask=function: _rows(agents, ask(state)), state)
                if [row.size for row in rows] == widths:
                    return function
    return None


# Settings


def _made(library: Any, task: str, settings: Mapping[str, Any]) -> Any:
    try:
        return library.make(task, **settings)
    except Exception as error:  # classes of the library refuse settings in their own ways, by assertions, too
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"JaxMARL cannot make {task}: {why}") from error


def _require_known(task: str, world: Any, settings: Mapping[str, Any]) -> None:
    """Classes of the library ignore what they do not know: refuse it, and what is unlike a default."""
    known: dict[str, Any] = {}
    for kind in (*type(world).__mro__, *type(getattr(world, "_env", None)).__mro__):
        if inspect.isfunction(init := vars(kind).get("__init__")):
            parameters = list(inspect.signature(init).parameters.values())[1:]
            known = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD} | known
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"unknown setting '{name}' of JaxMARL's {task}; {nearest(name, list(known))}")
        default = known[name]
        wanted = (int, float) if type(default) is float else (type(default),)
        if type(default) in (bool, int, float, str) and type(value) not in wanted:
            raise ValueError(f"{name} of JaxMARL's {task} = {value!r}: must be like its default {default!r}")


def _without_names(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with what names of the library stand for."""
    tables = {
        "scenario": ("jaxmarl.environments.smax.smax_env", "MAP_NAME_TO_SCENARIO"),
        "layout": (f"jaxmarl.environments.{task}", f"{task}_layouts"),
    }
    found = dict(settings)
    for key, (module, attribute) in tables.items():
        name = settings.get(key)
        if isinstance(name, str):
            table = getattr(importlib.import_module(module), attribute)
            if name not in table:
                raise ValueError(f"unknown {key} '{name}' of JaxMARL; {nearest(name, list(table))}")
            found[key] = table[name]
    return found
