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
from purerl.run.runs import build
from purerl.types import Algorithm


def make_train(config: RunConfig | str | Path) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """The whole run as a pure function `train(key, hparams=None) -> (state, metrics)`; metrics are stacked [updates].

    It jits, and vmaps over keys and over the numbers in `hparams` (default: those of the configuration). It does not
    log, evaluate or save; `python -m purerl.train` runs the same updates and does. It uses `num_devices` as far as JAX
    has them here; for several on a CPU, call `purerl.learn.sharding.provide_cpu_devices` before anything is computed.
    """
    config = config if isinstance(config, RunConfig) else load_config(config)
    algorithm = build(config).algorithm
    if algorithm.read_data is not None:
        algorithm.read_data()
    spread = sharding.spread_of(config.num_devices, num_seeds=1)

    def train(key: jax.Array, hparams: Any = None) -> tuple[Any, dict[str, Any]]:
        if hparams is None:
            # Behind the barrier they are data, as in a chunked run; XLA would otherwise fold them into the loop.
            hparams = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, algorithm.hparams))
        whole_run = spread.over(lambda state: scan_updates(algorithm.update, state, algorithm.num_updates))
        return whole_run(algorithm.init(key, hparams))

    return train


def scan_updates(update: Callable[[Any], Any], state: Any, count: int) -> tuple[Any, dict[str, Any]]:
    """`count` updates in a row; metrics are stacked [updates, ...]."""
    return jax.lax.scan(lambda state, _: update(state), state, None, length=count)


# Compiled parts


class Program(NamedTuple):
    init: Callable[..., Any]
    place: Callable[[Any], Any]
    """Lays the state out over the devices, as `chunk` wants it."""
    chunk: Callable[[Any], "Chunk"]
    """One epoch, compiled for states like its argument (arrays or shapes)."""
    policy: Callable[[Any], Any]
    """Policies with a leading seed axis, in memory of their own."""


def program_of(algorithm: Algorithm, config: RunConfig, updates_per_epoch: int) -> Program:
    """The run's functions of the state; with several seeds every leaf of the state has a leading seed axis."""
    hparams = jax.tree.map(jnp.asarray, algorithm.hparams)
    spread = sharding.spread_of(config.num_devices, config.num_seeds)
    if config.num_seeds == 1:
        policy = lambda s: _add_seed_axis(algorithm.policy(s))  # noqa: E731
        program = _program(algorithm.init, algorithm.update, policy, spread, updates_per_epoch)
    else:
        program = program_of_lanes(algorithm, spread, updates_per_epoch, hparams_axis=None)
    return program._replace(init=lambda: program.init(_seed_keys(config), hparams))


def program_of_lanes(
    algorithm: Algorithm, spread: sharding.Spread, updates_per_epoch: int, hparams_axis: int | None = 0
) -> Program:
    """Functions of the states of many independent runs; `init(keys, hparams)` takes one key for each.

    Args:
        hparams_axis: 0 where every run has its own `hparams`, None where they share them.
    """
    init, policy = jax.vmap(algorithm.init, (0, hparams_axis)), jax.vmap(algorithm.policy)
    update = sharding.for_each_seed(algorithm.update, algorithm.vectorise_seeds)
    return _program(init, update, policy, spread, updates_per_epoch)


def _program(init, update, policy, spread: sharding.Spread, updates_per_epoch: int) -> Program:
    # A copy, because a jitted function hands back its own input, and that is donated to the next chunk.
    copy_policy = jax.jit(lambda state: jax.tree.map(jnp.copy, policy(state)))
    return Program(
        init=jax.jit(init),
        place=spread.place,
        chunk=partial(compiled, spread.over(lambda state: scan_updates(update, state, updates_per_epoch)), spread),
        policy=lambda state: jax.device_put(copy_policy(state), jax.devices()[0]),
    )


LARGE_CONSTANT_BYTES = 2**20


class Chunk(NamedTuple):
    """Compiled updates; the state that they are called with is donated."""

    program: Any
    data: list[Any]
    """Large arrays that every call reads and none changes."""

    def __call__(self, state: Any) -> tuple[Any, dict[str, Any]]:
        return self.program(state, self.data)


def compiled(updates: Callable[[Any], Any], spread: sharding.Spread, state: Any) -> Chunk:
    """`updates`, compiled for states like `state`.

    Large arrays that `updates` closes over (a recorded dataset) become arguments of the program: as literals they would
    be written out twice in its text, take seconds to compile and be there once more at run time. In the state they
    would be there once for every seed and in every checkpoint.
    """
    traced, shapes = jax.make_jaxpr(updates, return_shape=True)(state)
    is_large = [getattr(constant, "nbytes", 0) >= LARGE_CONSTANT_BYTES for constant in traced.consts]
    large = spread.copy_to_all([c for c, apart in zip(traced.consts, is_large, strict=True) if apart])

    def run(state: Any, large: Any) -> Any:
        rest = iter(large)
        constants = [next(rest) if apart else c for c, apart in zip(traced.consts, is_large, strict=True)]
        leaves = jax.core.eval_jaxpr(traced.jaxpr, constants, *jax.tree.leaves(state))
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return Chunk(jax.jit(run, donate_argnums=0).lower(state, large).compile(), large)


def _seed_keys(config: RunConfig) -> jax.Array:
    """The key of `seed`, or the keys of `seed`, `seed + 1`, ... of as many single runs."""
    if config.num_seeds == 1:
        return jax.random.key(config.seed)
    return jax.vmap(jax.random.key)(config.seed + jnp.arange(config.num_seeds))


def _add_seed_axis(policy: Any) -> Any:
    return jax.tree.map(lambda x: x[None], policy)
