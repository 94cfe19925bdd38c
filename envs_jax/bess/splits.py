"""Which whole days of a market train, choose and test: ranges of dates, shares of the days, days of every season.

Reading order: `markets_of`, what an environment asks for; `splits_of` and the three ways it knows; then the language of
dates.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from envs_jax.bess.config import BessConfig, DateRanges
from envs_jax.bess.data import MarketDays, iso_day, load_market
from envs_jax.bess.params import HOURS
from envs_jax.bess.provenance import provenance_of, same_splits
from envs_jax.bess.synthetic import synthetic_market
from envs_jax.bess.table import DataError

_NO_PRICES = np.zeros((1, HOURS))
NO_TRADE = MarketDays(np.zeros(1, "datetime64[D]"), _NO_PRICES, _NO_PRICES, _NO_PRICES)
"""Stands for a market where nothing is read of one: acting needs shapes alone."""

SPLITS = ("train", "val", "test")
FEW_DAYS = 8
"""A split with fewer days is allowed and warned about."""
SHARES = (0.7, 0.85)
"""Of the days, in order: where training ends, where validation ends."""


def markets_of(
    config: BessConfig, provenance: Mapping[str, Any] | None = None
) -> tuple[dict[str, MarketDays], dict[str, Any]]:
    """What an environment has to trade on by split, synthetic days included, and the provenance of the real ones.

    Args:
        provenance: of an earlier environment, whose days these then are.

    Raises:
        DataError: as `load_market`, `same_splits` and `splits_of` do.
    """
    market = load_market(
        config.data_path,
        config.limits,
        zone=config.zone,
        timezone=config.timezone,
        dst=config.dst,
        huf_per_eur=config.huf_per_eur,
        missing_price=config.missing_price,
    )
    real = same_splits(config, market, provenance) or splits_of(config, market)
    markets = dict(real)
    if config.synthetic_days and "train" in real:
        extra = synthetic_market(config.synthetic_days, config.split_seed, config.limits)
        markets["train"] = _join(real["train"], extra)
    return markets, provenance_of(config, real)


def _join(market: MarketDays, extra: MarketDays) -> MarketDays:
    """Market days of both; synthetic days carry no reserve column, so a real one is dropped for all."""
    return MarketDays(
        dates=np.concatenate([market.dates, extra.dates]),
        price_eur_per_mwh=np.concatenate([market.price_eur_per_mwh, extra.price_eur_per_mwh]),
        reserve_eur_per_mw_h=None,
        pv_mw=np.concatenate([market.pv_mw, extra.pv_mw]),
    )


def splits_of(config: BessConfig, market: MarketDays) -> dict[str, MarketDays]:
    """The days of every split, ascending; one that has no dates beside others that have is left out.

    Raises:
        DataError: dates that are not written as `select_split` says or select nothing, a day that is tested and also
            trains or chooses, seasons with too few days.
    """
    if config.split == "k_per_season":
        return k_per_season(market, config.k_per_season, config.split_seed)
    dates = {"train": config.train_dates, "val": config.val_dates, "test": config.test_dates}
    given = {name: select_split(market, text) for name, text in dates.items() if text is not None}
    _check_shared_days(given)
    return given or _by_share(market)


def _by_share(market: MarketDays) -> dict[str, MarketDays]:
    """In the order of time; a table of very few days has no split for some."""
    bounds = [0, *(int(share * len(market)) for share in SHARES), len(market)]
    parts = zip(SPLITS, bounds, bounds[1:], strict=False)
    return {name: market.take(np.arange(first, last)) for name, first, last in parts if last > first}


def k_per_season(market: MarketDays, k: int, seed: int) -> dict[str, MarketDays]:
    """`k` random days of each season for each split, ascending; no day serves two. The same seed gives the same days.

    Cardo-Miota et al., Applied Energy 388 (2025) 125561, use k = 5: 20 and 20 days for training and test.
    """
    if k < 1:
        raise DataError(f"k_per_season={k} must be at least 1")
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in ("train", "test", "val")}
    for season, title in enumerate(("winter", "spring", "summer", "autumn")):
        days = rng.permutation(np.flatnonzero(market.season == season))
        if len(days) < k * len(drawn):
            needed = k * len(drawn)
            raise DataError(f"k_per_season={k} needs {needed} days of {title}, the table has {len(days)}; lower k")
        for place, chosen in enumerate(drawn.values()):
            chosen.append(days[place * k : (place + 1) * k])
    splits = {name: market.take(np.sort(np.concatenate(drawn[name]))) for name in SPLITS}
    _warn_few(splits["train"])
    return splits


def _check_shared_days(splits: Mapping[str, MarketDays]) -> None:
    """Refuses tested days that also train or choose; choosing by training days is only warned about."""
    for one, other in combinations(splits, 2):
        shared = np.intersect1d(splits[one].dates, splits[other].dates)
        if not len(shared):
            continue
        said = f"env.{one}_dates and env.{other}_dates share {len(shared)} day(s), the first {shared[0]}"
        if other == "test":
            raise DataError(
                f"{said}: a score of days that trained or chose the policy says little; take them out of one, or set "
                f"env.{one}_dates=null to score a finished policy on them"
            )
        warnings.warn(f"{said}: the best checkpoint is chosen on days that trained it", stacklevel=4)


# Dates


_DATE = r"\d{4}(?:-\d\d(?:-\d\d)?)?"
_SPLIT = re.compile(rf"({_DATE})(?:(?:\.\.|:| to )({_DATE}))?(?:/(every|except)([1-9]\d*)w)?")


def select_split(market: MarketDays, dates: DateRanges) -> MarketDays:
    """The days of a split, ascending.

    `dates` is one range or a list of ranges, which stands for the days of all of them:

    - `2021-01-01..2021-12-31`: first and last day included (`:` and ` to ` separate as well); `2021`, `2021-07` and
      `2022-03-15`: a year, a month, one day;
    - `2021-01-01..2021-12-31/every4w`: only the last week of each block of four weeks, weeks of seven days counted
      from the first day of the range (days 21-27, 49-55, ...);
    - `2021-01-01..2021-12-31/except4w`: all other days of the range, so that the two never share a day.

    Raises:
        DataError: a range that is not written like this, or a split without days.
    """
    ranges = [dates] if isinstance(dates, str | int) else list(dates)
    chosen = market.take(np.any([_in_range(market.dates, text) for text in ranges], axis=0)) if ranges else None
    if chosen is None or not len(chosen):
        span = f"{market.dates.min()}..{market.dates.max()}" if len(market) else "no days at all"
        raise DataError(f"split {', '.join(map(str, ranges)) or '[]'} has no days; the table has {span}")
    _warn_few(chosen, ranges)
    return chosen


def _in_range(dates: np.ndarray, text: str | int) -> np.ndarray:
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


def _last_day(text: str) -> np.datetime64:
    """Last day of a date, month or year."""
    iso_day(text)
    return np.datetime64(pd.Period(text).end_time.date(), "D")


def _warn_few(split: MarketDays, ranges: Sequence[str | int] = ()) -> None:
    if len(split) >= FEW_DAYS:
        return
    two_days = len(ranges) == len(split) == 2
    hint = f"; {ranges[0]}..{ranges[1]} stands for all days between the two" if two_days else ""
    warnings.warn(f"a split has only {len(split)} day(s); {FEW_DAYS} or more are advised{hint}", stacklevel=3)
