"""Environments as pure JAX functions: `make(name, **settings)` builds one, `registered_envs` lists them."""

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envs_jax.base import Environment, Score
    from envs_jax.check import check_env

__all__ = [
    "Environment",
    "Score",
    "check_env",
    "config_model",
    "figure_function",
    "make",
    "on_other_data",
    "registered_envs",
    "require_known_name",
    "suites",
]

_ATC = [
    f"atc/{scenario}"
    for scenario in (
        "head_on", "parallel", "t_formation", "canonical_crossing", "converging", "chase_2x2", "chase_3p1",
        "chase_4all", "merge_2x2", "merge_3p1", "merge_4all", "cross_2x2", "cross_3p1", "cross_4all", "circle_10",
        "circle_16", "generic",
    )
]  # fmt: skip

registered_envs: dict[str, str] = {
    "bess": "envs_jax.bess.env:make",
    **dict.fromkeys(_ATC, "envs_jax.atc.env:make"),
}
"""Name -> `module:factory`. Modules are imported when asked for, so that naming one environment costs only itself.

What follows a slash in the name is the factory's first argument.
"""

suites: dict[str, tuple[str, ...]] = {
    "atc/all": tuple(_ATC[:5]),
    "atc/nine": tuple(_ATC[5:14]),
    "atc/chases": tuple(_ATC[5:8]),
    "atc/merges": tuple(_ATC[8:11]),
    "atc/crosses": tuple(_ATC[11:14]),
}
"""Name -> environments that `purerl.train` trains on one after the other."""

config_models: dict[str, str] = {
    "bess": "envs_jax.bess.config:BessConfig",
    **dict.fromkeys(_ATC, "envs_jax.atc.config:AtcConfig"),
}
"""Name -> `module:class` of the pydantic model of the factory's keywords, for those that have one."""

figure_functions: dict[str, str] = {
    "bess": "envs_jax.bess.plots:figures",
    **dict.fromkeys(_ATC, "envs_jax.atc.plots:figures"),
}
"""Name -> `module:function`, `(envs_jax.episodes.Material) -> {file name: figure or animation}`, where there is one."""

GYMNAX_PREFIX = "gymnax:"

_LAZY = {"Environment": "envs_jax.base", "Score": "envs_jax.base", "check_env": "envs_jax.check"}


def make(name: str, **settings: Any) -> "Environment":
    """Build the environment `name` (a key of `registered_envs`, or `gymnax:<task>`) with its keyword settings.

    Raises:
        ValueError: an unknown name or setting; the message names the nearest valid one.
    """
    require_known_name(name)
    if name.startswith(GYMNAX_PREFIX):
        adapters = importlib.import_module("envs_jax.adapters")
        return adapters.gymnax_env(name.removeprefix(GYMNAX_PREFIX), **settings)
    _, slash, scenario = name.partition("/")
    return _load(registered_envs[name])(*[scenario] * bool(slash), **settings)


def require_known_name(name: str) -> None:
    """Raise ValueError with the nearest valid name if `name` is no environment (gymnax tasks are checked by `make`)."""
    if name in registered_envs or name.startswith(GYMNAX_PREFIX):
        return
    valid = [*registered_envs, f"{GYMNAX_PREFIX}<task>"]
    nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"valid names: {', '.join(valid)}"
    raise ValueError(f"unknown environment '{name}'; {hint}")


def config_model(name: str) -> type | None:
    """The pydantic model of the settings of environment `name`, None where settings are free (gymnax tasks)."""
    return _load(config_models[name]) if name in config_models else None


def on_other_data(name: str, data_path: str, split: str) -> dict[str, Any]:
    """Settings with which environment `name` has all of another file as its `split`.

    Where more than the path has to change, the model of its settings has a function `on_other_data(data_path, split)`.
    """
    change = getattr(config_model(name), "on_other_data", None)
    return change(data_path, split) if change else {"data_path": data_path}


def figure_function(name: str) -> Any:
    """The function that draws the final evaluation of environment `name`, None where there is none."""
    return _load(figure_functions[name]) if name in figure_functions else None


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'envs_jax' has no attribute '{name}'")
