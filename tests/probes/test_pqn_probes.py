"""PQN in worlds whose answers are known: masks, time limits, cooperation, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import GAMMA
from probe_worlds import after_updates, tempted_actions, tempting_world
from shared import with_data

import envs_jax
from envs_jax.adapters import with_agent_axis
from purerl.algos import pqn
from purerl.learn.teams import networks

CONFIG = pqn.Config(
    mixer="iql", num_envs=16, steps_per_update=8, epochs=2, minibatches=4, gamma=GAMMA, td_lambda=0.5, lr=5e-3,
    epsilon_start=0.5, epsilon_end=0.5,
    q_network=pqn.NormalisedAgent(type="mlp", hidden_dims=(16,), previous_action=False, agent_id=False),
)  # fmt: skip


@pytest.fixture(scope="module")
def tempted():
    algorithm = with_data(pqn.make(CONFIG, tempting_world(endless=True)))
    return algorithm, *after_updates(algorithm, updates=60)


def test_the_best_legal_choice_is_learned_and_no_other_taken(tempted):
    algorithm, state, metrics = tempted
    act = lambda *args: algorithm.act(*args[:1], algorithm.initial_carry((2,)), *args[2:])  # noqa: E731
    np.testing.assert_array_equal(tempted_actions(algorithm._replace(act=act), state), [1, 2])
    assert float(metrics["episode/return"].min()) > 0, "a single illegal choice costs 100"


def test_a_time_limit_is_no_end_and_illegal_choices_add_no_value(tempted):
    """What follows is worth the best legal choice for ever: 2 / (1 - gamma), not 10 / (1 - gamma) and not 2."""
    nets = networks(CONFIG, CONFIG.mixer, with_agent_axis(tempting_world(endless=True)), None, 3)
    _, utility = nets.utilities.step(tempted[1].learner.params.agents, (), jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose([utility[0, 1], utility[1, 2]], [4.0, 20.0], atol=0.5)


@pytest.mark.parametrize("kind", ["mlp", pytest.param("rnn", marks=pytest.mark.slow)])
def test_a_sum_finds_a_joint_action_that_is_best_for_each(kind):
    """Three agents on the payoffs that VDN can represent: each adds its own."""
    payoff = np.add.outer(np.add.outer([0.0, 1.0], [0.0, 2.0, 1.0]), [3.0, 0.0])
    env = envs_jax.make("matrix", payoff=payoff.tolist())
    agent = pqn.NormalisedAgent(type=kind, hidden_dims=(16,), rnn_hidden_dim=16)
    algorithm = with_data(pqn.make(CONFIG.model_copy(update={"mixer": "vdn", "q_network": agent}), env))
    state, metrics = after_updates(algorithm, updates=60)
    mask = env.action_mask(None, None)[None]
    act = jax.jit(
        lambda obs: algorithm.act(algorithm.policy(state), algorithm.initial_carry((1,)), obs, mask, None, True)
    )
    np.testing.assert_array_equal(act(jnp.zeros((1, 3, 2)))[0], [[1, 1, 0]])
    assert float(metrics["td_error_abs"][-1]) < 0.5
