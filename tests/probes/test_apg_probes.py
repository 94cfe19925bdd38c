"""APG learns the values and policies of the probe worlds: feed-forward, and with memory over windows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_worlds import CUES, FEED_FORWARD_PROBES, RECURRENT_PROBES, Probe, episodes, probe_world, stacked

from purerl.algos import apg
from purerl.networks import NetworkConfig

GAMMA = 0.5
PERCEPTRON = NetworkConfig(hidden_sizes=(16, 16), activation="tanh")
MEMORY = NetworkConfig(lstm_hidden_size=16, hidden_sizes=(16,), activation="tanh")
FEED_FORWARD = apg.Config(
    num_envs=16, steps_per_update=8, gamma=GAMMA, lr=1e-2, critic_lr=1e-2, critic_epochs=4, critic_minibatches=2,
    td_lambda=0.9, actor=PERCEPTRON, critic=PERCEPTRON,
)  # fmt: skip
RECURRENT = FEED_FORWARD.model_copy(update={"actor": MEMORY, "critic": MEMORY, "steps_per_update": 15})


def trained(config: apg.Config, probes: dict[str, Probe], updates: int):
    """Per probe: `(values, actions)` along observations [T, N, d] from an empty memory."""
    env = dataclasses.replace(probe_world(), differentiable=True)

    @jax.jit
    def train(probes, keys):
        def one(probe, key):
            algorithm = apg.make(config, env, probe)
            state = algorithm.init(key, algorithm.hparams)
            return jax.lax.scan(lambda s, _: (algorithm.update(s)[0], None), state, length=updates)[0]

        states = jax.vmap(one)(probes, keys)
        return states.actor, states.critic.params

    params = train(stacked(probes), jax.random.split(jax.random.key(0), len(probes)))
    bound = apg.bind(config, env, next(iter(probes.values())))

    @jax.jit
    def asked(actor, critic, obs):
        return bound.critic(critic, obs)[..., 0], bound.actions.squash(bound.actor(actor, obs))[..., 0]

    def ask(name: str, obs) -> tuple[np.ndarray, np.ndarray]:
        at = list(probes).index(name)
        value, action = asked(*jax.tree.map(lambda x: x[at], params), jnp.asarray(obs, jnp.float32))
        return np.asarray(value), np.asarray(action)

    return ask


# Feed-forward


@pytest.fixture(scope="module")
def feed_forward():
    ask = trained(FEED_FORWARD, FEED_FORWARD_PROBES, updates=100)
    return lambda name, *observations: [x[0] for x in ask(name, [observations])]


def test_constant_reward(feed_forward):
    value, _ = feed_forward("constant", (1, 0), (-1, 0))
    np.testing.assert_allclose(value, 1, atol=0.05)


def test_reward_that_the_observation_tells(feed_forward):
    value, _ = feed_forward("observed", (1, 0), (-1, 0))
    np.testing.assert_allclose(value, [1, -1], atol=0.1)


def test_delayed_reward_is_discounted(feed_forward):
    value, _ = feed_forward("delayed", (1, 0), (1, 0.5), (-1, 0), (-1, 0.5))
    np.testing.assert_allclose(value, [GAMMA, 1, GAMMA, 1], atol=0.05)


def test_policy_follows_the_cue(feed_forward):
    value, action = feed_forward("chosen", (1, 0), (-1, 0))
    np.testing.assert_allclose(action, [0.5, -0.5], atol=0.05)
    np.testing.assert_allclose(value, 0, atol=0.05)


def test_a_time_limit_does_not_end_the_world(feed_forward):
    """Cutting the bootstrap at every tenth step would show: the mean over the steps would be 1.8."""
    value, _ = feed_forward("endless", (1, 0), (-1, 0))
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.05)


# With memory


@pytest.fixture(scope="module")
def recurrent():
    ask = trained(RECURRENT, RECURRENT_PROBES, updates=120)
    return lambda name: ask(name, episodes(RECURRENT_PROBES[name]))


def test_memory_connects_the_cue_with_the_end(recurrent):
    """The reward's gradient reaches the first step through five steps of memory."""
    _, action = recurrent("remembered")
    np.testing.assert_allclose(action[-1], CUES / 2, atol=0.1)


def test_values_count_the_steps_to_the_reward(recurrent):
    value, _ = recurrent("delayed")
    expected = 4 * GAMMA ** (len(value) - 1 - np.arange(len(value)))
    np.testing.assert_allclose(value, np.tile(expected[:, None], 2), atol=0.3)


def test_a_time_limit_does_not_end_the_world_for_a_critic_with_memory(recurrent):
    value, _ = recurrent("endless")
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.1)
