"""Which whole days of a market train, choose and test: ranges of dates, shares, days of every season."""

import re
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from envs_jax.bess.data import MarketDays, iso_day
from envs_jax.bess.table import DataError

FEW_DAYS = 8
"""A split with fewer days is allowed and warned about."""

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
    first, last = iso_day(match[1]), _last_day(match[2] or match[1])
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
    iso_day(text)
    return np.datetime64(pd.Period(text).end_time.date(), "D")


def _warn_few(split: MarketDays) -> None:
    if len(split) < FEW_DAYS:
        warnings.warn(f"a split has only {len(split)} day(s); {FEW_DAYS} or more are advised", stacklevel=3)
