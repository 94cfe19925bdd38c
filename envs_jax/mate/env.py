"""The `mate` worlds: cameras that turn and zoom to keep targets in view, which carry cargo between warehouses.

Reading order: `make`, `build` and what it puts together: parameters, the opponent, how episodes are judged. What
happens in a step is in `game`, what happens in a frame in `transition`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Assessment, Column, Environment, Guest, Guidance, Selection
from envs_jax.mate import macro, yardsticks
from envs_jax.mate.conditions import conditions_of
from envs_jax.mate.config import GUEST, MACRO_FRAMES, MIXED_IN, MateConfig
from envs_jax.mate.game import Functions, GameParams
from envs_jax.mate.guidance import guidance_of
from envs_jax.mate.opponents import Opponent, either, guest, numbered, scripted
from envs_jax.mate.params import Params, Preset, Rules, params_of, rules_of
from envs_jax.mate.report import make_report
from envs_jax.mate.reset import draw_pool
from envs_jax.mate.scoring import SHOWN, scorer
from envs_jax.mate.teams import TARGETS, Setup, Team, action_space, entities_seen
from envs_jax.mate.transforms import Options
from envs_jax.spaces import Box

POOL_SEED = 0
"""Of the starts of a pool."""


def make(preset: str, guests: Mapping[str, Guest] | None = None, **keywords: Any) -> Environment:
    """Build `mate/<preset>`; keywords are the keys of `MateConfig`.

    Args:
        guests: the policy of a run by the name of the setting that asks for it, `opponent` or `guest`.

    Raises:
        pydantic.ValidationError: unknown or impossible keys.
        ValueError: an unknown preset, placements that cannot be, a guest that is of another world.
    """
    config = MateConfig(**keywords)
    return build(config, preset, config.preset(preset), guests or {})


def build(
    config: MateConfig, name: str, preset: Preset, guests: Mapping[str, Guest], opponents: Sequence[str] = ()
) -> Environment:
    """The environment of a configuration in a world.

    Args:
        opponents: scripted teams, of which the parameters' `opponent` says by its number which acts, in place of the
            configuration's.
    """
    weights = reward_weights(config)
    rules = rules_of(preset, config.occlusion, outlines="soft_coverage_score" in weights)
    setup = setup_of(config, rules)
    world = params_of(preset, config.horizon)
    opponent: Opponent | None
    policy: Any
    if opponents:
        opponent, policy = numbered(opponents, other_team(config), rules), jnp.zeros((), jnp.int32)
    else:
        opponent = opponent_of(config, setup, guests, world)
        policy = policy_of(guests).policy if guests else ()
    params = GameParams(world=world, reward_weights=weights, opponent=policy)
    if config.reset_pool:
        params = params._replace(pool=draw_pool(jax.random.key(POOL_SEED), config.reset_pool, world, rules))

    def environment(functions: Functions, guidance: Guidance, assessment: Assessment) -> Environment:
        size = functions.num_agents, functions.observation_size
        reset = jax.jit(functions.reset)  # compiled as one where it is called untraced: its loops would be one by one
        return Environment(
            name=f"mate/{name}",
            default_params=params,
            reset_env=reset,
            step_env=functions.step,
            observation_space=lambda params: Box(-np.inf, np.inf, size),
            action_space=lambda params: space,
            max_episode_length=-(-int(world.horizon) // setup.frame_skip),
            num_agents=functions.num_agents,
            agent_names=agent_names(config, rules),
            global_state=functions.global_state,
            action_mask=functions.action_mask if setup.control == "macro" and config.mask_invalid else None,
            entities=entities_seen(setup),
            selection=Selection(setup.encoding, rules.num_targets, TARGETS) if setup.control == "macro" else None,
            guidance=guidance,
            # Evaluations have starts of their own, whatever a training draws from.
            assessment=assessment._replace(
                reset_case=lambda key, index, params: reset(key, params._replace(pool=None))
            ),
        )

    space = action_space(setup.learners, setup.control, setup, world)
    functions, guidance, players = Functions(setup, opponent), guidance_of(setup), yardsticks.players_of(setup)
    beside = None
    if players:
        acting = Functions(setup, opponent, tuple(players.values()))
        beside = environment(acting, Guidance(yardsticks.rules(players, space)), Assessment())
    facts = {"preset": name, "opponent": config.opponent, "frame_skip": setup.frame_skip}
    return environment(
        functions,
        guidance,
        Assessment(
            score=scorer(config.learner, functions.num_agents, facts),
            has_bound=False,
            yardsticks=beside,
            compared=tuple(players),
            shown=SHOWN,
            conditions=conditions_of(config, name, partial(_other, config, guests)),
            report=make_report(),
            columns=COLUMNS | (SELECTION_COLUMNS if setup.control == "macro" else {}),
        ),
    )


def _other(config: MateConfig, guests: Mapping[str, Guest], name: str, opponents: Sequence[str]) -> Environment:
    """The same configuration in another preset or against other opponents, without a pool: nothing is trained there."""
    config = config.model_copy(update={"reset_pool": 0})
    return build(config, name, config.preset(name), guests, opponents)


def setup_of(config: MateConfig, rules: Rules) -> Setup:
    """Static choices of a configuration."""
    common = {
        "relative": config.relative,
        "rescale": config.rescale,
        "zero_masked": config.zero_masked,
        "drop_index": config.drop_index,
    }
    return Setup(
        rules=rules,
        learner=config.learner,
        control=config.controlled_by(),
        frame_skip=config.held_frames(),
        levels=config.discrete_levels,
        encoding=macro.encoding_of(rules.num_targets, config.multi_selection, config.selection_head),
        reward_reduction=config.reward_reduction,
        cameras=Options(view=config.camera_view, bearings=config.bearings, **common),
        targets=Options(view=config.target_view, **common),
        rescale=config.rescale,
        state_scale=config.state_scale,
    )


def opponent_of(config: MateConfig, setup: Setup, guests: Mapping[str, Guest], world: Params) -> Opponent | None:
    """The other team; None where both learn."""
    if config.learner == "both":
        return None
    team = other_team(config)
    run = config.guest or (config.opponent if str(config.opponent).startswith(GUEST) else None)
    if run is None:
        return scripted(config.opponent, team, setup.rules)
    if not guests:
        raise ValueError(f"opponent {run}: runs are opened by purerl, not by envs_jax.make alone")
    control = config.opponent_control or ("macro" if team == "cameras" else "flat")
    visitor = guest(policy_of(guests), team, control, MACRO_FRAMES if control == "macro" else 1, setup, world)
    if isinstance(config.opponent, str):
        return visitor
    others = {name: weight for name, weight in config.opponent.items() if name != MIXED_IN}
    if not any(others.values()):
        return visitor
    share = config.opponent[MIXED_IN] / sum(config.opponent.values())
    return either(visitor, scripted(others, team, setup.rules), share)


def policy_of(guests: Mapping[str, Guest]) -> Guest:
    """The one guest, of whichever setting."""
    (visitor,) = guests.values()
    return visitor


def other_team(config: MateConfig) -> Team:
    """That of the opponent, where there is one."""
    return "targets" if config.learner == "cameras" else "cameras"


def reward_weights(config: MateConfig) -> dict[str, jax.Array]:
    """Of the terms, by name."""
    default = {"raw_reward": 1.0} if config.learner == "targets" else {"coverage_rate": 1.0}
    chosen = default if config.reward_coefficients is None else config.reward_coefficients
    return {name: jnp.asarray(weight, float) for name, weight in sorted(chosen.items())}


def agent_names(config: MateConfig, rules: Rules) -> tuple[str, ...]:
    cameras = [f"camera {index}" for index in range(rules.num_cameras)]
    targets = [f"target {index}" for index in range(rules.num_targets)]
    return tuple({"cameras": cameras, "targets": targets, "both": cameras + targets}[config.learner])


COLUMNS = {
    "coverage_rate": Column("coverage_rate", "mean", label="share of targets in view", share=True),
    "real_coverage_rate": Column("real_coverage_rate", "mean", label="of targets with bounty", share=True),
    "mean_transport_rate": Column("mean_transport_rate", "last", label="targets' efficiency", share=True),
    "num_delivered_cargoes": Column("num_delivered_cargoes", "last", label="units delivered"),
    "camera_return": Column("raw_reward", "sum", label="cameras' team return"),
}

SELECTION_COLUMNS = {
    "invalid_selection_rate": Column("invalid_selection_rate", "mean", label="selected out of view", share=True)
}
