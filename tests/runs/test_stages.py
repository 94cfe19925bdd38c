"""A run of several stages: each a run of its own, the later ones starting from what an earlier one has learned."""

import json
import shutil
import signal

import numpy as np
import pytest
import yaml
from helpers import BASE
from test_commands import one_line
from test_runner import stop_at

from purerl import train
from purerl.run import checkpoint, display, session
from purerl.run.members import begun_in

STAGES = [
    {"name": "easy", "env": {"target_scale": 0.5}, "algo": {"total_env_steps": 120}, "epochs": 2},
    {"name": "hard", "starts_from": "stage:easy"},
]


@pytest.fixture
def staged(tmp_path):
    path = tmp_path / "staged.yaml"
    path.write_text(yaml.safe_dump({**BASE, "stages": STAGES}))
    return path


def weights(run_dir, step):
    return checkpoint.arrays(run_dir / "checkpoints", step)["['state'].weights"]


def test_the_second_stage_starts_from_the_first_and_both_resume(staged, tmp_path, monkeypatch, capsys):
    """Interrupted in the second stage and resumed, it ends as one that was not."""
    run_dir, fresh = tmp_path / "run", tmp_path / "fresh"
    firsts, started_from = [], session.stages.started_from

    def noted(*args):
        state = started_from(*args)
        firsts.append(np.array(state.weights))
        return state

    monkeypatch.setattr(session.stages, "started_from", noted)
    command = ["--config", str(staged), "logging.progress=false"]
    assert train.main([*command, "--run-dir", str(run_dir)]) == 0
    (first,) = firsts
    np.testing.assert_array_equal(first, weights(run_dir / "easy", 2))
    assert json.loads((run_dir / "easy" / "metadata.json").read_text())["status"] == "finished"
    assert (run_dir / "hard" / "policy" / "final.npz").exists()

    with monkeypatch.context() as patch:
        patch.setattr(display, "open_display", stop_at(4, signal.SIGTERM))
        assert train.main([*command, "--run-dir", str(fresh)]) == 0
    assert json.loads((fresh / "hard" / "metadata.json").read_text())["status"] == "interrupted"
    assert train.main([*command, "--run-dir", str(fresh), "--resume"]) == 0
    assert "already complete" in capsys.readouterr().out
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(fresh, moved)
    (moved / "hard" / "metadata.json").unlink()
    assert train.main([*command, "--run-dir", str(moved / ".." / "moved"), "--resume"]) == 0
    for stage, step in (("easy", 2), ("hard", 6)):
        assert weights(fresh / stage, step).tobytes() == weights(run_dir / stage, step).tobytes()


def test_a_signal_after_the_last_epoch_of_a_stage_starts_no_other(staged, tmp_path, monkeypatch, capsys):
    finish = session._Session._finish

    def finish_after_a_signal(self):
        signal.raise_signal(signal.SIGTERM)
        finish(self)

    monkeypatch.setattr(session._Session, "_finish", finish_after_a_signal)
    command = ["--config", str(staged), "logging.progress=false", "--run-dir", str(tmp_path / "run")]
    assert train.main(command) == 0
    assert "interrupted after easy; continue with --resume" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "easy" / "metadata.json").read_text())["status"] == "finished"
    assert not (tmp_path / "run" / "hard").exists()


def test_a_start_that_does_not_fit_is_refused_before_anything_is_written(finished_run, config_file, tmp_path, capsys):
    command = ["--config", str(config_file), "--run-dir", str(tmp_path / "run"), f"starts_from=run:{finished_run}"]
    assert train.main([*command, "num_seeds=2"]) == 2
    assert "use a sound run of the same networks, agents and num_seeds" in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "stages: write a list of stages, each with a name"),
        ([{"epochs": 2}], "stages: write a list of stages, each with a name"),
        ([{"name": "a"}, {"name": "a"}], "stage 'a': names are different words"),
        ([{"name": "../a"}], "names are different words of at most 100 letters"),
        ([{"name": "a" * 300}], "names are different words of at most 100 letters"),
        ([{"name": "a"}, {"name": "b", "evaluation": {"final_split": "tset"}}], "b: evaluation.final_split tset: "),
        ([{"name": "a"}, {"name": "b", "starts_from": "run:nowhere"}], "nowhere: no checkpoint there; train that run"),
        (
            [{"name": "a"}, {"name": "b", "starts_from": "stage:a", "num_seeds": 2}],
            "b: starts_from: stage:a: weights is (2, 1) there and (2, 2, 1) here; ",
        ),
        ([{"name": "a", "starts_from": "stage:b"}, {"name": "b"}], "stage 'a': stage:b: no earlier stage"),
        ([{"name": "a", "epohcs": 3}], "stage 'a': unknown key 'epohcs'; did you mean 'epochs'?"),
        ([{"name": "a", "starts_from": "elsewhere"}], "starts_from = 'elsewhere': write run:DIR or stage:NAME"),
        ([{"name": "a", "starts_from": "run:nowhere"}], "nowhere: no checkpoint there; train that run first"),
    ],
)
def test_stages_that_cannot_be_are_refused_in_one_line(stages, message, tmp_path, capsys):
    path = tmp_path / "staged.yaml"
    path.write_text(yaml.safe_dump({**BASE, "stages": stages}))
    assert train.main(["--config", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_what_was_begun_of_stages_and_what_was_not_is_told_apart(staged, tmp_path, capsys):
    """An empty folder of a stage is none that could be resumed; without the file nobody knows what comes next."""
    run_dir = tmp_path / "run"
    (run_dir / "easy").mkdir(parents=True)
    command = ["--run-dir", str(run_dir), "--resume", "logging.progress=false"]
    assert train.main(["--config", str(staged), *command]) == 0
    assert json.loads((run_dir / "hard" / "metadata.json").read_text())["status"] == "finished"
    assert begun_in(run_dir) == ["easy", "hard"] and begun_in(run_dir / "easy") == []
    capsys.readouterr()
    assert train.main(command) == 2
    assert "holds several runs; name the file that they are of, too: --config FILE" in one_line(capsys)
