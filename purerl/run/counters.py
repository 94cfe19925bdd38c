"""What the host remembers of a run beside its state: counters and the best evaluations, saved with every checkpoint."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purerl.run import stopping


@dataclasses.dataclass
class Counters:
    """Host counters, saved with every checkpoint. Step counts are per seed."""

    epoch: int = 0
    episodes: int = 0
    agent_steps: int = 0
    frames: int | None = None
    """Of the world, warm-up apart; None where every step is one."""
    best_scores: list[float] | None = None
    """Best evaluation of every seed."""
    best_returns: list[float] | None = None
    """Returns of those evaluations: they decide between equal scores."""
    best_mean: tuple[float, float] | None = None
    """Best mean score over seeds and its return: decides which checkpoint is the best."""
    best_epoch: int | None = None
    """Of that mean, and of the checkpoint that was saved with it."""
    stops: stopping.Stops = dataclasses.field(default_factory=stopping.Stops)
    wall_clock_s: float = 0.0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Counters":
        values = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        mean = values["best_mean"]
        return cls(**{**values, "best_mean": mean and tuple(mean), "stops": stopping.Stops.from_json(values["stops"])})


def merge_best(counters: Counters, best: Any, policy: Any, scores: list[float], returns: list[float]) -> Any:
    """Take over the policy of every seed that improved; returns the best policies."""
    now = list(zip(scores, returns, strict=True))
    if counters.best_scores is None or counters.best_returns is None:
        counters.best_scores, counters.best_returns = list(scores), list(returns)
        return policy
    before = list(zip(counters.best_scores, counters.best_returns, strict=True))
    improved = np.array([new > old for new, old in zip(now, before, strict=True)])
    kept = [max(pair) for pair in zip(now, before, strict=True)]
    counters.best_scores, counters.best_returns = [list(column) for column in zip(*kept, strict=True)]
    return jax.tree.map(lambda old, new: jnp.where(improved.reshape(-1, *[1] * (new.ndim - 1)), new, old), best, policy)
