"""Checkpoints under damage, under `kill -9`, on other devices; and how long training waits for one.

    python benchmarks/checkpoints.py flips [--count 1000]
    python benchmarks/checkpoints.py kills [--count 50] [--each 10]
    python benchmarks/checkpoints.py wait [--megabytes 70 1000] [--repeats 9]
    python benchmarks/checkpoints.py devices

* `flips`: one bit of a checkpoint is flipped (file, byte and bit at random) and the checkpoint read back. Noticed: it
  is refused. Harmless: the same bits and counters came back. Silent: anything else.
* `kills`: short runs of PPO on CartPole that save after every epoch are killed at random moments and resumed, `--each`
  times one after the other, and then to their end. Compared with a run that nobody disturbed: every leaf of the last
  checkpoint and of the policies, and the logs without their times.
* `wait`: seconds for which `Writer.save` keeps training waiting, beside the time that writing the same state to one
  file takes (`bundle.write_tree`, as checkpoints were before), in turns; until the checkpoint is complete; and of an
  update (of the tenth of the state that is no replay) without a save and right after one was begun.
* `devices`: a state of four seeds, saved by a process with two CPU devices and read by processes with one and four.

Reading order: what the parts share, one part after the other, the record in `benchmarks/results/`.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import record

from purerl.config import load_config
from purerl.errors import CheckpointError
from purerl.learn import sharding
from purerl.run import bundle, checkpoint
from purerl.run.logs import TIMING_COLUMNS
from purerl.run.program import program_of
from purerl.run.runs import build

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "cartpole_ppo.yaml"


def digest(tree: Any) -> str:
    """Of the paths, types and bits of all leaves."""
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        raw = np.asarray(jax.random.key_data(leaf) if bundle.is_key(leaf) else leaf)
        found.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode() + raw.tobytes())
    return found.hexdigest()


# Flips


def flips(count: int, directory: Path) -> dict[str, Any]:
    """Of a state with a replay, optimiser-like trees, keys of both kinds and half precision."""
    numbers = np.random.default_rng(0)
    network = {f"layer{i}": {"kernel": jnp.asarray(numbers.normal(size=(64, 64)), "f4")} for i in range(4)}
    state = {
        "ring": jnp.asarray(numbers.normal(size=(2000, 16)), "f4"),
        "params": network,
        "optimizer": jax.tree.map(lambda x: (x.astype(jnp.bfloat16), jnp.asarray(3)), network),
        "keys": (jax.random.key(1), jax.random.split(jax.random.key(2, impl="rbg"), 4)),
    }
    tree, meta = {"state": state, "policy": network}, {"episodes": 12, "best_scores": [0.5]}
    writer = checkpoint.Writer(directory)
    writer.save(7, tree, meta, best=7)
    writer.wait()
    expected = digest(tree), {**meta, "epoch": 7}, 7
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
    choose = random.Random(0)
    counts = {"noticed": 0, "harmless": 0, "silent": 0}
    outside = 0
    for _ in range(count):
        file = choose.choice(files)
        good = file.read_bytes()
        altered = bytearray(good)
        altered[choose.randrange(len(good))] ^= 1 << choose.randrange(8)
        file.write_bytes(altered)
        try:
            restored, found = checkpoint.restore(directory, tree)
            same = (digest(restored), found, checkpoint.best_step(directory)) == expected
            counts["harmless" if same else "silent"] += 1
            outside += same and file.parent == directory / "epoch_000007"
        except CheckpointError:
            counts["noticed"] += 1
        file.write_bytes(good)
    size = sum(file.stat().st_size for file in files)
    # What is harmless lies in the files that orbax writes beside the items: time stamps, and the text of the commit.
    return {"flips": count, **counts, "harmless_beside_the_items": outside, "files": len(files), "bytes": size}


# Kills

SHORT = [
    "num_seeds=1", "epochs=24", "algo.total_env_steps=24576", "checkpointing.every_epochs=1", "device=cpu",
    "checkpointing.keep_periodic=3", "evaluation.every_epochs=5", "evaluation.episodes=8", "cpu_threads=1",
]  # fmt: skip


def training(run_dir: Path, resume: bool) -> subprocess.Popen:
    command = [sys.executable, "-u", "-m", "purerl.train", "--config", str(CONFIG), "--run-dir", str(run_dir), *SHORT]
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(run_dir.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **os.environ,
    }
    return subprocess.Popen(
        [*command, *(["--resume"] if resume else [])], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for_start(process: subprocess.Popen) -> None:
    """Until imports are over: what is killed there has touched nothing."""
    assert process.stdout is not None
    for line in process.stdout:
        if "env steps" in line:
            return
    raise SystemExit(f"training ended with code {process.wait()}")


def outcome(run_dir: Path) -> dict[str, Any]:
    """Digests of all that a run leaves, without times."""
    last = checkpoint.available(run_dir / "checkpoints")[-1]
    rows = pd.read_csv(run_dir / "training_progress.csv").drop(columns=list(TIMING_COLUMNS), errors="ignore")
    policies = {}
    for path in sorted((run_dir / "policy").glob("*.npz")):
        with np.load(path) as file:
            policies[path.name] = {name: file[name] for name in file.files if name != "__header__"}
    return {
        "kept": checkpoint.available(run_dir / "checkpoints"),
        "best": checkpoint.best_step(run_dir / "checkpoints"),
        "state": digest(checkpoint.arrays(run_dir / "checkpoints", last)),
        "policies": digest(policies),
        "csv": hashlib.sha256(rows.to_csv().encode()).hexdigest(),
    }


def kills(count: int, each: int, directory: Path) -> dict[str, Any]:
    reference = directory / "reference"
    training(reference, resume=False).communicate()  # fills the cache of compiled programs
    shutil.rmtree(reference)
    process = training(reference, resume=False)
    wait_for_start(process)
    started = time.monotonic()
    process.communicate()
    span = time.monotonic() - started
    expected = outcome(reference)
    choose = random.Random(0)
    killed = inside_a_save = runs = same = 0
    epochs: list[int] = []
    while killed < count:
        run_dir = directory / f"run{runs}"
        for _ in range(min(each, count - killed)):
            process = training(run_dir, resume=run_dir.exists())
            wait_for_start(process)
            time.sleep(choose.uniform(0, 1.2 * span / each))
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:  # it had ended before
                break
            killed += 1
            steps = checkpoint.available(run_dir / "checkpoints")
            epochs.append(steps[-1] if steps else 0)
            inside_a_save += any("tmp" in path.name for path in (run_dir / "checkpoints").iterdir())
        training(run_dir, resume=True).communicate()
        runs += 1
        if outcome(run_dir) == expected:
            same += 1
            shutil.rmtree(run_dir)
        else:
            print(f"differs: {run_dir}: {outcome(run_dir)} instead of {expected}", file=sys.stderr)
    return {
        "kills": killed, "inside_an_asynchronous_save": inside_a_save, "runs": runs, "runs_with_the_same_bits": same,
        "last_checkpoint_at_each_kill": epochs, "epochs": 24, "kills_of_a_run": each,
    }  # fmt: skip


# Wait


def state_of(megabytes: int) -> dict[str, Any]:
    """Nine tenths in four arrays of a replay, the rest in forty of networks and optimisers."""
    floats = megabytes * 1_000_000 // 4
    ring = {f"field{i}": jnp.full((floats * 9 // 40 // 64, 64), float(i)) for i in range(4)}
    rest = {f"kernel{i}": jnp.full((floats // 400 // 64, 64), float(i)) for i in range(40)}
    return {"ring": ring, "learner": rest, "key": jax.random.key(0)}


def wait(megabytes: int, repeats: int, directory: Path) -> dict[str, Any]:
    update = jax.jit(
        lambda state: {**state, "learner": jax.tree.map(lambda x: x + 1, state["learner"])}, donate_argnums=0
    )
    state = update(state_of(megabytes))
    writer = checkpoint.Writer(directory)
    seconds: dict[str, list[float]] = {
        name: [] for name in ("orbax", "orbax_complete", "one_file", "update", "update_while_saving")
    }
    for step in range(repeats + 1):
        start = time.perf_counter()
        state = jax.block_until_ready(update(state))
        plain = time.perf_counter() - start
        start = time.perf_counter()
        writer.save(step, {"state": state}, {})
        waited = time.perf_counter() - start
        state = jax.block_until_ready(update(state))
        beside = time.perf_counter() - start - waited
        writer.wait()
        complete = time.perf_counter() - start
        start = time.perf_counter()
        bundle.write_tree(directory / "state.npz", state, {})
        one_file = time.perf_counter() - start
        if step:  # the first imports and compiles
            for name, value in zip(seconds, (waited, complete, one_file, plain, beside), strict=True):
                seconds[name].append(value)
    start = time.perf_counter()
    jax.block_until_ready(checkpoint.restore(directory, {"state": state})[0])
    restored = time.perf_counter() - start
    return {
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
        "repeats": repeats,
        **{f"{name}_s": round(statistics.median(values), 4) for name, values in seconds.items()},
        **{f"{name}_least_s": round(min(values), 4) for name, values in seconds.items()},
        "orbax_restore_s": round(restored, 3),
    }


# Devices


def _on(count: int) -> tuple[Any, Any, Any]:
    """Program, state and data of a run whose four seeds are spread over the devices of this process."""
    sharding.provide_cpu_devices(count, threads=1)
    jax.config.update("jax_platforms", "cpu")
    assert jax.device_count() == count
    config = load_config(CONFIG, ["num_seeds=4", f"num_devices={count}"])
    algorithm = build(config).algorithm
    program, data = program_of(algorithm, config, 1), algorithm.load_data()
    state, data = program.place(program.init(data)), program.place_data(data)
    return program.chunk(state, data), state, data


def _require_spread(tree: Any, count: int) -> None:
    assert all(len(leaf.sharding.device_set) == count for leaf in jax.tree.leaves(tree))


def _save_on(count: int, directory: Path) -> str:
    chunk, state, data = _on(count)
    tree = {"state": chunk(state, data)[0]}
    _require_spread(tree, count)
    writer = checkpoint.Writer(directory)
    writer.save(1, tree, {})
    writer.wait()
    return digest(tree)


def _restore_on(count: int, directory: Path) -> str:
    chunk, like, data = _on(count)
    tree, _ = checkpoint.restore(directory, {"state": like})
    _require_spread(tree, count)
    restored = digest(tree)
    chunk(tree["state"], data)  # trains on as it lies
    return restored


def devices(directory: Path) -> dict[str, Any]:
    def apart(function: Any, count: int) -> str:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, count, directory).result()

    saved = apart(_save_on, 2)
    return {"saved_on": 2, **{f"same_bits_on_{count}": apart(_restore_on, count) == saved for count in (1, 2, 4)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["flips", "kills", "wait", "devices"])
    parser.add_argument("--count", type=int, help="flips (1000) or kills (50)")
    parser.add_argument("--each", type=int, default=10, help="kills of one run")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[70, 1000])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    before = record.machine()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        match args.part:
            case "flips":
                values = flips(args.count or 1000, directory)
            case "kills":
                values = kills(args.count or 50, args.each, directory)
            case "wait":
                sizes = {size: directory / str(size) for size in args.megabytes}
                values = {f"{size}_mb": wait(size, args.repeats, place) for size, place in sizes.items()}
            case _:
                values = devices(directory)
    print(json.dumps(values, indent=2))
    print(record.write(f"checkpoints_{args.part}", values, before))


if __name__ == "__main__":
    main()
