"""What the tests of air traffic share: airspaces of a scenario, and flights in them.

Compiling a step takes seconds: programs are kept by the rules they are made of, and everything else is an argument.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.atc import scenarios
from envs_jax.atc.baselines import BASELINES
from envs_jax.atc.config import AtcConfig
from envs_jax.atc.env import Functions, params_of
from envs_jax.atc.geometry import NM_PER_DEG
from envs_jax.atc.kinematics import wrap_deg
from envs_jax.atc.params import Rules

LONG = 50
"""Steps of all shorter flights, too."""


def world(scenario="head_on", **settings):
    """`(rules, params)` of a scenario or its name; no jitter unless asked for."""
    config = AtcConfig(**{"jitter": 0, **settings})
    scenario = scenarios.named(scenario) if isinstance(scenario, str) else scenario
    count = max(len(scenario.agents), 2, config.pad_to or 0)
    return config.rules(count, windy=config.wind is not None), params_of(config, scenario, count)


def stacked(trees):
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


@lru_cache
def started(rules: Rules):
    """`(start, params) -> (obs, state)`, compiled."""
    return jax.jit(Functions(rules).at)


@lru_cache
def _program(rules: Rules, steps: int, several: bool):
    functions = Functions(rules)

    def one(start, params, pilot, command):
        def step(state, _):
            scripted = [rule(state, params) for rule in BASELINES.values()]
            commanded = jnp.broadcast_to(command.astype(state.hdg.dtype), scripted[0].shape)
            action = jnp.stack([*scripted, commanded])[pilot]
            obs, state, reward, terminated, truncated, info = functions.step(None, state, action, params)
            ends = {"terminated": terminated, "truncated": truncated, "done": terminated | truncated}
            return state, {**info, **ends, "obs": obs, "reward": reward, "state": state}

        return jax.lax.scan(step, functions.at(start, params)[1], None, length=steps)[1]

    return jax.jit(jax.vmap(one, (0, 0, None, None), out_axes=1) if several else one)


def fly(rules: Rules, params, pilot, steps: int) -> dict:
    """What `steps` steps from the scenario's start give, time first: info, obs, reward, ends, the state after each.

    Args:
        params: of one airspace, or of several [B, ...]: then their axis follows that of time.
        pilot: a name of `BASELINES`, or the command (turn, faster) that all aircraft repeat.
    """
    number, command = (list(BASELINES).index(pilot), (0.0, 0.0)) if isinstance(pilot, str) else (-1, pilot)
    program = _program(rules, max(steps, LONG), jnp.ndim(params.lat) > 0)
    history = program(params.start, params, jnp.asarray(number), jnp.asarray(command, float))
    return jax.tree.map(lambda x: x[:steps], jax.device_get(history))


def ends_at(history) -> np.ndarray:
    """Index of the last step of the first episode, of every airspace."""
    assert history["done"].any(axis=0).all()
    return history["done"].argmax(axis=0)


def positions_nm(dlat, dlon, lat: float) -> np.ndarray:
    """(north, east) in a plane, NM."""
    return np.stack([np.asarray(dlat), np.asarray(dlon) * np.cos(np.radians(lat + np.asarray(dlat)))]) * NM_PER_DEG


def assert_same_angles(found, expected, atol: float, **keywords):
    """Angles in deg agree on the circle: 0 and 359.9999999 are neighbours."""
    off = wrap_deg(np.asarray(found, float) - np.asarray(expected, float))
    np.testing.assert_allclose(off, 0, atol=atol, **keywords)
