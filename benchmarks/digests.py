"""Digests of short runs of every algorithm on every world: do two states of the code compute the same bits?

    python benchmarks/digests.py --out before.json
    python benchmarks/digests.py --against before.json
    python benchmarks/digests.py --found now.json --against before.json    # of two files, without running anything

A case is a shipped configuration with a few small numbers. Its digests are those of the learned parameters, of every
metric of every update, and, for the cases that are run as a user would, of the log, the final score and the actions of
the policy that `load_policy` returns. Only public names are used, so that the script runs on any state of the code.

Where digests differ, the metrics of the first update tell whether it is rounding: they are kept beside the digests, and
the largest relative difference is said. Later updates tell less, because learning amplifies a last bit.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import record

import purerl
from purerl import record as recording
from purerl import train

CONFIGS = Path(__file__).parents[1] / "configs"

SMALL_NETS = "algo.actor={hidden_sizes: [16, 16]}", "algo.critic={hidden_sizes: [16, 16]}"
SMALL_LSTM = (
    "algo.actor={lstm_hidden_size: 8, hidden_sizes: [16]}",
    "algo.critic={lstm_hidden_size: 8, hidden_sizes: [16]}",
)
ONE = "num_seeds=1", "num_devices=1"
ON_POLICY = (*ONE, "algo.num_envs=8", "algo.steps_per_update=16", "algo.total_env_steps=512")
REPLAY = (*ONE, "algo.warmup_steps=64", "algo.buffer_size=2048", "algo.batch_size=16")
DAYS = (
    *REPLAY, "algo.num_envs=8", "algo.total_env_steps=768", "algo.updates_per_step=0.015625",
    "algo.critic_only_updates=2",
)  # fmt: skip
STEPS = (*REPLAY, "algo.num_envs=4", "algo.steps_per_update=4", "algo.updates_per_step=0.25", "algo.total_env_steps=96")

CASES: dict[str, tuple[str, ...]] = {
    "cartpole_ppo": ON_POLICY,
    "cartpole_impala": ON_POLICY,
    "cartpole_appo": ON_POLICY,
    "cartpole_hidden_ppo": ON_POLICY,
    "pendulum_ppo": ON_POLICY,
    "pendulum_td3": (*STEPS, *SMALL_NETS),
    "pendulum_sac": (*STEPS, *SMALL_NETS),
    "bess_td3": (*DAYS, *SMALL_LSTM),
    "bess_td3_forecast": (*DAYS, *SMALL_LSTM),
    "bess_td3_ff": (*DAYS, *SMALL_NETS),
    "bess_sac": (*DAYS[:-1], *SMALL_NETS),
    "bess_ppo": (*ON_POLICY, *SMALL_NETS, "algo.steps_per_update=24", "algo.total_env_steps=768"),
    "bess_ppo_lstm": (*ON_POLICY, *SMALL_LSTM, "algo.steps_per_update=24", "algo.total_env_steps=768"),
    "bess_apg": (*ONE, "algo.num_envs=8", "algo.total_env_steps=768", "algo.actor={hidden_sizes: [16]}"),
    "atc_canonical_crossing_ppo": ON_POLICY,
    "atc_canonical_crossing_mappo": ON_POLICY,
    "atc_canonical_crossing_impala": ON_POLICY,
    "atc_canonical_crossing_sac": (*STEPS, *SMALL_NETS),
    "atc_generic_ppo": (*ON_POLICY, *SMALL_NETS),
    "atc_canonical_crossing_cql": SMALL_NETS,
    "atc_canonical_crossing_bc": SMALL_NETS[:1],
    "bess_cql": SMALL_NETS,
    "bess_bc": SMALL_NETS[:1],
}
RECORDED = {
    "bess": ("bess_cql", ("random", "two_cycles:1:0.3"), 32),
    "atc": ("atc_canonical_crossing_cql", ("random", "mvp:1:0.3"), 8),
}
"""World -> configuration, behaviours and episodes of what the offline cases learn from."""
AS_A_USER = {
    "cartpole_ppo": ("num_seeds=2", "algo.total_env_steps=4096", "epochs=2", "evaluation.episodes=8"),
    "bess_td3": (*DAYS, *SMALL_LSTM, "epochs=2", "num_devices=2"),
    "atc_canonical_crossing_ppo": (*ON_POLICY, "epochs=2", "evaluation.episodes=8"),
}


def digest(leaves: Iterable[Any]) -> str:
    """Of arrays, whatever order they come in."""
    each = sorted(hashlib.sha256(f"{x.dtype}{x.shape}".encode() + x.tobytes()).hexdigest() for x in leaves)
    return hashlib.sha256("".join(each).encode()).hexdigest()[:16]


def of_training(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """Digests of a whole run as one function, and the metrics of its first update."""
    config = purerl.load_config(CONFIGS / f"{name}.yaml", overrides)
    state, metrics = jax.jit(purerl.make_train(config))(jax.random.key(config.seed))
    paths = jax.tree_util.tree_leaves_with_path(state)
    learned = [np.asarray(x) for path, x in paths if {".params", ".actor", ".critic"} & set(map(str, path))]
    assert learned, f"{name}: no parameters found"
    first = {metric: float(np.asarray(x).reshape(-1)[0]) for metric, x in metrics.items()}
    digests = {"parameters": digest(learned), "metrics": digest(np.asarray(x) for x in metrics.values())}
    return {**digests, "first": first}


def of_data(path: Path) -> dict[str, str]:
    with np.load(path) as arrays:
        return {"arrays": digest(arrays[name] for name in arrays.files if name != "metadata")}


def of_run(name: str, overrides: tuple[str, ...], run_dir: Path) -> dict[str, str]:
    """Digests of what `python -m purerl.train` leaves behind."""
    words = ["--config", str(CONFIGS / f"{name}.yaml"), "--run-dir", str(run_dir), "logging.progress=false"]
    if train.main([*words, *overrides]):
        sys.exit(f"{name}: training failed")
    policy = purerl.load_policy(run_dir, "latest")
    obs = np.random.default_rng(0).normal(size=(8, *policy.obs_shape)).astype(np.float32)
    action, _ = policy.act(obs, policy.initial_carry(8))
    scores = json.loads(next((run_dir / "eval").glob("final_*.json")).read_text())
    kept = {key: scores[key] for key in ("policy_per_seed", "return_per_seed", "baselines", "bound")}
    return {
        "log": hashlib.sha256((run_dir / "metrics.jsonl").read_bytes()).hexdigest()[:16],
        "score": hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16],
        "actions": digest(map(np.asarray, jax.tree.leaves(action))),
    }


def relative_difference(one: dict[str, float], other: dict[str, float]) -> tuple[float, str]:
    """The largest of metrics that both have and that are numbers in both, and the metric."""
    names = [name for name in one if name in other and np.isfinite([one[name], other[name]]).all()]
    each = {name: abs(one[name] - other[name]) / max(abs(one[name]), abs(other[name]), 1e-6) for name in names}
    return max(((difference, name) for name, difference in each.items()), default=(0.0, ""))


Cases = dict[str, dict[str, Any]]


def differences(found: Cases, before: Cases) -> Cases:
    """Of every case what differs, and the largest relative difference of a metric of the first update."""
    sizes = {}
    for case, own in found.items():
        kinds = [kind for kind in own if kind != "first" and before[case][kind] != own[kind]]
        size, metric = relative_difference(own.get("first", {}), before[case].get("first", {}))
        sizes[case] = {"differ": kinds, "first_update": size, "metric": metric}
    return sizes


def compared(found: Cases, before: Cases) -> list[str]:
    """A line for every case whose digests differ."""
    return [
        f"{case}: {', '.join(own['differ'])}; first update: {own['first_update']:.1e} ({own['metric'] or 'not kept'})"
        for case, own in differences(found, before).items()
        if own["differ"]
    ]


def all_digests(only: list[str] | None) -> dict[str, dict[str, Any]]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for world, (name, behaviours, episodes) in RECORDED.items():
            out = Path(folder) / f"{world}.npz"
            words = ["--config", str(CONFIGS / f"{name}.yaml"), "--out", str(out), "--episodes", str(episodes)]
            if recording.main([*words, "--behaviour", *behaviours]):
                sys.exit(f"{name}: recording failed")
            found[f"record {world}"] = of_data(out)
        for name, overrides in CASES.items():
            if only and name not in only:
                continue
            if name.endswith(("_cql", "_bc")):
                data = Path(folder) / f"{name.partition('_')[0]}.npz"
                steps = "algo.total_gradient_steps=8", "algo.gradient_steps_per_update=4", "algo.batch_size=32"
                overrides = (*overrides, *steps, f"algo.dataset={data}")
            found[name] = of_training(name, overrides)
            print(name, found[name], flush=True)
        for name, overrides in AS_A_USER.items():
            if only and name not in only:
                continue
            found[f"run {name}"] = of_run(name, overrides, Path(folder) / name)
            print("run", name, found[f"run {name}"], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the digests")
    parser.add_argument("--against", type=Path, help="compare with digests that were written before")
    parser.add_argument("--found", type=Path, help="take the digests of this state from a file")
    parser.add_argument("--only", nargs="+", help="these cases alone")
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 2)
    machine = record.machine()
    if args.found:
        found = json.loads(args.found.read_text())
    else:
        found = {"commit": record.COMMIT, "cases": all_digests(args.only)}
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    if args.against:
        before = json.loads(args.against.read_text())
        commits = {"commit_before": before["commit"], "commit_now": found["commit"]}
        own, earlier = found["cases"], before["cases"]
        print(record.write("digests", {**commits, "cases": differences(own, earlier)}, machine))
        other = compared(own, earlier)
        print("\n".join(["differ:", *other]) if other else f"all {len(own)} cases are the same")
        sys.exit(bool(other))


if __name__ == "__main__":
    main()
