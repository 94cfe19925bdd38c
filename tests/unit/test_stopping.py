"""When a run ends early: gain, streaks of milestones, bands of training episodes."""

import dataclasses
import json

import numpy as np
import pytest

import envs_jax
from purerl.config import BandStop, EarlyStop, Evaluation
from purerl.errors import ConfigError
from purerl.run.stopping import Stops, after_evaluation, after_updates, reason, require_known


def evaluated(rules: Evaluation, values, milestones=None) -> Stops:
    stops = Stops()
    for i, value in enumerate(values):
        met = {} if milestones is None else {name: flags[i] for name, flags in milestones.items()}
        stops = after_evaluation(stops, rules, {"eval_score": value}, met)
    return stops


def test_no_gain():
    rules = Evaluation(early_stop=EarlyStop(patience=2, min_delta=0.5))
    assert reason(evaluated(rules, [1.0, 2.0, 2.4]), rules) is None
    stops = evaluated(rules, [1.0, 2.0, 2.4, 2.5])
    assert (stops.best, stops.without_gain) == (2.0, 2)
    assert reason(stops, rules) == "no gain in 2 evaluations"


def test_a_streak_is_of_every_seed_and_starts_anew_after_a_miss():
    rules = Evaluation(streaks={"perfect": 2})
    met = [[True, True], [True, False], [True, True], [True, True]]
    assert reason(evaluated(rules, [0.0] * 3, {"perfect": met}), rules) is None
    stops = evaluated(rules, [0.0] * 4, {"perfect": met})
    assert stops.streaks == {"perfect": [4, 2]}
    assert reason(stops, rules) == "perfect_streak 2"


def test_streaks_without_a_rule_are_counted_but_end_nothing():
    rules = Evaluation()
    stops = evaluated(rules, [0.0] * 9, {"perfect": [[True]] * 9})
    assert stops.streaks == {"perfect": [9]} and reason(stops, rules) is None


RULE = BandStop(metric="conflict_free", env_steps=100, updates=4, episodes=20, share=0.95, good=2, least=3)


def banded(met, episodes, env_steps=50) -> Stops:
    mean = np.array(met, np.float32) / np.array(episodes, np.float32)
    return after_updates(Stops(), RULE, mean[:, None], np.array(episodes, float)[:, None], env_steps)


def test_bands_have_their_least_updates_steps_and_episodes():
    # Two updates are 100 steps, but a band has at least four updates; then 5 * 3 = 15 steps are not yet a band.
    assert banded([10] * 12, [10] * 12).bands == [[True] * 3]
    assert banded([10] * 12, [10] * 12, env_steps=5).bands == [[]]
    assert banded([4] * 4, [4] * 4).bands == [[False]], "16 episodes are too few"
    assert banded([37] * 4, [40] * 4).bands == [[False]]
    assert banded([38] * 4, [40] * 4).bands == [[True]], "19 of 20 are enough, in single precision too"


def test_two_good_bands_of_three_end_the_run():
    rules = Evaluation(bands=RULE)
    good, bad = [10] * 4, [0] * 4
    assert reason(banded(good * 2, [10] * 8), rules) is None, "three at least"
    assert reason(banded(good + good + bad, [10] * 12), rules) is None
    assert reason(banded(bad + good + good, [10] * 12), rules) == "the last 2 bands of 3 were good"


def test_chunks_do_not_matter_and_counters_survive_a_checkpoint():
    rng = np.random.default_rng(0)
    mean, episodes = rng.uniform(0.9, 1.0, (30, 2)), rng.integers(8, 11, (30, 2))
    whole = after_updates(Stops(), RULE, mean, episodes, 50)
    parts = Stops()
    for cut in (slice(0, 7), slice(7, 11), slice(11, 30)):
        parts = Stops.from_json(json.loads(json.dumps(dataclasses.asdict(parts))))
        parts = after_updates(parts, RULE, mean[cut], episodes[cut], 50)
    assert parts.bands == whole.bands and parts.open_bands[0].updates == whole.open_bands[0].updates


def test_rules_that_the_environment_cannot_serve_are_refused():
    env = envs_jax.make("atc/head_on")
    require_known(Evaluation(streaks={"zero_conflict": 20, "perfect": 5}, bands=BandStop(metric="conflict_free")), env)
    with pytest.raises(ConfigError, match=r"evaluation.streaks: 'flawless'; atc/head_on has zero_conflict, perfect"):
        require_known(Evaluation(streaks={"flawless": 1}), env)
    with pytest.raises(ConfigError, match=r"evaluation.bands.metric: 'wins'"):
        require_known(Evaluation(bands=BandStop(metric="wins")), env)
    with pytest.raises(ConfigError, match="CartPole-v1 have none"):
        require_known(Evaluation(bands=BandStop(metric="conflict_free")), envs_jax.make("gymnax:CartPole-v1"))
