"""Worlds so small that the right values and policies are known: each isolates one ability of an algorithm.

`Probe` holds numbers, so different probes are the same program and one `vmap` trains them all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.base import Environment
from envs_jax.spaces import Box


class Probe(NamedTuple):
    """An episode of `length` steps with a random cue of -1 or 1; observation [cue, progress], action in [-1, 1]."""

    length: float = 1.0
    every_step: float = 0.0
    """Reward of every step."""
    cue: float = 0.0
    """Weight of the cue in the reward of the first step."""
    last_step: float = 0.0
    """Reward of the last step."""
    follow_cue: float = 0.0
    """Weight of -(action - cue / 2)^2 in the reward of the last step."""
    cue_shown_once: float = 0.0
    """1: the cue is seen in the first step only."""
    progress_shown: float = 1.0
    time_limit: float = 0.0
    """1: the end is a truncation, after which the world would go on; 0: a termination."""


def probe_world(episode_length: int | None = None) -> Environment:
    """The world whose parameters are a `Probe`; `episode_length` where all episodes have that length."""

    def observed(state, probe: Probe):
        cue, step = state
        visible = jnp.where((step > 0) & (probe.cue_shown_once > 0), 0.0, cue)
        return jnp.stack([visible, probe.progress_shown * step / probe.length])

    def reset_env(key, probe: Probe):
        state = (jax.random.rademacher(key, (), jnp.float32), jnp.zeros(()))
        return observed(state, probe), state

    def step_env(key, state, action, probe: Probe):
        cue, step = state
        last = step == probe.length - 1
        missed = (action[0] - cue / 2) ** 2
        reward = probe.every_step + probe.cue * cue * (step == 0)
        reward = reward + last * (probe.last_step - probe.follow_cue * missed)
        state = (cue, step + 1)
        cut = probe.time_limit > 0
        return observed(state, probe), state, reward, last & ~cut, last & cut, {}

    return Environment(
        name="probe",
        default_params=Probe(),
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda probe: Box(-1.0, 1.0, (2,)),
        action_space=lambda probe: Box(-1.0, 1.0, (1,)),
        episode_length=episode_length,
        max_episode_length=episode_length or 100,
    )


def stacked(probes: dict[str, Probe]) -> Probe:
    """All probes as one, with a leading axis."""
    return jax.tree.map(lambda *numbers: jnp.asarray(numbers, jnp.float32), *probes.values())
