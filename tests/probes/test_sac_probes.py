"""SAC with choices, some of them illegal."""

import jax.numpy as jnp
import numpy as np
import pytest
from learners import SAC, soft_nets
from probe_worlds import after_updates, tempted_actions, tempting_world
from shared import with_data

from purerl.algos import sac


@pytest.fixture(scope="module")
def tempted():
    env = tempting_world(endless=True)
    config = SAC.model_copy(update={"n_step": 1})
    algorithm = with_data(sac.make(config, env))
    return algorithm, soft_nets(config, env), *after_updates(algorithm, updates=120)


def test_illegal_choices_are_never_taken(tempted):
    *_, metrics = tempted
    assert float(metrics["episode/return"].min()) > 0, "a single illegal choice costs 100"


def test_the_best_legal_choice_is_learned(tempted):
    algorithm, _, state, _ = tempted
    np.testing.assert_array_equal(tempted_actions(algorithm, state), [1, 2])


def test_a_choice_that_will_be_illegal_adds_no_value(tempted):
    """After the time limit the world would go on as it is: with another world's legal choices, or with all, the value
    of a world without the best choice would be far above 2 / (1 - gamma)."""
    _, nets, state, _ = tempted
    values = jnp.mean(nets.critics.q_each(state.learner.params.critics, [jnp.array([[0.0], [1.0]])] * 2), axis=0)
    np.testing.assert_allclose([values[0, 1], values[1, 2]], [4.0, 20.0], atol=0.5)
