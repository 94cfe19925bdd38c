"""Optimisers and schedules, shared by all algorithms."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from pydantic import BaseModel, ConfigDict, Field, model_validator

from purerl.learn import sharding

OptimizerName = Literal["adam", "adamw", "radam", "rmsprop"]


class Schedule(BaseModel):
    """How a learning rate or another coefficient changes over training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["constant", "step", "linear", "cosine", "piecewise"] = "constant"
    decay_factor: float = Field(0.5, gt=0, le=1, description="step: multiplied after every decay_env_steps")
    decay_env_steps: int = Field(10_000, gt=0)
    final_factor: float = Field(0.0, ge=0, le=1, description="linear, cosine: share left at the end")
    points: list[tuple[float, float]] | None = Field(
        None, description="piecewise: shares of training, rising, each with its factor; linear between them"
    )

    @model_validator(mode="after")
    def _consistent(self):
        if (self.type == "piecewise") != (self.points is not None):
            raise ValueError("points belong to type: piecewise, which needs them")
        if self.points is not None:
            shares = [share for share, _ in self.points]
            if not shares or sorted(set(shares)) != shares or min(min(point) for point in self.points) < 0:
                raise ValueError("points: shares of training must rise, and nothing be negative")
        return self

    def factor(self, env_steps: jax.Array, total_env_steps: int) -> jax.Array:
        """Share of the base value after `env_steps` of training."""
        done = jnp.clip(env_steps / float(total_env_steps), 0.0, 1.0)  # as an integer it may need more than 32 bits
        match self.type:
            case "constant":
                return jnp.ones(())
            case "step":
                return self.decay_factor ** jnp.floor(env_steps / self.decay_env_steps)
            case "linear":
                return 1.0 - (1.0 - self.final_factor) * done
            case "cosine":
                return self.final_factor + (1 - self.final_factor) * 0.5 * (1 + jnp.cos(jnp.pi * done))
            case "piecewise":
                assert self.points is not None
                shares, factors = zip(*self.points, strict=True)
                return jnp.interp(done, jnp.array(shares), jnp.array(factors))


def make_optimizer(name: OptimizerName, max_grad_norm: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """Gradients clipped by their global norm, then the rule's direction; the caller applies the (traced) rate."""
    match name:
        case "adam":
            rule = optax.scale_by_adam(eps=eps)
        case "adamw":
            rule = optax.chain(optax.scale_by_adam(eps=eps), optax.add_decayed_weights(1e-4))
        case "radam":
            rule = optax.scale_by_radam(eps=eps)
        case "rmsprop":
            rule = optax.scale_by_rms(decay=0.99, eps=eps)  # the epsilon is inside of the root
    # On one flat vector: dozens of small leaves would cost more in overhead and compile time than in arithmetic.
    return optax.flatten(optax.chain(optax.clip_by_global_norm(max_grad_norm), rule))


def descend(optimizer: optax.GradientTransformation, gradient, opt_state, params, rate: jax.Array):
    """`(params, opt_state)` after one step against `gradient` with the learning rate `rate`."""
    direction, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, jax.tree.map(lambda d: -rate * d, direction)), opt_state


def loss_step(
    optimizer: optax.GradientTransformation, loss: Callable[[Any], tuple[jax.Array, Any]], params, opt_state, rate
):
    """One step against the gradient of `loss(params) -> (value, aux)`, a mean over this device's share of the batch.

    Returns:
        `((value, aux), norm of the gradient before clipping, params, opt_state)`.
    """
    value, gradient = jax.value_and_grad(loss, has_aux=True)(params)
    gradient = sharding.mean_over_shares(gradient)
    params, opt_state = descend(optimizer, gradient, opt_state, params, rate)
    return value, optax.tree.norm(gradient), params, opt_state


def gradient_norm(gradient) -> jax.Array:
    """Global norm, of the flat vector that `make_optimizer` clips: it is computed once for both."""
    return optax.tree.norm(ravel_pytree(gradient)[0])
