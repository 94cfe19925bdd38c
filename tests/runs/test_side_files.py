"""Damaged files of a run: logs are rebuilt or their holes said, everything else is one line with file and remedy."""

import importlib.util
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import arrays, logs

from purerl import evaluate, plot, train
from purerl.config import load_config
from purerl.errors import ConfigError, DamagedError
from purerl.export import Exported, write_exported
from purerl.report import shown
from purerl.run import directory, history, session, stored_config
from purerl.run import logs as writers
from purerl.run.display import _status
from purerl.run.metrics import host_metrics

CSV, JSONL = history.CSV_NAME, history.JSONL_NAME


@pytest.fixture
def copy(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


def without_line(number):
    return lambda data: b"".join(line for i, line in enumerate(data.splitlines(keepends=True)) if i != number)


def with_line(number, text):
    def change(data):
        lines = data.splitlines(keepends=True)
        return b"".join([*lines[:number], text, *lines[number:]])

    return change


def known(row, but=()):
    return {name: value for name, value in row.items() if value is not None and name not in but}


def flips(data, count):
    """Single flipped bits at random places."""
    draw = random.Random(0)
    for _ in range(count):
        place, bit = draw.randrange(len(data)), draw.randrange(8)
        yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


# Logs


@pytest.mark.parametrize(
    ("damage", "epochs"),
    [
        (lambda data: b"", "epochs 1-6"),
        (lambda data: data[:9], "epochs 1-6"),
        (lambda data: data[7:], "epochs 1-6"),
        (lambda data: data[: data.index(b"\n") // 2] + data[data.index(b"\n") :], "epochs 1-6"),
        (without_line(3), "epoch 3"),
        (without_line(6), "epoch 6"),
        (lambda data: without_line(2)(without_line(5)(data)), "epochs 2, 5"),
        (lambda data: data.replace(b"\n4,", b"\n4\x00\xff,"), "epoch 4"),
        (lambda data: data[:-30], "epoch 6"),
    ],
)
def test_rows_that_the_csv_has_lost_are_made_from_the_json_lines(copy, finished_run, capsys, damage, epochs):
    config = load_config(copy / "config.yaml")
    wanted = history.read_history(finished_run, config, 6).progress
    assert capsys.readouterr().err == ""
    edit(copy / CSV, damage)
    rows = history.read_history(copy, config, 6).progress
    (line,) = capsys.readouterr().err.splitlines()
    assert f"warning: {copy / CSV}: {epochs} lost or damaged; taken from {JSONL}" in line
    for row, own in zip(rows, wanted, strict=True):
        assert known(row, writers.TIMING_COLUMNS) == pytest.approx(known(own, writers.TIMING_COLUMNS), rel=1e-8)


def test_what_is_lost_in_both_logs_is_said(copy, capsys):
    edit(copy / CSV, without_line(2))
    edit(copy / JSONL, lambda data: data.replace(b'{"epoch": 2', b'{"epoch": "2"'))
    found = history.read_history(copy, load_config(copy / "config.yaml"), 6)
    assert [row["epoch"] for row in found.progress] == [1, 3, 4, 5, 6]
    assert f"{CSV}: epoch 2 lost or damaged, and not in {JSONL} either" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "epochs"),
    [
        (with_line(4, b"\n"), None),
        (with_line(4, b"\x00\xff garbage\n[1]\n{}\n"), None),
        (lambda data: data + b'{"epoch": 7', None),
        (without_line(4), "epoch 2"),
        (without_line(5), "epoch 2"),
        (lambda data: data.replace(b'"loss": ', b'"loss": x'), "epochs 1-6"),
        (lambda data: b"", "epochs 1-6"),
    ],
)
def test_json_lines_that_are_none_are_dropped_and_holes_said(copy, finished_run, capsys, damage, epochs):
    config, before = load_config(copy / "config.yaml"), (finished_run / JSONL).read_bytes().splitlines()
    edit(copy / JSONL, damage)
    writers.open_logs(copy, config, 6, 380, history.read_history(copy, config, 6).progress).close()
    kept = (copy / JSONL).read_bytes().splitlines()
    assert set(kept) <= set(before) and (kept == before) == (epochs is None)
    errors = capsys.readouterr().err
    assert (f"{JSONL}: {epochs} lost or damaged, wholly or in part" in errors) if epochs else errors == ""


def epoch_of(number, evaluation=None, unit=""):
    counts = dict.fromkeys(("update", "env_steps", "agent_steps", "gradient_steps", "episode"), number)
    series = host_metrics({"loss": np.array([0.5]), "episode/return": np.array([-1.0])}).series
    timing = dict.fromkeys(writers.TIMING_COLUMNS, 1.0)
    return writers.Epoch(
        epoch=number, frames=None, **counts, metrics=series, score_unit=unit, evaluation=evaluation or {},
        timing=timing, env_steps_per_update=1, gradient_steps_per_update=1,
    )  # fmt: skip


def test_a_rebuilt_csv_goes_on_under_the_columns_of_a_sound_one(tmp_path):
    config = load_config_of_logs(tmp_path)
    fresh = writers.open_logs(tmp_path, config, 0, 0)
    for number in (1, 2, 3):
        fresh.write(epoch_of(number))
    fresh.close()
    sound = (tmp_path / CSV).read_text()
    (tmp_path / CSV).write_text("")
    rows = history.read_history(tmp_path, config, 2).progress
    resumed = writers.open_logs(tmp_path, config, 2, 2, rows)
    resumed.write(epoch_of(3))
    resumed.close()
    header, *lines = (tmp_path / CSV).read_text().splitlines()
    assert [header, lines[2]] == [sound.splitlines()[0], sound.splitlines()[3]]
    assert [line.split(",")[0] for line in lines] == ["1", "2", "3"]
    # Sound rows are written again as they were.
    (tmp_path / CSV).write_text(sound)
    rows = history.read_history(tmp_path, config, 3).progress
    writers.open_logs(tmp_path, config, 3, 3, rows).close()
    assert (tmp_path / CSV).read_text() == sound


def load_config_of_logs(tmp_path):
    from helpers import write_config

    return load_config(write_config(tmp_path), ["logging.tensorboard=false"])


def test_a_run_with_damaged_metadata_and_logs_is_resumed(config_file, copy, finished_run, capsys):
    """Its counters are those of the checkpoint. What is shown at its end is the same from memory and from the files."""
    endings = []
    edit(copy / "metadata.json", lambda data: data[:40])
    edit(copy / CSV, lambda data: b"")
    edit(copy / JSONL, with_line(2, b"\nx\n"))
    edit(copy / "eval" / "epoch_000002.json", lambda data: data[:-9])
    conclude = lambda *ending: endings.append(ending)  # noqa: E731
    assert session.run(load_config(config_file), copy, resume=True, conclude=conclude) == session.EXIT_OK
    errors = capsys.readouterr().err
    for file in ("metadata.json: damaged", f"{CSV}: epochs 1-6", "epoch_000002.json: damaged"):
        assert file in errors
    assert "Traceback" not in errors and JSONL + ": epoch" not in errors
    metadata = json.loads((copy / "metadata.json").read_text())
    assert (metadata["status"], metadata["epoch"], metadata["sessions"]) == ("finished", 6, 1)
    assert logs(copy)["jsonl"] == logs(finished_run)["jsonl"]
    assert [row["epoch"] for row in logs(copy)["csv"]] == list("123456")
    assert arrays(copy / "policy" / "best.npz") == arrays(finished_run / "policy" / "best.npz")

    ((run, _, ending),) = endings
    memory, files = shown.from_memory(run, ending), shown.from_directory(copy)
    assert memory.config == files.config and memory.report == files.report
    assert memory.history.evaluations == files.history.evaluations
    for one, other in zip(memory.history.progress, files.history.progress, strict=True):
        assert known(one) == pytest.approx(known(other), rel=1e-8)
    np.testing.assert_allclose(memory.steps.to_numpy(float), files.steps.to_numpy(float), rtol=1e-6)
    flown = [which.replay().play("policy", np.arange(2))["reward"] for which in (memory, files)]
    np.testing.assert_array_equal(*flown)


def test_damaged_metadata_of_a_run_are_not_a_complete_run(copy):
    edit(copy / "metadata.json", lambda data: data.replace(b"finished", b"finisheb"))
    assert not session.is_complete(copy)


# Single files


def test_no_flipped_bit_of_a_configuration_goes_unnoticed(copy):
    wanted = stored_config.read_config(copy)
    for flipped in flips((copy / "config.yaml").read_bytes(), 300):
        (copy / "config.yaml").write_bytes(flipped)
        try:
            # The checksum is a comment: without its mark the configuration is what it was.
            assert stored_config.read_config(copy) == wanted
        except (ConfigError, DamagedError):
            continue


@pytest.mark.parametrize(
    ("file", "damage", "command", "expected"),
    [
        ("config.yaml", lambda data: data.replace(b"0.1", b"0.2"), ["evaluate"], "does not fit the checksum"),
        ("config.yaml", lambda data: data.replace(b"0.1", b"0.2"), ["plot", "training"], "does not fit the checksum"),
        ("config.yaml", lambda data: data.replace(b"0.1", b"0.2"), ["train", "--resume"], "does not fit the checksum"),
        ("config.yaml", lambda data: b"\xff" + data, ["evaluate"], "config.yaml: damaged (not text); restore it"),
        ("checkpoints/calibration.json", lambda data: b"{", ["evaluate"], "calibration.json: damaged"),
        ("eval/final_test.json", lambda data: data[1:], ["plot", "training"], "write it again: python -m purerl.eval"),
        ("eval/final_test.json", lambda data: b"{}", ["plot", "training"], "damaged (without 'split')"),
        (CSV, lambda data: b"", ["plot", "training"], None),
        ("eval/epoch_000004.json", lambda data: b"", ["plot", "training"], None),
        ("eval/steps_final_test.csv", lambda data: b"", ["plot", "training"], None),
    ],
)
def test_commands_name_the_damaged_file(copy, capsys, monkeypatch, file, damage, command, expected):
    monkeypatch.setattr("purerl.report.style.save_figures", lambda figures, out: [])  # drawing takes its time
    edit(copy / file, damage)
    name, *words = command
    main = {"evaluate": evaluate.main, "plot": plot.main, "train": train.main}[name]
    flag = "--run-dir" if name == "train" else "--run"
    assert main([*words, flag, str(copy)]) == (0 if expected is None else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert Path(file).name in line and line.startswith("warning: " if expected is None else "error: ")
    assert expected is None or expected in line


def test_runs_of_different_worlds_are_not_compared(copy, finished_run, config_file, tmp_path, capsys):
    out = ["--out", str(tmp_path / "compare.png")]
    other = load_config(config_file, ["env={name: 'gymnax:CartPole-v1'}"])
    stored_config.write_config(copy, other)
    assert plot.main(["compare", "--runs", str(finished_run), str(copy), *out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "different worlds have no common axis" in line and f"{copy}: gymnax:CartPole-v1" in line
    assert not (tmp_path / "compare.png").exists()
    stored_config.write_config(copy, load_config(config_file))
    for path in (copy / "eval").glob("*_*.json"):
        report = json.loads(path.read_text())
        path.write_text(json.dumps({**report, "percent_of_bound_per_seed": None, "sha256": None}))
    assert plot.main(["compare", "--runs", str(finished_run), str(copy), *out]) == 2
    assert "scores in different units" in capsys.readouterr().err
    assert plot.main(["compare", "--runs", str(finished_run), str(finished_run), *out]) == 0
    assert (tmp_path / "compare.png").stat().st_size > 10_000


# Small promises


def test_every_run_directory_has_a_board_of_its_own(tmp_path):
    paths = [tmp_path / name / "seed0" / writers.WANDB_NAME for name in ("lr1", "lr2")]
    for path in paths:
        path.parent.mkdir(parents=True)
    first, second = map(writers._wandb_identity, paths)
    assert first != second and writers._wandb_identity(paths[0]) == first
    paths[0].write_text("seed0\n")
    with pytest.raises(DamagedError, match="wandb_id: damaged"):
        writers._wandb_identity(paths[0])


def test_progress_says_what_a_score_means():
    evaluation = {"eval_score": 8016.2, "eval_percent_of_bound": 96.64}
    assert _status(epoch_of(1, evaluation, "EUR/day")).endswith("eval 8016 EUR/day, 96.64 % of bound")
    assert _status(epoch_of(1, {**evaluation, "eval_percent_of_bound": None}, "return")).endswith("eval 8016 return")
    assert "eval" not in _status(epoch_of(1))


@pytest.mark.parametrize("name", ["policy.npz", "policy"])
def test_no_flipped_bit_of_an_exported_policy_goes_unnoticed(tmp_path, name):
    """As the example for other machines reads it."""
    script = Path(__file__).parents[2] / "notebooks" / "deploy_example.py"
    spec = importlib.util.spec_from_file_location("deploy_example", script)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    exported = Exported(bytes(range(256)), {"format": "test", "carry": [{"initial": [0.5, 1.0]}]})
    write_exported(exported, tmp_path / name)
    wanted = example.read(tmp_path / name)
    assert wanted == (exported.artefact, exported.metadata)
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        whole = path.read_bytes()
        for flipped in flips(whole, 300):
            path.write_bytes(flipped)
            try:
                found = example.read(tmp_path / name)
            except Exception:  # of the zip reader any
                continue
            assert found == wanted
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("policy.onnx", "write a .npz file, or a folder, whose name has no suffix"),
        ("there.npz", "exists already and is not overwritten"),
        ("there", "exists already and is not overwritten"),
        ("file", "exists already and is not overwritten"),
    ],
)
def test_export_overwrites_nothing_and_invents_no_format(tmp_path, name, expected):
    (tmp_path / "there").mkdir()
    for file in ("there.npz", "there/notes.txt", "file"):
        (tmp_path / file).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=expected):
        write_exported(Exported(b"", {}), tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "there.npz").read_text() == "mine"


def test_a_run_directory_is_opened_with_a_checksum(config_file, copy):
    assert (copy / "config.yaml").read_text().splitlines()[-1].startswith(stored_config.CHECKSUM)
    directory.check_run_dir(load_config(config_file), copy, resume=True)
    edit(copy / "config.yaml", lambda data: data.replace(b"seed: 3", b"seed: 4"))
    with pytest.raises(DamagedError, match="take out the last line if it was changed on purpose"):
        directory.check_run_dir(load_config(config_file), copy, resume=True)
