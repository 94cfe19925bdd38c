"""What the members of a team see, what they may choose, and what their choices mean, with the batch last.

Reading order: `Setup` (static choices), `members`, `entities_seen`, `action_space`, `motions` (what actions mean),
`observed`, `legal`.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from envs_jax import selections
from envs_jax.base import Entities, EntityKind
from envs_jax.mate import actions, macro, observations, rewards, transforms
from envs_jax.mate.config import Control, Learner
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.state import State
from envs_jax.mate.transforms import Options
from envs_jax.spaces import Box, Discrete

Team = Literal["cameras", "targets"]


class Setup(NamedTuple):
    """Static choices."""

    rules: Rules
    learner: Learner
    control: Control
    frame_skip: int
    levels: int
    """Of each component of an action that is chosen from a grid."""
    encoding: selections.Encoding
    reward_reduction: rewards.Reduction
    cameras: Options
    targets: Options
    rescale: bool
    state_scale: bool

    @property
    def learners(self) -> tuple[Team, ...]:
        return ("cameras", "targets") if self.learner == "both" else (self.learner,)


def members(team: Team, rules: Rules) -> int:
    return rules.num_cameras if team == "cameras" else rules.num_targets


def observation_size(team: Team, setup: Setup) -> int:
    if team == "cameras":
        more = transforms.BEARINGS * setup.rules.num_targets + transforms.AXIS if setup.cameras.bearings else 0
        return setup.rules.camera_observation_size - setup.cameras.drop_index + more
    return setup.rules.target_observation_size - setup.targets.drop_index


CAMERAS, TARGETS, OBSTACLES = "cameras", "targets", "obstacles"
"""Kinds of entities."""


def entities_seen(setup: Setup) -> Entities | None:
    """Of what the learners' observations are made; None where they differ, because both teams learn."""
    if len(setup.learners) > 1:
        return None
    (team,), rules = setup.learners, setup.rules
    bearings = transforms.BEARINGS * (team == "cameras" and setup.cameras.bearings)
    targets = EntityKind(rules.num_targets, observations.TARGET_PUBLIC + 1 + bearings)
    cameras = EntityKind(rules.num_cameras, observations.CAMERA_PUBLIC + 1)
    kinds = {CAMERAS: cameras, OBSTACLES: EntityKind(rules.num_obstacles, observations.OBSTACLE + 1), TARGETS: targets}
    order = (TARGETS, OBSTACLES, CAMERAS) if team == "cameras" else (CAMERAS, OBSTACLES, TARGETS)
    seen = {name: kinds[name] for name in order}
    own = observation_size(team, setup) - sum(kind.number * kind.size for kind in seen.values())
    return Entities(own, seen)


def action_space(teams: tuple[Team, ...], control: Control, setup: Setup, params: Params) -> Box | Discrete:
    """Of all members of the teams, one after the other. Needs concrete parameters."""
    count = sum(members(team, setup.rules) for team in teams)
    if control == "macro":
        each = macro.action_space(setup.encoding, setup.rules.num_targets)
        return Discrete(each.n, (count, *each.shape))
    if control == "flat":
        return Discrete(setup.levels**2, (count,))
    limits = {
        "cameras": [float(params.camera_rotation_step_deg), float(params.camera_zooming_step_deg)],
        "targets": [float(params.target_step_size)] * 2,
    }
    limit = np.array([limits[team] for team in teams for _ in range(members(team, setup.rules))], np.float32)
    return Box(-limit, limit, (count, 2))


def motions(team: Team, control: Control, action, world: State, params: Params, setup: Setup):
    """What a team's actions (N, ..., B) mean in a frame, (N, 2, B): rotation and zoom in degrees, or motion."""
    if control == "continuous":
        return action
    if control == "macro":
        return macro.executor(subset(action, setup), world, params)
    if team == "cameras":
        return actions.camera_action(action, setup.levels, params)
    return actions.target_action(action, setup.levels, world.layout.step_size)


def subset(action, setup: Setup):
    """Targets (C, T, B) that macro actions (C, ..., B) select."""
    chosen = selections.to_subset(setup.encoding, jnp.moveaxis(action, -1, 1), setup.rules.num_targets)
    return jnp.moveaxis(chosen, 1, -1)


def observed(team: Team, world: State, params: Params, setup: Setup):
    """(N, d, B)"""
    if team == "cameras":
        return transforms.camera_observation(world, params, setup.cameras)
    return transforms.target_observation(world, params, setup.targets)


def legal(world: State, setup: Setup):
    """Which macro actions select visible targets alone, bool (C, n, B), of the factored encoding (C, T, 2, B)."""
    visible = transforms.targets_seen(world, setup.cameras)
    allowed = macro.valid_actions(setup.encoding, jnp.moveaxis(visible, -1, 1))
    return jnp.moveaxis(allowed, 1, -1)
