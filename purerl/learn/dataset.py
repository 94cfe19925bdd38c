"""Recorded experience in a file: its layout, writing, reading with checks, and use as a full replay ring.

One `npz` file with N items of T steps by A agents, time first as in `buffers.Sequences`. Where all episodes have one
length an item is a whole episode of T steps; otherwise T is 1 and the transitions of an episode follow each other.

    obs         float32 [T + 1, N, A, d]   observations before every step and after the last, never that of a reset
    action      float32 [T, N, A, k]       as the environment takes them; discrete: int32 [T, N, A]
    reward      float32 [T, N, A]
    terminated  bool    [T, N, A]          no value follows: the episode ended, or the agent left play
    truncated   bool    [T, N]             the episode was cut off: the last observation has a value
    legal       bool    [T + 1, N, A, n]   legal actions at every observation; only where there are action masks
    alive       bool    [T, N, A]          agents in play before every step; absent: all are
    metadata    text                       JSON, see `Metadata`

Reading order: `Metadata`, `Dataset`, `write`, `read` and its checks, `World`s that agree, `as_ring`.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete, Product
from purerl.errors import ConfigError
from purerl.learn.buffers import Ring, Sequences

FORMAT = "purerl-dataset-1"
OPTIONAL = ("legal", "alive")


class World(BaseModel):
    """What has to agree between recorded data and the environment that uses them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    observation_size: int
    num_agents: int
    choices: int | None
    """Number of discrete actions; None: actions are vectors between `action_low` and `action_high`."""
    action_low: list[float] | None
    action_high: list[float] | None
    calibration: dict[str, Any] | None
    """What the environment fitted: ranges of observations, scale of rewards."""


class Played(BaseModel):
    """One behaviour's part of the data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    behaviour: str
    noise: float
    episodes: int
    steps: int
    mean_return: float
    """Undiscounted, summed over agents."""


class Metadata(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = FORMAT
    world: World
    settings: dict[str, Any]
    """The `env` section of the configuration, resolved."""
    played: list[Played]
    seed: int
    episodes: int
    versions: dict[str, str]


class Dataset(NamedTuple):
    """The arrays of the module's docstring, in the host's memory."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    legal: np.ndarray | None
    alive: np.ndarray | None
    metadata: Metadata


# Files


def write(path: Path, dataset: Dataset) -> None:
    """Write to `path`, whole or not at all.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    require_new(path)
    arrays = {name: value for name, value in dataset._asdict().items() if name != "metadata" and value is not None}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            np.savez(stream, allow_pickle=False, metadata=np.array(dataset.metadata.model_dump_json()), **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another place") from error


def require_new(path: Path) -> None:
    """Recorded data are never overwritten."""
    if path.exists():
        raise ConfigError(f"{path}: exists already and is not overwritten; remove it or choose another name")


def read(path: Path) -> Dataset:
    """Read and check a dataset.

    Raises:
        ConfigError: no such file, not a dataset, an array missing, of the wrong kind or shape, or not finite. The
            message names the place and the remedy.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: no such dataset; record it with `python -m purerl.record --config CONFIG --out {path} "
            "--behaviour NAME --episodes N` (a shipped configuration has the whole command in its header)"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # altered bytes can make the zip and array readers fail in any way
        raise ConfigError(
            f"{path}: not a readable npz file ({' '.join(str(error).split())}); record it again"
        ) from error
    metadata = _metadata(path, arrays)
    for name in Dataset._fields:
        if name not in (*OPTIONAL, *arrays):
            raise ConfigError(f"{path}: has no array '{name}' (it has {', '.join(sorted(arrays))}); record it again")
    found: dict[str, Any] = {name: arrays.get(name) for name in Dataset._fields} | {"metadata": metadata}
    dataset = Dataset(**found)
    _check(path, dataset)
    return dataset


def _metadata(path: Path, arrays: dict[str, np.ndarray]) -> Metadata:
    if "metadata" not in arrays:
        raise ConfigError(f"{path}: has no array 'metadata'; this is no dataset of purerl.record")
    try:
        metadata = Metadata.model_validate_json(str(arrays["metadata"]))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"])) or "text"
        raise ConfigError(f"{path}: metadata: {place}: {problem['msg']}; record it again") from error
    if metadata.format != FORMAT:
        raise ConfigError(f"{path}: has format '{metadata.format}', this version reads '{FORMAT}'; record it again")
    return metadata


def _check(path: Path, data: Dataset) -> None:
    """Shapes, kinds and finite numbers."""
    if data.action.ndim < 3 or 0 in data.action.shape:
        raise ConfigError(
            f"{path}: action has shape {list(data.action.shape)}, expected [T, N, A, ...]; record it again"
        )
    steps, items, agents = data.action.shape[:3]
    world = data.metadata.world
    if agents != world.num_agents:
        raise ConfigError(f"{path}: action has {agents} agents, metadata say {world.num_agents}; record it again")
    choices = world.choices
    each = () if choices is not None else (len(world.action_low or ()),)
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "obs": ((steps + 1, items, agents, world.observation_size), "f"),
        "action": ((steps, items, agents, *each), "f" if choices is None else "iu"),
        "reward": ((steps, items, agents), "f"),
        "terminated": ((steps, items, agents), "b"),
        "truncated": ((steps, items), "b"),
        "legal": ((steps + 1, items, agents, choices or 0), "b"),
        "alive": ((steps, items, agents), "b"),
    }
    for name, (shape, kinds) in expected.items():
        array = getattr(data, name)
        if array is None:
            continue
        if array.shape != shape or array.dtype.kind not in kinds:
            raise ConfigError(
                f"{path}: {name} is {array.dtype}{list(array.shape)}, expected "
                f"{ {'f': 'float', 'b': 'bool', 'iu': 'int'}[kinds] }{list(shape)}; record it again"
            )
        if kinds == "f" and not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ConfigError(f"{path}: {name}{where} is {array[tuple(where)]}; remove that item or record it again")
    if choices is not None and not ((data.action >= 0) & (data.action < choices)).all():
        raise ConfigError(f"{path}: action has values outside of 0..{choices - 1}; record it again")


# Use


def world_of(env: Environment, params: Any) -> World:
    """`env` with an agent axis.

    Raises:
        ConfigError: actions of several parts, or several choices at once.
    """
    agents, size = env.observation_space(params).shape
    space, low, high = env.action_space(params), None, None
    if isinstance(space, Product) or (isinstance(space, Discrete) and len(space.shape) > 1):
        raise ConfigError(f"{env.name}: recorded data hold one kind of action, not a combination of several")
    if isinstance(space, Box):
        bounds = (np.asarray(bound, np.float32) for bound in (space.low, space.high))
        low, high = (np.broadcast_to(bound, space.shape)[0].tolist() for bound in bounds)
    # As JSON gives it back.
    fitted = env.assessment.calibration
    calibration = None if fitted is None else json.loads(json.dumps(dict(fitted)))
    return World(
        name=env.name,
        observation_size=size,
        num_agents=agents,
        choices=space.n if isinstance(space, Discrete) else None,
        action_low=low,
        action_high=high,
        calibration=calibration,
    )


def require_same(place: Path, there: World, here: World) -> None:
    """Refuse what belongs to another world than `here`.

    Raises:
        ConfigError: names what differs.
    """
    for name in World.model_fields:
        old, new = getattr(there, name), getattr(here, name)
        if old != new:
            told = "" if name == "calibration" else f": {old}, here {new}"
            raise ConfigError(
                f"{place}: made in another world ({name.replace('_', ' ')}{told}); use the same env settings"
            )


def as_ring(data: Dataset, sequence_length: int, unit: np.ndarray | None, reward_scale: float) -> Ring:
    """A full ring on the device that `sample_indices` and `take` serve.

    Args:
        sequence_length: 1 cuts episodes into transitions; otherwise the length of the items.
        unit: what actions are divided by; None for discrete actions.
        reward_scale: that of the learner; recorded rewards are not scaled.

    Raises:
        ConfigError: the items have another length.
    """
    steps = data.action.shape[0]
    if sequence_length not in (1, steps):
        raise ConfigError(
            f"sequence_length {sequence_length}: the dataset has items of {steps} steps; use 1 or {steps}"
        )
    if sequence_length != steps:
        data = _as_transitions(data)
    items = Sequences(
        obs=jnp.asarray(data.obs, jnp.float32),
        action=jnp.asarray(data.action, jnp.int32) if unit is None else jnp.asarray(data.action / unit, jnp.float32),
        reward=jnp.asarray(reward_scale * data.reward, jnp.float32),
        terminated=jnp.asarray(data.terminated),
        legal=None if data.legal is None else jnp.asarray(data.legal),
        alive=None if data.alive is None else jnp.asarray(data.alive),
    )
    return Ring(items, jnp.zeros((), jnp.int32), jnp.asarray(items.reward.shape[1], jnp.int32))


def _as_transitions(data: Dataset) -> Dataset:
    """Items [T + 1, N, ...] and [T, N, ...] as [2, T * N, ...] and [1, T * N, ...]."""

    def rows(x: np.ndarray) -> np.ndarray:
        return x.reshape(1, -1, *x.shape[2:])

    def pairs(x: np.ndarray) -> np.ndarray:
        return np.concatenate([rows(x[:-1]), rows(x[1:])])

    each = {"obs": pairs, "legal": pairs}
    arrays = {name: x for name, x in data._asdict().items() if name != "metadata" and x is not None}
    cut: dict[str, Any] = {name: each.get(name, rows)(x) for name, x in arrays.items()}
    return data._replace(**cut)
