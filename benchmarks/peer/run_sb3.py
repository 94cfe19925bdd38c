"""Stable-Baselines3's and SBX's side of `peers.py`: PPO, SAC and TD3. See `serve.py` for the protocol.

`library` in the request is `stable_baselines3` (PyTorch) or `sbx` (JAX). One seed at a time; environments are
gymnasium's, stepped in this process. SBX compiles anew for every model, inside its first updates: its models first do
the warm-up and a few updates, whose seconds stand for the compilation, and are then timed over the whole number of
steps; with Stable-Baselines3 the timed training is all there is. Where a library has no key for clipping gradients,
it does as it does by default.
"""

import importlib
import time
from typing import Any

import numpy as np
from serve import Run, binned, same_rate, serve, updates_per_iteration
from stable_baselines3.common.env_util import make_vec_env


def network(library: str, algo: dict[str, Any]) -> dict[str, Any]:
    """`policy_kwargs` of the configured perceptrons."""
    name = algo["actor"]["activation"]
    if library == "sbx":
        flax = importlib.import_module("flax.linen")
        activation = getattr(flax, name)
    else:
        torch = importlib.import_module("torch.nn")
        activation = {"tanh": torch.Tanh, "relu": torch.ReLU, "silu": torch.SiLU, "elu": torch.ELU}[name]
    second = "vf" if algo["name"] == "ppo" else "qf"
    sizes = {"pi": list(algo["actor"]["hidden_sizes"]), second: list(algo["critic"]["hidden_sizes"])}
    return {"net_arch": sizes, "activation_fn": activation}


def settings(library: str, algo: dict[str, Any], env_steps: int) -> dict[str, Any]:
    if algo["name"] == "ppo":
        rate = algo["lr"]
        linear = algo["lr_schedule"]["type"] == "linear"
        return {
            "learning_rate": (lambda left: left * rate) if linear else rate,
            "n_steps": algo["steps_per_update"],
            "batch_size": algo["num_envs"] * algo["steps_per_update"] // algo["minibatches"],
            "n_epochs": algo["epochs"],
            "gamma": algo["gamma"],
            "gae_lambda": algo["gae_lambda"],
            "clip_range": algo["clip"],
            "ent_coef": algo["entropy_coef"],
            "vf_coef": algo["value_coef"],
            "max_grad_norm": algo["max_grad_norm"],
        }
    common = {
        "learning_rate": same_rate(algo),
        "buffer_size": algo["buffer_size"],
        "learning_starts": algo["warmup_steps"],
        "batch_size": algo["batch_size"],
        "tau": algo["tau"],
        "gamma": algo["gamma"],
        "train_freq": 1,
        "gradient_steps": updates_per_iteration(algo),
    }
    if algo["name"] == "sac":
        return common
    noise = importlib.import_module("stable_baselines3.common.noise")
    std = algo["exploration"]["final_noise_std"]
    return common | {
        "policy_delay": algo["policy_delay"],
        "target_policy_noise": algo["target_noise"],
        "target_noise_clip": algo["noise_clip"],
        "action_noise": noise.NormalActionNoise(np.zeros(1), std * np.ones(1)),
    }


def build(request: dict[str, Any]) -> tuple[Run, float]:
    library, algo, env_steps = request["library"], request["algo"], request["env_steps"]
    if request["seeds"] > 1:
        raise ValueError(f"{library} trains one seed at a time")
    if library == "stable_baselines3":
        importlib.import_module("torch").set_num_threads(request["threads"])
    algorithm = getattr(importlib.import_module(library), algo["name"].upper())

    def model_of(seed: int):
        worlds = make_vec_env(request["task"], algo["num_envs"], seed=seed)  # with monitors, which keep the returns
        kwargs = {"policy_kwargs": network(library, algo), "device": "cpu", "seed": seed}
        return algorithm("MlpPolicy", worlds, **kwargs, **settings(library, algo, env_steps)), worlds

    def compiled(seed: int):
        """A model whose updates are compiled, its environments, the steps and the seconds that took."""
        model, worlds = model_of(seed)
        start = time.perf_counter()
        if library == "sbx":
            model.learn(warm_up_steps(algo))
        return model, worlds, model.num_timesteps, time.perf_counter() - start

    def run(seed: int):
        model, worlds, before, _ = compiled(seed)
        start = time.perf_counter()
        model.learn(env_steps, reset_num_timesteps=before == 0)
        seconds = time.perf_counter() - start
        lengths, returns = (worlds.env_method(f"get_episode_{what}") for what in ("lengths", "rewards"))
        ends_at = np.concatenate([np.cumsum(each) for each in lengths]) * algo["num_envs"] - before
        timed = ends_at > 0
        return seconds, binned(ends_at[timed], np.concatenate(returns)[timed], env_steps, request["bins"])

    _, _, _, compile_s = compiled(0)
    return run, compile_s


def warm_up_steps(algo: dict[str, Any]) -> int:
    """Environment steps after which every update has run at least once."""
    if algo["name"] == "ppo":
        return 2 * algo["num_envs"] * algo["steps_per_update"]
    return algo["warmup_steps"] + 100


if __name__ == "__main__":
    serve(build, ("stable-baselines3", "torch"))
