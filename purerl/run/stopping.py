"""When a run ends before its last epoch: no more gain, a streak of evaluations that met their aim, or good bands.

Reading order: whether rules fit an environment, what the host remembers (`Stops`, saved with every checkpoint), what an
evaluation changes in it (`after_evaluation`), what training episodes change (`after_updates`), and the decision
(`reason`).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from envs_jax.base import Environment
from purerl.config import BandStop, Evaluation
from purerl.errors import ConfigError

ROUNDING = 1e-6
"""Of shares: means come from the device in single precision, where 19 of 20 is a little less than 0.95."""


def require_known(rules: Evaluation, env: Environment) -> None:
    """Raise ConfigError where a rule asks for what the environment's score or episodes do not have."""
    for name in rules.streaks or {}:
        if name not in env.assessment.milestones:
            known = ", ".join(env.assessment.milestones) or "none"
            raise ConfigError(f"evaluation.streaks: '{name}'; {env.name} has {known}")
    if rules.bands is not None and rules.bands.metric not in env.assessment.columns:
        known = ", ".join(env.assessment.columns) or "none"
        raise ConfigError(f"evaluation.bands.metric: '{rules.bands.metric}'; episodes of {env.name} have {known}")
    watched = rules.early_stop.metric if rules.early_stop is not None else None
    if watched == "percent_of_bound" and (env.assessment.score is None or env.assessment.has_bound is False):
        raise ConfigError(f"evaluation.early_stop.metric: {env.name} has no {watched} with these settings; use score")


@dataclasses.dataclass
class Band:
    """The open band of one seed: a share of training, judged by the episodes that ended in it."""

    env_steps: int = 0
    updates: int = 0
    episodes: float = 0.0
    met: float = 0.0
    """Sum over those episodes of the metric, a share."""


@dataclasses.dataclass
class Stops:
    """Counters behind all rules."""

    best: float | None = None
    without_gain: int = 0
    """Evaluations since `best`."""
    streaks: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    """Milestone -> evaluations in a row that met it, per seed."""
    open_bands: list[Band] = dataclasses.field(default_factory=list)
    bands: list[list[bool]] = dataclasses.field(default_factory=list)
    """Per seed, whether its bands so far were good."""

    @classmethod
    def from_json(cls, data: Mapping) -> "Stops":
        return cls(**{**data, "open_bands": [Band(**band) for band in data["open_bands"]]})


def after_evaluation(
    stops: Stops, rules: Evaluation, summary: Mapping[str, float | None], milestones: Mapping[str, Sequence[bool]]
) -> Stops:
    """The counters after an evaluation; `summary` has the log's names, `milestones` one value per seed.

    Raises:
        ConfigError: the score has no such number as `early_stop` watches.
    """
    streaks = {
        name: [
            before + 1 if met else 0 for before, met in zip(stops.streaks.get(name, [0] * len(now)), now, strict=True)
        ]
        for name, now in milestones.items()
    }
    stops = dataclasses.replace(stops, streaks=streaks)
    if rules.early_stop is None:
        return stops
    value = summary[f"eval_{rules.early_stop.metric}"]
    if value is None:
        raise ConfigError(f"evaluation.early_stop.metric: this environment has no {rules.early_stop.metric}; use score")
    if stops.best is None or value > stops.best + rules.early_stop.min_delta:
        return dataclasses.replace(stops, best=value, without_gain=0)
    return dataclasses.replace(stops, without_gain=stops.without_gain + 1)


def after_updates(stops: Stops, rule: BandStop, mean: np.ndarray, episodes: np.ndarray, env_steps: int) -> Stops:
    """The counters after a chunk of updates.

    Args:
        mean: [updates, seeds] of the metric over the episodes that ended, single precision.
        episodes: [updates, seeds] their numbers.
        env_steps: of one update.
    """
    seeds = range(episodes.shape[1])
    opened = stops.open_bands or [Band() for _ in seeds]
    ended = [list(bands) for bands in stops.bands or [[] for _ in seeds]]
    after = []
    for seed, band in zip(seeds, opened, strict=True):
        for update in range(len(episodes)):
            band = Band(
                band.env_steps + env_steps,
                band.updates + 1,
                band.episodes + float(episodes[update, seed]),
                band.met + float(mean[update, seed] * episodes[update, seed]),
            )
            if band.env_steps >= rule.env_steps and band.updates >= rule.updates:
                needed = (rule.share - ROUNDING) * band.episodes
                ended[seed].append(band.episodes >= rule.episodes and band.met >= needed)
                band = Band()
        after.append(band)
    return dataclasses.replace(stops, open_bands=after, bands=ended)


def reason(stops: Stops, rules: Evaluation) -> str | None:
    """Why the run ends here; None: it goes on. With several seeds every one has to be there."""
    if rules.early_stop is not None and stops.without_gain >= rules.early_stop.patience:
        return f"no gain in {stops.without_gain} evaluations"
    for name, wanted in (rules.streaks or {}).items():
        reached = stops.streaks.get(name, [0])
        if min(reached) >= wanted:
            return f"{name}_streak {min(reached)}"
    bands = rules.bands
    if bands is not None and stops.bands:
        last = [each[-bands.good :] for each in stops.bands]
        if all(len(each) >= bands.least for each in stops.bands) and all(map(all, last)):
            return f"the last {bands.good} bands of {min(map(len, stops.bands))} were good"
    return None
