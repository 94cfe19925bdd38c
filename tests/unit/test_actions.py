"""Action ranges in units, their squashing, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay_cases import marker_world

from envs_jax.adapters import with_agent_axis
from envs_jax.spaces import Box, Discrete
from purerl.nets.actions import action_range


def test_action_range_in_units_of_the_largest_magnitude():
    box = Box(np.array([0.0, -3.0], np.float32), np.array([1.0, 1.0], np.float32), (2,))
    actions = action_range(with_agent_axis(marker_world(box)), None, "auto")
    np.testing.assert_allclose([actions.low, actions.high, actions.unit], [[0, -1], [1, 1 / 3], [1, 3]])
    assert not actions.sigmoid
    np.testing.assert_allclose(actions.squash(jnp.zeros(2)), [0.5, -1 / 3])
    np.testing.assert_allclose(actions.squash(jnp.full(2, 50.0)), actions.high, rtol=1e-6)
    np.testing.assert_allclose(actions.clip(jnp.array([-2.0, 0.9])), [0, 1 / 3])
    assert actions.saturated(jnp.array([0.98, 0.0])).tolist() == [True, False]


@pytest.mark.parametrize(("how", "sigmoid"), [("auto", True), ("sigmoid", True), ("tanh", False)])
def test_output_activation(how, sigmoid):
    actions = action_range(with_agent_axis(marker_world(Box(0.0, 1.0, (1,)))), None, how)
    assert actions.sigmoid is sigmoid
    x = jnp.array([1.3])
    np.testing.assert_allclose(actions.squash(x), jax.nn.sigmoid(x) if sigmoid else (1 + jnp.tanh(x)) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("space", "message"),
    [(Discrete(3), "continuous actions"), (Box(-np.inf, np.inf, (1,)), "bounded action space")],
)
def test_other_spaces_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        action_range(with_agent_axis(marker_world(space)), None)
