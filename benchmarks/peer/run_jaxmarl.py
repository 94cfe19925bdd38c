"""JaxMARL's side of `peers.py`: its QMIX and VDN with memory, seeds by `vmap`. See `serve.py` for the protocol.

The library's algorithms are scripts beside its package: `jaxmarl_path` in the request names the checkout. Their command
lines import hydra, omegaconf and wandb; where those are absent, empty modules stand in for them. The timed program
evaluates nothing. Its steps are counted from the start, ours after the warm-up, so it is given those of the warm-up
besides.
"""

import importlib
import importlib.util
import sys
import time
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from serve import Run, serve

SCRIPTS = {"qmix": "qmix_rnn", "vdn": "vdn_rnn"}


def load_script(checkout: str, name: str) -> Any:
    for absent in ("hydra", "omegaconf", "wandb"):
        if importlib.util.find_spec(absent) is None:
            module: Any = types.ModuleType(absent)
            module.main, module.OmegaConf = (lambda **_: lambda function: function), None
            sys.modules[absent] = module
    sys.path.insert(0, str(Path(checkout) / "baselines" / "QLearning"))
    return importlib.import_module(SCRIPTS[name])


def settings(request: dict[str, Any]) -> dict[str, Any]:
    algo, net = request["algo"], request["algo"]["q_network"]
    hidden = net["rnn_hidden_dim"]
    if net["type"] != "rnn" or list(net["hidden_dims"]) != [hidden] or net["previous_action"] or net["dueling"]:
        raise ValueError("JaxMARL's agents are a layer and a GRU of one width, and do not see their last action")
    if algo["chunk_length"] != algo["steps_per_update"] or algo["burn_in"] or algo["optimizer"] != "radam":
        raise ValueError("JaxMARL learns from whole roll-outs, without burn-in, by RAdam")
    steps, mixing = algo["num_envs"] * algo["steps_per_update"], algo["mixing_network"]
    total = request["env_steps"] + algo["warmup_steps"]
    return {
        "ENV_NAME": request["task"],
        "ENV_KWARGS": request["task_settings"],
        "TOTAL_TIMESTEPS": total,
        "NUM_ENVS": algo["num_envs"],
        "NUM_STEPS": algo["steps_per_update"],
        "BUFFER_SIZE": algo["buffer_size"] // algo["steps_per_update"],  # roll-outs
        "BUFFER_BATCH_SIZE": algo["batch_size"],
        "NUM_EPOCHS": round(algo["updates_per_step"] * steps),
        "LEARNING_STARTS": algo["warmup_steps"],
        "HIDDEN_SIZE": hidden,
        "MIXER_EMBEDDING_DIM": mixing["mixing_embed_dim"],
        "MIXER_HYPERNET_HIDDEN_DIM": mixing["hypernet_embed"],
        "MIXER_INIT_SCALE": mixing["last_layer_scale"],
        "EPS_START": algo["epsilon_start"],
        "EPS_FINISH": algo["epsilon_end"],
        "EPS_DECAY": algo["epsilon_anneal_steps"] / total,
        "LR": algo["lr"],
        "LR_LINEAR_DECAY": algo["lr_schedule"]["type"] == "linear",
        "MAX_GRAD_NORM": algo["max_grad_norm"],
        "TARGET_UPDATE_INTERVAL": algo["target_update_interval"],
        "TAU": algo["tau"],
        "GAMMA": algo["gamma"],
        "TEST_DURING_TRAINING": False,
        "TEST_INTERVAL": 1.0,
        "TEST_NUM_STEPS": 1,
        "TEST_NUM_ENVS": 1,
        "WANDB_MODE": "disabled",
    }


def greedy_return(script: Any, env: Any, params: Any, hidden: int, episodes: int, key: jax.Array) -> jax.Array:
    """Mean return of the team in the first episodes of fresh environments, which all end with the time limit."""
    worlds = script.CTRolloutManager(env, batch_size=episodes)
    network = script.RNNQNetwork(action_dim=worlds.max_action_space, hidden_dim=hidden)
    agents = worlds.agents

    def body(carry, key):
        obs, state, memory = carry
        seen = jnp.stack([obs[a] for a in agents])[:, None]
        fresh = jnp.zeros((len(agents), 1, episodes), bool)
        memory, q = jax.vmap(network.apply, (None, 0, 0, 0))(params, memory, seen, fresh)
        legal = worlds.get_valid_actions(state.env_state)
        action = {a: jnp.argmax(jnp.where(legal[a] > 0, q[i, 0], -jnp.inf), axis=-1) for i, a in enumerate(agents)}
        obs, state, reward, _, _ = worlds.batch_step(key, state, action)
        return (obs, state, memory), reward["__all__"]

    key, key_reset = jax.random.split(key)
    memory = script.ScannedRNN.initialize_carry(hidden, len(agents), episodes)
    start = *worlds.batch_reset(key_reset), memory
    _, rewards = jax.lax.scan(body, start, jax.random.split(key, env.max_steps + 1))
    return jnp.mean(jnp.sum(rewards, axis=0))


def build(request: dict[str, Any]) -> tuple[Run, float]:
    name, seeds, config = request["algo"]["name"], request["seeds"], settings(request)
    start = time.perf_counter()
    script = load_script(request["jaxmarl_path"], name)
    env, _ = script.env_from_config(config)

    def keys(seed: int):
        return jax.random.split(jax.random.PRNGKey(seed), seeds)

    train = jax.jit(jax.vmap(script.make_train(config, env))).lower(keys(0)).compile()
    compile_s = time.perf_counter() - start

    @jax.jit
    def final_returns(params, keys):
        score = lambda params, key: greedy_return(  # noqa: E731
            script, env, params, config["HIDDEN_SIZE"], request["final_episodes"], key
        )
        return jax.vmap(score)(params, keys)

    def run(seed: int):
        start = time.perf_counter()
        params = jax.block_until_ready(train(keys(seed)))["runner_state"][0].params
        seconds = time.perf_counter() - start
        returns = final_returns(params["agent"] if name == "qmix" else params, keys(10_000 + seed))
        return seconds, [[0.0, 0.0]], {"final_returns": np.asarray(returns).tolist()}

    return run, compile_s


if __name__ == "__main__":
    serve(build, ("jaxmarl", "jax", "flashbax"))
