"""Conditions other than those of the training: other scripted opponents, and other presets that a policy fits.

Reading order: `conditions_of`, `groups`.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from envs_jax.adapters import nearest
from envs_jax.base import Conditions, Environment, Group
from envs_jax.mate.config import SCRIPTED, MateConfig
from envs_jax.mate.opponents import ONE_BY_ONE
from envs_jax.mate.params import PRESETS, Preset
from envs_jax.mate.teams import Team

TRAINED = "trained"
"""Name of an opponent that is none of the scripted ones: the policy of a run, or a mixture."""

Build = Callable[[str, Sequence[str]], Environment]
"""`(preset, opponents)`: the environment of the configuration, against scripted opponents that are numbered by its
parameters or, with none named, against its own."""


def conditions_of(config: MateConfig, preset: str, build: Build) -> dict[str, Conditions]:
    """None where both teams learn."""
    if config.learner == "both":
        return {}
    own = config.opponent if config.opponent in SCRIPTED else TRAINED

    def groups_of(names: Sequence[str] | None) -> list[Group]:
        return groups(names, config, preset, str(own), build)

    return {"opponents": Conditions(groups_of, compared="one by one", own=str(own))}


def groups(names: Sequence[str] | None, config: MateConfig, preset: str, own: str, build: Build) -> list[Group]:
    """The groups of the conditions `opponents`.

    Args:
        names: of opponents, or of presets, there against the opponent of the training; None: all opponents, and all
            other presets that the policy fits.

    Raises:
        ValueError: a name that is not known, a preset that the policy does not fit.
    """
    opponents = list(dict.fromkeys((*SCRIPTED, own)))
    if names is None:
        names = [*opponents, *(other for other in PRESETS if other != preset and misfit(config, preset, other) is None)]
    for name in names:
        if name not in opponents and name not in PRESETS:
            raise ValueError(f"unknown opponent or preset '{name}'; {nearest(name, [*opponents, *PRESETS])}")
        problem = misfit(config, preset, name) if name in PRESETS else None
        if problem is not None:
            raise ValueError(problem)
    team: Team = "targets" if config.learner == "cameras" else "cameras"
    scripted = [name for name in names if name in SCRIPTED]
    # A team that acts in one world at a time would hold up all others.
    slow = [name for name in scripted if (team, name) in ONE_BY_ONE]
    together = [name for name in scripted if name not in slow]
    found = [_numbered(build(preset, members), members) for members in (together, slow) if members]
    alone = [(name, name if name in PRESETS else preset) for name in names if name not in SCRIPTED]
    return found + [_one(build(world, ()), name) for name, world in alone]


def _numbered(env: Environment, names: Sequence[str]) -> Group:
    count = len(names)
    params = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), env.default_params)
    params = params._replace(opponent=jnp.arange(count, dtype=jnp.int32))
    return Group(env, [{"condition": name} for name in names], params)


def _one(env: Environment, name: str) -> Group:
    return Group(env, [{"condition": name}], jax.tree.map(lambda x: jnp.asarray(x)[None], env.default_params))


def misfit(config: MateConfig, preset: str, other: str) -> str | None:
    """Why a policy of a preset cannot act in another one, None where it can."""
    try:
        own, there = _counts(config.preset(preset)), _counts(config.preset(other))
    except ValueError as error:
        return str(error)
    if own == there:
        return None
    numbers = "{} cameras, {} targets and {} obstacles"
    return f"{other} has {numbers.format(*there)}; a policy of {preset} with {numbers.format(*own)} does not fit it"


def _counts(preset: Preset) -> tuple[int, int, int]:
    return len(preset.camera_boxes), len(preset.target_boxes), len(preset.obstacle_boxes)
