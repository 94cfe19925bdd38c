"""CQL learns the values and policies of the probe worlds from recorded random actions, and distrusts the unseen.

One network learns all worlds from one dataset: observations end with the number of the world as a one-hot row.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_worlds import FEED_FORWARD_PROBES, leaving_world, probe_world, stacked

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete
from purerl import dataset, recording, rollout
from purerl.algos import bc, cql
from purerl.networks import NetworkConfig

GAMMA = 0.5
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
    algorithm = module.make(config, env)

    @jax.jit
    def train(key, hparams):
        state = algorithm.init(key, hparams)
        return algorithm.policy(jax.lax.scan(lambda s, _: (algorithm.update(s)[0], None), state, length=updates)[0])

    algorithm.read_data()
    with jax.debug_key_reuse(True):
        if hparams is None:
            return algorithm, train(jax.random.key(0), algorithm.hparams)
        return algorithm, jax.vmap(train, (None, 0))(jax.random.key(0), hparams(algorithm.hparams))


def numbered(x, world: int):
    """Observations that end with the number of their world."""
    row = np.zeros(len(FEED_FORWARD_PROBES), np.float32)
    row[world] = 1
    return np.concatenate([x, np.broadcast_to(row, (*x.shape[:-1], row.size))], axis=-1)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
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

    keys = jax.random.split(jax.random.key(1), len(FEED_FORWARD_PROBES))
    played = jax.device_get(play(stacked(FEED_FORWARD_PROBES), keys))
    parts = []
    for world, probe in enumerate(FEED_FORWARD_PROBES.values()):
        one = jax.tree.map(lambda x, world=world: x[world], played)
        quota = np.full(envs, steps // int(probe.length))
        part = recording.whole_episodes(one, quota, None)
        parts.append({**part, "obs": numbered(part["obs"], world)})
    arrays = {
        name: None if value is None else np.concatenate([part[name] for part in parts], axis=1)
        for name, value in parts[0].items()
    }
    env = spaces(2 + len(parts), Box(-1.0, 1.0, (1,)))
    path = made_of(env, arrays, tmp_path_factory.mktemp("probes") / "probes.npz")
    algorithm, policy = trained(cql, cql.Config(dataset=path, **CONFIG), env, updates=15)

    def ask(name, *observations):
        obs = numbered(np.asarray([observations], np.float32), list(FEED_FORWARD_PROBES).index(name))
        action, _ = algorithm.act(policy, (), jnp.asarray(obs), None, None, True)
        return np.asarray(algorithm.q_values(policy, jnp.asarray(obs), action))[:, 0].mean(axis=0), action[0, :, 0]

    return ask


def test_constant_reward(learned):
    value, _ = learned("constant", (1, 0), (-1, 0))
    np.testing.assert_allclose(value, 1, atol=0.1)


def test_reward_that_the_observation_tells(learned):
    value, _ = learned("observed", (1, 0), (-1, 0))
    np.testing.assert_allclose(value, [1, -1], atol=0.15)


def test_delayed_reward_is_discounted(learned):
    value, _ = learned("delayed", (1, 0), (1, 0.5), (-1, 0), (-1, 0.5))
    np.testing.assert_allclose(value, [GAMMA, 1, GAMMA, 1], atol=0.1)


def test_policy_follows_the_cue(learned):
    _, action = learned("chosen", (1, 0), (-1, 0))
    np.testing.assert_allclose(action, [0.5, -0.5], atol=0.2)


def test_a_time_limit_does_not_end_the_world(learned):
    """Cutting the bootstrap at every tenth step would show: the mean over the steps would be 1.8."""
    value, _ = learned("endless", (1, 0), (-1, 0))
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.1)


# What is not in the data

BRINK = 0.2
"""Largest recorded action. Up to it the reward is the action; beyond, nobody has been."""


def test_unseen_actions_are_not_overestimated(tmp_path):
    """The recorded slope promises the most at the far end. Without the conservative term the actor believes it."""
    count, rng = 2048, np.random.default_rng(0)
    action = rng.uniform(-1, BRINK, (1, count, 1, 1)).astype(np.float32)
    env = spaces(1, Box(-1.0, 1.0, (1,)))
    arrays = {
        "obs": np.zeros((2, count, 1, 1), np.float32),
        "action": action,
        "reward": action[..., 0],
        "terminated": np.ones((1, count, 1), bool),
        "truncated": np.zeros((1, count), bool),
        "legal": None,
        "alive": None,
    }
    path = made_of(env, arrays, tmp_path / "brink.npz")
    config = cql.Config(dataset=path, **CONFIG)
    weights = jnp.array([0.0, 2.0])

    def swept(hparams):
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (2,)), hparams).replace(min_q_weight=weights)

    algorithm, policies = trained(cql, config, env, updates=8, hparams=swept)
    obs, asked = jnp.zeros((1, 2, 1)), jnp.array([[[BRINK], [1.0]]])
    chosen, value = [], []
    for index in range(2):
        policy = jax.tree.map(lambda x, i=index: x[i], policies)
        chosen.append(float(algorithm.act(policy, (), obs[0, :1], None, None, True)[0][0, 0]))
        value.append(np.asarray(algorithm.q_values(policy, obs, asked)).mean(axis=0)[0])
    assert chosen[0] > 0.7 and value[0][1] > 0.6, "the probe tempts"
    assert chosen[1] < BRINK + 0.15
    assert value[1][1] < value[1][0] - 0.3, "what nobody has tried is worth less than the best that was tried"


# Choices, masks and agents out of play


@pytest.fixture(scope="module")
def tempted(tmp_path_factory):
    """Three actions pay 1, 2 and 10, the last is legal only where the observation says so. Data: random legal ones."""
    count, rng = 600, np.random.default_rng(0)
    allowed = rng.random(count) < 0.5
    action = np.where(allowed, rng.integers(0, 3, count), rng.integers(0, 2, count))
    legal = np.stack([np.ones(count, bool), np.ones(count, bool), allowed], axis=-1)[None, :, None]
    arrays = {
        "obs": np.tile(allowed.astype(np.float32)[None, :, None, None], (2, 1, 1, 1)),
        "action": action.astype(np.int32)[None, :, None],
        "reward": np.array([1.0, 2.0, 10.0], np.float32)[action][None, :, None],
        "terminated": np.ones((1, count, 1), bool),
        "truncated": np.zeros((1, count), bool),
        "legal": np.tile(legal, (2, 1, 1, 1)),
        "alive": None,
    }
    env = spaces(1, Discrete(3))
    return env, made_of(env, arrays, tmp_path_factory.mktemp("masks") / "masks.npz")


OBS, MASK = jnp.array([[[0.0]], [[1.0]]]), jnp.array([[[True, True, False]], [[True, True, True]]])


def test_the_best_legal_action_is_learned(tempted):
    env, path = tempted
    algorithm, policy = trained(cql, cql.Config(dataset=path, **CONFIG), env, updates=6)
    action, _ = algorithm.act(policy, (), OBS, MASK, None, True)
    np.testing.assert_array_equal(action[:, 0], [1, 2])


def test_cloning_plays_what_was_played(tempted):
    """Uniform over what is legal, so neither the best nor the illegal."""
    env, path = tempted
    keys = ("gradient_steps_per_update", "batch_size", "actor_lr", "actor")
    config = bc.Config(dataset=path, **{key: CONFIG[key] for key in keys})
    algorithm, policy = trained(bc, config, env, updates=4)
    obs, mask = (jnp.repeat(x, 2000, axis=0) for x in (OBS, MASK))
    action, _ = algorithm.act(policy, (), obs, mask, jax.random.key(3), False)
    shares = [np.bincount(part, minlength=3) / 2000 for part in np.asarray(action[:, 0]).reshape(2, 2000)]
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]], atol=0.08)


def test_agents_out_of_play_teach_nothing(tmp_path):
    """The second agent leaves after the first step; what it would have seen and got is wild."""
    env = leaving_world(absent_sees=50.0, absent_gets=-100.0)
    data = recording.record(env, [recording.Behaviour("random")], 32, seed=0, num_envs=32, settings={})
    np.testing.assert_array_equal(data.terminated[0].sum(axis=0), [32, 64])
    dataset.write(tmp_path / "leaving.npz", data)
    algorithm, policy = trained(cql, cql.Config(dataset=str(tmp_path / "leaving.npz"), **CONFIG), env, updates=6)
    value = algorithm.q_values(policy, jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1))).mean()
    later = algorithm.q_values(policy, jnp.ones((1, 1, 1)), jnp.zeros((1, 1, 1))).mean()
    np.testing.assert_allclose(later, 1.0, atol=0.15)
    np.testing.assert_allclose(value, (1 + GAMMA + 1) / 2, atol=0.2)
