"""Seeds x learning rates of PPO on CartPole in one compiled call, against the same runs one by one.

    python benchmarks/sweep.py [--seeds 8] [--rates 1e-4 ... ] [--devices 2] [--separate 4] [--calls 8] [overrides]

Reading order: the three ways to train the same runs, the sweep command, the record written to `benchmarks/results/`.

* `one_call`: all runs as lanes of one program, spread over `--devices`; compile time apart, median of `--repeats`.
* `sequential_calls`: a program for a single run, compiled once, called for `--calls` of the runs, one after the other.
* `separate_processes`: `--separate` of the runs, each in a process of its own that imports, compiles and trains,
  without a cache of compiled programs; one at a time, and as many at a time as there are cores.

The last two are measured on a few runs and extrapolated to all of them; the record says from how many. None of the
three evaluates. `command` is `python -m purerl.sweep` on the same runs, with everything that it does.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import record

from purerl.config import RunConfig, load_config
from purerl.learn import sharding
from purerl.run.program import make_train, program_of_lanes
from purerl.run.runs import build
from purerl.sweeps.lanes import lanes_of
from purerl.sweeps.points import groups_of, point_configs

ROOT = Path(__file__).parents[1]
CACHE = "JAX_COMPILATION_CACHE_DIR"
KEY = "algo.lr"


class Measured(NamedTuple):
    """Seconds."""

    compile_s: float
    train_s: list[float]


def rounded(value: float) -> float:
    return round(value, 2)


# Three ways


def one_call(config: RunConfig, rates: list[float], seeds: int, repeats: int) -> Measured:
    """All runs as one program; the whole training is one call of it."""
    (group,) = groups_of(point_configs(config, [{KEY: rate} for rate in rates]))
    lanes = lanes_of(group, seeds)
    spread = sharding.layout_of(config.num_devices, len(lanes))
    program = program_of_lanes(group.run.algorithm, spread, group.plan.updates)
    rows = jnp.asarray([lane.row for lane in lanes])
    hparams = jax.tree.map(lambda leaf: leaf[rows], group.hparams)
    data = jax.tree.map(jnp.asarray, group.data)  # the points differ in `hparams` alone
    placed = program.place_data(data)

    def start(first_seed: int) -> Any:
        keys = jax.vmap(jax.random.key)(first_seed + jnp.asarray([lane.seed for lane in lanes]))
        return program.place(jax.block_until_ready(program.init(keys, hparams, data)))

    began = time.perf_counter()
    state = start(config.seed)
    compiled = program.chunk(state, placed)
    compile_s, seconds = time.perf_counter() - began, []
    for repeat in range(repeats):
        state = start(config.seed + repeat * seeds)
        began = time.perf_counter()
        _, metrics = jax.block_until_ready(compiled(state, placed))
        seconds.append(time.perf_counter() - began)
        assert bool(jnp.isfinite(metrics["value_loss"]).all())
    return Measured(compile_s, seconds)


def sequential_calls(config: RunConfig, rates: list[float], calls: int) -> Measured:
    """Single runs with their rates as an argument; the first call is not counted."""
    train, hparams = make_train(config), build(config).algorithm.hparams
    began = time.perf_counter()
    compiled = jax.jit(train).lower(jax.random.key(0), hparams).compile()
    compile_s, seconds = time.perf_counter() - began, []
    for call in range(calls + 1):
        own = hparams.replace(lr=jnp.float32(rates[call % len(rates)]))
        key = jax.random.key(config.seed + call)
        began = time.perf_counter()
        jax.block_until_ready(compiled(key, own))
        seconds.append(time.perf_counter() - began)
    return Measured(compile_s, seconds[1:])


def separate_processes(args: argparse.Namespace, count: int, at_a_time: int) -> tuple[float, list[Measured]]:
    """Wall-clock of `count` runs, `at_a_time` together, and what each process says of itself."""
    environment = {key: value for key, value in os.environ.items() if key != CACHE}

    def one(number: int) -> Measured:
        rate, seed = args.rates[number % len(args.rates)], args.seed + number // len(args.rates)
        command = [
            sys.executable, __file__, "--single", "--config", str(args.config), *args.overrides,
            f"{KEY}={rate}", f"seed={seed}",
        ]  # fmt: skip
        ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return Measured(*json.loads(ended.stdout))

    began = time.perf_counter()
    with ThreadPoolExecutor(at_a_time) as pool:
        each = list(pool.map(one, range(count)))
    return time.perf_counter() - began, each


def single(config: RunConfig) -> None:
    """What such a process does; prints its own times as JSON."""
    train, began = jax.jit(make_train(config)), time.perf_counter()
    compiled = train.lower(jax.random.key(config.seed)).compile()
    compile_s, began = time.perf_counter() - began, time.perf_counter()
    jax.block_until_ready(compiled(jax.random.key(config.seed)))
    print(json.dumps([compile_s, [time.perf_counter() - began]]))


# The command


def sweep_command(args: argparse.Namespace) -> dict[str, Any]:
    rates = f"{KEY}={json.dumps(args.rates)}"
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder) / "sweep"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "purerl.sweep", "--config", str(args.config), "--seeds", str(args.seeds), "--out",
             str(out), rates, f"num_devices={args.devices}", *args.overrides],
            check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        report = json.loads((out / "sweep.json").read_text())
    points = [{"lr": p["values"][KEY], "iqm": p["iqm"], "low": p["low"], "high": p["high"]} for p in report["points"]]
    return {
        "wall_clock_s": rounded(seconds),
        "times": report["times"],
        "points": points,
        "best": {name: report["best"][name] for name in ("values", "iqm", "low", "high", "final")},
    }


# Measurement


def measure(args: argparse.Namespace, config: RunConfig) -> dict[str, Any]:
    runs = len(args.rates) * args.seeds
    algorithm = build(config).algorithm
    env_steps = algorithm.num_updates * algorithm.env_steps_per_update
    together = one_call(config, args.rates, args.seeds, args.repeats)
    together_s = statistics.median(together.train_s)
    alone = sequential_calls(config.model_copy(update={"num_devices": 1}), args.rates, args.calls)
    alone_s = runs * statistics.median(alone.train_s)
    values: dict[str, Any] = {
        "config": args.config.name,
        "runs": runs,
        "rates": args.rates,
        "seeds": args.seeds,
        "env_steps_per_run": env_steps,
        "devices": args.devices,
        "one_call": {
            "compile_s": rounded(together.compile_s),
            "train_s": rounded(together_s),
            "range_s": [rounded(min(together.train_s)), rounded(max(together.train_s))],
            "env_steps_per_s": round(runs * env_steps / together_s),
        },
        "sequential_calls": {
            "compile_s": rounded(alone.compile_s),
            "train_s_per_run": rounded(statistics.median(alone.train_s)),
            "measured_runs": args.calls,
            "train_s_all_runs_extrapolated": rounded(alone_s),
            "times_one_call": rounded(alone_s / together_s),
        },
        "separate_processes": {},
    }
    for at_a_time in sorted({1, os.cpu_count() or 1}):
        count = max(math.ceil(args.separate / at_a_time), 1) * at_a_time
        seconds, each = separate_processes(args, count, at_a_time)
        total = runs / count * seconds
        values["separate_processes"][f"{at_a_time}_at_a_time"] = {
            "measured_runs": count,
            "wall_clock_s_measured": rounded(seconds),
            "compile_s_per_run": rounded(statistics.median(m.compile_s for m in each)),
            "train_s_per_run": rounded(statistics.median(m.train_s[0] for m in each)),
            "wall_clock_s_all_runs_extrapolated": rounded(total),
            "times_one_call_with_its_compilation": rounded(total / (together_s + together.compile_s)),
        }
    return values if args.no_command else {**values, "command": sweep_command(args)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "cartpole_ppo.yaml")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2])
    parser.add_argument("--devices", type=int, default=os.cpu_count(), help="CPU cores that share the runs")
    parser.add_argument("--repeats", type=int, default=3, help="of the one call")
    parser.add_argument("--calls", type=int, default=8, help="runs measured one by one in this process")
    parser.add_argument("--separate", type=int, default=4, help="runs measured in processes of their own")
    parser.add_argument("--no-command", action="store_true", help="leave out the sweep command")
    parser.add_argument("--out", type=Path, help="keep the sweep command's directory here")
    parser.add_argument("--name", default="sweep_cartpole_ppo", help="of the record")
    parser.add_argument("--single", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value")
    args = parser.parse_intermixed_args()

    if args.single:
        single(load_config(args.config, args.overrides))
        return
    sharding.provide_cpu_devices(args.devices)
    before = record.machine()
    config = load_config(args.config, [*args.overrides, f"num_devices={args.devices}"])
    args.seed = config.seed
    values = measure(args, config)
    print(json.dumps(values, indent=2))
    print(record.write(args.name, values, before))


if __name__ == "__main__":
    main()
