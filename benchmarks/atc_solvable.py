"""How many jittered starts of an air-traffic scenario can be flown without a loss of separation at all, by search.

    python benchmarks/atc_solvable.py --run runs/atc_converging [--episodes 512] [--trials 256] [--rounds 8]

A start counts as solvable when any trial succeeds. Trials fly closed loop with a pilot that is disturbed: the trained
policy or `mvp`, and for each aircraft a constant push on turn and speed between two random times. The count
is a lower bound: starts for which no solution was found may have one.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import record

from envs_jax.atc.baselines import mvp
from purerl.run import runs

PUSH_STEPS = 12
"""Longest push; on ten seconds each it turns an aircraft around."""


def starts(env: Any, seed: int, episodes: int):
    """Observations and states of the evaluation's cases (see `envs_jax.episodes.play`)."""
    key_reset, _ = jax.random.split(jax.random.key(seed))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key_reset, jnp.arange(episodes))
    return jax.vmap(env.reset_env, (0, None))(keys, env.default_params)


def flights(run: Any, policy: Any, start: Any, key: jax.Array, trials: int, disturbed: bool) -> jax.Array:
    """Success [episodes, trials] from every start."""
    env, algorithm, params = run.env, run.algorithm, run.env.default_params
    episodes = start[0].shape[0]
    total, agents = episodes * trials, env.num_agents
    obs, state = jax.tree.map(lambda x: jnp.repeat(x, trials, axis=0), start)
    key_push, key_from, key_to, key_pilot, key_margin, key_act = jax.random.split(key, 6)
    push = jax.random.uniform(key_push, (total, agents, 2), minval=-1.5, maxval=1.5)
    first = jax.random.randint(key_from, (total, agents, 1), 0, 15)
    last = first + jax.random.randint(key_to, (total, agents, 1), 0, PUSH_STEPS)
    margin = jax.random.uniform(key_margin, (total,), minval=1.1, maxval=1.7)
    by_policy = jax.random.bernoulli(key_pilot, 0.7, (total, 1, 1))

    def step(carried, t):
        obs, state, memory, active, success = carried
        action, memory = algorithm.act(policy, memory, obs, None, key_act, True)
        if disturbed:
            by_rule = jax.vmap(mvp, (0, None, 0))(state, params, margin)
            action = jnp.where(by_policy, action, by_rule)
            action = jnp.clip(action + jnp.where((t >= first) & (t < last), push, 0.0), -1.0, 1.0)
        obs, state, _, terminated, truncated, info = jax.vmap(env.step_env, (None, 0, 0, None))(
            key_act, state, action, params
        )
        success = success | (active & (info["success"] > 0))
        return (obs, state, memory, active & ~(terminated | truncated), success), None

    flags = jnp.ones(total, bool), jnp.zeros(total, bool)
    carried = obs, state, algorithm.initial_carry((total,)), *flags
    carried, _ = jax.lax.scan(step, carried, jnp.arange(env.max_episode_length))
    return carried[-1].reshape(episodes, trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="of a trained policy with continuous actions")
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--trials", type=int, default=256, help="of every start that is still unsolved, per round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--name", help="of the record")
    args = parser.parse_args()
    before, began = record.machine(), time.monotonic()
    run = runs.open_run(args.run)
    policy, _ = runs.pick_seed(run, *runs.read_policy(args.run, run, "best"))
    start = starts(run.env, run.config.evaluation.final_seed, args.episodes)
    with jax.debug_key_reuse(False):  # trials of one call share what they do not draw for themselves
        fly = jax.jit(partial(flights, run), static_argnames=("trials", "disturbed"))
        solved = np.array(fly(policy, start, jax.random.key(0), trials=1, disturbed=False))[:, 0]
        counts = [int(solved.sum())]
        print(f"policy alone: {counts[0]} of {args.episodes}")
        for number in range(args.rounds):
            left = np.flatnonzero(~solved)
            if not left.size:
                break
            some = jax.tree.map(lambda x, left=left: x[left], start)
            found = fly(policy, some, jax.random.key(1 + number), trials=args.trials, disturbed=True)
            solved[left] = np.asarray(found).any(axis=1)
            counts.append(int(solved.sum()))
            print(f"after {(number + 1) * args.trials} trials each: {counts[-1]}", flush=True)
    values = {
        "environment": run.env.name, "episodes": args.episodes, "seed": run.config.evaluation.final_seed,
        "trials_per_round": args.trials, "solved_by_policy": counts[0], "solved_after_rounds": counts[1:],
        "unsolved_cases": np.flatnonzero(~solved).tolist(), "wall_clock_s": round(time.monotonic() - began, 1),
    }  # fmt: skip
    name = args.name or f"solvable_{run.env.name.rpartition('/')[2]}"
    print(record.write(name, values, before))


if __name__ == "__main__":
    main()
