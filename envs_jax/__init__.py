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
    "registered_envs",
    "require_known_name",
]

registered_envs: dict[str, str] = {
    "bess": "envs_jax.bess.env:make",
}
"""Name -> `module:factory`. Modules are imported when asked for, so that naming one environment costs only itself."""

config_models: dict[str, str] = {
    "bess": "envs_jax.bess.config:BessConfig",
}
"""Name -> `module:class` of the pydantic model of the factory's keywords, for those that have one."""

figure_functions: dict[str, str] = {
    "bess": "envs_jax.bess.plots:figures",
}
"""Name -> `module:function`, `(final report, step table) -> {file name: figure}`, for those that have figures."""

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
    return _load(registered_envs[name])(**settings)


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
