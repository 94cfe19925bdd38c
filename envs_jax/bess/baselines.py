"""Rules that practitioners use instead of a learned policy (section 9), as open-loop commands for whole days.

Every rule looks at prices only and knows nothing of wear; the plant's dispatch clips what it cannot do. Commands are
[D, 24] in MW, discharge positive. `BASELINES` is the table of all rules under the names that scores are printed with.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.bess.params import HOURS, Plant, Rules
from envs_jax.bess.windows import cheap_hours, cheapest, peak_window

Baseline = Callable[[Plant, Rules, np.ndarray, np.ndarray], np.ndarray]
"""`(plant, rules, price_eur_per_mwh [D, 24], optimum_mw [D, 24]) -> command_mw [D, 24]`; `optimum_mw` is the plan of
perfect foresight for the same days in order."""


def idle(plant: Plant, rules: Rules, price_eur_per_mwh: np.ndarray, optimum_mw: np.ndarray) -> np.ndarray:
    """Battery untouched: PV sales and the reserve of the initial content."""
    return np.zeros_like(price_eur_per_mwh)


def two_cycles(plant: Plant, rules: Rules, price_eur_per_mwh: np.ndarray, optimum_mw: np.ndarray) -> np.ndarray:
    """Charge in the cheap hours before and between the two price peaks, discharge in the windows around them."""
    charge = _by_day(cheap_hours, price_eur_per_mwh)
    discharge = _by_day(lambda price: peak_window(price, rules.peak_half_width), price_eur_per_mwh)
    return _full_power(plant, charge & ~discharge, discharge)


def k_cheapest(
    plant: Plant, rules: Rules, price_eur_per_mwh: np.ndarray, optimum_mw: np.ndarray, k: int = 3
) -> np.ndarray:
    """Charge in the k cheapest hours of the day, discharge in the k dearest; ties go to the earliest hours."""
    anytime = jnp.ones(HOURS, bool)
    charge = _by_day(lambda price: cheapest(price, anytime, k), price_eur_per_mwh)
    discharge = _by_day(lambda price: cheapest(-price, anytime, k), price_eur_per_mwh)
    return _full_power(plant, charge, discharge)


def threshold(
    plant: Plant, rules: Rules, price_eur_per_mwh: np.ndarray, optimum_mw: np.ndarray, low=0.3, high=0.7
) -> np.ndarray:
    """Charge at or below the `low` quantile of the day's prices, discharge at or above the `high` one."""
    cheap, dear = np.quantile(price_eur_per_mwh, [low, high], axis=1)[..., None]
    return _full_power(plant, price_eur_per_mwh <= cheap, price_eur_per_mwh >= dear)


def lp_persistence(plant: Plant, rules: Rules, price_eur_per_mwh: np.ndarray, optimum_mw: np.ndarray) -> np.ndarray:
    """The best plan for the day before, carried out today; the first day stays idle."""
    return np.concatenate([np.zeros_like(optimum_mw[:1]), optimum_mw[:-1]])


BASELINES: dict[str, Baseline] = {
    "idle": idle,
    "two_cycles": two_cycles,
    "k_cheapest": k_cheapest,
    "threshold": threshold,
    "lp_persistence": lp_persistence,
}


def _by_day(rule: Callable[[jax.Array], jax.Array], price_eur_per_mwh: np.ndarray) -> np.ndarray:
    return np.asarray(jax.vmap(rule)(jnp.asarray(price_eur_per_mwh)))


def _full_power(plant: Plant, charge: np.ndarray, discharge: np.ndarray) -> np.ndarray:
    """Full power where told; hours that are both cheap and dear (flat prices) stay idle."""
    return plant.power_mw * (discharge.astype(float) - charge.astype(float))
