"""A policy inside the parameters of another environment: two levels train in turns, each compiled once."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete
from purerl.algos import ppo
from purerl.nets.networks import NetworkConfig
from purerl.run.program import scan_updates
from purerl.types import Algorithm, Data

FRAMES, DECISIONS = 4, 3
SMALL = NetworkConfig(hidden_sizes=(4,), activation="tanh")
CONFIG = ppo.Config(
    num_envs=4, steps_per_update=8, epochs=1, minibatches=1, lr=1e-2, actor=SMALL, critic=SMALL, entropy_coef=0.0
)  # fmt: skip


class Point(NamedTuple):
    at: jax.Array
    aim: jax.Array
    time: jax.Array


def moved(point: Point, action) -> tuple[Point, jax.Array]:
    """The point after a step of the lower level, and what that pays."""
    at = point.at + 0.5 * jnp.clip(action[0], -1.0, 1.0)
    return point._replace(at=at, time=point.time + 1), -((at - point.aim) ** 2)


def seen(point: Point):
    return jnp.stack([point.at, point.aim])


def micro_world() -> Environment:
    """Move to an aim."""

    def reset_env(key, params):
        point = Point(jnp.zeros(()), jax.random.uniform(key, (), minval=-1.0, maxval=1.0), jnp.zeros((), jnp.int32))
        return seen(point), point

    def step_env(key, point, action, params):
        point, reward = moved(point, action)
        return seen(point), point, reward, jnp.zeros((), bool), point.time == FRAMES, {}

    return Environment(
        name="micro",
        default_params=(),
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-10.0, 10.0, (2,)),
        action_space=lambda params: Box(-1.0, 1.0, (1,)),
        max_episode_length=FRAMES,
    )


class MacroParams(NamedTuple):
    wanted: jax.Array
    """Where the point should be."""
    micro: Any
    """Policy of the lower level."""


def macro_world(micro: Algorithm, params: MacroParams) -> Environment:
    """Choose an aim that the lower level holds for some frames; a step is a scan of the lower environment."""

    def reset_env(key, params):
        return jnp.zeros(1), Point(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def step_env(key, point, action, params):
        point = point._replace(aim=action - 1.0)

        def frame(carried, _):
            point, memory = carried
            action, memory = micro.act(params.micro, memory, seen(point)[None, None], None, jax.random.key(0), True)
            point, _ = moved(point, action[0, 0])
            return (point, memory), -((point.at - params.wanted) ** 2)

        start = point, micro.initial_carry((1,))
        (point, _), paid = jax.lax.scan(frame, start, None, length=FRAMES)
        ends = point.time == FRAMES * DECISIONS
        info = {"frames": jnp.asarray(FRAMES)}
        return point.at[None], point, jnp.sum(paid), jnp.zeros((), bool), ends, info

    return Environment(
        name="macro",
        default_params=params,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-10.0, 10.0, (1,)),
        action_space=lambda params: Discrete(3),
        max_episode_length=DECISIONS,
    )


def test_two_levels_train_in_turns_without_a_second_compilation():
    micro = ppo.make(CONFIG, micro_world())
    lower = jax.jit(micro.init)(jax.random.key(0), micro.hparams, micro.load_data())
    params = MacroParams(jnp.asarray(1.0), micro.policy(lower))
    macro = ppo.make(CONFIG, macro_world(micro, params))
    upper = jax.jit(macro.init)(jax.random.key(1), macro.hparams, macro.load_data())

    traces = []

    def once(algorithm: Algorithm):
        def update(state, data):
            traces.append(algorithm)
            return scan_updates(algorithm.update, state, data, 4)

        return jax.jit(update)

    improve_lower, improve_upper = once(micro), once(macro)
    returns = []
    for _ in range(6):
        lower, below = improve_lower(lower, micro.load_data())
        upper, above = improve_upper(upper, Data(params._replace(micro=micro.policy(lower))))
        returns.append((float(below["episode/return"][-1]), float(above["episode/return"][-1])))
    assert len(traces) == 2, "one for each level"
    assert above["frames"].tolist() == [FRAMES * CONFIG.num_envs * CONFIG.steps_per_update] * 4
    assert np.isfinite(returns).all() and len({value for pair in returns for value in pair}) == 12

    # The same step with another policy in its parameters, one frame after the other.
    world = macro_world(micro, params)
    _, point = world.reset_env(jax.random.key(0), params)
    for policy in (params.micro, micro.policy(lower)):
        _, after, reward, *_ = world.step_env(None, point, jnp.asarray(2), params._replace(micro=policy))
        one, paid = point._replace(aim=jnp.asarray(1.0)), 0.0
        for _ in range(FRAMES):
            action, _ = micro.act(policy, (), seen(one)[None, None], None, None, True)
            one, _ = moved(one, action[0, 0])
            paid -= float((one.at - 1.0) ** 2)
        assert float(reward) == pytest.approx(paid, rel=1e-5) and float(after.at) == pytest.approx(
            float(one.at), rel=1e-5
        )
