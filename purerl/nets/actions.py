"""What learners know about an action space: a continuous range in units, or a number of choices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete, Product, Space
from purerl.nets.distributions import Categorical, masked

COMBINING = "ppo, impala and appo"
"""The algorithms that take every combination of choices and ranges."""
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
        """Numbers that describe an action to a critic."""
        return self.low.size

    def stored(self, action):
        """The environment's action -> what the replay keeps: units."""
        return action / self.unit

    def features(self, stored):
        """What critics read of a stored action [..., dim]."""
        return stored

    def draw_uniform(self, key, leading: tuple[int, ...]):
        """Random numbers for `uniform`."""
        return jax.random.uniform(key, (*leading, self.dim), minval=self.low, maxval=self.high)

    def uniform(self, drawn, legal=None):
        """A uniform action of the environment."""
        del legal
        return drawn * self.unit

    def from_share(self, share):
        """Share of the half range, from -1 at its lower end to 1 at its upper one -> action in units."""
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * share

    def squash(self, x):
        """Pre-squash network output -> action in units."""
        if self.sigmoid:
            return self.low + (self.high - self.low) * jax.nn.sigmoid(x)
        return self.from_share(jnp.tanh(x))

    def clip(self, action):
        return jnp.clip(action, self.low, self.high)

    def saturated(self, action):
        return jnp.abs(2 * (action - self.low) / (self.high - self.low) - 1) > SATURATED


class Choices(NamedTuple):
    """One of n actions, or several such choices at once; critics read a single one as a one-hot row."""

    n: int
    parts: int | None = None
    """Choices at once; None: a single one, without an axis of its own."""

    @property
    def dim(self) -> int:
        return self.n

    def stored(self, action):
        return action

    def features(self, stored):
        return jax.nn.one_hot(stored, self.n)

    def draw_uniform(self, key, leading: tuple[int, ...]):
        return jax.random.gumbel(key, (*leading, *self.part_shape, self.n))

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Of one action."""
        return () if self.parts is None else (self.parts,)

    def uniform(self, drawn, legal=None):
        """A uniform action among the legal ones, bool [..., n] or [..., m, n]; None: among all."""
        return Categorical(masked(jnp.zeros_like(drawn), legal)).sample_from(drawn)


def kind_of(space: Space) -> str:
    """What a space is, in words."""
    if isinstance(space, Product):
        return f"a combination of {' and '.join(map(kind_of, space.parts))}"
    if isinstance(space, Box):
        return f"a range of {space.shape[-1]}"
    return f"{space.shape[1]} choices of {space.n} at once" if len(space.shape) > 1 else f"a choice of {space.n}"


def unbounded(env_name: str, low: np.ndarray, high: np.ndarray) -> str:
    """Which component of a range [..., k] has no bound, in words."""
    component = np.argwhere(~(np.isfinite(low) & np.isfinite(high)))[0]
    low, high = low[tuple(component)], high[tuple(component)]
    return f"component {component[-1]} of {env_name}'s actions is in [{low}, {high}]; give it bounds"


def actions_of(env: Environment, env_params) -> Actions | Choices:
    """The actions of an environment (with an agent axis) for policies over a range or over choices.

    Raises:
        ValueError: neither one choice nor a range with bounds.
    """
    space = env.action_space(env_params)
    if isinstance(space, Discrete) and len(space.shape) == 1:
        return Choices(space.n)
    if not isinstance(space, Box):
        raise ValueError(
            f"this algorithm takes one choice, or a range of continuous actions; {env.name} has {kind_of(space)}: "
            f"{COMBINING} take it"
        )
    return action_range(env, env_params)


def choices_of(env: Environment, env_params) -> Choices | None:
    """The choices that an agent makes at once in an environment (with an agent axis); None where there is a range."""
    space = env.action_space(env_params)
    return Choices(space.n, *space.shape[1:]) if isinstance(space, Discrete) else None


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
        others = "use sac" if isinstance(box, Discrete) and len(box.shape) == 1 else f"use {COMBINING}"
        raise ValueError(f"this algorithm needs continuous actions, {env.name} has {kind_of(box)}; {others}")
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), box.shape)[0] for bound in (box.low, box.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"this algorithm needs a bounded action space; {unbounded(env.name, low, high)}")
    unit = np.maximum(np.abs(low), np.abs(high))
    sigmoid = output_activation == "sigmoid" or (output_activation == "auto" and bool((low >= 0).all()))
    return Actions(low / unit, high / unit, unit, sigmoid)
