"""Recorded episodes (`envs_jax.episodes`, whole) as alert scoring and tables want them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.atc.alerts import (
    ORIGIN,
    STANDARD,
    Pairing,
    Signals,
    Traffic,
    counts,
    paired,
    rates,
    signals,
    with_predictor,
)
from envs_jax.atc.params import SPEED_KT, TURN_DEG, AtcParams, Rules


def commands(action, discrete: bool) -> tuple[Any, Any]:
    """Commanded turns in deg and changes of speed in kt of actions [..., N, 2], discrete [..., N]; before any delay."""
    if discrete:
        return 9.0 * (action // 3) - 18.0, 10.0 * (action % 3) - 10.0
    action = jnp.clip(action, -1.0, 1.0)
    return TURN_DEG * action[..., 0], SPEED_KT * action[..., 1]


def traffic(records: Mapping[str, Any], rules: Rules) -> Traffic:
    """States of one episode from the first to the one after the last step, [T + 1, N]."""
    before = records["state"]

    def chained(first, after):
        return jnp.concatenate([first[:1], after])

    arrived = chained(before.arrived, records["waypoint_reached"])
    present = chained(before.present, before.present)
    active = present & ~arrived
    return Traffic(
        dlat=chained(before.dlat, records["dlat"]),
        dlon=chained(before.dlon, records["dlon"]),
        hdg=chained(before.hdg, records["hdg"]),
        tas=chained(before.tas, records["tas"]),
        goal_dlat=chained(before.goal_dlat, before.goal_dlat),
        goal_dlon=chained(before.goal_dlon, before.goal_dlon),
        active=active,
        flying=active if rules.leave_on_arrival else present,
    )


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


def alert_scores(records: Mapping[str, Any], params: AtcParams, rules: Rules) -> dict[str, Any]:
    """Rates of alerts of every seed over all its episodes, of pilots and of a predictor with noise.

    Args:
        records: whole, [S, N, T, ...].
    """
    names = ("state", "action", "dlat", "dlon", "hdg", "tas", "waypoint_reached", "min_sep", "active")
    kept = {name: records[name] for name in names}
    keys = jax.random.split(jax.random.key(0), np.shape(records["active"])[:2])

    @jax.jit
    def look(kept, keys):
        def one(episode, key):
            seen, states = episode_signals(episode, episode["active"], params, rules)
            return seen, with_predictor(seen, states, key, params.lat)

        return jax.vmap(jax.vmap(one))(kept, keys)

    def pooled(seen: Signals) -> dict[str, list[float]]:
        each = [rates(type(c)(*(np.sum(x) for x in c))) for c in (counts(Signals(*s)) for s in zip(*seen, strict=True))]
        return {name: [float(rate[name]) for rate in each] for name in each[0]}

    pilots, predictor = jax.device_get(look(kept, keys))
    return {"pilots": pooled(pilots), "predictor": pooled(predictor)}
