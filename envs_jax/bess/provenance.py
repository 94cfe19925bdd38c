"""Which days of which table a run is made of, with digests: opened again, it gets the same days or says what changed.

A table that only grew changes nothing, though splits by share would move; one that holds other numbers on these days
is refused. Settings that ask for other days, and another file that does not hold them, are a wish for other data.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from envs_jax.bess.config import BessConfig
from envs_jax.bess.data import PACKAGED_TABLE, MarketDays
from envs_jax.bess.table import DataError

CHOOSING = (
    "zone", "timezone", "dst", "missing_price", "split", "train_dates", "val_dates", "test_dates", "k_per_season",
    "split_seed",
)  # fmt: skip
"""Settings that decide which days there are and what they serve."""
DECIMALS = 6
"""Numbers are compared to so many: another version of NumPy rounds differently, and is not another table."""


def provenance_of(config: BessConfig, splits: Mapping[str, MarketDays]) -> dict[str, Any]:
    """JSON-serialisable: the table, the settings, and for every split its days, each with a digest of its numbers."""
    settings = config.model_dump(mode="json", include={*CHOOSING, "huf_per_eur"})
    return {
        "table": config.data_path,
        "chosen_by": {name: settings[name] for name in CHOOSING},
        "converted_by": {"huf_per_eur": settings["huf_per_eur"], "res": config.limits.res.model_dump(mode="json")},
        "days": {name: _digests(days) for name, days in splits.items()},
    }


def same_splits(
    config: BessConfig, market: MarketDays, provenance: Mapping[str, Any] | None
) -> dict[str, MarketDays] | None:
    """The splits of `provenance` in the table as it is now; None where other data are asked for.

    Raises:
        DataError: the table does not hold these days as they were.
    """
    now = provenance_of(config, {})
    if provenance is None or provenance["chosen_by"] != now["chosen_by"]:
        return None
    # With another plant or rate the days are the same, and their numbers are not.
    compared = provenance["converted_by"] == now["converted_by"]
    position = {str(date): index for index, date in enumerate(market.dates)}
    splits, changed = {}, []
    for name, days in provenance["days"].items():
        splits[name] = market.take([position[date] for date in days if date in position])
        here = _digests(splits[name])
        changed += [date for date, was in days.items() if date not in here or (compared and here[date] != was)]
    if not changed:
        return splits
    if provenance["table"] != now["table"]:
        return None
    raise DataError(
        f"{config.data_path or PACKAGED_TABLE}: {len(changed)} day(s) of the run are not what they were when it was "
        f"trained, the first {min(changed)}; restore the table, or score other days with `evaluate --data FILE`"
    )


def _digests(days: MarketDays) -> dict[str, str]:
    """Date -> twelve hexadecimal digits over prices, reserve prices where there are any, and PV."""
    columns = [days.price_eur_per_mwh, days.reserve_eur_per_mw_h, days.pv_mw]
    # Plus zero: rounding has two zeros.
    numbers = np.concatenate([np.round(c, DECIMALS) + 0.0 for c in columns if c is not None], axis=1).astype("<f8")
    return {
        str(date): hashlib.sha256(row.tobytes()).hexdigest()[:12] for date, row in zip(days.dates, numbers, strict=True)
    }
