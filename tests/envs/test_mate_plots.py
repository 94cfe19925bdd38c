"""Pictures of camera worlds: outlines of views by hand, curves over time, files without a display."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.base import FRAMES
from envs_jax.episodes import POLICY, Material
from envs_jax.mate import drawing, plots, selection_figure
from envs_jax.mate.game import GameParams
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


@pytest.fixture(scope="module")
def records(state):
    """Two episodes of three decisions, of which the second ends after two; only the first camera selects."""
    count = 3
    selected = np.zeros((2, count, 4, 4), bool)
    selected[:, :, 0] = True
    states = state._replace(steps=np.zeros((), np.int32))
    states = jax.tree.map(lambda x: np.stack([np.stack([x] * count)] * 2), states)
    states.steps[:] = [0, 5, 10]
    return {
        "active": np.array([[True] * count, [True, True, False]]),
        "coverage_rate": np.full((2, count), 0.5),
        "mean_transport_rate": np.full((2, count), 0.3),
        FRAMES: np.full((2, count), 5),
        "selected": selected,
        "state": SimpleNamespace(world=states),
    }


def test_figures_and_a_film_are_written_without_a_display(records, tmp_path):
    """Of a policy beside greedy cameras, from a report with yardsticks."""
    rules = {"names": ["random", "privileged"], "mean_coverage_rate": [0.3, 0.8], "mean_transport_rate": [0.6, 0.1]}
    params = GameParams(PARAMS, {})
    env = SimpleNamespace(
        name="mate/4v4-9", max_episode_length=3, assessment=SimpleNamespace(compared=("random", "greedy")),
        reset_env=lambda key, params: (jnp.zeros(3), jnp.zeros(5)),
    )  # fmt: skip
    played = []
    replay = SimpleNamespace(
        env=env, params=params, play=lambda name, cases: (played.append((name, len(cases))), records)[1]
    )
    material = Material({"detail": {"rules": rules}}, None, lambda: replay, everything=True)
    figures = plots.figures(material)
    assert played == [(POLICY, plots.MANY), ("greedy", plots.MANY)]
    assert set(figures) == {"team", "coverage", "selection", "episode"}
    figures.pop("episode").save(tmp_path / "film.gif", writer="pillow", dpi=30)
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=40)
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir()) and len(list(tmp_path.iterdir())) == 4
    curves = figures["coverage"].axes[0]
    assert [float(line.get_ydata()[0]) for line in curves.lines[:2]] == [0.3, 0.8]
    np.testing.assert_allclose(curves.lines[2].get_xdata(), [5, 10, 15])
    assert [text.get_text() for text in figures["coverage"].legends[0].texts] == [
        POLICY, "greedy", "random, whole episodes", "privileged, whole episodes"
    ]  # fmt: skip


def test_films_show_the_decision_that_is_held(records):
    film = plots.sampled(plots.film_of(records))
    assert film.states.steps.tolist() == [0, 5, 10]
    slow = plots.film_of(records)
    slow.states.steps[:] = [0, 7, 14]
    assert plots.sampled(slow).states.steps.tolist() == [0, 0, 7]


def test_episodes_are_fewer_where_their_states_are_large():
    env = SimpleNamespace(max_episode_length=1000, reset_env=lambda key, params: jnp.zeros((250, 100)))
    assert plots.affordable(SimpleNamespace(env=env, params=()), 64) == 5


def test_who_watches_whom_is_counted():
    visible = np.array([[[1, 1], [1, 0]], [[0, 1], [0, 1]]], bool)
    selected = np.array([[[1, 0], [1, 1]], [[0, 1], [0, 0]]], bool)
    pairs = selection_figure.Pairs(visible, selected, np.full((2, 2, 2), 100.0))
    # Rows are target 0 of cameras 0 and 1, then target 1.
    assert selection_figure.pair_states(pairs).tolist() == [[3, 0], [3, 0], [2, 3], [1, 2]]
    np.testing.assert_allclose(selection_figure.watchers(visible), [0.25, 0.25, 0.5])
    many = selection_figure.Pairs(*(np.repeat(x, 40, axis=0) for x in pairs))
    alone, shared = selection_figure.chosen_share(many).values()
    assert alone[0] == 0 and shared[0] == 0.75 and np.isnan(alone[1:]).all()
    assert np.isnan(selection_figure.chosen_share(pairs)["seen by nobody else"]).all()
