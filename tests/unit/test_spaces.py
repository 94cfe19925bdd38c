"""Spaces of every kind: what agents see and do of them, which algorithms take them, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from shared import with_data

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.check import check_env
from envs_jax.spaces import Box, Discrete, Product
from purerl.algos import ppo, sac, td3
from purerl.nets import policies
from purerl.nets.actions import actions_of
from purerl.nets.networks import NetworkConfig
from purerl.nets.policies import Outputs

LINEAR = NetworkConfig(hidden_sizes=())
PLAIN = Box(-1.0, 1.0, (2,))
THREE = Discrete(5, (3,))
SEEN = {"speed": Box(-np.inf, np.inf, ()), "camera": {"left": Box(0.0, 1.0, (2, 2)), "gear": Discrete(3)}}


def observed(space):
    """An observation with a number of its own in every place."""
    if isinstance(space, dict):
        return {name: observed(part) for name, part in space.items()}
    if isinstance(space, Discrete):
        return jnp.full(space.shape, space.n - 1)
    return jnp.arange(1, 1 + np.prod(space.shape, dtype=int), dtype=jnp.float32).reshape(space.shape) / 8


def world(space, seen=PLAIN, **changes) -> Environment:
    """Two steps that always look the same; `info` holds the action that arrived."""

    def step_env(key, time, action, params):
        arrived = {f"action{i}": part for i, part in enumerate(jax.tree.leaves(action))}
        reward = jnp.ones(()) if changes.get("num_agents") is None else jnp.ones(changes["num_agents"])
        return observed(seen), time + 1, reward, time == 1, jnp.zeros((), bool), arrived

    return Environment(
        name="many",
        default_params=None,
        reset_env=lambda key, params: (observed(seen), jnp.zeros((), jnp.int32)),
        step_env=step_env,
        observation_space=lambda params: seen,
        action_space=lambda params: space,
        episode_length=2,
        max_episode_length=2,
        **changes,
    )


def legal(part: Discrete, first: int):
    """Choices from `first` on."""
    return jnp.broadcast_to(jnp.arange(part.n) >= first, (*part.shape, part.n))


WORLDS = {
    "dict": world(Box(-1.0, 1.0, (2, 2)), SEEN),
    "choices": world(THREE, action_mask=lambda state, params: legal(THREE, 3)),
    "combined": world(
        Product((Discrete(2), THREE, PLAIN)), action_mask=lambda state, params: (None, legal(THREE, 3), None)
    ),
    "unbounded": world(Box(np.array([-np.inf, 0.0]), np.inf, (2,)), Discrete(4)),
    "team": world(Box(-1.0, 1.0, (2, 2, 2)), {"own": Box(0.0, 1.0, (2, 2)), "gear": Discrete(3, (2,))}, num_agents=2),
}


@pytest.mark.parametrize("kind", WORLDS)
def test_every_kind_passes_the_check(kind):
    check_env(WORLDS[kind], steps=3)


@pytest.mark.parametrize("kind", WORLDS)
def test_an_update_of_ppo_can_be_traced(kind):
    config = ppo.Config(num_envs=2, steps_per_update=4, minibatches=1, actor=LINEAR, critic=LINEAR, kl_coef=0.1)
    algorithm = with_data(ppo.make(config, WORLDS[kind]))
    state = jax.eval_shape(algorithm.init, jax.random.key(0), algorithm.hparams)
    after, _ = jax.eval_shape(algorithm.update, state)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


def test_observations_lie_side_by_side_by_name():
    env = with_agent_axis(WORLDS["dict"])
    obs, _ = env.reset(jax.random.key(0))
    assert obs.tolist() == [[0, 0, 1, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 1 / 8]]  # gear, left, speed
    space = env.observation_space(None)
    assert space.low.tolist() == [[0, 0, 0, 0, 0, 0, 0, -np.inf]]
    assert space.high.tolist() == [[1, 1, 1, 1, 1, 1, 1, np.inf]]
    team = with_agent_axis(WORLDS["team"])
    assert team.reset(jax.random.key(0))[0].tolist() == [[0, 0, 1, 1 / 8, 2 / 8], [0, 0, 1, 3 / 8, 4 / 8]]


@pytest.mark.parametrize(
    ("kind", "given", "arrived"),
    [
        ("dict", np.arange(4)[None], [[[0, 1], [2, 3]]]),
        ("choices", np.array([[4, 0, 2]]), [[4, 0, 2]]),
        ("combined", (np.array([1]), np.array([[4, 0, 2]]), np.array([[0.5, -0.5]])), [1, [4, 0, 2], [0.5, -0.5]]),
        ("team", np.arange(8).reshape(2, 4), [np.arange(8).reshape(2, 2, 2).tolist()]),
    ],
)
def test_every_number_of_an_action_arrives(kind, given, arrived):
    env = with_agent_axis(WORLDS[kind])
    assert with_agent_axis(env) is env
    assert jax.tree.map(jnp.shape, given) == jax.tree.map(
        jnp.shape, env.action_space(None).sample(jax.random.key(0))
    )  # what agents choose is what they are asked for
    *_, info = env.step(jax.random.key(0), jnp.zeros((), jnp.int32), jax.tree.map(jnp.asarray, given))
    assert [info[f"action{i}"].tolist() for i in range(len(arrived))] == arrived


def test_masks_have_the_shape_of_the_choices():
    masks = with_agent_axis(WORLDS["combined"]).action_mask(None, None)
    assert [None if mask is None else mask.shape for mask in masks] == [None, (1, 3, 5), None]


def test_several_choices_are_made_one_by_one():
    """Three legal choices of their own; the probability of all is the product."""
    space, head = Discrete(5, (1, 3)), jax.random.normal(jax.random.key(0), (400, 1, 15))
    mask = with_agent_axis(WORLDS["choices"]).action_mask(None, None)
    dist = policies.distribution(space, Outputs(head, None), mask)
    raw = dist.sample_from(policies.draw_noise(space, jax.random.key(1), (400, 1)))
    assert (raw.shape, np.unique(raw).tolist()) == ((400, 1, 3), [3, 4])
    assert len(np.unique(raw.reshape(-1, 3), axis=0)) == 8
    parts = [
        policies.distribution(Discrete(5, (1,)), Outputs(head[..., 5 * i : 5 * i + 5], None), mask[:, i])
        for i in range(3)
    ]
    together = sum(part.log_prob(raw[..., i]) for i, part in enumerate(parts))
    np.testing.assert_allclose(dist.raw_log_prob(raw), together, rtol=1e-5)
    np.testing.assert_allclose(dist.entropy(), sum(part.entropy() for part in parts), rtol=1e-5)


def test_what_has_no_bound_is_not_scaled():
    box = Box(np.array([[-np.inf, 0.0, -np.inf, 2.0]]), np.array([[np.inf, np.inf, -1.0, 4.0]]), (1, 4))
    raw = jnp.array([[[7.0, 7.0, 7.0, 7.0]], [[-7.0, -7.0, -7.0, -0.5]]])
    np.testing.assert_array_equal(policies.env_action(box, raw), [[[7, 7, -1, 4]], [[-7, 0, -7, 2.5]]])
    assert bool(box.contains(box.sample(jax.random.key(0))))


FEW = {"num_envs": 1, "steps_per_update": 1, "sequence_length": 1, "actor": LINEAR, "critic": LINEAR}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sac.make(sac.Config(**FEW), WORLDS["combined"]),
         "takes one choice, or a range of continuous actions; many has a combination of a choice of 2 and 3 choices of "
         "5 at once and a range of 2: ppo, impala and appo take it"),
        (lambda: sac.make(sac.Config(**FEW), WORLDS["choices"]), "has 3 choices of 5 at once: ppo"),
        (lambda: td3.make(td3.Config(**FEW, policy_delay=1), WORLDS["choices"]),
         "needs continuous actions.*3 choices of 5.*use ppo"),
        (lambda: sac.make(sac.Config(**FEW), WORLDS["unbounded"]),
         r"component 0 of many's actions is in \[-inf, inf\]; give it bounds"),
        (lambda: ppo.make(ppo.Config(policy="squashed"), WORLDS["unbounded"]),
         r"policy: squashed needs a bounded action space; component 0 .* or set policy to normal"),
        (lambda: with_agent_axis(world(PLAIN, {"eye": (3,)})), r"observation\['eye'\]\[0\] has builtins.int; use Box"),
        (lambda: with_agent_axis(world(PLAIN, Product((PLAIN,)))), "observation has envs_jax.spaces.Product; use Box"),
        (lambda: with_agent_axis(world({"arm": PLAIN})), "action_space of many is builtins.dict; use Box, Discrete"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_one_choice_and_bounded_ranges_of_any_shape_are_taken_by_all():
    assert actions_of(with_agent_axis(WORLDS["dict"]), None).dim == 4
    assert actions_of(with_agent_axis(world(Discrete(3))), None).dim == 3


@pytest.mark.parametrize(
    ("seen", "value", "message"),
    [
        (PLAIN, jnp.array([0.0, jnp.nan]), r"observation is not finite at \[1\] \(step 0\)"),
        (SEEN, observed(SEEN) | {"speed": jnp.array(jnp.inf)}, r"observation\['speed'\] is not finite \(step 0\)"),
        ({"a": PLAIN, "b": PLAIN}, {"a": jnp.zeros(2), "b": jnp.array([0.5, 2.0])},
         r"observation\['b'\] outside its space at \[1\]"),
    ],
)  # fmt: skip
def test_the_check_says_which_component_is_wrong(seen, value, message):
    env = world(PLAIN, seen)
    blind = dataclasses.replace(env, step_env=lambda *args: (value, *env.step_env(*args)[1:]))
    with pytest.raises(AssertionError, match=message):
        check_env(blind, steps=1)


def starting(env: Environment, obs) -> Environment:
    return dataclasses.replace(env, reset_env=lambda key, params: (obs, jnp.zeros((), jnp.int32)))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (starting(WORLDS["dict"], {"speed": jnp.zeros(())}), r"the observation is .*its space .*'camera'"),
        (starting(WORLDS["dict"], observed(SEEN) | {"speed": jnp.zeros(2)}), r"observation\['speed'\] shape \(2,\)"),
        (world(THREE, action_mask=lambda state, params: jnp.ones(5, bool)), r"action_mask shape \(5,\) is not .*3, 5"),
    ],
)
def test_the_check_names_shapes_and_entries_that_differ(env, message):
    with pytest.raises(AssertionError, match=message):
        check_env(env, steps=1)
