"""What was measured of the reference: scripted play and simple selections, whole episodes.

Reading order: `Figure` and its `interval`, the tables `SCRIPTED` and `SELECTIONS`.

Source: the reference (Pan et al. 2022, version 0.1.0) run by the authors of the specification, its section 21.
"""

import math
from typing import NamedTuple


class Figure(NamedTuple):
    """Mean and standard deviation over episodes."""

    mean: float
    deviation: float


def interval(figure: Figure, episodes: int, own_episodes: int) -> tuple[float, float]:
    """Where the mean of `own_episodes` of ours lies: three standard errors of the difference of both means."""
    width = 3 * figure.deviation * math.sqrt(1 / episodes + 1 / own_episodes)
    return figure.mean - width, figure.mean + width


class Scripted(NamedTuple):
    """Whole episodes between two scripted teams; names are those of `matches.Match`."""

    episodes: int
    coverage_rate: Figure
    early_coverage_rate: Figure
    real_coverage_rate: Figure
    mean_transport_rate: Figure
    episode_length: Figure


_SCRIPTED = """
4v4-9 random    greedy    20 0.285 0.043 0.291 0.062 0.270 0.040 0.654 0.059 1319 146
4v4-9 naive     greedy    20 0.401 0.051 0.393 0.068 0.388 0.049 0.528 0.052 1312 131
4v4-9 greedy    greedy    20 0.709 0.043 0.668 0.083 0.622 0.061 0.302 0.050 1295 123
4v4-9 heuristic greedy     8 0.663 0.075 0.636 0.049 0.589 0.056 0.332 0.037 1276 116
4v8-9 random    greedy    20 0.280 0.024 0.277 0.039 0.273 0.030 0.687 0.032 1211 100
4v8-9 naive     greedy    20 0.394 0.037 0.381 0.058 0.398 0.034 0.553 0.040 1235 106
4v8-9 greedy    greedy    20 0.618 0.046 0.594 0.060 0.579 0.050 0.368 0.057 1244 95
4v8-9 heuristic greedy     8 0.600 0.029 0.601 0.061 0.573 0.030 0.360 0.035 1219 98
4v2-9 random    greedy    20 0.282 0.057 0.256 0.084 0.256 0.053 0.642 0.073 1533 347
4v2-9 naive     greedy    20 0.366 0.062 0.374 0.110 0.334 0.052 0.526 0.096 1558 392
4v2-9 greedy    greedy    20 0.884 0.038 0.831 0.088 0.653 0.082 0.135 0.052 1624 360
4v2-9 heuristic greedy     8 0.806 0.069 0.839 0.088 0.620 0.057 0.184 0.047 1812 469
8v8-9 random    greedy    20 0.320 0.021 0.332 0.043 0.310 0.034 0.630 0.029 1216 85
8v8-9 naive     greedy    20 0.399 0.029 0.384 0.044 0.381 0.042 0.553 0.033 1235 104
8v8-9 greedy    greedy    20 0.672 0.030 0.654 0.047 0.614 0.052 0.327 0.045 1195 110
8v8-9 heuristic greedy     8 0.682 0.026 0.693 0.045 0.610 0.058 0.308 0.046 1206 80
4v4-0 random    greedy    20 0.300 0.043 0.301 0.064 0.293 0.057 0.641 0.059 1310 128
4v4-0 naive     greedy    20 0.403 0.031 0.397 0.059 0.394 0.025 0.526 0.033 1315 117
4v4-0 greedy    greedy    20 0.771 0.040 0.747 0.086 0.679 0.061 0.252 0.053 1333 100
4v4-0 heuristic greedy     8 0.787 0.040 0.755 0.062 0.690 0.077 0.228 0.067 1321 174
4v8-0 random    greedy    20 0.304 0.034 0.296 0.049 0.306 0.032 0.656 0.033 1213 101
4v8-0 naive     greedy    20 0.412 0.027 0.395 0.044 0.394 0.038 0.544 0.038 1211 114
4v8-0 greedy    greedy    20 0.669 0.048 0.644 0.068 0.634 0.066 0.322 0.059 1211 88
4v8-0 heuristic greedy     8 0.678 0.049 0.652 0.022 0.620 0.054 0.307 0.023 1198 96
4v4-9 random    heuristic 20 0.271 0.033 0.275 0.058 0.266 0.043 0.683 0.045 1205 121
4v4-9 greedy    heuristic 20 0.707 0.054 0.668 0.076 0.642 0.062 0.298 0.058 1290 124
4v8-9 random    heuristic 20 0.258 0.032 0.258 0.042 0.255 0.028 0.705 0.037 1209 99
4v8-9 greedy    heuristic 20 0.599 0.037 0.592 0.067 0.568 0.054 0.373 0.053 1238 97
"""


def _scripted(row: str) -> tuple[tuple[str, str, str], Scripted]:
    preset, cameras, targets, episodes, *numbers = row.split()
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    return (preset, cameras, targets), Scripted(int(episodes), *[Figure(float(m), float(d)) for m, d in pairs])


SCRIPTED: dict[tuple[str, str, str], Scripted] = dict(map(_scripted, _SCRIPTED.strip().splitlines()))
"""By preset, cameras and targets."""


class Selected(NamedTuple):
    """Cameras that select targets every five frames, against greedy targets."""

    coverage_rate: Figure
    mean_transport_rate: float
    efficiency: float | None
    """Share of the selected targets that are visible after a frame."""


SELECTED_EPISODES = 8
SELECTIONS: dict[tuple[str, str], Selected] = {
    ("4v4-9", "never"): Selected(Figure(0.170, 0.022), 0.792, None),
    ("4v4-9", "random_half"): Selected(Figure(0.331, 0.040), 0.593, 0.96),
    ("4v4-9", "nearest_visible"): Selected(Figure(0.663, 0.040), 0.308, 0.98),
    ("4v4-9", "all_visible"): Selected(Figure(0.678, 0.032), 0.312, 0.97),
    ("4v4-9", "all_targets"): Selected(Figure(0.696, 0.051), 0.285, 0.25),
    ("4v4-9", "privileged_5"): Selected(Figure(0.851, 0.025), 0.153, None),
    ("4v4-9", "privileged_1"): Selected(Figure(0.870, 0.033), 0.124, None),
    ("4v8-9", "never"): Selected(Figure(0.175, 0.011), 0.790, None),
    ("4v8-9", "random_half"): Selected(Figure(0.360, 0.022), 0.585, None),
    ("4v8-9", "nearest_visible"): Selected(Figure(0.583, 0.042), 0.378, None),
    ("4v8-9", "all_visible"): Selected(Figure(0.615, 0.041), 0.367, None),
    ("4v8-9", "all_targets"): Selected(Figure(0.619, 0.026), 0.360, None),
    ("4v8-9", "privileged_5"): Selected(Figure(0.668, 0.029), 0.289, None),
    ("4v8-9", "privileged_1"): Selected(Figure(0.682, 0.020), 0.282, None),
}
"""By preset and rule; `privileged_N` sees everything and assigns every N frames."""
