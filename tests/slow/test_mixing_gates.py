"""What mixers can represent: the gates of `benchmarks/mixing_gates.py`. Minutes each."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def gates():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("mixing_gates")
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize("game", ["G1", "G2"])
def test_qplex_represents_games_that_are_not_monotonic(gates, game):
    payoff = np.array(gates.PAYOFFS[game])
    tables, greedy = gates.learned_tables("qplex", payoff.tolist(), gates.GRADIENT_STEPS[game])
    errors = ((tables - payoff) ** 2).mean(axis=(1, 2))
    assert (greedy == payoff.max()).sum() >= 7
    assert (errors < 1.0).sum() >= 6, errors


@pytest.mark.parametrize("game", ["G1", "G2"])
def test_vdn_ends_at_its_least_squares_limit(gates, game):
    tables, _ = gates.learned_tables("vdn", gates.PAYOFFS[game], gates.GRADIENT_STEPS[game])
    np.testing.assert_allclose(tables, np.broadcast_to(gates.LIMITS["vdn", game], tables.shape), atol=1.5)


def test_fitted_values_stay_finite_where_they_can_be_represented(gates):
    """With gamma 0.9 the value is 10; sums and monotonic mixers grow without limit on the same data."""
    qplex = gates.fitted_values("qplex", seeds=2)
    assert ((qplex[-1] >= 9.5) & (qplex[-1] <= 10.5)).all(), qplex[-1]
    for name in ("vdn", "qmix"):
        assert (gates.fitted_values(name, seeds=2, refreshes=60)[-1] > 1000).all()
