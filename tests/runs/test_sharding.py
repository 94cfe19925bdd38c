"""Runs on several devices: the same numbers as on one, equal copies, and a clear refusal of uneven shares."""

import shutil

import jax
import numpy as np
import pytest
import yaml
from helpers import BASE, arrays

from purerl import train
from purerl.config import resolve_config
from purerl.run.program import program_of
from purerl.run.runs import build

TD3 = {
    "name": "td3",
    "total_env_steps": 120,
    "num_envs": 4,
    "steps_per_update": 5,
    "sequence_length": 5,
    "updates_per_step": 0.2,
    "warmup_steps": 40,
    "buffer_size": 400,
    "batch_size": 8,
    "actor_lr": 1e-2,
    "critic_lr": 1e-2,
    "actor": {"lstm_hidden_size": 4, "hidden_sizes": [4]},
    "critic": {"lstm_hidden_size": 4, "hidden_sizes": [4]},
}
SAC = {
    "name": "sac",
    **{key: value for key, value in TD3.items() if key not in ("name", "sequence_length", "actor", "critic")},
    "n_step": 3,
    "actor": {"hidden_sizes": [4]},
    "critic": {"hidden_sizes": [4]},
}
"""On transitions, some of which wait for their window to close when a checkpoint is written."""
ALGORITHMS = {"td3": TD3, "sac": SAC}
APG = {
    "name": "apg",
    "total_env_steps": 336,
    "num_envs": 8,
    "steps_per_update": 7,
    "noise_std": 0.2,
    "normalize_obs": True,
    "critic_epochs": 2,
    "critic_minibatches": 2,
    "actor": {"lstm_hidden_size": 4, "hidden_sizes": [4]},
    "critic": {"lstm_hidden_size": 4, "hidden_sizes": [4]},
}
"""Windows of seven steps over episodes of five: each device steps its own environments through the resets."""
CONFIG = {**BASE, "algo": TD3, "epochs": 3}


def after_one_epoch(**changes):
    """Policies (with a seed axis), metrics and state after two updates, by default of a small LSTM-TD3."""
    config = resolve_config({**CONFIG, **changes}, "test")
    algorithm = build(config).algorithm
    program, data = program_of(algorithm, config, updates_per_epoch=2), algorithm.load_data()
    state, placed = program.place(program.init(data)), program.place_data(data)
    state, metrics = program.chunk(state, placed)(state, placed)
    return jax.device_get(program.policy(state)), jax.device_get(metrics), state


@pytest.fixture(scope="module")
def on_one_device():
    return after_one_epoch()


def assert_close(tree, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), tree, expected)


@pytest.mark.parametrize("algorithm", ["td3", pytest.param("sac", marks=pytest.mark.slow)])
def test_shares_of_a_batch_give_the_numbers_of_one_device(algorithm, on_one_device):
    alone = on_one_device if algorithm == "td3" else after_one_epoch(algo=ALGORITHMS[algorithm])
    policy, metrics, state = after_one_epoch(num_devices=4, algo=ALGORITHMS[algorithm])
    assert_close(policy, alone[0])
    assert_close(metrics, alone[1])
    for leaf in jax.tree.leaves(state.learner):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 4
        assert all((copy == copies[0]).all() for copy in copies)


@pytest.mark.slow
def test_shares_of_the_environments_give_the_numbers_of_one_device():
    (policy, metrics, state), expected = after_one_epoch(algo=APG, num_devices=2), after_one_epoch(algo=APG)
    assert_close(policy, expected[0])
    assert_close(metrics, expected[1])
    assert_close(jax.device_get(state.worlds), jax.device_get(expected[2].worlds))
    assert_close(jax.device_get(state.critic), jax.device_get(expected[2].critic))


@pytest.mark.parametrize(("devices", "seeds"), [(2, 2), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_seeds_on_several_devices_are_the_single_runs(devices, seeds, on_one_device, same_keys):
    """Two seeds get a device each; three cannot be divided by two, and share batches."""
    policy, metrics, _ = after_one_epoch(num_devices=devices, num_seeds=seeds)
    first = jax.tree.map(lambda leaf: leaf[:1], policy)
    assert_close(first, on_one_device[0])
    np.testing.assert_allclose(metrics["critic_loss"][:, 0], on_one_device[1]["critic_loss"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_a_run_on_two_devices_resumes_to_the_same_bits(algorithm, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "num_devices": 2, "algo": ALGORITHMS[algorithm]}))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main(["--config", str(path), "--run-dir", str(whole)]) == 0
    shutil.copytree(whole, parts)
    # The state before the last epoch is what a run that was killed during it leaves.
    shutil.rmtree(parts / "checkpoints" / "epoch_000003")
    (parts / "metadata.json").unlink()
    assert train.main(["--resume", "--run-dir", str(parts)]) == 0
    assert arrays(parts / "checkpoints/epoch_000003") == arrays(whole / "checkpoints/epoch_000003")


def test_a_batch_without_equal_shares_is_refused(tmp_path, capsys):
    path = tmp_path / "uneven.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "num_devices": 3}))
    assert train.main(["--config", str(path), "--run-dir", str(tmp_path / "run")]) == 2
    assert "a batch of 8 has no 3 equal shares; change the batch or num_devices" in capsys.readouterr().err
