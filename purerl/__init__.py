"""purerl: vectorised, resumable reinforcement learning in JAX.

The names below are imported when first used, so that `import purerl` and `--help` cost nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purerl.config import load_config
    from purerl.export import load_policy
    from purerl.run.program import make_train

__all__ = ["load_config", "load_policy", "make_train"]

_HOME = {"load_config": "purerl.config", "load_policy": "purerl.export", "make_train": "purerl.run.program"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'purerl' has no attribute '{name}'")
