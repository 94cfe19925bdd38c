"""purerl's side of `peers.py`: whole trainings, seeds spread over the devices. See `serve.py` for the protocol."""

import time
from typing import Any

import jax
import numpy as np
from serve import Run, serve

from purerl.config import load_config
from purerl.learn import sharding
from purerl.run.program import scan_updates
from purerl.run.runs import build as build_run


def build(request: dict[str, Any]) -> tuple[Run, float]:
    seeds, bins, env_steps = request["seeds"], request["bins"], request["env_steps"]
    # Seeds share the devices, a thread each; the minibatches of one seed are too small to be shared.
    devices = min(request["devices"], seeds)
    sharding.provide_cpu_devices(devices, threads=devices)
    config = load_config(request["config"], [f"algo.total_env_steps={env_steps}"])
    algorithm = build_run(config).algorithm
    updates = algorithm.num_updates
    init, update = algorithm.init, algorithm.update
    if seeds > 1:
        init, update = jax.vmap(init, (0, None, None)), sharding.for_each_seed(update, algorithm.vectorise_seeds)
    layout, data = sharding.layout_of(devices, seeds), algorithm.load_data()
    placed = layout.place_data(data)

    def keys(seed: int):
        return jax.random.key(seed) if seeds == 1 else jax.random.split(jax.random.key(seed), seeds)

    start = time.perf_counter()
    first = jax.jit(init).lower(keys(0), algorithm.hparams, data).compile()
    state = layout.place(first(keys(0), algorithm.hparams, data))
    whole = layout.over(lambda state, data: scan_updates(update, state, data, updates))
    rest = jax.jit(whole, donate_argnums=0).lower(state, placed).compile()
    compile_s = time.perf_counter() - start

    def run(seed: int):
        start = time.perf_counter()
        state = layout.place(first(keys(seed), algorithm.hparams, data))
        _, metrics = jax.block_until_ready(rest(state, placed))
        seconds = time.perf_counter() - start
        count = np.asarray(metrics["episode/count"], float).reshape(updates, -1).sum(axis=1)
        total = np.asarray(metrics["episode/return"] * metrics["episode/count"]).reshape(updates, -1).sum(axis=1)
        share = np.arange(updates) * bins // updates
        return seconds, np.stack([np.bincount(share, x, bins) for x in (total, count)], axis=1).tolist()

    return run, compile_s


if __name__ == "__main__":
    serve(build, ("jax", "gymnax"))
