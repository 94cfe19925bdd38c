"""The host loop: equalities between ways of running the same updates, logs, ends of a run."""

import csv
import json
import os
import signal
import sys
from types import SimpleNamespace

import fake
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import arrays, assert_same_run, bits, damage, logs

import purerl
from purerl import train
from purerl.config import load_config
from purerl.errors import ConfigError
from purerl.run import checkpoint, counters, display, program, runs
from purerl.run.plan import plan_of


def last_state(run_dir, config_path, *overrides):
    """State in the newest checkpoint."""
    run = runs.build(load_config(config_path, overrides))
    compiled = program.program_of(run.algorithm, run.config, 1)
    tree, _ = checkpoint.restore(
        run_dir / "checkpoints", {"state": jax.eval_shape(compiled.init, run.algorithm.load_data())}
    )
    return tree["state"]


@pytest.mark.parametrize(
    ("updates", "epochs", "plan"),
    [
        (100, 100, [1] * 100),
        (100, 10, [10] * 10),
        (150, 100, [1] * 50 + [2] * 50),
        (7, 3, [2, 2, 3]),
        (3, 10, [1, 1, 1]),
        (1, 1, [1]),
    ],
)
def test_epochs_are_near_equal_and_hold_every_update(updates, epochs, plan):
    planned = plan_of(updates, epochs)
    assert [planned.updates_of(epoch) for epoch in range(1, planned.epochs + 1)] == plan
    assert (planned.updates_after(0), planned.updates_after(planned.epochs)) == (0, updates)


@pytest.mark.parametrize(("updates", "expected"), [(0, "shorter than one update"), (2**31, "the device counts to")])
def test_a_run_has_a_number_of_updates_that_can_be_counted(updates, expected):
    with pytest.raises(ConfigError, match=expected):
        plan_of(updates, 10)


def test_epochs_that_do_not_divide_the_updates_lose_none(config_file, tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert train.main(["--config", str(config_file), "--run-dir", str(run_dir), "epochs=4"]) == 0
    assert "18 updates do not divide into 4 epochs; the last 2 have 5 instead of 4" in capsys.readouterr().out
    rows = logs(run_dir)["csv"]
    assert [int(row["update"]) for row in rows] == [4, 8, 13, 18]
    assert [int(row["env_steps"]) for row in rows] == [20 * (1 + update) for update in (4, 8, 13, 18)]
    losses = [row["loss"] for row in logs(run_dir)["jsonl"]]
    _, metrics = jax.jit(purerl.make_train(config_file))(jax.random.key(3))
    assert losses == np.asarray(metrics["loss"], np.float64).tolist()


def test_chunked_equals_whole_bit_for_bit(config_file, finished_run):
    state, metrics = jax.jit(purerl.make_train(config_file))(jax.random.key(3))
    assert bits(state) == bits(last_state(finished_run, config_file))
    logged = [row["loss"] for row in logs(finished_run)["jsonl"]]
    assert logged == np.asarray(metrics["loss"], np.float64).tolist()
    assert len(logged) == 18


def test_whole_runs_vmap_over_keys_and_hyper_parameters(config_file, finished_run):
    train_run = purerl.make_train(load_config(config_file))
    keys = jax.vmap(jax.random.key)(jnp.array([3, 4]))
    states, metrics = jax.jit(jax.vmap(train_run))(keys)
    assert metrics["loss"].shape == (2, 18)
    alone = last_state(finished_run, config_file)
    np.testing.assert_allclose(states.weights[0], alone.weights, rtol=1e-6)
    assert not np.allclose(states.weights[1], alone.weights)

    rates = fake.HParams(jnp.array([0.1, 0.3]))
    swept, _ = jax.jit(jax.vmap(train_run, (None, 0)))(jax.random.key(3), rates)
    np.testing.assert_allclose(swept.weights[0], states.weights[0], rtol=1e-6)
    assert not np.allclose(swept.weights[1], states.weights[0])


def test_seeds_trained_at_once_equal_single_runs(config_file, finished_run, tmp_path):
    run_dir = tmp_path / "seeds"
    assert train.main(["--config", str(config_file), "--run-dir", str(run_dir), "num_seeds=2"]) == 0
    both = last_state(run_dir, config_file, "num_seeds=2")
    alone = last_state(finished_run, config_file)
    np.testing.assert_allclose(both.weights[0], alone.weights, rtol=1e-6)
    assert bits(both.key[0]) == bits(alone.key)
    rows, single = logs(run_dir)["jsonl"], logs(finished_run)["jsonl"]
    np.testing.assert_allclose([r["per_seed"]["loss"][0] for r in rows], [r["loss"] for r in single], rtol=1e-5)
    np.testing.assert_allclose(rows[-1]["loss"], np.mean(rows[-1]["per_seed"]["loss"]))
    report = json.loads((run_dir / "eval" / "final_test.json").read_text())
    assert report["percent_of_bound"] == pytest.approx(np.mean(report["percent_of_bound_per_seed"]))
    reference = json.loads((finished_run / "eval" / "final_test.json").read_text())
    assert report["policy_per_seed"][0] == pytest.approx(reference["policy"], rel=1e-5)


def test_the_best_policy_of_every_seed_is_kept():
    memory = counters.Counters()
    first, second = ({"w": jnp.array([[1.0], [2.0]]) + shift} for shift in (0, 10))
    best = counters.merge_best(memory, None, first, [0.5, 0.9], [1.0, 1.0])
    best = counters.merge_best(memory, best, second, [0.7, 0.8], [0.0, 2.0])
    assert best["w"].tolist() == [[11.0], [2.0]]
    assert (memory.best_scores, memory.best_returns) == ([0.7, 0.9], [0.0, 1.0])
    best = counters.merge_best(memory, best, first, [0.7, 0.9], [-1.0, 1.5])
    assert best["w"].tolist() == [[11.0], [2.0]] and memory.best_returns == [0.0, 1.5], "returns part equal scores"


def test_an_update_is_traced_once(config_file, tmp_path, monkeypatch):
    traces = []

    def counting_make(*args):
        algorithm = make(*args)

        def update(state, data):
            traces.append(None)
            return algorithm.update(state, data)

        return algorithm._replace(update=update)

    make = fake.make
    monkeypatch.setattr(fake, "make", counting_make)
    assert train.main(["--config", str(config_file), "--run-dir", str(tmp_path / "run")]) == 0
    assert len(traces) == 1


def stop_at(epoch: int, number: int):
    """A display that sends a signal to this process after an epoch."""

    def open_display(*_):
        def show(record):
            if record.epoch == epoch:
                os.kill(os.getpid(), number)

        return display.Display(show, lambda: None)

    return open_display


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_exit_0_and_the_resumed_run_is_the_uninterrupted_one(
    config_file, finished_run, tmp_path, monkeypatch, number
):
    run_dir = tmp_path / "run"
    arguments = ["--config", str(config_file), "--run-dir", str(run_dir)]
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(display, "open_display", stop_at(3, number))
        assert train.main(arguments) == 0
    assert signal.getsignal(number) == before
    metadata = json.loads((run_dir / "metadata.json").read_text())
    assert (metadata["status"], metadata["epoch"]) == ("interrupted", 3)
    assert checkpoint.available(run_dir / "checkpoints")[-1] == 3
    assert train.main([*arguments, "--resume"]) == 0
    metadata = json.loads((run_dir / "metadata.json").read_text())
    assert (metadata["status"], metadata["sessions"]) == ("finished", 2)
    assert_same_run(run_dir, finished_run)


def test_resuming_from_a_damaged_checkpoint_falls_back_and_ends_the_same(
    config_file, finished_run, tmp_path, monkeypatch, capsys
):
    run_dir = tmp_path / "run"
    arguments = ["--config", str(config_file), "--run-dir", str(run_dir)]
    with monkeypatch.context() as patch:
        patch.setattr(display, "open_display", stop_at(4, signal.SIGTERM))
        assert train.main(arguments) == 0
    assert checkpoint.available(run_dir / "checkpoints") == [2, 4]
    damage(run_dir / "checkpoints" / "epoch_000004")
    # A killed process may also leave lines that are not finished, and logs of epochs that were not saved.
    with open(run_dir / "metrics.jsonl", "a") as stream:
        stream.write('{"epoch": 5, "upd')
    with open(run_dir / "training_progress.csv", "a") as stream:
        stream.write("5,1")
    event_file = next((run_dir / "tensorboard").iterdir())
    event_file.write_bytes(event_file.read_bytes() + b"\x20\x00\x00")
    assert train.main([*arguments, "--resume"]) == 0
    assert "epoch_000004 is damaged" in capsys.readouterr().err
    assert_same_run(run_dir, finished_run)


def test_without_the_replay_a_run_still_resumes(config_file, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    arguments = ["--config", str(config_file), "--run-dir", str(run_dir), "checkpointing.save_replay=false"]
    with monkeypatch.context() as patch:
        patch.setattr(display, "open_display", stop_at(4, signal.SIGTERM))
        assert train.main(arguments) == 0
    stored = arrays(run_dir / "checkpoints" / "epoch_000004")
    assert "['state'].weights" in stored and not any("ring" in name for name in stored)
    assert train.main([*arguments, "--resume"]) == 0
    assert [row["epoch"] for row in logs(run_dir)["csv"]] == list("123456")


def test_a_complete_run_is_left_alone(config_file, finished_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.is_file()}
    assert train.main(["--config", str(config_file), "--run-dir", str(finished_run), "--resume"]) == 0
    assert "already complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.is_file()} == before


def test_divergence_names_the_metric_and_keeps_the_last_good_checkpoint(config_file, tmp_path, capsys):
    run_dir = tmp_path / "run"
    arguments = ["--config", str(config_file), "--run-dir", str(run_dir), "algo.bad_update=14"]
    assert train.main(arguments) == 3
    error = capsys.readouterr().err
    assert "metric 'loss' is nan at update 14 (epoch 5, seed 3); last good checkpoint: epoch 4" in error
    metadata = json.loads((run_dir / "metadata.json").read_text())
    assert (metadata["status"], metadata["bad_metric"], metadata["epoch"]) == ("diverged", "loss", 4)
    assert checkpoint.available(run_dir / "checkpoints")[-1] == 4
    assert np.isfinite(np.frombuffer(arrays(run_dir / "checkpoints/epoch_000004")["['state'].weights"], "f4")).all()
    assert [row["epoch"] for row in logs(run_dir)["csv"]] == list("1234")


def test_early_stop_counts_evaluations_without_gain(config_file, tmp_path):
    run_dir = tmp_path / "run"
    overrides = ["evaluation.every_epochs=1", "evaluation.early_stop={metric: return, patience: 2, min_delta: 100}"]
    assert train.main(["--config", str(config_file), "--run-dir", str(run_dir), *overrides]) == 0
    metadata = json.loads((run_dir / "metadata.json").read_text())
    assert (metadata["status"], metadata["epoch"]) == ("early_stopped", 3)
    assert (run_dir / "policy" / "final.npz").exists()


def test_the_run_directory_is_as_documented(finished_run, config_file):
    for name in ("config.yaml", "metadata.json", "training_progress.csv", "metrics.jsonl"):
        assert (finished_run / name).is_file()
    for name in ("tensorboard", "checkpoints", "eval", "plots", "policy"):
        assert (finished_run / name).is_dir()
    assert load_config(finished_run / "config.yaml") == load_config(config_file)
    metadata = json.loads((finished_run / "metadata.json").read_text())
    assert metadata["versions"]["jax"] == jax.__version__
    assert metadata["env_steps"] == 20 + 18 * 20
    assert metadata["session"]["compile_s"] > 0
    assert checkpoint.available(finished_run / "checkpoints") == [4, 6]


def test_csv_has_one_row_per_epoch_with_counters_episodes_and_scores(finished_run):
    with open(finished_run / "training_progress.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["update"]) for row in rows] == [3, 6, 9, 12, 15, 18]
    assert [int(row["env_steps"]) for row in rows] == [20 + 60 * k for k in range(1, 7)]
    assert [int(row["episode"]) for row in rows] == [12, 24, 36, 48, 60, 72]
    assert [row["eval_score"] != "" for row in rows] == [False, True] * 3
    jsonl = logs(finished_run)["jsonl"]
    assert float(rows[0]["loss"]) == pytest.approx(np.mean([row["loss"] for row in jsonl[:3]]), rel=1e-7)
    assert float(rows[0]["return"]) == pytest.approx(np.mean([row["return"] for row in jsonl[:3]]), rel=1e-7)
    assert jsonl[5]["eval_score"] == pytest.approx(float(rows[1]["eval_score"]), rel=1e-7)


def test_tensorboard_has_the_numbers_of_the_csv(finished_run):
    content = logs(finished_run)
    curve = [(step, value) for step, tag, value in content["tensorboard"] if tag == "train/loss"]
    assert curve == [(int(row["env_steps"]), pytest.approx(float(row["loss"]), rel=1e-6)) for row in content["csv"]]
    tags = {tag for _, tag, _ in content["tensorboard"]}
    assert {"episode/return", "eval/score", "eval/percent_of_bound"} <= tags


def test_many_updates_per_epoch_become_one_line_per_epoch(config_file, tmp_path):
    run_dir = tmp_path / "run"
    overrides = ["algo.total_env_steps=2040", "epochs=2", "checkpointing.every_epochs=2"]
    assert train.main(["--config", str(config_file), "--run-dir", str(run_dir), *overrides]) == 0
    assert [row["update"] for row in logs(run_dir)["jsonl"]] == [51, 102]


def test_formats_can_be_switched_off_and_progress_is_ten_lines(config_file, tmp_path, capsys):
    run_dir = tmp_path / "run"
    overrides = ["logging={csv: false, jsonl: false, tensorboard: false}", "epochs=18"]
    assert train.main(["--config", str(config_file), "--run-dir", str(run_dir), *overrides]) == 0
    assert not (run_dir / "training_progress.csv").exists()
    assert not (run_dir / "metrics.jsonl").exists()
    assert not list((run_dir / "tensorboard").iterdir())
    assert capsys.readouterr().out.count("env steps/s") == 10


def test_weights_and_biases_gets_every_epoch_under_one_identity(config_file, tmp_path, monkeypatch):
    calls = []
    board = SimpleNamespace(
        log=lambda row, step: calls.append((step, row["epoch"])), finish=lambda: calls.append("finish")
    )
    wandb = SimpleNamespace(init=lambda **settings: calls.append(settings) or board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run_dir = tmp_path / "run"
    arguments = ["--config", str(config_file), "--run-dir", str(run_dir), "logging.wandb.project=batteries"]
    assert train.main(arguments) == 0
    settings, *rows, end = calls
    identity = (run_dir / "wandb_id").read_text().strip()
    assert (settings["project"], settings["id"], settings["dir"]) == ("batteries", identity, str(run_dir))
    assert rows == [(20 + 60 * epoch, epoch) for epoch in range(1, 7)]
    assert end == "finish"


def test_quick_evaluation_writes_episodes_step_by_step(config_file, tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["--config", str(config_file), "--run-dir", str(run_dir), "evaluation.quick_every_epochs=3"]
    assert train.main(arguments) == 0
    written = sorted(path.name for path in (run_dir / "eval").glob("steps_ep*.csv"))
    assert written == [f"steps_ep{e:04d}{c}.csv" for e in (3, 6) for c in ("", *(f"_case{i}" for i in range(4)))]
    with open(run_dir / "eval" / "steps_ep0006_case2.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == fake.LENGTH
    for row in rows:
        assert float(row["reward"]) == pytest.approx(-((float(row["action"]) - float(row["target"])) ** 2), abs=1e-6)
        assert float(row["target"]) == pytest.approx(fake.TARGETS["val"][2])


def test_without_a_best_policy_the_final_one_is_scored(config_file, tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["--config", str(config_file), "--run-dir", str(run_dir), "checkpointing.save_best=false"]
    assert train.main(arguments) == 0
    assert not (run_dir / "policy" / "best.npz").exists()
    assert checkpoint.best_step(run_dir / "checkpoints") is None
    assert (run_dir / "eval" / "final_test.json").exists()
