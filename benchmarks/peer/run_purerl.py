"""purerl's side of `peers.py`: whole trainings, seeds spread over the devices. See `serve.py` for the protocol."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from serve import Run, serve

from envs_jax.adapters import with_agent_axis
from envs_jax.episodes import play
from purerl.config import load_config
from purerl.learn import sharding
from purerl.learn.rollout import facts_of
from purerl.run.program import scan_updates
from purerl.run.runs import build as build_run


def greedy_return(env, algorithm, policy, env_params, episodes: int, key) -> jax.Array:
    """Mean return of the team in episodes that the policy plays greedily."""
    env = with_agent_axis(env)

    def act(memory, obs, state, key):
        legal = facts_of(env, env_params, state).legal
        return algorithm.act(policy, memory, obs, legal, key, True)

    memory = algorithm.initial_carry((episodes,))
    return jnp.mean(jnp.sum(play(env, env_params, act, memory, jnp.arange(episodes), key).records["reward"], axis=1))


def build(request: dict[str, Any]) -> tuple[Run, float]:
    seeds, bins, env_steps = request["seeds"], request["bins"], request["env_steps"]
    # Seeds share the devices, a thread each; the minibatches of one seed are too small to be shared.
    devices = min(request["devices"], seeds)
    sharding.provide_cpu_devices(devices, threads=devices)
    config = load_config(request["config"], [f"algo.total_env_steps={env_steps}"])
    built = build_run(config)
    algorithm, episodes = built.algorithm, request["final_episodes"]
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

    @jax.jit
    def final_returns(policies, key):
        score = lambda policy: greedy_return(built.env, algorithm, policy, data.env_params, episodes, key)  # noqa: E731
        return jax.vmap(score)(policies) if seeds > 1 else score(policies)[None]

    def run(seed: int):
        start = time.perf_counter()
        state = layout.place(first(keys(seed), algorithm.hparams, data))
        state, metrics = jax.block_until_ready(rest(state, placed))
        seconds = time.perf_counter() - start
        count = np.asarray(metrics["episode/count"], float).reshape(updates, -1).sum(axis=1)
        total = np.asarray(metrics["episode/return"] * metrics["episode/count"]).reshape(updates, -1).sum(axis=1)
        share = np.arange(updates) * bins // updates
        curve = np.stack([np.bincount(share, x, bins) for x in (total, count)], axis=1).tolist()
        if not episodes:
            return seconds, curve
        policies = jax.device_get((jax.vmap(algorithm.policy) if seeds > 1 else algorithm.policy)(state))
        returns = final_returns(policies, jax.random.key(10_000 + seed))
        return seconds, curve, {"final_returns": np.asarray(returns).tolist()}

    return run, compile_s


if __name__ == "__main__":
    serve(build, ("jax", "gymnax"))
