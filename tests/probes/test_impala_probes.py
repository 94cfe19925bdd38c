"""IMPALA and APPO learn the values and policies of the probe worlds from roll-outs that are some updates old."""

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
    tempted_actions,
    tempting_world,
    trained_actor_critic,
)

from envs_jax.spaces import Box
from purerl.algos import impala
from purerl.networks import NetworkConfig
from purerl.onpolicy import ActorCritic

GAMMA = 0.5
PERCEPTRON = NetworkConfig(hidden_sizes=(16, 16), activation="tanh")
MEMORY = NetworkConfig(lstm_hidden_size=16, hidden_sizes=(16,), activation="tanh")
COMMON = {
    "num_envs": 16, "steps_per_update": 16, "epochs": 2, "minibatches": 4, "gamma": GAMMA, "vtrace_lambda": 0.9,
    "lr": 5e-3, "entropy_coef": 0.0, "initial_log_std": -0.5, "max_grad_norm": 1.0, "actor": PERCEPTRON,
    "critic": PERCEPTRON,
}  # fmt: skip
IMPALA = impala.Config(**COMMON, actor_lag=2)
APPO = impala.Config(**COMMON, name="appo", normalize_advantage=True, target_update_every=2)
RECURRENT = APPO.model_copy(
    update={"actor": MEMORY, "critic": MEMORY, "epochs": 4, "steps_per_update": 20, "target_update_every": 1}
)


@pytest.fixture(scope="module", params=["impala", pytest.param("appo", marks=pytest.mark.slow)])
def feed_forward(request):
    config = IMPALA if request.param == "impala" else APPO
    return trained_actor_critic(impala.make, config, probe_world(), FEED_FORWARD_PROBES, updates=100)


@pytest.mark.parametrize(
    ("probe", "observations", "values"),
    [
        ("constant", [(1, 0), (-1, 0)], [1, 1]),
        ("observed", [(1, 0), (-1, 0)], [1, -1]),
        ("delayed", [(1, 0), (1, 0.5), (-1, 0), (-1, 0.5)], [GAMMA, 1, GAMMA, 1]),
        ("endless", [(1, 0), (-1, 0)], [1 / (1 - GAMMA)] * 2),  # 1.8 if a time limit were an end
    ],
)
def test_values(feed_forward, probe, observations, values):
    value, _ = feed_forward(probe, [observations])
    np.testing.assert_allclose(value[0], values, atol=0.1)


def test_policy_follows_the_cue(feed_forward):
    _, action = feed_forward("chosen", [[(1, 0), (-1, 0)]])
    np.testing.assert_allclose(action[0], [0.5, -0.5], atol=0.15)


@pytest.fixture(scope="module")
def recurrent():
    ask = trained_actor_critic(impala.make, RECURRENT, probe_world(LENGTH), RECURRENT_PROBES, updates=150)
    return lambda name: ask(name, episodes(RECURRENT_PROBES[name]))


def test_memory_connects_the_cue_with_the_end(recurrent):
    _, action = recurrent("remembered")
    np.testing.assert_allclose(action[-1], CUES / 2, atol=0.2)


def test_values_with_memory(recurrent):
    """Nothing tells the time in `delayed`; in `endless` a time limit is no end."""
    delayed, _ = recurrent("delayed")
    expected = 4 * GAMMA ** (LENGTH - 1 - np.arange(LENGTH))
    np.testing.assert_allclose(delayed, np.tile(expected[:, None], 2), atol=0.4)
    endless, _ = recurrent("endless")
    np.testing.assert_allclose(endless, 1 / (1 - GAMMA), atol=0.1)


def test_illegal_actions_are_never_taken_and_the_best_legal_one_is_learned():
    algorithm = impala.make(IMPALA.model_copy(update={"entropy_coef": 0.01}), tempting_world())
    state, metrics = after_updates(algorithm, updates=40)
    assert float(metrics["episode/return"].min()) > 0, "a single illegal action costs 100"
    np.testing.assert_array_equal(tempted_actions(algorithm, state), [1, 2])


@pytest.mark.slow
def test_mixed_actions_are_learned_together():
    algorithm = impala.make(IMPALA, mixed_world())
    choice, amount = greedy_actions(algorithm, after_updates(algorithm, updates=80)[0], CUES[:, None, None])
    np.testing.assert_array_equal(choice[:, 0], [1, 0])
    np.testing.assert_allclose(amount[:, 0, 0], CUES / 2, atol=0.2)


def test_an_agent_that_leaves_has_had_its_last_reward():
    """Two learners; what the absent one sees and gets counts in neither the values nor the correction."""
    config = APPO.model_copy(update={"shared_parameters": False})
    state, _ = after_updates(impala.make(config, leaving_world(absent_gets=50.0)), updates=60)
    nets = ActorCritic(PERCEPTRON, PERCEPTRON, Box(-1.0, 1.0, (2, 1)), obs_dim=1, critic_dim=1)
    value = jax.vmap(nets.value, (0, None))(state.learner.params["critic"], jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(value[0], [1 + GAMMA, 1], atol=0.1)
    np.testing.assert_allclose(value[1, 0], 1, atol=0.1)
