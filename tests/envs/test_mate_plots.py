"""Pictures of camera worlds: outlines of views by hand, curves over time, files without a display."""

from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from envs_jax.episodes import POLICY
from envs_jax.mate import drawing, plots
from envs_jax.mate.params import PRESETS, params_of, rules_of
from envs_jax.mate.reset import start
from envs_jax.mate.state import OcclusionTable

RULES, PARAMS = rules_of(PRESETS["4v4-9"]), params_of(PRESETS["4v4-9"])


@pytest.fixture(scope="module")
def state():
    return jax.tree.map(np.asarray, jax.jit(partial(start, rules=RULES))(jax.random.key(0), PARAMS))


def test_views_end_at_the_sight_range_or_at_an_obstacle(state):
    """Free to one side of the axis, cut at 100 to the other."""
    angles = np.array([-180.0, -0.01, 0.01, 179.99, 180.0])
    free = np.array([100.0, 100.0, 1500.0, 1500.0, 100.0])
    table = OcclusionTable(np.tile(angles, (4, 1)), np.tile(free, (4, 1)))
    wide = state._replace(orientation_deg=np.zeros(4), viewing_angle_deg=np.full(4, 120.0))
    for place, outline in zip(state.layout.camera_loc, drawing.fields_of_view(wide, table, PARAMS), strict=True):
        np.testing.assert_allclose(outline[0], place)
        away = outline[1:] - place
        bearing, reach = np.degrees(np.arctan2(away[:, 1], away[:, 0])), np.linalg.norm(away, axis=1)
        np.testing.assert_allclose([bearing.min(), bearing.max()], [-60, 60], atol=1e-3)
        np.testing.assert_allclose(reach[bearing > 0.02], 750, rtol=1e-4)
        np.testing.assert_allclose(reach[bearing < -0.02], 100, rtol=1e-4)
    behind = wide._replace(orientation_deg=np.full(4, 180.0))
    away = drawing.fields_of_view(behind, table, PARAMS)[0][1:] - state.layout.camera_loc[0]
    assert set(np.round(np.linalg.norm(away, axis=1)).astype(int)) >= {100, 750}


def test_means_leave_out_what_has_ended():
    values = np.array([[1.0, 1.0, np.nan], [0.0, 0.5, np.nan]])
    mean, error = plots.running_mean(values)
    np.testing.assert_allclose(mean, [0.5, 0.75, np.nan])
    np.testing.assert_allclose(error[:2], [0.5, 0.25])


def test_moments_curves_and_a_film_are_written_without_a_display(state, tmp_path):
    count = 3
    states = jax.tree.map(lambda x: np.stack([x] * count), state)
    records = {
        "active": np.array([[True] * count, [True, True, False]]),
        "coverage_rate": np.full((2, count), 0.5),
        "mean_transport_rate": np.full((2, count), 0.3),
        "state": SimpleNamespace(world=jax.tree.map(lambda x: np.stack([x] * 2), states)),
    }
    film = plots.film_of(records, 1)
    assert film.states.goal.shape == (2, 4) and film.coverage_rate.shape == (2,)
    figures = {
        "team": plots.moments_figure(film, PARAMS, "mate/4v4-9"),
        "coverage": plots.curves_figure({POLICY: records, "never": records}, "mate/4v4-9"),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=40)
    labels = [line.get_label() for line in figures["coverage"].axes[0].lines]
    assert labels == [POLICY, "never", "reference, greedy cameras", "reference, random cameras"]
    np.testing.assert_allclose(figures["coverage"].axes[0].lines[0].get_xdata(), [1, 2, 3])
    plots.animation({POLICY: film}, PARAMS).save(tmp_path / "film.gif", writer="pillow", dpi=30)
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("team.png", "coverage.png", "film.gif"))
