"""Recording, training from the recording without a step, resuming, and what is said when data are missing or wrong."""

import contextlib
import shutil

import numpy as np
import pytest
import yaml
from helpers import BASE, assert_same_run, logs

from purerl import evaluate, record, train
from purerl.learn import dataset
from purerl.run import memory, session
from purerl.run.logs import read_events

ALGO = {
    "name": "bc", "total_gradient_steps": 36, "gradient_steps_per_update": 2, "batch_size": 8, "actor_lr": 0.01,
    "actor": {"hidden_sizes": [4]},
}  # fmt: skip


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Directory with a configuration, its recorded data and a finished run."""
    directory = tmp_path_factory.mktemp("offline")
    algo = {**ALGO, "dataset": str(directory / "data.npz")}
    (directory / "offline.yaml").write_text(yaml.safe_dump({**BASE, "algo": algo}))
    arguments = ["--config", str(directory / "offline.yaml"), "--out", str(directory / "data.npz")]
    assert record.main([*arguments, "--behaviour", "random", "--episodes", "6", "--seed", "4"]) == 0
    assert train.main(["--config", str(directory / "offline.yaml"), "--run-dir", str(directory / "run")]) == 0
    return directory


def test_the_recording_says_where_it_comes_from(offline):
    described = dataset.read(offline / "data.npz").metadata
    assert (described.world.name, described.seed, described.episodes) == ("track", 4, 6)
    assert described.settings["name"] == "track" and set(described.versions) == {"purerl", "jax", "numpy"}


def test_a_run_takes_no_step_and_draws_its_curves_over_gradient_steps(offline):
    rows = logs(offline / "run")["csv"]
    assert [row["env_steps"] for row in rows] == ["0"] * 6
    assert [int(row["gradient_steps"]) for row in rows] == [6, 12, 18, 24, 30, 36]
    (events,) = (offline / "run" / "tensorboard").iterdir()
    assert {event.step for _, event in read_events(events) if event.summary.value} == {6, 12, 18, 24, 30, 36}


def test_a_resumed_run_equals_an_uninterrupted_one(offline, tmp_path, monkeypatch):
    asked = []

    def stop_soon():
        asked.append(None)
        return len(asked) > 6

    arguments = ["--config", str(offline / "offline.yaml"), "--run-dir", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(session, "stop_signals", lambda: contextlib.nullcontext(stop_soon))
        assert train.main(arguments) == 0
    assert 0 < len(logs(tmp_path / "run")["csv"]) < 6
    assert train.main([*arguments, "--resume"]) == 0
    assert_same_run(tmp_path / "run", offline / "run")


def test_a_trained_policy_is_evaluated_without_its_data(offline, tmp_path, capsys):
    shutil.copytree(offline / "run", tmp_path / "run")
    (offline / "data.npz").rename(offline / "away.npz")
    try:
        assert evaluate.main(["--run", str(tmp_path / "run")]) == 0
        arguments = ["--config", str(offline / "offline.yaml"), "--run-dir", str(tmp_path / "new")]
        assert train.main(arguments) == 2
    finally:
        (offline / "away.npz").rename(offline / "data.npz")
    error = capsys.readouterr().err
    assert "data.npz: no such dataset; record it with `python -m purerl.record" in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--behaviour", "random", "--episodes", "0"], "argument --episodes: must be at least 1, not 0"),
        (["--behaviour", "random", "--episodes", "9999999999"], "argument --episodes: must be at most 2147483647"),
        (["--behaviour", "random", "--episodes", "2000000000"], "the dataset"),
        (["--behaviour", "random", "--episodes", "200000", "--num-envs", "200000"], "lower --"),
        (["--behaviour", "random", "--episodes", "3", "--num-envs", "0"], "argument --num-envs: must be at least 1"),
        (["--behaviour", "random", "--episodes", "3", "--seed", "-1"], "argument --seed: must be at least 0, not -1"),
        (["--behaviour", "random:inf", "--episodes", "3"], "inf must be a finite number"),
        (["--behaviour", "random", "--episodes", "x"], "argument --episodes: invalid int value"),
        (["--behaviour", "random:-1", "--episodes", "3"], "'random:-1': needs a name, a positive share"),
        (["--behaviour", "random:1:0.1", "--episodes", "3"], "random actions take no noise"),
        (["--behaviour", "random:1:2:3", "--episodes", "3"], "is not NAME[:SHARE[:NOISE]] with two numbers"),
        (["--behaviour", "rule", "--episodes", "3"], "behaviour 'rule': track has random, run:DIR"),
        (["--behaviour", "run:{tmp}/none", "--episodes", "3"], "not a run directory"),
        (["--behaviour", "random", "--episodes", "3", "--override", "seed=1"], "only env.key=value concerns"),
        (["--episodes", "3"], "--behaviour"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(offline, tmp_path, capsys, monkeypatch, arguments, expected):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**6)
    out = tmp_path / "new.npz"
    arguments = [a.replace("{tmp}", str(tmp_path)) for a in arguments]
    assert record.main(["--config", str(offline / "offline.yaml"), "--out", str(out), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and expected in line
    assert not out.exists()


def test_recorded_data_are_never_overwritten(offline, capsys):
    before = (offline / "data.npz").read_bytes()
    arguments = ["--config", str(offline / "offline.yaml"), "--out", str(offline / "data.npz")]
    assert record.main([*arguments, "--behaviour", "random", "--episodes", "3"]) == 2
    assert "exists already and is not overwritten" in capsys.readouterr().err
    assert (offline / "data.npz").read_bytes() == before


def test_a_trained_run_plays_as_a_behaviour(offline, tmp_path):
    arguments = ["--config", str(offline / "offline.yaml"), "--out", str(tmp_path / "data.npz")]
    assert record.main([*arguments, "--behaviour", f"run:{offline / 'run'}", "--episodes", "4"]) == 0
    data = dataset.read(tmp_path / "data.npz")
    # Greedy and memoryless: equal observations, equal actions.
    assert np.isfinite(data.action).all() and np.ptp(data.action, axis=0).max() < 1e-6
