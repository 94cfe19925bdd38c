"""One hour of a PV + battery plant: dispatch, reserve, wear, money. Pure functions of scalars, dtype-agnostic.

Reading order: battery state, dispatch (limits and routing), reserve, wear, `run_hour` which joins them, and
`simulate_day`, which runs 24 commanded powers and serves baselines, re-simulation and gradients. One hour is one
step, so power in MW and energy in MWh have the same number; `DT_H` says where the step length enters.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.bess.params import CYCLE_LIFE_EXPONENT, HOURS, SEGMENTS, Plant, Rules

DT_H = 1.0
RESERVE_HOLD_H = 1.0
"""tau: a reserve offer must be sustainable for this long."""

BUCKET_DEPTHS = (0.10, 0.30, 0.40, 0.55, 0.70)
BUCKET_FACTORS = (0.02, 0.10, 0.40, 0.50, 0.75, 1.00)
DEPTH_TOLERANCE = 1e-6
"""A depth that exceeds a bucket's edge by round-off still belongs to the bucket."""


@struct.dataclass
class Battery:
    """State of the battery between hours."""

    soc: jax.Array
    """State of charge as a share of the capacity."""
    soc_high: jax.Array
    """Highest state of charge in the current half day, before and after each hour."""
    soc_low: jax.Array
    """Lowest, likewise: soc_high - soc_low is the running depth of discharge."""
    segments_mwh: jax.Array
    """[8] energy in each wear segment, cheapest first; their sum is the usable energy in the battery."""


class Hour(NamedTuple):
    """What happened in one hour. Power in MW (discharge and export positive), money in EUR."""

    power_mw: jax.Array
    command_mw: jax.Array
    clipped_mw: jax.Array
    """|command - power|."""
    pv_mw: jax.Array
    """PV after curtailment."""
    pv_grid_mw: jax.Array
    bess_grid_mw: jax.Array
    reserve_mw: jax.Array
    reserve_down_mw: jax.Array
    revenue_pv_eur: jax.Array
    revenue_energy_eur: jax.Array
    revenue_reserve_eur: jax.Array
    wear_eur: jax.Array
    profit_eur: jax.Array
    """Revenues less wear; a terminal valuation of the content is not in it."""


def fresh_battery(plant: Plant, soc) -> Battery:
    """Battery at the start of a day: the energy sits in the cheapest segments."""
    soc = jnp.asarray(soc)
    width_mwh = segment_width_mwh(plant)
    filled = jnp.clip((soc - plant.soc_min) * plant.energy_mwh - width_mwh * jnp.arange(SEGMENTS), 0.0, width_mwh)
    return Battery(soc=soc, soc_high=soc, soc_low=soc, segments_mwh=filled)


def segment_width_mwh(plant: Plant):
    return (plant.soc_max - plant.soc_min) * plant.energy_mwh / SEGMENTS


def battery_limits_mw(plant: Plant, rules: Rules, soc) -> tuple[jax.Array, jax.Array]:
    """Largest discharge and largest charge (both >= 0) that the rating and the content allow."""
    available_mwh = jnp.maximum((soc - plant.soc_min) * plant.energy_mwh, 0.0)
    room_mwh = jnp.maximum((plant.soc_max - soc) * plant.energy_mwh, 0.0)
    eta_c, eta_d = (1.0, 1.0) if rules.legacy_accounting else (plant.charge_efficiency, plant.discharge_efficiency)
    discharge = jnp.minimum(plant.max_discharge_mw, eta_d * available_mwh / DT_H)
    charge = jnp.minimum(plant.max_charge_mw, room_mwh / (eta_c * DT_H))
    return discharge, charge


def dispatch(plant: Plant, rules: Rules, soc, command_mw, pv_mw, price_eur_per_mwh):
    """Power that is carried out and PV that is left, after battery, curtailment and connection limits.

    Returns (power_mw, pv_mw). Order of the limits: battery, curtailment at negative prices, export (discharge gives
    way before PV), import.
    """
    discharge_limit, charge_limit = battery_limits_mw(plant, rules, soc)
    power = jnp.clip(command_mw, -charge_limit, discharge_limit)
    if rules.curtail == "negative_price":
        pv_mw = jnp.where(price_eur_per_mwh < 0, 0.0, pv_mw)
    export_room = plant.export_limit_mw - pv_mw
    power = jnp.minimum(power, jnp.maximum(export_room, 0.0))
    if rules.curtail != "never":
        pv_mw = jnp.minimum(pv_mw, plant.export_limit_mw - jnp.minimum(power, 0.0))
    if not rules.legacy_accounting:  # the origin read the import limit and never enforced it
        power = jnp.maximum(power, -(pv_mw + plant.import_limit_mw))
    return power, pv_mw


def soc_after(plant: Plant, soc, power_mw):
    """State of charge after an hour at `power_mw`; the window is kept up to round-off by `dispatch`."""
    energy_mwh = power_mw * DT_H
    cell_mwh = jnp.where(power_mw > 0, energy_mwh / plant.discharge_efficiency, energy_mwh * plant.charge_efficiency)
    return jnp.clip(soc - cell_mwh / plant.energy_mwh, plant.soc_min, plant.soc_max)


def reserve_limits_mw(plant: Plant, rules: Rules, soc_before, soc_next, power_mw, pv_mw):
    """Largest upward and downward reserve that capacity, content and connection can sustain."""
    discharging = jnp.maximum(power_mw, 0.0)
    if rules.legacy_accounting:
        sustained = (soc_before - plant.soc_min) * plant.energy_mwh / RESERVE_HOLD_H
    else:
        sustained = plant.discharge_efficiency * (soc_next - plant.soc_min) * plant.energy_mwh / RESERVE_HOLD_H
    headroom = plant.export_limit_mw - (pv_mw + power_mw)
    up = jnp.maximum(jnp.minimum(jnp.minimum(plant.power_mw - discharging, sustained), headroom), 0.0)
    absorbable = (plant.soc_max - soc_next) * plant.energy_mwh / (plant.charge_efficiency * RESERVE_HOLD_H)
    down = jnp.maximum(jnp.minimum(plant.power_mw + jnp.minimum(power_mw, 0.0), absorbable), 0.0)
    return up, down if rules.reserve_down else jnp.zeros_like(down)


def move_segments(plant: Plant, segments_mwh, power_mw) -> tuple[jax.Array, jax.Array]:
    """Segment contents after an hour, and the energy taken from each ([8], [8], MWh, cell side).

    Charging fills the cheapest non-full segment first, discharging empties the cheapest non-empty first.
    """
    charged = jnp.maximum(-power_mw, 0.0) * DT_H * plant.charge_efficiency
    drawn = jnp.maximum(power_mw, 0.0) * DT_H / plant.discharge_efficiency
    room = segment_width_mwh(plant) - segments_mwh
    fill = jnp.clip(charged - _sum_of_cheaper(room), 0.0, room)
    take = jnp.clip(drawn - _sum_of_cheaper(segments_mwh), 0.0, segments_mwh)
    return segments_mwh + fill - take, take


def _sum_of_cheaper(x):
    """[8] -> [8]: sum over the segments before each, as one small product (a cumulative sum is slow on CPU)."""
    before = jnp.triu(jnp.ones((SEGMENTS, SEGMENTS), x.dtype), 1)
    return jnp.matmul(x, before, precision=jax.lax.Precision.HIGHEST)


def bucket_factor(depth):
    """z of the bucket model for a running depth of discharge in [0, 1]."""
    z = jnp.full_like(depth, BUCKET_FACTORS[0])
    for edge, (below, above) in zip(BUCKET_DEPTHS, itertools.pairwise(BUCKET_FACTORS), strict=True):
        z = z + (above - below) * (depth > edge + DEPTH_TOLERANCE)
    return z


def curve_factor(plant: Plant, depth):
    """z2 of the cycle-life curve: (depth / reference)**(b - 1), with a finite gradient at zero depth."""
    positive = depth > DEPTH_TOLERANCE
    ratio = jnp.where(positive, depth, 1.0) / plant.reference_depth
    return jnp.where(positive, ratio ** (CYCLE_LIFE_EXPONENT - 1.0), 0.0)


def advance_battery(plant: Plant, rules: Rules, battery: Battery, hour, power_mw) -> tuple[Battery, jax.Array]:
    """Battery after an hour at `power_mw`, and the hour's wear in EUR."""
    soc = soc_after(plant, battery.soc, power_mw)
    restart = hour % (HOURS // 2) == 0
    high = jnp.maximum(jnp.where(restart, battery.soc, battery.soc_high), soc)
    low = jnp.minimum(jnp.where(restart, battery.soc, battery.soc_low), soc)
    throughput_mwh = jnp.abs(power_mw) * DT_H
    segments, taken = move_segments(plant, battery.segments_mwh, power_mw)
    match rules.wear:
        case "none":
            wear = jnp.zeros_like(throughput_mwh)
        case "linear":
            wear = throughput_mwh * plant.linear_cost_eur_per_mwh
        case "nonlinear":
            wear = throughput_mwh * bucket_factor(high - low) * plant.cycle_cost_eur_per_mwh / 2
        case "cycle_curve":
            wear = throughput_mwh * curve_factor(plant, high - low) * plant.cycle_cost_eur_per_mwh / 2
        case "segment":
            wear = taken[0] * plant.segment_cost_eur_per_mwh[0]
            for i in range(1, SEGMENTS):
                wear = wear + taken[i] * plant.segment_cost_eur_per_mwh[i]
    return Battery(soc=soc, soc_high=high, soc_low=low, segments_mwh=segments), wear


def run_hour(
    plant: Plant, rules: Rules, battery: Battery, hour, command_mw, pv_mw, price_eur_per_mwh, reserve_eur_per_mw_h,
    reserve_share=1.0,
) -> tuple[Battery, Hour]:  # fmt: skip
    """One hour: dispatch, wear, reserve, settlement.

    Args:
        hour: 0..23, local market time.
        command_mw: signed battery command, discharge positive.
        reserve_share: share of the largest sustainable upward reserve that is offered (`rules.reserve` action).
    """
    power, pv = dispatch(plant, rules, battery.soc, command_mw, pv_mw, price_eur_per_mwh)
    after, wear = advance_battery(plant, rules, battery, hour, power)
    up, down = reserve_limits_mw(plant, rules, battery.soc, after.soc, power, pv)
    if rules.reserve == "none":
        up, down = jnp.zeros_like(up), jnp.zeros_like(down)
    up = up * reserve_share
    revenue_reserve = (up + down) * reserve_eur_per_mw_h * DT_H
    charging_from_pv = jnp.minimum(pv, jnp.maximum(-power, 0.0))
    pv_grid = pv - charging_from_pv
    bess_grid = power + charging_from_pv
    pv_price = plant.ppa_price_eur_per_mwh if rules.fixed_pv_price else price_eur_per_mwh
    revenue_pv = pv_grid * pv_price * DT_H
    revenue_energy = bess_grid * price_eur_per_mwh * DT_H
    if rules.reserve_activation:
        # The called energy leaves before the next hour and is paid at the energy price; it wears like discharge.
        delivered = rules.reserve_activation * up
        after, wear_delivered = advance_battery(plant, rules, after, _no_restart(hour), delivered)
        wear = wear + wear_delivered
        revenue_energy = revenue_energy + delivered * price_eur_per_mwh * DT_H
    return after, Hour(
        power_mw=power,
        command_mw=jnp.asarray(command_mw, power.dtype),
        clipped_mw=jnp.abs(command_mw - power),
        pv_mw=pv,
        pv_grid_mw=pv_grid,
        bess_grid_mw=bess_grid,
        reserve_mw=up,
        reserve_down_mw=down,
        revenue_pv_eur=revenue_pv,
        revenue_energy_eur=revenue_energy,
        revenue_reserve_eur=revenue_reserve,
        wear_eur=wear,
        profit_eur=revenue_pv + revenue_energy + revenue_reserve - wear,
    )


def _no_restart(hour):
    """An hour of the same half day at which the running depth does not restart."""
    return jnp.where(hour % (HOURS // 2) == 0, hour + 1, hour)


def content_value_eur(plant: Plant, price_eur_per_mwh, soc_change):
    """Worth of a change of content at the day's mean price: eta_d * mean(price) * change * E."""
    return plant.discharge_efficiency * jnp.mean(price_eur_per_mwh) * soc_change * plant.energy_mwh


def terminal_term_eur(plant: Plant, rules: Rules, price_eur_per_mwh, soc_start, soc_end):
    """What the terminal mode adds to the day's profit in EUR; `price_eur_per_mwh` is the day's [24]."""
    match rules.terminal:
        case "value":
            return content_value_eur(plant, price_eur_per_mwh, soc_end - soc_start)
        case "penalty":
            return -rules.terminal_penalty_eur * jnp.abs(soc_end - soc_start)
        case "free" | "carry":
            return jnp.zeros_like(soc_end)


def simulate_day(
    plant: Plant, rules: Rules, command_mw, pv_mw, price_eur_per_mwh, reserve_eur_per_mw_h, soc_start=None
):
    """Run 24 commanded powers through a day.

    Args:
        command_mw, pv_mw, price_eur_per_mwh, reserve_eur_per_mw_h: [24].
        soc_start: state of charge at the start; default: the plant's `soc_init`.

    Returns:
        (objective_eur, hours, soc): profit of the day including the terminal term, the `Hour` records with leading
        axis [24], and the state of charge after each hour [24].
    """
    soc_start = jnp.asarray(plant.soc_init if soc_start is None else soc_start, jnp.result_type(price_eur_per_mwh))

    def body(battery, hour_inputs):
        hour, command, pv, price, reserve = hour_inputs
        battery, outcome = run_hour(plant, rules, battery, hour, command, pv, price, reserve)
        return battery, (outcome, battery.soc)

    inputs = (jnp.arange(HOURS), command_mw, pv_mw, price_eur_per_mwh, reserve_eur_per_mw_h)
    battery, (hours, soc) = jax.lax.scan(body, fresh_battery(plant, soc_start), inputs)
    terminal = terminal_term_eur(plant, rules, price_eur_per_mwh, soc_start, battery.soc)
    return jnp.sum(hours.profit_eur) + terminal, hours, soc
