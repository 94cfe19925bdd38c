"""PPO learns the values and policies of the probe worlds: feed-forward, and recurrent with resets inside roll-outs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_worlds import (
    CUES,
    FEED_FORWARD_PROBES,
    LENGTH,
    RECURRENT_PROBES,
    after_updates,
    episodes,
    greedy_actions,
    leaving_world,
    mixed_world,
    probe_world,
    team_world,
    tempted_actions,
    tempting_world,
    trained_actor_critic,
)

from envs_jax.base import Environment
from envs_jax.spaces import Box
from purerl.algos import ppo
from purerl.networks import NetworkConfig
from purerl.onpolicy import ActorCritic

GAMMA = 0.5
PERCEPTRON = NetworkConfig(hidden_sizes=(16, 16), activation="tanh")
MEMORY = NetworkConfig(lstm_hidden_size=16, hidden_sizes=(16,), activation="tanh")
FEED_FORWARD = ppo.Config(
    num_envs=16, steps_per_update=16, epochs=4, minibatches=4, gamma=GAMMA, gae_lambda=0.9, lr=5e-3, value_clip=None,
    entropy_coef=0.0, initial_log_std=-0.5, max_grad_norm=1.0, actor=PERCEPTRON, critic=PERCEPTRON,
)  # fmt: skip
RECURRENT = FEED_FORWARD.model_copy(update={"actor": MEMORY, "critic": MEMORY, "steps_per_update": 20})


@pytest.fixture(scope="module")
def feed_forward():
    ask = trained_actor_critic(ppo.make, FEED_FORWARD, probe_world(), FEED_FORWARD_PROBES, updates=60)
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
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.05)


# With memory: episodes of six steps in roll-outs of twenty, so that ends fall everywhere


@pytest.fixture(scope="module")
def recurrent():
    ask = trained_actor_critic(ppo.make, RECURRENT, probe_world(LENGTH), RECURRENT_PROBES, updates=150)
    return lambda name: ask(name, episodes(RECURRENT_PROBES[name]))


def test_memory_connects_the_cue_with_the_end(recurrent):
    _, action = recurrent("remembered")
    np.testing.assert_allclose(action[-1], CUES / 2, atol=0.2)


def test_values_count_the_steps_to_the_reward(recurrent):
    """Nothing in the observation tells the time: only memory can discount the reward at the end."""
    value, _ = recurrent("delayed")
    expected = 4 * GAMMA ** (LENGTH - 1 - np.arange(LENGTH))
    np.testing.assert_allclose(value, np.tile(expected[:, None], 2), atol=0.4)


def test_a_time_limit_does_not_end_the_world_with_memory(recurrent):
    value, _ = recurrent("endless")
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.1)


# Masks


@pytest.fixture(scope="module")
def tempted():
    algorithm = ppo.make(FEED_FORWARD.model_copy(update={"entropy_coef": 0.01}), tempting_world())
    return algorithm, *after_updates(algorithm, updates=30)


def test_illegal_actions_are_never_taken(tempted):
    _, _, metrics = tempted
    assert float(metrics["episode/return"].min()) > 0, "a single illegal action costs 100"


def test_the_best_legal_action_is_learned(tempted):
    algorithm, state, _ = tempted
    np.testing.assert_array_equal(tempted_actions(algorithm, state), [1, 2])


# Teams and mixed actions


def learned(env: Environment, updates: int, **changes):
    """`(algorithm, state)` after some updates of the feed-forward recipe."""
    algorithm = ppo.make(FEED_FORWARD.model_copy(update=changes), env)
    return algorithm, after_updates(algorithm, updates)[0]


def test_agents_with_parameters_of_their_own_do_what_one_policy_cannot():
    together = greedy_actions(*learned(team_world(), updates=40), np.zeros((2, 1)))
    assert abs(float(together[0, 0] - together[1, 0])) < 1e-6, "what makes the probe a probe"
    alone = greedy_actions(*learned(team_world(), updates=40, shared_parameters=False), np.zeros((2, 1)))
    np.testing.assert_allclose(alone[:, 0], [0.5, -0.5], atol=0.2)


def test_a_central_critic_knows_what_agents_cannot_see():
    _, state = learned(team_world(), updates=40, critic_input="global_state")
    nets = ActorCritic(PERCEPTRON, PERCEPTRON, Box(-1.0, 1.0, (2, 1)), obs_dim=1, critic_dim=1)
    value = nets.value(state.learner.params["critic"], jnp.array([[1.0], [-1.0]]))
    np.testing.assert_allclose(value[0] - value[1], 2.0, atol=0.3)


def test_an_agent_that_leaves_has_had_its_last_reward():
    """The absent agent sees what the other sees in its last step, which is worth 1: counted on, it would make 1.5."""
    _, state = learned(leaving_world(), updates=60, critic_input="obs", shared_parameters=False)
    nets = ActorCritic(PERCEPTRON, PERCEPTRON, Box(-1.0, 1.0, (2, 1)), obs_dim=1, critic_dim=1)
    value = jax.vmap(nets.value, (0, None))(state.learner.params["critic"], jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(value[0], [1 + GAMMA, 1], atol=0.05)
    np.testing.assert_allclose(value[1, 0], 1, atol=0.05)


def test_what_absent_agents_see_and_get_does_not_matter():
    """Neither to the loss nor to the statistics, normalised advantages and the scale of rewards."""
    changes = {"normalize_obs": True, "normalize_reward": True, "entropy_coef": 0.01}
    _, plain = learned(leaving_world(), updates=2, **changes)
    _, absurd = learned(leaving_world(absent_sees=-77.0, absent_gets=1000.0), updates=2, **changes)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (plain.learner.params, plain.learner.obs_stats),
        (absurd.learner.params, absurd.learner.obs_stats),
    )


def test_mixed_actions_are_learned_together():
    algorithm, state = learned(mixed_world(), updates=40)
    choice, amount = greedy_actions(algorithm, state, CUES[:, None, None])
    np.testing.assert_array_equal(choice[:, 0], [1, 0])
    np.testing.assert_allclose(amount[:, 0, 0], CUES / 2, atol=0.2)
