"""Learning from recorded data in the probe worlds: datasets made by hand or by random actions, and training on them."""

import jax
import jax.numpy as jnp
import numpy as np
from learners import GAMMA, Ask
from probe_worlds import Probe, probe_world, stacked
from shared import with_data

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Box
from purerl.algos import cql
from purerl.learn import dataset, rollout
from purerl.nets.networks import NetworkConfig
from purerl.run import recording

PERCEPTRON = NetworkConfig(hidden_sizes=(32, 32), activation="tanh")
CONFIG = {
    "gradient_steps_per_update": 100, "batch_size": 64, "gamma": GAMMA, "tau": 0.05, "actor_lr": 3e-3,
    "critic_lr": 1e-2, "learn_alpha": False, "initial_alpha": 0.01, "num_actions": 4, "min_q_weight": 0.1,
    "actor": PERCEPTRON, "critic": PERCEPTRON,
}  # fmt: skip


def made_of(env: Environment, arrays: dict[str, np.ndarray], path) -> str:
    """A dataset file of `env` (with an agent axis)."""
    played = [dataset.Played(behaviour="random", noise=0.0, episodes=1, steps=1, mean_return=0.0)]
    described = dataset.Metadata(
        world=dataset.world_of(env, env.default_params), settings={}, played=played, seed=0, episodes=1, versions={}
    )
    dataset.write(path, dataset.Dataset(**arrays, metadata=described))
    return str(path)


def spaces(size: int, action_space) -> Environment:
    """An environment of which only the spaces matter."""
    return with_agent_axis(
        Environment(
            name="offline", default_params=None, reset_env=None, step_env=None,
            observation_space=lambda params: Box(-1.0, 1.0, (size,)), action_space=lambda params: action_space,
        )  # type: ignore[arg-type]
    )  # fmt: skip


def trained(module, config, env: Environment, updates: int, hparams=None):
    """Policy after `updates` calls; with `hparams` of a leading axis one for each."""
    algorithm = with_data(module.make(config, env))

    @jax.jit
    def train(key, hparams):
        state = algorithm.init(key, hparams)
        return algorithm.policy(jax.lax.scan(lambda s, _: (algorithm.update(s)[0], None), state, length=updates)[0])

    with jax.debug_key_reuse(True):
        if hparams is None:
            return algorithm, train(jax.random.key(0), algorithm.hparams)
        return algorithm, jax.vmap(train, (None, 0))(jax.random.key(0), hparams(algorithm.hparams))


def numbered(x, world: int, worlds: int):
    """Observations that end with the number of their world."""
    row = np.zeros(worlds, np.float32)
    row[world] = 1
    return np.concatenate([x, np.broadcast_to(row, (*x.shape[:-1], row.size))], axis=-1)


def trained_on_records(of: dict[str, Probe], file) -> Ask:
    """One CQL learns all worlds from one dataset: observations end with the number of the world as a one-hot row."""
    env, envs, steps = with_agent_axis(probe_world()), 32, 20

    @jax.jit
    def play(probes, keys):
        def one(probe, key):
            key_start, key_steps = jax.random.split(key)
            worlds = rollout.start_worlds(env, probe, key_start, envs, ())
            draw = lambda key: jax.random.uniform(key, (envs, 1, 1), minval=-1.0)  # noqa: E731
            act = lambda worlds, drawn: (drawn, (), None)  # noqa: E731
            return rollout.collect(env, probe, worlds, act, draw, key_steps, steps)[1]

        return jax.vmap(one)(probes, keys)

    keys = jax.random.split(jax.random.key(1), len(of))
    played = jax.device_get(play(stacked(of), keys))
    parts = []
    for world, probe in enumerate(of.values()):
        one = jax.tree.map(lambda x, world=world: x[world], played)
        quota = np.full(envs, steps // int(probe.length))
        part = recording.whole_episodes(one, quota, None)
        parts.append({**part, "obs": numbered(part["obs"], world, len(of))})
    arrays = {
        name: None if value is None else np.concatenate([part[name] for part in parts], axis=1)
        for name, value in parts[0].items()
    }
    env = spaces(2 + len(parts), Box(-1.0, 1.0, (1,)))
    path = made_of(env, arrays, file)
    algorithm, policy = trained(cql, cql.Config(dataset=path, **CONFIG), env, updates=15)

    def ask(name, obs):
        obs = jnp.asarray(numbered(np.asarray(obs, np.float32), list(of).index(name), len(of)))
        action, _ = algorithm.act(policy, (), obs, None, None, True)
        return np.asarray(algorithm.q_values(policy, obs, action, None)).mean(axis=0), np.asarray(action)[..., 0]

    return ask
