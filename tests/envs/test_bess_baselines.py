"""Price windows against plain loops, and the rules of practice against their known profits."""

import jax
import numpy as np
import pytest
from bess_days import KNOWN, NEAR_EUR, market_of, profit_eur

from envs_jax.bess.baselines import BASELINES
from envs_jax.bess.params import Rules, limits_of, plant_of
from envs_jax.bess.windows import cheap_hours, peak_hours, peak_window

PLANT = plant_of(limits_of("default"))
# Peaks at 5 (tie with 6) and 19 (tie with 20); ties among the cheap hours on both sides of the first peak.
TIED_PRICES = np.array([3, 2, 1, 1, 1, 9, 9, 2, 2, 2, 2, 2, 5, 4, 4, 4, 4, 4, 4, 8, 8, 0, 0, 0], float)


def hours_of(mask) -> list[int]:
    return np.flatnonzero(np.asarray(mask)).tolist()


def test_ties_go_to_the_earliest_hour():
    k1, k2 = peak_hours(TIED_PRICES)
    assert (int(k1), int(k2)) == (5, 19)
    assert hours_of(peak_window(TIED_PRICES)) == [4, 5, 6, 18, 19, 20]
    assert hours_of(peak_window(TIED_PRICES, 0)) == [5, 19]
    assert hours_of(cheap_hours(TIED_PRICES)) == [2, 3, 4, 7, 8, 9]


@pytest.mark.parametrize(("k1", "k2"), [(0, 12), (11, 12), (0, 23), (11, 23)])
def test_windows_stop_at_midnight_and_noon(k1, k2):
    price = np.zeros(24)
    price[[k1, k2]] = 100.0
    expected = [h for h in range(24) if abs(h - (k1 if h < 12 else k2)) <= 1]
    assert hours_of(peak_window(price)) == expected
    before, between = list(range(k1))[:3], list(range(k1 + 1, k2))[:3]
    assert hours_of(cheap_hours(price)) == before + between


def test_windows_equal_a_plain_loop_on_random_days_with_ties():
    prices = np.random.default_rng(0).integers(-3, 9, (300, 24)).astype(float)
    windows = jax.jit(jax.vmap(peak_window))(prices)
    cheap = jax.jit(jax.vmap(cheap_hours))(prices)
    for day, price in enumerate(prices.tolist()):
        k1 = price.index(max(price[:12]))
        k2 = 12 + price[12:].index(max(price[12:]))
        groups = [range(k1), range(k1 + 1, k2)]
        expected = sorted(h for group in groups for h in sorted(group, key=lambda h: price[h])[:3])
        assert hours_of(cheap[day]) == expected
        assert hours_of(windows[day]) == [h for h in range(24) if abs(h - (k1 if h < 12 else k2)) <= 1]


@pytest.mark.parametrize("known", KNOWN, ids=lambda row: f"{row.day}-{row.wear}")
@pytest.mark.parametrize("name", ["idle", "two_cycles", "k_cheapest", "threshold"])
def test_rules_earn_their_known_profit(known, name):
    market = market_of(known.day)
    rules = Rules(wear=known.wear, action_mode="signed")
    command_mw = BASELINES[name](PLANT, rules, market.price_eur_per_mwh, np.zeros((1, 24)))
    profit = profit_eur(PLANT, rules, command_mw, market)[0]
    assert profit == pytest.approx(getattr(known, name), abs=NEAR_EUR)


def test_commands_are_full_power_or_nothing():
    price = np.random.default_rng(1).normal(50, 40, (50, 24))
    for name in ("two_cycles", "k_cheapest", "threshold"):
        command_mw = BASELINES[name](PLANT, Rules(), price, np.zeros_like(price))
        assert set(np.unique(command_mw)) == {-PLANT.power_mw, 0.0, PLANT.power_mw}
    command_mw = BASELINES["k_cheapest"](PLANT, Rules(), price, np.zeros_like(price))
    assert ((command_mw < 0).sum(axis=1) == 3).all() and ((command_mw > 0).sum(axis=1) == 3).all()
    dearest_bought = price.max(axis=1, where=command_mw < 0, initial=-np.inf)
    assert (dearest_bought <= price.min(axis=1, where=command_mw >= 0, initial=np.inf)).all()


def test_flat_prices_leave_the_battery_alone():
    flat = np.full((1, 24), 40.0)
    for name in ("k_cheapest", "threshold"):
        assert not BASELINES[name](PLANT, Rules(), flat, np.zeros_like(flat)).any()


def test_persistence_repeats_the_plan_of_the_day_before():
    optimum_mw = np.random.default_rng(2).normal(size=(4, 24))
    command_mw = BASELINES["lp_persistence"](PLANT, Rules(), np.zeros((4, 24)), optimum_mw)
    assert not command_mw[0].any()
    np.testing.assert_array_equal(command_mw[1:], optimum_mw[:-1])
