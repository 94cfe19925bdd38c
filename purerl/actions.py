"""What learners know about an action space: a continuous range in units, or a number of choices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Environment
from envs_jax.spaces import Box

SATURATED = 0.95
"""Share of the half range from which an action counts as saturated."""


class Actions(NamedTuple):
    """Action range in units of its largest magnitude, so that noise of 0.1 means the same everywhere."""

    low: np.ndarray
    high: np.ndarray
    unit: np.ndarray
    sigmoid: bool

    @property
    def dim(self) -> int:
        return self.low.size

    def squash(self, x):
        """Pre-squash network output -> action in units."""
        if self.sigmoid:
            return self.low + (self.high - self.low) * jax.nn.sigmoid(x)
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * jnp.tanh(x)

    def clip(self, action):
        return jnp.clip(action, self.low, self.high)

    def saturated(self, action):
        return jnp.abs(2 * (action - self.low) / (self.high - self.low) - 1) > SATURATED


def action_range(env: Environment, env_params, output_activation: str = "tanh") -> Actions:
    """The range of an environment's continuous actions.

    Args:
        env: with an agent axis.
        output_activation: `tanh`, `sigmoid`, or `auto`: sigmoid where no action is negative.

    Raises:
        ValueError: discrete actions, or a range without bounds.
    """
    box = env.action_space(env_params)
    if not isinstance(box, Box):
        raise ValueError(f"this algorithm needs continuous actions, {env.name} has {box}")
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), box.shape)[0] for bound in (box.low, box.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"this algorithm needs a bounded action space, {env.name} has [{low}, {high}]")
    unit = np.maximum(np.abs(low), np.abs(high))
    sigmoid = output_activation == "sigmoid" or (output_activation == "auto" and bool((low >= 0).all()))
    return Actions(low / unit, high / unit, unit, sigmoid)
