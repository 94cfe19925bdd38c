"""What PPO learns beside values and policies of one agent: masks, teams, mixed actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import GAMMA, PERCEPTRON, PPO
from probe_worlds import (
    CUES,
    after_updates,
    greedy_actions,
    leaving_world,
    mixed_world,
    team_world,
    tempted_actions,
    tempting_world,
)
from shared import with_data

from envs_jax.base import Environment
from envs_jax.spaces import Box
from purerl.algos import ppo
from purerl.nets.actor_critic import ActorCritic

# Masks


@pytest.fixture(scope="module")
def tempted():
    algorithm = with_data(ppo.make(PPO.model_copy(update={"entropy_coef": 0.01}), tempting_world()))
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
    algorithm = with_data(ppo.make(PPO.model_copy(update=changes), env))
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
