"""Actions and what they command: two numbers in [-1, 1], or one of fifteen choices."""

from typing import Any

import jax.numpy as jnp

from envs_jax.atc.params import SPEED_KT, TURN_DEG

TURNS, SPEEDS = 5, 3
"""Choices: turn number action // 3 of -18, -9, 0, 9, 18 deg and speed number action % 3 of -10, 0, 10 kt."""


def as_continuous(choice, dtype=float) -> tuple[Any, Any]:
    """`(turn, faster)` in [-1, 1] of choices, same shape."""
    turn = (choice // SPEEDS).astype(dtype) * (2 / (TURNS - 1)) - 1
    return turn, (choice % SPEEDS).astype(dtype) - 1


def as_discrete(action):
    """The nearest choices, int32 [N], of actions [N, 2]."""
    turn, speed = jnp.round((action[:, 0] + 1) * ((TURNS - 1) / 2)), jnp.round(action[:, 1] + 1)
    return (turn * SPEEDS + speed).astype(jnp.int32)


def commands(action, discrete: bool) -> tuple[Any, Any]:
    """Commanded turns in deg and changes of speed in kt of actions [..., N, 2], discrete [..., N]; before any delay."""
    if discrete:
        turn, faster = as_continuous(action)
    else:
        action = jnp.clip(action, -1.0, 1.0)
        turn, faster = action[..., 0], action[..., 1]
    return TURN_DEG * turn, SPEED_KT * faster
