"""Environments as pure JAX functions: `make(name, **settings)` builds one, `registered_envs` lists them.

Reading order: the table of worlds, and what is looked up in it. A user's own world stands in no table: it is named
`module:factory` (`envs_jax.own`).
"""

import difflib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from envs_jax import own

if TYPE_CHECKING:
    from envs_jax.base import Environment, Score
    from envs_jax.check import check_env

__all__ = [
    "Environment",
    "Score",
    "World",
    "check_env",
    "config_model",
    "figure_function",
    "is_own",
    "make",
    "on_other_data",
    "registered_envs",
    "require_known_name",
    "suites",
]


class World(NamedTuple):
    """One world of this package.

    Functions and classes are named `module:attribute` and imported when asked for, so that naming one world costs only
    itself.
    """

    names: tuple[str, ...]
    """Of its environments. What follows a slash is the factory's first argument; a name that ends in a colon stands for
    all that begin with it, and the factory is given the rest."""
    factory: str
    """`(task, **settings) -> Environment`, without `task` where the name has none."""
    config: str | None = None
    """The pydantic model of the factory's keywords; None: the factory checks them."""
    figures: str | None = None
    """`(envs_jax.episodes.Material) -> {file name: figure or animation}`, of a final evaluation."""
    suites: Mapping[str, tuple[str, ...]] = {}
    """Name -> environments that `purerl.train` trains on one after the other."""


_ATC = tuple(
    f"atc/{scenario}"
    for scenario in (
        "head_on", "parallel", "t_formation", "canonical_crossing", "converging", "chase_2x2", "chase_3p1",
        "chase_4all", "merge_2x2", "merge_3p1", "merge_4all", "cross_2x2", "cross_3p1", "cross_4all", "circle_10",
        "circle_16", "generic",
    )
)  # fmt: skip

_MATE = tuple(
    f"mate/{preset}"
    for preset in (
        *(f"{teams}-{obstacles}" for teams in ("1v1", "1v2", "2v2", "2v4", "4v2", "4v4", "4v8", "8v8")
          for obstacles in (0, 9)),
        "Navigation",
    )
)  # fmt: skip

WORLDS = (
    World(
        names=("bess",),
        factory="envs_jax.bess.env:make",
        config="envs_jax.bess.config:BessConfig",
        figures="envs_jax.bess.plots:figures",
    ),
    World(
        names=_ATC,
        factory="envs_jax.atc.env:make",
        config="envs_jax.atc.config:AtcConfig",
        figures="envs_jax.atc.plots:figures",
        suites={
            "atc/all": _ATC[:5],
            "atc/nine": _ATC[5:14],
            "atc/chases": _ATC[5:8],
            "atc/merges": _ATC[8:11],
            "atc/crosses": _ATC[11:14],
        },
    ),
    World(
        names=_MATE,
        factory="envs_jax.mate.env:make",
        config="envs_jax.mate.config:MateConfig",
        figures="envs_jax.mate.plots:figures",
    ),
    World(names=("matrix",), factory="envs_jax.games.matrix:make", config="envs_jax.games.config:MatrixConfig"),
    World(names=("two_state",), factory="envs_jax.games.two_state:make", config="envs_jax.games.config:TwoStateConfig"),
    World(names=("gymnax:",), factory="envs_jax.adapters:gymnax_env"),
    World(names=("jaxmarl:",), factory="envs_jax.jaxmarl:jaxmarl_env"),
)
"""One row per world."""

registered_envs: dict[str, World] = {name: world for world in WORLDS for name in world.names if not name.endswith(":")}
"""Every environment by its name."""

open_names: dict[str, World] = {name: world for world in WORLDS for name in world.names if name.endswith(":")}
"""Worlds whose environments have any name that begins so."""

suites: dict[str, tuple[str, ...]] = {name: members for world in WORLDS for name, members in world.suites.items()}
"""The suites of all worlds."""

_LAZY = {"Environment": "envs_jax.base", "Score": "envs_jax.base", "check_env": "envs_jax.check"}


def make(name: str, **settings: Any) -> "Environment":
    """Build the environment `name` with its keyword settings.

    Args:
        name: a key of `registered_envs`, `gymnax:<task>`, `jaxmarl:<task>`, or `module:factory`, a user's own world.

    Raises:
        ValueError: an unknown name or setting; the message names the nearest valid one.
    """
    require_known_name(name)
    world, task = _row_of(name)
    return own.make(name, settings) if world is None else _load(world.factory)(*task, **settings)


def require_known_name(name: str) -> None:
    """Raise ValueError with the nearest valid name if `name` can be no environment.

    Whether there is such a task of another library, or such a module of a user, is found when it is asked for.
    """
    if _row_of(name)[0] is not None or is_own(name):
        return
    valid = [*registered_envs, *(f"{prefix}<task>" for prefix in open_names), "module:factory"]
    nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"valid names: {', '.join(valid)}"
    raise ValueError(f"unknown environment '{name}'; {hint}")


def is_own(name: str) -> bool:
    """Whether `name` is that of a user's own world, `module:factory`."""
    return _row_of(name)[0] is None and own.NAME.fullmatch(name) is not None


def config_model(name: str) -> Any:
    """The pydantic model of the settings of environment `name`, None where only the factory knows them.

    That is so with tasks of other libraries.

    Raises:
        ValueError: a user's world that cannot be imported, or that has no such factory.
    """
    world, _ = _row_of(name)
    if world is None:
        return own.keywords_of(own.factory_of(name))[0]
    return world.config and _load(world.config)


def on_other_data(name: str, data_path: str, split: str) -> dict[str, Any]:
    """Settings with which environment `name` has all of another file as its `split`.

    Where more than the path has to change, the model of its settings has a function `on_other_data(data_path, split)`.
    """
    change = getattr(config_model(name), "on_other_data", None)
    return change(data_path, split) if change else {"data_path": data_path}


def figure_function(name: str) -> Any:
    """The function that draws the final evaluation of environment `name`, None where there is none.

    That of a user's world is the function `figures` of its module.
    """
    world, _ = _row_of(name)
    if world is None:
        return getattr(own.imported(name.partition(":")[0]), "figures", None)
    return world.figures and _load(world.figures)


def _row_of(name: str) -> tuple[World | None, tuple[str, ...]]:
    """The row of an environment and its task, if it has one; no row for the names of users' worlds."""
    for prefix, world in open_names.items():
        if name.startswith(prefix):
            return world, (name.removeprefix(prefix),)
    _, slash, task = name.partition("/")
    return registered_envs.get(name), (task,) if slash else ()


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'envs_jax' has no attribute '{name}'")
