"""Air traffic: what counts as success, and what a streak of evaluations is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax.episodes import play
from purerl.config import Evaluation
from purerl.run import stopping


@pytest.fixture(scope="module")
def scored():
    """Scores of eight jittered episodes in which all do the same, by what they do."""
    env = envs_jax.make("atc/head_on", max_episode_steps=60)
    fly = jax.jit(lambda action: play(env, env.default_params, acting(action), (), jnp.arange(8), jax.random.key(1)))

    def acting(action):
        def act(memory, obs, state, key):
            return jnp.broadcast_to(action, (8, 2, 2)), memory

        return act

    def of(action):
        records = jax.device_get(fly(jnp.asarray(action)).records)
        return env.assessment.score("test", jax.tree.map(lambda x: x[None], records))

    return {"apart": of([1.0, 0.0]), "straight": of([0.0, 0.0])}


def test_flying_apart_is_free_of_conflicts_and_no_success(scored):
    apart = scored["apart"]
    assert apart.detail["conflict_free"] == [1.0] and apart.detail["reached_ratio"] == [0.0] and apart.policy == [0.0]
    assert apart.milestones == {"zero_conflict": [False], "perfect": [False]}
    assert np.mean(scored["straight"].detail["los_risk"]) > 0, "without turns some lose separation"


def test_flying_apart_keeps_the_streak_at_zero(scored):
    rules, stops = Evaluation(streaks={"zero_conflict": 2}), stopping.Stops()
    for _ in range(5):
        stops = stopping.after_evaluation(stops, rules, {"eval_score": 0.0}, scored["apart"].milestones)
    assert stops.streaks["zero_conflict"] == [0] and stopping.reason(stops, rules) is None
