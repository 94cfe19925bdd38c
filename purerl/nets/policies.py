"""Stochastic policies: from an actor network's outputs to a distribution, and from its actions to the environment's.

Reading order: sizes, noise, the distribution of an action space, actions in the environment's units. A mixed space
(`Product`) is the product of its parts: one network gives all their parameters, side by side. Spaces are those that
`envs_jax.adapters.with_agent_axis` makes: (A,) for one choice, (A, m) for m at once, (A, k) for a range.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.spaces import Box, Discrete, Product, Space
from purerl.nets.actions import Actions, Choices, unbounded
from purerl.nets.distributions import (
    Categorical,
    Categoricals,
    Distribution,
    Joint,
    Normal,
    SquashedNormal,
    masked,
)
from purerl.nets.networks import Network, NetworkConfig

Continuous = Literal["normal", "squashed"]
"""Policy of continuous parts: a normal whose actions are clipped to the bounds, if any, or tanh of a normal."""


class Outputs(NamedTuple):
    """Parameters of a policy's distribution."""

    head: jax.Array
    """[..., output_size]: logits of discrete parts and means of continuous ones, side by side."""
    log_std: jax.Array | None
    """[..., continuous_size], None where no part is continuous."""


def parts_of(space: Space) -> tuple[Box | Discrete, ...]:
    return space.parts if isinstance(space, Product) else (space,)


def _size(part: Box | Discrete) -> int:
    return part.n * int(np.prod(part.shape[1:])) if isinstance(part, Discrete) else part.shape[-1]


def output_size(space: Space) -> int:
    """Outputs of an actor's head: a logit for every choice, a mean for every continuous component."""
    return sum(_size(part) for part in parts_of(space))


def continuous_size(space: Space) -> int:
    """Continuous components of an action."""
    return sum(_size(part) for part in parts_of(space) if isinstance(part, Box))


def require_bounded(space: Space, env_name: str) -> None:
    """
    Raises:
        ValueError: a continuous part without finite bounds, which a squashed normal cannot fill.
    """
    for part in parts_of(space):
        if isinstance(part, Box) and not (np.isfinite(part.low).all() and np.isfinite(part.high).all()):
            told = unbounded(env_name, np.asarray(part.low), np.asarray(part.high))
            raise ValueError(f"policy: squashed needs a bounded action space; {told}, or set policy to normal")


def draw_noise(space: Space, key: jax.Array, leading: tuple[int, ...]) -> Any:
    """Random numbers that `sample_from` of this space's distribution turns into actions with these leading axes."""

    def of_part(part: Box | Discrete, key: jax.Array) -> jax.Array:
        if isinstance(part, Discrete):
            return jax.random.gumbel(key, (*leading, *part.shape[1:], part.n))
        return jax.random.normal(key, (*leading, _size(part)))

    if not isinstance(space, Product):
        return of_part(space, key)
    keys = tuple(jax.random.split(key, len(space.parts)))
    return tuple(of_part(part, key) for part, key in zip(space.parts, keys, strict=True))


def distribution(space: Space, outputs: Outputs, legal: Any = None, continuous: Continuous = "normal") -> Distribution:
    """The policy's distribution over raw actions.

    Args:
        legal: bool [..., n], of m choices at once [..., m, n], of continuous components [..., k] those in use; for a
            mixed space a tuple with one such array or None for every part; None: all legal.
    """
    if not isinstance(space, Product):
        return _of_part(space, outputs.head, outputs.log_std, legal, continuous)
    legal = (None,) * len(space.parts) if legal is None else legal
    parts, at, at_std = [], 0, 0
    for part, may in zip(space.parts, legal, strict=True):
        size, log_std = _size(part), None
        if isinstance(part, Box):
            assert outputs.log_std is not None
            log_std = outputs.log_std[..., at_std : at_std + size]
            at_std += size
        parts.append(_of_part(part, outputs.head[..., at : at + size], log_std, may, continuous))
        at += size
    return Joint(tuple(parts))


def _of_part(part: Box | Discrete, head: jax.Array, log_std: Any, legal: Any, continuous: Continuous) -> Distribution:
    if isinstance(part, Discrete):
        logits = masked(head.reshape(*head.shape[:-1], *part.shape[1:], part.n), legal)
        return Categoricals(logits) if len(part.shape) > 1 else Categorical(logits)
    return SquashedNormal(head, log_std, legal) if continuous == "squashed" else Normal(head, log_std, legal)


def env_action(space: Space, action: Any) -> Any:
    """A distribution's actions as the environment takes them.

    Continuous components are clipped to the bounds. Those with two bounds are in units of the half range, others as
    they are.
    """
    if isinstance(space, Product):
        return tuple(env_action(part, a) for part, a in zip(space.parts, action, strict=True))
    if isinstance(space, Discrete):
        return action
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high))
    ranged = np.isfinite(low) & np.isfinite(high)
    smallest, largest = np.where(ranged, -1.0, low), np.where(ranged, 1.0, high)
    low, high = np.where(ranged, low, -1.0), np.where(ranged, high, 1.0)
    return (low + high) / 2 + (high - low) / 2 * jnp.clip(action, smallest, largest)


class SoftPolicy(NamedTuple):
    """A squashed normal over a range of actions, or a categorical over choices, from an actor's outputs.

    Entropies of the squashed normal are those of the action in units of the half range, in (-1, 1).
    """

    actions: Actions | Choices
    log_std_min: float = -10.0
    log_std_max: float = 2.0

    def network(self, config: NetworkConfig, obs_dim: int) -> Network:
        """Logits of the choices; or means and log standard deviations, side by side."""
        out_dim = self.actions.dim if isinstance(self.actions, Choices) else 2 * self.actions.dim
        return Network(config, obs_dim, out_dim, out_scale=0.1)

    def distribution(self, outputs, legal=None) -> Categorical | SquashedNormal:
        """Of raw actions, from outputs [..., m]; `legal` is bool [..., n]: choices, or components in use; None: all."""
        if isinstance(self.actions, Choices):
            return Categorical(masked(outputs, legal))
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return SquashedNormal(mean, jnp.clip(log_std, self.log_std_min, self.log_std_max), legal)

    def draw(self, key, leading: tuple[int, ...]):
        """Random numbers [*leading, k] for `sample_from` of the distribution."""
        draw = jax.random.gumbel if isinstance(self.actions, Choices) else jax.random.normal
        return draw(key, (*leading, self.actions.dim))

    def env_action(self, action):
        """A distribution's action -> what the environment takes."""
        if isinstance(self.actions, Choices):
            return action
        return self.actions.from_share(action) * self.actions.unit

    def choose(self, outputs, legal, key, greedy: bool):
        """What the environment takes: the mode, or a sample."""
        dist = self.distribution(outputs, legal)
        return self.env_action(dist.mode() if greedy else dist.sample(seed=key))
