"""PQN: targets of a roll-out against a plain loop, layer normalisation, rows and sequences, one update, keys."""

import jax
import numpy as np
import pytest
from pydantic import ValidationError
from replay_cases import Run, random_like, trees_equal
from team_cases import AGENTS, CHOICES, team_world

from envs_jax.adapters import with_agent_axis
from purerl.algos import pqn
from purerl.learn import rollout
from purerl.learn.teams import Players
from purerl.nets.utilities import Memory

WORLDS, STEPS = 4, 6
MLP = pqn.Config(
    num_envs=WORLDS, steps_per_update=STEPS, epochs=2, minibatches=3, gamma=0.9, td_lambda=0.6, epsilon_start=0.5,
    q_network=pqn.NormalisedAgent(type="mlp", hidden_dims=(4,)),
)  # fmt: skip
RNN = MLP.model_copy(
    update={
        "minibatches": 2,
        "q_network": pqn.NormalisedAgent(type="rnn", hidden_dims=(4,), rnn_hidden_dim=4),
    }
)


class Case:
    """A roll-out of networks with random parameters, and what it teaches."""

    def __init__(self, config: pqn.Config):
        env = with_agent_axis(team_world())
        players = Players("pqn", config, config.mixer, env, None)
        self.params = random_like(jax.eval_shape(players.nets.init, jax.random.key(0)))
        exploring = players.exploring(self.params.agents, None, 0.5, WORLDS)
        h = pqn.HParams(gamma=config.gamma, td_lambda=config.td_lambda, lr=1.0, epsilon_start=0.5, epsilon_end=0.5,
                        epsilon_anneal_steps=1.0, epsilon_decay=1.0)  # fmt: skip

        @jax.jit
        def ask(params):
            memory = players.nets.utilities.empty_memory((WORLDS, AGENTS))
            key_start, key = jax.random.split(jax.random.key(1))
            worlds = rollout.start_worlds(env, None, key_start, WORLDS, memory)
            _, steps, _ = rollout.collect(env, None, worlds, *exploring, key, STEPS)
            return steps, pqn.lesson_of(config, players.nets, params, steps, h)

        self.steps, (self.batch, self.y) = jax.device_get(ask(self.params))
        assert self.steps.terminated.any() and self.steps.truncated.any() and (~self.steps.facts.alive).any()


@pytest.fixture(scope="module")
def case():
    return Case(MLP)


def utility_by_hand(agents, agent, obs, previous):
    """Of the observation, the action before (one more than its number) and the agent's own number: a layer that is
    normalised, ReLU, a layer."""
    head = jax.tree.map(lambda x: np.asarray(x, np.float64), agents["head"]["params"])
    before = np.eye(CHOICES)[previous - 1] if previous else np.zeros(CHOICES)
    x = np.concatenate([obs, before, np.eye(AGENTS)[agent]])
    h = x @ head["_Linear_0"]["kernel"] + head["_Linear_0"]["bias"]
    h = (h - h.mean()) / np.sqrt(h.var() + 1e-6) * head["norm_0_scale"] + head["norm_0_shift"]
    return np.maximum(h, 0.0) @ head["_Linear_1"]["kernel"] + head["_Linear_1"]["bias"]


def test_targets_are_lambda_returns_of_the_values_of_what_followed(case):
    steps, agents = case.steps, case.params.agents

    def following(t, n):
        """The best that is available to each who is left."""
        total = 0.0
        for agent in range(AGENTS):
            if steps.facts.alive[t, n, agent] and steps.final_facts.alive[t, n, agent]:
                obs, previous = steps.final_obs[t, n, agent], int(steps.action[t, n, agent]) + 1
                utility = utility_by_hand(agents, agent, obs, previous)
                total += utility[steps.final_facts.legal[t, n, agent]].max()
        return total

    expected = np.zeros((STEPS, WORLDS))
    for n in range(WORLDS):
        for t in reversed(range(STEPS)):
            value = following(t, n)
            if t + 1 < STEPS and not steps.truncated[t, n]:
                value = 0.4 * value + 0.6 * expected[t + 1, n]
            discount = 0.9 ** steps.frames[t, n] * (1.0 - steps.terminated[t, n])
            expected[t, n] = steps.reward[t, n].mean() + discount * value
    np.testing.assert_allclose(case.y[0, :, 0], expected.reshape(-1), rtol=1e-4, atol=1e-5)


def test_rows_are_steps_with_the_memory_that_they_had(case):
    """The row of step t of world n is number t * worlds + n, and knows what its agents did before."""
    steps, batch = case.steps, case.batch
    assert batch.obs.shape == (1, STEPS * WORLDS, AGENTS, 3) and batch.carry.network == ()
    np.testing.assert_array_equal(batch.obs[0], steps.obs.reshape(-1, AGENTS, 3))
    before = np.zeros((WORLDS, AGENTS), int)
    for t in range(STEPS):
        rows = slice(t * WORLDS, (t + 1) * WORLDS)
        np.testing.assert_array_equal(batch.action[0, rows], steps.action[t])
        np.testing.assert_array_equal(batch.carry.previous[0, rows], before)
        before = np.where((steps.terminated | steps.truncated)[t, :, None], 0, steps.action[t] + 1)


def test_sequences_are_whole_roll_outs_with_the_memory_before_them():
    case = Case(RNN)
    assert case.batch.obs.shape == (STEPS, WORLDS, AGENTS, 3) and case.y.shape == (STEPS, WORLDS, 1)
    (carry,) = case.batch.carry.network
    assert carry.shape == (1, WORLDS, AGENTS, 4) and not carry.any(), "the run starts here"
    ended = (case.steps.terminated | case.steps.truncated)[:-1]
    np.testing.assert_array_equal(case.batch.reset, np.concatenate([np.zeros((1, WORLDS), bool), ended]))


@pytest.mark.parametrize("config", [MLP, RNN], ids=["mlp", "rnn"])
def test_two_updates(config):
    """Every key used once, one trace; what is learned changes and the counts are right."""
    run = Run(pqn, config, updates=2, env=team_world())
    start, *_, end = run.history
    assert not trees_equal(start.learner.params, end.learner.params) and int(end.updates) == 2
    assert all(np.isfinite(value).all() for value in run.metrics[-1].values())
    assert run.algorithm.gradient_steps_per_update == 2 * config.minibatches
    assert run.algorithm.env_steps_per_update == WORLDS * STEPS
    assert [float(m["epsilon"]) for m in run.metrics] == pytest.approx([0.5, 0.5 - 0.45 * 24 / 50_000])
    memory = run.algorithm.initial_carry((5,))
    assert isinstance(memory, Memory) and memory.previous.shape == (5, AGENTS)


def test_layers_are_normalised_unless_said():
    assert pqn.Config(q_network={"type": "rnn"}).q_network.network().layer_norm
    plain = pqn.Config(q_network={"type": "rnn", "layer_norm": False})
    assert not plain.q_network.network().layer_norm


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"minibatches": 3}, r"minibatches 3 must divide num_envs \* steps_per_update = 4096"),
        ({"minibatches": 48, "q_network": {"type": "rnn"}}, "minibatches 48 must divide num_envs = 128"),
        ({"tau": 0.5}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        pqn.Config(**keys)
