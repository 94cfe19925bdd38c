"""What a run takes over from an earlier one: what has been learned there, or a policy that acts inside its world."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from purerl.config import RunConfig
from purerl.errors import CheckpointError, ConfigError
from purerl.run import checkpoint
from purerl.types import Algorithm


def learned_before(config: RunConfig, algorithm: Algorithm, shapes: Any, run_dir: Path | None) -> dict[str, Any]:
    """What the newest checkpoint of `starts_from` has learned: fields of the state; none where a run starts anew.

    Args:
        shapes: of the state that the run will have.
        run_dir: of the run, where that is known; earlier stages lie beside it.

    Raises:
        ConfigError: nothing can be taken over from there, or it has other shapes.
    """
    if config.starts_from is None:
        return {}
    if not algorithm.learned:
        raise ConfigError(f"starts_from: {config.algo['name']} does not say what it has learned; start it anew")
    directory = _directory(config.starts_from, run_dir)
    if not checkpoint.available(directory):
        raise ConfigError(f"starts_from: {config.starts_from}: no checkpoint there; train that run first")
    others = [field.name for field in dataclasses.fields(shapes) if field.name not in algorithm.learned]
    like = dataclasses.replace(shapes, **dict.fromkeys(others))
    try:
        tree, _ = checkpoint.restore(directory, {"state": like})
    except CheckpointError as error:
        raise ConfigError(
            f"starts_from: {error}; use a sound run of the same networks, agents and num_seeds"
        ) from error
    return {name: getattr(tree["state"], name) for name in algorithm.learned}


def started_from(learned: dict[str, Any], fresh: Any) -> Any:
    """The state `fresh` with what has been learned before; gradient steps are counted anew."""

    def taken(path: tuple[Any, ...], earlier: Any, own: Any) -> Any:
        return own if jax.tree_util.keystr(path).endswith(".gradient_steps") else earlier

    own = {name: getattr(fresh, name) for name in learned}
    return dataclasses.replace(fresh, **jax.tree_util.tree_map_with_path(taken, learned, own))


def _directory(starts_from: str, run_dir: Path | None) -> Path:
    kind, _, name = starts_from.partition(":")
    if kind == "run":
        return Path(name) / "checkpoints"
    if run_dir is None:
        raise ConfigError(f"starts_from: {starts_from}: only a stage has stages before it; write run:DIR")
    return run_dir.absolute().parent / name / "checkpoints"
