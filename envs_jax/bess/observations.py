"""What the policy sees. Every layout is a function of (day, hour, battery) with static size.

Layouts: `base17`, `base20` (the origin's features), `curve` (base20 and the day's 72 values), `forecast` (curve on
forecast values), `rel`, `rank` and `value` (prices relative to this hour in units of the day's deviation: what the
value of storage depends on). Reading order: the view of the day, base features, curve, relative layouts, `observe`.
"""

import typing
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax.bess.days import Day, price_deviation
from envs_jax.bess.params import HOURS, SEGMENTS, Plant
from envs_jax.bess.physics import Battery, segment_width_mwh

RelativeLayout = Literal["rel", "rank", "value"]
Layout = Literal["base17", "base20", "curve", "forecast"] | RelativeLayout
RELATIVE = typing.get_args(RelativeLayout)
CLIP = 1.5
"""Normalised values may leave [-1, 1] up to here: new extremes stay visible."""
AFTER_PEAKS_H = 21
"""time_to_peak after the evening window."""

BASE_FEATURES = (
    "k", "weekday", "season", "price_em", "price_as", "p_res_total", "soc", "dod", "price_em_max_morning",
    "price_em_max_evening", "k_em_max_morning", "k_em_max_evening", "price_em_min", "k_em_min", "price_as_min",
    "price_as_max", "time_to_peak", "soc_prev", "is_peak", "is_cheap",
)  # fmt: skip

PARITY_RANGES: dict[str, tuple[float, float]] = {
    "k": (0, 23), "weekday": (0, 6), "season": (0, 3), "price_em": (-34.53, 394.32), "price_as": (0, 33.95),
    "p_res_total": (0, 15.09), "soc": (0, 1), "dod": (0, 1), "price_em_max_morning": (89.72, 280.06),
    "price_em_max_evening": (145.63, 394.32), "k_em_max_morning": (0, 9), "k_em_max_evening": (16, 21),
    "price_em_min": (-34.53, 100.5), "k_em_min": (1, 23), "price_as_min": (0, 1.31), "price_as_max": (3.36, 33.95),
    "time_to_peak": (0, 21), "soc_prev": (0, 1), "is_peak": (-1, 1), "is_cheap": (-1, 1),
}  # fmt: skip
"""Minimum and maximum of each feature in the origin's statistics."""

FIXED_RANGES = ("k", "weekday", "season", "soc", "dod", "time_to_peak", "soc_prev", "is_peak", "is_cheap")
"""Features whose range is known and never fitted."""


@struct.dataclass
class Ranges:
    """Minimum and maximum [20] of the base features, from the training split."""

    low: jax.Array
    high: jax.Array


class View(NamedTuple):
    """Prices, reserve prices and PV [24] as the policy knows them at an hour."""

    price: jax.Array
    reserve: jax.Array
    pv: jax.Array


def parity_ranges() -> Ranges:
    low, high = np.asarray([PARITY_RANGES[name] for name in BASE_FEATURES]).T
    return Ranges(jnp.asarray(low), jnp.asarray(high))


def fitted_ranges(table: Day) -> Ranges:
    """Ranges from the days of the training split; features with a fixed range keep it."""
    price, reserve = np.asarray(table.price_eur_per_mwh), np.asarray(table.reserve_eur_per_mw_h)
    columns = {
        "price_em": price,
        "price_as": reserve,
        "p_res_total": np.asarray(table.pv_mw),
        "price_em_max_morning": price[:, :12].max(1),
        "price_em_max_evening": price[:, 12:].max(1),
        "k_em_max_morning": np.asarray(table.k_morning),
        "k_em_max_evening": np.asarray(table.k_evening),
        "price_em_min": price.min(1),
        "k_em_min": price.argmin(1),
        "price_as_min": reserve.min(1),
        "price_as_max": reserve.max(1),
    }
    fitted = {name: (float(values.min()), float(values.max())) for name, values in columns.items()}
    ranges = [PARITY_RANGES[name] if name in FIXED_RANGES else fitted[name] for name in BASE_FEATURES]
    low, high = np.asarray(ranges, float).T
    return Ranges(jnp.asarray(low), jnp.asarray(np.where(high > low, high, low + 1.0)))


def view_at(day: Day, hour, reveal_hourly: bool) -> View:
    """What is known at `hour`: hours gone by and, when revealed hourly, the present one are actual values."""
    if not reveal_hourly:
        return View(day.seen_price, day.seen_reserve, day.seen_pv)
    known = jnp.arange(HOURS) <= hour
    return View(
        jnp.where(known, day.price_eur_per_mwh, day.seen_price),
        jnp.where(known, day.reserve_eur_per_mw_h, day.seen_reserve),
        jnp.where(known, day.pv_mw, day.seen_pv),
    )


def normalise(value, low, high):
    return jnp.clip(2.0 * (value - low) / (high - low) - 1.0, -CLIP, CLIP)


def base_features(day: Day, view: View, hour, battery: Battery, soc_prev) -> jax.Array:
    """The 20 features in their own units, in the order of `BASE_FEATURES`."""
    price, half = view.price, HOURS // 2
    between = jnp.where(hour < day.k_morning, day.k_morning - hour, day.k_evening - hour)
    outside = jnp.where(hour > day.k_evening, AFTER_PEAKS_H, between)
    time_to_peak = jnp.where(day.in_window[hour], 0, outside)
    depth = jnp.where(hour % half == 0, 0.0, battery.soc_high - battery.soc_low)
    features = (
        hour, day.weekday, day.season, price[hour], view.reserve[hour], view.pv[hour], battery.soc, depth,
        jnp.max(price[:half]), jnp.max(price[half:]), day.k_morning, day.k_evening, jnp.min(price), jnp.argmin(price),
        jnp.min(view.reserve), jnp.max(view.reserve), time_to_peak, soc_prev,
        jnp.where(day.in_window[hour], 1, -1), jnp.where(day.is_cheap[hour], 1, -1),
    )  # fmt: skip
    return jnp.stack([jnp.asarray(f, price.dtype) for f in features])


def curve_features(view: View, ranges: Ranges) -> jax.Array:
    """[72] prices, PV and reserve prices of the whole day, normalised like their hourly features."""
    columns = ((view.price, "price_em"), (view.pv, "p_res_total"), (view.reserve, "price_as"))
    at = [BASE_FEATURES.index(name) for _, name in columns]
    return jnp.concatenate(
        [normalise(values, ranges.low[i], ranges.high[i]) for (values, _), i in zip(columns, at, strict=True)]
    )


def coming(values, hour) -> jax.Array:
    """[24]: the values from this hour on, zero after midnight."""
    return jax.lax.dynamic_slice(jnp.concatenate([values, jnp.zeros_like(values)]), (hour,), (HOURS,))


def relative_features(plant: Plant, day: Day, view: View, hour, battery: Battery, layout: RelativeLayout) -> jax.Array:
    """[85], `rank` [91], `value` [139]: coming price differences in units of the day's deviation, content, wear ratio.

    The deviation tells how heavy the absolute wear cost is; the level of prices matters only through it. `rank` adds
    the largest differences and how many hours are dearer or cheaper. `value` shows, in place of zeros, the day's mean
    price after midnight, which is what terminal mode `value` pays for content; and adds the largest differences up to
    each coming hour, because a dear hour counts only as far as no cheaper one comes first.
    """
    deviation, mean = price_deviation(day.seen_price), jnp.mean(day.seen_price)
    z = (view.price - mean) / deviation
    valid = coming(jnp.ones_like(z), hour)
    difference = (coming(z, hour) - z[hour]) * valid
    ahead = coming(z, hour) - z[hour] if layout == "value" else difference
    parts = [
        z[hour][None],
        ahead,
        valid,
        coming(view.reserve, hour) / deviation,
        jnp.stack([jnp.log(deviation / 50.0), 30.0 / deviation, mean / deviation]),
        (2.0 * battery.soc - 1.0)[None],
        battery.segments_mwh / segment_width_mwh(plant),
    ]
    if layout != "rel":
        dearer, cheaper = jnp.sum(difference > 0), jnp.sum(difference < 0)
        hours_left = jnp.sum(valid)
        extremes = [jnp.max(ahead), jnp.min(ahead)]
        counts = [dearer / hours_left, cheaper / hours_left, dearer / HOURS, cheaper / HOURS]
        parts.append(jnp.stack([jnp.asarray(x, z.dtype) for x in extremes + counts]))
    if layout == "value":
        so_far = np.tril(np.ones((HOURS, HOURS), bool))
        parts += [
            jnp.max(jnp.where(so_far, ahead, -jnp.inf), axis=1),
            jnp.min(jnp.where(so_far, ahead, jnp.inf), axis=1),
        ]
    return jnp.concatenate(parts)


class Relative(NamedTuple):
    """What `relative_features` tells in EUR and MWh."""

    price: jax.Array
    mean: jax.Array
    deviation: jax.Array
    reserve: jax.Array
    battery: Battery


def relative_state(plant: Plant, obs) -> Relative:
    """Inverse of `relative_features` for the present hour; the running depth of discharge is not in it."""
    deviation = 50.0 * jnp.exp(obs[1 + 3 * HOURS])
    mean = obs[3 + 3 * HOURS] * deviation
    soc = (obs[4 + 3 * HOURS] + 1.0) / 2.0
    segments = obs[5 + 3 * HOURS : 5 + 3 * HOURS + SEGMENTS] * segment_width_mwh(plant)
    reserve = obs[1 + 2 * HOURS] * deviation
    return Relative(mean + obs[0] * deviation, mean, deviation, reserve, Battery(soc, soc, soc, segments))


def connection_features(plant: Plant, view: View, hour) -> jax.Array:
    """[48] export room and charging supply of the coming hours as shares of the rating, for tight connections."""
    room = jnp.clip((plant.export_limit_mw - view.pv) / plant.power_mw, 0.0, 1.0)
    supply = jnp.clip((plant.import_limit_mw + view.pv) / plant.power_mw, 0.0, 1.0)
    return jnp.concatenate([coming(room, hour), coming(supply, hour)])


def size(layout: Layout, with_connection: bool) -> int:
    relative = 77 + SEGMENTS
    ranked = relative + 6
    sizes = {"base17": 17, "base20": 20, "curve": 92, "forecast": 92, "rel": relative, "rank": ranked}
    sizes["value"] = ranked + 2 * HOURS
    return sizes[layout] + (2 * HOURS if with_connection else 0)


def observe(
    layout: Layout, with_connection: bool, reveal_hourly: bool, plant: Plant, ranges: Ranges, day: Day, hour,
    battery: Battery, soc_prev,
) -> jax.Array:  # fmt: skip
    """Observation [size(layout)] as float32. After the last hour it is that of hour 23 (no target uses it)."""
    hour = jnp.minimum(hour, HOURS - 1)
    view = view_at(day, hour, reveal_hourly)
    if layout == "rel" or layout == "rank" or layout == "value":
        parts = [relative_features(plant, day, view, hour, battery, layout)]
    else:
        base = normalise(base_features(day, view, hour, battery, soc_prev), ranges.low, ranges.high)
        parts = [base[:17] if layout == "base17" else base]
        if layout in ("curve", "forecast"):
            parts.append(curve_features(view, ranges))
    if with_connection:
        parts.append(connection_features(plant, view, hour))
    return jnp.concatenate(parts).astype(jnp.float32)
