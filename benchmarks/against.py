"""This checkout against another, in turns in one run: trainings and steps of worlds, compilation apart.

    python benchmarks/against.py ../before --turns 15

Each side is a process of its own with the packages of one checkout, and does the same work through public names alone:
whole trainings (`purerl.make_train`), and auto-reset steps of many environments with random actions. They work in
turns, piece by piece, and the ratio of each pair counts, so that a machine that is slower for a minute is so for both.
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

configs = sys.argv[1]
TRAININGS = {
    "ppo_cartpole": ("cartpole_ppo", ["num_seeds=1", "cpu_threads=1", "algo.total_env_steps=125000"]),
    "lstm_td3_bess": ("bess_td3", ["num_devices=1", "algo.total_env_steps=9216", "algo.updates_per_step=0.03125",
                      "algo.critic_only_updates=8"]),
    "ppo_atc": ("atc_canonical_crossing_ppo", ["algo.total_env_steps=16384"]),
}
WORLDS = {"steps_bess": ("bess", {}, 2048, 96), "steps_atc": ("atc/canonical_crossing", {}, 256, 200)}

compiled = {}

def prepare(name, function, *args):
    program = jax.jit(function).lower(*args).compile()
    compiled[name] = lambda: program(*args)

for name, (config, overrides) in TRAININGS.items():
    train = purerl.make_train(purerl.load_config(f"{configs}/{config}.yaml", overrides))
    prepare(name, lambda key, train=train: train(key)[1], jax.random.key(0))
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
    prepare(name, played, jax.random.key(0), params)
print("ready", *compiled, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    jax.block_until_ready(compiled[line.strip()]())
    print("seconds", time.perf_counter() - start, flush=True)
"""


class Side:
    """A process that does the work of one checkout, a piece at a time."""

    def __init__(self, checkout: Path):
        self.checkout = checkout
        environment = {**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORK, str(checkout / "configs")],
            cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.names = self._answer("ready")

    def _answer(self, word: str) -> list[str]:
        """What follows the next line that begins with `word`; programs may print lines of their own."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            words = line.split()
            if words[:1] == [word]:
                return words[1:]
        raise SystemExit(f"{self.checkout}: ended with {self.process.wait()}")

    def seconds(self, name: str) -> float:
        assert self.process.stdin is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self._answer("seconds")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--turns", type=int, default=15, help="repetitions of each side, one after the other")
    args = parser.parse_args()
    quiet = record.machine()
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=args.before, capture_output=True, text=True, check=True
    ).stdout.strip()
    sides = {"before": Side(args.before.resolve()), "now": Side(HERE)}
    seconds: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
    ratios = {}
    for name in sides["now"].names:
        for work in sides.values():
            work.seconds(name)  # the first time may cost more
        for _ in range(args.turns):
            for side, work in sides.items():
                seconds[side].setdefault(name, []).append(round(work.seconds(name), 4))
        pairs = zip(seconds["before"][name], seconds["now"][name], strict=True)
        ratios[name] = statistics.median(before / now for before, now in pairs)
        print(f"{name}: {ratios[name]:.3f} times as fast as {commit}", flush=True)
    values = {"before": commit, "median_speed_ratio": ratios, "seconds": seconds}
    print(record.write("against", values, quiet))


if __name__ == "__main__":
    main()
