"""Rules that practitioners use instead of a learned policy (section 9), as open-loop commands for whole days.

Every rule looks at prices only and knows nothing of wear; the plant's dispatch clips what it cannot do. Commands are in
MW, discharge positive. `PRICE_RULES` are functions of one day's prices that jit and vmap, `BASELINES` is the table of
all rules for arrays of days under the names that scores are printed with.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.bess.params import HOURS, Plant, Rules
from envs_jax.bess.windows import cheap_hours, cheapest, peak_window

PriceRule = Callable[[Plant, Rules, jax.Array], jax.Array]
"""`(plant, rules, price_eur_per_mwh [24]) -> command_mw [24]`."""
Baseline = Callable[[Plant, Rules, np.ndarray, np.ndarray], np.ndarray]
"""`(plant, rules, price_eur_per_mwh [D, 24], optimum_mw [D, 24]) -> command_mw [D, 24]`; `optimum_mw` is the plan of
perfect foresight for the same days in order."""


def idle(plant: Plant, rules: Rules, price_eur_per_mwh: jax.Array) -> jax.Array:
    """Battery untouched: PV sales and the reserve of the initial content."""
    return jnp.zeros_like(price_eur_per_mwh)


def two_cycles(plant: Plant, rules: Rules, price_eur_per_mwh: jax.Array) -> jax.Array:
    """Charge in the cheap hours before and between the two price peaks, discharge in the windows around them."""
    discharge = peak_window(price_eur_per_mwh, rules.peak_half_width)
    return _full_power(plant, cheap_hours(price_eur_per_mwh) & ~discharge, discharge)


def k_cheapest(plant: Plant, rules: Rules, price_eur_per_mwh: jax.Array, k: int = 3) -> jax.Array:
    """Charge in the k cheapest hours of the day, discharge in the k dearest; ties go to the earliest hours."""
    anytime = jnp.ones(HOURS, bool)
    return _full_power(plant, cheapest(price_eur_per_mwh, anytime, k), cheapest(-price_eur_per_mwh, anytime, k))


def threshold(
    plant: Plant, rules: Rules, price_eur_per_mwh: jax.Array, low: float = 0.3, high: float = 0.7
) -> jax.Array:
    """Charge at or below the `low` quantile of the day's prices, discharge at or above the `high` one."""
    # A price reaches an interpolated quantile exactly if it reaches the order statistic next to it.
    ordered = jnp.sort(price_eur_per_mwh)
    cheap, dear = ordered[math.floor(low * (HOURS - 1))], ordered[math.ceil(high * (HOURS - 1))]
    return _full_power(plant, price_eur_per_mwh <= cheap, price_eur_per_mwh >= dear)


PRICE_RULES: dict[str, PriceRule] = {
    "idle": idle,
    "two_cycles": two_cycles,
    "k_cheapest": k_cheapest,
    "threshold": threshold,
}


def lp_persistence(plant: Plant, rules: Rules, price_eur_per_mwh: np.ndarray, optimum_mw: np.ndarray) -> np.ndarray:
    """The best plan for the day before, carried out today; the first day stays idle."""
    return np.concatenate([np.zeros_like(optimum_mw[:1]), optimum_mw[:-1]])


def _for_days(rule: PriceRule) -> Baseline:
    def commands(plant, rules, price_eur_per_mwh, optimum_mw):
        with jax.enable_x64(True):
            each_day = jax.vmap(lambda price: rule(plant, rules, price))
            return np.asarray(each_day(np.asarray(price_eur_per_mwh, np.float64)))

    return commands


BASELINES: dict[str, Baseline] = {
    **{name: _for_days(rule) for name, rule in PRICE_RULES.items()},
    "lp_persistence": lp_persistence,
}


def _full_power(plant: Plant, charge: jax.Array, discharge: jax.Array) -> jax.Array:
    """Full power where told; hours that are both cheap and dear (flat prices) stay idle."""
    return plant.power_mw * (discharge.astype(float) - charge.astype(float))
