"""Scripted cameras against greedy targets: whole episodes within the intervals of the reference."""

from functools import partial

import jax
import pytest

from envs_jax.mate import matches, reference, reset
from envs_jax.mate.params import PRESETS, params_of, rules_of
from envs_jax.mate.players import CAMERAS, TARGETS

pytestmark = pytest.mark.slow
EPISODES = 64


@pytest.mark.parametrize("cameras", CAMERAS)
def test_scripted_play_is_as_good_as_the_references(cameras):
    rules, params = rules_of(PRESETS["4v4-9"]), params_of(PRESETS["4v4-9"])
    starts = reset.all_of(reset.draw_pool(jax.random.key(1), EPISODES, params, rules))
    teams = matches.Teams(CAMERAS[cameras], TARGETS["greedy"])
    play = jax.jit(partial(matches.play, teams=teams, rules=rules, frames=10_001))
    match, _ = jax.device_get(play(jax.random.key(2), starts, params=params))
    expected = reference.SCRIPTED["4v4-9", cameras, "greedy"]
    assert (match.num_delivered_cargoes >= 32).all()
    for name, figure in list(expected._asdict().items())[1:]:
        low, high = reference.interval(figure, expected.episodes, EPISODES)
        assert low <= getattr(match, name).mean() <= high, name
