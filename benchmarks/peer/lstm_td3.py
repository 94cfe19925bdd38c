"""One LSTM-TD3 gradient update, beside the same update in PyTorch, in turns in one run on one machine.

Reading order: sizes and the arithmetic an update needs, our side, the rate of matrix products, one measurement, its
printed form.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from peer.workers import Worker, in_turns, missing, spread

import envs_jax
from purerl.algos import td3
from purerl.learn import sharding
from purerl.run.program import scan_updates

ACTION_DIM = 1
DAYS = 256
"""Days in the replay that batches are drawn from."""


class Sizes(NamedTuple):
    obs_dim: int
    steps: int
    batch: int
    hidden: int
    head: tuple[int, ...]


def gflop(sizes: Sizes) -> float:
    """Multiplications and additions in the matrix products of one update, actor updated every time.

    Each network's LSTM and head run once for the targets and once with the online parameters. Backwards an LSTM needs
    its weight gradient and the products with the recurrent weights, a head both gradients. The critics' heads run once
    more for the actor's actions and backwards with respect to the actions alone; their first layer's product with the
    history is known by then.
    """
    rows = 2 * sizes.batch * sizes.steps * 1e-9
    with_bootstrap = (sizes.steps + 1) / sizes.steps
    total = 0.0
    for networks, in_dim, action_dim in ((1, sizes.obs_dim, 0), (2, sizes.obs_dim + ACTION_DIM, ACTION_DIM)):
        recurrent = 4 * sizes.hidden * sizes.hidden
        lstm = 4 * sizes.hidden * in_dim + recurrent
        widths = [sizes.hidden + action_dim, *sizes.head, 1]
        head = sum(a * b for a, b in pairwise(widths))
        through_actions = 2 * (head - sizes.hidden * sizes.head[0]) if action_dim else 0
        total += networks * (lstm * (with_bootstrap + 2) + recurrent + 4 * head + through_actions)
    return rows * total


# Our side


class Program(NamedTuple):
    """A compiled repetition: `run()` gives the seconds of one gradient update (of every seed)."""

    run: Callable[[], float]
    compile_s: float
    sizes: Sizes


def our_update(obs: str, batch: int, updates: int, seeds: int | None, devices: int) -> Program:
    """`algorithm.update` on one plant: 24 environment steps and `updates` gradient updates, charged to the latter."""
    env = envs_jax.make("bess", obs=obs, action_mode="signed")
    steps = env.episode_length
    config = td3.Config(
        num_envs=1,
        updates_per_step=updates / steps,
        warmup_steps=DAYS * steps,
        buffer_size=2 * DAYS * steps,
        batch_size=batch,
        policy_delay=1,
    )
    algorithm = td3.make(config, env)
    init, update = algorithm.init, algorithm.update
    keys = jax.random.key(0)
    if seeds is not None:
        init, keys = jax.vmap(init, (0, None, None)), jax.random.split(keys, seeds)
        update = sharding.for_each_seed(update, algorithm.vectorise_seeds)
    layout = sharding.layout_of(devices, seeds or 1)
    data = algorithm.load_data()
    state = layout.place(jax.jit(init)(keys, algorithm.hparams, data))
    data = layout.place_data(data)
    start = time.perf_counter()
    once = layout.over(lambda state, data: scan_updates(update, state, data, 1))
    compiled = jax.jit(once, donate_argnums=0).lower(state, data).compile()
    compile_s = time.perf_counter() - start

    def run() -> float:
        nonlocal state
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(compiled(state, data))
        elapsed = time.perf_counter() - start
        if not all(bool(jnp.all(jnp.isfinite(metrics[name]))) for name in ("critic_loss", "actor_loss")):
            raise AssertionError("a loss is not finite")
        return elapsed / updates

    run()
    obs_dim = env.observation_space(env.default_params).shape[-1]
    hidden, head = config.critic.lstm_hidden_size, config.critic.hidden_sizes
    return Program(run, compile_s, Sizes(obs_dim, steps, batch, hidden, head))


# The limit


def product_rate(rows: int, inner: int, columns: int, repeats: int) -> float:
    """GFLOP/s of one [rows, inner] x [inner, columns] product in jax."""
    a, b = jnp.ones((rows, inner)), jnp.ones((inner, columns))
    product = jax.jit(jnp.matmul).lower(a, b).compile()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(a, b).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2e-9 * rows * inner * columns / statistics.median(seconds)


# One measurement


def lstm_td3_update(args: argparse.Namespace) -> dict[str, Any]:
    one = our_update(args.obs, args.batch, args.updates, None, args.devices)
    many = our_update(args.obs, args.batch, args.updates, args.seeds, args.devices)
    sizes, together = one.sizes, f"ours_{args.seeds}_seeds"
    sides = {"ours": one.run, together: many.run}
    workers: dict[str, Worker] = {}
    if missing(args.torch_python, "torch") is None:
        for threads in sorted({1, os.cpu_count() or 1}):
            request = {
                "sizes": {**sizes._asdict(), "days": DAYS},
                "threads": threads,
                "updates": args.updates,
            }
            workers[f"torch_{threads}_threads"] = Worker(args.torch_python, "run_torch_lstm.py", request)
    else:
        print("PyTorch is not measured: --torch-python names no interpreter that has it")
    sides |= {name: partial(worker.ask, "") for name, worker in workers.items()}
    try:
        answers = in_turns(sides, args.repeats)
        times = {name: spread([1e3 * value for value in values]) for name, values in answers.items()}
        rate = product_rate(sizes.batch * sizes.steps, sizes.hidden, 4 * sizes.hidden, 200)
    finally:
        for worker in workers.values():
            worker.close()

    needed = gflop(sizes)
    per_seed_ms = times[together].median / args.seeds
    values: dict[str, Any] = {
        "sizes": sizes._asdict(),
        "updates_per_repetition": args.updates,
        "repeats": args.repeats,
        "update_ms": {name: value._asdict() for name, value in times.items()},
        "seeds": args.seeds,
        "devices": jax.device_count(),
        "ours_per_seed_ms": round(per_seed_ms, 2),
        "compile_s": {"ours": round(one.compile_s, 1), together: round(many.compile_s, 1)},
        "versions": {"jax": jax.__version__},
        "limit": {
            "gflop_per_update": round(needed, 3),
            "product_gflop_per_s": round(rate, 1),
            "update_ms_at_that_rate": round(1e3 * needed / rate, 2),
            "times_the_limit": round(times["ours"].median * rate / (1e3 * needed), 2),
            "times_the_limit_per_seed": round(per_seed_ms * rate / (1e3 * needed), 2),
        },
    }
    if workers:
        values["versions"]["torch"] = next(iter(workers.values())).first
        best = min(times[name].median for name in workers)
        values["speedup_over_best_torch"] = {
            "one_seed": round(best / times["ours"].median, 2),
            "per_seed": round(best / per_seed_ms, 2),
        }
    return values


def report(values: dict[str, Any]) -> None:
    for name, time_ms in values["update_ms"].items():
        print(f"{name:18} {time_ms['median']:9.2f} ms  ({time_ms['lowest']:.2f} .. {time_ms['highest']:.2f})")
    print(f"per seed           {values['ours_per_seed_ms']:9.2f} ms")
    for name, value in (values.get("speedup_over_best_torch", {}) | values["limit"]).items():
        print(f"{name:28} {value}")
