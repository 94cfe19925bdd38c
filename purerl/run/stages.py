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
    _require_learned(config, algorithm)
    directory = directory_of("starts_from", config.starts_from, run_dir) / "checkpoints"
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


def require_fitting(later: RunConfig, algorithm: Algorithm, shapes: Any, before: Any) -> None:
    """Refuse a stage that could not start from what an earlier one will have learned.

    Args:
        shapes: of the state of the later one; `before` is that of the earlier one.

    Raises:
        ConfigError: other networks, agents or seeds.
    """
    _require_learned(later, algorithm)
    for name in algorithm.learned:
        mine, theirs = (dict(jax.tree_util.tree_leaves_with_path(getattr(s, name, None))) for s in (shapes, before))
        for path in [*mine, *(path for path in theirs if path not in mine)]:
            if mine.get(path) != theirs.get(path):
                found = [getattr(leaf, "shape", "missing") for leaf in (theirs.get(path), mine.get(path))]
                raise ConfigError(
                    f"starts_from: {later.starts_from}: {name}{jax.tree_util.keystr(path)} is {found[0]} there and "
                    f"{found[1]} here; both need the same networks, agents and num_seeds"
                )


def names_a_run(value: Any) -> bool:
    """Whether a setting is `run:DIR` or `stage:NAME`."""
    return isinstance(value, str) and value.startswith(("run:", "stage:"))


def directory_of(key: str, value: str, run_dir: Path | None) -> Path:
    """Directory of the run that `run:DIR` or `stage:NAME` names.

    Stages lie side by side and name each other, not folders, so that they may be moved together.

    Raises:
        ConfigError: a stage of a run that is none.
    """
    kind, _, name = value.partition(":")
    if kind == "run":
        return Path(name)
    if run_dir is None:
        raise ConfigError(f"{key}: {value}: only a stage has stages before it; write run:DIR")
    return run_dir.absolute().parent / name


def _require_learned(config: RunConfig, algorithm: Algorithm) -> None:
    if not algorithm.learned:
        raise ConfigError(f"starts_from: {config.algo['name']} does not say what it has learned; start it anew")
