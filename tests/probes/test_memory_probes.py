"""Every algorithm with memory learns the probe worlds that cannot be learned without: episodes of six steps."""

import numpy as np
import pytest
from learners import GAMMA, RECURRENT, trained
from probe_worlds import CUES, LENGTH, RECURRENT_PROBES, episodes

SLOW = {"td3_concat", "sac", "sac_gru", "ppo_gru", "appo", "apg"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in RECURRENT]
)
def ask(request):
    ask = trained(RECURRENT[request.param], RECURRENT_PROBES, LENGTH)
    return lambda name: ask(name, episodes(RECURRENT_PROBES[name]))


def test_memory_connects_the_cue_with_the_end(ask):
    _, action = ask("remembered")
    np.testing.assert_allclose(action[-1], CUES / 2, atol=0.2)


def test_without_memory_the_end_cannot_know_the_cue():
    """What makes the probe a probe: after the first step both cues look the same."""
    seen = episodes(RECURRENT_PROBES["remembered"])
    assert (seen[0, 0] != seen[0, 1]).any()
    np.testing.assert_array_equal(seen[1:, 0], seen[1:, 1])


def test_values_count_the_steps_to_the_reward(ask):
    """Nothing in the observation tells the time: only memory can discount the reward at the end."""
    value, _ = ask("delayed")
    expected = 4 * GAMMA ** (LENGTH - 1 - np.arange(LENGTH))
    np.testing.assert_allclose(value, np.tile(expected[:, None], 2), atol=0.4)


def test_a_time_limit_does_not_end_the_world(ask):
    """Cut off at the limit, the last step would be worth 1 and the one before it 1.5."""
    value, _ = ask("endless")
    np.testing.assert_allclose(value, 1 / (1 - GAMMA), atol=0.1)
