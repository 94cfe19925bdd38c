"""Twin critics (Fujimoto et al. 2018) on transitions or whole episodes, as functions of (params, inputs).

Sequences are [T, N, ...], N = batch * agents. A value is asked for in two steps: `history` is what both critics know
before each action, `q` the values of actions given it.

- Feed-forward: the history is the observation itself (what convolutions see of it, where the network has some).
- `history`: an LSTM reads (o_t, a_{t-1}) and the head sees a_t, so that changing a_t for the actor's loss leaves the
  history untouched.
- `concat`: the LSTM reads (o_t, a_t) at every step; its memory before the step is the history.

Where actions are choices, the head gives the values of all at once and an action is a one-hot row that selects.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from purerl.nets.networks import Head, NetworkConfig, initial_carry, make_core

CriticArch = Literal["history", "concat"]
Reduction = Literal["min", "mean", "q1"]
Preview = Callable[[jax.Array, jax.Array, Any], jax.Array]
"""`(obs [T, N, d], action [T, N, k], env_params)`: features [T, N, p] of what an action does at once."""


class Critics:
    """Two critics of one shape; every leaf of their parameters has a leading axis of 2.

    Args:
        arch: how recurrent critics see actions.
        preview: what an action does at once, the immediate reward first: the head sees it, and learns what follows
            that reward. It reads the environment's parameters, which `seeing` gives.
        preview_size: p, the number of its features.
        choices: actions are one-hot rows, and `q_each` gives the values of all.
    """

    def __init__(
        self,
        config: NetworkConfig,
        arch: CriticArch,
        obs_dim: int,
        action_dim: int,
        preview: Preview | None = None,
        choices: bool = False,
        preview_size: int = 0,
    ):
        if choices and (preview is not None or (config.recurrent and arch == "concat")):
            raise ValueError("critics of choices show no preview and keep the action out of their memory (history)")
        self.config, self.arch, self.preview, self.choices = config, arch, preview, choices
        self.preview_size, self.env_params = preview_size, None
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.in_dim = obs_dim + (action_dim if config.recurrent else 0)
        self.core, self.head = make_core(config, self.in_dim), Head(config, action_dim if choices else 1)

    def init(self, key):
        return jax.vmap(self._init)(jax.random.split(key))

    def _init(self, key):
        key_core, key_head = jax.random.split(key)
        xs = jnp.zeros((1, 1, self.in_dim))
        core: Any = self.core.init(key_core, xs)
        parts: list[Any] = [self.core.apply(core, xs)]
        if not self.choices and not (self.config.recurrent and self.arch == "concat"):
            parts.append(jnp.zeros((1, 1, self.action_dim)))
        if self.preview is not None:
            parts.append(jnp.zeros((1, 1, self.preview_size)))
        return {"core": core, "head": self.head.init(key_head, *parts)}

    def seeing(self, env_params) -> "Critics":
        """These critics in an environment with these parameters, which a preview reads."""
        bound = copy.copy(self)
        bound.env_params = env_params
        return bound

    def history(self, params, obs, action):
        """What each critic knows before each action: leaves [T, N, ...], one tree per critic.

        Args:
            obs: [T, N, d]; action: [T - 1, N, k] or longer, taken after each observation.
        """
        return [self._history(p, obs, action) for p in _each(params)]

    def _history(self, params, obs, action):
        if not self.config.recurrent:
            return self.core.apply(params["core"], obs)
        if self.arch == "history":
            previous = jnp.concatenate([jnp.zeros_like(action[:1]), action[: obs.shape[0] - 1]])
            return self.core.apply(params["core"], jnp.concatenate([obs, previous], axis=-1))
        padded = jnp.concatenate([action, jnp.zeros_like(action[:1])])[: obs.shape[0]]

        def body(carry, x):
            step: Any = self.core.apply(params["core"], carry, x, method="step")
            return step[0], carry

        inputs = jnp.concatenate([obs, padded], axis=-1)
        _, before = jax.lax.scan(body, initial_carry(self.config, obs.shape[1:2]), inputs)
        return before, obs

    def q(self, params, history, obs, action):
        """Values [2, T, N] of actions [T, N, k] given the history and the present observation [T, N, d]."""
        if self.choices:
            return jnp.sum(self.q_each(params, history) * action, axis=-1)
        seen = None if self.preview is None else self.preview(obs, action, self.env_params)
        return jnp.stack([self._q(p, h, action, seen) for p, h in zip(_each(params), history, strict=True)])

    def q_each(self, params, history):
        """Values [2, T, N, n] of every choice given the history."""
        values: list[Any] = [self.head.apply(p["head"], h) for p, h in zip(_each(params), history, strict=True)]
        return jnp.stack(values)

    def along(self, params, obs, action):
        """Values [2, T, N] of the actions taken [T, N, k] along sequences of observations [T, N, d]."""
        return self.q(params, self.history(params, obs, action), obs, action)

    def _q(self, params, history, action, seen):
        if self.config.recurrent and self.arch == "concat":
            before, obs = history
            inputs = jnp.concatenate([obs, action], axis=-1)
            step: Any = self.core.apply(params["core"], before, inputs, method="step")
            parts = [step[1]]
        else:
            parts = [history, action]
        if seen is not None:
            parts.append(seen)
        value: Any = self.head.apply(params["head"], *parts)
        return value[..., 0] if seen is None else seen[..., 0] + value[..., 0]


def _each(params) -> list[Any]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(2)]


def reduce_twins(values, how: Reduction):
    """[2, ...] -> [...]."""
    match how:
        case "min":
            return jnp.min(values, axis=0)
        case "mean":
            return jnp.mean(values, axis=0)
        case "q1":
            return values[0]
