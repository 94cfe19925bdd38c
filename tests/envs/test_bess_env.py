"""The `bess` environment as rewards and episodes: action modes, terminal modes, reward options, augmentation, carry.

All variants play the same days and the same random numbers in one compiled program.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax.base import Environment
from envs_jax.bess import calibration, physics
from envs_jax.bess.baselines import BASELINES, PRICE_RULES
from envs_jax.bess.days import Augmentation, Day, Forecast, augment_and_forecast
from envs_jax.bess.optimum import perfect_foresight
from envs_jax.bess.params import HOURS, Rules
from envs_jax.bess.windows import cheap_hours, peak_window

CASES = 48
SIGNED = {"action_mode": "signed", "degradation_model": "segment", "reward_scale": 1.0}
VALUE = {**SIGNED, "terminal": "value"}
VARIANTS: dict[str, dict] = {
    "default": {},
    "single_peak_hours": {"peak_half_width": 0, "reserve": {"mode": "action"}},
    "free": SIGNED,
    "value": VALUE,
    "value_hourly": {**VALUE, "content_value": "hourly"},
    "value_per_day": {**VALUE, "reward_baseline": "idle", "content_value": "hourly", "reward_scale": "per_day"},
    "penalties": {**SIGNED, "terminal": "penalty", "terminal_penalty_eur": 300.0, "clip_penalty_eur_per_mw": 2.5},
    "feasible": {**SIGNED, "action_scale": "feasible"},
}


class Episodes(NamedTuple):
    """Recorded episodes: leaves [cases, hours, ...], `day` (the first one) [cases, 24]."""

    day: Day
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict


def play(env: Environment, params, index, uniform) -> Episodes:
    """One case with actions from uniform numbers [T, 2] stretched over the action box."""
    box = env.action_space(params)
    _, start = env.assessment.reset_case(jax.random.key(0), index, params)

    def body(state, u):
        action = box.low + (box.high - box.low) * u[: box.shape[0]]
        _, after, reward, terminated, truncated, info = env.step_env(jax.random.key(1), state, action, params)
        return after, (action, reward, terminated, truncated, info)

    return Episodes(start.day, *jax.lax.scan(body, start, uniform)[1])


@pytest.fixture(scope="module")
def envs() -> dict[str, Environment]:
    return {name: envs_jax.make("bess", **settings) for name, settings in VARIANTS.items()}


@pytest.fixture(scope="module")
def played(envs) -> dict[str, tuple[Episodes, Episodes]]:
    """Per variant: days with random actions (a tenth at either bound), and the same days without action."""
    rng = np.random.default_rng(0)
    index = np.tile(rng.integers(0, envs["default"].assessment.num_cases(envs["default"].default_params), CASES), 2)
    uniform = np.clip(rng.uniform(-0.1, 1.1, (CASES, HOURS, 2)), 0, 1)

    def numbers(env):
        # Doing nothing is the lower bound in the peak mode and the middle in the signed one.
        idle = np.ones_like(uniform)
        idle[..., 0] = 0.0 if env.action_space(None).low[0] == 0 else 0.5
        return np.concatenate([uniform, idle])

    @jax.jit
    def run(params, numbers):
        return {
            name: jax.vmap(lambda i, u, env=env, p=params[name]: play(env, p, i, u))(index, numbers[name])
            for name, env in envs.items()
        }

    params = {name: env.default_params for name, env in envs.items()}
    days = jax.tree.map(np.asarray, run(params, {name: numbers(env) for name, env in envs.items()}))
    half = lambda episodes, part: jax.tree.map(lambda x: np.split(x, 2)[part], episodes)  # noqa: E731
    return {name: (half(episodes, 0), half(episodes, 1)) for name, episodes in days.items()}


# Actions


@pytest.mark.parametrize("variant", ["default", "single_peak_hours"])
def test_peak_action_discharges_inside_the_windows_only(variant, played):
    days, _ = played[variant]
    window = days.day.in_window
    power = days.info["power_mw"]
    half_width = VARIANTS[variant].get("peak_half_width", 1)
    for price, inside in zip(days.day.price_eur_per_mwh, window, strict=True):
        np.testing.assert_array_equal(inside, peak_window(jnp.asarray(price), half_width))
    assert (window.sum(1) == 2).all() if half_width == 0 else (window.sum(1) >= 4).all()
    assert (power[window] >= 0).all()
    assert (power[~window] <= 0).all()
    assert power.max() > 1
    assert power.min() < -1


def test_signed_action_is_a_share_of_the_rating(played):
    days, _ = played["free"]
    np.testing.assert_allclose(days.info["command_mw"], 1.5 * days.action[..., 0], atol=1e-6)
    np.testing.assert_allclose(
        days.info["clipped_mw"], np.abs(days.info["command_mw"] - days.info["power_mw"]), atol=1e-6
    )


def test_feasible_action_is_a_share_of_what_the_battery_can_do(played, envs):
    days, _ = played["feasible"]
    assert days.info["clipped_mw"].max() < 1e-6
    discharge, charge = physics.battery_limits_mw(
        envs["feasible"].default_params.plant, Rules(), days.info["soc_before"]
    )
    share = days.action[..., 0]
    np.testing.assert_allclose(days.info["power_mw"], share * np.where(share > 0, discharge, charge), atol=1e-6)
    assert played["free"][0].info["clipped_mw"].max() > 1


def test_second_action_is_the_share_of_the_reserve(played):
    days, _ = played["single_peak_hours"]
    held = 0.97 * (days.info["soc"] - 0.1) * 3.5
    largest = np.maximum(np.minimum(1.5 - np.maximum(days.info["power_mw"], 0), held), 0)
    assert days.action.shape[-1] == 2
    np.testing.assert_allclose(days.info["reserve_mw"], days.action[..., 1] * largest, atol=1e-5)


# Rewards


def test_reward_is_the_scaled_profit(played):
    days, idle = played["default"]
    np.testing.assert_allclose(200 * days.reward, days.info["profit_eur"], rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(days.info["objective_eur"], days.info["profit_eur"])
    np.testing.assert_array_equal(idle.info["wear_eur"], 0)


def test_only_the_last_hour_terminates(played):
    for days, _ in played.values():
        np.testing.assert_array_equal(days.terminated, np.tile(np.arange(HOURS) == 23, (CASES, 1)))
        assert not days.truncated.any()


def content_eur(days: Episodes):
    """Worth of the change of content of every hour: eta_d * mean price * change * E."""
    mean_price = days.day.price_eur_per_mwh.mean(-1)[:, None]
    return 0.97 * mean_price * (days.info["soc"] - days.info["soc_before"]) * 3.5


def test_terminal_value_is_paid_in_the_last_hour(played):
    free, value = played["free"][0], played["value"][0]
    extra = value.reward - free.reward
    np.testing.assert_allclose(extra[:, :-1], 0, atol=1e-3)
    np.testing.assert_allclose(extra[:, -1], content_eur(value).sum(1), rtol=1e-3, atol=0.02)
    np.testing.assert_allclose(value.info["terminal_eur"], extra, atol=0.02)
    np.testing.assert_allclose(value.info["objective_eur"], value.reward, atol=0.01)


def test_hourly_valuation_adds_up_to_the_terminal_value(played):
    hourly, end = played["value_hourly"][0], played["value"][0]
    np.testing.assert_allclose(hourly.reward - hourly.info["profit_eur"], content_eur(hourly), atol=0.02)
    np.testing.assert_allclose(hourly.reward.sum(1), end.reward.sum(1), rtol=2e-6, atol=0.05)
    np.testing.assert_array_equal(hourly.info["objective_eur"], end.info["objective_eur"])
    assert np.abs(hourly.reward - end.reward).max() > 10


def test_baseline_subtracts_exactly_the_idle_day(played):
    """Also the per-day scale: the deviation of the day's prices, at least 3 EUR/MWh."""
    days, nothing = played["value_per_day"]
    _, idle = played["value"]
    scale = np.maximum(days.day.price_eur_per_mwh.std(-1), 3.0)[:, None]
    gain = days.info["profit_eur"] - idle.info["profit_eur"] + content_eur(days)
    np.testing.assert_allclose(days.reward * scale, gain, rtol=1e-4, atol=0.02)
    np.testing.assert_allclose(nothing.reward, 0, atol=1e-4)


def test_penalties(played):
    """Per unit of change of content over the day, and per MW of a command that could not be carried out."""
    days, free = played["penalties"][0], played["free"][0]
    terminal = 300 * np.abs(days.info["soc"][:, -1] - 0.5)
    cost = 2.5 * free.info["clipped_mw"]
    cost[:, -1] += terminal
    np.testing.assert_allclose(free.reward - days.reward, cost, atol=0.01)
    np.testing.assert_array_equal(days.info["profit_eur"], free.info["profit_eur"])
    np.testing.assert_allclose(days.info["terminal_eur"][:, -1], -terminal, atol=0.01)
    assert terminal.max() > 50


TEN_DAYS = {"train_dates": "2022-03-06..2022-03-15"}


def test_automatic_scale_is_the_spread_of_the_daily_optimum():
    env = envs_jax.make("bess", **{**SIGNED, **TEN_DAYS, "reward_scale": "auto"})
    table, plant, rules = (
        env.default_params.table,
        env.default_params.plant,
        Rules(wear="segment", action_mode="signed"),
    )
    price, reserve, pv = (
        np.asarray(x, float) for x in (table.price_eur_per_mwh, table.reserve_eur_per_mw_h, table.pv_mw)
    )
    idle = [float(np.sum(p * v + r * 0.97 * 0.4 * 3.5)) for p, r, v in zip(price, reserve, pv, strict=True)]
    value = perfect_foresight(plant, rules, price, reserve, pv).profit_eur - idle
    np.testing.assert_allclose(env.assessment.calibration["reward_scale_eur"], value.std(), rtol=1e-3)


# Gradient through the environment


def test_gradient_of_the_rewards_is_that_of_the_day(envs):
    env, indices = envs["value"], np.arange(4)
    params = env.default_params
    share = np.random.default_rng(1).uniform(-0.9, 0.9, (4, HOURS))

    def total(share, index):
        return jnp.sum(play(env, params, index, jnp.stack([(share + 1) / 2] * 2, axis=-1)).reward)

    def direct(share, index):
        t = jax.tree.map(lambda column: column[index], params.table)
        rules = Rules(wear="segment", terminal="value")
        return physics.simulate_day(
            params.plant, rules, 1.5 * share, t.pv_mw, t.price_eur_per_mwh, t.reserve_eur_per_mw_h
        )[0]

    got, expected = jax.jit(lambda s, i: [jax.vmap(jax.grad(f))(s, i) for f in (total, direct)])(share, indices)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=0.05)
    assert np.abs(expected).max() > 100


# Starts: augmentation, cases, initial content


@pytest.fixture(scope="module")
def starts():
    """64 training starts and the same cases twice with different keys, of an augmented environment."""
    env = envs_jax.make("bess", augmentation={"enabled": True}, soc_start="uniform", **SIGNED)
    params, keys = env.default_params, jax.random.split(jax.random.key(3), 64)

    @jax.jit
    def run(params):
        _, train = jax.vmap(env.reset, (0, None))(keys, params)
        case = jax.vmap(lambda key, i: env.assessment.reset_case(key, i, params)[1])
        return train, case(keys, jnp.arange(64)), case(keys[::-1], jnp.arange(64))

    with jax.debug_key_reuse(False):  # starts and cases of the same keys
        return params, *jax.tree.map(np.asarray, run(params))


def test_augmentation_changes_prices_and_nothing_else(starts):
    params, train, _, _ = starts
    table = jax.tree.map(lambda column: np.asarray(column)[train.day_index], params.table)
    price, real = train.day.price_eur_per_mwh, table.price_eur_per_mwh
    np.testing.assert_array_equal(train.day.pv_mw, table.pv_mw)
    np.testing.assert_array_equal(train.day.reserve_eur_per_mw_h, table.reserve_eur_per_mw_h)
    np.testing.assert_array_equal(train.day.weekday, table.weekday)
    np.testing.assert_array_equal(train.day.seen_price, price)
    for day in range(64):
        np.testing.assert_array_equal(train.day.in_window[day], peak_window(jnp.asarray(price[day])))
        np.testing.assert_array_equal(train.day.is_cheap[day], cheap_hours(jnp.asarray(price[day])))
    assert (train.day.in_window != table.in_window).any()
    # A day stays recognisable: white noise of a tenth of its deviation on a stretched copy.
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(price, real, strict=True)]
    assert np.median(correlation) > 0.98
    stretch = np.log(price.std(1) / real.std(1))
    assert -0.85 < stretch.min() < -0.3 < 1.2 < stretch.max() < 1.85
    shift = price.mean(1) - np.exp(stretch) * real.mean(1)
    assert 12 < shift.std() < 35


@pytest.mark.parametrize("how", ["rotation_share", "mirror_share"])
def test_rearranged_days_keep_their_prices_in_another_order_or_upside_down(how):
    """Half of the days: rotated by some hours, or mirrored at their mean; the others are as they were."""
    table = jax.tree.map(lambda x: x[:4], envs_jax.make("bess", **SIGNED).default_params.table)
    still = {"log_scale_low": 0.0, "log_scale_high": 0.0, "shift_std_eur_per_mwh": 0.0, "noise_share": 0.0}
    augmentation = Augmentation(enabled=True, **still, **{how: 0.5})
    draw = jax.vmap(lambda key: augment_and_forecast(key, table, 2, Rules(), augmentation, Forecast()))
    price = np.asarray(jax.jit(draw)(jax.random.split(jax.random.key(0), 64)).price_eur_per_mwh)
    real = np.asarray(table.price_eur_per_mwh[2])
    if how == "rotation_share":
        possible = np.stack([np.roll(real, -hours) for hours in range(24)])
    else:
        possible = np.stack([real, 2 * real.mean() - real])
    distance = np.abs(price[:, None] - possible).max(axis=2)
    np.testing.assert_allclose(distance.min(axis=1), 0, atol=1e-3)
    assert 0.3 < (distance.argmin(axis=1) == 0).mean() < 0.7
    assert len(np.unique(distance.argmin(axis=1))) >= min(len(possible), 10)


def test_augmentation_leaves_wear_unchanged(starts, envs):
    assert starts[0].plant == envs["free"].default_params.plant


def test_cases_are_never_augmented_and_ignore_the_key(starts):
    params, _, cases, other_key = starts
    for a, b in zip(jax.tree.leaves(cases), jax.tree.leaves(other_key), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(cases.day.price_eur_per_mwh, params.table.price_eur_per_mwh[:64])
    np.testing.assert_array_equal(cases.battery.soc, np.float32(0.5))


def test_training_starts_with_any_content(starts):
    _, train, _, _ = starts
    soc = train.battery.soc
    assert 0.1 <= soc.min() < 0.2 < 0.8 < soc.max() <= 0.9
    np.testing.assert_array_equal(soc, train.soc_start)
    np.testing.assert_array_equal(soc, train.soc_prev)
    np.testing.assert_allclose(train.battery.segments_mwh.sum(1), (soc - 0.1) * 3.5, atol=1e-6)


# Several days in one episode


def test_carry_keeps_the_content_over_midnight():
    env = envs_jax.make("bess", terminal="carry", carry_days=2, **SIGNED)
    params = env.default_params
    assert env.episode_length == 48
    assert env.assessment.num_cases(params) == params.table.weekday.shape[0] // 2
    uniform = np.random.default_rng(2).uniform(0, 1, (48, 2))
    days = jax.jit(lambda u: play(env, params, 3, u))(uniform)
    np.testing.assert_array_equal(days.info["hour"], np.tile(np.arange(HOURS), 2))
    np.testing.assert_array_equal(days.info["day_index"], np.repeat([6, 7], HOURS))
    np.testing.assert_array_equal(days.info["price_eur_per_mwh"][HOURS:], params.table.price_eur_per_mwh[7])
    np.testing.assert_array_equal(days.info["soc_before"][1:], days.info["soc"][:-1])
    assert abs(float(days.info["soc"][HOURS - 1]) - 0.5) > 0.05
    assert not days.terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(days.truncated), [47])
    np.testing.assert_array_equal(days.info["terminal_eur"], 0)


# Warm-up rule


@pytest.mark.parametrize("mode", ["peak_scalar", "signed"])
def test_guided_action_follows_the_rule(mode, envs):
    """Seven of ten actions: hard in the windows when there is energy, hard in cheap hours when there is room."""
    env = envs["default" if mode == "peak_scalar" else "free"]
    params = env.default_params
    _, state = env.assessment.reset_case(jax.random.key(0), 5, params)
    day = state.day
    window_hour, cheap_hour = int(np.flatnonzero(day.in_window)[0]), int(np.flatnonzero(day.is_cheap)[0])
    other_hour = int(np.flatnonzero(~np.asarray(day.in_window | day.is_cheap))[0])
    sign = -1.0 if mode == "signed" else 1.0
    expected = [
        (window_hour, 0.5, 0.7, 1.0), (window_hour, 0.25, 0.3, 0.7), (window_hour, 0.12, 0.0, 0.1),
        (cheap_hour, 0.5, sign * 0.7, sign), (cheap_hour, 0.88, 0.0, sign * 0.1), (other_hour, 0.5, 0.0, sign * 0.1),
    ]  # fmt: skip
    hours, soc, first, second = map(np.asarray, zip(*expected, strict=True))

    @jax.jit
    def draw(keys, hour, soc):
        at = state.replace(hour=hour, battery=physics.fresh_battery(params.plant, soc))
        return jax.vmap(lambda key: env.guidance.guided_action(key, at, params)[0])(keys)

    keys = jax.random.split(jax.random.key(1), 2000)
    actions = np.asarray(jax.vmap(draw, (None, 0, 0))(keys, hours, soc.astype(np.float32)))
    box = env.action_space(params)
    assert (actions >= box.low[0]).all() and (actions <= 1).all()
    low, high = np.minimum(first, second), np.maximum(first, second)
    inside = np.mean((actions >= low[:, None]) & (actions <= high[:, None]), axis=1)
    # 70 % by the rule, and the uniform ones that happen to fall into the same interval.
    share = 0.7 + 0.3 * (high - low) / float(1 - box.low[0])
    np.testing.assert_allclose(inside, share, atol=5 * math.sqrt(0.25 / 2000))


# Rules as policies


@pytest.mark.parametrize(
    ("variant", "rules"),
    [("free", PRICE_RULES), ("feasible", PRICE_RULES), ("default", ("idle", "two_cycles"))],
    ids=["rating", "feasible", "peak_scalar"],
)
def test_rules_as_policies_carry_out_the_commands_of_the_baselines(variant, rules, envs):
    """Every hour of every day the battery does what the day's commands of the host's rule would make it do.

    Peak-window actions cannot discharge outside of the windows: of the active rules only two cycles does not want to.
    """
    env = envs[variant]
    params = env.default_params
    table = jax.tree.map(lambda x: np.asarray(x)[:CASES], params.table)

    def play_rule(rule, index):
        def body(state, _):
            _, after, _, _, _, info = env.step_env(jax.random.key(1), state, rule(None, state, params), params)
            return after, info["power_mw"]

        return jax.lax.scan(body, env.assessment.reset_case(None, index, params)[1], length=HOURS)[1]

    @jax.jit
    def all_days():
        return {
            name: jax.vmap(lambda i, n=name: play_rule(env.guidance.rules[n], i))(jnp.arange(CASES)) for name in rules
        }

    settings = Rules(wear="none", action_mode="signed")
    carried_out = jax.jit(jax.vmap(lambda *day: physics.simulate_day(params.plant, settings, *day)[1].power_mw))
    for name, power_mw in all_days().items():
        command_mw = BASELINES[name](params.plant, settings, table.price_eur_per_mwh, np.zeros((CASES, HOURS)))
        expected = carried_out(command_mw, table.pv_mw, table.price_eur_per_mwh, table.reserve_eur_per_mw_h)
        np.testing.assert_allclose(power_mw, expected, atol=1e-5)


# What travels with a policy


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"feature_low": None}, "calibration: feature_low: Input should be a valid list"),
        ({"feature_high": [1.0]}, "calibration: feature_high: List should have at least 20 items"),
        ({"reward_scale_eur": 0.0}, "calibration: reward_scale_eur: Input should be greater than 0"),
        ({"reward_scale": 1.0}, "calibration: reward_scale: Extra inputs are not permitted"),
    ],
)
def test_a_calibration_that_is_none_of_trading_is_refused(changed, expected):
    sound = {"feature_low": [0.0] * 20, "feature_high": [1.0] * 20, "reward_scale_eur": 200.0}
    assert calibration.checked(sound) == sound
    with pytest.raises(ValueError, match=expected):
        calibration.checked({**sound, **changed})


def test_an_empty_calibration_is_not_fitted_again():
    with pytest.raises(ValueError, match="calibration: feature_low: Field required"):
        envs_jax.make("bess", **TEN_DAYS, calibration={})


def test_a_world_without_data_is_the_one_it_was_made_of_but_for_its_days(envs):
    env = envs["default"]
    known = env.assessment
    blind = envs_jax.make(
        "bess",
        data_path="/nowhere.csv",
        calibration=known.calibration,
        provenance=known.provenance,
        without_data=True,
    )
    assert (blind.assessment.calibration, blind.assessment.provenance) == (
        known.calibration,
        known.provenance,
    )
    assert blind.observation_space(None).shape == env.observation_space(None).shape
    np.testing.assert_array_equal(blind.default_params.ranges.high, env.default_params.ranges.high)
    assert blind.split_problem("test") == "bess has train; made without data"
    with pytest.raises(ValueError, match="without_data needs the calibration"):
        envs_jax.make("bess", without_data=True)


def test_calibration_is_taken_back_as_it_was():
    early, other_days = envs_jax.make("bess", **TEN_DAYS), {"train_dates": "2022-08-06..2022-08-15"}
    same = envs_jax.make("bess", **other_days, calibration=early.assessment.calibration)
    other = envs_jax.make("bess", **other_days)
    assert same.assessment.calibration == early.assessment.calibration != other.assessment.calibration
    np.testing.assert_array_equal(same.default_params.ranges.high, early.default_params.ranges.high)
    assert (np.asarray(other.default_params.ranges.high) != np.asarray(early.default_params.ranges.high)).any()
