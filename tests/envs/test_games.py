"""`matrix` and `two_state`: payoffs, masks, ends, scores, and tables that are none."""

import jax
import numpy as np
import pytest

import envs_jax
from envs_jax.check import check_env
from purerl.config import resolve_config
from purerl.errors import ConfigError

UNEQUAL = [[1.0, 2.0, 3.0], [4.0, 5.0, 9.0]]
"""The first agent has two choices, the second three."""


@pytest.mark.parametrize(("name", "settings"), [("matrix", {"payoff": UNEQUAL}), ("two_state", {"horizon": 4})])
def test_games_keep_the_contract(name, settings):
    check_env(envs_jax.make(name, **settings), steps=9)


def test_everybody_is_paid_the_entry_of_the_joint_choice():
    payoff = np.arange(12.0).reshape(2, 3, 2)
    env = envs_jax.make("matrix", payoff=payoff.tolist())
    assert (env.num_agents, env.action_space(None).n) == (3, 3)
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    actions = np.array([[1, 2, 0], [0, 1, 1]])
    _, _, reward, terminated, truncated, _ = jax.vmap(env.step_env, (None, None, 0, None))(
        jax.random.key(0), state, actions, env.default_params
    )
    np.testing.assert_array_equal(reward, np.tile(payoff[tuple(actions.T)][:, None], 3))
    assert np.asarray(terminated).all() and not np.asarray(truncated).any()
    np.testing.assert_array_equal(
        env.action_mask(state, None), [[True, True, False], [True, True, True], [True, True, False]]
    )


def test_the_cautious_rule_and_the_score():
    env = envs_jax.make("matrix")
    rule = env.guidance.rules["best_on_average"]
    action = rule(jax.random.key(0), None, env.default_params)
    assert action.tolist() == [1, 1], "the optimum pays 8, and -12 where only one goes for it"
    records = {"payoff": np.array([[[8.0]], [[0.0]], [[-12.0]]]), "active": np.ones((3, 1, 1), bool)}
    score = env.assessment.score("test", records)
    assert (score.policy, score.bound, score.percent_of_bound) == ([8.0, 0.0, -12.0], 8.0, [100.0, 60.0, 0.0])
    assert score.detail["optimal"] == [1.0, 0.0, 0.0]


def test_two_states_pay_for_staying_together():
    env = envs_jax.make("two_state", horizon=4)
    (obs, state), paid, seen = env.reset_env(jax.random.key(0), None), [], []
    for action in ([0, 0], [0, 1], [1, 1], [0, 0]):
        seen.append(np.asarray(obs)[0].tolist())
        obs, state, reward, terminated, truncated, _ = env.step_env(jax.random.key(0), state, np.array(action), None)
        paid.append(float(reward[1]))
        assert (bool(terminated), bool(truncated)) == (False, len(paid) == 4)
    assert paid == [1.0, 0.0, 0.0, 0.0] and seen == [[0.0, 1.0]] * 3 + [[1.0, 0.0]]
    assert env.global_state(state, None).tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        ([], "payoff is an empty list"),
        ([[1, 2], []], r"payoff\[1\] is an empty list"),
        ([[1, 2], [3]], r"payoff\[1\] has 1 entries and payoff\[0\] has 2 entries"),
        ([[1, 2], 3], r"payoff\[1\] has a number and payoff\[0\] has 2 entries"),
        ([[1, "two"]], r"payoff\[0\]\[1\] is 'two': write a finite number"),
        ([[1, None]], r"payoff\[0\]\[1\] is None"),
        ([[True, 1]], r"payoff\[0\]\[0\] is True"),
        ([[[0.0] * 101] * 100] * 100, "100 x 100 x 101 entries: at most 1,000,000"),
    ],
)
def test_tables_that_are_none_are_refused_in_one_line(payoff, message):
    data = {"env": {"name": "matrix", "payoff": payoff}, "algo": {"name": "vdn"}}
    with pytest.raises(ConfigError, match=message) as error:
        resolve_config(data, "file.yaml")
    assert str(error.value).startswith("file.yaml: env.payoff") and "\n" not in str(error.value)
