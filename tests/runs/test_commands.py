"""The command lines: bad input is one line and exit code 2, scores and exported policies are those of the run."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import fake
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purerl
from envs_jax.base import Assessment, Reporter
from purerl import evaluate, export, train
from purerl.config import Evaluation, load_config
from purerl.errors import ConfigError
from purerl.run import directory, evaluation, kept, memory, preflight, process, runs, stored_config

ROOT = Path(__file__).parents[2]


def one_line(capsys) -> str:
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


def contents(directory: Path) -> dict:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# train

PPO = "algo={name: ppo, num_envs: 4, steps_per_update: 8, total_env_steps: 2000000000, minibatches: 1}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--config FILE is missing"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--config", "{config}", "--sead", "3"], "unrecognized arguments: --sead; did you mean --seed?"),
        (["--config", "{config}", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--config", "{config}", "--seed", "-1"], "override: seed = -1: must be greater than or equal to 0"),
        (["--config", "{config}", "algo.learning_rat=3"], "did you mean 'algo.learning_rate'?"),
        (["--config", "{config}", "algo.learning_rate=fast"], "algo.learning_rate = 'fast': must be a valid number"),
        (["--config", "{config}", "algo.learning_rate=0"], "algo.learning_rate = 0: must be greater than 0"),
        (["--config", "{config}", "--resume"], "--resume needs --run-dir"),
        (["--config", "{config}", "--run-dir", "{tmp}/none", "--resume"], "none: nothing to resume"),
        (["--config", "{config}", "--run-dir", "{config}/x"], "track.yaml/x: run directory cannot be written"),
        (["--config", "{config}", "--run-dir", "/proc/x"], "/proc/x: run directory cannot be written"),
        (["--config", "{config}", "env.data_path={tmp}/gone.txt"], "gone.txt"),
        (["--config", "{config}", "env={name: 'gymnax:Pendulum-v2'}"], "did you mean 'Pendulum-v1'?"),
        (["--config", "{config}", "env={name: 'gymnax:Pendulum-v1', gg: 3}"], "unknown parameter 'gg'"),
        (
            ["--config", "{config}", "evaluation.early_stop.metric=sc"],
            "must be 'score', 'return' or 'percent_of_bound'",
        ),
        (["--config", "{config}", "logging.wandb.project=p"], "wandb is not installed"),
        (["--config", "{config}", "reward_scale=.inf"], "override: reward_scale = inf: must be a finite number"),
        (["--config", "{config}", "--seed", "2147483647", "num_seeds=2"], "the last seed must be below 2^31"),
        (["--config", "{config}", "algo.total_env_steps=10"], "the run is shorter than one update"),
        (["--config", "{config}", "algo.total_env_steps=1000000000000"], "1000000000000: must be between"),
        (["--config", "{config}", "evaluation.quick_dates=['2021-01-01']"], "track has no named episodes"),
        (
            ["--config", "{config}", "algo.capacity=2000000000"],
            "memory: this needs at least 24 GB (replay 24 GB, state ",
        ),
        (["--config", "{config}", "num_seeds=100000"], "lower evaluation.episodes or num_seeds"),
        (
            ["--config", "{config}", "env={name: 'gymnax:Pendulum-v1'}"],
            "fake on gymnax:Pendulum-v1: cannot be traced: Type",
        ),
        (
            ["--config", "{config}", "env={name: 'gymnax:Pendulum-v1'}", "evaluation.episodes=100000", PPO],
            "evaluation 340 MB) and 10 MB are free; lower ",
        ),
        (
            ["--config", "{config}", "env={name: 'gymnax:Pendulum-v1'}", "epochs=1", PPO.replace("8,", "200000,")],
            "lower algo.num_envs or algo.steps_per_update or algo.actor or algo.critic or num_seeds",
        ),
        (["--config", "{config}", "evaluation.streaks={perfect: 2}"], "evaluation.streaks: 'perfect'; track has none"),
        (
            [
                "--config",
                "{config}",
                "env={name: 'gymnax:Pendulum-v1'}",
                "evaluation.early_stop.metric=percent_of_bound",
            ],
            "gymnax:Pendulum-v1 has no percent_of_bound with these settings; use score",
        ),
        (
            ["--config", "{config}", "env={name: 'gymnax:Pendulum-v1', max_steps_in_episode: 0}"],
            "env: max_steps_in_episode = 0 of gymnax task 'Pendulum-v1': must be from 1 to 1000000",
        ),
        (
            ["--config", "{config}", "env={name: 'gymnax:Pendulum-v1', g: fast}"],
            "g of gymnax task 'Pendulum-v1' = 'fast'",
        ),
        (
            ["--config", "{config}", "evaluation.split=vaal"],
            "evaluation.split vaal: track has train, val, test; did",
        ),
        (["--config", "{config}", "evaluation.final_split=tset"], "did you mean 'test'?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(config_file, tmp_path, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**7)
    arguments = [a.replace("{config}", str(config_file)).replace("{tmp}", str(tmp_path)) for a in arguments]
    before = contents(tmp_path)
    assert train.main(arguments) == 2
    assert expected in one_line(capsys)
    assert contents(tmp_path) == before and not (tmp_path / "runs").exists()


def test_a_warm_up_longer_than_the_training_is_told_at_the_start():
    algorithm = SimpleNamespace(num_updates=3, env_steps_per_update=10, warmup_env_steps=40)
    with pytest.raises(ConfigError, match="the warm-up takes 40 environment steps and the training after it only 30"):
        preflight._require_time_to_learn(SimpleNamespace(algorithm=algorithm))


def test_cases_that_a_split_lacks_are_told_at_the_start():
    def cases(split, names):
        raise ValueError(f"day {names[0]} is not in split '{split}'")

    env = SimpleNamespace(name="days", assessment=Assessment(report=Reporter("hourly", cases, None)))
    config = SimpleNamespace(evaluation=Evaluation(quick_cases=["2031-01-01"]))
    with pytest.raises(ConfigError, match=r"evaluation\.quick_cases: day 2031-01-01 is not in split 'val'"):
        preflight._require_cases(SimpleNamespace(config=config, env=env))


def test_every_process_gets_a_directory_of_its_own(tmp_path):
    with ThreadPoolExecutor(8) as processes:
        claimed = set(processes.map(directory.claim, [tmp_path / "runs" / "a_20260101_000000"] * 8))
    assert claimed == {
        tmp_path / "runs" / f"a_20260101_000000{ending}" for ending in ("", *(f"_{n}" for n in range(2, 9)))
    }
    assert all(path.is_dir() for path in claimed)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match="runs/a: directory cannot be made"):
        directory.claim(tmp_path / "runs" / "a")


def test_more_devices_than_cores_are_warned_about(capsys):
    config = SimpleNamespace(num_devices=4096)
    process._warn_of_devices(config)
    assert "warning: num_devices 4096: there are only" in capsys.readouterr().err


def test_a_missing_gpu_is_said_before_anything_is_written(config_file, tmp_path, capsys, monkeypatch):
    def no_gpu(backend):
        raise RuntimeError(f"no {backend}")

    monkeypatch.setattr(jax, "devices", no_gpu)
    arguments = ["--config", str(config_file), "--run-dir", str(tmp_path / "run"), "device=gpu", "deterministic=false"]
    assert train.main(arguments) == 2
    assert "device: gpu: JAX finds no GPU here; use device: auto or cpu" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_used_run_directory_is_not_overwritten(config_file, finished_run, capsys):
    before = contents(finished_run)
    assert train.main(["--config", str(config_file), "--run-dir", str(finished_run)]) == 2
    assert "run directory is not empty; add --resume" in one_line(capsys)
    assert contents(finished_run) == before


def test_a_run_of_another_configuration_is_not_resumed(config_file, finished_run, capsys):
    before = contents(finished_run)
    arguments = ["--config", str(config_file), "--run-dir", str(finished_run), "--resume"]
    assert train.main([*arguments, "algo.learning_rate=0.2", "logging.progress=false"]) == 2
    assert "another configuration: algo.learning_rate: 0.1 -> 0.2" in one_line(capsys)
    assert contents(finished_run) == before


def test_a_defect_of_the_program_keeps_its_traceback(config_file, tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("shapes do not match")

    monkeypatch.setattr(train, "default_run_dir", broken)
    with pytest.raises(ValueError, match="shapes do not match"):
        train.main(["--config", str(config_file)])


def test_the_default_run_directory_is_named_after_the_configuration():
    assert train.default_run_dir(Path("configs/bess_td3.yaml")).as_posix().startswith("runs/bess_td3_20")


def test_seed_flag_and_mixed_order_of_arguments(config_file, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "purerl.run.session.run", lambda config, run_dir, resume, _: seen.append((config, run_dir, resume)) or 0
    )
    arguments = [
        "epochs=3",
        "--config",
        str(config_file),
        "algo.capacity=8",
        "--seed",
        "9",
        "--run-dir",
        "d",
        "epochs=4",
    ]
    assert train.main(arguments) == 0
    ((config, run_dir, resume),) = seen
    assert (config.seed, config.epochs, config.algo["capacity"], str(run_dir), resume) == (9, 4, 8, "d", False)


@pytest.mark.parametrize("module", ["train", "sweep", "evaluate", "export"])
def test_help_is_quick_and_documents_every_flag(module):
    """Nothing heavy is imported before the arguments are understood."""
    code = (
        f"import sys; from purerl import {module} as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'jax', 'numpy', 'pandas', 'pydantic', 'gymnax'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    flags = {
        "train": ("--config", "--run-dir", "--resume", "--seed", "dotted.key=value"),
        "sweep": ("--config", "--out", "--seeds", "--random", "--at-once", "--resume", "dotted.key=value"),
    }
    common = ("--checkpoint", "--run")
    for flag in flags.get(module, common):
        assert flag in ended.stdout


# evaluate


def test_evaluate_repeats_the_final_score(finished_run, tmp_path, capsys):
    out = tmp_path / "score.json"
    assert evaluate.main(["--run", str(finished_run), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("policy", "idle", "bound", "points"))
    report = json.loads(out.read_text())
    final = json.loads((finished_run / "eval" / "final_test.json").read_text())
    same = ("policy", "policy_per_seed", "baselines", "bound", "percent_of_bound", "split", "unit", "config_hash")
    assert {name: report[name] for name in same} == {name: final[name] for name in same}
    assert report["percent_of_bound_per_seed"] == [report["percent_of_bound"]]


def test_scores_are_those_of_the_weights(finished_run, tmp_path):
    """The greedy policy played by hand on the test targets."""
    with np.load(finished_run / "policy" / "best.npz") as file:
        weights = file[next(name for name in file.files if name != "__header__")][0, :, 0]
    total = []
    for target in fake.TARGETS["test"]:
        obs, memory, reward = np.array([target / 0.5, 1.0]), 0.0, 0.0
        for _ in range(fake.LENGTH):
            action = np.clip(obs @ weights, -1, 1) + 0.01 * memory
            memory = 0.5 * memory + obs[0]
            reward -= (action - target) ** 2
        total.append(reward)
    report = json.loads((finished_run / "eval" / "final_test.json").read_text())
    assert report["policy"] == pytest.approx(np.mean(total), rel=1e-5)


def test_evaluate_on_other_data_keeps_the_calibration_of_the_training(finished_run, tmp_path):
    data, out = tmp_path / "targets.txt", tmp_path / "score.json"
    data.write_text("\n".join(map(str, fake.TARGETS["test"][:3])))
    assert evaluate.main(["--run", str(finished_run), "--data", str(data), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["episodes"] == 3
    stored = json.loads((finished_run / "checkpoints" / "calibration.json").read_text())
    assert stored == {"scale": 0.5}
    run = runs.open_run(finished_run, ["env.target_scale=3.0"])
    assert run.env.assessment.calibration == stored
    assert run.env.assessment.splits["val"].targets[0] == pytest.approx(-1.2)


# Data and calibration belong to the run


@pytest.fixture
def run_on_file(finished_run, tmp_path):
    """The finished run as if its test targets had come from a file."""
    copy, data = tmp_path / "copy", tmp_path / "targets.txt"
    shutil.copytree(finished_run, copy)
    data.write_text("0.1\n0.2\n0.3\n")
    settings = load_config(copy / "config.yaml", [f"env.data_path={data}"])
    stored_config.write_config(copy, settings)
    kept.write_kept(copy, runs.build_env(settings))
    return copy, data


def test_data_that_grew_are_the_same_for_a_run_and_data_that_changed_are_not(run_on_file, tmp_path, capsys):
    run_dir, data = run_on_file
    arguments = ["--run", str(run_dir), "--json", str(tmp_path / "score.json")]
    scores = []
    for content in ("0.1\n0.2\n0.3\n", "0.1\n0.2\n0.3\n0.9\n"):
        data.write_text(content)
        assert evaluate.main(arguments) == 0
        report = json.loads((tmp_path / "score.json").read_text())
        scores.append((report["episodes"], report["policy"]))
    assert scores[0] == scores[1] and scores[0][0] == 3
    data.write_text("0.1\n0.25\n0.3\n")
    capsys.readouterr()
    assert evaluate.main(arguments) == 2
    assert "targets.txt: other targets than at the training" in one_line(capsys)
    other = tmp_path / "other.txt"
    other.write_text("0.5\n")
    assert evaluate.main([*arguments, "--data", str(other)]) == 0


def test_a_policy_is_loaded_and_exported_when_its_data_are_gone(run_on_file, tmp_path, monkeypatch, capsys):
    run_dir, data = run_on_file
    data.unlink()
    monkeypatch.chdir("/")
    assert purerl.load_policy(run_dir).obs_shape == (2,)
    assert export.main(["--run", str(run_dir), "--out", str(tmp_path / "exported")]) == 0
    capsys.readouterr()
    assert evaluate.main(["--run", str(run_dir)]) == 2
    assert "targets.txt" in one_line(capsys)


def test_relative_data_are_found_from_another_directory(config_file, tmp_path, monkeypatch):
    (tmp_path / "targets.txt").write_text("0.1\n0.2\n")
    monkeypatch.chdir(tmp_path)
    stored = load_config(config_file, ["env.data_path=targets.txt"])
    monkeypatch.chdir("/")
    assert stored.env["data_path"] == str(tmp_path / "targets.txt")
    assert runs.build_env(stored).assessment.splits["test"].targets.shape == (2,)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"5")] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("checkpoints/calibration.json", Path.unlink, "calibration.json: damaged (missing)"),
        ("checkpoints/calibration.json", lambda path: path.write_text("{}"), "does not fit the digest in data.json"),
        ("checkpoints/calibration.json", flip, "does not fit the digest in data.json"),
        ("data.json", Path.unlink, "data.json: damaged (missing)"),
        ("data.json", lambda path: path.write_text("{}"), "damaged (without 'calibration_sha256')"),
        ("data.json", flip, "data.json: damaged"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "export", "resume"])
def test_what_a_run_keeps_is_neither_fitted_again_nor_taken_damaged(
    finished_run, tmp_path, capsys, file, change, expected, command
):
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy, ignore=shutil.ignore_patterns("tensorboard", "plots"))
    change(copy / file)
    before = contents(copy)
    if command == "evaluate":
        code = evaluate.main(["--run", str(copy)])
    elif command == "export":
        code = export.main(["--run", str(copy), "--out", str(tmp_path / "policy")])
    else:
        (copy / "metadata.json").unlink()  # so that it is not complete
        before = contents(copy)
        code = train.main(["--resume", "--run-dir", str(copy)])
    assert code == 2
    assert expected in one_line(capsys)
    assert contents(copy) == before


@pytest.mark.parametrize(("name", "epoch"), [("latest", 6), ("4", 4), ("best", 6)])
def test_every_checkpoint_can_be_scored(finished_run, tmp_path, name, epoch):
    out = tmp_path / "score.json"
    arguments = ["--run", str(finished_run), "--split", "val", "--checkpoint", name, "--json", str(out)]
    assert evaluate.main(arguments) == 0
    report = json.loads(out.read_text())
    during = json.loads((finished_run / "eval" / f"epoch_{epoch:06d}.json").read_text())
    assert (report["epoch"], report["policy"]) == (epoch, during["policy"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--run", "{tmp}"], "not a run directory"),
        (["--run", "{run}", "--checkpoint", "newest"], "'newest' is not best, latest or the number of an epoch"),
        (["--run", "{run}", "--checkpoint", "5"], "no checkpoint '5' (have epochs: 4, 6)"),
        (["--run", "{run}", "--split", "tset"], "--split tset: track has train, val, test; did you mean 'test'?"),
        (["--run", "{run}", "--episodes", "99999999999"], "argument --episodes: must be at most 2147483647"),
        (["--run", "{run}", "--episodes", "0"], "argument --episodes: must be at least 1, not 0"),
        (["--run", "{run}", "--data", "{tmp}/none.csv"], "none.csv: no such file"),
        (["--run", "{run}", "--scenario", "storm"], "unknown key 'env.scenario'"),
        (["--run", "{run}", "algo.capacity=3"], "only env.key=value can differ"),
        (["--run", "{run}", "env.target_scale=-1"], "env.target_scale = -1: must be greater than 0"),
    ],
)
def test_bad_requests_for_a_score(finished_run, tmp_path, capsys, arguments, expected):
    arguments = [a.replace("{run}", str(finished_run)).replace("{tmp}", str(tmp_path)) for a in arguments]
    assert evaluate.main(arguments) == 2
    assert expected in one_line(capsys)


def test_a_damaged_policy_file_is_named(finished_run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    best = copy / "policy" / "best.npz"
    best.write_bytes(best.read_bytes()[:100])
    assert evaluate.main(["--run", str(copy)]) == 2
    assert "best.npz is damaged" in one_line(capsys)


def test_cases_are_spread_evenly():
    assert evaluation.choose_cases(10, None).tolist() == list(range(10))
    assert evaluation.choose_cases(10, 4).tolist() == [0, 3, 6, 9]
    assert evaluation.choose_cases(10, 99).tolist() == list(range(10))
    assert evaluation.choose_cases(None, None).size == evaluation.RANDOM_EPISODES
    assert evaluation.choose_cases(None, 7).tolist() == list(range(7))


def test_steps_after_the_end_of_an_episode_do_not_count(config_file):
    """Episodes of 1 to 5 steps: rewards beyond the end are zero, and the default score is the mean return."""
    run = runs.build(load_config(config_file))

    def step_env(key, state, action, params):
        obs, state, reward, _, truncated, info = run.env.step_env(key, state, action, params)
        return obs, state, reward, state.time == 1 + jnp.round(4 * (state.target + 0.5)), truncated, info

    unscored = run.env.assessment._replace(score=None)
    env = dataclasses.replace(run.env, step_env=step_env, assessment=unscored)
    policy = jnp.zeros((2, 2, 1))  # two seeds that answer 0
    result = evaluation.make_evaluate(run.algorithm, env, None)(policy, "train", None, 0)
    lengths = result.records["active"][0].sum(axis=1)
    targets = fake.TARGETS["train"]
    assert lengths.tolist() == (1 + np.round(4 * (targets + 0.5))).tolist()
    memory = np.cumsum(0.5 ** np.arange(fake.LENGTH))  # the probe's memory moves its action a little
    expected = []
    for target, length in zip(targets, lengths, strict=True):
        action = 0.01 * target / 0.5 * np.concatenate([[0.0], memory[:-1]])
        expected.append(-np.sum((action - target)[:length] ** 2))
    np.testing.assert_allclose(result.records["reward"].sum(axis=2)[1], expected, rtol=1e-5)
    assert result.score.policy == pytest.approx([np.mean(expected)] * 2, rel=1e-5)
    assert (result.score.bound, result.score.percent_of_bound) == (None, None)


# export


def test_exported_policy_runs_with_any_batch_and_equals_the_loaded_one(finished_run, tmp_path):
    assert export.main(["--run", str(finished_run), "--out", str(tmp_path / "p.npz")]) == 0
    assert export.main(["--run", str(finished_run), "--out", str(tmp_path / "folder")]) == 0
    with np.load(tmp_path / "p.npz") as file:
        artefact, layout = file["artefact"].tobytes(), json.loads(str(file["metadata"]))
    assert (tmp_path / "folder" / "policy.jaxexport").stat().st_size == len(artefact)
    assert json.loads((tmp_path / "folder" / "policy.json").read_text()) == layout
    assert layout["obs"]["shape"] == [None, 2]
    assert (layout["action_low"], layout["action_high"]) == ([-1.0], [1.0])

    from jax import export as jax_export

    exported = jax_export.deserialize(bytearray(artefact))
    loaded = purerl.load_policy(finished_run)
    rng = np.random.default_rng(0)
    for batch in (1, 5):
        carry = [np.repeat(np.array(c["initial"], c["dtype"]), batch, c["shape"].index(None)) for c in layout["carry"]]
        memory = loaded.initial_carry(batch)
        for _ in range(4):
            obs = rng.normal(size=(batch, 2)).astype(np.float32)
            action, *carry = exported.call(obs, *carry)
            expected, memory = loaded.act(obs, memory)
            assert action.shape == (batch, 1)
            np.testing.assert_allclose(action, expected, rtol=0, atol=1e-6)


def test_the_deployment_example_needs_jax_and_numpy_alone(finished_run, tmp_path):
    assert export.main(["--run", str(finished_run), "--out", str(tmp_path / "p.npz")]) == 0
    script = ROOT / "notebooks" / "deploy_example.py"
    lines = script.read_text().splitlines()
    imported = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported <= {"jax", "numpy", "hashlib", "json", "pathlib", "sys"}
    environment = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(script), str(tmp_path / "p.npz")]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("action") == 3


def test_load_policy_picks_a_seed(finished_run):
    best, only = purerl.load_policy(finished_run), purerl.load_policy(str(finished_run), seed_index=0)
    obs = jnp.ones((2, 2))
    assert bool((best.act(obs, best.initial_carry(2))[0] == only.act(obs, only.initial_carry(2))[0]).all())
    with pytest.raises(ValueError, match="seed index 1: the run has seeds 0 to 0"):
        purerl.load_policy(finished_run, seed_index=1)


def test_top_level_names_are_lazy_and_complete():
    assert all(callable(getattr(purerl, name)) for name in purerl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = purerl.nothing
