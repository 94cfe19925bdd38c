"""Rainflow wear of a recorded state-of-charge path: the reference that the hourly wear models approximate.

It needs the whole path, so it is reported after an evaluation and never part of a reward.
"""

import numpy as np

from envs_jax.bess.params import CYCLE_LIFE_EXPONENT, DegradationLimits


def turning_points(path: np.ndarray) -> np.ndarray:
    """The values of a path [N] at which its direction changes, its ends included."""
    path = np.asarray(path, float)
    path = path[np.concatenate([[True], np.diff(path) != 0])]
    if len(path) < 3:
        return path
    turns = np.sign(np.diff(path[:-1])) != np.sign(np.diff(path[1:]))
    return path[np.concatenate([[True], turns, [True]])]


def rainflow_cycles(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranges and counts (1 full, 0.5 half) of the cycles of a path, by three points (ASTM E1049-85, 5.4.4)."""
    ranges: list[float] = []
    counts: list[float] = []
    stack: list[float] = []
    for point in turning_points(path):
        stack.append(float(point))
        while len(stack) >= 3:
            inner, outer = abs(stack[-2] - stack[-3]), abs(stack[-1] - stack[-2])
            if outer < inner:
                break
            ranges.append(inner)
            if len(stack) == 3:  # the range contains the start of the path: half a cycle, and the start moves on
                counts.append(0.5)
                stack.pop(0)
            else:
                counts.append(1.0)
                del stack[-3:-1]
    rest = np.abs(np.diff(stack))
    return np.concatenate([ranges, rest]), np.concatenate([counts, np.full(len(rest), 0.5)])


def rainflow_wear_eur(path: np.ndarray, energy_mwh: float, limits: DegradationLimits) -> float:
    """Replacement cost used up by a path of states of charge: sum of capex * E * n_i / N(d_i), in EUR.

    N(d) = N_ref * (d_ref / d)**b is the number of full cycles of depth d to the end of life.
    """
    depth, count = rainflow_cycles(path)
    life = (depth / limits.dod_max_for_cost) ** CYCLE_LIFE_EXPONENT / limits.n_cycles_at_dod_max
    return float(limits.capex_eur_per_mwh * energy_mwh * np.sum(count * life))
