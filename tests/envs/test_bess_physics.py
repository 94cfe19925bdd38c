"""Physics and money of the plant: step traces, identities on random days, an independent plain reference, gradients."""

from functools import cache
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bess_days import KNOWN, NEAR_EUR, market_of

from envs_jax.bess import physics
from envs_jax.bess.params import HOURS, SEGMENTS, Rules, WearModel, limits_of, plant_of
from envs_jax.bess.physics import Battery, Hour, fresh_battery, run_hour, simulate_day
from envs_jax.bess.reserve import RESERVE_HOURLY_MEANS
from envs_jax.bess.windows import peak_window

WEAR_MODELS = get_args(WearModel)
RATING_MW = 1.5
DEFAULT = plant_of(limits_of("default"))
PAPER = plant_of(limits_of("ie_paper"))
TIGHT = plant_of(limits_of("default", {"grid": {"poi_power_limit_mw": 8.0, "max_grid_import_mw": 0.5}}))
NO_IMPORT = plant_of(limits_of("default", {"grid": {"poi_power_limit_mw": 8.0, "allow_grid_import": False}}))
PAPER_TIGHT = plant_of(limits_of("ie_paper", {"grid": {"poi_power_limit_mw": 3.0, "max_grid_import_mw": 0.2}}))

PLANTS = {
    "default": (DEFAULT, False, False),
    "default-tight": (TIGHT, False, True),
    "default-no-import": (NO_IMPORT, False, True),
    "ie_paper": (PAPER, True, False),
    "ie_paper-tight": (PAPER_TIGHT, True, True),
}
"""Plant, whether PV has a fixed price, whether export and import limits both bind."""


@cache
def day_runner(rules: Rules):
    """Compiled `(plant, command [24], pv, price, reserve) -> (objective, hours, soc)`."""
    return jax.jit(lambda plant, *columns: simulate_day(plant, rules, *columns))


# Step traces and the idle column of the test vectors

TRACE_SHARES = np.array([-1, -0.5, -1, 0.8, 1, 1, 0, -0.25] + [0] * 16)


class Trace(NamedTuple):
    soc: tuple[float, ...]
    power_mw: tuple[float, ...]
    reserve_mw: tuple[float, ...]


CORRECTED = Trace(
    soc=(0.9, 0.9, 0.9, 0.546539, 0.104713, 0.1, 0.1, 0.203929),
    power_mw=(-1.443299, 0, 0, 1.2, 1.5, 0.016, 0, -0.375),
    reserve_mw=(1.5, 1.5, 1.5, 0.3, 0, 0, 0, 0.352838),
)
LEGACY = Trace(
    soc=(0.888, 0.89964, 0.899989, 0.546528, 0.104702, 0.1, 0.1, 0.203929),
    power_mw=(-1.4, -0.042, -0.00126, 1.2, 1.5, 0.016457, 0, -0.375),
    reserve_mw=(1.4, 1.5, 1.5, 0.3, 0, 0.016457, 0, 0),
)
TRACES = {
    "corrected-bucket": (Rules(), CORRECTED, 64.4945, 25287.2287),
    "corrected-linear": (Rules(wear="linear"), CORRECTED, 110.2087, 25241.5146),
    "legacy-bucket": (Rules(legacy_accounting=True), LEGACY, None, 25287.1373),
}


def run_trace(rules, dtype):
    price, reserve, pv = (column[0] for column in market_of("NL 2022-03-15"))
    columns = (TRACE_SHARES * RATING_MW, pv, price, reserve)
    return day_runner(rules)(DEFAULT, *(np.asarray(c, dtype) for c in columns))


@pytest.mark.parametrize("name", TRACES)
def test_step_trace_in_float64(name, x64):
    rules, trace, wear_eur, profit_eur = TRACES[name]
    objective, hours, soc = run_trace(rules, np.float64)
    np.testing.assert_allclose(soc[:8], trace.soc, atol=1e-6)
    np.testing.assert_allclose(hours.power_mw[:8], trace.power_mw, atol=1e-6)
    np.testing.assert_allclose(hours.reserve_mw[:8], trace.reserve_mw, atol=1e-6)
    np.testing.assert_allclose(hours.power_mw[8:], 0)
    np.testing.assert_allclose(objective, profit_eur, atol=1e-4)
    if wear_eur is not None:
        np.testing.assert_allclose(np.sum(hours.wear_eur), wear_eur, atol=1e-4)


@pytest.mark.parametrize("name", TRACES)
def test_step_trace_in_float32(name):
    rules, trace, _, profit_eur = TRACES[name]
    objective, _, soc = run_trace(rules, np.float32)
    assert soc.dtype == jnp.float32
    np.testing.assert_allclose(soc[:8], trace.soc, atol=2e-6)
    np.testing.assert_allclose(objective, profit_eur, atol=0.05)


def test_idle_days(x64):
    """Nothing wears, nothing moves, and the profit is the idle column of the known days."""
    for day, idle_eur in sorted({(known.day, known.idle) for known in KNOWN}):
        price, reserve, pv = (column[0] for column in market_of(day))
        objective, hours, soc = day_runner(Rules())(DEFAULT, np.zeros(HOURS), pv, price, reserve)
        np.testing.assert_allclose(objective, idle_eur, atol=NEAR_EUR, err_msg=day)
        np.testing.assert_array_equal(hours.wear_eur, 0)
        np.testing.assert_array_equal(soc, 0.5)


# Identities on random days


BATCH = 5000


class RandomDays(NamedTuple):
    command_mw: jax.Array
    pv_mw: jax.Array
    price_eur_per_mwh: jax.Array
    reserve_eur_per_mw_h: jax.Array
    soc_start: jax.Array


def random_days(plant, count: int, seed: int = 0) -> RandomDays:
    """Days with negative prices, PV beyond every connection limit, and commands beyond the rating or exactly zero."""
    rng = np.random.default_rng(seed)
    command = rng.uniform(-1.3, 1.3, (count, HOURS)) * plant.power_mw * (rng.random((count, HOURS)) < 0.8)
    sun = np.clip(np.sin((np.arange(HOURS) - 5) * np.pi / 14), 0, None) * rng.uniform(0, 1, (count, 1))
    price = rng.normal(60, 40, (count, 1)) + rng.normal(0, 60, (count, HOURS))
    return RandomDays(
        command,
        plant.pv_ac_mw * sun,
        price,
        rng.uniform(0, 35, (count, HOURS)) * (rng.random((count, 1)) < 0.9),
        rng.uniform(plant.soc_min, plant.soc_max, count),
    )


@cache
def hours_of_days(**options):
    """Compiled `(plant, RandomDays) -> {wear: (battery before, after, hour)}`, leaves [days, 24].

    All wear models in one program: compiling them one by one takes three times as long.
    """

    def one(rules, plant, day: RandomDays):
        def body(battery, inputs):
            hour, *columns = inputs
            after, outcome = run_hour(plant, rules, battery, hour, *columns)
            return after, (battery, after, outcome)

        start = fresh_battery(plant, day.soc_start)
        return jax.lax.scan(body, start, (jnp.arange(HOURS), *day[:4]))[1]

    @jax.jit
    def run(plant, days):
        every = {wear: Rules(wear=wear, **options) for wear in WEAR_MODELS}
        return {wear: jax.vmap(lambda day, r=rules: one(r, plant, day))(days) for wear, rules in every.items()}

    return lambda plant, days: jax.tree.map(np.asarray, run(plant, days))


def check_identities(plant, wear: WearModel, days: RandomDays, before: Battery, after: Battery, hour: Hour, pv_price):
    """Every balance of energy and money, exact up to round-off."""
    equal = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)  # noqa: E731
    tiny = 1e-9
    command, pv_raw, price, reserve_price, soc_start = days
    x, pv, export = hour.power_mw, hour.pv_mw, hour.pv_mw + hour.power_mw

    equal(hour.pv_grid_mw + hour.bess_grid_mw, export)
    assert (hour.pv_grid_mw >= -tiny).all()
    assert (export <= plant.export_limit_mw + tiny).all()
    assert (export >= -plant.import_limit_mw - tiny).all()
    assert (np.abs(x) <= np.minimum(np.abs(command), plant.power_mw) + tiny).all()
    assert (x * command >= 0).all()
    assert (pv >= 0).all()
    assert (pv <= pv_raw + tiny).all()
    equal(export[pv < pv_raw - tiny], plant.export_limit_mw)
    equal(hour.clipped_mw, np.abs(command - x))

    cell_mwh = np.where(x > 0, x / plant.discharge_efficiency, x * plant.charge_efficiency)
    equal(before.soc - after.soc, cell_mwh / plant.energy_mwh)
    equal(cell_mwh.sum(1), (soc_start - after.soc[:, -1]) * plant.energy_mwh)
    assert (after.soc >= plant.soc_min).all()
    assert (after.soc <= plant.soc_max).all()
    equal(after.segments_mwh.sum(-1), (after.soc - plant.soc_min) * plant.energy_mwh)
    width = (plant.soc_max - plant.soc_min) * plant.energy_mwh / SEGMENTS
    assert (after.segments_mwh >= -tiny).all()
    assert (after.segments_mwh <= width + tiny).all()

    r, held = hour.reserve_mw, plant.discharge_efficiency * (after.soc - plant.soc_min) * plant.energy_mwh
    offer = np.minimum(np.minimum(plant.power_mw - np.maximum(x, 0), held), plant.export_limit_mw - export)
    equal(r, np.maximum(offer, 0))
    assert (r + export <= plant.export_limit_mw + tiny).all()

    equal(hour.revenue_pv_eur, hour.pv_grid_mw * pv_price)
    equal(hour.revenue_energy_eur, hour.bess_grid_mw * price)
    equal(hour.revenue_reserve_eur, r * reserve_price)
    revenue = hour.revenue_pv_eur + hour.revenue_energy_eur + hour.revenue_reserve_eur
    equal(hour.profit_eur, revenue - hour.wear_eur)
    assert (hour.wear_eur >= -tiny).all()
    equal(hour.wear_eur[x == 0], 0)
    assert (hour.wear_eur.sum() > 0) == (wear != "none")


@pytest.mark.parametrize("plant", PLANTS)
def test_identities_on_random_days(plant, x64):
    """5000 days per plant, at least 10,000 per preset, for every wear model."""
    plant, paper, binds = PLANTS[plant]
    days = random_days(plant, BATCH)
    pv_price = plant.ppa_price_eur_per_mwh if paper else days.price_eur_per_mwh
    for wear, (before, after, hour) in hours_of_days(fixed_pv_price=paper)(plant, days).items():
        check_identities(plant, wear, days, before, after, hour, pv_price)
        export, curtailed = hour.pv_mw + hour.power_mw, hour.pv_mw < days.pv_mw - 1e-9
        import_binds = (export <= 1e-9 - plant.import_limit_mw) & (hour.power_mw > days.command_mw + 1e-9)
        assert binds == (bool(curtailed.any() and import_binds.any())), wear


@pytest.mark.parametrize("plant", ["default", "default-no-import", "ie_paper-tight"])
def test_plain_reference_gives_the_same_hours(plant, plain_plant, x64):
    """An independent implementation in plain Python, hour by hour, also where the connection binds."""
    plant, paper, _ = PLANTS[plant]
    days = random_days(plant, BATCH, seed=7)
    ppa_price = plant.ppa_price_eur_per_mwh if paper else None
    for wear, (_, after, hours) in hours_of_days(fixed_pv_price=paper)(plant, days).items():
        got = np.stack(
            [hours.power_mw, hours.pv_mw, hours.reserve_mw, hours.wear_eur, hours.profit_eur, after.soc], axis=-1
        )
        for d in range(20):
            battery = plain_plant.PlainBattery(plant, float(days.soc_start[d]))
            for h in range(HOURS):
                columns = (float(column[d, h]) for column in days[:4])
                plain = plain_plant.plain_hour(plant, wear, battery, h, *columns, ppa_price)
                np.testing.assert_allclose(got[d, h], [*plain, battery.soc], rtol=0, atol=1e-8, err_msg=wear)


def test_segment_costs_are_those_of_the_specification():
    costs = (8.75, 21.175, 31.51, 40.906, 49.702, 58.06, 66.078, 73.82)
    np.testing.assert_allclose(DEFAULT.segment_cost_eur_per_mwh, costs, rtol=2e-4)
    np.testing.assert_allclose(DEFAULT.linear_cost_eur_per_mwh, 24.3056, rtol=1e-5)
    np.testing.assert_allclose(plant_of(limits_of("default"), legacy_linear_wear=True).linear_cost_eur_per_mwh, 48.6111,
                               rtol=1e-5)  # fmt: skip
    np.testing.assert_allclose(DEFAULT.cycle_cost_eur_per_mwh, 43.75)


def test_bucket_factor_at_its_edges(x64):
    depth = jnp.array([0.0, 0.1, 0.1001, 0.3, 0.35, 0.4, 0.5, 0.55, 0.6, 0.7, 0.71, 0.8])
    expected = [0.02, 0.02, 0.10, 0.10, 0.40, 0.40, 0.50, 0.50, 0.75, 0.75, 1.00, 1.00]
    np.testing.assert_allclose(physics.bucket_factor(depth), expected, atol=1e-12)


def test_curve_factor_is_one_at_the_reference_depth(x64):
    depth = jnp.array([0.0, 0.1, 0.4, 0.8])
    np.testing.assert_allclose(physics.curve_factor(DEFAULT, depth), [0, 8**-0.774, 2**-0.774, 1], rtol=1e-9)


def test_full_cycle_costs_the_same_in_the_curve_based_models(x64):
    """One cycle over the window costs the segments' sum; the curve model pays half of the full rate per direction."""
    full = physics.segment_width_mwh(DEFAULT) * sum(DEFAULT.segment_cost_eur_per_mwh)
    np.testing.assert_allclose(full, 175_000 * 3.5 / 5000, rtol=1e-12)


# Single rules by hand


def one_hour(rules: Rules, command_mw, pv_mw=0.0, price=100.0, reserve_price=10.0, soc=0.5, plant=DEFAULT, share=1.0):
    battery = fresh_battery(plant, jnp.asarray(soc, float))
    return run_hour(plant, rules, battery, 5, command_mw, jnp.asarray(pv_mw, float), price, reserve_price, share)


@pytest.mark.usefixtures("x64")
class TestReserve:
    def test_offer_is_what_remains_after_the_hour(self):
        _, hour = one_hour(Rules(), 0.6)
        np.testing.assert_allclose(hour.reserve_mw, 0.97 * 0.4 * 3.5 - 0.6)
        np.testing.assert_allclose(hour.revenue_reserve_eur, 7.58)

    def test_none_offers_nothing(self):
        _, hour = one_hour(Rules(reserve="none", reserve_down=True), 0.6)
        assert hour.reserve_mw == hour.reserve_down_mw == hour.revenue_reserve_eur == 0

    def test_action_offers_a_share(self):
        _, hour = one_hour(Rules(reserve="action"), 0.6, share=0.25)
        np.testing.assert_allclose(hour.reserve_mw, 0.758 / 4)

    def test_down_is_limited_by_rating_and_room(self):
        _, idle = one_hour(Rules(reserve_down=True), 0.0)
        np.testing.assert_allclose(idle.reserve_down_mw, 0.4 * 3.5 / 0.97)
        _, charging = one_hour(Rules(reserve_down=True), -1.0)
        np.testing.assert_allclose(charging.reserve_down_mw, 0.4 * 3.5 / 0.97 - 1.0)
        _, discharging = one_hour(Rules(reserve_down=True), 1.0)
        np.testing.assert_allclose(discharging.reserve_down_mw, 1.5)
        np.testing.assert_allclose(idle.revenue_reserve_eur, 10 * (1.358 + 1.4 / 0.97))

    def test_activation_delivers_and_wears(self):
        battery, hour = one_hour(Rules(reserve_activation=0.5, wear="linear"), 0.6)
        delivered = 0.5 * 0.758
        np.testing.assert_allclose(battery.soc, 0.5 - (0.6 + delivered) / (0.97 * 3.5))
        np.testing.assert_allclose(hour.revenue_energy_eur, 100 * (0.6 + delivered))
        np.testing.assert_allclose(hour.wear_eur, (0.6 + delivered) * 175_000 / (0.6 * 6000) / 2)

    def test_activation_keeps_the_running_depth_at_noon(self):
        """The delivered energy belongs to the hour: the depth counts from the content before it."""
        start = fresh_battery(DEFAULT, jnp.asarray(0.5))
        after, _ = run_hour(DEFAULT, Rules(reserve_activation=0.5), start, 12, 0.6, 0.0, 100.0, 10.0)
        np.testing.assert_allclose(after.soc_high, 0.5)

    def test_headroom_of_the_connection(self):
        _, hour = one_hour(Rules(), 0.0, pv_mw=7.4, plant=TIGHT)
        np.testing.assert_allclose(hour.reserve_mw, 0.6)


@pytest.mark.usefixtures("x64")
class TestCurtailment:
    def test_negative_price_switches_pv_off_and_charging_is_paid_import(self):
        _, hour = one_hour(Rules(curtail="negative_price"), -1.0, pv_mw=5.0, price=-20.0)
        assert hour.pv_mw == hour.pv_grid_mw == 0
        np.testing.assert_allclose(hour.revenue_energy_eur, 20.0)
        _, hour = one_hour(Rules(curtail="negative_price"), -1.0, pv_mw=5.0, price=20.0)
        np.testing.assert_allclose(hour.revenue_pv_eur, 80.0)

    def test_poi_only_sells_at_negative_prices_and_cuts_what_does_not_fit(self):
        _, hour = one_hour(Rules(), 0.0, pv_mw=5.0, price=-20.0)
        np.testing.assert_allclose(hour.revenue_pv_eur, -100.0)
        _, hour = one_hour(Rules(), -1.0, pv_mw=12.0, plant=TIGHT)
        np.testing.assert_allclose([hour.pv_mw, hour.pv_grid_mw, hour.bess_grid_mw], [9.0, 8.0, 0.0])

    def test_never_keeps_all_pv(self):
        _, hour = one_hour(Rules(curtail="never"), 1.0, pv_mw=12.0, plant=TIGHT)
        np.testing.assert_allclose([hour.pv_mw, hour.power_mw, hour.reserve_mw], [12.0, 0.0, 0.0])

    def test_discharge_gives_way_before_pv(self):
        _, hour = one_hour(Rules(), 1.5, pv_mw=7.0, plant=TIGHT)
        np.testing.assert_allclose([hour.power_mw, hour.pv_mw], [1.0, 7.0])

    def test_import_limit(self):
        for plant, limit in ((TIGHT, 0.5), (NO_IMPORT, 0.0)):
            _, hour = one_hour(Rules(), -1.5, pv_mw=0.3, plant=plant)
            np.testing.assert_allclose([hour.power_mw, hour.bess_grid_mw], [-0.3 - limit, -limit])


@pytest.mark.usefixtures("x64")
class TestTerminal:
    price = np.linspace(50, 96, HOURS)

    @pytest.mark.parametrize(
        ("rules", "expected"),
        [
            (Rules(terminal="free"), 0.0),
            (Rules(terminal="carry"), 0.0),
            (Rules(terminal="value"), 0.97 * 73 * -0.2 * 3.5),
            (Rules(terminal="penalty", terminal_penalty_eur=300.0), -60.0),
        ],
    )
    def test_term(self, rules, expected):
        term = physics.terminal_term_eur(DEFAULT, rules, self.price, 0.5, jnp.asarray(0.3))
        np.testing.assert_allclose(term, expected)

    def test_objective_is_profit_plus_term(self):
        command = np.full(HOURS, 0.01)
        columns = (command, np.zeros(HOURS), self.price, np.zeros(HOURS))
        objective, hours, soc = day_runner(Rules(terminal="value"))(DEFAULT, *columns)
        term = physics.terminal_term_eur(DEFAULT, Rules(terminal="value"), self.price, 0.5, soc[-1])
        np.testing.assert_allclose(objective, np.sum(hours.profit_eur) + term)


# Batches, precision, gradients


def market_days(market, count: int, seed: int) -> RandomDays:
    """Random commands on random packaged days."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(market), count)
    reserve = np.tile(RESERVE_HOURLY_MEANS, (count, 1))
    command = rng.uniform(-RATING_MW, RATING_MW, (count, HOURS))
    return RandomDays(command, market.pv_mw[rows], market.price_eur_per_mwh[rows], reserve, np.full(count, 0.5))


def test_vmapped_equals_looped(market, x64):
    days = market_days(market, BATCH, 1)
    _, after, hour = hours_of_days(fixed_pv_price=False)(DEFAULT, days)["nonlinear"]
    for i in range(5):
        alone, hours, soc = day_runner(Rules())(DEFAULT, *(c[i] for c in days[:4]))
        np.testing.assert_allclose(hour.profit_eur[i].sum(), alone, rtol=1e-12)
        np.testing.assert_allclose(hour.wear_eur[i], hours.wear_eur, rtol=1e-12)
        np.testing.assert_allclose(after.soc[i], soc, rtol=1e-12)


def test_float32_day_profit(market):
    """Within 0.05 EUR a day of float64, in days of up to tens of thousands of EUR, for every wear model."""
    days = market_days(market, BATCH, 2)
    single = hours_of_days(fixed_pv_price=False)(DEFAULT, RandomDays(*(c.astype(np.float32) for c in days)))
    with jax.enable_x64(True):
        double = hours_of_days(fixed_pv_price=False)(DEFAULT, days)
    for wear in WEAR_MODELS:
        profit = single[wear][2].profit_eur
        assert profit.dtype == np.float32
        np.testing.assert_allclose(profit.sum(1), double[wear][2].profit_eur.sum(1), rtol=0, atol=0.05, err_msg=wear)


GRADIENT_BATCH = 6 * (1 + 2 * HOURS)
"""One shape for both gradient tests: six days, each with every action moved up and down."""


GRADIENT_RULES = {**{wear: Rules(wear=wear, terminal="value") for wear in WEAR_MODELS},
                  "legacy": Rules(terminal="value", legacy_accounting=True)}  # fmt: skip


@jax.jit
def value_and_gradient(plant, *columns):
    """The day's value in units of 200 EUR [B] and its gradient [B, 24] in the 24 shares, for every set of rules."""

    def of(rules):
        def value(share, *columns):
            return simulate_day(plant, rules, share * plant.power_mw, *columns)[0] / 200

        return jax.vmap(jax.value_and_grad(value))(*columns)

    return {name: of(rules) for name, rules in GRADIENT_RULES.items()}


def test_gradient_equals_finite_differences(market, x64):
    """Central differences of every action, where the two one-sided ones agree: elsewhere the value has a kink."""
    step = 1e-5
    moves = step * np.concatenate([np.zeros((1, HOURS)), np.eye(HOURS), -np.eye(HOURS)])
    share = np.random.default_rng(4).uniform(-0.9, 0.9, (6, 1, HOURS))
    columns = (np.repeat(c, len(moves), axis=0) for c in market_days(market, 6, 3)[1:4])
    results = value_and_gradient(TIGHT, (share + moves).reshape(GRADIENT_BATCH, HOURS), *columns)
    for name, (value, gradient) in results.items():
        base, up, down = np.split(np.reshape(value, (6, -1)), [1, 1 + HOURS], axis=1)
        exact = np.reshape(gradient, (6, -1, HOURS))[:, 0]
        smooth = np.abs((up - base) - (base - down)) < 1e-3 * step
        assert smooth.mean() > 0.8, name
        np.testing.assert_allclose(exact[smooth], ((up - down) / (2 * step))[smooth], atol=1e-3, err_msg=name)
        assert np.abs(exact[smooth]).max() > 0.1, name


def test_gradient_is_finite_at_every_bound(market, x64):
    """Zero actions, full rate, empty and full battery, limits met exactly; under vmap of a scan."""
    patterns = [np.full(HOURS, v) for v in (0.0, 1.0, -1.0, 0.5)]
    patterns += [np.tile([1.0, -1.0], HOURS // 2), np.tile([0.0, 1.0, -1.0], HOURS // 3), TRACE_SHARES]
    _, pv, price, reserve, _ = market_days(market, GRADIENT_BATCH, 5)
    pv = np.where(np.arange(HOURS) % 3 == 0, TIGHT.export_limit_mw, pv)
    results = value_and_gradient(TIGHT, np.resize(patterns, (GRADIENT_BATCH, HOURS)), pv, price, reserve)
    for name, (value, gradient) in results.items():
        assert np.isfinite(value).all(), name
        assert np.isfinite(gradient).all(), name


# The peak-window action


def test_peak_windows_by_hand():
    price = np.full(HOURS, 50.0)
    price[[0, 9, 23]] = 80.0, 70.0, 60.0
    assert np.flatnonzero(peak_window(price)).tolist() == [0, 1, 22, 23]
    assert np.flatnonzero(peak_window(price, 0)).tolist() == [0, 23]
    price[[0, 11, 12]] = 50.0, 90.0, 90.0  # windows stay in their own half of the day
    assert np.flatnonzero(peak_window(price)).tolist() == [10, 11, 12, 13]
    assert np.flatnonzero(peak_window(np.full(HOURS, 5.0), 2)).tolist() == [0, 1, 2, 12, 13, 14]
