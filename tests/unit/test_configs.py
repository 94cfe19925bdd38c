"""Every shipped configuration is valid, builds its environment and algorithm, and its update traces."""

from pathlib import Path

import jax
import pytest

from purerl.config import load_config
from purerl.evaluation import build
from purerl.runner import plan_of

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_builds_and_traces(path):
    assert path.read_text().startswith("# "), "the header says what the configuration reaches"
    config = load_config(path)
    algorithm = build(config).algorithm
    state = jax.eval_shape(algorithm.init, jax.random.key(0), algorithm.hparams)
    after, metrics = jax.eval_shape(algorithm.update, state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert any(name.endswith("_loss") for name in metrics)
    assert plan_of(algorithm.num_updates, config.epochs).updates == algorithm.num_updates, "epochs divide the updates"
