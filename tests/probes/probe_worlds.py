"""Worlds so small that the right values and policies are known: each isolates one ability of an algorithm.

`Probe` holds numbers, so different probes are the same program and one `vmap` trains them all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete, Product
from purerl.types import Algorithm


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


# A world with a mask


def tempting_world(endless: bool = False) -> Environment:
    """Three actions pay 1, 2 and 10; the last is legal only where the observation says so.

    One step, which is the end, or with `endless` a time limit in a world that would go on as it is.
    """

    def reset_env(key, params):
        legal = jax.random.bernoulli(key).astype(jnp.float32)
        return legal[None], legal

    def step_env(key, legal, action, params):
        reward = jnp.array([1.0, 2.0, 10.0])[action]
        paid = jnp.where((action == 2) & (legal < 0.5), -100.0, reward)
        return legal[None], legal, paid, jnp.array(not endless), jnp.array(endless), {}

    return Environment(
        name="tempting",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(0.0, 1.0, (1,)),
        action_space=lambda params: Discrete(3),
        action_mask=lambda legal, params: jnp.stack([jnp.array(True), jnp.array(True), legal > 0.5]),
    )


def tempted_actions(algorithm: Algorithm, state) -> jax.Array:
    """Greedy actions where the last is illegal, and where it is legal."""
    mask = jnp.array([[[True, True, False]], [[True, True, True]]])
    return algorithm.act(algorithm.policy(state), (), jnp.array([[[0.0]], [[1.0]]]), mask, None, True)[0][:, 0]


# Worlds for teams and for mixed actions


def team_world() -> Environment:
    """Two agents that see the same; a hidden sign, known to the global state, is paid to both.

    Rewards are sign - (action - goal)^2 with goals of 0.5 and -0.5: one policy for both can only stay between, and only
    a critic of the global state can know the values.
    """

    def reset_env(key, params):
        sign = jax.random.rademacher(key, (), jnp.float32)
        return jnp.zeros((2, 1)), sign

    def step_env(key, sign, action, params):
        reward = sign - (action[:, 0] - jnp.array([0.5, -0.5])) ** 2
        return jnp.zeros((2, 1)), sign, reward, jnp.array(True), jnp.array(False), {}

    return Environment(
        name="team",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-1.0, 1.0, (2, 1)),
        action_space=lambda params: Box(-1.0, 1.0, (2, 1)),
        num_agents=2,
        global_state=lambda sign, params: sign[None],
    )


def leaving_world(absent_sees: float = 1.0, absent_gets: float = 0.0) -> Environment:
    """Two agents see the step; each is paid 1 a step, for two steps, but the second leaves after the first.

    An absent agent sees `absent_sees` and is paid `absent_gets`; neither may matter to what is learned.
    """

    def observed(step):
        return jnp.stack([step, jnp.where(step > 0, absent_sees, step)])[:, None]

    def reset_env(key, params):
        return observed(jnp.zeros(())), jnp.zeros(())

    def step_env(key, step, action, params):
        reward = jnp.stack([jnp.ones(()), jnp.where(step > 0, absent_gets, 1.0)])
        return observed(step + 1), step + 1, reward, step == 1, jnp.array(False), {}

    return Environment(
        name="leaving",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-1e6, 1e6, (2, 1)),
        action_space=lambda params: Box(-1.0, 1.0, (2, 1)),
        num_agents=2,
        alive=lambda step, params: jnp.stack([step >= 0, step == 0]),
    )


def mixed_world() -> Environment:
    """One step: 1 for choosing 1 where the cue is positive and 0 where not, less (amount - cue / 2)^2."""

    def reset_env(key, params):
        cue = jax.random.rademacher(key, (), jnp.float32)
        return cue[None], cue

    def step_env(key, cue, action, params):
        choice, amount = action
        reward = (choice == (cue > 0)) - (amount[0] - cue / 2) ** 2
        return cue[None], cue, reward, jnp.array(True), jnp.array(False), {}

    return Environment(
        name="mixed",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-1.0, 1.0, (1,)),
        action_space=lambda params: Product((Discrete(2), Box(-1.0, 1.0, (1,)))),
    )


# Training


def after_updates(algorithm: Algorithm, updates: int):
    """`(state, metrics)` of a run with key 0."""

    @jax.jit
    def train(key):
        state = algorithm.init(key, algorithm.hparams)
        return jax.lax.scan(lambda s, _: algorithm.update(s), state, length=updates)

    return train(jax.random.key(0))


def greedy_actions(algorithm, state, obs):
    return algorithm.act(algorithm.policy(state), (), jnp.asarray(obs, jnp.float32), None, None, True)[0]
