"""Rewards of a step: eight parts of each aircraft and the team's part, each on its own.

Arrays [N, B]; what happened is in `Facts`, which the step fills.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.atc.geometry import count_of_each
from envs_jax.atc.params import NM_M, SUBSTEPS, AtcState, Limits, Rewards, Rules

PARTS = ("progress", "drift", "violate_entry", "violate_step", "act_cost", "time", "reach", "terminal", "team")


class Facts(NamedTuple):
    """What happened in a step, [N, B] unless said."""

    paid: jax.Array
    """Aircraft that earn rewards in this step."""
    piloted: jax.Array
    """Aircraft that acted."""
    effort: jax.Array
    """|a0| + |a1| of the action that is charged."""
    goal_nm: jax.Array
    off_course_deg: jax.Array
    min_sep_nm: jax.Array
    entries: jax.Array
    """Violations that began in this step."""
    reached: jax.Array
    """Arrived in this step."""
    arrived: jax.Array
    pairs_nm: jax.Array
    """[N // 2, N, B] separations at the end of the step of those in traffic then, else far."""
    ended: jax.Array
    """[B] the episode is over with no value after it."""
    horizon: jax.Array
    """[B] last step."""


def potential(least_nm, limits: Limits):
    """Phi of the smallest separation: 0 at contact, 1/2 at the separation, 1 where it is safe."""
    outside = jnp.minimum((least_nm - limits.separation_nm) / (limits.safe_nm - limits.separation_nm), 1.0)
    inside = 0.5 * least_nm / limits.separation_nm
    return jnp.where(least_nm <= limits.separation_nm, inside, 0.5 + 0.5 * outside)


def reward_parts(
    state: AtcState, facts: Facts, phi, rules: Rules, rewards: Rewards, limits: Limits
) -> tuple[dict[str, jax.Array], jax.Array]:
    """`(parts [N, B] by name, moving average of the potential's change [B])`; `phi` [B] is that after the step."""
    progress = rewards.progress_per_km * (NM_M / 1000) * (state.goal_nm - facts.goal_nm)
    if rules.blank_memory:
        progress = jnp.where(state.steps == 0, 0.0, progress)
    separation, deep = limits.separation_nm, limits.deep_breach_nm
    depth = jnp.maximum(separation - facts.min_sep_nm, 0.0) / separation
    boost = 1 + 1.5 * jnp.maximum(0.0, (deep - facts.min_sep_nm) / deep)
    # The origin's aircraft fly on after their arrival, at a tenth of the price of time.
    time: Any = rewards.time_per_s * SUBSTEPS
    if not rules.leave_on_arrival:
        time = jnp.where(facts.arrived, 0.1 * time, time)
    team, smoothed = _team(state, facts, phi, rules, rewards)
    parts = {
        "progress": progress,
        "drift": rewards.drift_gain * _drift(state.off_course_deg, facts.off_course_deg, rules, rewards),
        "violate_entry": rewards.entry * facts.entries,
        "violate_step": rewards.violation_step * depth * boost,
        "act_cost": jnp.where(facts.piloted, rewards.action * facts.effort, 0.0),
        "time": jnp.broadcast_to(time, progress.shape),
        "reach": jnp.where(facts.reached, rewards.reach, 0.0),
        "terminal": jnp.where(facts.horizon & ~facts.arrived, rewards.not_reached, 0.0),
        "team": rewards.team_weight * team,
    }
    return {name: jnp.where(facts.paid, part, 0.0) for name, part in parts.items()}, smoothed


def _drift(before, after, rules: Rules, rewards: Rewards):
    """Improvement of the angle to the waypoint, in degrees. Only `signed` sums to zero over a circle."""
    zone = rewards.drift_deadzone_deg
    if rules.drift == "signed":
        return jnp.maximum(before, zone) - jnp.maximum(after, zone)
    if rules.drift == "positive":
        return jnp.maximum(0.0, jnp.maximum(before, zone) - jnp.maximum(after, zone))
    return jnp.maximum(0.0, before - after - zone)


def _team(state: AtcState, facts: Facts, phi, rules: Rules, rewards: Rewards):
    """`(team term [N, B] before its weight, next moving average [B])`."""
    share = _share(facts, rules)
    if rules.team == "smoothed":
        change = rewards.team_gamma * phi - state.potential
        smoothed = (1 - rewards.team_ema) * state.smoothed + rewards.team_ema * change
        return share * jnp.clip(smoothed, -rewards.team_cap, rewards.team_cap) * rewards.team_anneal, smoothed
    # Potential-based shaping (Ng et al. 1999) of Phi - 1, so that safe states have none; zero after an aircraft's own
    # end (Grzes 2017), else what it was paid before would stay.
    over = facts.ended | (facts.arrived if rules.leave_on_arrival else False)
    after = jnp.where(over, 0.0, rewards.team_gamma * (phi - 1))
    return share * (after - (state.potential - 1)), state.smoothed


def _share(facts: Facts, rules: Rules):
    """Shares of the team term, which sum to the number of aircraft."""
    if rules.team_share == "equal":
        return 1.0
    near_nm = 5.0 if rules.team_share == "responsibility" else 10 / 1.852
    weight = jnp.where(facts.paid, 1 + count_of_each(facts.pairs_nm < near_nm), 0.0)
    return weight * jnp.sum(facts.paid, axis=0) / jnp.maximum(jnp.sum(weight, axis=0), 1.0)
