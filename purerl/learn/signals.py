"""A scalar of `info` that a learner follows through every episode: for shaped rewards, and to explore where it is low.

Reading order: `SignalConfig`, `Followed` (which), `Recent` (its last values in B unfinished episodes), `Signal` (what a
roll-out keeps), `require_told`, `shaped`.
"""

import difflib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.base import Environment
from purerl.learn.buffers import Sequences
from purerl.learn.returns import discount_of

Shaping = Literal["none", "potential", "improvement"]


class SignalConfig(BaseModel):
    """Keys of algorithms that follow a scalar of `info`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    signal: str | None = Field(
        None, description="scalar of info that shaping and the exploration bonus look at; null: none"
    )
    signal_window: int = Field(10, ge=1, le=10_000, description="steps over which its recent mean is taken")
    shaping: Shaping = Field(
        "none",
        description="of the team's reward. potential: the rise of the signal, discounted, which leaves the best policy "
        "what it is; improvement: how much the signal is above its recent mean",
    )
    shaping_weight: float = Field(0.5, ge=0)
    exploration_bonus: float = Field(
        0.0, ge=0, le=1, description="least epsilon in environments where the recent mean of the signal is low"
    )
    exploration_bonus_below: float = Field(0.3, description="recent means that count as low")

    @model_validator(mode="after")
    def _needs_a_signal(self):
        asks = "shaping" if self.shaping != "none" else "exploration_bonus" if self.exploration_bonus > 0 else None
        if asks is not None and self.signal is None:
            raise ValueError(f"{asks} looks at a scalar of info: name it by signal")
        return self

    def followed(self) -> "Followed | None":
        return None if self.signal is None else Followed(self.signal, self.signal_window)


class Followed(NamedTuple):
    name: str
    """Of the entry of `info`."""
    window: int


class Recent(NamedTuple):
    """The last values of the signal in B unfinished episodes; zeros at the start of one."""

    values: jax.Array
    """[B, window], the newest last."""
    length: jax.Array
    """[B] how many of them are of this episode."""

    def mean(self) -> jax.Array:
        """[B], zero where there are none."""
        return jnp.sum(self.values, axis=1) / jnp.maximum(self.length, 1.0)

    def after(self, value: jax.Array, done: jax.Array) -> "Recent":
        """With the value [B] of a step; empty where the episode is `done`."""
        values = jnp.concatenate([self.values[:, 1:], value[:, None]], axis=1)
        length = jnp.minimum(self.length + 1.0, values.shape[1])
        return Recent(jnp.where(done[:, None], 0.0, values), jnp.where(done, 0.0, length))


def nothing_yet(followed: Followed, num_envs: int) -> Recent:
    return Recent(jnp.zeros((num_envs, followed.window)), jnp.zeros((num_envs,)))


class Signal(NamedTuple):
    """The signal around recorded steps, [T, B]."""

    before: jax.Array
    """After the step before; zero at the start of an episode."""
    mean: jax.Array
    """Over the steps before, as many as the window has; at the start of an episode `after`."""
    after: jax.Array


def around(recent: Recent, value: jax.Array) -> Signal:
    """Of one step, [B]."""
    value = value.astype(recent.values.dtype)
    return Signal(recent.values[:, -1], jnp.where(recent.length > 0, recent.mean(), value), value)


def require_told(followed: Followed | None, env: Environment, env_params: Any) -> None:
    """Raise ValueError unless the environment tells the signal as a scalar of every step."""
    if followed is None:
        return
    key = jax.random.key(0)

    def info():
        _, state = env.reset_env(key, env_params)
        return env.step_env(key, state, env.action_space(env_params).sample(key), env_params)[-1]

    with jax.debug_key_reuse(False):  # nothing is drawn: shapes alone are asked for
        told = [name for name, value in jax.eval_shape(info).items() if getattr(value, "shape", None) == ()]
    if followed.name not in told:
        near = difflib.get_close_matches(followed.name, told, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"scalars are {', '.join(sorted(told)) or 'none'}"
        raise ValueError(f"signal '{followed.name}': {env.name} tells no such scalar of a step; {hint}")


def low_signal_epsilon(recent: Recent, epsilon: jax.Array, bonus: jax.Array, below: float) -> jax.Array:
    """The share of uniform choices [B, 1]: at least `bonus` where the recent mean is low."""
    is_low = (recent.length > 0) & (recent.mean() < below)
    return jnp.where(is_low, jnp.maximum(epsilon, bonus), epsilon)[:, None]


def shaped(shaping: Shaping, batch: Sequences, gamma, weight) -> Sequences:
    """The batch with a term for the signal in the team's reward (potentials: Ng, Harada and Russell 1999).

    A potential counts as zero before the first step and where the team's episode terminates, so that an episode's sum
    does not depend on the way; a time limit keeps it, because the value behind it does, too.
    """
    signal, reward = batch.signal, batch.team_reward
    assert signal is not None and reward is not None
    if shaping == "potential":
        ended = jnp.all(batch.terminated, axis=-1)
        gain = discount_of(gamma, batch.span) * jnp.where(ended, 0.0, signal.after) - signal.before
    else:
        gain = jnp.maximum(signal.after - signal.mean, 0.0)
    return batch.replace(team_reward=reward + weight * gain)  # type: ignore[attr-defined]
