"""The plant of `bess` once more, for one plant and one hour in Python floats: an independent reference.

Reading order: `PlainDay`, `PlainBattery`, `plain_hour` (with `plain_wear`), `plain_observation`, `plain_days`.
`throughput.py` measures it, tests compare the environment with it.
"""

from typing import NamedTuple

import numpy as np

from envs_jax.bess.params import HOURS, Plant, WearModel


class PlainDay:
    """A day's columns and what is derived from its prices once, as lists of floats."""

    def __init__(self, price, reserve, pv, weekday: int, season: int):
        self.price, self.reserve, self.pv = list(map(float, price)), list(map(float, reserve)), list(map(float, pv))
        self.weekday, self.season = weekday, season
        p = self.price
        self.k1 = max(range(12), key=lambda h: (p[h], -h))
        self.k2 = max(range(12, 24), key=lambda h: (p[h], -h))
        self.window = [abs(h - (self.k1 if h < 12 else self.k2)) <= 1 for h in range(HOURS)]
        groups = (range(self.k1), range(self.k1 + 1, self.k2))
        cheap = {h for group in groups for h in sorted(group, key=lambda h: (p[h], h))[:3]}
        self.cheap = [h in cheap for h in range(HOURS)]
        self.features = (max(p[:12]), max(p[12:]), self.k1, self.k2, min(p), p.index(min(p)), min(self.reserve),
                         max(self.reserve))  # fmt: skip


class PlainBattery:
    """State of charge, its extremes in the half day, and the segment contents in MWh."""

    def __init__(self, plant: Plant, soc: float):
        self.soc = self.soc_prev = self.high = self.low = soc
        self.width = (plant.soc_max - plant.soc_min) * plant.energy_mwh / len(plant.segment_cost_eur_per_mwh)
        content = (soc - plant.soc_min) * plant.energy_mwh
        self.segments = [
            min(max(content - i * self.width, 0.0), self.width) for i in range(len(plant.segment_cost_eur_per_mwh))
        ]


class PlainHour(NamedTuple):
    power: float
    pv: float
    reserve: float
    wear: float
    profit: float


def plain_hour(
    plant: Plant, wear: WearModel, battery: PlainBattery, hour: int, command: float, pv: float, price: float,
    reserve_price: float, ppa_price: float | None = None,
) -> PlainHour:  # fmt: skip
    """One hour under the corrected rules with curtailment at the connection and all reserve offered; MW and EUR."""
    eta_c, eta_d = plant.charge_efficiency, plant.discharge_efficiency
    discharge = min(plant.max_discharge_mw, eta_d * (battery.soc - plant.soc_min) * plant.energy_mwh)
    charge = min(plant.max_charge_mw, (plant.soc_max - battery.soc) * plant.energy_mwh / eta_c)
    power = min(max(command, -charge), discharge)
    if pv + power > plant.export_limit_mw:
        if power > 0:
            power = max(0.0, plant.export_limit_mw - pv)
        if pv + power > plant.export_limit_mw:
            pv = plant.export_limit_mw - power
    if pv + power < -plant.import_limit_mw:
        power = -pv - plant.import_limit_mw
    if power > 0:
        soc = battery.soc - power / (eta_d * plant.energy_mwh)
    else:
        soc = battery.soc - power * eta_c / plant.energy_mwh
    soc = min(max(soc, plant.soc_min), plant.soc_max)
    if hour in (0, 12):
        battery.high = battery.low = battery.soc
    battery.high, battery.low = max(battery.high, soc), min(battery.low, soc)
    cost = plain_wear(plant, wear, battery, power)
    held = eta_d * (soc - plant.soc_min) * plant.energy_mwh
    offer = max(0.0, min(plant.power_mw - max(power, 0.0), held, plant.export_limit_mw - pv - power))
    battery.soc_prev, battery.soc = battery.soc, soc
    to_battery = min(pv, max(-power, 0.0))
    revenue = (pv - to_battery) * (price if ppa_price is None else ppa_price) + (power + to_battery) * price
    return PlainHour(power, pv, offer, cost, revenue + offer * reserve_price - cost)


def plain_wear(plant: Plant, wear: WearModel, battery: PlainBattery, power: float) -> float:
    """Wear of the hour in EUR; moves energy between the segments one after the other."""
    remaining, cost = abs(power), 0.0
    if power > 0:
        remaining = power / plant.discharge_efficiency
        for i, content in enumerate(battery.segments):
            taken = min(content, remaining)
            battery.segments[i] -= taken
            remaining -= taken
            cost += taken * plant.segment_cost_eur_per_mwh[i]
    elif power < 0:
        remaining = -power * plant.charge_efficiency
        for i, content in enumerate(battery.segments):
            added = min(battery.width - content, remaining)
            battery.segments[i] += added
            remaining -= added
    depth = battery.high - battery.low
    if wear == "none":
        return 0.0
    if wear == "linear":
        return abs(power) * plant.linear_cost_eur_per_mwh
    if wear == "nonlinear":
        edges, factors = (0.1, 0.3, 0.4, 0.55, 0.7), (0.02, 0.1, 0.4, 0.5, 0.75, 1.0)
        return abs(power) * factors[sum(depth > edge + 1e-6 for edge in edges)] * plant.cycle_cost_eur_per_mwh / 2
    if wear == "cycle_curve":
        return abs(power) * (depth / plant.reference_depth) ** 0.774 * plant.cycle_cost_eur_per_mwh / 2
    return cost


def plain_observation(day: PlainDay, battery: PlainBattery, hour: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The layout `base20` at an hour 0..23, float32 [20]."""
    to_peak = 0 if day.window[hour] else day.k1 - hour if hour < day.k1 else day.k2 - hour if hour < day.k2 else 21
    depth = 0.0 if hour in (0, 12) else battery.high - battery.low
    values = np.array((
        hour, day.weekday, day.season, day.price[hour], day.reserve[hour], day.pv[hour], battery.soc, depth,
        *day.features, to_peak, battery.soc_prev, 2 * day.window[hour] - 1, 2 * day.cheap[hour] - 1,
    ))  # fmt: skip
    return np.clip(2 * (values - low) / (high - low) - 1, -1.5, 1.5).astype(np.float32)


def plain_days(table) -> list[PlainDay]:
    """The days of an environment's table."""
    columns = (table.price_eur_per_mwh, table.reserve_eur_per_mw_h, table.pv_mw, table.weekday, table.season)
    rows = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    return [PlainDay(*row) for row in rows]
