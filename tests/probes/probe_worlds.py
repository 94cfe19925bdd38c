"""Worlds so small that the right values and policies are known: each isolates one ability of an algorithm.

`Probe` holds numbers, so different probes are the same program and one `vmap` trains them all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


# The worlds that every algorithm learns, without memory and with it

FEED_FORWARD_PROBES = {
    "constant": Probe(every_step=1.0),
    "observed": Probe(cue=1.0),
    "delayed": Probe(length=2.0, last_step=1.0),
    "chosen": Probe(follow_cue=1.0),
    "endless": Probe(length=10.0, every_step=1.0, progress_shown=0.0, time_limit=1.0),
}

LENGTH = 6
"""Steps of the episodes that need memory."""
RECURRENT_PROBES = {
    "remembered": Probe(length=LENGTH, follow_cue=4.0, cue_shown_once=1.0),
    "delayed": Probe(length=LENGTH, last_step=4.0, progress_shown=0.0),
    "endless": Probe(length=LENGTH, every_step=1.0, progress_shown=0.0, time_limit=1.0),
}
CUES = np.array([1.0, -1.0])


def episodes(probe: Probe) -> np.ndarray:
    """Observations [T, 2, 2] of an episode with either cue."""
    step = np.arange(LENGTH)
    shown = CUES[None] * ((step == 0) | (probe.cue_shown_once == 0))[:, None]
    progress = np.broadcast_to((probe.progress_shown * step / LENGTH)[:, None], shown.shape)
    return np.stack([shown, progress], axis=-1)
