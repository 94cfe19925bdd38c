"""Metrics of an episode: sums kept in the state, and what they say when it ends.

Arrays are [N, B], pairs [N // 2, N, B] (see `geometry`).
"""

import jax
import jax.numpy as jnp

from envs_jax.atc.geometry import alone_or, least_of_all, total
from envs_jax.atc.params import FAR_NM, SUBSTEPS, Limits, Tally
from envs_jax.base import Column

OSCILLATION_DEG = 2.0
INTERVENTION_DEG, INTERVENTION_KT = 3.0, 5.0

COLUMNS = {
    "success": Column("success", label="success", share=True),
    "conflict_free": Column("conflict_free", label="conflict free", share=True),
    "reached_ratio": Column("reached_ratio", label="arrived", share=True),
    **{
        name: Column(name)
        for name in (
            "length", "los_events", "los_seconds", "los_pairs", "collision_events", "nmac_events", "min_separation_nm",
            "path_ratio", "extra_path_nm", "flight_time_s", "action_effort", "oscillation", "interventions",
        )
    },
}  # fmt: skip
"""Of the training log, sums over an episode: what `report` says at the end of an episode, and zero before."""


def start(direct_nm) -> Tally:
    """Nothing has happened; `direct_nm` [N, B] from start to waypoint."""
    n, zeros = direct_nm.shape[0], jnp.zeros_like(direct_nm)
    none = zeros[0]
    return Tally(
        pair_nm=jnp.full((n // 2, *zeros.shape), FAR_NM, zeros.dtype),
        los_seconds=none,
        los_events=none,
        collision_events=none,
        near_miss_events=none,
        steps=zeros,
        path_nm=zeros,
        direct_nm=direct_nm,
        effort=zeros,
        turn=zeros,
        oscillations=zeros,
        interventions=zeros,
    )


def counted(words: list[jax.Array], before, now, limits: Limits) -> list[jax.Array]:
    """Counts of a step with one more second, of squared separations in NM2.

    Two words of two counts of 16 bits, as each count alone would compute all distances again: seconds closer than the
    separation and times it was lost; the same times for the collision and the near-miss distance.
    """
    radii = limits.separation_nm, limits.collision_nm, limits.near_miss_nm
    began = [((now < r * r) & (before >= r * r)).astype(jnp.int32) for r in radii]
    inside = (now < radii[0] * radii[0]).astype(jnp.int32)
    return [words[0] + inside + (began[0] << 16), words[1] + began[1] + (began[2] << 16)]


def update(tally: Tally, words, pairs_nm, pairs_active, path_nm, turn_deg, faster_kt, effort, piloted) -> Tally:
    """The tally after a step.

    Args:
        words: `counted` over the seconds, each [N // 2, N, B].
        pairs_nm: [N // 2, N, B] smallest separation of the seconds.
        turn_deg: commanded by the pilots, as `faster_kt` and `effort`.
    """
    sums = [total(jnp.where(pairs_active, pair, 0)) for pair in words]
    counts = [count.astype(path_nm.dtype) for word in sums for count in (word & 0xFFFF, word >> 16)]
    opposite = (tally.turn * turn_deg < 0) & (jnp.abs(turn_deg) > OSCILLATION_DEG)
    opposite = opposite & (jnp.abs(tally.turn) > OSCILLATION_DEG)
    acted = (jnp.abs(turn_deg) >= INTERVENTION_DEG) | (jnp.abs(faster_kt) >= INTERVENTION_KT)

    def add(total, amount):
        return total + jnp.where(piloted, amount, 0.0).astype(total.dtype)

    return Tally(
        pair_nm=jnp.minimum(tally.pair_nm, pairs_nm),
        los_seconds=tally.los_seconds + counts[0],
        los_events=tally.los_events + counts[1],
        collision_events=tally.collision_events + counts[2],
        near_miss_events=tally.near_miss_events + counts[3],
        steps=add(tally.steps, 1.0),
        path_nm=add(tally.path_nm, path_nm),
        direct_nm=tally.direct_nm,
        effort=add(tally.effort, 0.5 * effort),
        turn=turn_deg,
        oscillations=add(tally.oscillations, opposite),
        interventions=add(tally.interventions, acted),
    )


def report(tally: Tally, present, arrived, done, limits: Limits) -> dict[str, jax.Array]:
    """Metrics of the episodes that ended in this step, [B]; zero for the others.

    Shares and lengths of paths are means over aircraft, of paths over those that arrived.
    """
    here = present.astype(tally.path_nm.dtype)
    count = jnp.maximum(jnp.sum(here, axis=0), 1.0)
    home = jnp.where(arrived & present, 1.0, 0.0)

    def mean(values, weight=here):
        return jnp.sum(values * weight, axis=0) / jnp.maximum(jnp.sum(weight, axis=0), 1.0)

    least = least_of_all(tally.pair_nm)
    conflict_free = (tally.los_seconds == 0).astype(least.dtype)
    reached = jnp.sum(home, axis=0) / count
    steps = jnp.maximum(tally.steps, 1.0)
    flown = jnp.maximum(tally.path_nm, 1e-3)
    values = {
        "success": conflict_free * (reached >= 1.0),
        "conflict_free": conflict_free,
        "reached_ratio": reached,
        "length": jnp.max(tally.steps, axis=0),
        "los_events": tally.los_events,
        "los_seconds": tally.los_seconds,
        "los_pairs": total((tally.pair_nm < limits.separation_nm).astype(least.dtype)),
        "collision_events": tally.collision_events,
        "nmac_events": tally.near_miss_events,
        "min_separation_nm": alone_or(least),
        "path_ratio": mean(jnp.minimum(tally.direct_nm / flown, 1.0), home),
        "extra_path_nm": mean(tally.path_nm - tally.direct_nm, home),
        "flight_time_s": SUBSTEPS * mean(tally.steps),
        "time_efficiency_300": 300 / (SUBSTEPS * jnp.maximum(jnp.max(tally.steps, axis=0), 1.0)),
        "action_effort": mean(tally.effort / steps),
        "oscillation": mean(tally.oscillations / jnp.maximum(tally.steps - 1, 1.0)),
        "interventions": jnp.sum(tally.interventions, axis=0),
    }
    return {name: jnp.where(done, value, 0.0) for name, value in values.items()}
