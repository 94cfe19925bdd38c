"""Figures of flights: the numbers behind them on hand-made flights, and the files that a run's command leaves."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest

from envs_jax.atc import episode_figures, plots, statistics_figures
from envs_jax.atc import flights as fl
from purerl import plot
from purerl.config import resolve_config
from purerl.report import training_figures
from purerl.run import bundle, history, kept, runs
from purerl.types import Data

NM = 1 / fl.NM_PER_DEG


def records_of(x_nm, y_nm, pair_min_sep, lat=0.0):
    """Records of one episode at the equator, from positions in NM at the ends of steps [T + 1, N]."""
    dlon, dlat = (np.asarray(v, np.float32)[None] * NM for v in (x_nm, y_nm))
    still = np.zeros_like(dlat[:, :-1])
    state = SimpleNamespace(
        dlat=dlat[:, :-1], dlon=dlon[:, :-1], goal_dlat=still + 9 * NM, goal_dlon=still, hdg=still, tas=still
    )  # fmt: skip
    pairs = np.asarray(pair_min_sep, np.float32)[None]
    return {"state": state, "dlat": dlat[:, 1:], "dlon": dlon[:, 1:], "pair_min_sep": pairs}


def both(values):
    """[T, 2, 2] of the one pair's values."""
    return [[[1e3, v], [v, 1e3]] for v in values]


@pytest.fixture
def crossing():
    """The second flies past the first, which stands still, and 3.1 NM beside it: 10 NM a step, three steps."""
    records = records_of([[0, -14]] + [[0, x] for x in (-4, 6, 16)], [[0, 3.1]] * 4, both([5.06, 3.1, 6.7]))
    return records, fl.flights_of(records, np.ones((1, 3, 2), bool), 0.0, 5.0)


def test_seconds_and_losses_of_a_flight(crossing):
    _, flights = crossing
    assert flights.x_nm.shape == (1, 31, 2) and flights.separation_nm.shape == (1, 31, 1)
    np.testing.assert_allclose(flights.separation_nm[0, :, 0], np.hypot(np.arange(-14, 17), 3.1), rtol=1e-4)
    assert np.flatnonzero(flights.loss[0, :, 0]).tolist() == list(range(11, 18))
    one = fl.episode(flights, 0)
    assert fl.closest_pair(one) == ((0, 1), 14, pytest.approx(3.1))
    assert fl.runs(fl.losing(one)[:, 1]) == [(11, 18)]
    middle = fl.loss_midpoints(flights)
    np.testing.assert_allclose(middle[:, 0] * fl.NM_PER_DEG / 60, np.arange(-3, 4) / 2, atol=1e-4)
    np.testing.assert_allclose(middle[:, 1] * fl.NM_PER_DEG / 60, 1.55, atol=1e-4)


def test_a_recorded_loss_that_the_lines_miss_is_in_the_closest_second():
    records = records_of([[0, 6], [0, 5.2], [0, 6]], [[0, 0]] * 3, both([4.99, 4.98]))
    flights = fl.flights_of(records, np.ones((1, 2, 2), bool), 0.0, 5.0)
    assert np.flatnonzero(flights.loss[0, :, 0]).tolist() == [10, 11]


def test_who_has_left_is_in_nobodys_way(crossing):
    records, _ = crossing
    flying = np.array([[[True, True], [True, False], [True, False]]])
    flights = fl.flights_of(records, flying, 0.0, 5.0)
    assert not flights.loss.any() and np.isnan(flights.separation_nm[0, 11:, 0]).all()
    np.testing.assert_allclose(flights.least_nm, 5.06)
    alone = fl.flights_of(records, flying & np.array([True, False]), 0.0, 5.0)
    assert fl.closest_pair(fl.episode(alone, 0)) is None
    assert fl.least_of_episode(alone).tolist() == [fl.NOBODY_NM]


def test_an_episode_ends_with_its_last_flight(crossing):
    records, _ = crossing
    flying = np.array([[[True, True], [True, True], [False, False]]])
    one = fl.episode(fl.flights_of(records, flying, 0.0, 5.0), 0)
    assert len(one.x_nm) == len(one.loss) == 21 and one.goal_y_nm.shape == (2,)


def test_closest_approaches_of_pairs():
    records = records_of([[0, -10], [0, -9]], [[0, 4], [0, 4]], both([10.0]))
    speed = 0.1 * 1852  # m/s: 0.1 NM a second, eastwards
    records["state"].tas = np.array([[[0.0, speed]]])
    records["state"].hdg = np.array([[[0.0, 90.0]]])
    found = fl.approaches(records, np.ones((1, 1, 2), bool), 0.0)
    np.testing.assert_allclose((found.tcpa_s, found.dcpa_nm, found.now_nm), [[100], [4], [np.hypot(10, 4)]], rtol=1e-4)


def test_runs_of_flags():
    assert fl.runs(np.array([1, 1, 0, 0, 1, 0, 1], bool)) == [(0, 2), (4, 5), (6, 7)]
    assert fl.runs(np.zeros(3, bool)) == []


def test_heat_map_counts_seconds_of_an_episode():
    points = np.array([[0.1, 0.1], [0.2, 0.3], [1.5, 0.5], [1.5, 1.5]])
    edges = np.array([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(fl.heat_map(points, (edges, edges), 2), [[1.0, 0.0], [0.5, 0.5]])


def test_survival_is_a_count_and_its_band_a_bootstrap():
    rng = np.random.default_rng(0)
    least = rng.uniform(0, 10, 40)
    x = np.concatenate([np.linspace(0, 11, 23), least[:3]])  # at its own value an episode still counts
    share = fl.survival(least, x)
    np.testing.assert_allclose(share, [(least >= limit).mean() for limit in x])
    low, high = fl.survival_band(share, len(least))
    drawn = rng.choice(least, (4000, len(least)))
    resampled = np.array([(drawn >= limit).mean(axis=1) for limit in x])
    expected = np.percentile(resampled, [2.5, 97.5], axis=1)
    np.testing.assert_allclose((low, high), expected, atol=1.01 / len(least))
    assert np.all(low <= share) and np.all(share <= high) and np.max(high - low) > 0.2


def test_episodes_worth_a_look():
    assert plots.notable(np.array([5.0, 0.3, 7.0, 6.0])) == {"typical episode": 3, "worst episode": 1}
    assert plots.notable(np.array([5.0])) == {"typical episode": 0}


def test_alert_bars_have_the_heights_of_the_counts():
    counts = {"policy": {"tp": 5, "fn": 1, "fp": 2, "tn": 300}, "mvp": {"tp": 4, "fn": 2, "fp": 0, "tn": 280}}
    figure = statistics_figures.alerts_figure(counts)
    events, quiet = ([[bar.get_height() for bar in bars] for bars in ax.containers] for ax in figure.axes)
    assert events == [[5, 4], [1, 2], [2, 0]] and quiet == [[300, 280]]
    training_figures.plt.close(figure)


def test_alert_counts_of_a_report():
    def scored(tp):
        return {
            kind: dict.fromkeys(statistics_figures.COUNTS, value)
            for kind, value in (("pilots", tp), ("predictor", [9.0]))
        }

    detail = {"alerts": scored([1.0, 2.0]), "rules": {"mvp": {"alerts": scored([4.0])}}}
    counts = statistics_figures.alert_counts(detail)
    assert {name: own["tp"] for name, own in counts.items()} == {"policy": 1.5, "mvp": 4.0, "predictor": 9.0}
    assert statistics_figures.alert_counts({"success": [1.0], "rules": {"mvp": {"success": [1.0]}}}) == {}


def test_training_curve_shows_shares_and_streaks():
    progress = pd.DataFrame({
        "env_steps": [10, 20, 30], "gradient_steps": [1, 2, 3], "success": [0.1, 0.5, 0.9],
        "conflict_free": [0.2, 0.6, 1.0], "eval_score": [np.nan, 0.4, 1.0], "eval_perfect_streak": [np.nan, 0, 1],
    })  # fmt: skip
    figure = training_figures.episodes_figure(
        progress, {"success": "success", "conflict_free": "conflict free"}, "success"
    )
    above, below = ({line.get_label(): line.get_ydata().tolist() for line in ax.lines} for ax in figure.axes)
    assert above["conflict free"] == [0.2, 0.6, 1.0] and above["success, evaluation"] == [0.4, 1.0]
    assert below == {"perfect": [0, 1]}
    training_figures.plt.close(figure)
    unshared = progress[["env_steps", "gradient_steps", "eval_score"]]
    assert training_figures.episodes_figure(unshared, {}, "return") is None


def finished_run(run_dir):
    """The files that figures are drawn from, of a policy that has not learned anything."""
    config = resolve_config({
        "epochs": 1, "device": "cpu", "env": {"name": "atc/head_on", "max_episode_steps": 12},
        "algo": {"name": "ppo", "total_env_steps": 64, "num_envs": 4, "steps_per_update": 16, "epochs": 1,
                 "minibatches": 1, "actor": {"hidden_sizes": [8]}, "critic": {"hidden_sizes": [8]}},
    }, "test")  # fmt: skip
    for name in ("eval", "policy"):
        (run_dir / name).mkdir(parents=True)
    (run_dir / "config.yaml").write_text(config.to_yaml())
    (run_dir / "training_progress.csv").write_text("epoch,env_steps,gradient_steps,success,eval_score\n1,64,1,0.5,\n")
    report = {**dict.fromkeys(history.REPORT_KEYS), "split": "test", "detail": {}}
    (run_dir / "eval" / "final_test.json").write_text(json.dumps(report))
    (run_dir / "eval" / "traj_final_test.csv").write_text("episode_id\n0\n")
    run = runs.build(config)
    algorithm, data = run.algorithm, Data(run.env.default_params)
    kept.write_kept(run_dir, run.env)
    policy = jax.jit(lambda key: algorithm.policy(algorithm.init(key, algorithm.hparams, data)))(jax.random.key(0))
    bundle.write_tree(run_dir / "policy" / "best.npz", jax.tree.map(lambda leaf: leaf[None], policy), {})


@pytest.mark.slow
def test_the_command_draws_everything(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plots, "STYLES", {name: plots.STYLES[name] for name in (plots.POLICY, plots.WORST)})
    monkeypatch.setattr(plots, "BESIDE", plots.WORST)  # each more costs a compilation
    for name, value in (("FRAME_S", 60), ("FRAMES_PER_S", 2)):
        monkeypatch.setattr(episode_figures, name, value)
    finished_run(tmp_path)
    assert plot.main(["training", "--run", str(tmp_path), "--all", "--episodes", "6"]) == 0
    drawn = {path.name for path in (tmp_path / "plots").iterdir()}
    of_flights = {"trajectories", "separation", "closest_approach", "survival", "conflict_map", "frames"}
    assert drawn == {f"{name}.png" for name in {*of_flights, "losses", "episodes"}} | {"flight.gif"}
    assert (tmp_path / "plots" / "flight.gif").read_bytes()[:3] == b"GIF"
    assert str(tmp_path / "plots" / "flight.gif") in capsys.readouterr().out


def test_the_command_passes_its_flags(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("purerl.report.draw.draw_run", lambda *args: asked.append(args) or [tmp_path / "a.png"])
    monkeypatch.setattr("purerl.report.shown.from_directory", lambda run_dir: run_dir)
    monkeypatch.setattr("purerl.run.stored_config.read_config", lambda run_dir: SimpleNamespace())
    monkeypatch.setattr("purerl.run.process.select_device", lambda config: None)
    command = ["training", "--run", str(tmp_path), "--out", str(tmp_path / "x")]
    assert plot.main(command) == 0 and plot.main([*command, "--all", "--episodes", "9"]) == 0
    assert asked == [(tmp_path, tmp_path / "x", False, None), (tmp_path, tmp_path / "x", True, 9)]
    assert str(tmp_path / "a.png") in capsys.readouterr().out
    assert plot.main([*command, "--episodes", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "argument --episodes: must be at least 1, not 0" in line
