"""Whole episodes: rules fly from the same starts as anybody else, and everything about a step can be kept."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax.adapters import with_agent_axis
from envs_jax.base import Assessment
from envs_jax.episodes import play, play_rules
from purerl.config import load_members

ENV = envs_jax.make("atc/head_on", max_episode_steps=30)


def by(rule):
    def act(memory, obs, state, key):
        return jax.vmap(ENV.guidance.rules[rule], (0, 0, None))(
            jax.random.split(key, 3), state, ENV.default_params
        ), memory

    return act


@pytest.fixture(scope="module")
def together():
    run = jax.jit(lambda key: play_rules(ENV, ENV.default_params, ("noop", "mvp"), jnp.arange(3), key, whole=True))
    return jax.device_get(run(jax.random.key(0)))


@pytest.mark.slow
def test_rules_flown_together_are_those_flown_alone(together):
    for number, name in enumerate(("noop", "mvp")):
        alone = jax.jit(lambda key, name=name: play(ENV, ENV.default_params, by(name), (), jnp.arange(3), key, True))
        records = jax.device_get(alone(jax.random.key(0)).records)
        for key in ("reward", "active", "case", "hdg", "success"):
            np.testing.assert_allclose(together[key][number], records[key], rtol=1e-5, atol=1e-4, err_msg=key)
    assert not np.array_equal(together["hdg"][0], together["hdg"][1])


def test_whole_records_chain_states(together):
    state = together["state"]
    np.testing.assert_array_equal(state.hdg[:, :, 1:], together["hdg"][:, :, :-1])
    np.testing.assert_array_equal(together["rewards"].sum(axis=-1) * together["active"], together["reward"])
    np.testing.assert_array_equal(state.dlat[0, :, 0], state.dlat[1, :, 0], "the same starts")
    assert len({float(x) for x in state.dlat[0, :, 0, 0]}) == 3, "but of every case its own"


def test_without_whole_only_scalars_are_kept():
    run = jax.jit(lambda key: play_rules(ENV, ENV.default_params, ("noop",), jnp.arange(2), key))
    assert {x.shape for x in run(jax.random.key(0)).values()} == {(1, 2, 30)}


def test_condensed_records_are_of_everything_and_of_the_parameters():
    def condense(records, params):
        pushed = params.g * records["action"][:, 0, 0]
        return {"pushed": pushed, "places": (records["state"].theta, records["case"])}

    pendulum = with_agent_axis(envs_jax.make("gymnax:Pendulum-v1", max_steps_in_episode=10))
    env = dataclasses.replace(pendulum, assessment=Assessment(condense=condense))
    params = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 2), env.default_params)
    params = params.replace(g=jnp.array([10.0, 5.0]))
    cases = jnp.array([4, 2])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def run(params, key):
        def act(memory, obs, state, key):
            return obs[..., :1], memory

        return [play(env, params, act, (), cases, key, whole).records for whole in (True, False)]

    with jax.debug_key_reuse(False):  # twice the same episodes
        whole, scalars = jax.device_get(run(params, jax.random.key(0)))
    assert {x.shape for x in jax.tree.leaves(scalars)} == {(2, 2, 10)} and "state" not in scalars
    for records in (whole, scalars):
        expected = np.array([10.0, 5.0])[:, None, None] * whole["action"][..., 0, 0]
        np.testing.assert_allclose(records["pushed"], expected, rtol=1e-5)
        theta, case = records["places"]
        np.testing.assert_array_equal(theta, whole["state"].theta)
        np.testing.assert_array_equal(case[0, :, 0], cases)


def test_a_suite_is_its_members_and_anything_else_itself(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text("preset: wide\nenv: {name: atc/all}\nalgo: {name: ppo}\n")
    names = [config.env["name"] for config in load_members(path).values()]
    assert names == [
        f"atc/{name}" for name in ("head_on", "parallel", "t_formation", "canonical_crossing", "converging")
    ]
    assert [config.env["name"] for config in load_members(path, ["env.name=atc/generic"]).values()] == ["atc/generic"]
    assert len(load_members(path, ["env.name=atc/nine"])) == 9
    crosses = load_members(path, ["env.name=atc/crosses"]).values()
    assert [config.env["name"] for config in crosses] == ["atc/cross_2x2", "atc/cross_3p1", "atc/cross_4all"]
