"""What a run takes over from an earlier one: what has been learned there, or a policy that acts inside its world."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from purerl.config import RunConfig
from purerl.errors import CheckpointError, ConfigError
from purerl.run import checkpoint
from purerl.types import Algorithm


def require_start(config: RunConfig, algorithm: Algorithm) -> None:
    """Refuse to start from where nothing can be taken over.

    Raises:
        ConfigError: names the reason.
    """
    if config.starts_from is None:
        return
    if not algorithm.learned:
        raise ConfigError(f"starts_from: {config.algo['name']} does not say what it has learned; start it anew")
    if not checkpoint.available(_directory(config)):
        raise ConfigError(f"starts_from: {config.starts_from}: no checkpoint there; train that run first")


def started_from(config: RunConfig, algorithm: Algorithm, fresh: Any) -> Any:
    """The state `fresh` with what the newest checkpoint of `starts_from` has learned.

    Raises:
        ConfigError: the networks, or whatever has been learned, are of other shapes.
    """
    others = [field.name for field in dataclasses.fields(fresh) if field.name not in algorithm.learned]
    like = dataclasses.replace(fresh, **dict.fromkeys(others))
    try:
        tree, _ = checkpoint.restore(_directory(config), {"state": like})
    except CheckpointError as error:
        raise ConfigError(f"starts_from: {error}") from error

    def taken(path: tuple[Any, ...], learned: Any, own: Any) -> Any:
        return own if jax.tree_util.keystr(path).endswith(".gradient_steps") else learned

    earlier = jax.tree_util.tree_map_with_path(taken, tree["state"], like)
    return dataclasses.replace(fresh, **{name: getattr(earlier, name) for name in algorithm.learned})


def _directory(config: RunConfig) -> Path:
    assert config.starts_from is not None
    if config.starts_from.startswith("stage:"):
        raise ConfigError(f"starts_from: {config.starts_from}: only a stage has stages before it; write run:DIR")
    return Path(config.starts_from.removeprefix("run:")) / "checkpoints"
