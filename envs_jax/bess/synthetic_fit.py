"""Fitting the synthetic market to a real table: `fit`, the statistics it compares, and the parts measured directly."""

from dataclasses import replace

import numpy as np
from scipy.special import betainc, ndtri

from envs_jax.bess.data import MarketDays
from envs_jax.bess.synthetic import (
    CAPACITY_FACTOR_LIMITS,
    SyntheticParams,
    beta_shape,
    clear_sky,
    is_weekend,
    parts_of,
    synthetic_market,
)
from envs_jax.bess.table import DataError

_FIT_ROUNDS = 6
_FIT_DAYS = 20 * 365
_MAX_CORRELATION = 0.95


def fit(market: MarketDays, same_day_weather: MarketDays | None = None) -> SyntheticParams:
    """Parameters from at least a year of consecutive days, loaded with `CAPACITY_FACTOR_LIMITS`; takes seconds.

    Indirect inference (Gourieroux, Monfort and Renault, J. Applied Econometrics 8 (1993) S85): what is easy to measure
    (`_statistics`) is measured on the market and on synthetic days, and the parameters are moved until both agree, so
    that the measurement need not separate what the parts of the model do to each other.

    `pv_price_slope` is fitted on `same_day_weather`, a market whose PV and prices belong to the same days, and keeps
    its default without one. Place and tilt of the panels and the tails of wind are not fitted.

    Raises:
        DataError: a month without days, or PV that is not a capacity factor.
    """
    if len(np.unique(market.month)) < 12:
        raise DataError("fitting a synthetic market needs days of all 12 months; give a longer range")
    if market.pv_mw.max() > 1.05:
        raise DataError("fitting a synthetic market needs capacity factors; load it with CAPACITY_FACTOR_LIMITS")
    p = _fit_level(market, _fit_transparency(market, SyntheticParams()))
    if same_day_weather is not None:
        p = replace(p, pv_price_slope=pv_price_slope(same_day_weather))
    wanted = _statistics(market, p)
    first_guess = wanted | {"surplus_slope": 1.0, "scarcity_slope": 1.0}
    p = replace(p, **{name: _as_tuples(value) for name, value in first_guess.items()})
    for _ in range(_FIT_ROUNDS):
        shown = _statistics(synthetic_market(_FIT_DAYS, 0, CAPACITY_FACTOR_LIMITS, params=p), p)
        p = replace(p, **{name: _moved(name, getattr(p, name), wanted, shown) for name in wanted})
    return p


def _moved(name: str, value, wanted: dict, shown: dict):
    """The parameter after one step from what the model shows towards what is wanted, on the scale on which it acts."""
    if name == "profile":
        moved = np.asarray(value) + wanted[name] - shown[name]
        # A season dearer than the level is a higher level: nothing shown could tell the two apart.
        moved /= np.average(moved.mean(axis=2), axis=1, weights=(5, 2))[:, None, None]
    elif name.endswith("_knee"):
        moved = shown[name]  # the slope then acts on the same share of hours in every round
    elif name.endswith("_slope"):
        knee = shown[name.replace("_slope", "_knee")]
        moved = value * (wanted[name] - knee) / (shown[name] - knee)
    elif name.endswith("_correlation"):
        moved = np.tanh(np.arctanh(value) + np.arctanh(wanted[name]) - np.arctanh(shown[name]))
        moved = moved.clip(0, _MAX_CORRELATION)
    else:
        moved = np.asarray(value) * wanted[name] / shown[name]
    return _as_tuples(moved)


def _as_tuples(values: float | np.ndarray):
    return float(values) if np.ndim(values) == 0 else tuple(_as_tuples(part) for part in np.asarray(values))


def _statistics(market: MarketDays, p: SyntheticParams) -> dict[str, float | np.ndarray]:
    """For each parameter of the same name a statistic that moves with it."""
    relative = market.price_eur_per_mwh / _price_level(market)[:, None]
    profile = _profile(market, relative)
    expected = profile[market.season, is_weekend(market)]
    expected_mean = expected.mean(axis=1)
    mean, amplitude, noise = parts_of(relative, expected - expected_mean[:, None])
    wind = mean - expected_mean
    surplus_knee, scarcity_knee = np.quantile(relative, (0.05, 0.98))
    surplus, scarcity = np.quantile(relative, (0.005, 0.01)), np.quantile(relative, (0.995, 0.998, 0.999))
    return {
        "profile": profile,
        # Between the quartiles, as the ends of the supply curve widen the spread of extreme days on their own.
        "amplitude_std": np.subtract(*np.quantile(amplitude, (0.75, 0.25))),
        "amplitude_day_correlation": _correlation(amplitude[1:], amplitude[:-1]),
        "wind_std": np.array([wind[market.season == season].std() for season in range(4)]),
        "wind_day_correlation": _correlation(wind[1:], wind[:-1]),
        "noise_std": np.median(noise.std(axis=1)),
        "noise_hour_correlation": _correlation(noise[:, 1:], noise[:, :-1]),
        "surplus_knee": surplus_knee,
        "surplus_slope": surplus.mean(),
        "scarcity_knee": scarcity_knee,
        "scarcity_slope": scarcity.mean(),
        **_cloud_statistics(market, p),
    }


def _price_level(market: MarketDays) -> np.ndarray:
    """EUR/MWh, [D]: mean over four weeks around the day, so that neither weekends nor weather move it."""
    half = 14
    weight = np.r_[0.5, np.ones(2 * half - 1), 0.5] / (2 * half)
    return np.convolve(np.pad(market.price_eur_per_mwh.mean(axis=1), half, mode="reflect"), weight, mode="valid")


def _profile(days: MarketDays, relative: np.ndarray) -> np.ndarray:
    """Mean relative price [season, day type, hour]."""
    groups = [[(days.season == season) & (is_weekend(days) == kind) for kind in (0, 1)] for season in range(4)]
    return np.array([[relative[group].mean(axis=0) for group in kinds] for kinds in groups])


def _cloud_statistics(market: MarketDays, p: SyntheticParams) -> dict[str, float | np.ndarray]:
    clear = clear_sky(market.dates, p)
    # Near the horizon the curve is too small to divide by.
    high_sun = clear > 0.15 * clear.max()
    log_transparency = np.log(np.maximum(market.pv_mw / np.where(high_sun, clear, 1.0), 0.05))
    cloud = np.where(high_sun, log_transparency, np.nan)
    cloud -= np.nanmean(cloud, axis=1, keepdims=True)
    # What recurs at an hour of a month is the orientation of the plants, not clouds.
    for m in range(1, 13):
        cells = np.ix_(market.month == m, high_sun[market.month == m].any(axis=0))
        cloud[cells] -= np.nanmean(cloud[cells], axis=0)
    neighbours = high_sun[:, 1:] & high_sun[:, :-1]
    return {
        "cloud_log_std": float(np.nanstd(cloud)),
        "cloud_hour_correlation": _correlation(cloud[:, 1:][neighbours], cloud[:, :-1][neighbours]),
    }


def _fit_level(market: MarketDays, p: SyntheticParams) -> SyntheticParams:
    log_level = np.log(_price_level(market))
    # The level is a moving mean: only beyond its window do days tell how long it really persists.
    lag = 28
    return replace(
        p,
        level_log_mean=float(log_level.mean()),
        level_log_std=float(log_level.std()),
        level_day_correlation=max(_correlation(log_level[lag:], log_level[:-lag]), 0.0) ** (1 / lag),
    )


def _fit_transparency(market: MarketDays, p: SyntheticParams) -> SyntheticParams:
    clear = clear_sky(market.dates, p)
    ratio = market.pv_mw.sum(axis=1) / clear.sum(axis=1)
    by_month = [market.month == m for m in range(1, 13)]
    brightest = np.array([1.02 * ratio[days].max() for days in by_month])
    mean = np.array([market.pv_mw[days].sum() / clear[days].sum() for days in by_month]) / brightest
    std = np.array([ratio[days].std() for days in by_month]) / brightest
    month = market.month - 1
    rank = betainc(*beta_shape(mean[month], std[month]), ratio / brightest[month])
    day_z = ndtri(rank.clip(0.001, 0.999))
    return replace(
        p,
        clear_sky_scale=_as_tuples(brightest),
        transparency_mean=_as_tuples(mean),
        transparency_std=_as_tuples(std),
        transparency_day_correlation=_correlation(day_z[1:], day_z[:-1]),
    )


def pv_price_slope(market: MarketDays) -> float:
    """Least squares of the relative price on capacity factor in sunny hours, both around their means.

    The same day's price at night stands for wind and demand, which are no consequence of the sun.
    """
    relative = market.price_eur_per_mwh / _price_level(market)[:, None]
    residual = relative - _profile(market, relative)[market.season, is_weekend(market)]
    monthly = np.array([market.pv_mw[market.month == m].mean(axis=0) for m in range(1, 13)])
    pv = market.pv_mw - monthly[market.month - 1]
    sunny = pv.std(axis=0) > 0.03
    night = residual[:, monthly.max(axis=0) < 0.01].mean(axis=1, keepdims=True)
    x = np.stack([pv[:, sunny].ravel(), np.broadcast_to(night, pv[:, sunny].shape).ravel()], axis=1)
    return float(np.linalg.lstsq(x, residual[:, sunny].ravel(), rcond=None)[0][0])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
