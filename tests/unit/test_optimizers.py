"""Optimisers: clipping by the global norm, and the first direction of each rule."""

import jax.numpy as jnp
import numpy as np
import pytest

from purerl.learn.optimizers import make_optimizer


@pytest.mark.parametrize("name", ["adam", "adamw", "radam", "rmsprop"])
def test_optimizers_clip_the_norm_and_differ(name):
    """The first direction: Adam's is the sign of the clipped gradient; rmsprop's is ten times that (decay 0.99).

    RAdam's is the gradient itself: it divides by nothing before it has seen a few.
    """
    optimizer = make_optimizer(name, max_grad_norm=1e-6)
    params = {"a": jnp.array([2.0, -2.0])}
    direction, _ = optimizer.update({"a": jnp.array([3.0, -4.0])}, optimizer.init(params), params)
    # Clipped to 0.6e-6 and 0.8e-6, so that the 1e-8 in the denominators shows.
    clipped = np.array([0.6e-6, -0.8e-6])
    expected = {
        "adam": clipped / (np.abs(clipped) + 1e-8),
        "adamw": clipped / (np.abs(clipped) + 1e-8) + 1e-4 * np.array([2.0, -2.0]),
        "radam": clipped,
        "rmsprop": clipped / np.sqrt(0.01 * clipped**2 + 1e-8),
    }[name]
    np.testing.assert_allclose(direction["a"], expected, rtol=1e-4)


def test_the_epsilon_of_rmsprop_is_inside_of_the_root():
    optimizer = make_optimizer("rmsprop", max_grad_norm=10.0, eps=0.1)
    gradient = jnp.array([3.0, -4.0])
    direction, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(direction, gradient / np.sqrt(0.01 * gradient**2 + 0.1), rtol=1e-5)
