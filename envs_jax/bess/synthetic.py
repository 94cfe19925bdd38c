"""Seeded synthetic market days without end.

Reading order: `SyntheticParams` (what the model is made of), `synthetic_market` with its price and PV halves. How the
parameters come from a real table is in `synthetic_fit`; reserve prices are in `reserve`.

The price of an hour is a slow level (fuel) times a relative price. The relative price is the mean profile of season
and day type, widened or narrowed from day to day, plus a wind term for the whole day, hourly noise and the
merit-order effect of PV that deviates from its mean; a supply curve that is steep at both ends bends it, which is where
negative hours and spikes come from. PV is a clear-sky curve from the position of the sun times the transparency of
the day, which persists from day to day.
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from scipy.special import betaincinv, gammaincinv, ndtr, stdtrit

from envs_jax.bess.clock import utc_offset_h
from envs_jax.bess.data import MarketDays
from envs_jax.bess.params import HOURS, Limits, pv_ac_from_capacity_factor
from envs_jax.bess.table import DataError

CAPACITY_FACTOR_LIMITS = Limits.model_validate(
    {"res": {"pv_ac_capacity_mw": 1, "pv_dc_capacity_mw": 1, "inverter_efficiency": 1, "total_loss_percent": 0}}
)
"""A plant whose AC power in MW is the capacity factor: load a market with these limits before `synthetic_fit.fit`."""

PRICE_RANGE_EUR_PER_MWH = (-500.0, 4000.0)
"""Harmonised limits of the European day-ahead auction."""

_LEVEL_RANGE_STD = 2.0
"""The level stays within so many standard deviations: further out lie fuel prices nobody has seen."""


_DUTCH_PROFILE = (
    (
        (0.856, 0.789, 0.762, 0.737, 0.737, 0.794, 0.947, 1.155, 1.291, 1.305, 1.209, 1.147,
         1.078, 1.056, 1.089, 1.127, 1.182, 1.348, 1.315, 1.198, 1.090, 0.995, 0.971, 0.863),
        (0.880, 0.815, 0.768, 0.721, 0.705, 0.714, 0.747, 0.802, 0.905, 0.987, 0.953, 0.921,
         0.905, 0.846, 0.856, 0.898, 0.963, 1.129, 1.187, 1.093, 1.009, 0.911, 0.884, 0.802),
    ),  # winter
    (
        (0.999, 0.946, 0.919, 0.902, 0.907, 0.980, 1.179, 1.351, 1.387, 1.194, 1.027, 0.953,
         0.885, 0.824, 0.801, 0.835, 0.897, 1.073, 1.249, 1.389, 1.344, 1.236, 1.162, 1.027),
        (1.041, 0.948, 0.919, 0.888, 0.857, 0.881, 0.878, 0.901, 0.899, 0.795, 0.664, 0.572,
         0.507, 0.412, 0.381, 0.446, 0.582, 0.839, 1.061, 1.216, 1.259, 1.196, 1.146, 1.046),
    ),  # spring
    (
        (1.016, 0.946, 0.919, 0.896, 0.902, 0.957, 1.161, 1.277, 1.282, 1.181, 1.071, 1.003,
         0.934, 0.878, 0.849, 0.867, 0.916, 1.080, 1.199, 1.328, 1.374, 1.303, 1.236, 1.095),
        (1.017, 0.911, 0.854, 0.813, 0.797, 0.785, 0.802, 0.812, 0.807, 0.770, 0.690, 0.627,
         0.567, 0.459, 0.442, 0.485, 0.590, 0.752, 0.973, 1.132, 1.197, 1.209, 1.211, 1.122),
    ),  # summer
    (
        (0.873, 0.810, 0.779, 0.739, 0.747, 0.822, 1.050, 1.284, 1.372, 1.260, 1.126, 1.032,
         0.933, 0.920, 0.935, 1.000, 1.082, 1.309, 1.384, 1.408, 1.266, 1.101, 1.037, 0.933),
        (0.887, 0.795, 0.752, 0.721, 0.711, 0.714, 0.788, 0.862, 0.926, 0.952, 0.876, 0.815,
         0.783, 0.695, 0.684, 0.745, 0.844, 1.061, 1.156, 1.235, 1.118, 1.013, 0.972, 0.891),
    ),  # autumn
)  # fmt: skip


@dataclass(frozen=True)
class SyntheticParams:
    """Statistics of a market; the defaults are what `synthetic_fit` finds in the packaged Dutch table of 2021 and 2022.

    The defaults have seen every day of that table, and `pv_price_slope` the German days of 2018: for scores on days
    held out of either, pass `fit(training days)` and set the slope yourself.
    "Relative" numbers are multiples of the price level. A correlation is that of one step, of Gaussian numbers that
    are then given the distribution named.
    """

    level_log_mean: float = 4.9581
    """Mean of log(price level in EUR/MWh)."""
    level_log_std: float = 0.6545
    level_day_correlation: float = 0.9958
    profile: tuple[tuple[tuple[float, ...], ...], ...] = _DUTCH_PROFILE
    """Mean relative price by season (winter first), day type (Monday to Friday, weekend) and hour."""
    amplitude_std: float = 0.3388
    """Of the day's factor, gamma distributed with mean 1, on noise and deviation of the profile from its daily mean."""
    amplitude_day_correlation: float = 0.2109
    wind_std: tuple[float, ...] = (0.228, 0.199, 0.107, 0.192)
    """Relative price by season: shift of a whole day."""
    wind_tail_freedom: float = 7.0
    """Degrees of freedom of its Student distribution, from an excess kurtosis of 2."""
    wind_day_correlation: float = 0.6611
    noise_std: float = 0.1607
    """Relative price, hourly, around the mean of a day of ordinary amplitude."""
    noise_hour_correlation: float = 0.8363
    surplus_knee: float = 0.4649
    """Relative price below which prices fall faster, by the factor `surplus_slope`: negative hours."""
    surplus_slope: float = 1.6272
    scarcity_knee: float = 1.7180
    """Relative price above which prices rise faster, by the factor `scarcity_slope`: spikes."""
    scarcity_slope: float = 2.0560
    pv_price_slope: float = -0.5861
    """Change of the relative price per unit of capacity factor above its mean in the month and hour. From German
    prices and PV of the same days of 2018, since the Dutch table pairs prices with the weather of another year."""
    latitude_deg: float = 52.1
    longitude_deg: float = 5.2
    timezone: str = "Europe/Amsterdam"
    panel_tilt_deg: float = 20.0
    """Towards the south, the mean of many plants."""
    clear_sky_scale: tuple[float, ...] = (
        1.334, 1.686, 1.474, 1.280, 1.186, 1.203,
        1.208, 1.286, 1.560, 2.071, 2.278, 1.768,
    )  # fmt: skip
    """Capacity factor at full transparency per unit of `clear_sky`, by month (January first)."""
    transparency_mean: tuple[float, ...] = (
        0.341, 0.578, 0.464, 0.547, 0.749, 0.624,
        0.809, 0.664, 0.579, 0.513, 0.423, 0.321,
    )  # fmt: skip
    """Of the day's transparency, beta distributed on 0..1, by month."""
    transparency_std: tuple[float, ...] = (
        0.236, 0.289, 0.211, 0.273, 0.201, 0.208,
        0.155, 0.214, 0.236, 0.265, 0.281, 0.246,
    )  # fmt: skip
    transparency_day_correlation: float = 0.2960
    cloud_log_std: float = 0.6907
    """Of the hour's factor on the optical depth (minus the log of the transparency): bright days are steady."""
    cloud_hour_correlation: float = 0.9500


def synthetic_market(
    num_days: int, seed: int, limits: Limits, start: str = "2023-01-01", params: SyntheticParams | None = None
) -> MarketDays:
    """`num_days` consecutive days from `start` (ISO date); the same seed gives the same days.

    Every component draws from its own stream, so changing one leaves the others as they were. Days of a clock change
    have 24 hours like any other. There is no reserve column: see `reserve.reserve_prices`.

    Raises:
        DataError: `num_days` below 1.
    """
    if num_days < 1:
        raise DataError(f"a synthetic market of {num_days} days has no days; ask for at least 1")
    p = SyntheticParams() if params is None else params
    level_rng, wind_rng, amplitude_rng, noise_rng, sky_rng, cloud_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)
    )
    dates = np.datetime64(start, "D") + np.arange(num_days)
    calendar = MarketDays(dates, np.zeros((num_days, HOURS)), None, np.zeros((num_days, HOURS)))

    capacity_factor, expected_factor = _capacity_factor(calendar, p, sky_rng, cloud_rng)
    relative = _relative_price(calendar, p, wind_rng, amplitude_rng, noise_rng)
    relative = _supply_curve(relative + p.pv_price_slope * (capacity_factor - expected_factor), p)
    level_z = ar1(level_rng, num_days, p.level_day_correlation).clip(-_LEVEL_RANGE_STD, _LEVEL_RANGE_STD)
    level_eur_per_mwh = np.exp(p.level_log_mean + p.level_log_std * level_z)
    price = (level_eur_per_mwh[:, None] * relative).clip(*PRICE_RANGE_EUR_PER_MWH)
    return MarketDays(dates, price, None, pv_ac_from_capacity_factor(limits, capacity_factor))


# Price ---------------------------------------------------------------------------------------------------------------


def _relative_price(
    days: MarketDays,
    p: SyntheticParams,
    wind_rng: np.random.Generator,
    amplitude_rng: np.random.Generator,
    noise_rng: np.random.Generator,
) -> np.ndarray:
    """Multiples of the level under average PV, before the supply curve, [D, 24]."""
    profile = np.asarray(p.profile)[days.season, is_weekend(days)]
    mean = profile.mean(axis=1, keepdims=True)
    shape = profile - mean
    amplitude = _gamma(ar1(amplitude_rng, len(days), p.amplitude_day_correlation), p.amplitude_std)
    wind = _student_t(ar1(wind_rng, len(days), p.wind_day_correlation), p.wind_tail_freedom)
    wind *= np.asarray(p.wind_std)[days.season]
    noise = p.noise_std * ar1(noise_rng, len(days) * HOURS, p.noise_hour_correlation).reshape(-1, HOURS)
    _, _, noise = parts_of(noise, shape)
    return mean + wind[:, None] + amplitude[:, None] * (shape + noise)


def _gamma(z: np.ndarray, std: float) -> np.ndarray:
    """Standard normal numbers mapped to a gamma distribution of mean 1."""
    shape = 1 / max(std, 1e-3) ** 2
    return gammaincinv(shape, ndtr(z)) / shape


def _student_t(z: np.ndarray, freedom: float) -> np.ndarray:
    """Standard normal numbers mapped to a Student distribution of variance 1."""
    return stdtrit(freedom, ndtr(z)) * np.sqrt(1 - 2 / freedom)


def parts_of(values: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Daily mean [D], factor [D] on the zero-mean `shape` and what is left [D, 24] of `values` [D, 24]."""
    mean = values.mean(axis=1)
    deviation = values - mean[:, None]
    factor = (deviation * shape).sum(axis=1) / np.maximum((shape**2).sum(axis=1), 1e-12)
    return mean, factor, deviation - factor[:, None] * shape


def _supply_curve(relative: np.ndarray, p: SyntheticParams) -> np.ndarray:
    surplus = np.minimum(relative - p.surplus_knee, 0)
    scarcity = np.maximum(relative - p.scarcity_knee, 0)
    return relative + (p.surplus_slope - 1) * surplus + (p.scarcity_slope - 1) * scarcity


def is_weekend(days: MarketDays) -> np.ndarray:
    return (days.weekday >= 5).astype(np.int64)


def ar1(rng: np.random.Generator, length: int, correlation: float) -> np.ndarray:
    """Stationary first-order autoregression with unit variance, [length]."""
    innovation = rng.standard_normal(length)
    innovation[1:] *= np.sqrt(1 - correlation**2)
    # A plain loop: scipy.signal filters faster, but importing it takes longer than a century of days.
    return np.array(list(accumulate(innovation.tolist(), lambda before, new: correlation * before + new)))


# PV ------------------------------------------------------------------------------------------------------------------


def clear_sky(dates: np.ndarray, p: SyntheticParams) -> np.ndarray:
    """Shape of clear-sky PV (beam on a tilted plane plus a tenth of it as diffuse light), hourly means, [D, 24].

    Declination after Cooper (1969), the common three-term equation of time, beam attenuation 0.7**(AM**0.678) after
    Meinel and Meinel (1976). Hours are those of the local clock, so summer time shifts the curve.
    """
    day_of_year = (dates - dates.astype("datetime64[Y]")).astype(np.int64) + 1
    season_angle = 2 * np.pi * (day_of_year - 81) / 365
    declination = np.deg2rad(23.45) * np.sin(season_angle)[:, None]
    equation_of_time_h = (
        9.87 * np.sin(2 * season_angle) - 7.53 * np.cos(season_angle) - 1.5 * np.sin(season_angle)
    ) / 60
    parts = 4  # the sun moves 15 degrees an hour: quarter hours resolve sunrise
    clock_h = (np.arange(HOURS * parts) + 0.5) / parts
    solar_h = clock_h + (p.longitude_deg / 15 + equation_of_time_h - utc_offset_h(dates, p.timezone))[:, None]
    hour_angle = (solar_h - 12) * np.pi / 12

    def sine_of_height(latitude_deg: float) -> np.ndarray:
        latitude = np.deg2rad(latitude_deg)
        return np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)

    height = sine_of_height(p.latitude_deg)
    # A plane tilted south sees the sun as level ground does further south.
    incidence = np.maximum(sine_of_height(p.latitude_deg - p.panel_tilt_deg), 0)
    beam = 0.7 ** (1 / np.maximum(height, 0.02)) ** 0.678
    light = np.where(height > 0, beam * (incidence + 0.1), 0.0)
    return light.reshape(len(dates), HOURS, parts).mean(axis=2)


def _capacity_factor(
    days: MarketDays, p: SyntheticParams, sky_rng: np.random.Generator, cloud_rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Capacity factor 0..1 and its mean in the month and hour, both [D, 24]."""
    month = days.month - 1
    mean, std = np.asarray(p.transparency_mean)[month], np.asarray(p.transparency_std)[month]
    rank = ndtr(ar1(sky_rng, len(days), p.transparency_day_correlation))
    day_transparency = betaincinv(*beta_shape(mean, std), rank)[:, None]
    clear = np.asarray(p.clear_sky_scale)[month][:, None] * clear_sky(days.dates, p)
    depth = np.exp(p.cloud_log_std * ar1(cloud_rng, len(days) * HOURS, p.cloud_hour_correlation)).reshape(-1, HOURS)
    transparency = day_transparency**depth
    # Clouds move energy between hours; how much there is in the day is the day's transparency.
    energy = (clear * day_transparency).sum(axis=1, keepdims=True)
    transparency *= energy / np.maximum((clear * transparency).sum(axis=1, keepdims=True), 1e-12)
    return (clear * transparency.clip(0, 1)).clip(0, 1), clear * mean[:, None]


def beta_shape(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two shape numbers of a beta distribution on 0..1 with this mean and standard deviation, elementwise."""
    total = mean * (1 - mean) / np.maximum(std, 1e-3) ** 2 - 1
    return mean * total, (1 - mean) * total
