"""Hourly market tables (CSV or parquet) to whole local days.

Reading order: `MarketDays`, `load_market` and the steps it calls one after the other: `table` (read, zone), `clock`
(local time), then columns and days, here. Everything runs once on the host, in float64.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from envs_jax.bess.clock import Clock, clock_of
from envs_jax.bess.params import HOURS, Limits, pv_ac_from_capacity_factor
from envs_jax.bess.table import DataError, Table, numbers, only_zone, read_table, refuse

PACKAGED_TABLE = Path(__file__).parent / "data" / "dayahead_nl_2021_2022_pv2018.parquet"
"""Dutch day-ahead prices of 2021 and 2022 with the Dutch PV of 2018; see the NOTICE beside it."""

PRICE_COLUMNS = ("price_em", "price_eur_mwh")
PRICE_HUF_COLUMN = "price_huf_mwh"
RESERVE_COLUMNS = ("price_as", "reserve_eur_mw_h")
PV_MW_COLUMNS = ("p_res", "res_gen_mw", "pv_mw")
PV_CAPACITY_FACTOR_COLUMN = "pv_cf"

DstPolicy = Literal["drop", "repair", "strict"]
MissingPricePolicy = Literal["error", "drop"]

_CAPACITY_FACTOR_TOLERANCE = 0.05
"""Metered PV over a yearly installed capacity overshoots 0..1 a little; more is another unit, such as percent."""


@dataclass(frozen=True, eq=False)
class MarketDays:
    """Whole local market days on the host, in ascending order, possibly with gaps between them."""

    dates: np.ndarray
    """datetime64[D], [D]."""
    price_eur_per_mwh: np.ndarray
    """float64, [D, 24]."""
    reserve_eur_per_mw_h: np.ndarray | None
    """Payment per MW and hour of availability, float64, [D, 24]; None when the table has no such column."""
    pv_mw: np.ndarray
    """AC power, float64, [D, 24]."""

    def __len__(self) -> int:
        return len(self.dates)

    @property
    def month(self) -> np.ndarray:
        """1..12, int64, [D]."""
        return self.dates.astype("datetime64[M]").astype(np.int64) % 12 + 1

    @property
    def weekday(self) -> np.ndarray:
        """0 Monday .. 6 Sunday, int64, [D]."""
        return (self.dates.astype(np.int64) + 3) % 7  # day 0 of the epoch was a Thursday

    @property
    def season(self) -> np.ndarray:
        """See `season_of`, int64, [D]."""
        return season_of(self.month)

    def take(self, indices: np.ndarray | Sequence[int]) -> "MarketDays":
        """The days at integer positions or where a boolean mask [D] is true, in the order given."""
        index = np.asarray(indices)
        index = index if index.dtype == bool else index.astype(np.int64)
        reserve = self.reserve_eur_per_mw_h
        return MarketDays(
            self.dates[index],
            self.price_eur_per_mwh[index],
            None if reserve is None else reserve[index],
            self.pv_mw[index],
        )

    def select(self, first: str, last: str) -> "MarketDays":
        """The days from `first` to `last`, ISO dates, both included; may be empty."""
        return self.take((self.dates >= iso_day(first)) & (self.dates <= iso_day(last)))


def season_of(month: np.ndarray | int) -> np.ndarray:
    """0 winter (12, 1, 2), 1 spring (3-5), 2 summer (6-8), 3 autumn (9-11); same shape as `month` (1..12)."""
    return np.asarray(month) % 12 // 3


def iso_day(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "D")
    except ValueError as error:
        raise DataError(f"{text!r} is not a date such as 2021-01-31; correct it") from error


def load_market(
    path: str | Path | None,
    limits: Limits,
    *,
    zone: str | None = None,
    timezone: str = "Europe/Budapest",
    dst: DstPolicy = "drop",
    huf_per_eur: float | None = None,
    max_pv_gap_h: int = 3,
    missing_price: MissingPricePolicy = "error",
) -> MarketDays:
    """Reads an hourly table and returns its whole local days (section 3 of the specification).

    One row per hour, ascending. Columns, the first one present of each line:

    - `timestamp_utc` (ISO 8601, start of the hour; without an offset it is UTC) or `datetime` (local market time, or
      any time with an offset). `date_local` and `hour_local` (0..23), when both are there, replace the conversion.
    - `price_em` or `price_eur_mwh` (EUR/MWh), or `price_huf_mwh` together with `huf_per_eur`.
    - `p_res`, `res_gen_mw` or `pv_mw` (MW AC, clipped to 0..AC capacity), or `pv_cf` (0..1 of the DC peak).
    - optional `price_as` or `reserve_eur_mw_h` (EUR per MW and hour, not negative), `zone`.

    Args:
        path: a CSV file, or a parquet file (`.parquet`, `.pq`); None: the packaged Dutch table.
        limits: plant constants that turn PV columns into AC power.
        zone: which value of the column `zone` to keep; needed when the table has several.
        timezone: local market time, an IANA name.
        dst: days of a clock change. `drop`; `repair`: the missing hour of a 23-hour day repeats the hour before it,
            the doubled hour of a 25-hour day is averaged; `strict`: an error, also for any other incomplete day.
        huf_per_eur: exchange rate for `price_huf_mwh`.
        max_pv_gap_h: longest run of missing PV hours to interpolate linearly; days with longer ones are dropped.
        missing_price: `error`, or `drop` the days with an empty price (or reserve price).

    Days that are incomplete for another reason than the clock (an hour without a row, such as the first and last day
    of a table that starts at midnight UTC) are dropped with a warning.

    Raises:
        DataError: anything that cannot be used, in one line with file, line (CSV) or row (parquet) and remedy.
    """
    table = only_zone(read_table(PACKAGED_TABLE if path is None else Path(path)), zone)
    clock = clock_of(table, timezone)
    price = _price(table, huf_per_eur, missing_price)
    reserve = _reserve(table, missing_price)
    pv = _fill_short_gaps(_pv(table, limits), clock.elapsed_h, max_pv_gap_h)
    return _whole_days(table, clock, price, reserve, pv, dst)


# Columns -------------------------------------------------------------------------------------------------------------


def _price(table: Table, huf_per_eur: float | None, missing_price: MissingPricePolicy) -> np.ndarray:
    """EUR/MWh, [N]; NaN where empty and allowed."""
    column = table.first_of((*PRICE_COLUMNS, PRICE_HUF_COLUMN))
    if column is None:
        raise table.missing_column(f"{' or '.join(PRICE_COLUMNS)} (or {PRICE_HUF_COLUMN})")
    price = _market_numbers(table, column, missing_price)
    if column != PRICE_HUF_COLUMN:
        return price
    if huf_per_eur is None or not huf_per_eur > 0:
        # Wear is in EUR: prices in another currency would silently change which trades pay.
        raise DataError(f"{table.path}: {column} needs a positive rate; set one such as env.huf_per_eur=400")
    return price / huf_per_eur


def _reserve(table: Table, missing_price: MissingPricePolicy) -> np.ndarray | None:
    column = table.first_of(RESERVE_COLUMNS)
    if column is None:
        return None
    reserve = _market_numbers(table, column, missing_price)
    refuse(table, column, reserve < 0, "is negative; availability payments start at 0")
    return reserve


def _market_numbers(table: Table, column: str, missing_price: MissingPricePolicy) -> np.ndarray:
    values = numbers(table, column)
    if missing_price == "error":
        refuse(table, column, np.isnan(values), "is a missing price; fill it in or set env.missing_price=drop")
    return values


def _pv(table: Table, limits: Limits) -> np.ndarray:
    """AC power in MW, [N]; NaN where empty."""
    column = table.first_of((*PV_MW_COLUMNS, PV_CAPACITY_FACTOR_COLUMN))
    if column is None:
        raise table.missing_column(f"{' or '.join(PV_MW_COLUMNS)} (or {PV_CAPACITY_FACTOR_COLUMN})")
    values = numbers(table, column)
    if column == PV_CAPACITY_FACTOR_COLUMN:
        outside = (values < -_CAPACITY_FACTOR_TOLERANCE) | (values > 1 + _CAPACITY_FACTOR_TOLERANCE)
        refuse(table, column, outside, "is not a capacity factor 0..1; divide percent by 100")
        return pv_ac_from_capacity_factor(limits, values)
    capacity_mw = limits.res.pv_ac_capacity_mw
    # Inverters draw a little at night; more than that is a sign convention we would misread as no sun.
    too_negative = values < -_CAPACITY_FACTOR_TOLERANCE * capacity_mw
    refuse(table, column, too_negative, "is negative PV power; generation must be positive")
    return values.clip(0, capacity_mw)


def _fill_short_gaps(values: np.ndarray, elapsed_h: np.ndarray, max_gap_h: int) -> np.ndarray:
    """Linear interpolation of NaN runs up to `max_gap_h` hours between known values; longer ones stay NaN."""
    known = ~np.isnan(values)
    if known.all() or not known.any():
        return values
    known_h = elapsed_h[known]
    after = np.searchsorted(known_h, elapsed_h, side="right")
    inside = (after > 0) & (after < len(known_h))
    missing_h = known_h[after.clip(max=len(known_h) - 1)] - known_h[(after - 1).clip(min=0)] - 1
    fillable = ~known & inside & (missing_h <= max_gap_h)
    return np.where(fillable, np.interp(elapsed_h, known_h, values[known]), values)


# Days ----------------------------------------------------------------------------------------------------------------


def _whole_days(
    table: Table, clock: Clock, price: np.ndarray, reserve: np.ndarray | None, pv: np.ndarray, dst: DstPolicy
) -> MarketDays:
    dates, day = np.unique(clock.date, return_inverse=True)
    rows = np.zeros((len(dates), HOURS), np.int64)
    np.add.at(rows, (day, clock.hour), 1)
    missing, doubled = (rows == 0).sum(axis=1), (rows > 1).sum(axis=1)
    irregular = missing + doubled > 0
    clock_moved = np.isin(dates, clock.change_days) & (rows.max(axis=1) <= 2) & (missing + doubled == 1)
    _check_duplicates(table, clock, dates, rows)
    if dst == "strict" and irregular.any():
        _refuse_first(table, dates[irregular], rows[irregular], clock_moved[irregular])

    def by_day(values: np.ndarray) -> np.ndarray:
        total = np.zeros(rows.shape)
        np.add.at(total, (day, clock.hour), values)
        mean = total / np.maximum(rows, 1)
        neighbour = np.concatenate([mean[:, 1:2], mean[:, :-1]], axis=1)
        return np.where(rows == 0, neighbour, mean)

    price_days, pv_days = by_day(price), by_day(pv)
    reserve_days = None if reserve is None else by_day(reserve)
    no_price = np.isnan(price_days if reserve_days is None else price_days + reserve_days).any(axis=1)
    no_pv = np.isnan(pv_days).any(axis=1)
    complete = ~irregular | (clock_moved & (dst == "repair"))
    _warn_dropped(table, dates[irregular & ~clock_moved], "without one row for every hour")
    _warn_dropped(table, dates[complete & no_price], "with a missing price")
    _warn_dropped(table, dates[complete & ~no_price & no_pv], "with a PV gap too long to interpolate")
    keep = complete & ~no_price & ~no_pv
    if not keep.any():
        raise DataError(f"{table.path}: no whole day is left of {len(dates)}; give 24 rows with price and PV a day")
    return MarketDays(dates, price_days, reserve_days, pv_days).take(keep)


def _check_duplicates(table: Table, clock: Clock, dates: np.ndarray, rows: np.ndarray) -> None:
    """Refuses local hours that occur twice on a day without a clock change."""
    twice = (rows > 1).any(axis=1) & ~np.isin(dates, clock.change_days)
    if twice.any():
        first = int(np.argmax(twice))
        hour = int(np.argmax(rows[first] > 1))
        second_row = np.flatnonzero((clock.date == dates[first]) & (clock.hour == hour))[1]
        place = table.at(int(table.frame.index[second_row]))
        raise DataError(f"{place}: duplicated hour {hour} of {dates[first]} in local time; correct hour_local")


def _refuse_first(table: Table, dates: np.ndarray, rows: np.ndarray, clock_moved: np.ndarray) -> None:
    cause, remedy = (
        ("clock change", "set env.dst=drop or env.dst=repair")
        if clock_moved[0]
        else ("hours are missing", "complete it or set env.dst=drop")
    )
    raise DataError(f"{table.path}: {dates[0]} has {rows[0].sum()} hours ({cause}); {remedy}")


def _warn_dropped(table: Table, dates: np.ndarray, why: str) -> None:
    if len(dates):
        named = ", ".join(map(str, dates[:3])) + (", ..." if len(dates) > 3 else "")
        warnings.warn(f"{table.path}: dropped {len(dates)} day(s) {why}: {named}", stacklevel=4)
