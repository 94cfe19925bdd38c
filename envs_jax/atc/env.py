"""The `atc` worlds: aircraft at one level that turn and change speed to reach their waypoints apart from each other.

Reading order: `make`, what it builds from a configuration (scenario, parameters, jitter), then `Functions`, the
functions of one airspace. Their arithmetic is in `step`, with the batch last (see `envs_jax.batch_last`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.atc import baselines, geometry, kinematics, metrics, observations, sensing, shifts, traffic
from envs_jax.atc.actions import SPEEDS, TURNS, as_discrete
from envs_jax.atc.config import GENERIC, AtcConfig, JitterConfig
from envs_jax.atc.params import KNOT_MS, AtcParams, AtcState, Jitter, Limits, Rewards, Rules, Sensing, Start, is_flying
from envs_jax.atc.recorded import condense
from envs_jax.atc.report import aircraft_ids, make_report
from envs_jax.atc.scenarios import Scenario, named, read, t_formation, with_speed_spread
from envs_jax.atc.scoring import MILESTONES, SHOWN, score
from envs_jax.atc.step import advance, begin
from envs_jax.base import Assessment, Conditions, Environment, Group, Guidance
from envs_jax.batch_last import batch_last
from envs_jax.spaces import Box, Discrete
from envs_jax.words import expanded


def make(name: str, **keywords: Any) -> Environment:
    """Build `atc/<name>`; keywords are the keys of `AtcConfig`.

    Raises:
        pydantic.ValidationError: unknown or impossible keys.
        ScenarioError, FileNotFoundError: the scenario file cannot be used; the message names place and remedy.
    """
    config = AtcConfig(**keywords)
    return build(config, scenario_of(config, config.scenario or name))


def build(config: AtcConfig, own: Scenario | None, tested: bool = False) -> Environment:
    """The environment of a configuration in a scenario; None: random traffic.

    `tested`: for other conditions than those of the training. There the alerts of pilots are always scored, which takes
    little time, and never those of a predictor, whose random numbers would double that of a short test.
    """
    count = config.traffic.max_aircraft if own is None else len(own.agents)
    num_aircraft = max(count, 2, config.pad_to or 0)
    # Random traffic may put its aircraft anywhere in the arrays.
    scenario = traffic.placeholder(num_aircraft, config.max_episode_steps) if own is None else own
    if config.pad_to is not None and config.pad_to < count:
        raise ValueError(f"pad_to {config.pad_to}: {scenario.name} has {count} aircraft")
    rules = config.rules(num_aircraft, windy=config.wind is not None or scenario.wind is not None)
    functions = Functions(rules, traffic.generator(config.traffic, num_aircraft) if own is None else None)
    params = params_of(config, scenario, num_aircraft)
    with_alerts = tested or config.enable_hallucination_detection
    return Environment(
        name=f"atc/{scenario.name}",
        default_params=params,
        reset_env=functions.reset,
        step_env=functions.step,
        observation_space=lambda params: Box(-np.inf, np.inf, functions.observation_shape),
        action_space=lambda params: functions.action_space(),
        max_episode_length=int(params.limits.horizon),
        num_agents=num_aircraft,
        agent_names=aircraft_ids(scenario, num_aircraft),
        global_state=functions.global_state,
        alive=functions.alive,
        guidance=Guidance(rules={name: functions.as_rule(pilot) for name, pilot in baselines.BASELINES.items()}),
        assessment=Assessment(
            score=score,
            has_bound=False,
            condense=partial(condense, rules=rules, predictor=not tested) if with_alerts else None,
            milestones=MILESTONES,
            compared=tuple(baselines.BASELINES),
            shown=SHOWN,
            conditions=conditions_of(config, own, scenario.name),
            report=make_report(scenario, params, rules, num_aircraft),
            columns=metrics.COLUMNS,
        ),
    )


def conditions_of(config: AtcConfig, own: Scenario | None, name: str) -> dict[str, Conditions]:
    """Changes of the scenario itself, and other scenarios."""

    def other_scenarios(names: Sequence[str] | None) -> list[Group]:
        build_other = lambda other, name: build(other, scenario_of(other, name), tested=True)  # noqa: E731
        return shifts.scenario_groups(names or [shifts.ALL], config, name, build_other)

    return {
        "shifts": Conditions(
            lambda kinds: shifts.groups(kinds, config, own, partial(build, tested=True)),
            compared="changes",
            why_left_out="starts too close",
        ),
        "scenarios": Conditions(other_scenarios, compared="one by one", own=name),
    }


def scenario_of(config: AtcConfig, name: str) -> Scenario | None:
    """The scenario `name`, or that of the configuration's file, with its options; None for random traffic."""
    if config.scenario_file is not None:
        scenario = read(config.scenario_file)
    elif name == GENERIC:
        return None
    elif name == "t_formation":
        scenario = t_formation(config.t_arm_nm, config.t_stem_nm, config.t_stem_x_nm)
    else:
        scenario = named(name)
    return with_speed_spread(scenario, config.speed_spread_kt)


def params_of(config: AtcConfig, scenario: Scenario, num_aircraft: int) -> AtcParams:
    """Numbers of a scenario, padded to `num_aircraft`."""
    agents, count = scenario.agents, len(scenario.agents)
    types = config.aircraft_type
    if isinstance(types, list) and len(types) != count:
        raise ValueError(f"aircraft_type: {len(types)} types for the {count} aircraft of {scenario.name}")
    each = [types] * count if isinstance(types, str) else types or [a.type for a in agents]
    each = [*each, *[each[-1]] * (num_aircraft - count)]

    def column(value, fill: float = 0.0) -> jax.Array:
        return jnp.asarray([*map(value, agents), *[fill] * (num_aircraft - count)], float)

    start = Start(
        dlat=column(lambda a: a.lat - scenario.lat),
        dlon=column(lambda a: a.lon - scenario.lon),
        hdg=column(lambda a: a.hdg_deg),
        cas=column(lambda a: a.spd_kt * KNOT_MS, 250 * KNOT_MS),
        goal_dlat=column(lambda a: a.waypoint_lat - scenario.lat),
        goal_dlon=column(lambda a: a.waypoint_lon - scenario.lon),
        present=jnp.arange(num_aircraft) < count,
    )
    reward, (deadband_deg, deadband_kt) = config.reward, config.deadband()
    wind = (config.wind.dir_deg, config.wind.kt) if config.wind is not None else scenario.wind or (0.0, 0.0)
    wind_ms, towards = wind[1] * KNOT_MS, np.radians(wind[0] + 180.0)
    params = AtcParams(
        start=start,
        performance=kinematics.performance_of(each),
        jitter=jitter_of(config, scenario),
        wind_north_ms=wind_ms * np.cos(towards),
        wind_east_ms=wind_ms * np.sin(towards),
        lat=scenario.lat,
        rewards=Rewards(
            progress_per_km=reward.progress_reward_per_km,
            drift_gain=reward.drift_improve_gain,
            drift_deadzone_deg=reward.drift_deadzone_deg,
            entry=reward.violation_entry_penalty,
            violation_step=reward.violation_step_scale,
            action=reward.action_cost_per_unit,
            time_per_s=reward.time_penalty_per_sec,
            reach=reward.reach_reward,
            not_reached=reward.terminal_not_reached_penalty,
            team_weight=config.team_coordination_weight,
            team_gamma=config.gamma(),
            team_ema=config.team_ema,
            team_cap=config.team_cap,
            team_anneal=config.team_anneal,
        ),
        limits=Limits(
            separation_nm=config.separation_nm,
            collision_nm=config.collision_nm,
            deep_breach_nm=config.deep_breach_nm,
            safe_nm=config.safe_nm,
            waypoint_nm=config.waypoint_radius_nm,
            near_miss_nm=config.near_miss_nm,
            terminate_nm=config.terminate_on_nm,
            horizon=config.max_episode_steps or scenario.max_episode_steps,
            deadband_deg=deadband_deg,
            deadband_kt=deadband_kt,
        ),
        sensing=None if config.sensing is None else Sensing(**config.sensing.model_dump()),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, bool if jnp.asarray(x).dtype == jnp.bool_ else float), params)


def jitter_of(config: AtcConfig, scenario: Scenario) -> Jitter:
    """What the configuration says, else the scenario, else the preset."""
    if config.jitter is not None:
        chosen = config.jitter.model_dump() if isinstance(config.jitter, JitterConfig) else {}
    elif scenario.jitter is not None or config.preset == "origin":
        chosen = dict(scenario.jitter or {})
    else:
        chosen = JitterConfig().model_dump()
    return Jitter(**{"position_nm": 0.0, "heading_deg": 0.0, "speed_kt": 0.0, **chosen})


class Functions:
    """The pure functions of one airspace, bound to static choices.

    Args:
        generator: random traffic, `(words, params) -> Start`, instead of the scenario of the parameters.
    """

    def __init__(self, rules: Rules, generator: traffic.Generator | None = None):
        self.rules, self.generator = rules, generator
        self.observation_shape = rules.num_aircraft, observations.size(rules.layout, rules.neighbors)
        self.words = traffic.JITTER_WORDS * rules.num_aircraft if generator is None else generator.words
        self._begin = batch_last(self._begin_batch)
        self._advance = batch_last(lambda state, action, params, seed: advance(state, action, params, rules, seed))
        self.at = batch_last(lambda start, params: begin(start, params, rules))
        """`(Start, AtcParams)`: observation and state of an airspace that starts there."""

    def action_space(self) -> Box | Discrete:
        n = self.rules.num_aircraft
        return Discrete(TURNS * SPEEDS, (n,)) if self.rules.discrete else Box(-1.0, 1.0, (n, 2))

    def reset(self, key, params: AtcParams):
        return self._begin(jax.random.bits(key, (2,), jnp.uint32), params)

    def _begin_batch(self, seed, params: AtcParams):
        errors = None
        if params.sensing is not None:
            errors = expanded(seed, sensing.words(self.rules.num_aircraft), first=self.words)
        if self.generator is None:
            start = traffic.jittered(seed, params)
        else:
            start = self.generator.draw(expanded(seed, self.words), params)
        return begin(start, params, self.rules, errors)

    def step(self, key, state: AtcState, action, params: AtcParams):
        # Without errors of sensing nothing in an airspace is random once it has started.
        seed = None if params.sensing is None else jax.random.bits(key, (2,), jnp.uint32)
        return self._advance(state, action, params, seed)

    def alive(self, state: AtcState, params: AtcParams):
        return is_flying(state, self.rules)

    def as_rule(self, pilot: baselines.Baseline):
        """A scripted pilot as one of `Guidance.rules`."""

        def rule(key, state: AtcState, params: AtcParams):
            action = pilot(state, params)
            return as_discrete(action) if self.rules.discrete else action

        return rule

    def global_state(self, state: AtcState, params: AtcParams):
        violating = state.violating
        if self.rules.entry_per_pair:
            violating = geometry.count_of_each(violating[..., None])[..., 0] > 0
        return observations.central_state(
            state.dlat, state.dlon, state.hdg, state.tas, state.goal_dlat, state.goal_dlon, self.alive(state, params),
            violating, state.steps / params.limits.horizon, params.lat,
        )  # fmt: skip
