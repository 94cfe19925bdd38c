"""PureJaxRL's side of `peers.py`: its `ppo.py` from a checkout, seeds by `vmap`. See `serve.py` for the protocol.

PureJaxRL is no package: `purejaxrl_path` in the request names the checkout. Its wrappers import brax and navix for
tasks that are not measured here; where those are absent, empty modules stand in for them.

Several seeds run on one thread of XLA: with two, its `vmap`ped program stood still for ever (JAX 0.10.2, two cores).
"""

import importlib
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
from serve import Run, binned, serve


def stand_in(names: dict[str, tuple[str, ...]]) -> None:
    """Empty modules with the given attributes."""
    for name, attributes in names.items():
        module = types.ModuleType(name)
        for attribute in attributes:
            setattr(module, attribute, None)
        sys.modules[name] = module


def load_ppo(checkout: str) -> Any:
    sys.path.insert(0, str(Path(checkout) / "purejaxrl"))
    try:
        return importlib.import_module("ppo")
    except ModuleNotFoundError as error:
        if error.name not in ("brax", "navix"):
            raise
    training = "brax.envs.wrappers.training"
    stand_in(
        {
            "brax": ("envs",),
            "brax.envs": (),
            "brax.envs.wrappers": (),
            training: ("EpisodeWrapper", "AutoResetWrapper"),
            "navix": (),
        }
    )
    sys.modules.pop("wrappers", None)
    return importlib.import_module("ppo")


def build(request: dict[str, Any]) -> tuple[Run, float]:
    algo, env_steps, seeds = request["algo"], request["env_steps"], request["seeds"]
    if seeds > 1:
        os.environ["NPROC"] = "1"  # read when JAX makes its CPU device, so before the first key
    nets = algo["actor"], algo["critic"]
    if algo["name"] != "ppo" or any(net["hidden_sizes"] != [64, 64] or net["activation"] != "tanh" for net in nets):
        raise ValueError("PureJaxRL's PPO is measured with two hidden layers of 64 and tanh, which it has fixed")
    config = {
        "LR": algo["lr"],
        "NUM_ENVS": algo["num_envs"],
        "NUM_STEPS": algo["steps_per_update"],
        "TOTAL_TIMESTEPS": env_steps,
        "UPDATE_EPOCHS": algo["epochs"],
        "NUM_MINIBATCHES": algo["minibatches"],
        "GAMMA": algo["gamma"],
        "GAE_LAMBDA": algo["gae_lambda"],
        "CLIP_EPS": algo["clip"],
        "ENT_COEF": algo["entropy_coef"],
        "VF_COEF": algo["value_coef"],
        "MAX_GRAD_NORM": algo["max_grad_norm"],
        "ACTIVATION": "tanh",
        "ENV_NAME": request["task"],
        "ANNEAL_LR": algo["lr_schedule"]["type"] == "linear",
        "DEBUG": False,
    }

    def keys(seed: int):
        return jax.random.PRNGKey(seed) if seeds == 1 else jax.random.split(jax.random.PRNGKey(seed), seeds)

    start = time.perf_counter()
    one = load_ppo(request["purejaxrl_path"]).make_train(config)
    train = jax.jit(one if seeds == 1 else jax.vmap(one)).lower(keys(0)).compile()
    compile_s = time.perf_counter() - start

    def run(seed: int):
        start = time.perf_counter()
        info = jax.block_until_ready(train(keys(seed)))["metrics"]
        seconds = time.perf_counter() - start
        ended = np.asarray(info["returned_episode"])
        ends_at = np.asarray(info["timestep"])[ended] * algo["num_envs"]
        return seconds, binned(ends_at, np.asarray(info["returned_episode_returns"])[ended], env_steps, request["bins"])

    return run, compile_s


if __name__ == "__main__":
    serve(build, ("jax", "gymnax"))
