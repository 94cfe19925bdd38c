"""Where an iteration of PPO spends its time: roll-out, advantages, shuffle, gradient steps; and what bounds the last.

    python benchmarks/ppo_time.py [--config configs/cartpole_ppo.yaml] [--repeats 15] [overrides]

Every part is compiled by itself and run a hundred times inside one program, so calls cost nothing; the parts need not
add up to the whole, because one program shares what two need. One thread. Reading order: the parts, the products'
arithmetic and the rate at which this core multiplies, the record.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import record

from purerl.algos import ppo
from purerl.config import load_config
from purerl.learn import sharding
from purerl.learn.actors import Actors
from purerl.learn.minibatches import memory_of, minibatches
from purerl.learn.policy_gradient import Batch, clipped_surrogate, coefficients, improved
from purerl.learn.returns import generalised_advantages
from purerl.learn.trajectory import values_along
from purerl.nets.policies import output_size
from purerl.run.program import scan_updates
from purerl.run.runs import build

TIMES = 100
"""Repetitions inside one program."""
SETTLED = 50
"""Update calls before the measurement."""


def repeated(function: Callable[[Any, jax.Array], Any], start: Any) -> Callable[[], float]:
    """Microseconds of one `function(carry, key) -> carry`, measured over `TIMES` of them."""
    keys = jax.random.split(jax.random.key(1), TIMES)
    program = jax.jit(lambda start, keys: jax.lax.scan(lambda c, k: (function(c, k), None), start, keys)[0])
    compiled = program.lower(start, keys).compile()

    def measure() -> float:
        began = time.perf_counter()
        jax.block_until_ready(compiled(start, keys))
        return (time.perf_counter() - began) / TIMES * 1e6

    return measure


def parts(config: ppo.Config, env, env_params) -> dict[str, Callable[[], float]]:
    """The parts of an update call as programs of their own, on a state that has learned for a while."""
    algorithm, actors = ppo.make(config, env, env_params), Actors(config, env, env_params)
    nets = actors.nets
    data = jax.tree.map(jnp.asarray, algorithm.load_data())
    state = jax.jit(algorithm.init)(jax.random.key(0), algorithm.hparams, data)
    state = jax.jit(lambda s, d: scan_updates(algorithm.update, s, d, SETTLED)[0])(state, data)
    h, learner, policy = state.hparams, state.learner, algorithm.policy(state)
    worlds, recorded, _ = jax.jit(actors.record)(policy, env_params, state.worlds, jax.random.key(2))
    steps, actor_memory, _ = actors.seen(policy, recorded)
    memory = memory_of(steps, actor_memory, learner.critic_carry, config.recurrent)

    def advantages(params, reward):
        v_t, v_tp1, _ = values_along(nets, params, learner.critic_carry, steps)
        discount, trace = h.gamma * (1.0 - steps.terminated), h.gae_lambda * (1.0 - steps.truncated)
        return v_t, generalised_advantages(reward, discount, trace, v_t, v_tp1)

    v_t, advantage = jax.jit(advantages)(learner.params["critic"], steps.reward)
    log_prob = nets.distribution(steps.outputs, steps.legal).raw_log_prob(steps.raw_action)
    batch = Batch(
        obs=steps.obs,
        critic_obs=steps.critic_obs,
        legal=steps.legal,
        raw_action=steps.raw_action,
        old_outputs=steps.outputs,
        old_log_prob=log_prob,
        old_value=v_t,
        advantage=advantage,
        target=advantage + v_t,
        weight=steps.weight,
    )
    rows = batch if config.recurrent else jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

    def touched(tree, number):
        """The same numbers, but nothing that a compiler may compute once for all repetitions."""
        return jax.tree.map(lambda x: x + 1e-12 * number if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

    def total(tree):
        return sum(jnp.sum(x).astype(jnp.float32) for x in jax.tree.leaves(tree))

    def one_rollout(worlds, key):
        return actors.record(policy, env_params, worlds, key)[0]

    def one_advantage(number, key):
        return total(advantages(touched(learner.params["critic"], number), steps.reward))

    def one_shuffle(number, key):
        return total(minibatches(key, touched(rows, number), memory, config.epochs, config.minibatches))

    def one_improvement(learner, key):
        c = coefficients(config, h, learner, jnp.zeros(()))
        return improved(nets, config, partial(clipped_surrogate, clip=h.clip), learner, batch, memory, key, c)[0]

    zero = jnp.zeros(())
    return {
        "update": repeated(lambda state, key: algorithm.update(state, data)[0], state),
        "roll_out": repeated(one_rollout, worlds),
        "values_and_advantages": repeated(one_advantage, zero),
        "shuffle": repeated(one_shuffle, zero),
        "shuffle_and_gradient_steps": repeated(one_improvement, learner),
    }


def megaflop(config: ppo.Config, obs_dim: int, outputs: int) -> float:
    """Multiplications and additions in the matrix products of one gradient step: forwards, and both gradients."""
    rows = config.env_steps() / config.minibatches
    count = 0
    for network, out in ((config.actor, outputs), (config.critic, 1)):
        widths = [obs_dim, *network.hidden_sizes, out]
        products = [a * b for a, b in pairwise(widths)]
        count += 3 * sum(products) - products[0]  # nobody asks for the gradient of the observations
    return 2e-6 * rows * count


def product_rate(rows: int, width: int) -> Callable[[], float]:
    """Microseconds of one product [width, width] x [width, rows] of a layer."""
    kernel = jax.random.normal(jax.random.key(0), (width, width)) / width**0.5
    return repeated(lambda h, key: kernel @ h, jnp.ones((width, rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path(__file__).parents[1] / "configs" / "cartpole_ppo.yaml")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value")
    args = parser.parse_intermixed_args()
    before = record.machine()
    sharding.provide_cpu_devices(1, threads=1)
    run = build(load_config(args.config, args.overrides))
    config, env, env_params = ppo.Config(**run.config.algo), run.env, run.env.default_params
    outputs = output_size(env.action_space(env_params))
    width, rows = config.actor.hidden_sizes[0], config.env_steps() // config.minibatches
    measured = parts(config, env, env_params) | {"product": product_rate(rows, width)}
    seconds = [{name: measure() for name, measure in measured.items()} for _ in range(args.repeats)]
    us = {name: round(statistics.median(s[name] for s in seconds), 1) for name in measured}
    steps = config.epochs * config.minibatches
    work = megaflop(config, env.observation_space(env_params).shape[-1], outputs)
    gflops = 2e-3 * width * width * rows / us["product"]
    one = (us["shuffle_and_gradient_steps"] - us["shuffle"]) / steps
    values = {
        "us": us,
        "gradient_step_us": round(one, 1),
        "gradient_step_megaflop": round(work, 3),
        "product_gflops": round(gflops, 1),
        "gradient_step_at_that_rate_us": round(work * 1e3 / gflops, 1),
        "env_steps_per_s": round(config.env_steps() / us["update"] * 1e6),
    }
    print(json.dumps(values, indent=2))
    print(record.write(f"time_of_{args.config.stem}", values, before))


if __name__ == "__main__":
    main()
