"""Players that learners are measured by, whatever their own actions are: they move in every frame, remember, see more.

Reading order: `players_of`, `rules`. They act in a world of their own (`Functions` with players), from the starts that
a policy has and against the same opponent.

Heuristic cameras are none of them: they search hundreds of poses in every frame.
"""

from collections.abc import Iterable

import jax.numpy as jnp

from envs_jax.base import Rule
from envs_jax.mate import baselines, macro
from envs_jax.mate.assignment import can_match
from envs_jax.mate.opponents import Opponent, acting
from envs_jax.mate.params import Rules
from envs_jax.mate.players import CAMERAS, TARGETS, Player, watching
from envs_jax.mate.teams import Setup
from envs_jax.spaces import Box, Discrete

CAMERA_PLAYERS, TARGET_PLAYERS = ("random", "greedy"), ("random", "naive", "greedy", "heuristic")
SELECTIONS = "all_visible", "all_targets", "matched_and_unclaimed", "matched_and_free"
"""Selections of targets, each held for `macro`'s usual number of frames."""
PRIVILEGED = "privileged"
"""Cameras that know where all targets are and share them out anew in every frame."""

MATCHED = "matched_and_unclaimed", "matched_and_free", PRIVILEGED
"""Those that share targets out."""


def players_of(setup: Setup) -> dict[str, Opponent]:
    """By name, of the learners' team, as many as there can be; none where both teams learn."""
    rules = setup.rules
    match setup.learner:
        case "cameras":
            return {name: acting(CAMERAS[name], rules, alone=False) for name in CAMERA_PLAYERS} | _selecting(rules)
        case "targets":
            return {name: acting(TARGETS[name], rules, alone=False) for name in TARGET_PLAYERS}
        case "both":
            return {}


def _selecting(rules: Rules) -> dict[str, Opponent]:
    select = {name: baselines.SELECTIONS[name] for name in SELECTIONS}
    players: dict[str, Player] = {name: watching(each, macro.executor) for name, each in select.items()}
    assign = lambda key, state, params: baselines.privileged(state)  # noqa: E731
    players[PRIVILEGED] = watching(assign, baselines.aim_at, frame_skip=1)
    if not can_match(rules.num_cameras, rules.num_targets):
        players = {name: player for name, player in players.items() if name not in MATCHED}
    return {name: acting(player, rules, alone=True) for name, player in players.items()}


def rules(names: Iterable[str], space: Box | Discrete) -> dict[str, Rule]:
    """Actions, of the shape that the learners' have, that say which of the players acts."""
    kind = jnp.int32 if isinstance(space, Discrete) else jnp.float32

    def acts(number: int) -> Rule:
        return lambda key, game, params: jnp.full(space.shape, number, kind)

    return {name: acts(number) for number, name in enumerate(names)}
