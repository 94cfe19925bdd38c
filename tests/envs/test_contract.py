"""The environment contract: kept by what is registered, and breaches are found."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax.adapters import with_agent_axis
from envs_jax.base import Assessment, Environment, Guidance
from envs_jax.check import check_env
from envs_jax.spaces import Box, Discrete


def counter(length: int = 4) -> Environment:
    """Counts steps; the observation is the count, the reward the action."""

    def reset_env(key, params):
        return jnp.zeros(2), jnp.zeros((), jnp.int32)

    def step_env(key, count, action, params):
        count = count + 1
        obs = jnp.full(2, count, jnp.float32)
        return obs, count, action[0], count == length, jnp.zeros((), bool), {"count": count}

    return Environment(
        name="counter",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(0.0, float(length), (2,)),
        action_space=lambda params: Box(-1.0, 1.0, (3,)),
        episode_length=length,
        max_episode_length=length,
    )


def test_a_proper_environment_passes():
    check_env(counter())
    check_env(with_agent_axis(counter()))


@pytest.mark.parametrize("name", ["gymnax:Pendulum-v1", "gymnax:CartPole-v1", "gymnax:FrozenLake-misc"])
def test_gymnax_tasks_pass(name):
    check_env(with_agent_axis(envs_jax.make(name)), steps=12)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"terminal": "carry", "carry_days": 2, "reserve": {"mode": "action"}, "action_scale": "feasible"},
        pytest.param(
            {
                "action_mode": "signed", "degradation_model": "segment", "terminal": "value", "obs": "forecast",
                "augmentation": {"enabled": True}, "soc_start": "uniform", "reward_scale": "per_day",
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=["default", "carry", "forecast"],
)  # fmt: skip
def test_bess_passes(settings):
    check_env(envs_jax.make("bess", **settings), steps=50)


def breach(**changes) -> Environment:
    return dataclasses.replace(counter(), **changes)


def step_with(change):
    step = counter().step_env
    return lambda *args: change(*step(*args))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (breach(observation_space=lambda p: Box(0.0, 2.0, (2,))), "outside its space"),
        (breach(observation_space=lambda p: Box(0.0, 9.0, (3,))), "observation shape"),
        (breach(reset_env=lambda key, p: (jnp.zeros(2), jnp.asarray(0))), "weakly typed"),
        (breach(step_env=step_with(lambda o, s, r, t, u, i: (o, s * 1.0, r, t, u, i))), "dtypes"),
        (breach(step_env=step_with(lambda o, s, r, t, u, i: (o, s, r[None], t, u, i))), "reward shape"),
        (breach(step_env=step_with(lambda o, s, r, t, u, i: (o, s, r, t * 1.0, u, i))), "not one boolean"),
        (breach(step_env=step_with(lambda o, s, r, t, u, i: (o, s, r / 0, t, u, i))), "not finite"),
        (breach(episode_length=3), "episode of"),
        (breach(episode_length=None, max_episode_length=3), "longer than max_episode_length"),
        (breach(num_agents=2, observation_space=lambda p: Box(0.0, 4.0, (2,))), "reward shape"),
        (breach(guidance=Guidance(guided_action=lambda key, s, p: jnp.zeros(2))), "guided_action: wrong shape"),
        (breach(guidance=Guidance(rules={"lazy": lambda key, s, p: jnp.zeros(2)})), "lazy: wrong shape"),
        (breach(action_mask=lambda s, p: jnp.ones(3)), "action_mask is .*float32"),
    ],
)
def test_breaches_are_named(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_env(broken)


def test_auto_reset_returns_the_next_start_and_keeps_the_final_observation():
    env = counter(length=2)
    _, state = env.reset(jax.random.key(0))
    for expected in (1, 0, 1, 0):
        obs, state, reward, terminated, _, info = env.step(jax.random.key(1), state, jnp.full(3, 0.5))
        assert (int(state), obs.tolist(), float(reward)) == (expected, [expected] * 2, 0.5)
        assert bool(terminated) == (expected == 0)
        assert info["final_observation"].tolist() == [1.0 if expected else 2.0] * 2


def test_the_agent_axis_changes_shapes_and_nothing_else():
    env = breach(
        action_mask=lambda s, p: jnp.ones(3, bool),
        guidance=Guidance(
            rules={"fixed": lambda key, s, p: jnp.array([0.4, 0.5, 0.6])},
            guided_action=lambda key, s, p: jnp.array([0.1, 0.2, 0.3]),
        ),
        assessment=Assessment(reset_case=lambda key, index, p: (jnp.full(2, index, jnp.float32), index)),
        observation_space=lambda p: Box(np.array([0.0, 1.0]), 4.0, (2,)),
    )
    one = with_agent_axis(env)
    assert with_agent_axis(one) is one
    assert one.num_agents == 1
    obs, state = one.reset(jax.random.key(0))
    assert obs.shape == (1, 2)
    obs, state, reward, terminated, truncated, info = one.step(jax.random.key(0), state, jnp.full((1, 3), 0.5))
    assert (obs.shape, reward.shape, terminated.shape, truncated.shape) == ((1, 2), (1,), (), ())
    assert info["final_observation"].shape == (1, 2)
    assert one.action_mask(state, None).shape == (1, 3)
    assert one.guidance.guided_action(jax.random.key(0), state, None).shape == (1, 3)
    np.testing.assert_allclose(one.guidance.rules["fixed"](jax.random.key(0), state, None), [[0.4, 0.5, 0.6]])
    assert one.assessment.reset_case(jax.random.key(0), 3, None)[0].tolist() == [[3.0, 3.0]]
    space = one.observation_space(None)
    assert (space.shape, space.low.tolist(), space.high.tolist()) == ((1, 2), [[0.0, 1.0]], [[4.0, 4.0]])
    assert one.action_space(None).shape == (1, 3)
    assert with_agent_axis(breach(action_space=lambda p: Discrete(5))).action_space(None) == Discrete(5, (1,))


def test_gymnax_ends_are_two_flags():
    """A pole that falls terminates, a pendulum that runs out of time is truncated."""
    pendulum = envs_jax.make("gymnax:Pendulum-v1", max_steps_in_episode=3)
    assert pendulum.max_episode_length == 3
    _, state = pendulum.reset(jax.random.key(0))
    flags = []
    for _ in range(3):
        _, state, _, terminated, truncated, _ = pendulum.step(jax.random.key(1), state, jnp.zeros(1))
        flags.append((bool(terminated), bool(truncated)))
    assert flags == [(False, False), (False, False), (False, True)]
    pole = envs_jax.make("gymnax:CartPole-v1")
    _, state = pole.reset(jax.random.key(0))
    fallen = state.replace(theta=jnp.asarray(0.3))
    *_, terminated, truncated, _ = pole.step_env(jax.random.key(1), fallen, jnp.asarray(0), pole.default_params)
    assert (bool(terminated), bool(truncated)) == (True, False)


def test_discrete_observations_become_one_hot():
    lake = envs_jax.make("gymnax:FrozenLake-misc")
    obs, _ = lake.reset(jax.random.key(0))
    assert lake.observation_space(lake.default_params).shape == obs.shape
    assert (float(obs.sum()), obs.dtype) == (1.0, jnp.float32)


def test_observations_can_be_hidden():
    whole, part = (envs_jax.make("gymnax:CartPole-v1", **settings) for settings in ({}, {"observed": [2, 0]}))
    check_env(with_agent_axis(part), steps=12)
    (obs, state), (seen, _) = (env.reset(jax.random.key(0)) for env in (whole, part))
    assert seen.tolist() == [obs[2], obs[0]]
    (obs, *_), (seen, *_, info) = (env.step(jax.random.key(1), state, jnp.asarray(1)) for env in (whole, part))
    assert seen.tolist() == info["final_observation"].tolist() == [obs[2], obs[0]]
    all_high, high = (env.observation_space(env.default_params).high for env in (whole, part))
    assert high.tolist() == [all_high[2], all_high[0]]


@pytest.mark.parametrize("observed", [[], [4], [-1], [0, 0], [0.5], [True], "02", 1])
def test_impossible_choices_of_observations_are_refused(observed):
    with pytest.raises(ValueError, match="list different components from 0 to 3"):
        envs_jax.make("gymnax:CartPole-v1", observed=observed)


def test_pictures_have_no_components_to_choose():
    with pytest.raises(ValueError, match=r"this observation has shape \(10, 10, 4\)"):
        envs_jax.make("gymnax:Breakout-MinAtar", observed=[0])


def test_spaces_can_be_asked_for_inside_a_jit():
    reacher = envs_jax.make("gymnax:Reacher-misc")
    sample = jax.jit(lambda key: reacher.action_space(reacher.default_params).sample(key))(jax.random.key(0))
    assert sample.shape == reacher.action_space(reacher.default_params).shape


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bes", {}, "unknown environment 'bes'; did you mean 'bess'?"),
        ("gymnax:Pendulum-v2", {}, "did you mean 'Pendulum-v1'?"),
        ("gymnax:Pendulum-v1", {"max_sped": 3.0}, "did you mean 'max_speed'?"),
    ],
)
def test_unknown_names_suggest_the_nearest(name, settings, message):
    with pytest.raises(ValueError) as error:
        envs_jax.make(name, **settings)
    assert message in str(error.value)


def test_registered_names_point_at_factories_and_models():
    for name in envs_jax.registered_envs:
        assert callable(envs_jax._load(envs_jax.registered_envs[name].factory))
        assert envs_jax.config_model(name).model_config["extra"] == "forbid"
    assert envs_jax.config_model("gymnax:Pendulum-v1") is None
