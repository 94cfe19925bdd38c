"""A run of every algorithm that loses its last epoch and is resumed ends with the same bits."""

import shutil
from pathlib import Path

import pytest

from purerl import record, train
from purerl.algos import ALGORITHMS
from purerl.config import load_config
from purerl.run import checkpoint, session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
CONFIGS = Path(__file__).parents[2] / "configs"
SHORT = [
    "epochs=3", "num_seeds=2", "num_devices=1", "checkpointing.every_epochs=1", "checkpointing.keep_periodic=5",
    "evaluation.every_epochs=null", "evaluation.episodes=4", "logging.tensorboard=false",
]  # fmt: skip
RUNS = {
    "cartpole_ppo": ["algo.total_env_steps=3072"],
    "cartpole_hidden_ppo": ["algo.total_env_steps=12288"],
    "cartpole_impala": ["algo.total_env_steps=6144"],
    "cartpole_appo": ["algo.total_env_steps=6144"],
    "pendulum_sac": ["algo.total_env_steps=60", "algo.warmup_steps=50", "algo.batch_size=16"],
    "bess_td3": ["algo.total_env_steps=9216", "algo.critic_only_updates=8"],
    "bess_apg": ["algo.total_env_steps=18432"],
    "matrix_iql": ["algo.total_env_steps=960"],
    "matrix_vdn": ["algo.total_env_steps=960"],
    "matrix_qmix": ["algo.total_env_steps=960"],
    "matrix_qfix": ["algo.total_env_steps=960"],
    "matrix_pqn": ["algo.total_env_steps=3840"],
    "two_state_qplex": [
        "algo.total_env_steps=4800",
        "algo.chunk_length=4",
        "algo.steps_per_update=4",
        "algo.burn_in=2",
        "algo.q_network.type=rnn",
        "algo.q_network.hidden_dims=[8]",
        "algo.q_network.rnn_hidden_dim=8",
    ],
    "qplex_two_levels_4v4_9": [
        "env.name=mate/1v2-0",
        "env.horizon=20",
        "algo.num_envs=4",
        "algo.steps_per_update=4",
        "algo.chunk_length=4",
        "algo.burn_in=2",
        "algo.warmup_steps=16",
        "algo.buffer_size=64",
        "algo.fast_buffer_size=320",
        "algo.updates_per_step=0.125",
        "algo.batch_size=4",
        "algo.total_env_steps=48",
    ],
    "bess_bc": ["algo.total_gradient_steps=30", "algo.gradient_steps_per_update=5"],
    "bess_cql": ["algo.total_gradient_steps=30", "algo.gradient_steps_per_update=5"],
}
"""Configurations, with what makes them short."""


def test_every_algorithm_is_resumed():
    assert {load_config(CONFIGS / f"{name}.yaml").algo["name"] for name in RUNS} == set(ALGORITHMS)


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(name, tmp_path):
    path, overrides = str(CONFIGS / f"{name}.yaml"), [*SHORT, *RUNS[name]]
    if name in ("bess_bc", "bess_cql"):
        data = str(tmp_path / "data.npz")
        mix = ["--behaviour", "guided", "random", "--episodes", "40", "--num-envs", "20"]
        assert record.main(["--config", path, "--out", data, *mix]) == 0
        overrides.append(f"algo.dataset={data}")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main(["--config", path, "--run-dir", str(whole), *overrides]) == session.EXIT_OK
    shutil.copytree(whole, parts)
    # The state before the last epoch is what a run that was killed during it leaves.
    shutil.rmtree(parts / "checkpoints" / "epoch_000003")
    (parts / "metadata.json").unlink()
    assert train.main(["--run-dir", str(parts), "--config", path, "--resume", *overrides]) == session.EXIT_OK
    leaves, expected = (checkpoint.arrays(run_dir / "checkpoints", 3) for run_dir in (parts, whole))
    assert {name: x.tobytes() for name, x in leaves.items()} == {name: x.tobytes() for name, x in expected.items()}
