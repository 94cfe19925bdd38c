"""The `mate` worlds: cameras that turn and zoom to keep targets in view, which carry cargo between warehouses.

Reading order: `make`, `build` and what it puts together: parameters, the opponent, how episodes are judged. What
happens in a step is in `game`, what happens in a frame in `transition`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Assessment, Column, Environment, Guest, Selection
from envs_jax.mate import macro
from envs_jax.mate.config import GUEST, MACRO_FRAMES, MateConfig
from envs_jax.mate.game import Functions, GameParams
from envs_jax.mate.guidance import guidance_of
from envs_jax.mate.opponents import Opponent, guest, scripted
from envs_jax.mate.params import Params, Preset, Rules, params_of, rules_of
from envs_jax.mate.reset import draw_pool
from envs_jax.mate.teams import TARGETS, Setup, Team, action_space, entities_seen
from envs_jax.mate.transforms import Options
from envs_jax.spaces import Box

POOL_SEED = 0
"""Of the starts of a pool."""


def make(preset: str, guests: Mapping[str, Guest] | None = None, **keywords: Any) -> Environment:
    """Build `mate/<preset>`; keywords are the keys of `MateConfig`.

    Args:
        guests: policies of runs by the name of the setting that asks for them, `opponent`.

    Raises:
        pydantic.ValidationError: unknown or impossible keys.
        ValueError: an unknown preset, placements that cannot be, a guest that is of another world.
    """
    config = MateConfig(**keywords)
    return build(config, preset, config.preset(preset), guests or {})


def build(config: MateConfig, name: str, preset: Preset, guests: Mapping[str, Guest]) -> Environment:
    """The environment of a configuration in a world."""
    weights = reward_weights(config)
    rules = rules_of(preset, config.occlusion, outlines="soft_coverage_score" in weights)
    setup = setup_of(config, rules)
    world = params_of(preset, config.horizon)
    functions = Functions(setup, opponent_of(config, setup, guests, world))
    params = GameParams(
        world=world,
        reward_weights=weights,
        opponent=guests["opponent"].policy if "opponent" in guests else (),
    )
    if config.reset_pool:
        params = params._replace(pool=draw_pool(jax.random.key(POOL_SEED), config.reset_pool, world, rules))
    size = functions.num_agents, functions.observation_size
    space = action_space(setup.learners, setup.control, setup, world)
    return Environment(
        name=f"mate/{name}",
        default_params=params,
        # Compiled as one where it is called untraced: its loops would be compiled one by one.
        reset_env=jax.jit(functions.reset),
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
        guidance=guidance_of(setup),
        assessment=Assessment(columns=COLUMNS),
    )


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
        cameras=Options(view=config.camera_view, **common),
        targets=Options(view=config.target_view, **common),
        rescale=config.rescale,
        state_scale=config.state_scale,
    )


def opponent_of(config: MateConfig, setup: Setup, guests: Mapping[str, Guest], world: Params) -> Opponent | None:
    """The other team; None where both learn."""
    if config.learner == "both":
        return None
    team: Team = "targets" if config.learner == "cameras" else "cameras"
    if not (isinstance(config.opponent, str) and config.opponent.startswith(GUEST)):
        return scripted(config.opponent, team, setup.rules)
    if "opponent" not in guests:
        raise ValueError(f"opponent {config.opponent}: runs are opened by purerl, not by envs_jax.make alone")
    control = config.opponent_control or ("macro" if team == "cameras" else "flat")
    return guest(guests["opponent"], team, control, MACRO_FRAMES if control == "macro" else 1, setup, world)


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
