"""Stable-Baselines3's and SBX's side of `peers.py`: PPO, SAC and TD3. See `serve.py` for the protocol.

`library` in the request is `stable_baselines3` (PyTorch) or `sbx` (JAX). One seed at a time; environments are
gymnasium's, stepped in this process. SBX compiles inside its first training: a short one is run first, and its seconds
stand for the compilation. Rates are clipped as the library does by default where it has no key for it.
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

    def train(seed: int, env_steps: int):
        worlds = make_vec_env(request["task"], algo["num_envs"], seed=seed)  # with monitors, which keep the returns
        kwargs = {"policy_kwargs": network(library, algo), "device": "cpu", "seed": seed}
        model = algorithm("MlpPolicy", worlds, **kwargs, **settings(library, algo, env_steps))
        start = time.perf_counter()
        model.learn(env_steps)
        return time.perf_counter() - start, worlds

    few = 2 * algo["num_envs"] * algo["steps_per_update"] if algo["name"] == "ppo" else algo["warmup_steps"] + 200
    compile_s, _ = train(0, few)

    def run(seed: int):
        seconds, worlds = train(seed, env_steps)
        lengths, returns = (worlds.env_method(f"get_episode_{what}") for what in ("lengths", "rewards"))
        ends_at = np.concatenate([np.cumsum(each) for each in lengths]) * algo["num_envs"]
        return seconds, binned(ends_at, np.concatenate(returns), env_steps, request["bins"])

    return run, compile_s if library == "sbx" else 0.0


if __name__ == "__main__":
    serve(build, ("stable-baselines3", "torch"))
