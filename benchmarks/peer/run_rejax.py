"""rejax's side of `peers.py`: PPO, SAC and TD3, seeds by `vmap`. See `serve.py` for the protocol.

No evaluations are run and nothing is logged in the timed program. Training returns come from a second program on the
same seeds, whose environment counts them, because rejax only reports evaluations.
rejax has no learning-rate schedule and clips gradients element by element.
"""

import time
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import rejax
from serve import Run, same_rate, serve, updates_per_iteration

HALF_RANGE = {"Pendulum-v1": 2.0}
"""purerl gives noise in units of the half range, rejax in the environment's."""


class Counted(NamedTuple):
    """State of an environment and what its episodes have returned so far."""

    state: Any
    running: jax.Array
    ended: jax.Array
    episodes: jax.Array


class Counting:
    """An environment that keeps the sum and the number of its finished episodes' returns."""

    def __init__(self, env: Any):
        self.env = env

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # rejax copies its settings deeply, which asks before there is one
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, key, params):
        obs, state = self.env.reset(key, params)
        return obs, Counted(state, jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))

    def step(self, key, counted, action, params):
        obs, state, reward, done, info = self.env.step(key, counted.state, action, params)
        running = counted.running + jnp.squeeze(reward)
        ended, episodes = counted.ended + jnp.where(done, running, 0.0), counted.episodes + done
        return obs, Counted(state, jnp.where(done, 0.0, running), ended, episodes), reward, done, info


def settings(request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    algo = request["algo"]
    common = {
        "total_timesteps": request["env_steps"],
        "num_envs": algo["num_envs"],
        "gamma": algo["gamma"],
        "max_grad_norm": algo["max_grad_norm"],
        "skip_initial_evaluation": True,
    }
    net = {"hidden_layer_sizes": tuple(algo["actor"]["hidden_sizes"]), "activation": algo["actor"]["activation"]}
    if algo["name"] == "ppo":
        return "ppo", common | {
            "learning_rate": algo["lr"],
            "num_steps": algo["steps_per_update"],
            "num_epochs": algo["epochs"],
            "num_minibatches": algo["minibatches"],
            "gae_lambda": algo["gae_lambda"],
            "clip_eps": algo["clip"],
            "ent_coef": algo["entropy_coef"],
            "vf_coef": algo["value_coef"],
            "agent_kwargs": net,
        }
    replay = common | {
        "total_timesteps": request["env_steps"] + algo["warmup_steps"],  # purerl's steps are those after its warm-up
        "learning_rate": same_rate(algo),
        "num_epochs": updates_per_iteration(algo),
        "buffer_size": algo["buffer_size"],
        "fill_buffer": algo["warmup_steps"],
        "batch_size": algo["batch_size"],
        "polyak": 1 - algo["tau"],
        "target_update_freq": algo["num_envs"],
    }
    if algo["name"] == "sac":
        sizes = net.pop("hidden_layer_sizes")
        return "sac", replay | {"hidden_layer_sizes": sizes, "agent_kwargs": net}
    half = HALF_RANGE[request["task"]]
    if net["hidden_layer_sizes"] != (64, 64):
        raise ValueError("rejax's TD3 has two hidden layers of 64 and no key for others")
    return "td3", replay | {
        "policy_delay": algo["policy_delay"],
        "exploration_noise": half * algo["exploration"]["final_noise_std"],
        "target_noise": half * algo["target_noise"],
        "target_noise_clip": half * algo["noise_clip"],
        "actor_kwargs": {"activation": net["activation"]},
        "critic_kwargs": {"activation": net["activation"]},
    }


def build(request: dict[str, Any]) -> tuple[Run, float]:
    name, config = settings(request)
    env, env_params = gymnax.make(request["task"])
    seeds, env_steps, bins = request["seeds"], config["total_timesteps"], request["bins"]

    def keys(seed: int):
        return jax.random.PRNGKey(seed) if seeds == 1 else jax.random.split(jax.random.PRNGKey(seed), seeds)

    def program(env, freq: int, callback):
        algo = rejax.get_algo(name).create(env=env, env_params=env_params, eval_freq=freq, **config)
        train = algo.replace(eval_callback=callback).train
        return jax.jit(train if seeds == 1 else jax.vmap(train)).lower(keys(0)).compile()

    start = time.perf_counter()
    timed = program(env, env_steps, lambda algo, state, key: jnp.zeros(()))
    compile_s = time.perf_counter() - start
    counted = bins > 1 and program(
        Counting(env),
        env_steps // bins,
        lambda algo, state, key: (jnp.sum(state.env_state.ended), jnp.sum(state.env_state.episodes)),
    )

    def run(seed: int):
        start = time.perf_counter()
        jax.block_until_ready(timed(keys(seed)))
        seconds = time.perf_counter() - start
        if not counted:
            return seconds, [[0.0, 0.0]]
        _, so_far = counted(keys(seed))
        total, episodes = (np.diff(np.asarray(x).reshape(seeds, -1).sum(axis=0), prepend=0.0)[:bins] for x in so_far)
        return seconds, np.stack([total, episodes], axis=1).tolist()

    return run, compile_s


if __name__ == "__main__":
    serve(build, ("rejax", "jax", "gymnax"))
