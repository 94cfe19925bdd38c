"""One trading day as the environment carries it: actual values, what the policy sees of them, and derived windows.

Reading order: `Day`, the table of all days of a split, then what happens to a day at reset: augmentation (training
only) and forecast.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from pydantic import BaseModel, ConfigDict, Field

from envs_jax.bess.data import MarketDays, season_of
from envs_jax.bess.params import HOURS, Rules
from envs_jax.bess.windows import cheap_hours, peak_hours, peak_window

DEVIATION_FLOOR_EUR_PER_MWH = 3.0
"""Smallest price deviation of a day used as a unit: flat days stay finite."""


class Augmentation(BaseModel):
    """Fresh variation of every training day; wear costs stay, so the policy meets all ratios of spread to wear."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    log_scale_low: float = Field(-0.7, description="prices are multiplied by exp(U(low, high))")
    log_scale_high: float = 1.7
    shift_std_eur_per_mwh: float = Field(20.0, ge=0, description="N(0, std) added to all hours of a day")
    noise_share: float = Field(0.1, ge=0, description="white noise per hour, as a share of the day's deviation")
    rotation_share: float = Field(
        0.0, ge=0, le=1, description="of the days: prices are rotated by a random number of hours"
    )
    mirror_share: float = Field(0.0, ge=0, le=1, description="of the days: prices are mirrored at their mean")


class Forecast(BaseModel):
    """What the policy sees of the hours to come. Settlement is always on actual values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["none", "persistence", "ar1"] = "none"
    ar1_phi: float = Field(0.8, ge=0, lt=1, description="hourly autocorrelation of the relative error")
    ar1_std: float = Field(0.15, ge=0, description="standard deviation of the relative error")
    commit: Literal["hourly", "day_ahead"] = Field(
        "hourly", description="hourly: each hour's actual values are seen when it comes; day_ahead: only the forecast"
    )


@struct.dataclass
class Day:
    """A local day; arrays [24] by hour."""

    price_eur_per_mwh: jax.Array
    reserve_eur_per_mw_h: jax.Array
    pv_mw: jax.Array
    seen_price: jax.Array
    """The same three as known when the day starts."""
    seen_reserve: jax.Array
    seen_pv: jax.Array
    in_window: jax.Array
    """bool [24]: peak windows W, from the seen prices."""
    is_cheap: jax.Array
    k_morning: jax.Array
    k_evening: jax.Array
    weekday: jax.Array
    season: jax.Array


def day_from(price, reserve, pv, seen_price, seen_reserve, seen_pv, weekday, season, peak_half_width: int) -> Day:
    """A `Day` with its windows derived from the seen prices."""
    k1, k2 = peak_hours(seen_price)
    return Day(
        price_eur_per_mwh=price,
        reserve_eur_per_mw_h=reserve,
        pv_mw=pv,
        seen_price=seen_price,
        seen_reserve=seen_reserve,
        seen_pv=seen_pv,
        in_window=peak_window(seen_price, peak_half_width),
        is_cheap=cheap_hours(seen_price),
        k_morning=k1,
        k_evening=k2,
        weekday=weekday,
        season=season,
    )


def day_table(market: MarketDays, reserve_eur_per_mw_h: np.ndarray, rules: Rules) -> Day:
    """All days of a split as one `Day` with a leading axis [D]; a reset is a gather from it."""
    month = market.dates.astype("datetime64[M]").astype(int) % 12 + 1
    weekday = (market.dates.astype("datetime64[D]").astype(int) + 3) % 7  # 1970-01-01 was a Thursday
    price, pv = jnp.asarray(market.price_eur_per_mwh), jnp.asarray(market.pv_mw)
    reserve = jnp.asarray(reserve_eur_per_mw_h)
    build = jax.vmap(lambda p, r, v, w, s: day_from(p, r, v, p, r, v, w, s, rules.peak_half_width))
    return build(price, reserve, pv, jnp.asarray(weekday), jnp.asarray(season_of(month)))


def pick_day(table: Day, index) -> Day:
    return jax.tree.map(lambda column: column[index], table)


def num_days(table: Day) -> int:
    return table.price_eur_per_mwh.shape[0]


def price_deviation(price_eur_per_mwh):
    """Standard deviation of a day's prices [24], at least the floor: the unit of relative prices."""
    return jnp.maximum(jnp.std(price_eur_per_mwh), DEVIATION_FLOOR_EUR_PER_MWH)


def augment_and_forecast(key, table: Day, index, rules: Rules, augmentation: Augmentation, forecast: Forecast) -> Day:
    """Day number `index` of the table as an episode starts with it."""
    # The first day of a split has no yesterday; its own values would be perfect foresight, so it takes the next day's.
    yesterday = jnp.where(index > 0, index - 1, min(1, num_days(table) - 1))
    day, before = pick_day(table, index), pick_day(table, yesterday)
    price, price_before = day.price_eur_per_mwh, before.price_eur_per_mwh
    # One draw for everything: every further call would add a third of a second to the compilation of a step.
    noise = jax.random.normal(key, (2 + 5 * HOURS + 3,))
    hourly = noise[2 : 2 + 5 * HOURS].reshape(5, HOURS)
    if augmentation.enabled:
        price, price_before = _rearranged(jax.scipy.stats.norm.cdf(noise[-3:]), price, price_before, augmentation)
        low, high = augmentation.log_scale_low, augmentation.log_scale_high
        scale = jnp.exp(low + (high - low) * jax.scipy.stats.norm.cdf(noise[0]))
        shift = augmentation.shift_std_eur_per_mwh * noise[1]
        amplitude = augmentation.noise_share * jnp.std(price) * scale
        price = price * scale + shift + amplitude * hourly[0]
        # Yesterday moves with today, or a persistence forecast would be wrong by the scale itself.
        price_before = price_before * scale + shift + amplitude * hourly[1]
    reserve, pv = day.reserve_eur_per_mw_h, day.pv_mw
    seen = (price, reserve, pv)
    if forecast.model == "persistence":
        seen = (price_before, before.reserve_eur_per_mw_h, before.pv_mw)
    elif forecast.model == "ar1":
        factor = 1.0 + forecast.ar1_std * correlated(hourly[2:], forecast.ar1_phi)
        seen = (price * factor[0], jnp.maximum(reserve * factor[1], 0.0), jnp.maximum(pv * factor[2], 0.0))
    return day_from(price, reserve, pv, *seen, day.weekday, day.season, rules.peak_half_width)


def _rearranged(uniform, price, price_before, augmentation: Augmentation):
    """Prices of a day and of the day before, both rotated and mirrored alike; `uniform` [3] decides.

    Real days are much alike: nights are cheap and evenings dear. A rearranged day can be cheap at its end.
    """
    if augmentation.rotation_share:
        hours = jnp.where(uniform[0] < augmentation.rotation_share, (uniform[1] * HOURS).astype(jnp.int32), 0)
        turned = (jnp.arange(HOURS) + hours) % HOURS
        price, price_before = price[turned], price_before[turned]
    if augmentation.mirror_share:
        mirrored = uniform[2] < augmentation.mirror_share
        price, price_before = (jnp.where(mirrored, 2.0 * jnp.mean(x) - x, x) for x in (price, price_before))
    return price, price_before


def correlated(white, phi: float) -> jax.Array:
    """Independent standard normals [..., 24] as stationary AR(1) series of unit variance and hourly correlation phi."""
    lag = np.arange(HOURS)
    # The series as one product with the Cholesky factor of its covariance: no scan inside a reset.
    covariance = phi ** np.abs(lag[:, None] - lag[None, :])
    return white @ jnp.asarray(np.linalg.cholesky(covariance), white.dtype).T
