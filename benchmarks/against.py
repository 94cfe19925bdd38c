"""This checkout against another, in turns in one run: trainings and steps of worlds, compilation apart.

    python benchmarks/against.py ../before --turns 3

Every turn is a process of its own with the packages of one checkout, and does the same work through public names alone:
whole trainings (`purerl.make_train`), and auto-reset steps of many environments with random actions.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

import record

HERE = Path(__file__).parents[1]
WORK = """
import sys, time
import jax, jax.numpy as jnp
import envs_jax, purerl

configs, times = sys.argv[1], int(sys.argv[2])
TRAININGS = {
    "ppo_cartpole": ("cartpole_ppo", ["num_seeds=1", "cpu_threads=1", "algo.total_env_steps=125000"]),
    "lstm_td3_bess": ("bess_td3", ["num_devices=1", "algo.total_env_steps=9216", "algo.updates_per_step=0.03125",
                      "algo.critic_only_updates=8"]),
    "ppo_atc": ("atc_canonical_crossing_ppo", ["algo.total_env_steps=16384"]),
}
WORLDS = {"steps_bess": ("bess", {}, 2048, 96), "steps_atc": ("atc/canonical_crossing", {}, 256, 200)}

def timed(name, function, *args):
    compiled = jax.jit(function).lower(*args).compile()
    for number in range(times + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        if number:
            print(name, time.perf_counter() - start, flush=True)

for name, (config, overrides) in TRAININGS.items():
    train = purerl.make_train(purerl.load_config(f"{configs}/{config}.yaml", overrides))
    timed(name, lambda key, train=train: train(key)[1], jax.random.key(0))
for name, (world, settings, count, steps) in WORLDS.items():
    env = envs_jax.make(world, **settings)
    params = env.default_params
    sample = jax.vmap(env.action_space(params).sample)
    def played(key, params, env=env, sample=sample, count=count, steps=steps):
        key_start, key_steps = jax.random.split(key)
        _, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_start, count), params)
        def body(state, key):
            key_action, key_step = jax.random.split(key)
            action = sample(jax.random.split(key_action, count))
            _, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
                jax.random.split(key_step, count), state, action, params)
            return state, jnp.sum(reward)
        return jax.lax.scan(body, state, jax.random.split(key_steps, steps))[1]
    timed(name, played, jax.random.key(0), params)
"""


def one_turn(checkout: Path, times: int) -> dict[str, list[float]]:
    """Seconds of every repetition, by the work."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    answer = subprocess.run(
        [sys.executable, "-c", WORK, str(checkout / "configs"), str(times)],
        cwd=checkout, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, list[float]] = {}
    for line in answer.stdout.splitlines():
        name, _, seconds = line.partition(" ")
        if name.partition("_")[0] in ("ppo", "lstm", "steps"):
            found.setdefault(name, []).append(float(seconds))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--times", type=int, default=3, help="repetitions in a turn")
    args = parser.parse_args()
    quiet = record.machine()
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=args.before, capture_output=True, text=True, check=True
    ).stdout.strip()
    seconds: dict[str, dict[str, list[float]]] = {"before": {}, "now": {}}
    for _ in range(args.turns):
        for side, checkout in (("before", args.before.resolve()), ("now", HERE)):
            for name, values in one_turn(checkout, args.times).items():
                seconds[side].setdefault(name, []).extend(values)
                print(side, name, *(f"{value:.3f}" for value in values), flush=True)
    ratios = {
        name: statistics.median(values) / statistics.median(seconds["now"][name])
        for name, values in seconds["before"].items()
    }
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.3f} times as fast as {commit}")
    rounded = {side: {n: [round(v, 4) for v in values] for n, values in own.items()} for side, own in seconds.items()}
    values = {"before": commit, "speed_ratio_of_medians": ratios, "seconds": rounded}
    print(record.write("against", values, quiet))


if __name__ == "__main__":
    main()
