"""Recorded episodes (`envs_jax.episodes`, whole) as alert scoring and tables want them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.atc.actions import commands
from envs_jax.atc.alerts import (
    ORIGIN,
    STANDARD,
    Counts,
    Pairing,
    Signals,
    Traffic,
    counts,
    paired,
    rates,
    signals,
    traffic_of,
    with_predictor,
)
from envs_jax.atc.params import AtcParams, Rules


def traffic(records: Mapping[str, Any], rules: Rules) -> Traffic:
    """States of one episode from the first to the one after the last step, [T + 1, N]."""
    before = records["state"]
    changing = {name: records[name] for name in ("dlat", "dlon", "hdg", "tas")}
    after = dataclasses.replace(before, arrived=records["waypoint_reached"], **changing)
    first = jax.tree.map(lambda x: x[:1], traffic_of(before, rules))
    return jax.tree.map(lambda x, rest: jnp.concatenate([x, rest]), first, traffic_of(after, rules))


def episode_signals(records: Mapping[str, Any], flown, params: AtcParams, rules: Rules) -> tuple[Signals, Traffic]:
    """What happened in each step of one episode, and the states it was judged on.

    `standard` judges a command on the state in which it was given and knows separations of every second; the preset
    `origin` as the origin does.
    """
    pairing: Pairing = "before" if rules.each_second else "after"
    states = paired(traffic(records, rules), pairing)
    turn_deg, speed_kt = commands(records["action"], rules.discrete)
    seen = signals(states, turn_deg, speed_kt, flown, params.lat, STANDARD if rules.each_second else ORIGIN)
    if rules.each_second:
        seen = seen._replace(separation_nm=jnp.min(records["min_sep"], axis=-1))
    return seen, states


def condense(records: Mapping[str, Any], params: AtcParams, rules: Rules, predictor: bool) -> dict[str, Any]:
    """The environment's `condense`: what `alert_scores` needs of one episode, on the device.

    Returns:
        `signals`, and with `predictor` also `predicted`: its alerts in the place of the pilots', bool [T].
    """
    seen, states = episode_signals(records, records["active"], params, rules)
    if not predictor:
        return {"signals": seen}
    # The noise depends on the number of the episode alone: all pilots are beside the same predictor.
    key = jax.random.fold_in(jax.random.key(0), records["case"][0])
    return {"signals": seen, "predicted": with_predictor(seen, states, key, params.lat).alert}


def alert_scores(records: Mapping[str, Any]) -> dict[str, Any]:
    """Rates of alerts of every seed over all its episodes: of the pilots, and of the predictor if there is one.

    Args:
        records: with the entries of `condense`, [S, N, T].
    """
    alerts = {"pilots": records["signals"]}
    if "predicted" in records:
        alerts["predictor"] = records["signals"]._replace(alert=records["predicted"])
    return {name: _pooled(seen) for name, seen in alerts.items()}


def _pooled(seen: Signals) -> dict[str, list[float]]:
    """Rates of every seed, from signals [S, N, T]."""
    each = [rates(Counts(*map(np.sum, counts(Signals(*one))))) for one in zip(*seen, strict=True)]
    return {name: [float(rate[name]) for rate in each] for name in each[0]}
