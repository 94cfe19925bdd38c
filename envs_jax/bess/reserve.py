"""Prices of reserve: hourly means, a seeded generator, the Irish tariff, or the table's own column."""

from typing import Literal

import numpy as np

from envs_jax.bess.data import MarketDays
from envs_jax.bess.params import HOURS
from envs_jax.bess.synthetic import ar1
from envs_jax.bess.table import DataError

ReserveSource = Literal["auto", "column", "hourly_means", "synthetic", "ds3", "none"]

RESERVE_HOURLY_MEANS = (
    0.26, 0.31, 0.25, 0.28, 0.31, 0.60, 0.94, 2.81, 5.64, 3.87, 3.88, 3.43,
    3.53, 3.49, 3.11, 3.52, 5.07, 5.08, 3.55, 4.97, 6.06, 1.00, 0.56, 0.41,
)  # fmt: skip
"""EUR per MW and hour of upward availability by local hour: mean of ten real Hungarian days of 2025."""

_RESERVE_DAY_LOG_STD, _RESERVE_HOUR_LOG_STD, _RESERVE_HOUR_CORRELATION = 0.72, 0.5, 0.74
_RESERVE_CAP_EUR_PER_MW_H = 35.0

_DS3_SLOW_EUR_PER_MW_H = 2.92 + 1.76 + 1.40 + 1.12
"""Irish DS3 tariffs POR + SOR + TOR1 + TOR2."""
_DS3_FFR_EUR_PER_MW_H = 1.94 * 3 * 1.5
"""FFR with its product scalars for speed and continuity."""
_DS3_SNSP_STEPS_PERCENT = (50.0, 60.0, 70.0)
_DS3_SLOW_SCARCITY = np.array([1.0, 1.0, 4.7, 6.3])
_DS3_FFR_SCARCITY = np.array([0.0, 1.0, 0.0, 6.3])


def synthetic_reserve(num_days: int, seed: int) -> np.ndarray:
    """Reserve prices in EUR per MW and hour, [D, 24]: log r = log m[h] + u_day + v_h (section 5 of the specification).

    m are `RESERVE_HOURLY_MEANS`, u has standard deviation 0.72 and v is an autoregression with 0.5 and correlation
    0.74; clipped to 0..35. m is thus the median of the hour; the mean is higher.
    """
    day_rng, hour_rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    day_log = _RESERVE_DAY_LOG_STD * day_rng.standard_normal((num_days, 1))
    hour_log = _RESERVE_HOUR_LOG_STD * ar1(hour_rng, num_days * HOURS, _RESERVE_HOUR_CORRELATION).reshape(-1, HOURS)
    return (np.asarray(RESERVE_HOURLY_MEANS) * np.exp(day_log + hour_log)).clip(0, _RESERVE_CAP_EUR_PER_MW_H)


def ds3_price(snsp_percent: float | np.ndarray) -> np.ndarray:
    """Irish DS3 reserve tariff in EUR per MW and hour, same shape as the penetration of wind and solar (SNSP, %).

    Scarcity scalars after Cardo-Miota et al., Applied Energy 388 (2025) 125561: 7.20 below 50 %, 15.93 from 50,
    33.84 from 60 and 100.36 from 70 %.

    Raises:
        DataError: a penetration outside 0..100.
    """
    snsp = np.asarray(snsp_percent, dtype=np.float64)
    if not ((snsp >= 0) & (snsp <= 100)).all():
        raise DataError("SNSP must lie in 0..100 percent; correct env.reserve.snsp_percent")
    step = np.searchsorted(_DS3_SNSP_STEPS_PERCENT, snsp, side="right")
    return _DS3_SLOW_EUR_PER_MW_H * _DS3_SLOW_SCARCITY[step] + _DS3_FFR_EUR_PER_MW_H * _DS3_FFR_SCARCITY[step]


def reserve_prices(
    market: MarketDays, source: ReserveSource, seed: int = 0, snsp_percent: float | np.ndarray | None = None
) -> np.ndarray:
    """Reserve prices of the market's days, EUR per MW and hour, [D, 24].

    `auto` is the table's column where it has one and `hourly_means` (the same every day) otherwise. `synthetic` draws
    from `seed`; `ds3` needs `snsp_percent`, a number or [D, 24].

    Raises:
        DataError: `column` without such a column, `ds3` without a penetration.
    """
    shape = market.price_eur_per_mwh.shape
    column = market.reserve_eur_per_mw_h
    if source == "column" and column is None:
        raise DataError("env.reserve.source=column but the table has no column price_as; add it or use hourly_means")
    if source in ("column", "auto") and column is not None:
        return column
    if source in ("auto", "hourly_means"):
        return np.tile(RESERVE_HOURLY_MEANS, (shape[0], 1))
    if source == "synthetic":
        return synthetic_reserve(len(market), seed)
    if source == "none":
        return np.zeros(shape)
    if snsp_percent is None:
        raise DataError("env.reserve.source=ds3 needs the share of wind and solar; set env.reserve.snsp_percent")
    return np.broadcast_to(ds3_price(snsp_percent), shape).copy()
