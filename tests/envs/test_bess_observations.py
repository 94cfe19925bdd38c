"""What the policy sees: every feature on a hand-checked day, no look into the future, relative layouts, the preview."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

import envs_jax
from envs_jax.bess import observations, physics
from envs_jax.bess.config import BessConfig
from envs_jax.bess.days import Augmentation, Forecast, augment_and_forecast, day_from
from envs_jax.bess.observations import BASE_FEATURES, PARITY_RANGES, Ranges
from envs_jax.bess.params import HOURS, Rules, limits_of, plant_of

PLANT = plant_of(limits_of("default"))
RELATIVE = {"action_mode": "signed", "degradation_model": "segment", "terminal": "value", "content_value": "hourly",
            "reward_baseline": "idle", "reward_scale": "per_day"}  # fmt: skip

# A day checked by hand: peaks at 7 and 19, so windows 6-8 and 18-20; cheapest before and between: 1-3 and 13-15.
PRICE = np.array([30, 20, 10, 15, 25, 40, 60, 90, 70, 50, 45, 42, 41, 35, 33, 36, 44, 55, 80, 120, 100, 65, 52, 48.0])
RESERVE = np.arange(HOURS) / 2 + 0.25
PV = np.clip(15 - (np.arange(HOURS) - 12.0) ** 2, 0, None)


@pytest.fixture(scope="module")
def ten_days():
    """An environment of ten summer days whose actions can be previewed."""
    return envs_jax.make("bess", obs="rel", **RELATIVE, train_dates="2022-07-01..2022-07-10")


@pytest.fixture(scope="module")
def table(ten_days):
    return ten_days.default_params.table


def hand_day(price=PRICE, reserve=RESERVE, pv=PV):
    columns = [jnp.asarray(x, jnp.float32) for x in (price, reserve, pv)]
    return day_from(*columns, *columns, weekday=jnp.asarray(4), season=jnp.asarray(2), peak_half_width=1)


def battery(soc, high=None, low=None) -> physics.Battery:
    fresh = physics.fresh_battery(PLANT, jnp.asarray(soc, jnp.float32))
    return fresh.replace(soc_high=jnp.asarray(high or soc, jnp.float32), soc_low=jnp.asarray(low or soc, jnp.float32))


def raw_features(hour, day=None, content=None, soc_prev=0.5) -> dict[str, float]:
    day = hand_day() if day is None else day
    view = observations.view_at(day, hour, False)
    values = observations.base_features(day, view, hour, content or battery(0.5), jnp.asarray(soc_prev))
    return dict(zip(BASE_FEATURES, np.asarray(values).tolist(), strict=True))


# Layouts base17, base20 and curve

OF_THE_DAY = {
    "weekday": 4, "season": 2, "price_em_max_morning": 90, "price_em_max_evening": 120, "k_em_max_morning": 7,
    "k_em_max_evening": 19, "price_em_min": 10, "k_em_min": 2, "price_as_min": 0.25, "price_as_max": 11.75,
}  # fmt: skip


@pytest.mark.parametrize(
    ("hour", "expected"),
    [
        (1, {"price_em": 20, "price_as": 0.75, "p_res_total": 0, "time_to_peak": 6, "is_peak": -1, "is_cheap": 1}),
        (2, {"price_em": 10, "price_as": 1.25, "p_res_total": 0, "time_to_peak": 5, "is_peak": -1, "is_cheap": 1}),
        (6, {"price_em": 60, "price_as": 3.25, "p_res_total": 0, "time_to_peak": 0, "is_peak": 1, "is_cheap": -1}),
        (9, {"price_em": 50, "price_as": 4.75, "p_res_total": 6, "time_to_peak": 10, "is_peak": -1, "is_cheap": -1}),
        (14, {"price_em": 33, "price_as": 7.25, "p_res_total": 11, "time_to_peak": 5, "is_peak": -1, "is_cheap": 1}),
        (20, {"price_em": 100, "price_as": 10.25, "p_res_total": 0, "time_to_peak": 0, "is_peak": 1, "is_cheap": -1}),
        (21, {"price_em": 65, "price_as": 10.75, "p_res_total": 0, "time_to_peak": 21, "is_peak": -1, "is_cheap": -1}),
    ],
)
def test_every_base_feature_by_hand(hour, expected):
    got = raw_features(hour, content=battery(0.6, high=0.7, low=0.45), soc_prev=0.55)
    expected = {"k": hour, "soc": 0.6, "dod": 0.25, "soc_prev": 0.55, **OF_THE_DAY, **expected}
    assert got == pytest.approx(expected)


def test_cheap_hours_and_windows_over_the_day():
    flags = {name: [raw_features(h)[name] for h in range(HOURS)] for name in ("is_cheap", "is_peak", "time_to_peak")}
    assert np.flatnonzero(np.equal(flags["is_cheap"], 1)).tolist() == [1, 2, 3, 13, 14, 15]
    assert np.flatnonzero(np.equal(flags["is_peak"], 1)).tolist() == [6, 7, 8, 18, 19, 20]
    to_peak = [7, 6, 5, 4, 3, 2, 0, 0, 0, 10, 9, 8, 7, 6, 5, 4, 3, 2, 0, 0, 0, 21, 21, 21]
    assert flags["time_to_peak"] == to_peak


def test_depth_restarts_at_noon_and_midnight():
    used = battery(0.6, high=0.9, low=0.3)
    depths = [raw_features(h, content=used)["dod"] for h in (11, 12, 13, 23, 0)]
    assert depths == pytest.approx([0.6, 0, 0.6, 0.6, 0])


def observe(layout, hour, day=None, content=None, ranges=None, connection=False, plant=PLANT, soc_prev=0.5):
    ranges = observations.parity_ranges() if ranges is None else ranges
    content = content or battery(0.5)
    day = hand_day() if day is None else day
    return np.asarray(
        observations.observe(layout, connection, False, plant, ranges, day, hour, content, jnp.asarray(soc_prev))
    )


def test_parity_normalisation_and_its_clip():
    day = hand_day(price=np.where(np.arange(HOURS) == 19, 2000, PRICE))
    content = battery(0.6, high=0.7, low=0.45)
    obs = dict(zip(BASE_FEATURES, observe("base20", 12, day, content, soc_prev=0.55), strict=True))
    raw = raw_features(12, day, content, 0.55)
    for name, (low, high) in PARITY_RANGES.items():
        assert obs[name] == pytest.approx(np.clip(2 * (raw[name] - low) / (high - low) - 1, -1.5, 1.5), abs=1e-6), name
    assert obs["price_em"] == pytest.approx(2 * (41 + 34.53) / (394.32 + 34.53) - 1)
    assert obs["price_em_max_evening"] == 1.5
    assert obs["soc"] == pytest.approx(0.2)
    assert obs["soc_prev"] == pytest.approx(0.1)
    assert obs["dod"] == -1
    assert obs["k_em_min"] == pytest.approx(2 * (2 - 1) / 22 - 1)
    assert (obs["is_peak"], obs["is_cheap"]) == (-1, -1)


def test_fitted_ranges_leave_the_fixed_ones_alone(ten_days):
    table, ranges = ten_days.default_params.table, ten_days.default_params.ranges
    low, high = (dict(zip(BASE_FEATURES, np.asarray(x).tolist(), strict=True)) for x in (ranges.low, ranges.high))
    price = np.asarray(table.price_eur_per_mwh)
    assert (low["price_em"], high["price_em"]) == (price.min(), price.max())
    assert (low["price_em_max_morning"], high["price_em_max_morning"]) == (
        price[:, :12].max(1).min(),
        price[:, :12].max(),
    )
    assert (low["k_em_min"], high["k_em_min"]) == (price.argmin(1).min(), price.argmin(1).max())
    for name in observations.FIXED_RANGES:
        assert (low[name], high[name]) == PARITY_RANGES[name]
    # The reserve price is the same every day, so its daily minimum has no range: it must not divide by zero.
    assert high["price_as_min"] > low["price_as_min"]


def test_curve_is_base20_and_the_whole_day():
    obs, base = observe("curve", 9), observe("base20", 9)
    assert obs.shape == (20 + 3 * HOURS,)
    np.testing.assert_array_equal(obs[:20], base)
    np.testing.assert_array_equal(observe("base17", 9), base[:17])
    for values, name, part in ((PRICE, "price_em", 0), (PV, "p_res_total", 1), (RESERVE, "price_as", 2)):
        low, high = PARITY_RANGES[name]
        expected = np.clip(2 * (values - low) / (high - low) - 1, -1.5, 1.5)
        np.testing.assert_allclose(obs[20 + part * HOURS :][:HOURS], expected, atol=1e-6)


def test_observation_after_the_last_hour_is_that_of_hour_23():
    for layout in ("base20", "curve", "rel", "rank", "value"):
        np.testing.assert_array_equal(observe(layout, 24), observe(layout, 23))


# Relative layouts


def relative_reference(hour: int, soc: float) -> np.ndarray:
    """The 85 values of `rel`, term by term."""
    deviation, mean = PRICE.std(), PRICE.mean()
    left = HOURS - hour
    pad = np.zeros(hour)
    segments = np.clip((soc - 0.1) * 3.5 - 0.35 * np.arange(8), 0, 0.35) / 0.35
    return np.concatenate([
        [(PRICE[hour] - mean) / deviation],
        (PRICE[hour:] - PRICE[hour]) / deviation, pad,
        np.ones(left), pad,
        RESERVE[hour:] / deviation, pad,
        [np.log(deviation / 50), 30 / deviation, mean / deviation, 2 * soc - 1],
        segments,
    ])  # fmt: skip


@pytest.mark.parametrize("hour", [0, 7, 23])
def test_relative_features_term_by_term(hour):
    """Differences, validity and reserve are zero after midnight."""
    obs = observe("rel", hour, content=battery(0.63))
    np.testing.assert_allclose(obs, relative_reference(hour, 0.63), atol=2e-6)


def test_rank_adds_extremes_and_counts():
    """At hour 17 (55 EUR): 80, 120, 100, 65 are dearer, 52 and 48 cheaper, and seven hours are left."""
    obs = observe("rank", 17)
    np.testing.assert_array_equal(obs[:85], observe("rel", 17))
    deviation = PRICE.std()
    expected = [65 / deviation, -7 / deviation, 4 / 7, 2 / 7, 4 / 24, 2 / 24]
    np.testing.assert_allclose(obs[85:], expected, atol=2e-6)


@pytest.mark.parametrize("hour", [3, 23])
def test_value_shows_the_mean_price_after_midnight_and_the_best_so_far(hour):
    obs, rank = observe("value", hour), observe("rank", hour)
    z = (PRICE - PRICE.mean()) / PRICE.std()
    ahead = np.concatenate([z[hour:], np.zeros(hour)]) - z[hour]
    assert obs.shape == (observations.size("value", False),) == (139,)
    np.testing.assert_allclose(obs[1:25], ahead, atol=2e-6)
    np.testing.assert_array_equal(obs[25:85], rank[25:85])
    np.testing.assert_allclose(obs[85:87], [ahead.max(), ahead.min()], atol=2e-6)
    np.testing.assert_array_equal(obs[87:91], rank[87:91])
    np.testing.assert_allclose(obs[91:115], np.maximum.accumulate(ahead), atol=2e-6)
    np.testing.assert_allclose(obs[115:], np.minimum.accumulate(ahead), atol=2e-6)


def test_value_is_refused_where_nothing_is_paid_for_content():
    with pytest.raises(ValidationError, match="obs value shows what content is worth after midnight"):
        BessConfig(obs="value", terminal="free")


def test_relative_state_inverts_the_features():
    for hour, soc in ((0, 0.5), (13, 0.1), (22, 0.87)):
        known = observations.relative_state(PLANT, observe("rel", hour, content=battery(soc)))
        np.testing.assert_allclose(known.price, PRICE[hour], rtol=1e-5)
        np.testing.assert_allclose(known.mean, PRICE.mean(), rtol=1e-5)
        np.testing.assert_allclose(known.deviation, PRICE.std(), rtol=1e-5)
        np.testing.assert_allclose(known.reserve, RESERVE[hour], rtol=1e-5)
        np.testing.assert_allclose(known.battery.soc, soc, atol=1e-6)
        np.testing.assert_allclose(known.battery.segments_mwh, battery(soc).segments_mwh, atol=1e-6)


def test_a_flat_day_stays_finite():
    day = hand_day(price=np.full(HOURS, 42.0))
    for layout in ("base20", "curve", "rel", "rank", "value"):
        assert np.isfinite(observe(layout, 5, day)).all()


def test_connection_features_are_the_coming_room_and_supply():
    tight = plant_of(limits_of("default", {"grid": {"poi_power_limit_mw": 8.0, "max_grid_import_mw": 0.5}}))
    obs = observe("rel", 10, connection=True, plant=tight)
    assert obs.shape == (observations.size("rel", True),) == (85 + 48,)
    room, supply = obs[85 : 85 + HOURS], obs[85 + HOURS :]
    np.testing.assert_allclose(room[:14], np.clip((8 - PV[10:]) / 1.5, 0, 1), atol=1e-6)
    np.testing.assert_allclose(supply[:14], np.clip((0.5 + PV[10:]) / 1.5, 0, 1), atol=1e-6)
    assert not room[14:].any()
    assert not supply[14:].any()


# What is known when: changing the future must not change the observation

FORECAST_LAYOUTS = ("base20", "curve", "forecast", "rel", "rank", "value")
CHANGED_HOUR = 15


def observations_over_the_day(layout: str, table, forecast: Forecast, index: int) -> np.ndarray:
    """[24, size]: what is observed at every hour of day `index` by a battery at rest."""
    ranges = observations.parity_ranges()
    day = augment_and_forecast(jax.random.key(0), table, index, Rules(), Augmentation(), forecast)
    reveal = forecast.model != "none" and forecast.commit == "hourly"
    at = lambda hour: observations.observe(  # noqa: E731
        layout, True, reveal, PLANT, ranges, day, hour, battery(0.5), jnp.asarray(0.5)
    )
    return np.asarray(jax.vmap(at)(jnp.arange(HOURS)))


def changed_table(table, index: int):
    """The same days with other actual values from `CHANGED_HOUR` on, on day `index` only."""
    later = (jnp.arange(HOURS) >= CHANGED_HOUR) * (jnp.arange(table.weekday.shape[0]) == index)[:, None]
    change = {
        name: getattr(table, name) + later * amount
        for name, amount in (("price_eur_per_mwh", 300.0), ("reserve_eur_per_mw_h", 20.0), ("pv_mw", 4.0))
    }
    return dataclasses.replace(table, **change)


@pytest.mark.parametrize("layout", FORECAST_LAYOUTS)
@pytest.mark.parametrize("index", [0, 4])
def test_a_forecast_knows_the_present_and_not_the_future(layout, index, table):
    """Also on the first day of a split, which has no yesterday."""
    forecast = Forecast(model="persistence")
    before, after = (
        observations_over_the_day(layout, days, forecast, index) for days in (table, changed_table(table, index))
    )
    np.testing.assert_array_equal(before[:CHANGED_HOUR], after[:CHANGED_HOUR])
    assert (before[CHANGED_HOUR] != after[CHANGED_HOUR]).any(), "the present hour is known when it comes"


@pytest.mark.parametrize("layout", FORECAST_LAYOUTS)
def test_a_day_ahead_commitment_never_sees_actual_values(layout, table):
    forecast = Forecast(model="persistence", commit="day_ahead")
    before, after = (observations_over_the_day(layout, days, forecast, 4) for days in (table, changed_table(table, 4)))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("layout", FORECAST_LAYOUTS)
def test_without_a_forecast_the_whole_day_is_known(layout, table):
    """The market clears the day before: a change of hour 15 shows at hour 0 (base20: through the day's extremes)."""
    before, after = (
        observations_over_the_day(layout, days, Forecast(), 4) for days in (table, changed_table(table, 4))
    )
    assert (before[0] != after[0]).any()


def test_persistence_is_yesterday_and_error_model_has_its_spread(table):
    rules, none = Rules(), Augmentation()
    day = augment_and_forecast(jax.random.key(0), table, 4, rules, none, Forecast(model="persistence"))
    np.testing.assert_array_equal(day.seen_price, table.price_eur_per_mwh[3])
    np.testing.assert_array_equal(day.seen_pv, table.pv_mw[3])
    np.testing.assert_array_equal(day.price_eur_per_mwh, table.price_eur_per_mwh[4])

    noisy = Forecast(model="ar1")
    draw = jax.jit(jax.vmap(lambda key: augment_and_forecast(key, table, 4, rules, none, noisy).seen_price))
    error = np.asarray(draw(jax.random.split(jax.random.key(1), 2000))) / table.price_eur_per_mwh[4] - 1
    assert error.std() == pytest.approx(0.15, rel=0.03)
    assert abs(error.mean()) < 0.01
    lagged = np.mean(error[:, 1:] * error[:, :-1]) / error.var()
    assert lagged == pytest.approx(0.8, abs=0.02)


def test_layout_forecast_means_persistence():
    env = envs_jax.make("bess", obs="forecast", train_dates="2022-07-01..2022-07-10")
    obs, state = env.assessment.reset_case(jax.random.key(0), 4, env.default_params)
    np.testing.assert_array_equal(state.day.seen_price, env.default_params.table.price_eur_per_mwh[3])
    assert obs.shape == (92,)


# The preview of an action


PREVIEWED = {
    "segment": {},
    "feasible": {"action_scale": "feasible", "obs": "rank"},
    "linear": {"degradation_model": "linear"},
}


@pytest.fixture(scope="module")
def previewed():
    """Per setting: what `preview` said, and what `step` then did, on 64 days of random actions."""
    envs = {name: envs_jax.make("bess", **{"obs": "rel", **RELATIVE, **extra}) for name, extra in PREVIEWED.items()}
    actions = jax.random.uniform(jax.random.key(0), (64, HOURS, 1), minval=-1.1, maxval=1.1)

    def play(env, params, index, actions):
        def body(carry, action):
            obs, state = carry
            told = env.guidance.preview(obs, jnp.clip(action, -1, 1), params)
            obs, state, reward, _, _, info = env.step_env(jax.random.key(0), state, action, params)
            return (obs, state), (told, reward, info["power_mw"], info["soc"], state.battery.segments_mwh, obs)

        return jax.lax.scan(body, env.assessment.reset_case(jax.random.key(0), index, params), actions)[1]

    @jax.jit
    def run(params):
        return {
            name: jax.vmap(lambda i, a, env=env, p=params[name]: play(env, p, i, a))(jnp.arange(64) * 7, actions)
            for name, env in envs.items()
        }

    return jax.tree.map(np.asarray, run({name: env.default_params for name, env in envs.items()}))


@pytest.mark.parametrize("setting", PREVIEWED)
def test_preview_tells_what_the_step_pays(setting, previewed):
    told, reward, power, soc, segments, obs_next = previewed[setting]
    np.testing.assert_allclose(told[..., 0], reward, atol=2e-4)
    np.testing.assert_allclose(told[..., 1], power / 1.5, atol=1e-5)
    np.testing.assert_allclose(told[..., 2], 2 * soc - 1, atol=1e-5)
    np.testing.assert_allclose(told[..., 3:], segments / 0.35, atol=1e-4)
    np.testing.assert_allclose(told[..., 2:], obs_next[..., 76:85], atol=1e-4)
    assert np.abs(reward).max() > 1


def test_preview_has_a_finite_gradient_everywhere(ten_days):
    """Empty, half full and full battery; both bounds and no action."""
    params = ten_days.default_params
    obs, _ = ten_days.assessment.reset_case(jax.random.key(0), 4, params)

    def reward(action, soc):
        segments = physics.fresh_battery(PLANT, soc).segments_mwh / physics.segment_width_mwh(PLANT)
        seen = jnp.concatenate([obs[:76], (2 * soc - 1)[None], segments])
        return ten_days.guidance.preview(seen, action[None], params)[0]

    actions, socs = jnp.array([-1.0, 0.0, 0.3, 1.0]), jnp.array([0.1, 0.5, 0.9])
    slopes = jax.vmap(jax.vmap(jax.grad(reward), (0, None)), (None, 0))
    gradient = np.asarray(jax.jit(slopes)(actions, socs))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.1


def test_ranges_are_per_feature():
    """A narrower range of one feature moves that feature only."""
    ranges = observations.parity_ranges()
    at = BASE_FEATURES.index("price_em")
    narrow = Ranges(ranges.low, ranges.high.at[at].set(100.0))
    moved = np.flatnonzero(observe("base20", 5) != observe("base20", 5, ranges=narrow))
    assert moved.tolist() == [at]
