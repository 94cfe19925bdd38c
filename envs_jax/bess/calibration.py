"""What is fitted on the training days and travels with a policy: ranges of the observations, scale of the reward."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from envs_jax.bess.config import BessConfig
from envs_jax.bess.data import MarketDays
from envs_jax.bess.days import Day
from envs_jax.bess.observations import BASE_FEATURES, fitted_ranges, parity_ranges
from envs_jax.bess.params import Plant, Rules
from envs_jax.bess.scoring import optimum_value_std


def calibrate(config: BessConfig, plant: Plant, rules: Rules, market: MarketDays, table: Day) -> dict[str, Any]:
    """What is fitted on the training split and has to travel with a policy."""
    ranges = parity_ranges() if config.normalization == "parity" else fitted_ranges(table)
    scale = config.reward_scale if isinstance(config.reward_scale, float | int) else 1.0
    if config.reward_scale == "auto":
        scale = optimum_value_std(plant, rules, market, np.asarray(table.reserve_eur_per_mw_h, float))
    return {
        "feature_low": np.asarray(ranges.low, float).tolist(),
        "feature_high": np.asarray(ranges.high, float).tolist(),
        "reward_scale_eur": float(scale),
    }


class _Calibration(BaseModel):
    """What `calibrate` makes, as it has to be when it is given back."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    feature_low: list[float] = Field(min_length=len(BASE_FEATURES), max_length=len(BASE_FEATURES))
    feature_high: list[float] = Field(min_length=len(BASE_FEATURES), max_length=len(BASE_FEATURES))
    reward_scale_eur: float = Field(gt=0)


def checked(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """A calibration that is given back.

    Raises:
        ValueError: `calibrate` cannot have made it.
    """
    try:
        return _Calibration(**calibration).model_dump()
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(map(str, problem["loc"]))
        raise ValueError(f"calibration: {name}: {problem['msg']}; restore it or train again") from error
