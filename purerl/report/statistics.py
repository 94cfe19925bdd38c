"""Statistics of scores over seeds: interquartile mean and stratified bootstrap intervals (Agarwal et al. 2021)."""

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
_AT_ONCE = 1_000
"""Resamples held in memory together."""


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean along the last axis of what is left when a quarter of the values is cut off at either end.

    A quarter is rounded down, as in `scipy.stats.trim_mean(scores, 0.25)`: eight values lose two at either end, and of
    fewer than four it is the plain mean. NaN if any value is.
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=-1)
    count = ordered.shape[-1]
    middle = ordered[..., count // 4 : count - count // 4].mean(axis=-1)
    # Sorted to the end, a NaN would be cut off.
    return np.where(np.isnan(ordered[..., -1]), np.nan, middle)


def bootstrap_interval(
    scores: np.ndarray, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the interquartile mean of all scores, by stratified bootstrap.

    Every resample draws, in each stratum on its own, as many runs with replacement as the stratum has. With a single
    stratum this is the ordinary bootstrap over seeds.

    Args:
        scores: [strata, runs], such as [tasks, seeds].

    Returns:
        Lower and upper end; NaN with fewer than two runs, which say nothing of that, or if a score is NaN.
    """
    scores = np.asarray(scores, np.float64)
    strata, runs = scores.shape
    if runs < 2 or not np.isfinite(scores).all():
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = rng.integers(0, runs, (min(_AT_ONCE, resamples - start), strata, runs))
        resampled = np.take_along_axis(scores[None], drawn, axis=2)
        means.append(interquartile_mean(resampled.reshape(len(drawn), -1)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)
