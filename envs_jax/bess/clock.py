"""Local market time of the rows of a table: whole hours, ascending, and the days on which the clock was moved."""

import zoneinfo
from datetime import datetime, time, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from envs_jax.bess.params import HOURS
from envs_jax.bess.table import DataError, Table, numbers, refuse

_HOUR_NS = 3_600_000_000_000
MARKET_ZONES = (
    "Europe/Budapest", "Europe/London", "Europe/Athens", "Atlantic/Azores", "America/New_York", "America/Chicago",
    "America/Denver", "America/Los_Angeles", "Australia/Sydney",
)  # fmt: skip
"""One for each change of the clock on market days: tried where hours come twice for no reason in `env.timezone`."""


class Clock(NamedTuple):
    """Local market time of every row."""

    date: np.ndarray
    """datetime64[D], [N]."""
    hour: np.ndarray
    """0..23, int64, [N]."""
    elapsed_h: np.ndarray
    """Hours since a fixed instant, int64, strictly ascending, [N]."""
    change_days: np.ndarray
    """datetime64[D]: days on which the local clock was moved."""


def clock_of(table: Table, timezone: str) -> Clock:
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
    refuse(table, column, has_offset, "has a UTC offset and other rows have none; write all alike")
    return _clock_from_local(table, stamps.tz_localize(None), timezone)


def _stamps(table: Table, column: str) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Whole hours, read as UTC where no offset is given, and which cells [N] give one."""
    cells = table.frame[column]
    if pd.api.types.is_datetime64_any_dtype(cells):
        has_offset = np.full(len(cells), cells.dt.tz is not None)
        times = pd.to_datetime(cells, utc=True)
    else:
        text = cells.astype(str).str.strip()
        has_offset = text.str.contains(r"\d:\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$").to_numpy(dtype=bool)
        times = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
    refuse(table, column, times.isna().to_numpy(), "is not a time such as 2021-01-01T00:00Z; correct it")
    stamps = pd.DatetimeIndex(times).as_unit("ns")
    refuse(table, column, stamps.asi8 % _HOUR_NS != 0, "is not a whole hour; give one row per hour")
    return stamps, has_offset


def _clock_from_utc(table: Table, utc: pd.DatetimeIndex, timezone: str) -> Clock:
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
    return Clock(date, hour, utc_h, days[offset_h[last] != offset_h[np.maximum(first - 1, 0)]])


def _clock_from_local(table: Table, local: pd.DatetimeIndex, timezone: str) -> Clock:
    local_h = local.asi8 // _HOUR_NS
    # The hour that the clock passes twice in autumn is no duplicate the second time.
    ambiguous = local.tz_localize(timezone, ambiguous="NaT", nonexistent="shift_forward").isna()
    second = ambiguous & local.duplicated()
    elapsed_h = local_h + np.cumsum(second)
    _check_ascending(table, elapsed_h, _likely_zone(local[local.duplicated()], timezone))
    date, hour = _split_hours(local_h)
    days = np.unique(date)
    changed = utc_offset_h(days, timezone) != utc_offset_h(days + np.timedelta64(1, "D"), timezone)
    return Clock(date, hour, elapsed_h, days[changed])


def utc_offset_h(days: np.ndarray, timezone: str) -> np.ndarray:
    """Hours ahead of UTC when the local days (datetime64[D], [D]) of the IANA zone begin, float64 [D]."""
    # Not pandas, whose older versions know no summer time after 2037, where synthetic days go.
    zone = zoneinfo.ZoneInfo(timezone)
    offsets = [datetime.combine(day, time(), zone).utcoffset() for day in days.astype("datetime64[D]").tolist()]
    return np.array([offset / timedelta(hours=1) for offset in offsets if offset is not None])


def _given_local_hours(table: Table, utc_h: np.ndarray) -> np.ndarray:
    """Hours since the epoch on the local clock, from the columns `date_local` and `hour_local`."""
    text = table.frame["date_local"].astype(str).str.strip()
    dates = pd.to_datetime(text, format="ISO8601", errors="coerce")
    refuse(table, "date_local", dates.isna().to_numpy(), "is not a date such as 2021-01-01; correct it")
    hours = numbers(table, "hour_local")
    refuse(table, "hour_local", ~np.isin(hours, np.arange(HOURS)), "is not an hour 0..23; correct it")
    local_h = dates.to_numpy().astype("datetime64[D]").astype(np.int64) * HOURS + hours.astype(np.int64)
    # No place on earth is further from UTC: such a row has a mistyped date or hour.
    refuse(table, "date_local", np.abs(local_h - utc_h) > 14, "is not the day of its timestamp; correct it")
    return local_h


def _whole_local_hours(table: Table, local: pd.DatetimeIndex) -> np.ndarray:
    if (local.asi8 % _HOUR_NS != 0).any():
        raise DataError(f"{table.path}: env.timezone is not whole hours from UTC; add date_local and hour_local")
    return local.asi8 // _HOUR_NS


def _split_hours(local_h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (local_h // HOURS).astype("datetime64[D]"), local_h % HOURS


def _likely_zone(repeated: pd.DatetimeIndex, timezone: str) -> str:
    """What to do about hours of the local clock that come twice though the clock of `timezone` does not go back."""
    for zone in MARKET_ZONES:
        if len(repeated) and repeated.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward").isna().all():
            return (
                f"the clock of {zone} goes back in this hour, that of env.timezone={timezone} does not: "
                f"set env.timezone={zone}, or keep one of the rows"
            )
    return f"keep one of the rows, or set env.timezone (now {timezone}) if the clock of the market goes back here"


def _check_ascending(table: Table, elapsed_h: np.ndarray, remedy: str = "keep one of the rows") -> None:
    twice = pd.Series(elapsed_h).duplicated().to_numpy()
    if twice.any():
        again = int(np.argmax(twice))
        first = table.at(int(table.frame.index[int(np.argmax(elapsed_h == elapsed_h[again]))]))
        raise DataError(f"{table.at(table.first_row(twice))}: duplicated hour, first at {first}; {remedy}")
    backwards = np.diff(elapsed_h, prepend=elapsed_h[:1] - 1) < 0
    if backwards.any():
        raise DataError(f"{table.at(table.first_row(backwards))}: earlier than the row before; sort the table by time")
