"""CQL distrusts what nobody has tried, and learns from recorded choices, masks and teams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import GAMMA
from probe_worlds import leaving_world
from recorded_probes import CONFIG, made_of, spaces, trained

from envs_jax.spaces import Box, Discrete
from purerl.algos import bc, cql
from purerl.learn import dataset
from purerl.run import recording

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
        value.append(np.asarray(algorithm.q_values(policy, obs, asked, None)).mean(axis=0)[0])
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


@pytest.mark.slow
def test_agents_out_of_play_teach_nothing(tmp_path):
    """The second agent leaves after the first step; what it would have seen and got is wild."""
    env = leaving_world(absent_sees=50.0, absent_gets=-100.0)
    data = recording.record(env, [recording.Behaviour("random")], 32, seed=0, num_envs=32, settings={})
    np.testing.assert_array_equal(data.terminated[0].sum(axis=0), [32, 64])
    dataset.write(tmp_path / "leaving.npz", data)
    algorithm, policy = trained(cql, cql.Config(dataset=str(tmp_path / "leaving.npz"), **CONFIG), env, updates=6)
    value = algorithm.q_values(policy, jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1)), None).mean()
    later = algorithm.q_values(policy, jnp.ones((1, 1, 1)), jnp.zeros((1, 1, 1)), None).mean()
    np.testing.assert_allclose(later, 1.0, atol=0.15)
    np.testing.assert_allclose(value, (1 + GAMMA + 1) / 2, atol=0.2)
