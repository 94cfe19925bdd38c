"""Every algorithm learns the values and policies of the probe worlds that need no memory."""

import numpy as np
import pytest
from learners import FEED_FORWARD, GAMMA, trained
from probe_worlds import FEED_FORWARD_PROBES
from recorded_probes import trained_on_records

SLOW = {"appo"}


@pytest.fixture(
    scope="module",
    params=[*(pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FEED_FORWARD), "cql"],
)
def ask(request, tmp_path_factory):
    if request.param == "cql":
        return trained_on_records(FEED_FORWARD_PROBES, tmp_path_factory.mktemp("probes") / "probes.npz")
    return trained(FEED_FORWARD[request.param], FEED_FORWARD_PROBES)


@pytest.mark.parametrize(
    ("probe", "observations", "values"),
    [
        ("constant", [(1, 0), (-1, 0)], [1, 1]),
        ("observed", [(1, 0), (-1, 0)], [1, -1]),
        ("delayed", [(1, 0), (1, 0.5), (-1, 0), (-1, 0.5)], [GAMMA, 1, GAMMA, 1]),
        ("endless", [(1, 0), (-1, 0)], [1 / (1 - GAMMA)] * 2),  # 1.8, the mean over the steps, if a limit were an end
    ],
)
def test_values(ask, probe, observations, values):
    value, _ = ask(probe, [observations])
    np.testing.assert_allclose(value[0], values, atol=0.1)


def test_policy_follows_the_cue(ask):
    _, action = ask("chosen", [[(1, 0), (-1, 0)]])
    np.testing.assert_allclose(action[0], [0.5, -0.5], atol=0.15)
