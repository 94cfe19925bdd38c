"""The compiled parts of a run, and a whole run as one pure function.

Reading order: `make_train`, `Program` (the functions that the host loop calls). Chunked and
whole-run training give the same bits because both scan the same `update`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from purerl.config import RunConfig, load_config
from purerl.learn import sharding
from purerl.run.runs import build, require_training_split
from purerl.types import Algorithm, Data


def make_train(config: RunConfig | str | Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """The whole run as a pure function `train(key, hparams=None, data=None) -> (state, metrics)`; metrics are stacked
    [updates].

    It jits, and vmaps over keys, over the numbers in `hparams` and over those in `data`, the environment's parameters
    among them (defaults: those of the configuration). It does not log, evaluate or save; `python -m purerl.train` runs
    the same updates and does. It uses `num_devices` as far as JAX has them here; for several on a CPU, call
    `purerl.learn.sharding.provide_cpu_devices` before anything is computed.
    """
    config = config if isinstance(config, RunConfig) else load_config(config)
    run = build(config)
    require_training_split(run.env)
    algorithm = run.algorithm
    configured = algorithm.load_data()
    layout = sharding.layout_of(config.num_devices, num_seeds=1)

    def train(key: jax.Array, hparams: Any = None, data: Data | None = None) -> tuple[Any, dict[str, Any]]:
        hparams = _as_input(algorithm.hparams) if hparams is None else hparams
        data = _as_input(configured) if data is None else data
        whole_run = layout.over(lambda state, data: scan_updates(algorithm.update, state, data, algorithm.num_updates))
        return whole_run(algorithm.init(key, hparams, data), data)

    return train


def _as_input(numbers: Any) -> Any:
    """Numbers that XLA does not fold into the loop, as if they were arguments: so a chunked run computes the same."""
    return jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, numbers))


def scan_updates(update: Callable[[Any, Any], Any], state: Any, data: Any, count: int) -> tuple[Any, dict[str, Any]]:
    """`count` updates in a row; metrics are stacked [updates, ...]."""
    return jax.lax.scan(lambda state, _: update(state, data), state, None, length=count)


# Compiled parts


Chunk = Callable[[Any, Any], tuple[Any, dict[str, Any]]]
"""Compiled updates, `(state, data) -> (state, metrics)`; the state is donated."""


class Program(NamedTuple):
    init: Callable[..., Any]
    """`(data)` of a run; `(keys, hparams, data)` of many."""
    place: Callable[[Any], Any]
    """Lays the state out over the devices, as `chunk` wants it."""
    place_data: Callable[[Any], Any]
    """Lays out what updates read."""
    trace: Callable[[Any, Any], Any]
    """One epoch, traced for a state and data like its arguments (arrays or shapes)."""
    chunk: Callable[[Any, Any], Chunk]
    """The same, compiled; it is not traced again."""
    policy: Callable[[Any], Any]
    """Policies with a leading seed axis, in memory of their own."""


def program_of(algorithm: Algorithm, config: RunConfig, updates_per_epoch: int) -> Program:
    """The run's functions of the state; with several seeds every leaf of the state has a leading seed axis."""
    hparams = jax.tree.map(jnp.asarray, algorithm.hparams)
    layout = sharding.layout_of(config.num_devices, config.num_seeds)
    if config.num_seeds == 1:
        policy = lambda s: _add_seed_axis(algorithm.policy(s))  # noqa: E731
        program = _program(algorithm.init, algorithm.update, policy, layout, updates_per_epoch)
    else:
        program = program_of_lanes(algorithm, layout, updates_per_epoch, hparams_axis=None)
    return program._replace(init=lambda data: program.init(_seed_keys(config), hparams, data))


def program_of_lanes(
    algorithm: Algorithm,
    layout: sharding.Layout,
    updates_per_epoch: int,
    hparams_axis: int | None = 0,
    own_data: Any = None,
) -> Program:
    """Functions of the states of many independent runs; `init(keys, hparams, data)` takes one key for each.

    Args:
        hparams_axis: 0 where every run has its own `hparams`, None where they share them.
        own_data: see `sharding.for_each_seed`.
    """
    data_axes = None if own_data is None else jax.tree.map(lambda own: 0 if own else None, own_data)
    init, policy = jax.vmap(algorithm.init, (0, hparams_axis, data_axes)), jax.vmap(algorithm.policy)
    update = sharding.for_each_seed(algorithm.update, algorithm.vectorise_seeds, own_data)
    return _program(init, update, policy, layout, updates_per_epoch, own_data)


def _program(init, update, policy, layout: sharding.Layout, updates_per_epoch: int, own_data: Any = None) -> Program:
    # A copy, because a jitted function hands back its own input, and that is donated to the next chunk.
    copy_policy = jax.jit(lambda state: jax.tree.map(jnp.copy, policy(state)))
    updates = layout.over(lambda state, data: scan_updates(update, state, data, updates_per_epoch), own_data)
    epoch = jax.jit(updates, donate_argnums=0)
    return Program(
        init=jax.jit(init),
        place=layout.place,
        place_data=partial(layout.place_data, own_data=own_data),
        trace=epoch.trace,
        chunk=lambda state, data: epoch.lower(state, data).compile(),
        policy=lambda state: jax.device_put(copy_policy(state), jax.devices()[0]),
    )


def _seed_keys(config: RunConfig) -> jax.Array:
    """The key of `seed`, or the keys of `seed`, `seed + 1`, ... of as many single runs."""
    if config.num_seeds == 1:
        return jax.random.key(config.seed)
    return jax.vmap(jax.random.key)(config.seed + jnp.arange(config.num_seeds))


def _add_seed_axis(policy: Any) -> Any:
    return jax.tree.map(lambda x: x[None], policy)
