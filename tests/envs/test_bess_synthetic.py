"""The synthetic market against the real one it was fitted to, and reserve prices.

Each statistic has a tolerance, and for each part of the model there is a test that without it some statistic misses
its tolerance: a tolerance that a wrong model passes would say nothing.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from envs_jax.bess.data import MarketDays, load_market
from envs_jax.bess.params import limits_of
from envs_jax.bess.reserve import RESERVE_HOURLY_MEANS, ds3_price, reserve_prices, synthetic_reserve
from envs_jax.bess.synthetic import CAPACITY_FACTOR_LIMITS, SyntheticParams, clear_sky, synthetic_market
from envs_jax.bess.synthetic_fit import fit, pv_price_slope
from envs_jax.bess.table import DataError

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "bess"
DAYS = 6_000
PARAMS = SyntheticParams()


@pytest.fixture(scope="module")
def real() -> MarketDays:
    return load_market(None, CAPACITY_FACTOR_LIMITS)


@pytest.fixture(scope="module")
def synthetic() -> MarketDays:
    return synthetic_market(DAYS, 1, CAPACITY_FACTOR_LIMITS)


# Statistics ----------------------------------------------------------------------------------------------------------


def daily_mean(days: MarketDays) -> np.ndarray:
    return days.price_eur_per_mwh.mean(axis=1)


def four_week_level(days: MarketDays) -> np.ndarray:
    padded = np.pad(daily_mean(days), 14, mode="reflect")
    return np.convolve(padded, np.r_[0.5, np.ones(27), 0.5] / 28, mode="valid")


def relative(days: MarketDays) -> np.ndarray:
    return days.price_eur_per_mwh / four_week_level(days)[:, None]


def log_level_correlation(days: MarketDays, lag: int) -> float:
    level = np.log(four_week_level(days))
    return correlation(level[lag:], level[:-lag])


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def monthly_mean(days: MarketDays, values: np.ndarray) -> np.ndarray:
    return np.array([values[days.month == m].mean(axis=0) for m in range(1, 13)])


def pv_day_ratio(days: MarketDays) -> np.ndarray:
    energy = days.pv_mw.mean(axis=1)
    return energy / monthly_mean(days, energy)[days.month - 1]


def relative_daily_mean(days: MarketDays) -> np.ndarray:
    """Daily mean over the level, less the mean of season and day type."""
    x = relative(days).mean(axis=1)
    group = days.season * 2 + (days.weekday >= 5)
    return x - np.array([x[group == g].mean() for g in range(8)])[group]


def morning_share_std(days: MarketDays) -> float:
    """Scatter of the share of a summer day's PV that comes before noon."""
    pv = days.pv_mw[days.season == 2]
    return float((pv[:, :12].sum(axis=1) / pv.sum(axis=1)).std())


def hour_to_hour(days: MarketDays) -> float:
    """Size of bends in the price curve of single days beyond those of the mean curve."""
    x = relative(days)
    group = days.season * 2 + (days.weekday >= 5)
    x = x - np.array([x[group == g].mean(axis=0) for g in range(8)])[group]
    return float(np.diff(x, n=2, axis=1).std())


# Name: (statistic, relative tolerance, absolute tolerance).
STATISTICS: dict[str, tuple[Callable[[MarketDays], float | np.ndarray], float, float]] = {
    "mean price": (lambda d: daily_mean(d).mean(), 0.15, 0),
    "variation of the daily mean": (lambda d: daily_mean(d).std() / daily_mean(d).mean(), 0.12, 0),
    "lag-1 correlation of the daily mean": (lambda d: correlation(daily_mean(d)[1:], daily_mean(d)[:-1]), 0, 0.03),
    "level after four weeks": (lambda d: log_level_correlation(d, 28), 0, 0.05),
    "hourly profile": (lambda d: d.price_eur_per_mwh.mean(axis=0) / d.price_eur_per_mwh.mean(), 0, 0.04),
    "midday by season": (
        lambda d: np.array([relative(d)[d.season == s, 12:16].mean() for s in range(4)]), 0, 0.04,
    ),
    "weekend discount": (
        lambda d: daily_mean(d)[d.weekday >= 5].mean() / daily_mean(d)[d.weekday < 5].mean(), 0, 0.02,
    ),
    "scatter of the relative daily mean": (lambda d: relative_daily_mean(d).std(), 0.1, 0),
    "lag-1 correlation of the relative daily mean": (
        lambda d: correlation(relative_daily_mean(d)[1:], relative_daily_mean(d)[:-1]), 0, 0.08,
    ),
    "relative spread": (lambda d: np.quantile(np.ptp(relative(d), axis=1), (0.05, 0.25, 0.5, 0.75, 0.95)), 0.12, 0),
    # The level of the two years is bimodal, before and in the crisis: low quantiles in EUR are not those of a model.
    "spread in EUR/MWh": (lambda d: np.quantile(np.ptp(d.price_eur_per_mwh, axis=1), (0.5, 0.75, 0.95)), 0.18, 0),
    "hour-to-hour bends": (hour_to_hour, 0.15, 0),
    "share of negative hours": (lambda d: (d.price_eur_per_mwh < 0).mean(), 0.2, 0),
    "spikes": (lambda d: np.quantile(relative(d), (0.99, 0.999, 0.9995)), 0.06, 0),
    "PV by month": (lambda d: monthly_mean(d, d.pv_mw.mean(axis=1)), 0.08, 0),
    "PV by hour": (lambda d: d.pv_mw.mean(axis=0), 0, 0.035),
    "PV quantiles": (lambda d: np.quantile(d.pv_mw, (0.7, 0.9, 0.99, 0.999)), 0.06, 0),
    "PV day-to-day correlation": (lambda d: correlation(d.pv_mw.mean(1)[1:], d.pv_mw.mean(1)[:-1]), 0, 0.03),
    "persistence of cloudy days": (lambda d: correlation(pv_day_ratio(d)[1:], pv_day_ratio(d)[:-1]), 0, 0.1),
    "scatter of PV days": (lambda d: pv_day_ratio(d).std(), 0.05, 0),
    "clouds within the day": (morning_share_std, 0.25, 0),
    "price and PV": (
        lambda d: correlation(d.price_eur_per_mwh - daily_mean(d)[:, None], d.pv_mw), 0, 0.03,
    ),
}  # fmt: skip


def agrees(name: str, model: MarketDays, market: MarketDays) -> bool:
    statistic, relative_tolerance, absolute_tolerance = STATISTICS[name]
    return np.allclose(statistic(model), statistic(market), rtol=relative_tolerance, atol=absolute_tolerance)


@pytest.mark.parametrize("name", STATISTICS)
def test_statistic_agrees_with_the_real_market(name, synthetic, real):
    statistic = STATISTICS[name][0]
    assert agrees(name, synthetic, real), f"synthetic {statistic(synthetic)}, real {statistic(real)}"


def flat_days() -> SyntheticParams:
    means = np.asarray(PARAMS.profile).mean(axis=2, keepdims=True)
    return replace(PARAMS, profile=np.broadcast_to(means, (4, 2, 24)).tolist())


def no_weekend() -> SyntheticParams:
    return replace(PARAMS, profile=tuple((workday, workday) for workday, _ in PARAMS.profile))


def no_seasons() -> SyntheticParams:
    return replace(PARAMS, profile=(PARAMS.profile[0],) * 4)


WITHOUT = {
    "daily shape": (flat_days, "hourly profile"),
    "weekly shape": (no_weekend, "weekend discount"),
    "seasonal shape": (no_seasons, "midday by season"),
    "price level": (lambda: replace(PARAMS, level_log_mean=4.6), "mean price"),
    "moving level": (lambda: replace(PARAMS, level_log_std=0.0), "variation of the daily mean"),
    "moving level in EUR": (lambda: replace(PARAMS, level_log_std=0.0), "spread in EUR/MWh"),
    "persistent level": (lambda: replace(PARAMS, level_day_correlation=0.0), "lag-1 correlation of the daily mean"),
    "level over weeks": (lambda: replace(PARAMS, level_day_correlation=0.98), "level after four weeks"),
    "wind": (lambda: replace(PARAMS, wind_std=(0.0,) * 4), "scatter of the relative daily mean"),
    "persistent wind": (
        lambda: replace(PARAMS, wind_day_correlation=0.0), "lag-1 correlation of the relative daily mean",
    ),
    "amplitude": (lambda: replace(PARAMS, amplitude_std=0.0), "relative spread"),
    "noise": (lambda: replace(PARAMS, noise_std=0.0), "relative spread"),
    "persistent noise": (lambda: replace(PARAMS, noise_hour_correlation=0.0), "hour-to-hour bends"),
    "surplus": (lambda: replace(PARAMS, surplus_slope=1.0), "share of negative hours"),
    "scarcity": (lambda: replace(PARAMS, scarcity_slope=1.0), "spikes"),
    "merit order": (lambda: replace(PARAMS, pv_price_slope=0.5), "price and PV"),
    "weather": (lambda: replace(PARAMS, transparency_std=(0.0,) * 12), "scatter of PV days"),
    "weather in MW": (lambda: replace(PARAMS, transparency_std=(0.0,) * 12), "PV quantiles"),
    "persistent weather": (
        lambda: replace(PARAMS, transparency_day_correlation=0.0), "persistence of cloudy days",
    ),
    "clouds": (lambda: replace(PARAMS, cloud_log_std=0.0), "clouds within the day"),
    "months": (lambda: replace(PARAMS, transparency_mean=(0.6,) * 12), "PV by month"),
    "year of the sun": (lambda: replace(PARAMS, latitude_deg=0.0), "PV day-to-day correlation"),
    "place of the sun": (lambda: replace(PARAMS, longitude_deg=-10.0), "PV by hour"),
}  # fmt: skip


def test_every_statistic_is_broken_by_some_missing_part():
    assert {name for _, name in WITHOUT.values()} == set(STATISTICS)


@pytest.mark.parametrize("part", WITHOUT)
def test_without_a_part_the_statistic_disagrees(part, real):
    params, name = WITHOUT[part]
    assert not agrees(name, synthetic_market(DAYS, 1, CAPACITY_FACTOR_LIMITS, params=params()), real)


def noon_gap(days: MarketDays) -> tuple[float, float]:
    """Relative price and capacity factor at 12-16 h of days with more PV than the month's mean, less those with less.

    Working days from spring to autumn only: their prices stay clear of the bends of the supply curve.
    """
    use = (days.weekday < 5) & (days.season > 0)
    sunny = pv_day_ratio(days) > 1

    def gap(values: np.ndarray) -> float:
        x = values[:, 12:16].mean(axis=1)
        x = x - monthly_mean(days, x)[days.month - 1]
        return float(x[use & sunny].mean() - x[use & ~sunny].mean())

    return gap(relative(days)), gap(days.pv_mw)


def test_sunny_hours_are_cheaper_by_the_merit_order(synthetic):
    price_gap, factor_gap = noon_gap(synthetic)
    assert price_gap / factor_gap == pytest.approx(PARAMS.pv_price_slope, rel=0.1)
    without = synthetic_market(DAYS, 1, CAPACITY_FACTOR_LIMITS, params=replace(PARAMS, pv_price_slope=0.0))
    assert noon_gap(without)[0] / factor_gap == pytest.approx(0, abs=0.06)


# Synthetic days ------------------------------------------------------------------------------------------------------


def test_days_are_whole_consecutive_and_within_limits():
    limits = limits_of("default")
    days = synthetic_market(800, 3, limits, start="2024-02-28")
    np.testing.assert_array_equal(days.dates, np.datetime64("2024-02-28") + np.arange(800))
    assert days.price_eur_per_mwh.shape == days.pv_mw.shape == (800, 24)
    assert np.isfinite(days.price_eur_per_mwh).all() and np.isfinite(days.pv_mw).all()
    assert days.price_eur_per_mwh.min() >= -500 and days.price_eur_per_mwh.max() <= 4000
    assert days.pv_mw.min() == 0.0 and days.pv_mw.max() == 15.0
    assert (days.pv_mw[:, :4] == 0).all() and days.reserve_eur_per_mw_h is None


def test_same_seed_same_days_and_more_days_only_append():
    short, long, other = (synthetic_market(n, seed, CAPACITY_FACTOR_LIMITS) for n, seed in ((30, 7), (60, 7), (30, 8)))
    np.testing.assert_array_equal(short.price_eur_per_mwh, long.price_eur_per_mwh[:30])
    np.testing.assert_array_equal(short.pv_mw, long.pv_mw[:30])
    assert not np.isclose(short.price_eur_per_mwh, other.price_eur_per_mwh).any()


def test_parts_draw_from_their_own_streams():
    base = synthetic_market(60, 7, CAPACITY_FACTOR_LIMITS)
    calm = synthetic_market(60, 7, CAPACITY_FACTOR_LIMITS, params=replace(PARAMS, wind_std=(0.0,) * 4))
    np.testing.assert_array_equal(base.pv_mw, calm.pv_mw)
    assert not np.isclose(base.price_eur_per_mwh, calm.price_eur_per_mwh).any()


def test_no_days_are_refused():
    with pytest.raises(DataError, match="ask for at least 1"):
        synthetic_market(0, 0, CAPACITY_FACTOR_LIMITS)


def test_clear_sky_peaks_at_solar_noon_and_follows_summer_time():
    def centre_h(date: str) -> float:
        curve = clear_sky(np.array([date], "datetime64[D]"), PARAMS)[0]
        return float(((np.arange(24) + 0.5) * curve).sum() / curve.sum())

    # The equation of time vanishes in mid June: solar noon is 12 h less longitude plus two hours of summer time.
    assert centre_h("2023-06-13") == pytest.approx(12 - 5.2 / 15 + 2, abs=0.02)
    # It is 16.4 minutes at its extreme in early November, in winter time.
    assert centre_h("2023-11-03") == pytest.approx(12 - 5.2 / 15 + 1 - 16.4 / 60, abs=0.03)
    assert centre_h("2023-03-27") - centre_h("2023-03-25") == pytest.approx(1, abs=0.02)
    # Synthetic days go further than the tables of clock changes of some libraries.
    assert centre_h("2063-06-13") == pytest.approx(centre_h("2023-06-13"), abs=0.02)


def test_clear_sky_day_length():
    solstices = np.array(["2023-06-21", "2023-12-21"], "datetime64[D]")
    lit = (clear_sky(solstices, PARAMS) > 0).sum(axis=1)
    declination = np.deg2rad([23.45, -23.45])
    hours = 24 / np.pi * np.arccos(-np.tan(np.deg2rad(PARAMS.latitude_deg)) * np.tan(declination))
    # An hour counts as lit when the sun rises or sets in it.
    assert ((lit >= hours) & (lit <= hours + 2)).all()


# Fit -----------------------------------------------------------------------------------------------------------------


def test_defaults_are_the_fit_of_the_packaged_table(real):
    fitted = fit(real)
    for field in fields(SyntheticParams):
        if field.name != "timezone":
            found, default = (np.asarray(getattr(params, field.name)) for params in (fitted, PARAMS))
            np.testing.assert_allclose(found, default, rtol=1e-3, atol=1e-3, err_msg=field.name)


def test_price_slope_is_that_of_german_prices_and_pv_of_the_same_days():
    if not SAMPLES.exists():
        pytest.skip("sample data not there")
    german = load_market(SAMPLES / "dayahead_pv_2018.csv", CAPACITY_FACTOR_LIMITS, zone="DE")
    assert pv_price_slope(german) == pytest.approx(PARAMS.pv_price_slope, abs=1e-4)


def test_price_slope_is_found_in_synthetic_days(synthetic):
    assert pv_price_slope(synthetic) == pytest.approx(PARAMS.pv_price_slope, rel=0.2)


def test_fit_finds_the_parameters_behind_synthetic_days():
    """Also of a market that is not Dutch: the fit must not lean on its defaults."""
    other = replace(
        PARAMS,
        level_log_mean=3.8,
        level_log_std=0.4,
        amplitude_std=0.25,
        wind_std=(0.3, 0.15, 0.2, 0.1),
        wind_day_correlation=0.4,
        noise_std=0.1,
        noise_hour_correlation=0.7,
        transparency_mean=(0.5,) * 12,
        transparency_std=(0.2,) * 12,
        transparency_day_correlation=0.6,
    )
    found = fit(synthetic_market(8000, 5, CAPACITY_FACTOR_LIMITS, params=other))
    for name, tolerance in {
        "level_log_mean": 0.15,
        "level_log_std": 0.08,
        "level_day_correlation": 0.005,
        "profile": 0.08,
        "amplitude_std": 0.04,
        "wind_std": 0.03,
        "wind_day_correlation": 0.06,
        "noise_std": 0.01,
        "noise_hour_correlation": 0.03,
        "transparency_mean": 0.05,
        "transparency_std": 0.03,
        "transparency_day_correlation": 0.06,
    }.items():
        np.testing.assert_allclose(getattr(found, name), getattr(other, name), atol=tolerance, err_msg=name)


def test_fit_refuses_too_few_months_and_power_in_mw(real):
    with pytest.raises(DataError, match="needs days of all 12 months"):
        fit(real.select("2021-01-01", "2021-06-30"))
    with pytest.raises(DataError, match="load it with CAPACITY_FACTOR_LIMITS"):
        fit(load_market(None, limits_of("default")))


# Reserve -------------------------------------------------------------------------------------------------------------


def test_hourly_means_of_the_specification():
    assert len(RESERVE_HOURLY_MEANS) == 24
    assert np.mean(RESERVE_HOURLY_MEANS) == pytest.approx(2.62, abs=0.005)
    assert RESERVE_HOURLY_MEANS[8] == 5.64 and RESERVE_HOURLY_MEANS[20] == 6.06 and RESERVE_HOURLY_MEANS[23] == 0.41


def test_synthetic_reserve_moments():
    prices = synthetic_reserve(20_000, 0)
    assert prices.shape == (20_000, 24) and prices.min() > 0 and prices.max() == 35.0
    np.testing.assert_allclose(np.median(prices, axis=0), RESERVE_HOURLY_MEANS, rtol=0.04)
    log = np.log(prices[:, :6])  # far below the clip
    variance = 0.72**2 + 0.5**2
    np.testing.assert_allclose(log.std(axis=0), np.sqrt(variance), rtol=0.02)
    assert correlation(log[:, 1], log[:, 0]) == pytest.approx((0.72**2 + 0.74 * 0.5**2) / variance, abs=0.01)
    assert correlation(log[:, 4], log[:, 0]) == pytest.approx((0.72**2 + 0.74**4 * 0.5**2) / variance, abs=0.01)
    assert correlation(log[1:, 0], log[:-1, 0]) == pytest.approx(0, abs=0.02)
    np.testing.assert_array_equal(synthetic_reserve(10, 0), prices[:10])
    assert not np.isclose(synthetic_reserve(10, 1), prices[:10]).any()


def test_ds3_tariff_table():
    snsp = np.array([[0, 49.9], [50, 59.9], [60, 69.9], [70, 100]])
    expected = np.array([[7.20] * 2, [15.93] * 2, [33.84] * 2, [100.36] * 2])
    np.testing.assert_allclose(ds3_price(snsp), expected, atol=0.005)
    assert float(ds3_price(65.0)) == pytest.approx(4.7 * 7.2)
    for wrong in (-1.0, 101.0, np.nan):
        with pytest.raises(DataError, match=r"0\.\.100 percent"):
            ds3_price(wrong)


def test_reserve_price_sources():
    days = synthetic_market(3, 0, CAPACITY_FACTOR_LIMITS)
    column = np.full((3, 24), 9.0)
    with_column = MarketDays(days.dates, days.price_eur_per_mwh, column, days.pv_mw)
    means = np.tile(RESERVE_HOURLY_MEANS, (3, 1))
    np.testing.assert_array_equal(reserve_prices(with_column, "auto"), column)
    np.testing.assert_array_equal(reserve_prices(with_column, "column"), column)
    np.testing.assert_array_equal(reserve_prices(with_column, "hourly_means"), means)
    np.testing.assert_array_equal(reserve_prices(days, "auto"), means)
    np.testing.assert_array_equal(reserve_prices(days, "synthetic", seed=4), synthetic_reserve(3, 4))
    np.testing.assert_array_equal(reserve_prices(days, "none"), np.zeros((3, 24)))
    np.testing.assert_allclose(reserve_prices(days, "ds3", snsp_percent=55.0), 15.93)
    by_hour = np.full((3, 24), 45.0)
    by_hour[1, 2] = 75.0
    assert reserve_prices(days, "ds3", snsp_percent=by_hour)[1, 2] == pytest.approx(100.359)
    with pytest.raises(DataError, match=r"env\.reserve\.source=column but the table has no column price_as"):
        reserve_prices(days, "column")
    with pytest.raises(DataError, match=r"set env\.reserve\.snsp_percent"):
        reserve_prices(days, "ds3")
