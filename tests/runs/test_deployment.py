"""`purerl.evaluate --shift` and `--scenarios`: numbers are those of plain evaluations, and mistakes are one line."""

import json

import fake
import numpy as np
import pandas as pd
import places
import pytest
import yaml
from helpers import BASE

from purerl import evaluate, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`train(world, **sections)`: directory of a run."""

    def run(world, **sections):
        directory = tmp_path_factory.mktemp("trained")
        env = {"name": world, **sections.pop("env", {})}
        (directory / "config.yaml").write_text(yaml.safe_dump({**BASE, "env": env, **sections}))
        arguments = ["--config", str(directory / "config.yaml"), "--run-dir", str(directory / world.replace("/", "_"))]
        assert train.main(arguments) == 0
        return directory / world.replace("/", "_")

    return run


@pytest.fixture(scope="module")
def near(trained):
    with pytest.MonkeyPatch.context() as patch:
        places.register(patch.setitem)
        yield trained("places/near", num_seeds=2)


@pytest.fixture(scope="module")
def far(near, trained):
    return trained("places/far")


def strict(path):
    """JSON without the NaN that Python would write and read."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def final(run_dir):
    return strict(run_dir / "eval" / "final_test.json")


@pytest.mark.parametrize("asked", [("--shift",), ("--conditions", "shifts")])
def test_shifts(near, tmp_path, capsys, asked):
    out = tmp_path / "shifts.json"
    assert evaluate.main(["--run", str(near), *asked, "target", "env.target_scale=1.0", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("unchanged", "target", "points", "worst", "2 shifts left out"))
    report = strict(out)
    rows, score = report["shifts"], final(near)
    assert [row["size"] for row in rows] == list(places.SIZES) and report["columns"] == ["points", "worst", "gap"]
    assert rows[0]["points"] == pytest.approx(score["policy"], rel=1e-6)
    assert rows[0]["worst"] == pytest.approx(np.mean(score["detail"]["worst"]), rel=1e-6)
    for row in rows:
        assert row["points_change"] == pytest.approx(row["points"] - rows[0]["points"])
    assert rows[3]["points"] < rows[2]["points"]  # farther than the training's targets
    table = pd.read_csv(near / "eval" / "shifts.csv")
    np.testing.assert_allclose(table["worst_change"], [row["worst_change"] for row in rows], atol=1e-9)
    assert (near / "plots" / "shifts_worst.png").stat().st_size > 10_000


def test_all_calls_have_one_shape(near, tmp_path, monkeypatch):
    """Also with a last call that is not full, whose numbers stay those of one call for all."""
    reports = []
    for at_once in (2048, 3 * 2 * len(fake.TARGETS["test"])):
        monkeypatch.setattr("purerl.report.conditions.AT_ONCE", at_once)
        out = tmp_path / f"{at_once}.json"
        assert evaluate.main(["--run", str(near), "--shift", "--json", str(out)]) == 0
        reports.append(json.loads(out.read_text()))
    assert len(reports[0]["shifts"]) == len(places.SIZES) == len(reports[1]["shifts"])
    for one, other in zip(*(report["shifts"] for report in reports), strict=True):
        for name in ("points", "worst", "points_change"):
            assert one[name] == pytest.approx(other[name], rel=1e-6, abs=1e-9)


def test_scenarios(near, far, tmp_path, capsys):
    out = tmp_path / "scenarios.json"
    assert evaluate.main(["--run", str(near), str(far), "--scenarios", "far", "near", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("near", "far", "still", "worst"))
    cells = {(cell["player"], cell["condition"]): cell for cell in json.loads(out.read_text())["cells"]}
    pilots = ("places_near", "places_far", "still")
    assert list(cells) == [(pilot, scenario) for pilot in pilots for scenario in ("far", "near")]
    for run, own, other in ((near, "near", "far"), (far, "far", "near")):
        score = final(run)
        at_home, away = cells[run.name, own], cells[run.name, other]
        assert at_home["points"] == pytest.approx(score["policy"], rel=1e-6)
        assert at_home["trained_on"] == own and at_home["points_change"] == 0
        assert away["points_change"] == pytest.approx(away["points"] - at_home["points"]) and away["points_change"] != 0
        assert cells["still", own]["points"] == pytest.approx(score["baselines"]["still"], rel=1e-6)
    assert cells["still", "near"]["trained_on"] is cells["still", "near"]["points_change"] is None
    assert (near / "plots" / "scenarios.png").stat().st_size > 10_000
    assert len(pd.read_csv(near / "eval" / "scenarios.csv")) == len(cells)


def test_numbers_that_some_do_not_have(near, far, tmp_path, capsys):
    """Means are those of the seeds that have one; without any the number is null in JSON and empty in tables."""
    out = tmp_path / "out.json"
    assert evaluate.main(["--run", str(near), "--shift", "--json", str(out)]) == 0
    assert "–" in capsys.readouterr().out
    rows, (unknown, known) = strict(out)["shifts"], final(near)["detail"]["inner"]["gap"]
    assert unknown is None and rows[0]["gap"] == pytest.approx(known, rel=1e-6) and known > 0
    assert rows[2]["gap_change"] == pytest.approx(rows[2]["gap"] - known) and rows[2]["gap_change"] != 0
    assert rows[3]["gap"] is rows[3]["gap_change"] is None
    assert pd.read_csv(near / "eval" / "shifts.csv")["gap"].isna().tolist() == [False, False, False, True]
    assert (near / "plots" / "shifts_gap.png").stat().st_size > 10_000
    assert evaluate.main(["--run", str(near), str(far), "--scenarios", "near", "far", "--json", str(out)]) == 0
    assert "–" in capsys.readouterr().out
    cells = {(cell["player"], cell["condition"]): cell for cell in strict(out)["cells"]}
    assert cells["places_near", "near"]["gap"] == pytest.approx(known, rel=1e-6)
    targets = fake.TARGETS["test"]
    assert cells["still", "near"]["gap"] == pytest.approx(np.abs(targets).mean(), rel=1e-6)
    for pilot in ("places_near", "places_far", "still"):
        assert cells[pilot, "far"]["gap"] is cells[pilot, "far"]["gap_change"] is None
    assert cells["places_far", "near"]["gap"] > 0 and cells["places_far", "near"]["gap_change"] is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--shift", "rain"], "--shift: unknown name 'rain'"),
        (["--scenarios", "near", "sixfold"], "--scenarios: unknown name 'sixfold'"),
        (["--scenarios", "near", "--shift"], "--shift and --scenarios are two commands"),
        (["--conditions", "shifts", "--shift"], "--conditions and --shift are two commands"),
        (["--conditions", "rain"], "--conditions: places/near has no rain; it has shifts, scenarios"),
        (["--conditions", "shifts", "rain"], "--conditions: unknown name 'rain'"),
        (["{other}", "--conditions", "shifts"], "shifts are changes, which are played for one run alone"),
        (["--scenarios", "near", "--scenario", "far"], "--scenario and --scenarios are two commands"),
        (["{other}"], "several runs are compared with --scenarios"),
        (["{other}", "--scenarios", "near"], "runs of different worlds: {run} is places, {other} is track"),
        (["{tmp}/none", "--scenarios", "near"], "none: not a run directory"),
    ],
)
def test_bad_requests(near, finished_run, tmp_path, capsys, arguments, expected):
    def filled(text):
        return text.format(run=near, other=finished_run, tmp=tmp_path)

    assert evaluate.main(["--run", str(near), *map(filled, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert filled(expected) in line


@pytest.mark.parametrize("flag", ["--shift", "--scenarios"])
def test_worlds_without_other_conditions(finished_run, capsys, flag):
    assert evaluate.main(["--run", str(finished_run), flag, *["near"] * (flag == "--scenarios")]) == 2
    assert f"{flag}: track has no {'shifts' if flag == '--shift' else 'scenarios'}" in capsys.readouterr().err


@pytest.mark.slow
def test_air_traffic(trained, tmp_path):
    """A policy of two aircraft under shifts, and with three aircraft; alerts are scored as in a plain evaluation."""
    tiny = {"hidden_sizes": [8]}
    run_dir = trained(
        "atc/head_on",
        env={"max_episode_steps": 30, "enable_hallucination_detection": True},
        epochs=1,
        algo={"name": "ppo", "total_env_steps": 32, "num_envs": 4, "steps_per_update": 8, "minibatches": 1,
              "epochs": 1, "actor": tiny, "critic": tiny},
        evaluation={"every_epochs": None, "episodes": 3},
    )  # fmt: skip
    out, score = tmp_path / "out.json", final(run_dir)
    shown = {"success": score["policy"]}
    shown |= {name: score["detail"][name][0] for name in ("los_risk", "min_separation_nm", "reached_ratio")}
    shown["f1"] = score["detail"]["alerts"]["pilots"]["f1"][0]
    arguments = ["--run", str(run_dir), "--episodes", "3", "--json", str(out)]
    assert evaluate.main([*arguments, "--shift", "speed", "heading", "delay", "aircraft"]) == 0
    rows = json.loads(out.read_text())["shifts"]
    assert len(rows) == 1 + 3 * (18 + 18) + 1 + 3 + 1 + 2
    for unshifted in (rows[0], next(row for row in rows[1:] if row["kind"] == "none")):
        assert {name: unshifted[name] for name in shown} == pytest.approx(shown, rel=1e-4)
    assert len({row["min_separation_nm"] for row in rows}) > len(rows) // 2
    assert evaluate.main([*arguments, "--scenarios", "head_on", "t_formation"]) == 0
    cells = {(cell["player"], cell["condition"]): cell for cell in json.loads(out.read_text())["cells"]}
    assert {name: cells["atc_head_on", "head_on"][name] for name in shown} == pytest.approx(shown, rel=1e-5)
    for rule, success in score["baselines"].items():
        assert cells[rule, "head_on"]["success"] == success
    rules = score["detail"]["rules"]
    f1 = dict(zip(rules["names"], rules["alerts"]["pilots"]["f1"], strict=True))
    assert {rule: cells[rule, "head_on"]["f1"] for rule in f1} == pytest.approx(f1) and f1["mvp"] > f1["noop"] == 0
    assert cells["atc_head_on", "t_formation"]["min_separation_nm"] > 0
