"""What the tests of whole runs share: the base configuration, comparing runs, and names for the probe."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import yaml

import envs_jax
from purerl import algos
from purerl.run import checkpoint
from purerl.run.logs import TIMING_COLUMNS, read_events

BASE = {
    "seed": 3,
    "epochs": 6,
    "device": "cpu",
    "env": {"name": "track"},
    "algo": {"name": "fake", "total_env_steps": 360},
    "evaluation": {"every_epochs": 2},
    "checkpointing": {"every_epochs": 2, "keep_periodic": 1},
}


def register_fakes(setitem) -> None:
    """Names for the probe environment and learner that a configuration can use."""
    setitem(envs_jax.registered_envs, "track", envs_jax.World(("track",), "fake:make_env", "fake:EnvConfig"))
    setitem(algos.ALGORITHMS, "fake", "fake")


def write_config(directory: Path) -> Path:
    path = directory / "track.yaml"
    path.write_text(yaml.safe_dump(BASE))
    return path


def arrays(path: Path) -> dict[str, bytes]:
    """Every leaf of a checkpoint or a bundle as bytes, without the header, which holds the wall-clock."""
    if path.is_dir():
        leaves = checkpoint.arrays(path.parent, int(path.name.removeprefix("epoch_")))
        return {name: leaf.tobytes() for name, leaf in leaves.items()}
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files if name != "__header__"}


def damage(path: Path) -> None:
    """Flip a bit in the largest file of a checkpoint's state."""
    file = max((path / "state").rglob("*"), key=lambda file: file.stat().st_size * file.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def logs(run_dir: Path) -> dict:
    """All that a run logged, without times."""
    with open(run_dir / "training_progress.csv") as stream:
        rows = [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in csv.DictReader(stream)]
    scalars = [
        (event.step, value.tag, value.simple_value)
        for path in sorted((run_dir / "tensorboard").iterdir())
        for _, event in read_events(path)
        for value in event.summary.value
        if not value.tag.startswith("speed/")
    ]
    return {
        "csv": rows,
        "jsonl": [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()],
        "tensorboard": sorted(scalars),
    }


def assert_same_run(run_dir: Path, reference: Path) -> None:
    """Same logs, same checkpoints, same policies, same scores, bit for bit."""
    expected = logs(reference)
    for kind, content in logs(run_dir).items():
        assert content == expected[kind], kind
    for name in ("checkpoints", "policy"):
        kept = sorted(path.name for path in (reference / name).iterdir() if path.suffix != ".json")
        assert {"epoch_000006", "best.npz"} & set(kept)
        assert sorted(path.name for path in (run_dir / name).iterdir() if path.suffix != ".json") == kept
        for file in kept:
            assert arrays(run_dir / name / file) == arrays(reference / name / file), file
    final = "eval/final_test.json"
    assert json.loads((run_dir / final).read_text()) == json.loads((reference / final).read_text())
    assert checkpoint.best_step(run_dir / "checkpoints") == checkpoint.best_step(reference / "checkpoints")


def bits(tree):
    def leaf_bits(leaf):
        raw = jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return np.asarray(raw).tobytes()

    return jax.tree.map(leaf_bits, tree)
