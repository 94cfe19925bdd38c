"""Sweeps: every lane is the single run, points share a program exactly when they may, interruptions change nothing."""

import csv
import json
import os
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BASE
from test_commands import one_line

import purerl
from envs_jax.base import Assessment
from purerl import plot, sweep
from purerl.config import load_config, resolve_config
from purerl.errors import ConfigError
from purerl.report import style, sweep_figures
from purerl.report.statistics import interquartile_mean
from purerl.run import files, memory
from purerl.run.evaluation import make_evaluate
from purerl.run.runs import build
from purerl.sweeps import lanes, points, run, training

RATES = [0.05, 0.3]
TINY = {"hidden_sizes": [4]}
PPO = {
    "name": "ppo", "total_env_steps": 120, "num_envs": 2, "steps_per_update": 10, "epochs": 2, "minibatches": 2,
    "lr": 1e-2, "lr_schedule": {"type": "linear"}, "actor": TINY, "critic": TINY,
}  # fmt: skip


def config_of(**changes):
    return resolve_config({**BASE, **changes}, "test")


def ppo_config(*overrides):
    return resolve_config({**BASE, "algo": PPO, "epochs": 3}, "test", overrides)


def rows(path):
    with open(path) as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def swept():
    """Two points with two seeds in one program."""
    return purerl.sweep.train_points(config_of(), [{"algo.learning_rate": rate} for rate in RATES], seeds=2)


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory):
    """Arguments and directory of an uninterrupted sweep in two parts."""
    from helpers import write_config

    directory = tmp_path_factory.mktemp("sweep")
    arguments = ["--config", str(write_config(directory)), "--seeds", "2", "--at-once", "2"]
    arguments += [f"algo.learning_rate={RATES}"]
    assert sweep.main([*arguments, "--out", str(directory / "out")]) == 0
    return arguments, directory / "out"


# Equal to single runs


def assert_lanes_are_single_runs(trained, config, policy_of, only, with_scores=True):
    for p in only:
        point = trained.points[p]
        single = resolve_config(config.model_dump(mode="json"), "test", [f"{k}={v}" for k, v in point.items()])
        train = jax.jit(purerl.make_train(single))
        run = build(single)
        evaluate = make_evaluate(run.algorithm, run.env, None)
        for s, seed in enumerate(trained.seeds):
            policy = policy_of(train(jax.random.key(seed))[0])
            own = jax.tree.map(lambda leaf, s=s: leaf[s], trained.policies[p])
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), own, policy)
            if not with_scores:
                continue
            score = evaluate(jax.tree.map(lambda x: x[None], policy), "val", None, 1234).score.policy[0]
            assert trained.scores[p, s] == pytest.approx(score, rel=1e-4)


def test_a_point_and_seed_is_the_single_run(swept):
    assert swept.keys == {"algo.learning_rate": "traced"}
    assert [group.points for group in swept.groups] == [(0, 1)]
    assert swept.seeds == [3, 4]
    assert len(np.unique(swept.scores)) == 4
    assert_lanes_are_single_runs(swept, config_of(), lambda state: state.weights, only=(1,))


@pytest.mark.slow
def test_a_point_and_seed_of_ppo_is_the_single_run_with_its_schedule():
    config = ppo_config()
    trained = sweep.train_points(config, [{"algo.lr": 1e-3, "algo.gamma": 0.9}, {"algo.lr": 3e-2, "algo.gamma": 0.5}])
    assert len(trained.groups) == 1
    policy = build(config).algorithm.policy
    assert_lanes_are_single_runs(trained, config, policy, only=(1,), with_scores=False)


def test_numbers_of_the_environment_share_one_program(monkeypatch):
    """Every lane learns and is scored in the environment of its own point."""
    compiled, compile_for = [], training.compile_for
    monkeypatch.setattr(training, "compile_for", lambda *args: compiled.append(args) or compile_for(*args))
    grid = points.grid({"env.target_scale": [0.5, 1.0, 2.0], "env.price": [0.0, 0.5]})
    trained = sweep.train_points(config_of(), grid, seeds=1)
    assert trained.keys == {"env.target_scale": "traced", "env.price": "traced"}
    assert len(trained.groups) == len(compiled) == 1
    assert len(np.unique(trained.scores)) == 6
    assert_lanes_are_single_runs(trained, config_of(), lambda state: state.weights, only=(1, 4))


def test_a_key_that_sets_shapes_is_trained_in_sequence():
    grid = points.grid({"algo.num_envs": [2, 4], "algo.learning_rate": RATES})
    trained = sweep.train_points(config_of(), grid, seeds=1)
    assert trained.keys == {"algo.num_envs": "in sequence", "algo.learning_rate": "traced"}
    assert [group.points for group in trained.groups] == [(0, 1), (2, 3)]
    assert trained.env_steps[0] != trained.env_steps[2]
    assert_lanes_are_single_runs(trained, config_of(), lambda state: state.weights, only=(2,), with_scores=False)


def test_a_number_that_switches_a_branch_gets_a_program_of_its_own():
    """The KL term is in the program only if its weight is above zero: a table of traced keys would miss that."""
    configs = points.point_configs(ppo_config(), points.grid({"algo.kl_coef": [0, 0.1, 0.2]}))
    groups = points.groups_of(configs)
    assert [group.points for group in groups] == [(0,), (1, 2)]
    np.testing.assert_allclose(groups[1].hparams.kl_coef, [0.1, 0.2])


def test_points_that_differ_in_nothing_that_works_are_reported():
    lines = []
    overrides = [{"algo.lr_schedule.decay_factor": 0.5}, {"algo.lr_schedule.decay_factor": 0.6}]
    configs = points.point_configs(ppo_config(), overrides)
    groups = points.groups_of(configs)
    training._announce(ppo_config(), overrides, 1, groups, {}, lines.append)
    assert any("decay_factor 0.5 and decay_factor 0.6 are the same program with the same numbers" in x for x in lines)


def test_parts_and_devices_do_not_change_the_numbers(swept):
    grid = [{"algo.learning_rate": rate} for rate in RATES]
    on_two = sweep.train_points(config_of(num_devices=2), grid, seeds=2)
    np.testing.assert_allclose(np.stack(on_two.curves), np.stack(swept.curves), rtol=1e-5)
    in_parts = sweep.train_points(config_of(), [*grid, {"algo.learning_rate": 0.1}], seeds=1, at_once=2)
    assert [part["runs"] for part in in_parts.parts] == [2, 1]
    np.testing.assert_allclose(in_parts.scores[:2, 0], swept.scores[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("count", "at_once", "devices", "size"),
    [(64, 256, 1, 64), (64, 63, 1, 32), (64, 24, 1, 22), (5, 2, 1, 2), (6, 4, 4, 4), (9, 8, 2, 6), (1, 8, 2, 1)],
)
def test_parts_are_few_and_alike_and_divide_over_devices(count, at_once, devices, size):
    assert lanes.part_size(count, at_once, devices) == size


def test_parts_fit_the_memory(monkeypatch):
    config = config_of(algo={"name": "fake", "capacity": 4000})
    (group,) = points.groups_of(points.point_configs(config, [{}]))
    needed = lanes._bytes_needed
    monkeypatch.setattr(lanes, "_bytes_needed", lambda chunk: 100 * jax.tree.leaves(chunk.in_avals)[0].shape[0])
    monkeypatch.setattr(lanes, "_memory_bytes", lambda devices: 800)
    fitting = lanes.compile_for(group, 8, None, None)
    assert fitting.size == 4
    assert needed(fitting.chunks[group.plan.updates_of(1)]) >= 4 * 4000 * 3 * 4, "bytes of the replays"


def test_what_one_seed_cannot_hold_is_refused_before_anything_is_written(config_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    arguments = ["--config", str(config_file), "--out", str(tmp_path / "out"), "algo.capacity=[16, 4000]"]
    assert sweep.main(arguments) == 2
    assert "memory: this needs at least" in (message := one_line(capsys)) and "algo.num_envs" in message
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_traced_is_one_line(config_file, tmp_path, monkeypatch, capsys):
    def mismatched(*args):
        raise TypeError("add got incompatible shapes\nand more")

    monkeypatch.setattr(points, "rollout_cases", mismatched)
    arguments = ["--config", str(config_file), "--out", str(tmp_path / "out"), "algo.learning_rate=[0.1, 0.2]"]
    assert sweep.main(arguments) == 2
    assert "fake on track: cannot be traced: TypeError: add got incompatible shapes (" in one_line(capsys)
    assert not (tmp_path / "out").exists()


# Divergence


def test_a_point_that_diverges_is_reported_and_spoils_no_other(swept):
    grid = [{"algo.learning_rate": rate} for rate in (RATES[0], 1e30)]
    trained = sweep.train_points(config_of(), grid, seeds=2)
    assert len(trained.groups) == 1
    assert set(trained.diverged) == {(1, 0), (1, 1)}
    assert trained.diverged[1, 0]["metric"] in ("loss", "weight_norm")
    assert 1 <= trained.diverged[1, 0]["update"] <= 18
    assert np.isnan(trained.scores[1]).all()
    np.testing.assert_allclose(trained.scores[0], swept.scores[0], rtol=1e-5)


def test_a_diverged_point_has_no_mean_and_is_never_the_best(config_file, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--config", str(config_file), "--seeds", "2", "--out", str(out), "algo.learning_rate=[0.3, 1e30]"]
    assert sweep.main(arguments) == 0
    assert "2 of 2" in capsys.readouterr().out
    good, bad = rows(out / "summary.csv")
    assert (bad["iqm"], bad["low"], bad["diverged"]) == ("", "", "2")
    assert good["diverged"] == "0"
    report = json.loads((out / "sweep.json").read_text())
    assert report["best"]["point"] == 0
    assert report["table"]["points_left_out"] == [1]
    assert report["table"]["iqm"] == pytest.approx(report["points"][0]["iqm"])
    assert rows(out / "table.csv")[-1]["diverged_metric"]


def test_when_all_diverge_the_exit_code_says_so(config_file, tmp_path, capsys):
    arguments = [
        "--config",
        str(config_file),
        "--seeds",
        "2",
        "--out",
        str(tmp_path / "out"),
        "algo.learning_rate=1e30",
    ]
    assert sweep.main(arguments) == 3
    assert "every point diverged" in capsys.readouterr().err


# What is written


def test_the_directory_is_as_documented(finished_sweep):
    _, out = finished_sweep
    report = json.loads((out / "sweep.json").read_text())
    table, summary, curves = (rows(out / f"{name}.csv") for name in ("table", "summary", "curves"))
    assert [(row["point"], row["seed"]) for row in table] == [("0", "3"), ("0", "4"), ("1", "3"), ("1", "4")]
    assert [float(row["algo.learning_rate"]) for row in summary] == RATES
    for point, row in enumerate(summary):
        scores = [float(r["score"]) for r in table if r["point"] == str(point)]
        assert float(row["iqm"]) == pytest.approx(interquartile_mean(np.array(scores)))
        assert float(row["low"]) <= float(row["iqm"]) <= float(row["high"])
    assert [int(row["epoch"]) for row in curves[:6]] == [2, 4, 6] * 2
    assert [int(row["env_steps"]) for row in curves[:3]] == [20 + 60 * k for k in (2, 4, 6)]
    assert [row["score"] for row in curves if row["epoch"] == "6"] == [row["score"] for row in table]
    assert report["keys"] == {"algo.learning_rate": "traced"}
    assert load_config(out / "config.yaml").num_seeds == 2
    metadata = json.loads((out / "metadata.json").read_text())
    assert metadata["status"] == "finished"
    assert metadata["versions"]["jax"] == jax.__version__
    assert metadata["times"]["env_steps"] == 4 * 380
    assert all(metadata["times"][name] > 0 for name in ("compile_s", "train_s", "evaluation_s", "env_steps_per_s"))
    assert (out / "sweep.png").stat().st_size > 10_000
    assert sorted(path.suffix for path in (out / "parts").glob("program_*")) == [".json", ".npz", ".npz"]


def test_the_best_is_chosen_on_the_evaluation_split_and_alone_scored_on_the_final_one(finished_sweep):
    _, out = finished_sweep
    report = json.loads((out / "sweep.json").read_text())
    iqms = [point["iqm"] for point in report["points"]]
    best = report["best"]
    assert report["split"] == "val"
    assert best["point"] == int(np.argmax(iqms))
    assert best["final"]["episodes"] == "split test"
    assert all("final" not in point for point in report["points"])
    trained = sweep.train_points(
        load_config(out / "config.yaml"), report["definition"]["points"], directory=out / "parts"
    )
    run = trained.run_of(best["point"])
    score = make_evaluate(run.algorithm, run.env, None)(trained.policies[best["point"]], "test", None, 1235).score
    assert best["final"]["scores"] == pytest.approx(score.policy)


FIGURES = {
    "one key, log": {"algo.lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]},
    "one key, linear": {"algo.gamma": [0.9, 0.95, 0.99]},
    "one key, names": {"algo.policy": ["normal", "squashed"]},
    "two keys, lines": {"algo.lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2], "algo.entropy_coef": [0.0, 0.01, 0.1]},
    "two keys, map": {
        "algo.lr": [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2],
        "algo.gamma": [0.9, 0.95, 0.97, 0.98, 0.99, 0.995],
    },
    "no key": {},
    "random": {
        "algo.lr": points.Range(1e-4, 1e-1, True), "algo.gamma": [0.98, 0.99], "algo.num_envs": points.Range(4, 64),
    },
}  # fmt: skip


def write_finished_sweep(out, axes, random):
    """Files of a sweep with made-up scores; the points with the highest learning rate diverge."""
    rng = np.random.default_rng(0)
    swept = points.random_points(axes, random, seed=0) if random else points.grid(axes)
    trained = sweep_of(
        swept, [list(axes), [100, 200, 400]],
        lambda point: 500 - 150 * abs(np.log10(point.get("algo.lr", 1e-3)) + 3) + rng.normal(0, 30, 8),
    )  # fmt: skip
    for number, point in enumerate(swept):
        if point.get("algo.lr", 0) >= 1e-2:
            trained.curves[number][-1, :3] = np.nan
            trained.diverged.update({(number, s): {"metric": "loss", "update": 40} for s in range(3)})
    report = run.report_of(trained)
    out.mkdir()
    definition = run.Definition(trained.config, axes, swept, random).to_json()
    files.write_json(out / "sweep.json", {"definition": definition, **report})
    run.write_tables(trained, report, out)
    return trained


def sweep_of(swept, keys_and_steps, final_scores):
    keys, steps = keys_and_steps
    growth = np.linspace(0.3, 1.0, len(steps))[:, None]
    return training.Sweep(
        config=config_of(), points=swept, seeds=list(range(8)), groups=[], keys=dict.fromkeys(keys, "traced"),
        unit="return", epochs=[[1, 2, 3]] * len(swept), env_steps=[steps] * len(swept),
        curves=[growth * final_scores(point) for point in swept], percent_of_bound=None, diverged={},
        policies=[], parts=[], compare_s=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("kind", FIGURES)
def test_every_kind_of_sweep_has_its_figure(tmp_path, monkeypatch, kind):
    final = {"episodes": "split test", "iqm": 1.0, "low": 0.0, "high": 2.0}
    monkeypatch.setattr(run, "_final_score", lambda *_: final)
    axes = FIGURES[kind]
    trained = write_finished_sweep(tmp_path / "out", axes, 24 if kind == "random" else None)
    figure = sweep_figures.sweep_figure(tmp_path / "out")
    *left, right = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert len(left) == max(1, len(axes)) if kind == "random" else 1
    assert len(right.lines) == len(trained.points)
    logarithmic = {ax.get_xlabel() for ax in left if ax.get_xscale() == "log"}
    assert logarithmic == ({"algo.lr"} & set(axes) if kind != "two keys, map" else set())
    lost = sum(np.isnan(scores).any() for scores in trained.scores)
    marks = [line for ax in left for line in ax.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert bool(marks) == (lost > 0 and kind != "two keys, map")
    (path,) = style.save_figures({"sweep": figure}, tmp_path / "out")
    assert path.stat().st_size > 10_000


def test_random_points_come_with_the_seed_of_the_configuration(config_file, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "run", lambda *arguments: asked.append(arguments) or 0)
    arguments = ["--config", str(config_file), "--out", "d", "--random", "3", "--at-once", "5", "algo.capacity=[32]"]
    assert sweep.main([*arguments, "algo.learning_rate={low: 1e-3, high: 1, log: true}"]) == 0
    ((definition, out, resume),) = asked
    axes = {"algo.learning_rate": points.Range(1e-3, 1, True)}
    assert definition.points == points.random_points(axes, 3, seed=3)
    assert (definition.axes, definition.random, definition.at_once, str(out), resume) == (axes, 3, 5, "d", False)
    assert definition.config.algo["capacity"] == 32
    out = tmp_path / "out"
    files.write_json(out / "sweep.json", {"definition": definition.to_json()})
    (out / "config.yaml").write_text(definition.config.to_yaml())
    assert run.read_definition(out) == definition


# Interruption


def signal_at(evaluation: int, number: int):
    """`lanes._line`, sending a signal to this process after an evaluation."""
    calls, line = [], lanes._line

    def patched(*args):
        calls.append(None)
        if len(calls) == evaluation:
            os.kill(os.getpid(), number)
        return line(*args)

    return patched


@pytest.mark.parametrize(("evaluation", "number"), [(2, signal.SIGTERM), (5, signal.SIGINT)])
def test_signals_save_and_exit_0_and_the_resumed_sweep_is_the_uninterrupted_one(
    finished_sweep, tmp_path, monkeypatch, capsys, evaluation, number
):
    """In the middle of the first part and in the middle of the second."""
    arguments, reference = finished_sweep
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "_line", signal_at(evaluation, number))
        assert sweep.main([*arguments, "--out", str(out)]) == 0
    assert "interrupted and saved" in capsys.readouterr().out
    assert json.loads((out / "metadata.json").read_text())["status"] == "interrupted"
    finished = {path: path.stat().st_mtime_ns for path in (out / "parts").glob("*.npz")}
    assert len(finished) == (evaluation == 5)
    resume = ["--resume", "--out", str(out)]
    assert sweep.main(resume if evaluation == 2 else [*arguments, *resume]) == 0
    assert "resumed after epoch 4" in capsys.readouterr().out
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    for name in ("table.csv", "summary.csv", "curves.csv", "config.yaml"):
        assert (out / name).read_bytes() == (reference / name).read_bytes(), name
    ours, theirs = (json.loads((directory / "sweep.json").read_text()) for directory in (out, reference))
    assert {**ours, "times": None, "sha256": None} == {**theirs, "times": None, "sha256": None}
    assert json.loads((out / "metadata.json").read_text())["sessions"] == 2
    assert not [path for path in (out / "parts").iterdir() if path.is_dir() and path.name != "bounds"]


def test_the_figure_can_be_drawn_again(finished_sweep, tmp_path, capsys):
    _, out = finished_sweep
    assert plot.main(["sweep", "--run", str(out), "--out", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").stat().st_size > 10_000
    assert plot.main(["sweep", "--run", str(tmp_path)]) == 2
    assert "no summary.csv; point to the directory of a finished sweep" in one_line(capsys)


def test_a_complete_sweep_is_left_alone(finished_sweep, capsys):
    arguments, out = finished_sweep
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert sweep.main([*arguments, "--resume", "--out", str(out)]) == 0
    assert "already complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"algo.learning_rate": "[0.05, 0.4]"}, "algo.learning_rate: [0.05, 0.3] -> [0.05, 0.4]"),
        ({"--seeds": "3"}, "num_seeds: 2 -> 3"),
        ({"--at-once": "4"}, "--at-once 2 -> 4"),
        ({"algo.capacity": "8"}, "algo.capacity: 16 -> 8"),
        ({"algo.capacity": "[8, 16]"}, "algo.capacity: not swept -> [8, 16]"),
    ],
)
def test_another_sweep_in_the_directory_is_refused_with_the_difference(finished_sweep, capsys, change, expected):
    arguments, out = finished_sweep
    arguments = arguments[:2] + [text for text in arguments[2:] if not text.startswith("algo.")]
    flags = {"--seeds": "2", "--at-once": "2", "algo.learning_rate": "[0.05, 0.3]", **change}
    given = [text for k, v in flags.items() for text in ([k, v] if k.startswith("--") else [f"{k}={v}"])]
    assert sweep.main([*arguments[:2], *given, "--resume", "--out", str(out)]) == 2
    assert expected in one_line(capsys)
    assert sweep.main([*arguments[:2], *given, "--out", str(out)]) == 2
    assert "run directory is not empty; add --resume or choose another --out" in one_line(capsys)


def test_parts_of_another_sweep_are_not_taken_for_this_one(finished_sweep):
    _, out = finished_sweep
    with pytest.raises(ConfigError, match="holds parts of another sweep"):
        sweep.train_points(config_of(), [{"algo.learning_rate": 0.2}], directory=out / "parts")


def test_parts_on_data_that_have_changed_are_not_taken_for_this_sweep(tmp_path):
    def on(**provenance):
        env = SimpleNamespace(assessment=Assessment(provenance=provenance))
        return [SimpleNamespace(envs=(env,))]

    training._claim(tmp_path, ["a"], 2, on(days=[1, 2]))
    training._claim(tmp_path, ["a"], 2, on(days=[1, 2]))
    with pytest.raises(ConfigError, match="holds parts of this sweep on data that have changed since"):
        training._claim(tmp_path, ["a"], 2, on(days=[1, 2, 3]))


# Bad input


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["algo.learning_rat=[1, 2]"], "unknown key 'algo.learning_rat'; did you mean 'algo.learning_rate'?"),
        (["algo.learning_rate=[0.1, -1]"], "algo.learning_rate = -1: must be greater than 0"),
        (["algo.learning_rate=[0.1, fast]"], "algo.learning_rate = 'fast': must be a valid number"),
        (["algo.learning_rate=[0.1, 1e-1]"], "two points are the same: learning_rate 0.1 and learning_rate 0.1"),
        (["algo.learning_rate=[]"], "algo.learning_rate: the list to sweep is empty"),
        (["algo.learning_rate=[1, 2]", "algo.learning_rate=1"], "algo.learning_rate is swept and given twice"),
        (["seed=[1, 2]"], "seed cannot be swept, only keys of algo and env can; --seeds N trains several seeds"),
        (["epochs=[1, 2]"], "epochs cannot be swept"),
        (["algo.name=[fake, ppo]"], "algo.name cannot be swept"),
        (["algo.learning_rate={low: 1, high: 2}"], "a range is for --random N; a grid takes a list of values"),
        (["--random", "2", "algo.learning_rate={low: 2, high: 1}"], "a range is {low: A, high: B} with A < B"),
        (["--random", "0"], "argument --random: must be at least 1, not 0"),
        (["--seeds", "0"], "argument --seeds: must be at least 1, not 0"),
        (["--resume"], "--resume needs --out"),
        (["env.data_path=[gone.txt]"], "gone.txt"),
        (["algo={name: ppo}", "algo.actor.hidden_sizes=[4, 8]"], "write algo.actor.hidden_sizes=[[...]]"),
        (["algo={name: ppo, num_envs: 3}", "algo.minibatches=[3, 7]"], "minibatches 7 must divide"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(config_file, tmp_path, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    out = [] if "--resume" in arguments else ["--out", str(tmp_path / "out")]
    assert sweep.main(["--config", str(config_file), *out, *arguments]) == 2
    assert expected in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_resuming_without_the_command_takes_no_other_arguments(tmp_path, capsys):
    assert sweep.main(["--resume", "--out", str(tmp_path / "none")]) == 2
    assert "none: nothing to resume (no sweep.json)" in one_line(capsys)
    assert sweep.main(["--resume", "--out", str(tmp_path), "algo.learning_rate=[1, 2]"]) == 2
    assert "overrides: --resume takes everything from --out" in one_line(capsys)
    assert sweep.main([]) == 2
    assert "--config FILE is missing" in one_line(capsys)


# Points


def test_a_list_of_one_list_sets_a_key_and_lists_of_lists_sweep_it():
    fixed, axes = points.split_overrides(["algo.actor.hidden_sizes=[[8, 4]]", "algo.critic.hidden_sizes=[[2], [4]]"])
    config = ppo_config(*fixed)
    assert config.algo["actor"]["hidden_sizes"] == [8, 4]
    critics = [c.algo["critic"]["hidden_sizes"] for c in points.point_configs(config, points.grid(axes))]
    assert critics == [[2], [4]]


def test_random_points_are_drawn_from_lists_and_ranges_and_repeat():
    axes = {"a": [1, 2], "b": points.Range(1e-4, 1e-1, True), "c": points.Range(4, 8), "d": points.Range(0.5, 1.0)}
    drawn = points.random_points(axes, 200, seed=0)
    assert drawn == points.random_points(axes, 200, seed=0) != points.random_points(axes, 200, seed=1)
    a, b, c, d = (np.array([point[key] for point in drawn]) for key in "abcd")
    assert set(a) == {1, 2} and set(c) == {4, 5, 6, 7, 8}
    assert b.min() >= 1e-4 and b.max() <= 1e-1 and d.min() >= 0.5 and d.max() <= 1.0
    assert np.median(b) == pytest.approx(10**-2.5, rel=0.5)
    assert len(points.random_points({"a": [1, 2]}, 50, seed=0)) == 2


def test_lanes_with_shared_keys_pass_the_key_reuse_check():
    with jax.debug_key_reuse(True):
        trained = sweep.train_points(config_of(), [{"algo.learning_rate": rate} for rate in RATES], seeds=2)
    assert jnp.isfinite(trained.scores).all()
