"""IMPALA and APPO with old roll-outs: masks, mixed actions, agents that leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import APPO, GAMMA, IMPALA, PERCEPTRON
from probe_worlds import (
    CUES,
    after_updates,
    greedy_actions,
    leaving_world,
    mixed_world,
    tempted_actions,
    tempting_world,
)
from shared import with_data

from envs_jax.spaces import Box
from purerl.algos import impala
from purerl.nets.actor_critic import ActorCritic


def test_illegal_actions_are_never_taken_and_the_best_legal_one_is_learned():
    algorithm = with_data(impala.make(IMPALA.model_copy(update={"entropy_coef": 0.01}), tempting_world()))
    state, metrics = after_updates(algorithm, updates=40)
    assert float(metrics["episode/return"].min()) > 0, "a single illegal action costs 100"
    np.testing.assert_array_equal(tempted_actions(algorithm, state), [1, 2])


@pytest.mark.slow
def test_mixed_actions_are_learned_together():
    algorithm = with_data(impala.make(IMPALA, mixed_world()))
    choice, amount = greedy_actions(algorithm, after_updates(algorithm, updates=80)[0], CUES[:, None, None])
    np.testing.assert_array_equal(choice[:, 0], [1, 0])
    np.testing.assert_allclose(amount[:, 0, 0], CUES / 2, atol=0.2)


def test_an_agent_that_leaves_has_had_its_last_reward():
    """Two learners; what the absent one sees and gets counts in neither the values nor the correction."""
    config = APPO.model_copy(update={"shared_parameters": False})
    state, _ = after_updates(with_data(impala.make(config, leaving_world(absent_gets=50.0))), updates=60)
    nets = ActorCritic(PERCEPTRON, PERCEPTRON, Box(-1.0, 1.0, (2, 1)), obs_dim=1, critic_dim=1)
    value = jax.vmap(nets.value, (0, None))(state.learner.params["critic"], jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(value[0], [1 + GAMMA, 1], atol=0.1)
    np.testing.assert_allclose(value[1, 0], 1, atol=0.1)
