"""Scores of camera worlds, yardsticks beside them, and tests against other opponents."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax.base import FRAMES
from envs_jax.episodes import play_rules
from envs_jax.mate.config import SCRIPTED
from envs_jax.mate.report import decisions
from envs_jax.mate.scoring import scorer

SMALL = "mate/2v2-9"


@pytest.fixture(scope="module")
def records():
    """One seed, three episodes of at most three decisions of five frames; the second ends within a decision."""
    active = np.array([[[True, True, True], [True, True, False], [True, False, False]]])
    return {
        "active": active,
        FRAMES: np.array([[[5, 5, 5], [5, 2, 5], [5, 5, 5]]]),
        "coverage_rate": np.array([[[0.2, 0.4, 0.6], [0.5, 1.0, 9.0], [0.1, 9.0, 9.0]]]),
        "real_coverage_rate": np.full((1, 3, 3), 0.3),
        "mean_transport_rate": np.array([[[0.0, 0.9, 0.6], [0.2, 0.4, 9.0], [0.1, 9.0, 9.0]]]),
        "num_delivered_cargoes": np.array([[[0, 1, 2], [3, 4, 9], [5, 9, 9]]]),
        "reward": np.where(active, 4.0, 0.0),
        "raw_reward": np.full((1, 3, 3), -7.0),
        "normalized_raw_reward": np.full((1, 3, 3), -0.1),
        "team_selected": np.array([[[10, 10, 0], [8, 0, 9], [0, 9, 9]]]),
        "team_selected_valid": np.array([[[10, 5, 0], [2, 0, 9], [0, 9, 9]]]),
        "invalid_selection_rate": np.full((1, 3, 3), 0.25),
    }


def test_scores_are_means_over_frames_then_over_episodes(records):
    score = scorer("cameras", 4, {"preset": "4v4-9", "opponent": "greedy"})("test", records)
    coverage = np.array([0.4, (0.5 * 5 + 1.0 * 2) / 7, 0.1])
    assert score.unit == "coverage_rate" and score.bound is None and score.percent_of_bound is None
    np.testing.assert_allclose(score.policy, [coverage.mean()])
    detail = score.detail
    assert detail["n_episodes"] == 3 and detail["preset"] == "4v4-9" and detail["opponent"] == "greedy"
    np.testing.assert_allclose(detail["coverage_rate_of_episodes"], [coverage], atol=1e-6)
    np.testing.assert_allclose(detail["std_coverage_rate"], [coverage.std(ddof=1)])
    half = 1.96 * coverage.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(detail["ci95_coverage_rate"], [[coverage.mean() - half, coverage.mean() + half]])
    np.testing.assert_allclose(detail["mean_transport_rate"], [(0.6 + 0.4 + 0.1) / 3])
    np.testing.assert_allclose(detail["mean_delivered_cargoes"], [(2 + 4 + 5) / 3])
    np.testing.assert_allclose(detail["mean_episode_length"], [(15 + 7 + 5) / 3])
    np.testing.assert_allclose(detail["mean_episode_reward"], [(3 + 2 + 1) / 3])
    np.testing.assert_allclose(detail["mean_camera_return"], [-7 * 2])
    # The third episode selected nothing.
    np.testing.assert_allclose(detail["mean_selection_efficiency"], [(15 / 20 + 2 / 8) / 2])
    np.testing.assert_allclose(detail["mean_invalid_selection_rate"], [0.25])


def test_targets_are_scored_by_what_they_deliver(records):
    without = {name: values for name, values in records.items() if not name.startswith(("team", "invalid"))}
    score = scorer("targets", 2, {})("test", without)
    assert score.unit == "transport_rate" and score.policy == score.detail["mean_transport_rate"]
    assert np.isnan(score.detail["mean_selection_efficiency"]).all()


# Yardsticks


@pytest.fixture(scope="module")
def group():
    """The world of the training against two numbered opponents."""
    env = envs_jax.make(SMALL, horizon=42)
    (group,) = env.assessment.conditions["opponents"].groups(["greedy", "random"])
    return group


def rolled(group, names, yardsticks: bool):
    """Records [opponent, rule, 3, decision]."""
    env = group.env
    if not yardsticks:
        env = dataclasses.replace(env, assessment=env.assessment._replace(yardsticks=None))
    one = lambda params, key: play_rules(env, params, names, jnp.array([5, 0, 2]), key)  # noqa: E731
    return jax.device_get(jax.jit(jax.vmap(one, (0, None)))(group.params, jax.random.key(0)))


@pytest.fixture(scope="module")
def played(group):
    """All yardsticks."""
    return rolled(group, group.env.assessment.compared, yardsticks=True)


@pytest.mark.slow
def test_yardsticks_play_the_same_starts_with_the_same_chance(group, played):
    """A selection that a player holds is the selection as an action, number by number."""
    at = group.env.assessment.compared.index("all_visible")
    alone = rolled(group, ["all_visible"], yardsticks=False)
    assert set(played) == set(alone)
    for name, values in alone.items():
        np.testing.assert_allclose(played[name][:, at : at + 1], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_all_yardsticks_play(group, played):
    assert played["coverage_rate"].shape == (2, 7, 3, 9) and played[FRAMES][..., -1].tolist() == [[[2] * 3] * 7] * 2
    covered = dict(zip(group.env.assessment.compared, played["coverage_rate"][0].mean(axis=(1, 2)), strict=True))
    assert len(set(covered.values())) >= 5 and covered["privileged"] > covered["random"]
    score = group.env.assessment.score("test", jax.tree.map(lambda x: x[0], played))
    efficiency = dict(zip(group.env.assessment.compared, score.detail["mean_selection_efficiency"], strict=True))
    assert np.isnan([efficiency["random"], efficiency["greedy"]]).all()
    assert efficiency["all_targets"] < 0.7 < efficiency["all_visible"]


def test_opponents_are_told_apart_by_a_number(group, played):
    assert [label["condition"] for label in group.labels] == ["greedy", "random"]
    assert group.params.opponent.tolist() == [0, 1]
    assert np.abs(played["coverage_rate"][0] - played["coverage_rate"][1]).max() > 0.1


# Other conditions


def conditions(**settings):
    return envs_jax.make(SMALL, **settings).assessment.conditions


def test_a_policy_is_tested_against_every_scripted_opponent():
    declared = conditions(opponent={"greedy": 0.5, "naive": 0.5})["opponents"]
    assert declared.own == "trained"
    found = declared.groups(None)
    assert [label["condition"] for group in found for label in group.labels] == [*SCRIPTED, "trained"]
    assert conditions()["opponents"].own == "greedy"
    cameras = conditions(learner="targets")["opponents"].groups(["heuristic", "greedy"])
    assert [[label["condition"] for label in group.labels] for group in cameras] == [["greedy"], ["heuristic"]]
    assert conditions(learner="both") == {}


def test_presets_that_a_policy_fits_are_tested_and_others_refused():
    with pytest.raises(ValueError, match="2v4-9 has 2 cameras, 4 targets and 9 obstacles; a policy of 2v2-9 with 2"):
        conditions()["opponents"].groups(["2v4-9"])
    with pytest.raises(ValueError, match="unknown opponent or preset 'gredy'; did you mean 'greedy'"):
        conditions()["opponents"].groups(["gredy"])
    fitted = conditions(targets={"num": 2})["opponents"].groups(["random", "2v4-9"])
    assert [label["condition"] for group in fitted for label in group.labels] == ["random", "2v4-9"]
    assert fitted[1].env.name == "mate/2v4-9" and fitted[1].env.num_agents == 2


def test_one_row_per_decision_with_what_everybody_was_about():
    world = SimpleNamespace(
        steps=np.array([0, 5]), orientation_deg=np.zeros((2, 1)), viewing_angle_deg=np.full((2, 1), 90.0),
        sight=SimpleNamespace(c2t=np.array([[[True, False]], [[False, False]]])),
        target_loc=np.arange(8.0).reshape(2, 2, 2), goal=np.zeros((2, 2), int), load=np.ones((2, 2), int),
        bounty=np.full((2, 2), 100),
    )  # fmt: skip
    rates = dict.fromkeys(
        ("coverage_rate", "real_coverage_rate", "mean_transport_rate", "num_delivered_cargoes", "raw_reward", "reward"),
        np.zeros(2),
    )
    selected = np.array([[[False, True]], [[True, True]]])
    rows = decisions({**rates, FRAMES: [5, 5], "selected": selected, "state": SimpleNamespace(world=world)}, "3")
    assert rows["camera0_sees"].tolist() == ["b10", "b00"] and rows["camera0_selects"].tolist() == ["b01", "b11"]
    assert rows["target1_y"].tolist() == [3, 7] and rows["frame"].tolist() == [0, 5] and set(rows["episode"]) == {"3"}
