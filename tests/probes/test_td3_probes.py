"""TD3 learns the values and policies of the probe worlds: feed-forward on transitions, and with an LSTM on episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_worlds import CUES, FEED_FORWARD_PROBES, LENGTH, RECURRENT_PROBES, Probe, episodes, probe_world, stacked

from purerl.algos import td3
from purerl.critics import Critics
from purerl.networks import NetworkConfig

GAMMA = 0.5
COMMON = {
    "num_envs": 8, "warmup_steps": 64, "buffer_size": 4096, "gamma": GAMMA, "tau": 0.05, "actor_lr": 3e-3,
    "critic_lr": 1e-2, "target_noise": 0.1, "noise_clip": 0.2,
}  # fmt: skip
PERCEPTRON = NetworkConfig(hidden_sizes=(16, 16), activation="tanh")
MEMORY = NetworkConfig(lstm_hidden_size=16, hidden_sizes=(16,), activation="tanh")
TRANSITIONS = td3.Config(
    **COMMON, steps_per_update=8, sequence_length=1, updates_per_step=0.25, batch_size=64, actor=PERCEPTRON,
    critic=PERCEPTRON,
)  # fmt: skip
EPISODES = td3.Config(
    **COMMON, steps_per_update=LENGTH, sequence_length=LENGTH, updates_per_step=0.25, batch_size=16, actor=MEMORY,
    critic=MEMORY,
)  # fmt: skip
CONCATENATED = EPISODES.model_copy(update={"critic_arch": "concat"})


def trained(config: td3.Config, probes: dict[str, Probe], updates: int, episode_length: int | None = None):
    """Per probe: `(values, act)`, the value of the policy's own actions and those actions along observations [T, N, d].

    All probes train in one program, each with a key of its own.
    """
    env = probe_world(episode_length)
    nets = td3.networks(config, Critics(config.critic, config.critic_arch, 2, 1))

    @jax.jit
    def train(probes, keys):
        def one(probe, key):
            algorithm = td3.make(config, env, probe)
            state = algorithm.init(key, algorithm.hparams)
            state, _ = jax.lax.scan(lambda s, _: (algorithm.update(s)[0], None), state, length=updates)
            return algorithm.policy(state)

        return jax.vmap(one)(probes, keys)

    policies = train(stacked(probes), jax.random.split(jax.random.key(0), len(probes)))

    @jax.jit
    def asked(policy, obs):
        action = jnp.tanh(nets.actor(policy.actor, obs))
        return jnp.mean(nets.critics.along(policy.critics, obs, action), axis=0), action

    def ask(name: str, obs) -> tuple[np.ndarray, np.ndarray]:
        at = list(probes).index(name)
        value, action = asked(jax.tree.map(lambda x: x[at], policies), jnp.asarray(obs, jnp.float32))
        return np.asarray(value), np.asarray(action)[..., 0]

    return ask


# Feed-forward on transitions


@pytest.fixture(scope="module")
def feed_forward():
    ask = trained(TRANSITIONS, FEED_FORWARD_PROBES, updates=60)
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
    np.testing.assert_allclose(action, [0.5, -0.5], atol=0.1)
    np.testing.assert_allclose(value, 0, atol=0.05)


def test_a_time_limit_does_not_end_the_world(feed_forward):
    """Cutting the bootstrap at every tenth step would show: the mean over the steps would be 1.8."""
    value, _ = feed_forward("endless", (1, 0), (-1, 0))
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.05)


# With memory, on whole episodes


@pytest.fixture(scope="module", params=["history", pytest.param("concat", marks=pytest.mark.slow)])
def recurrent(request):
    config = EPISODES if request.param == "history" else CONCATENATED
    ask = trained(config, RECURRENT_PROBES, updates=160, episode_length=LENGTH)
    return lambda name: ask(name, episodes(RECURRENT_PROBES[name]))


def test_memory_connects_the_cue_with_the_end(recurrent):
    _, action = recurrent("remembered")
    np.testing.assert_allclose(action[-1], CUES / 2, atol=0.15)


def test_without_memory_the_end_cannot_know_the_cue():
    """What makes the probe a probe: after the first step both cues look the same."""
    seen = episodes(RECURRENT_PROBES["remembered"])
    assert (seen[0, 0] != seen[0, 1]).any()
    np.testing.assert_array_equal(seen[1:, 0], seen[1:, 1])


def test_values_count_the_steps_to_the_reward(recurrent):
    """Nothing in the observation tells the time: only memory can discount the reward at the end."""
    value, _ = recurrent("delayed")
    expected = 4 * GAMMA ** (LENGTH - 1 - np.arange(LENGTH))
    np.testing.assert_allclose(value[-4:], np.tile(expected[-4:, None], 2), atol=0.3)
    np.testing.assert_allclose(value[:4], np.tile(expected[:4, None], 2), atol=0.3)


def test_a_time_limit_does_not_end_the_world_in_whole_episodes(recurrent):
    """Cut off at the limit, the last step would be worth 1 and the one before it 1.5."""
    value, _ = recurrent("endless")
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.1)
