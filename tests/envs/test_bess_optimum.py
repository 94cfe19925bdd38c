"""Perfect foresight: known optima, closed forms, legality and optimality of plans judged by the plant's own physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bess_days import KNOWN, NEAR_EUR, Market, market_of, profit_eur

from envs_jax.bess import optimum
from envs_jax.bess.baselines import BASELINES
from envs_jax.bess.optimum import cached_perfect_foresight, perfect_foresight, rolling_horizon
from envs_jax.bess.params import Plant, Rules, limits_of, plant_of
from envs_jax.bess.physics import fresh_battery, run_hour, terminal_term_eur

PLANT = plant_of(limits_of("default"))
# Both limits bind: PV up to 15 MW meets 8 MW of export, and only a third of the rating may be imported.
TIGHT = plant_of(limits_of("default", {"grid": {"poi_power_limit_mw": 8.0, "max_grid_import_mw": 0.5}}))
ALL_DAYS = ("NL 2022-03-15", "NL 2022-07-10", "DE 2018-07-02", "DE 2018-01-28")
COLUMNS = {
    "optimum": {"terminal": "free", "action_mode": "signed"},
    "optimum_value": {"terminal": "value", "action_mode": "signed"},
    "optimum_peak_scalar": {"terminal": "free", "action_mode": "peak_scalar"},
}


def hostile_market(days: int, seed: int = 0) -> Market:
    """Random days with negative and zero prices, dear reserve and PV around the tight connection."""
    random = np.random.default_rng(seed)
    price = np.round(random.normal(30, 60, (days, 24)), 1)
    price[:, :3] = 0.0
    return Market(price, np.abs(random.normal(0, 30, (days, 24))), np.clip(random.normal(6, 6, (days, 24)), 0, 15))


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("wear", "method"), [("none", "lp"), ("linear", "lp"), ("segment", "lp"), ("nonlinear", "dp")])
def test_known_optimum(wear, method, column):
    rows = [row for row in KNOWN if row.wear == wear]
    plan = perfect_foresight(
        PLANT, Rules(wear=wear, **COLUMNS[column]), *market_of(*(row.day for row in rows)), method=method
    )
    assert plan.method == method
    assert plan.profit_eur.tolist() == pytest.approx([getattr(row, column) for row in rows], abs=NEAR_EUR)


@pytest.mark.parametrize(
    ("day", "column"),
    [
        pytest.param(known.day, column, marks=() if (known.day, column) in fast else pytest.mark.slow)
        for fast in [[("NL 2022-07-10", "optimum_peak_scalar"), ("DE 2018-01-28", "optimum_peak_scalar")]]
        for known in KNOWN
        if known.wear == "nonlinear"
        for column in COLUMNS
    ],
)
def test_mixed_integer_program_confirms_the_dynamic_program(day, column):
    known = next(row for row in KNOWN if (row.day, row.wear) == (day, "nonlinear"))
    rules = Rules(wear="nonlinear", **COLUMNS[column])
    exact = perfect_foresight(PLANT, rules, *market_of(day))
    assert exact.method == "milp"
    assert exact.profit_eur[0] == pytest.approx(getattr(known, column), abs=NEAR_EUR)
    grid = perfect_foresight(PLANT, rules, *market_of(day), method="dp")
    assert exact.profit_eur[0] - 0.5 <= grid.profit_eur[0] <= exact.profit_eur[0] + 0.001


@pytest.mark.parametrize("wear", ["none", "linear"])
def test_closed_form_of_a_two_price_day(wear):
    """0 EUR until noon, 100 after: fill the battery for nothing, sell all of it, no reserve, no PV."""
    price = np.repeat([[0.0, 100.0]], 12, axis=1).reshape(1, 24)
    plan = perfect_foresight(PLANT, Rules(wear=wear, action_mode="signed"), price, np.zeros((1, 24)), np.zeros((1, 24)))
    bought_mwh, sold_mwh = 0.4 * 3.5 / 0.97, 0.8 * 3.5 * 0.97
    wear_eur = 175_000 / (0.6 * 6000) / 2 * (bought_mwh + sold_mwh) if wear == "linear" else 0.0
    assert plan.profit_eur[0] == pytest.approx(100 * sold_mwh - wear_eur, abs=1e-6)
    assert plan.soc[0, [11, 23]] == pytest.approx([0.9, 0.1])


def test_closed_form_of_burning_energy_at_negative_prices():
    """-10 EUR all day: losses are paid for, but not by charging and discharging in the same hour.

    11 hours of full discharge leave 13 for charging, which need 12.7; one more hour of discharge would not be refilled.
    """
    price, nothing = np.full((1, 24), -10.0), np.zeros((1, 24))
    plan = perfect_foresight(PLANT, Rules(wear="none", action_mode="signed"), price, nothing, nothing)
    discharged_mwh = 11 * 1.5
    charged_mwh = (0.4 * 3.5 + discharged_mwh / 0.97) / 0.97
    assert plan.profit_eur[0] == pytest.approx(10 * (charged_mwh - discharged_mwh), abs=1e-5)


@pytest.mark.parametrize("wear", ["none", "linear", "segment", "nonlinear", "cycle_curve"])
def test_plans_respect_every_limit_of_a_tight_connection(wear):
    market = market_of(*ALL_DAYS)
    plan = perfect_foresight(TIGHT, Rules(wear=wear, action_mode="signed"), *market)
    charge_mw, discharge_mw = np.maximum(-plan.power_mw, 0), np.maximum(plan.power_mw, 0)
    stored_mwh = 0.97 * charge_mw - discharge_mw / 0.97
    np.testing.assert_allclose(plan.soc, 0.5 + np.cumsum(stored_mwh, axis=1) / 3.5, atol=1e-9)
    assert plan.soc.min() >= 0.1 and plan.soc.max() <= 0.9
    assert (charge_mw <= np.minimum(1.5, market.pv_mw + 0.5) + 1e-6).all()
    assert (discharge_mw <= np.minimum(1.5, np.maximum(8.0 - market.pv_mw, 0.0)) + 1e-6).all()
    loose = perfect_foresight(PLANT, Rules(wear=wear, action_mode="signed"), *market, method=plan.method)
    sunny = market.pv_mw.max(axis=1) > 8.0
    assert sunny.sum() == 3 and (plan.profit_eur < loose.profit_eur)[sunny].all()
    assert (plan.profit_eur <= loose.profit_eur + 1e-6).all()


def test_peak_scalar_plans_charge_outside_the_windows_and_discharge_inside():
    market = market_of(*ALL_DAYS)
    for wear in ("segment", "nonlinear"):
        plan = perfect_foresight(PLANT, Rules(wear=wear), *market)
        for price, power_mw in zip(market.price_eur_per_mwh, plan.power_mw, strict=True):
            peaks = (price[:12].argmax(), 12 + price[12:].argmax())
            inside = np.abs(np.arange(24) - np.repeat(peaks, 12)) <= 1
            assert power_mw[inside].min() > -1e-6 and power_mw[~inside].max() < 1e-6


HARD_RULES = [
    Rules(curtail="poi_only"),
    Rules(curtail="negative_price", reserve_down=True, terminal="value"),
    Rules(curtail="never", terminal="penalty", terminal_penalty_eur=200.0),
    Rules(curtail="poi_only", fixed_pv_price=True, terminal="value"),
    Rules(curtail="never", fixed_pv_price=True, reserve="none"),
]


def best_on_grid(plant: Plant, rules: Rules, market: Market, num_levels: int) -> np.ndarray:
    """[D] best profit without wear over all moves between equidistant SOC levels, as the physics settles them."""
    soc = np.linspace(plant.soc_min, plant.soc_max, num_levels)
    cell_mwh = (soc[:, None] - soc) * plant.energy_mwh
    command_mw = np.where(cell_mwh > 0, cell_mwh * plant.discharge_efficiency, cell_mwh / plant.charge_efficiency)

    def profit(level, power_mw, price, reserve, pv):
        _, outcome = run_hour(plant, rules, fresh_battery(plant, level), 0, power_mw, pv, price, reserve)
        return jnp.where(outcome.clipped_mw < 1e-6, outcome.profit_eur, -jnp.inf)

    over_moves = jax.vmap(jax.vmap(profit, (None, 0, None, None, None)), (0, 0, None, None, None))
    with jax.enable_x64(True):
        gain = np.asarray(jax.jit(jax.vmap(jax.vmap(over_moves, (None, None, 0, 0, 0)), (None, None, 0, 0, 0)))(
            soc, command_mw, *market
        ))  # fmt: skip
        end = [terminal_term_eur(plant, rules, price, plant.soc_init, soc) for price in market.price_eur_per_mwh]
    value = np.asarray(end)
    for hour in reversed(range(24)):
        value = (gain[:, hour] + value[:, None, :]).max(axis=2)
    return value[:, np.argmin(np.abs(soc - plant.soc_init))]


@pytest.mark.parametrize("rules", HARD_RULES, ids=lambda r: f"{r.curtail}-{r.terminal}-{r.fixed_pv_price}")
def test_optimum_agrees_with_a_search_through_the_physics(rules):
    """A plant of 1 MW and 1 MWh needs few levels: where connection, negative prices and dear reserve make the linear
    program branch, its optimum lies just above the best path on a grid."""
    plant = plant_of(limits_of("ie_paper", {"grid": {"poi_power_limit_mw": 5.0, "max_grid_import_mw": 0.5}}))
    market = hostile_market(6)
    rules = rules._replace(action_mode="signed", wear="none")
    plan = perfect_foresight(plant, rules, *market)
    found_eur = best_on_grid(plant, rules, market, num_levels=65)
    missed_eur = plan.profit_eur - found_eur
    assert missed_eur.min() > -1e-6 and missed_eur.max() < 2.0 and np.median(missed_eur) < 0.1


@pytest.mark.parametrize("wear", ["none", "linear", "segment"])
@pytest.mark.parametrize("plant", [PLANT, TIGHT], ids=["default", "tight"])
def test_no_change_of_two_hours_improves_an_exact_plan(wear, plant):
    market = hostile_market(1, seed=3)
    rules = Rules(wear=wear, action_mode="signed", terminal="value")
    plan = perfect_foresight(plant, rules, *market)
    random = np.random.default_rng(0)
    trials = np.repeat(plan.power_mw, 4000, axis=0)
    for _ in range(2):
        trials[np.arange(4000), random.integers(0, 24, 4000)] += random.normal(0, 0.3, 4000)
    profits = profit_eur(plant, rules, trials, Market(*(np.repeat(values, 4000, axis=0) for values in market)))
    assert profits.max() <= plan.profit_eur[0] + 1e-5
    assert profits.max() > plan.profit_eur[0] - 5.0  # the trials come close enough to mean something


def test_depth_wear_plans_beat_every_rule():
    market = market_of(*ALL_DAYS)
    for wear in ("nonlinear", "cycle_curve"):
        rules = Rules(wear=wear, action_mode="signed", terminal="value")
        plan = perfect_foresight(PLANT, rules, *market)
        assert plan.method == "dp"
        for rule in BASELINES.values():
            command_mw = rule(PLANT, rules, market.price_eur_per_mwh, plan.power_mw)
            assert (profit_eur(PLANT, rules, command_mw, market) < plan.profit_eur).all()


@pytest.mark.parametrize("wear", ["segment", "nonlinear"])
def test_a_fuller_battery_at_midnight_is_worth_more(wear):
    market = Market(*(np.repeat(values, 4, axis=0) for values in market_of("NL 2022-03-15")))
    rules = Rules(wear=wear, action_mode="signed")
    # 0.37 lies between the levels of the grid.
    plan = perfect_foresight(PLANT, rules, *market, soc_start=np.array([0.1, 0.37, 0.5, 0.9]))
    assert (np.diff(plan.profit_eur) > 0).all()
    np.testing.assert_allclose(plan.profit_eur[2], perfect_foresight(PLANT, rules, *market).profit_eur[2], atol=1e-6)


def test_carry_is_planned_like_free():
    market = market_of("NL 2022-07-10")
    free, carry = (
        perfect_foresight(PLANT, Rules(wear="segment", terminal=terminal), *market) for terminal in ("free", "carry")
    )
    np.testing.assert_array_equal(free.power_mw, carry.power_mw)
    assert free.soc[0, -1] == pytest.approx(0.1)


def physical_step(plant: Plant, rules: Rules, market: Market):
    """The callback of `rolling_horizon`: all days step together through the physics."""
    with jax.enable_x64(True):
        batteries = jax.vmap(lambda soc: fresh_battery(plant, soc))(np.full(len(market.pv_mw), plant.soc_init))
        run = jax.jit(jax.vmap(lambda *x: run_hour(plant, rules, *x)[0], (0, None, 0, 0, 0, 0)))

    def step(hour, power_mw):
        nonlocal batteries
        with jax.enable_x64(True):
            price, reserve, pv = (values[:, hour] for values in market)
            batteries = run(batteries, hour, power_mw, pv, price, reserve)
        return np.asarray(batteries.soc), np.asarray(batteries.segments_mwh)

    return step


@pytest.mark.parametrize("terminal", ["value", "penalty"])
def test_rolling_horizon_with_perfect_sight_is_perfect_foresight(terminal):
    market = market_of("NL 2022-07-10", "DE 2018-01-28")
    rules = Rules(wear="segment", action_mode="signed", terminal=terminal, terminal_penalty_eur=50.0)
    seen = [np.repeat(values[:, None], 24, axis=1) for values in market]
    power_mw = rolling_horizon(PLANT, rules, *seen, physical_step(PLANT, rules, market))
    best = perfect_foresight(PLANT, rules, *market)
    np.testing.assert_allclose(profit_eur(PLANT, rules, power_mw, market), best.profit_eur, atol=1e-4)


def test_rolling_horizon_earns_less_the_less_it_sees():
    market = market_of("NL 2022-03-15", "NL 2022-07-10")
    rules = Rules(wear="segment", action_mode="signed", terminal="value")
    past = np.tril(np.ones((24, 24), bool))
    wrong = market.price_eur_per_mwh[::-1]
    seen_price = np.where(past, market.price_eur_per_mwh[:, None], wrong[:, None])
    others = [np.repeat(values[:, None], 24, axis=1) for values in market[1:]]
    power_mw = rolling_horizon(PLANT, rules, seen_price, *others, physical_step(PLANT, rules, market))
    assert (profit_eur(PLANT, rules, power_mw, market) < perfect_foresight(PLANT, rules, *market).profit_eur - 1).all()


def test_cache_returns_the_stored_plan_and_survives_a_damaged_file(tmp_path, monkeypatch):
    market, rules = market_of("DE 2018-07-02"), Rules(wear="linear")
    first = cached_perfect_foresight(tmp_path / "cache", PLANT, rules, *market)
    (path,) = (tmp_path / "cache").iterdir()

    calls = []
    solve = optimum.perfect_foresight
    monkeypatch.setattr(optimum, "perfect_foresight", lambda *a, **k: calls.append(a) or solve(*a, **k))
    again = cached_perfect_foresight(tmp_path / "cache", PLANT, rules, *market)
    assert not calls and again.method == first.method
    for stored, computed in zip(again[:3], first[:3], strict=True):
        np.testing.assert_array_equal(stored, computed)

    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"not an archive"):
        calls.clear()
        path.write_bytes(damaged)
        rebuilt = cached_perfect_foresight(tmp_path / "cache", PLANT, rules, *market)
        assert len(calls) == 1
        np.testing.assert_array_equal(rebuilt.profit_eur, first.profit_eur)
        assert [path] == list((tmp_path / "cache").iterdir())

    changed = [
        (PLANT.replace(linear_cost_eur_per_mwh=1.0), rules, market),
        (PLANT, rules._replace(terminal="value"), market),
        (PLANT, rules, market._replace(pv_mw=market.pv_mw + 0.5)),
    ]
    for count, (plant, other_rules, other_market) in enumerate(changed, start=2):
        cached_perfect_foresight(tmp_path / "cache", plant, other_rules, *other_market)
        assert len(list((tmp_path / "cache").iterdir())) == count


@pytest.mark.parametrize(
    ("rules", "change", "message"),
    [
        (Rules(legacy_accounting=True), {}, "legacy_accounting"),
        (Rules(reserve_activation=0.1), {}, "reserve_activation"),
        (Rules(wear="segment"), {"method": "dp"}, "no method dp for wear segment"),
        (Rules(wear="cycle_curve"), {"method": "milp"}, "no method milp for wear cycle_curve"),
        (Rules(), {"soc_start": 0.95}, "soc_start"),
        (Rules(), {"price": np.full((1, 24), np.nan)}, "price must be finite"),
        (Rules(), {"price": np.zeros((1, 23))}, "price must be finite numbers \\[days, 24\\]"),
        (Rules(), {"reserve": np.full((1, 24), -1.0)}, "must not be negative"),
    ],
)
def test_inputs_without_a_bound_are_refused(rules, change, message):
    day = {"price": np.zeros((1, 24)), "reserve": np.zeros((1, 24)), "pv": np.zeros((1, 24)), **change}
    arrays = [day.pop(name) for name in ("price", "reserve", "pv")]
    with pytest.raises(ValueError, match=message):
        perfect_foresight(PLANT, rules, *arrays, **day)


def test_rolling_horizon_refuses_wear_by_depth():
    seen = np.zeros((1, 24, 24))
    with pytest.raises(ValueError, match="not nonlinear"):
        rolling_horizon(PLANT, Rules(wear="nonlinear"), seen, seen, seen, lambda hour, power_mw: (power_mw, power_mw))
