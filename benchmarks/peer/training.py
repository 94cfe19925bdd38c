"""Whole trainings on one task: purerl beside rejax, PureJaxRL, Stable-Baselines3, SBX and JaxMARL, in turns in one run.

The work is what the configuration says, and each peer's script translates it. Every repetition has a seed of its own,
so the learning curves are means over as many seeds as there are repetitions (times the seeds trained at once).

Reading order: the peers, one group of sides that take turns, curves, the measurement, its printed form.
"""

import argparse
import itertools
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from peer.workers import Worker, in_turns, missing, spread
from scipy import stats

from purerl.config import load_config

ROOT = Path(__file__).parents[2]
BINS = 20
TEAMS = ("qmix", "vdn")
"""Works on a task of JaxMARL: what their final policies reach is played out, their curves are not compared."""
CHECKOUTS = {"purejaxrl": "purejaxrl/ppo.py", "jaxmarl": "baselines/QLearning/qmix_rnn.py"}
"""Peers that are no packages, each with a file that its checkout has."""


class Peer(NamedTuple):
    script: str
    interpreter: str | None
    module: str
    """Its absence is what `missing` reports."""
    extra: dict[str, Any]
    """Added to the request."""
    many_seeds: bool
    repeats: int


def peers_of(args: argparse.Namespace) -> dict[str, Peer]:
    """All sides that know the algorithm, ours first."""
    devices, threads, repeats = {"devices": args.devices}, {"threads": args.torch_threads}, args.repeats
    slow = min(args.slow_repeats, repeats)
    sb3 = threads | {"library": "stable_baselines3"}
    sides = {"purerl": Peer("run_purerl.py", sys.executable, "purerl", devices, True, repeats)}
    if args.work in TEAMS:
        path = {"jaxmarl_path": args.jaxmarl_path}
        sides["jaxmarl"] = Peer("run_jaxmarl.py", args.jaxmarl_python, "jaxmarl", path, True, repeats)
        return {name: peer for name, peer in sides.items() if name not in args.without}
    sides["rejax"] = Peer("run_rejax.py", args.rejax_python, "rejax", {}, True, repeats)
    if args.work == "ppo":
        path = {"purejaxrl_path": args.purejaxrl_path}
        sides["purejaxrl"] = Peer("run_purejaxrl.py", args.purejaxrl_python, "gymnax", path, True, repeats)
        sides["sb3"] = Peer("run_sb3.py", args.sb3_python, "stable_baselines3", sb3, False, slow)
    else:
        sides["sbx"] = Peer("run_sb3.py", args.sbx_python, "sbx", threads | {"library": "sbx"}, False, slow)
    return {name: peer for name, peer in sides.items() if name not in args.without}


def available(peers: dict[str, Peer]) -> dict[str, Peer]:
    """Those that can be run; says why for the others."""
    found = {}
    for name, peer in peers.items():
        why = missing(peer.interpreter, peer.module)
        if why is None and name in CHECKOUTS:
            path = peer.extra[f"{name}_path"]
            if path is None or not (Path(path) / CHECKOUTS[name]).exists():
                why = f"--{name}-path: {path} is no checkout of it"
        if why is None:
            found[name] = peer
        else:
            print(f"{name} is not measured: {why}")
    return found


# One group of sides


def group(peers: dict[str, Peer], path: Path, seeds: int, env_steps: int, final_episodes: int = 0) -> dict[str, Any]:
    """Rates, compile times and curves of trainings with `seeds` seeds at once; `env_steps` are those of one seed."""
    config = load_config(path)
    with_curve = env_steps >= BINS * iteration_of(config.algo) and not final_episodes
    request = {
        "config": str(path),
        "algo": config.algo,
        "task": config.env["name"].partition(":")[2],
        "task_settings": {key: value for key, value in config.env.items() if key != "name"},
        "env_steps": env_steps,
        "seeds": seeds,
        "bins": BINS if with_curve else 1,
        "final_episodes": final_episodes,
    }
    own_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": own_path, "JAX_PLATFORMS": "cpu"}
    able = {name: peer for name, peer in peers.items() if seeds == 1 or peer.many_seeds}
    workers = {}
    try:
        for name, peer in able.items():
            assert peer.interpreter is not None
            workers[name] = Worker(
                peer.interpreter,
                peer.script,
                {**request, **peer.extra},
                env if name == "purerl" else {k: v for k, v in env.items() if k != "PYTHONPATH"},
            )
        numbers = {name: itertools.count() for name in workers}
        for name, worker in workers.items():
            if name not in ("sb3", "sbx"):
                worker.ask("1000")  # the first repetition after compilation is slower
        answers: dict[str, list[Any]] = {name: [] for name in workers}
        for repeat in range(max(peer.repeats for peer in able.values())):
            turn = {
                name: partial(lambda name: workers[name].ask(str(next(numbers[name]))), name)
                for name, peer in able.items()
                if repeat < peer.repeats
            }
            for name, values in in_turns(turn, 1).items():
                answers[name] += values
    finally:
        for worker in workers.values():
            worker.close()
    sides = {
        name: summary(values, workers[name].first, seeds, env_steps, with_curve) for name, values in answers.items()
    }
    ours = sides["purerl"]["env_steps_per_s"]["median"]
    for side in sides.values():
        side["purerl_is_faster_by"] = round(ours / side["env_steps_per_s"]["median"], 2)
    return {"seeds": seeds, "env_steps_per_seed": env_steps, "sides": sides}


def iteration_of(algo: dict[str, Any]) -> int:
    """Environment steps between two rounds of gradient steps."""
    return algo["num_envs"] * algo.get("steps_per_update", 1)


def summary(
    answers: list[Any], first: dict[str, Any], seeds: int, env_steps: int, with_curve: bool = True
) -> dict[str, Any]:
    """One side's rates, and its curve where every bin holds an iteration."""
    seconds = [answer["seconds"] for answer in answers]
    curve = pooled([answer["curve"] for answer in answers]) if with_curve else [None] * BINS
    return {
        "repeats": len(answers),
        "training_s": spread(seconds, 3)._asdict(),
        "env_steps_per_s": spread([seeds * env_steps / s for s in seconds], 0)._asdict(),
        "env_steps_per_s_per_seed": round(env_steps / spread(seconds, 6).median),
        "compile_s": round(first["compile_s"], 1),
        "training_return_by_share": curve,
        "last_tenth_return_by_seed": [pooled([a["curve"]], BINS // 10)[-1] if with_curve else None for a in answers],
        **final_score([score for answer in answers for score in answer.get("final_returns", [])]),
        "versions": first["versions"],
    }


def final_score(returns: list[float]) -> dict[str, Any]:
    """Mean return of the final policies with the 95 % interval of Student's t over seeds; nothing of no returns."""
    if not returns:
        return {}
    half = float(stats.t.ppf(0.975, len(returns) - 1) * stats.sem(returns)) if len(returns) > 1 else None
    return {
        "final_return": {"mean": round(float(np.mean(returns)), 2), "half_interval": half and round(half, 2)},
        "final_return_by_seed": [round(score, 2) for score in returns],
    }


def pooled(curves: list[list[list[float]]], last: int = 1) -> list[float | None]:
    """Mean returns per bin over all curves; the last `last` bins count as one. None where no episode ended."""
    sums = [[sum(curve[i][j] for curve in curves) for j in range(2)] for i in range(BINS)]
    sums = [*sums[:-last], [sum(pair[j] for pair in sums[-last:]) for j in range(2)]]
    return [round(total / count, 1) if count else None for total, count in sums]


# The measurement


def measure(args: argparse.Namespace) -> dict[str, Any]:
    config = load_config(args.config)
    peers = available(peers_of(args))
    groups, whole = [], iteration_of(config.algo)
    for seeds in args.seeds:
        full = args.env_steps or config.algo["total_env_steps"]
        env_steps = full if seeds <= args.full_seeds else max(int(full * args.full_seeds / seeds), args.least_steps)
        # Whole iterations: sides round a part of one up or down.
        episodes = args.final_episodes if args.work in TEAMS else 0
        groups.append(group(peers, Path(args.config), seeds, max(env_steps // whole, 1) * whole, episodes))
        report(groups[-1])
    return {"configuration": Path(args.config).name, "devices": args.devices, "groups": groups}


def report(values: dict[str, Any]) -> None:
    """One table per number of seeds; returns are those of training in the quarters of it, and in its last tenth."""
    print(f"\n{values['seeds']} seed(s) x {values['env_steps_per_seed']:,} environment steps")
    head = ("steps/s", "lowest", "highest", "per seed", "purerl/it", "compile")
    print(f"{'':10} {head[0]:>11} {head[1]:>11} {head[2]:>11} {head[3]:>9} {head[4]:>9} {head[5]:>8}  returns")
    for name, side in values["sides"].items():
        rate, curve = side["env_steps_per_s"], side["training_return_by_share"]
        quarters = [curve[i] for i in (BINS // 4 - 1, BINS // 2 - 1, 3 * BINS // 4 - 1, BINS - 1)]
        print(
            f"{name:10} {rate['median']:11,.0f} {rate['lowest']:11,.0f} {rate['highest']:11,.0f}"
            f" {side['env_steps_per_s_per_seed']:9,} {side['purerl_is_faster_by']:9.2f} {side['compile_s']:7.1f}s"
            f"  {' '.join('-' if value is None else f'{value:.0f}' for value in quarters)}{final_words(side)}"
        )


def final_words(side: dict[str, Any]) -> str:
    """What the final policies of a side reach, where they were played out."""
    final = side.get("final_return")
    if final is None:
        return ""
    spread = "" if final["half_interval"] is None else f" +- {final['half_interval']:.2f}"
    return f"  final {final['mean']:.2f}{spread}"
