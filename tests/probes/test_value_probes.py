"""Values of teams in worlds whose answers are known: masks, time limits, memory, cooperation, what to select."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import GAMMA
from probe_worlds import (
    CUES,
    LENGTH,
    RECURRENT_PROBES,
    after_updates,
    episodes,
    probe_world,
    tempted_actions,
    tempting_world,
)
from shared import with_data

import envs_jax
from envs_jax.adapters import with_agent_axis
from envs_jax.base import Entities, EntityKind, Environment, Selection
from envs_jax.spaces import Box, Discrete
from purerl.algos import pqn, qplex
from purerl.learn.teams import networks
from purerl.nets.mixer_parts import MixerConfig
from purerl.nets.utilities import AgentConfig

FEED_FORWARD = qplex.Config(
    name="iql", num_envs=8, steps_per_update=8, chunk_length=1, burn_in=0, warmup_steps=64, buffer_size=4096,
    updates_per_step=0.25, batch_size=64, gamma=GAMMA, lr=1e-2, optimizer="adam", target_update_interval=1, tau=0.05,
    epsilon_start=0.5, epsilon_end=0.5,
    q_network=AgentConfig(type="mlp", hidden_dims=(16, 16), activation="tanh", previous_action=False, agent_id=False),
)  # fmt: skip


PQN = pqn.Config(
    mixer="iql", num_envs=16, steps_per_update=8, epochs=2, minibatches=4, gamma=GAMMA, td_lambda=0.5, lr=5e-3,
    epsilon_start=0.5, epsilon_end=0.5,
    q_network=pqn.NormalisedAgent(type="mlp", hidden_dims=(16,), previous_action=False, agent_id=False),
)  # fmt: skip


@pytest.fixture(scope="module", params=[(qplex, FEED_FORWARD, 120), (pqn, PQN, 60)], ids=["qplex", "pqn"])
def tempted(request):
    module, config, updates = request.param
    algorithm = with_data(module.make(config, tempting_world(endless=True)))
    return config, algorithm, *after_updates(algorithm, updates=updates)


def test_illegal_choices_are_never_taken(tempted):
    *_, metrics = tempted
    assert float(metrics["episode/return"].min()) > 0, "a single illegal choice costs 100"


def test_the_best_legal_choice_is_learned(tempted):
    _, algorithm, state, _ = tempted
    act = lambda *args: algorithm.act(*args[:1], algorithm.initial_carry((2,)), *args[2:])  # noqa: E731
    np.testing.assert_array_equal(tempted_actions(algorithm._replace(act=act), state), [1, 2])


def test_a_time_limit_is_no_end_and_illegal_choices_add_no_value(tempted):
    """What follows is worth the best legal choice for ever: 2 / (1 - gamma), not 10 / (1 - gamma) and not 2."""
    config, _, state, _ = tempted
    nets = networks(config, config.mixer, with_agent_axis(tempting_world(endless=True)), None, 3)
    _, utility = nets.utilities.step(state.learner.params.agents, (), jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose([utility[0, 1], utility[1, 2]], [4.0, 20.0], atol=0.5)


def choosing_world():
    """The probe world with actions -0.5, 0 and 0.5 as choices; the best is half the cue, seen five steps before."""
    env = probe_world(LENGTH)

    def step_env(key, state, action, probe):
        return env.step_env(key, state, (action[None] - 1.0) / 2, probe)

    return dataclasses.replace(
        env,
        default_params=RECURRENT_PROBES["remembered"],
        step_env=step_env,
        action_space=lambda probe: Discrete(3),
    )


def test_memory_connects_the_cue_with_the_end():
    """Chunks of four steps with two of burn-in, over episodes of six: ends fall everywhere."""
    config = FEED_FORWARD.model_copy(
        update={
            "num_envs": 16, "chunk_length": 4, "burn_in": 2, "batch_size": 32, "updates_per_step": 1 / 32,
            "q_network": AgentConfig(type="rnn", hidden_dims=(16,), rnn_hidden_dim=16, agent_id=False),
        }
    )  # fmt: skip
    algorithm = with_data(qplex.make(config, choosing_world()))
    state, _ = after_updates(algorithm, updates=300)

    @jax.jit
    def act(obs):
        def body(carry, x):
            action, carry = algorithm.act(algorithm.policy(state), carry, x, None, None, True)
            return carry, action

        return jax.lax.scan(body, algorithm.initial_carry((2,)), obs)[1]

    action = act(jnp.asarray(episodes(RECURRENT_PROBES["remembered"]), jnp.float32)[:, :, None])
    np.testing.assert_array_equal((np.asarray(action)[-1, :, 0] - 1) / 2, CUES / 2)


@pytest.mark.parametrize(
    "name", ["qplex", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vdn", "qmix", "qfix"))]
)
def test_teams_find_a_joint_action_that_is_best_for_each(name):
    """Three agents; more of everything is better, so that every mixer can say so."""
    payoff = np.add.outer(np.add.outer([0.0, 1.0], [0.0, 2.0, 1.0]), [3.0, 0.0])
    env = envs_jax.make("matrix", payoff=payoff.tolist())
    config = FEED_FORWARD.model_copy(
        update={
            "name": name, "mixer": name, "lr": 3e-3, "epsilon_start": 1.0, "epsilon_end": 1.0,
            "q_network": AgentConfig(type="mlp", hidden_dims=(16,)),
            "mixing_network": MixerConfig(num_kernel=2, adv_hypernet_layers=1, hypernet_embed=16),
        }
    )  # fmt: skip
    algorithm = with_data(qplex.make(config, env))
    state, metrics = after_updates(algorithm, updates=40)
    action, _ = algorithm.act(
        algorithm.policy(state), algorithm.initial_carry((1,)), jnp.zeros((1, 3, 2)), env.action_mask(None, None)[None],
        None, True,
    )  # fmt: skip
    np.testing.assert_array_equal(action, [[1, 1, 0]])
    assert float(metrics["td_error_abs"][-1]) < 0.5


THINGS = 3


def showing_world() -> Environment:
    """Two agents see some of their three things, and the team is paid what those that they select are worth. One step.

    To select what is not seen costs 100.
    """

    def observe(worth, seen):
        things = jnp.stack([worth * seen, seen], axis=-1).reshape(2, -1)
        return jnp.concatenate([jnp.zeros((2, 1)), things], axis=1)

    def reset_env(key, params):
        key_worth, key_seen = jax.random.split(key)
        worth = jax.random.uniform(key_worth, (2, THINGS), minval=-1.0)
        seen = jax.random.bernoulli(key_seen, 0.7, (2, THINGS)).astype(jnp.float32)
        return observe(worth, seen), (worth, seen)

    def step_env(key, state, action, params):
        worth, seen = state
        paid = jnp.sum(action * jnp.where(seen > 0, worth, -100.0))
        return observe(worth, seen), state, jnp.full(2, paid), jnp.array(True), jnp.array(False), {}

    return Environment(
        name="showing",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-1.0, 1.0, (2, 1 + 2 * THINGS)),
        action_space=lambda params: Discrete(2, (2, THINGS)),
        num_agents=2,
        action_mask=lambda state, params: jnp.stack([jnp.ones_like(state[1]), state[1]], axis=-1) > 0,
        entities=Entities(own=1, kinds={"things": EntityKind(THINGS, 2)}),
        selection=Selection("factored", THINGS, "things"),
    )


def test_agents_learn_what_to_select():
    """The network of one thing is that of all: what is worth something and seen is selected."""
    config = FEED_FORWARD.model_copy(
        update={
            "name": "qplex", "mixer": "qplex",
            "mixing_network": MixerConfig(num_kernel=2, adv_hypernet_layers=1, hypernet_embed=16),
            "q_network": AgentConfig(
                type="attention_rnn", hidden_dims=(8,), rnn_hidden_dim=8, num_attention_heads=2, previous_action=False
            ),
        }
    )  # fmt: skip
    env = showing_world()
    algorithm = with_data(qplex.make(config, env))
    state, metrics = after_updates(algorithm, updates=80)
    assert float(metrics["episode/return"].min()) > -50, "nothing hidden is ever selected"
    obs, (worth, seen) = jax.vmap(env.reset_env, (0, None))(jax.random.split(jax.random.key(5), 64), None)
    legal = jax.vmap(env.action_mask, (0, None))((worth, seen), None)
    action, _ = algorithm.act(algorithm.policy(state), algorithm.initial_carry((64,)), obs, legal, None, True)
    np.testing.assert_array_less(0.95, np.mean(np.asarray(action) == (worth > 0) * (seen > 0)))
    assert 0.2 < float(metrics["attention_things"][-1]) <= 1.0


@pytest.mark.parametrize("kind", ["mlp", pytest.param("rnn", marks=pytest.mark.slow)])
def test_a_sum_finds_a_joint_action_that_is_best_for_each(kind):
    """Three agents on the payoffs that VDN can represent: each adds its own."""
    payoff = np.add.outer(np.add.outer([0.0, 1.0], [0.0, 2.0, 1.0]), [3.0, 0.0])
    env = envs_jax.make("matrix", payoff=payoff.tolist())
    agent = pqn.NormalisedAgent(type=kind, hidden_dims=(16,), rnn_hidden_dim=16)
    algorithm = with_data(pqn.make(PQN.model_copy(update={"mixer": "vdn", "q_network": agent}), env))
    state, metrics = after_updates(algorithm, updates=60)
    mask = env.action_mask(None, None)[None]
    act = jax.jit(
        lambda obs: algorithm.act(algorithm.policy(state), algorithm.initial_carry((1,)), obs, mask, None, True)
    )
    np.testing.assert_array_equal(act(jnp.zeros((1, 3, 2)))[0], [[1, 1, 0]])
    assert float(metrics["td_error_abs"][-1]) < 0.5
