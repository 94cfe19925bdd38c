"""The table of algorithms: a module with `Config` and `make` for each. A user's own is such a module, too."""

import difflib
import importlib
from typing import Any

from pydantic import BaseModel

from envs_jax import own

ALGORITHMS: dict[str, str] = {
    "apg": "purerl.algos.apg",
    "appo": "purerl.algos.impala",
    "bc": "purerl.algos.bc",
    "cql": "purerl.algos.cql",
    "impala": "purerl.algos.impala",
    "iql": "purerl.algos.qplex",
    "ppo": "purerl.algos.ppo",
    "pqn": "purerl.algos.pqn",
    "qfix": "purerl.algos.qplex",
    "qmix": "purerl.algos.qplex",
    "qplex": "purerl.algos.qplex",
    "qplex_hrl": "purerl.algos.hierarchical",
    "sac": "purerl.algos.sac",
    "td3": "purerl.algos.td3",
    "vdn": "purerl.algos.qplex",
}
"""Name -> module; imported when a configuration asks for it."""


def module_of(name: str) -> Any:
    """The module of the algorithm `name`: one of `ALGORITHMS`, or a user's module of that name.

    Raises:
        ValueError: a user's module that cannot be imported, or lacks `Config` (a pydantic model) or `make`.
    """
    if name in ALGORITHMS:
        return importlib.import_module(ALGORITHMS[name])
    module = own.imported(name)
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise ValueError(f"module '{name}' has no 'Config', a pydantic model of the algorithm's keys")
    if not callable(getattr(module, "make", None)):
        raise ValueError(f"module '{name}' has no function 'make(config, env, env_params)'")
    return module


def unknown(name: str) -> str:
    """What to say of a name that is neither in the table nor a module's."""
    close = difflib.get_close_matches(name, list(ALGORITHMS), n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'?" if close else f"valid names: {', '.join(ALGORITHMS)}, or a module of your own"
    return f"unknown algorithm '{name}'; {hint}"
