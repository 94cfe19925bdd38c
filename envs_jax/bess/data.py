"""Hourly market tables (CSV or parquet) to whole local days, and splits of them.

Reading order: `MarketDays`, `load_market` and the steps it calls one after the other (read, zone, clock, columns,
days), then the selections `select_split` and `k_per_season`. Everything runs once on the host, in float64.
"""

import difflib
import re
import warnings
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from envs_jax.bess.params import HOURS, Limits, pv_ac_from_capacity_factor

PACKAGED_TABLE = Path(__file__).parent / "data" / "dayahead_nl_2021_2022_pv2018.parquet"
"""Dutch day-ahead prices of 2021 and 2022 with the Dutch PV of 2018; see the NOTICE beside it."""

PRICE_COLUMNS = ("price_em", "price_eur_mwh")
PRICE_HUF_COLUMN = "price_huf_mwh"
RESERVE_COLUMNS = ("price_as", "reserve_eur_mw_h")
PV_MW_COLUMNS = ("p_res", "res_gen_mw", "pv_mw")
PV_CAPACITY_FACTOR_COLUMN = "pv_cf"

FEW_DAYS = 8
"""A split with fewer days is allowed and warned about."""

DstPolicy = Literal["drop", "repair", "strict"]
MissingPricePolicy = Literal["error", "drop"]

_MISSING_CELLS = ("", "nan", "na", "n/a", "null", "none")
_CAPACITY_FACTOR_TOLERANCE = 0.05
"""Metered PV over a yearly installed capacity overshoots 0..1 a little; more is another unit, such as percent."""
_HOUR_NS = 3_600_000_000_000


class DataError(ValueError):
    """A table or a split that cannot be used; the message is one line with place and remedy."""


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
        return self.take((self.dates >= _iso_day(first)) & (self.dates <= _iso_day(last)))


def season_of(month: np.ndarray | int) -> np.ndarray:
    """0 winter (12, 1, 2), 1 spring (3-5), 2 summer (6-8), 3 autumn (9-11); same shape as `month` (1..12)."""
    return np.asarray(month) % 12 // 3


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
    table = _only_zone(_read(PACKAGED_TABLE if path is None else Path(path)), zone)
    clock = _clock(table, timezone)
    price = _price(table, huf_per_eur, missing_price)
    reserve = _reserve(table, missing_price)
    pv = _fill_short_gaps(_pv(table, limits), clock.elapsed_h, max_pv_gap_h)
    return _whole_days(table, clock, price, reserve, pv, dst)


# Reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Table:
    frame: pd.DataFrame
    """Cells as read (text for CSV), indexed by the row number in the file."""
    path: Path
    is_csv: bool

    def at(self, row: int) -> str:
        """Place of the row with index label `row`: the header of a CSV is line 1."""
        return f"{self.path}:{row + 2}" if self.is_csv else f"{self.path}, row {row + 1}"

    def first_of(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self.frame.columns), None)

    def missing_column(self, what: str) -> DataError:
        present = ", ".join(map(str, self.frame.columns))
        return DataError(f"{self.path}: no column {what}; it has {present}: rename one or add it")

    def first_row(self, mask: np.ndarray) -> int:
        return int(self.frame.index[int(np.argmax(mask))])


def _read(path: Path) -> _Table:
    if not path.is_file():
        raise DataError(_not_found(path))
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; give a table with one row per hour")
    is_csv = path.suffix.lower() not in (".parquet", ".pq")
    frame = _read_csv(path) if is_csv else _read_parquet(path)
    frame.columns = frame.columns.map(lambda name: str(name).strip())
    if frame.empty:
        raise DataError(f"{path}: the table is empty (a header without rows); give a table with one row per hour")
    return _Table(frame, path, is_csv)


def _not_found(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    remedy = f"did you mean {path.parent / near[0]}?" if near else "leave env.data_path empty for the packaged table"
    return f"{path}: no such file; {remedy}"


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        # Text cells and kept blank lines: only so can an error name the line and show what stands there.
        options = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False, "index_col": False}
        frame = pd.read_csv(path, encoding="utf-8-sig", **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, OSError) as error:
        raise DataError(f"{path}: not a comma-separated UTF-8 table ({_one_line(error)}); export it as CSV") from error
    # A short line is padded with NaN by the reader, hence fillna.
    frame = frame.reset_index(drop=True).fillna("")
    return frame[(frame != "").any(axis=1)]


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs pyarrow; install it or give a CSV file") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable parquet file ({_one_line(error)}); export it again") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _only_zone(table: _Table, zone: str | None) -> _Table:
    if "zone" not in table.frame.columns:
        if zone is not None:
            raise DataError(f"{table.path}: env.zone={zone} but the table has no column zone; leave env.zone out")
        return table
    names = table.frame["zone"].astype(str).str.strip()
    present = sorted(set(names))
    if zone is None and len(present) > 1:
        raise DataError(f"{table.path}: has the zones {', '.join(present)}; choose one with env.zone={present[0]}")
    if zone is not None and zone not in present:
        raise DataError(f"{table.path}: no zone {zone}; choose env.zone from {', '.join(present)}")
    return table if zone is None else _Table(table.frame[names == zone], table.path, table.is_csv)


# Time ----------------------------------------------------------------------------------------------------------------


class _Clock(NamedTuple):
    """Local market time of every row."""

    date: np.ndarray
    """datetime64[D], [N]."""
    hour: np.ndarray
    """0..23, int64, [N]."""
    elapsed_h: np.ndarray
    """Hours since a fixed instant, int64, strictly ascending, [N]."""
    change_days: np.ndarray
    """datetime64[D]: days on which the local clock was moved."""


def _clock(table: _Table, timezone: str) -> _Clock:
    try:
        zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DataError(f"env.timezone={timezone} is not an IANA time zone; try Europe/Budapest") from error
    column = table.first_of(("timestamp_utc", "datetime"))
    if column is None:
        raise table.missing_column("timestamp_utc (or datetime in local market time)")
    stamps, has_offset = _stamps(table, column)
    if column == "timestamp_utc" or has_offset.all():
        return _clock_from_utc(table, stamps, timezone)
    _refuse(table, column, has_offset, "has a UTC offset and other rows have none; write all alike")
    return _clock_from_local(table, stamps.tz_localize(None), timezone)


def _stamps(table: _Table, column: str) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Whole hours, read as UTC where no offset is given, and which cells [N] give one."""
    cells = table.frame[column]
    if pd.api.types.is_datetime64_any_dtype(cells):
        has_offset = np.full(len(cells), cells.dt.tz is not None)
        times = pd.to_datetime(cells, utc=True)
    else:
        text = cells.astype(str).str.strip()
        has_offset = text.str.contains(r"\d:\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$").to_numpy(dtype=bool)
        times = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    _refuse(table, column, times.isna().to_numpy(), "is not a time such as 2021-01-01T00:00Z; correct it")
    stamps = pd.DatetimeIndex(times).as_unit("ns")
    _refuse(table, column, stamps.asi8 % _HOUR_NS != 0, "is not a whole hour; give one row per hour")
    return stamps, has_offset


def _clock_from_utc(table: _Table, utc: pd.DatetimeIndex, timezone: str) -> _Clock:
    utc_h = utc.asi8 // _HOUR_NS
    _check_ascending(table, utc_h)
    if {"date_local", "hour_local"} <= set(table.frame.columns):
        local_h = _given_local_hours(table, utc_h)
    else:
        local_h = _whole_local_hours(table, utc.tz_convert(timezone).tz_localize(None))
    date, hour = _split_hours(local_h)
    # The clock was moved on a day that ends with another offset than the day before (a mistyped hour does not last).
    offset_h = local_h - utc_h
    days, first = np.unique(date, return_index=True)
    last = len(date) - 1 - np.unique(date[::-1], return_index=True)[1]
    return _Clock(date, hour, utc_h, days[offset_h[last] != offset_h[np.maximum(first - 1, 0)]])


def _clock_from_local(table: _Table, local: pd.DatetimeIndex, timezone: str) -> _Clock:
    local_h = local.asi8 // _HOUR_NS
    # The hour that the clock passes twice in autumn is no duplicate the second time.
    ambiguous = local.tz_localize(timezone, ambiguous="NaT", nonexistent="shift_forward").isna()
    second = ambiguous & local.duplicated()
    elapsed_h = local_h + np.cumsum(second)
    _check_ascending(table, elapsed_h)
    date, hour = _split_hours(local_h)
    days = np.unique(date)
    changed = utc_offset_h(days, timezone) != utc_offset_h(days + np.timedelta64(1, "D"), timezone)
    return _Clock(date, hour, elapsed_h, days[changed])


def utc_offset_h(days: np.ndarray, timezone: str) -> np.ndarray:
    """Hours ahead of UTC when the local days (datetime64[D], [D]) of the IANA zone begin, float64 [D]."""
    # Not pandas, whose older versions know no summer time after 2037, where synthetic days go.
    zone = zoneinfo.ZoneInfo(timezone)
    offsets = [datetime.combine(day, time(), zone).utcoffset() for day in days.astype("datetime64[D]").tolist()]
    return np.array([offset / timedelta(hours=1) for offset in offsets if offset is not None])


def _given_local_hours(table: _Table, utc_h: np.ndarray) -> np.ndarray:
    """Hours since the epoch on the local clock, from the columns `date_local` and `hour_local`."""
    text = table.frame["date_local"].astype(str).str.strip()
    dates = pd.to_datetime(text, format="ISO8601", errors="coerce")
    _refuse(table, "date_local", dates.isna().to_numpy(), "is not a date such as 2021-01-01; correct it")
    hours = _numbers(table, "hour_local")
    _refuse(table, "hour_local", ~np.isin(hours, np.arange(HOURS)), "is not an hour 0..23; correct it")
    local_h = dates.to_numpy().astype("datetime64[D]").astype(np.int64) * HOURS + hours.astype(np.int64)
    # No place on earth is further from UTC: such a row has a mistyped date or hour.
    _refuse(table, "date_local", np.abs(local_h - utc_h) > 14, "is not the day of its timestamp; correct it")
    return local_h


def _whole_local_hours(table: _Table, local: pd.DatetimeIndex) -> np.ndarray:
    if (local.asi8 % _HOUR_NS != 0).any():
        raise DataError(f"{table.path}: env.timezone is not whole hours from UTC; add date_local and hour_local")
    return local.asi8 // _HOUR_NS


def _split_hours(local_h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (local_h // HOURS).astype("datetime64[D]"), local_h % HOURS


def _check_ascending(table: _Table, elapsed_h: np.ndarray) -> None:
    twice = pd.Series(elapsed_h).duplicated().to_numpy()
    if twice.any():
        again = int(np.argmax(twice))
        first = table.at(int(table.frame.index[int(np.argmax(elapsed_h == elapsed_h[again]))]))
        raise DataError(f"{table.at(table.first_row(twice))}: duplicated hour, first at {first}; keep one of the rows")
    backwards = np.diff(elapsed_h, prepend=elapsed_h[:1] - 1) < 0
    if backwards.any():
        raise DataError(f"{table.at(table.first_row(backwards))}: earlier than the row before; sort the table by time")


# Columns -------------------------------------------------------------------------------------------------------------


def _price(table: _Table, huf_per_eur: float | None, missing_price: MissingPricePolicy) -> np.ndarray:
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


def _reserve(table: _Table, missing_price: MissingPricePolicy) -> np.ndarray | None:
    column = table.first_of(RESERVE_COLUMNS)
    if column is None:
        return None
    reserve = _market_numbers(table, column, missing_price)
    _refuse(table, column, reserve < 0, "is negative; availability payments start at 0")
    return reserve


def _market_numbers(table: _Table, column: str, missing_price: MissingPricePolicy) -> np.ndarray:
    values = _numbers(table, column)
    if missing_price == "error":
        _refuse(table, column, np.isnan(values), "is a missing price; fill it in or set env.missing_price=drop")
    return values


def _pv(table: _Table, limits: Limits) -> np.ndarray:
    """AC power in MW, [N]; NaN where empty."""
    column = table.first_of((*PV_MW_COLUMNS, PV_CAPACITY_FACTOR_COLUMN))
    if column is None:
        raise table.missing_column(f"{' or '.join(PV_MW_COLUMNS)} (or {PV_CAPACITY_FACTOR_COLUMN})")
    values = _numbers(table, column)
    if column == PV_CAPACITY_FACTOR_COLUMN:
        outside = (values < -_CAPACITY_FACTOR_TOLERANCE) | (values > 1 + _CAPACITY_FACTOR_TOLERANCE)
        _refuse(table, column, outside, "is not a capacity factor 0..1; divide percent by 100")
        return pv_ac_from_capacity_factor(limits, values)
    capacity_mw = limits.res.pv_ac_capacity_mw
    # Inverters draw a little at night; more than that is a sign convention we would misread as no sun.
    too_negative = values < -_CAPACITY_FACTOR_TOLERANCE * capacity_mw
    _refuse(table, column, too_negative, "is negative PV power; generation must be positive")
    return values.clip(0, capacity_mw)


def _numbers(table: _Table, column: str) -> np.ndarray:
    """float64 [N], NaN for empty cells; text and infinities are errors."""
    cells = table.frame[column]
    if pd.api.types.is_numeric_dtype(cells):
        values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        text = cells.astype(str).str.strip()
        empty = text.str.lower().isin(_MISSING_CELLS) | cells.isna()
        values = pd.to_numeric(text.mask(empty), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        _refuse(table, column, np.isnan(values) & ~empty.to_numpy(), "is not a number; correct it")
    _refuse(table, column, np.isinf(values), "is not finite; correct it")
    return values


def _refuse(table: _Table, column: str, bad: np.ndarray, complaint: str) -> None:
    """Raises for the first row where `bad` [N] is true, with its place and content."""
    if bad.any():
        row = table.first_row(bad)
        content = str(table.frame.at[row, column])[:40]
        raise DataError(f"{table.at(row)}: {column} {content!r} {complaint}")


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
    table: _Table, clock: _Clock, price: np.ndarray, reserve: np.ndarray | None, pv: np.ndarray, dst: DstPolicy
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


def _check_duplicates(table: _Table, clock: _Clock, dates: np.ndarray, rows: np.ndarray) -> None:
    """Refuses local hours that occur twice on a day without a clock change."""
    twice = (rows > 1).any(axis=1) & ~np.isin(dates, clock.change_days)
    if twice.any():
        first = int(np.argmax(twice))
        hour = int(np.argmax(rows[first] > 1))
        second_row = np.flatnonzero((clock.date == dates[first]) & (clock.hour == hour))[1]
        place = table.at(int(table.frame.index[second_row]))
        raise DataError(f"{place}: duplicated hour {hour} of {dates[first]} in local time; correct hour_local")


def _refuse_first(table: _Table, dates: np.ndarray, rows: np.ndarray, clock_moved: np.ndarray) -> None:
    cause, remedy = (
        ("clock change", "set env.dst=drop or env.dst=repair")
        if clock_moved[0]
        else ("hours are missing", "complete it or set env.dst=drop")
    )
    raise DataError(f"{table.path}: {dates[0]} has {rows[0].sum()} hours ({cause}); {remedy}")


def _warn_dropped(table: _Table, dates: np.ndarray, why: str) -> None:
    if len(dates):
        named = ", ".join(map(str, dates[:3])) + (", ..." if len(dates) > 3 else "")
        warnings.warn(f"{table.path}: dropped {len(dates)} day(s) {why}: {named}", stacklevel=4)


# Splits --------------------------------------------------------------------------------------------------------------

_DATE = r"\d{4}(?:-\d\d(?:-\d\d)?)?"
_SPLIT = re.compile(rf"({_DATE})(?:(?:\.\.|:| to )({_DATE}))?(?:/(every|except)([1-9]\d*)w)?")


def select_split(market: MarketDays, dates: str | Sequence[str]) -> MarketDays:
    """The days of a split, ascending.

    `dates` is one range, a pair of days `[first, last]`, or a list of ranges whose days are united:

    - `2021-01-01..2021-12-31`: first and last day included (`:` and ` to ` separate as well); `2021`, `2021-07` and
      `2022-03-15`: a year, a month, one day;
    - `2021-01-01..2021-12-31/every4w`: only the last week of each block of four weeks, weeks of seven days counted
      from the first day of the range (days 21-27, 49-55, ...);
    - `2021-01-01..2021-12-31/except4w`: all other days of the range, so that the two never share a day.

    Raises:
        DataError: a range that is not written like this, or a split without days.
    """
    ranges = [dates] if isinstance(dates, str) else list(dates)
    if len(ranges) == 2 and all(re.fullmatch(_DATE, str(text).strip()) for text in ranges):
        ranges = ["..".join(str(text).strip() for text in ranges)]
    chosen = market.take(np.any([_in_range(market.dates, text) for text in ranges], axis=0)) if ranges else None
    if chosen is None or not len(chosen):
        span = f"{market.dates.min()}..{market.dates.max()}" if len(market) else "no days at all"
        raise DataError(f"split {', '.join(map(str, ranges)) or '[]'} has no days; the table has {span}")
    _warn_few(chosen)
    return chosen


def _in_range(dates: np.ndarray, text: str) -> np.ndarray:
    match = _SPLIT.fullmatch(str(text).strip())
    if match is None:
        raise DataError(f"split {text!r} is not a range such as 2021-01-01..2021-12-31, with or without /every4w")
    first, last = _iso_day(match[1]), _last_day(match[2] or match[1])
    if last < first:
        raise DataError(f"split {text!r} ends before it starts; swap the dates")
    inside = (dates >= first) & (dates <= last)
    if match[3] is None:
        return inside
    weeks = int(match[4])
    last_week = (dates - first).astype(np.int64) // 7 % weeks == weeks - 1
    return inside & (last_week if match[3] == "every" else ~last_week)


def k_per_season(market: MarketDays, k: int, seed: int) -> tuple[MarketDays, MarketDays]:
    """`k` random days of each season for training and another `k` for testing, each ascending.

    Cardo-Miota et al., Applied Energy 388 (2025) 125561, use k = 5: 20 and 20 days. The same seed gives the same days.
    """
    if k < 1:
        raise DataError(f"k_per_season={k} must be at least 1")
    rng = np.random.default_rng(seed)
    train: list[np.ndarray] = []
    test: list[np.ndarray] = []
    for season, name in enumerate(("winter", "spring", "summer", "autumn")):
        days = rng.permutation(np.flatnonzero(market.season == season))
        if len(days) < 2 * k:
            raise DataError(f"k_per_season={k} needs {2 * k} days of {name}, the table has {len(days)}; lower k")
        train.append(days[:k])
        test.append(days[k : 2 * k])
    splits = market.take(np.sort(np.concatenate(train))), market.take(np.sort(np.concatenate(test)))
    _warn_few(splits[0])
    return splits


def _last_day(text: str) -> np.datetime64:
    """Last day of a date, month or year."""
    _iso_day(text)
    return np.datetime64(pd.Period(text).end_time.date(), "D")


def _iso_day(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "D")
    except ValueError as error:
        raise DataError(f"{text!r} is not a date such as 2021-01-31; correct it") from error


def _warn_few(split: MarketDays) -> None:
    if len(split) < FEW_DAYS:
        warnings.warn(f"a split has only {len(split)} day(s); {FEW_DAYS} or more are advised", stacklevel=3)
