"""The `bess` environment: a PV plant and a battery behind one connection, settled hourly at day-ahead prices.

Reading order: parameters and state, reset, step (action -> command -> `physics.run_hour` -> reward), rules as actions,
and `make`, which reads the data and binds everything to an `Environment`.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_jax.base import Assessment, Column, Environment, Guidance
from envs_jax.bess import physics
from envs_jax.bess.baselines import PRICE_RULES, PriceRule
from envs_jax.bess.calibration import calibrate, checked
from envs_jax.bess.config import BessConfig
from envs_jax.bess.data import MarketDays
from envs_jax.bess.days import Day, augment_and_forecast, day_table, num_days, pick_day, price_deviation
from envs_jax.bess.observations import RELATIVE, Ranges, observe, relative_state, size
from envs_jax.bess.params import HOURS, Plant, Rules, plant_of
from envs_jax.bess.reserve import reserve_prices
from envs_jax.bess.scoring import has_exact_bound, make_scoring
from envs_jax.bess.splits import NO_TRADE, SPLITS, markets_of
from envs_jax.spaces import Box

GUIDED_RANDOM_SHARE = 0.3
SMALLEST_MW = 1e-6
"""Divides commands where the battery can do nothing."""
COLUMNS = {
    "episode_profit": Column("profit_eur"),
    "episode_revenue": Column("revenue_eur"),
    "episode_degradation": Column("wear_eur"),
    "rev_pv": Column("revenue_pv_eur"),
    "rev_energy": Column("revenue_energy_eur"),
    "rev_reserve": Column("revenue_reserve_eur"),
    "deg_cost": Column("wear_eur"),
    "final_soc": Column("final_soc"),
    "throughput_mwh": Column("throughput_mwh"),
}
"""Of the training log: sums over a day."""


@struct.dataclass
class BessParams:
    """Everything that may be mapped over: plant, days, normalisation."""

    plant: Plant
    table: Day
    """Days of the split, leading axis [D]."""
    ranges: Ranges
    reward_scale_eur: float
    """EUR per unit of reward; not used with the per-day scale."""


@struct.dataclass
class BessState:
    day: Day
    day_index: jax.Array
    hour: jax.Array
    """Hour of the day that comes next, 0..23; 24 after the last one."""
    battery: physics.Battery
    soc_prev: jax.Array
    soc_start: jax.Array
    days_left: jax.Array
    """Days of the episode still to come after this one (terminal mode `carry`)."""


def make(*, provenance: Mapping[str, Any] | None = None, without_data: bool = False, **keywords: Any) -> Environment:
    """Build the environment; keywords are the keys of `BessConfig`.

    Args:
        provenance: `Environment.provenance` of an earlier environment: the same days, or an error if they have changed.
        without_data: read no table; with the `calibration` of an earlier environment, the result serves to act.

    Raises:
        pydantic.ValidationError: unknown or impossible keys.
        DataError, FileNotFoundError: the price table cannot be used; the message names place and remedy.
        ValueError: a calibration that is none of this environment.
    """
    config = BessConfig(**keywords)
    rules, plant = config.rules(), plant_of(config.limits, config.legacy_linear_wear)
    if without_data and config.calibration is None:
        raise ValueError("without_data needs the calibration of an environment that had data")
    markets, provenance = ({"train": NO_TRADE}, provenance) if without_data else markets_of(config, provenance)
    tables = {name: day_table(days, _reserve_of(config, days), rules) for name, days in markets.items()}
    first = next(iter(markets))  # `train`, but where a finished policy is scored on other data
    if config.calibration is None:
        calibration = calibrate(config, plant, rules, markets[first], tables[first])
    else:
        calibration = checked(config.calibration)
    ranges = Ranges(jnp.asarray(calibration["feature_low"]), jnp.asarray(calibration["feature_high"]))
    params = {name: BessParams(plant, t, ranges, float(calibration["reward_scale_eur"])) for name, t in tables.items()}
    _warn_of_blind_connection(config, plant, tables[first])

    functions = _Functions(config, rules)
    score, report = make_scoring(config, rules, functions.reset_case, markets, params)
    return Environment(
        name="bess",
        default_params=params[first],
        reset_env=functions.reset,
        step_env=functions.step,
        observation_space=lambda params: Box(-np.inf, np.inf, (size(config.obs, config.obs_connection),)),
        action_space=lambda params: functions.action_box(),
        episode_length=functions.episode_length,
        max_episode_length=functions.episode_length,
        differentiable=True,
        guidance=Guidance(
            rules={name: functions.rule_action(rule) for name, rule in PRICE_RULES.items()}
            | {"guided": functions.guided_action},
            guided_action=functions.guided_action,
            preview=functions.preview if config.obs in RELATIVE else None,
        ),
        assessment=Assessment(
            splits=params,
            absent_splits={
                name: "made without data" if without_data else f"set env.{name}_dates"
                for name in SPLITS
                if name not in params
            },
            num_cases=lambda params: functions.num_cases(params),
            reset_case=functions.reset_case,
            score=score,
            has_bound=has_exact_bound(rules),
            report=report,
            columns=COLUMNS,
            calibration=calibration,
            provenance=provenance,
        ),
    )


class _Functions:
    """The environment's pure functions, bound to the static choices of a configuration."""

    def __init__(self, config: BessConfig, rules: Rules):
        self.config, self.rules = config, rules
        self.forecast = config.effective_forecast()
        self.days_per_episode = config.carry_days if rules.terminal == "carry" else 1
        self.episode_length = HOURS * self.days_per_episode
        self.reveal_hourly = self.forecast.model != "none" and self.forecast.commit == "hourly"
        self.action_low = np.asarray([0.0 if rules.action_mode == "peak_scalar" else -1.0], np.float32)
        self.action_high = np.ones(1, np.float32)
        if rules.reserve == "action":
            self.action_low = np.append(self.action_low, np.float32(0.0))
            self.action_high = np.append(self.action_high, np.float32(1.0))

    def action_box(self) -> Box:
        return Box(self.action_low, self.action_high, self.action_low.shape)

    # Starts

    def reset(self, key, params: BessParams):
        """A random day of the split; augmented where the configuration says so."""
        key_start, key_variation = jax.random.split(key)
        day_at, content_at = jax.random.uniform(key_start, (2,))
        num_starts = max(num_days(params.table) - self.days_per_episode + 1, 1)
        index = jnp.minimum((day_at * num_starts).astype(jnp.int32), num_starts - 1)
        plant = params.plant
        soc = jnp.asarray(plant.soc_init, params.table.price_eur_per_mwh.dtype)
        if self.config.soc_start == "uniform":
            soc = (plant.soc_min + content_at * (plant.soc_max - plant.soc_min)).astype(soc.dtype)
        return self._start(key_variation, index, soc, params, augment=self.config.augmentation.enabled)

    def reset_case(self, key, index, params: BessParams):
        """Day number `index` of the split as it was, from the plant's initial content.

        Forecast errors depend on the day alone, so every policy and every rolling-horizon plan meets the same ones.
        """
        del key
        soc = jnp.asarray(params.plant.soc_init, params.table.price_eur_per_mwh.dtype)
        day_key = jax.random.fold_in(jax.random.key(0), index)
        return self._start(day_key, index * self.days_per_episode, soc, params, augment=False)

    def num_cases(self, params: BessParams) -> int:
        return num_days(params.table) // self.days_per_episode

    def _start(self, key, index, soc, params: BessParams, augment: bool):
        state = BessState(
            day=self._day(key, index, params, augment),
            day_index=index,
            hour=jnp.zeros((), jnp.int32),
            battery=physics.fresh_battery(params.plant, soc),
            soc_prev=soc,
            soc_start=soc,
            days_left=jnp.full((), self.days_per_episode - 1, jnp.int32),
        )
        return self._observe(state, params), state

    def _day(self, key, index, params: BessParams, augment: bool) -> Day:
        if not augment and self.forecast.model == "none":
            return pick_day(params.table, index)
        augmentation = self.config.augmentation.model_copy(update={"enabled": augment})
        return augment_and_forecast(key, params.table, index, self.rules, augmentation, self.forecast)

    def _observe(self, state: BessState, params: BessParams):
        return observe(
            self.config.obs, self.config.obs_connection, self.reveal_hourly, params.plant, params.ranges, state.day,
            state.hour, state.battery, state.soc_prev,
        )  # fmt: skip

    # Transition

    def command_mw(self, state: BessState, action, plant: Plant):
        """Signed battery command of an action (first component)."""
        share = action[0]
        if self.rules.action_mode == "peak_scalar":
            share = jnp.where(state.day.in_window[state.hour], share, -share)
        if self.rules.action_scale == "rating":
            return share * plant.power_mw
        discharge, charge = physics.battery_limits_mw(plant, self.rules, state.battery.soc)
        return share * jnp.where(share > 0, discharge, charge)

    def step(self, key, state: BessState, action, params: BessParams):
        plant, rules, day, hour = params.plant, self.rules, state.day, state.hour
        action = jnp.clip(action, self.action_low, self.action_high)
        price, reserve, pv = day.price_eur_per_mwh[hour], day.reserve_eur_per_mw_h[hour], day.pv_mw[hour]
        reserve_share = action[1] if rules.reserve == "action" else 1.0
        battery, outcome = physics.run_hour(
            plant, rules, state.battery, hour, self.command_mw(state, action, plant), pv, price, reserve, reserve_share
        )
        last_hour = hour == HOURS - 1
        days_left = state.days_left - last_hour
        day_over = last_hour & (days_left < 0)
        terminal_eur = jnp.where(
            day_over,
            physics.terminal_term_eur(plant, rules, day.price_eur_per_mwh, state.soc_start, battery.soc),
            0.0,
        )
        reward = self._reward(state, battery, outcome, price, reserve, pv, terminal_eur, params)
        state_next = dataclasses.replace(
            state, hour=hour + 1, battery=battery, soc_prev=state.battery.soc, days_left=jnp.maximum(days_left, 0)
        )
        if self.days_per_episode > 1:
            state_next = self._roll_over(key, state_next, last_hour & ~day_over, params)
        carried = rules.terminal == "carry"
        terminated, truncated = (
            (jnp.zeros_like(day_over), day_over) if carried else (day_over, jnp.zeros_like(day_over))
        )
        info = {
            **outcome._asdict(),
            "objective_eur": outcome.profit_eur + terminal_eur,
            "terminal_eur": terminal_eur,
            "revenue_eur": outcome.profit_eur + outcome.wear_eur,
            "throughput_mwh": jnp.abs(outcome.power_mw) * physics.DT_H,
            "final_soc": jnp.where(day_over, battery.soc, 0.0),
            "soc_before": state.battery.soc,
            "soc": battery.soc,
            "price_eur_per_mwh": price,
            "reserve_price_eur_per_mw_h": reserve,
            "pv_raw_mw": pv,
            "in_window": day.in_window[hour],
            "hour": hour,
            "day_index": state.day_index,
            "action": action[0],
        }
        return self._observe(state_next, params), state_next, reward, terminated, truncated, info

    def _reward(self, state, battery, outcome, price, reserve, pv, terminal_eur, params: BessParams):
        plant, rules, config = params.plant, self.rules, self.config
        gain = outcome.profit_eur - config.clip_penalty_eur_per_mw * outcome.clipped_mw
        if config.reward_baseline == "idle":
            idle = physics.fresh_battery(plant, state.soc_start)
            _, nothing = physics.run_hour(plant, rules, idle, state.hour, 0.0, pv, price, reserve)
            gain = gain - nothing.profit_eur
        prices = state.day.price_eur_per_mwh
        if config.content_value == "hourly":
            gain = gain + physics.content_value_eur(plant, prices, battery.soc - state.battery.soc)
        else:
            gain = gain + terminal_eur
        scale = price_deviation(prices) if config.reward_scale == "per_day" else params.reward_scale_eur
        return (gain / scale).astype(jnp.float32)

    def _roll_over(self, key, state: BessState, at_midnight, params: BessParams) -> BessState:
        """The next day of a multi-day episode; the content of the battery stays."""
        index = jnp.minimum(state.day_index + at_midnight, num_days(params.table) - 1)
        day = self._day(key, index, params, self.config.augmentation.enabled)
        return dataclasses.replace(
            state,
            day=jax.tree.map(lambda new, old: jnp.where(at_midnight, new, old), day, state.day),
            day_index=index,
            hour=jnp.where(at_midnight, 0, state.hour),
        )

    def preview(self, obs, action, params: BessParams):
        """What an hour at `action` does to the battery, as far as the observation [85+] tells: [11] features.

        The hour's gain over idling in units of the reward, the power, the state of charge and the segment contents
        after it. Differentiable in the action; exact while the connection does not bind.
        """
        plant, rules = params.plant, self.rules
        known = relative_state(plant, obs)
        discharge, charge = physics.battery_limits_mw(plant, rules, known.battery.soc)
        share = action[0]
        command = share * (
            plant.power_mw if self.config.action_scale == "rating" else jnp.where(share > 0, discharge, charge)
        )
        power = jnp.clip(command, -charge, discharge)
        after, wear = physics.advance_battery(plant, rules, known.battery, 1, power)
        held = lambda soc, power: jnp.minimum(  # noqa: E731
            plant.power_mw - jnp.maximum(power, 0.0),
            plant.discharge_efficiency * (soc - plant.soc_min) * plant.energy_mwh,
        )
        offer = held(after.soc, power) - held(plant.soc_init, 0.0)
        gain = power * known.price + offer * known.reserve - wear
        gain = gain + plant.discharge_efficiency * known.mean * (after.soc - known.battery.soc) * plant.energy_mwh
        return jnp.concatenate(
            [
                jnp.stack([gain / known.deviation, power / plant.power_mw, 2.0 * after.soc - 1.0]),
                after.segments_mwh / physics.segment_width_mwh(plant),
            ]
        )

    def rule_action(self, rule: PriceRule):
        """A rule on the prices known at the start of the day as a policy `(key, state, params)`."""

        def action(key, state: BessState, params: BessParams):
            del key
            plant, hour = params.plant, jnp.minimum(state.hour, HOURS - 1)
            command_mw = rule(plant, self.rules, state.day.seen_price)[hour]
            share = self._share_of(command_mw, state, hour, plant)
            return jnp.full(self.action_low.shape, share).at[1:].set(1.0)

        return action

    def _share_of(self, command_mw, state: BessState, hour, plant: Plant):
        """First component of the action for a command: the inverse of `command_mw`, as near as the range allows."""
        share = command_mw / plant.power_mw
        if self.rules.action_scale == "feasible":
            discharge, charge = physics.battery_limits_mw(plant, self.rules, state.battery.soc)
            share = command_mw / jnp.maximum(jnp.where(command_mw > 0, discharge, charge), SMALLEST_MW)
        if self.rules.action_mode == "peak_scalar":
            share = jnp.where(state.day.in_window[hour], share, -share)
        return jnp.clip(share, self.action_low[0], self.action_high[0]).astype(jnp.float32)

    def guided_action(self, key, state: BessState, params: BessParams):
        """Warm-up action: charge in cheap hours, discharge in the peak windows, with a share of random actions."""
        plant, hour, soc = params.plant, jnp.minimum(state.hour, HOURS - 1), state.battery.soc
        key_magnitude, key_random, key_choice = jax.random.split(key, 3)
        in_window, cheap = state.day.in_window[hour], state.day.is_cheap[hour]
        empty, full = soc <= plant.soc_min + 0.05, soc >= plant.soc_max - 0.05
        low = jnp.where(in_window, jnp.where(empty, 0.0, jnp.where(soc > 0.3, 0.7, 0.3)), 0.0)
        high = jnp.where(in_window, jnp.where(empty, 0.1, jnp.where(soc > 0.3, 1.0, 0.7)), 0.1)
        low = jnp.where(~in_window & cheap & ~full, 0.7, low)
        high = jnp.where(~in_window & cheap & ~full, 1.0, high)
        magnitude = low + (high - low) * jax.random.uniform(key_magnitude)
        signed = self.rules.action_mode == "signed"
        share = jnp.where(in_window | (not signed), magnitude, -magnitude)
        guided = jnp.full(self.action_low.shape, share).at[1:].set(1.0)
        random = jax.random.uniform(key_random, self.action_low.shape, minval=self.action_low, maxval=self.action_high)
        return jnp.where(jax.random.uniform(key_choice) < GUIDED_RANDOM_SHARE, random, guided)


def _reserve_of(config: BessConfig, market: MarketDays) -> np.ndarray:
    return reserve_prices(market, config.reserve.source, config.split_seed, config.reserve.snsp_percent)


def _warn_of_blind_connection(config: BessConfig, plant: Plant, table: Day) -> None:
    """The relative layouts leave PV out, which is right only while the connection cannot bind."""
    peak_pv_mw = float(jnp.max(table.pv_mw))
    binds = peak_pv_mw + plant.max_discharge_mw > plant.export_limit_mw or plant.import_limit_mw < plant.max_charge_mw
    if binds and config.obs in RELATIVE and not config.obs_connection:
        warnings.warn(f"obs {config.obs} does not show PV but the connection can bind: set env.obs_connection=true",
                      stacklevel=3)  # fmt: skip
