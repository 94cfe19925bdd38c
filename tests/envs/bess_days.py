"""The four real market days that hand-checked results are known for, and the table of those results."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from envs_jax.bess.params import Plant, Rules, limits_of, pv_ac_from_capacity_factor
from envs_jax.bess.physics import simulate_day
from envs_jax.bess.reserve import RESERVE_HOURLY_MEANS


class Market(NamedTuple):
    """Arrays [D, 24], in the order that `perfect_foresight` takes."""

    price_eur_per_mwh: np.ndarray
    reserve_eur_per_mw_h: np.ndarray
    pv_mw: np.ndarray


class Known(NamedTuple):
    """Profit in EUR of a day under the default plant, terminal mode free unless said (section 9)."""

    day: str
    wear: str
    idle: float
    two_cycles: float
    k_cheapest: float
    threshold: float
    optimum: float
    optimum_value: float
    optimum_peak_scalar: float


KNOWN = [
    Known("NL 2022-03-15", "none", 25235.18, 25976.43, 25918.53, 25425.13, 26060.67, 25718.44, 26018.14),
    Known("NL 2022-03-15", "linear", 25235.18, 25739.16, 25746.68, 25146.05, 25785.92, 25417.75, 25785.92),
    Known("NL 2022-03-15", "nonlinear", 25235.18, 25832.85, 25832.03, 25257.56, 25914.39, 25546.22, 25904.68),
    Known("NL 2022-03-15", "segment", 25235.18, 25731.43, 25757.48, 25225.52, 25813.38, 25493.51, 25802.32),
    Known("NL 2022-07-10", "nonlinear", 16644.21, 17802.53, 17561.20, 17609.91, 17968.54, 17696.13, 17836.36),
    Known("NL 2022-07-10", "segment", 16644.21, 17727.64, 17494.34, 17553.21, 17870.36, 17597.95, 17757.15),
    Known("DE 2018-07-02", "nonlinear", 8027.65, 7931.92, 8064.62, 7998.14, 8111.28, 8050.80, 8104.59),
    Known("DE 2018-07-02", "segment", 8027.65, 7848.70, 7981.80, 7924.57, 8068.23, 8048.73, 8064.45),
    Known("DE 2018-01-28", "nonlinear", 264.10, 124.76, 255.91, 174.71, 306.74, 310.11, 306.19),
]


NEAR_EUR = 0.0061
"""The table is rounded to 0.01 EUR, and plans stay 1e-6 below the edges of the bucket model."""


def market_of(*days: str) -> Market:
    """The named days, such as ``"NL 2022-03-15"``, with the hourly means of the reserve price on every day."""
    table = pd.read_csv(Path(__file__).parent / "data" / "bess_days.csv")
    by_day = table.groupby(table["zone"] + " " + table["date_local"])
    rows = [by_day.get_group(day) for day in days]
    factor = np.stack([row["pv_cf"].to_numpy() for row in rows])
    return Market(
        price_eur_per_mwh=np.stack([row["price_eur_mwh"].to_numpy() for row in rows]),
        reserve_eur_per_mw_h=np.tile(RESERVE_HOURLY_MEANS, (len(rows), 1)),
        pv_mw=pv_ac_from_capacity_factor(limits_of("default"), factor),
    )


def profit_eur(plant: Plant, rules: Rules, command_mw: np.ndarray, market: Market) -> np.ndarray:
    """[D] profit of commanded powers [D, 24] in float64, terminal term included."""
    with jax.enable_x64(True):
        return np.asarray(_simulate_days(plant, rules, command_mw, market))


@partial(jax.jit, static_argnames="rules")
def _simulate_days(plant, rules, command_mw, market):
    day = jax.vmap(lambda x, price, reserve, pv: simulate_day(plant, rules, x, pv, price, reserve)[0])
    return day(command_mw, *market)
