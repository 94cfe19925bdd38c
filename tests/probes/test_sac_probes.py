"""SAC learns the values and policies of the probe worlds: on transitions over two steps, on episodes, and choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_worlds import (
    CUES,
    FEED_FORWARD_PROBES,
    LENGTH,
    RECURRENT_PROBES,
    Probe,
    episodes,
    probe_world,
    stacked,
    tempting_world,
)

from envs_jax.adapters import with_agent_axis
from purerl.actions import Choices, actions_of
from purerl.algos import sac
from purerl.critics import Critics
from purerl.networks import NetworkConfig

GAMMA = 0.5
COMMON = {
    "num_envs": 8, "updates_per_step": 0.25, "warmup_steps": 64, "buffer_size": 4096, "gamma": GAMMA, "tau": 0.05,
    "actor_lr": 3e-3, "critic_lr": 1e-2, "initial_alpha": 0.02, "learn_alpha": False,
}  # fmt: skip
"""So little entropy that values are those of the rewards, to two digits."""
PERCEPTRON = NetworkConfig(hidden_sizes=(16, 16), activation="tanh")
MEMORY = NetworkConfig(lstm_hidden_size=16, hidden_sizes=(16,), activation="tanh")
TRANSITIONS = sac.Config(
    **COMMON, steps_per_update=8, sequence_length=1, n_step=2, batch_size=64, actor=PERCEPTRON, critic=PERCEPTRON
)
EPISODES = sac.Config(
    **COMMON, steps_per_update=LENGTH, sequence_length=LENGTH, batch_size=16, actor=MEMORY, critic=MEMORY
)


def nets_of(config, env, params=None) -> sac.Nets:
    env = with_agent_axis(env)
    actions = actions_of(env, params)
    obs_dim = env.observation_space(params).shape[1]
    critics = Critics(config.critic, "history", obs_dim, actions.dim, choices=isinstance(actions, Choices))
    return sac.networks(config, actions, critics)


def trained(config: sac.Config, probes: dict[str, Probe], updates: int, episode_length: int | None = None):
    """Per probe: `(values, actions)` of the greedy policy along observations [T, N, d].

    All probes train in one program, each with a key of its own.
    """
    env = probe_world(episode_length)
    nets = nets_of(config, env, Probe())

    @jax.jit
    def train(probes, keys):
        def one(probe, key):
            algorithm = sac.make(config, env, probe)
            state = algorithm.init(key, algorithm.hparams)
            state, _ = jax.lax.scan(lambda s, _: (algorithm.update(s)[0], None), state, length=updates)
            return state.learner.params

        return jax.vmap(one)(probes, keys)

    params = train(stacked(probes), jax.random.split(jax.random.key(0), len(probes)))

    @jax.jit
    def asked(params, obs):
        action = nets.policy.env_action(nets.policy.distribution(nets.actor(params.actor, obs)).mode())
        return jnp.mean(nets.critics.along(params.critics, obs, action), axis=0), action

    def ask(name: str, obs) -> tuple[np.ndarray, np.ndarray]:
        at = list(probes).index(name)
        value, action = asked(jax.tree.map(lambda x: x[at], params), jnp.asarray(obs, jnp.float32))
        return np.asarray(value), np.asarray(action)[..., 0]

    return ask


# Feed-forward on transitions of two steps


@pytest.fixture(scope="module")
def feed_forward():
    ask = trained(TRANSITIONS, FEED_FORWARD_PROBES, updates=80)
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
    _, action = feed_forward("chosen", (1, 0), (-1, 0))
    np.testing.assert_allclose(action, [0.5, -0.5], atol=0.15)


def test_a_time_limit_does_not_end_the_world(feed_forward):
    """Cutting the bootstrap at every tenth step would show: the mean over the steps would be 1.8."""
    value, _ = feed_forward("endless", (1, 0), (-1, 0))
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.1)


# With memory, on whole episodes


@pytest.fixture(scope="module")
def recurrent():
    ask = trained(EPISODES, RECURRENT_PROBES, updates=160, episode_length=LENGTH)
    return lambda name: ask(name, episodes(RECURRENT_PROBES[name]))


def test_memory_connects_the_cue_with_the_end(recurrent):
    _, action = recurrent("remembered")
    np.testing.assert_allclose(action[-1], CUES / 2, atol=0.2)


def test_values_count_the_steps_to_the_reward(recurrent):
    """Nothing in the observation tells the time: only memory can discount the reward at the end."""
    value, _ = recurrent("delayed")
    expected = 4 * GAMMA ** (LENGTH - 1 - np.arange(LENGTH))
    np.testing.assert_allclose(value, np.tile(expected[:, None], 2), atol=0.3)


def test_a_time_limit_does_not_end_the_world_in_whole_episodes(recurrent):
    """Cut off at the limit, the last step would be worth 1 and the one before it 1.5."""
    value, _ = recurrent("endless")
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.1)


# Choices, some of them illegal


@pytest.fixture(scope="module")
def tempted():
    env = tempting_world(endless=True)
    config = TRANSITIONS.model_copy(update={"n_step": 1})
    algorithm = sac.make(config, env)

    @jax.jit
    def train(key):
        state = algorithm.init(key, algorithm.hparams)
        return jax.lax.scan(lambda s, _: algorithm.update(s), state, length=120)

    return algorithm, nets_of(config, env), *train(jax.random.key(0))


def test_illegal_choices_are_never_taken(tempted):
    *_, metrics = tempted
    assert float(metrics["episode/return"].min()) > 0, "a single illegal choice costs 100"


def test_the_best_legal_choice_is_learned(tempted):
    algorithm, _, state, _ = tempted
    obs = jnp.array([[[0.0]], [[1.0]]])
    mask = jnp.array([[[True, True, False]], [[True, True, True]]])
    action, _ = algorithm.act(algorithm.policy(state), (), obs, mask, jax.random.key(0), True)
    np.testing.assert_array_equal(action[:, 0], [1, 2])


def test_a_choice_that_will_be_illegal_adds_no_value(tempted):
    """After the time limit the world would go on as it is: with another world's legal choices, or with all, the value
    of a world without the best choice would be far above 2 / (1 - gamma)."""
    _, nets, state, _ = tempted
    values = jnp.mean(nets.critics.q_each(state.learner.params.critics, [jnp.array([[0.0], [1.0]])] * 2), axis=0)
    np.testing.assert_allclose([values[0, 1], values[1, 2]], [4.0, 20.0], atol=0.5)
