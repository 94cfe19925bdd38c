"""Every shipped configuration is valid, builds its environment and algorithm, and its update traces."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from purerl.config import RunConfig, load_members
from purerl.learn import dataset
from purerl.run.plan import plan_of
from purerl.run.runs import build, build_env

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def with_data(config: RunConfig, path: Path) -> RunConfig:
    """The same run with a dataset of two empty steps of its world, where it wants one."""
    if "dataset" not in config.algo:
        return config
    env = build_env(config)
    world = dataset.world_of(env, env.default_params)
    steps = (1, 2, world.num_agents)
    dataset.write(
        path,
        dataset.Dataset(
            obs=np.zeros((2, *steps[1:], world.observation_size), np.float32),
            action=np.zeros(steps, np.int32)
            if world.choices
            else np.zeros((*steps, len(world.action_low)), np.float32),
            reward=np.zeros(steps, np.float32),
            terminated=np.ones(steps, bool),
            truncated=np.zeros(steps[:2], bool),
            legal=None,
            alive=None,
            metadata=dataset.Metadata(world=world, settings={}, played=[], seed=0, episodes=2, versions={}),
        ),
    )
    return config.model_copy(update={"algo": {**config.algo, "dataset": str(path)}})


def of_file(path: Path) -> RunConfig:
    config = next(iter(load_members(path).values()))  # members of a suite differ in the scenario alone
    if config.env["name"].startswith("jaxmarl:"):
        pytest.importorskip("jaxmarl")
    return config


def program_keys(path: Path) -> str:
    """What decides the operations of an update, but for the world's own settings: numbers and sizes do not."""
    with open(path) as stream:
        data = yaml.safe_load(stream)
    world, algo = data["env"]["name"].partition("/")[0], data["algo"]
    choices = {key: value for key, value in algo.items() if isinstance(value, str | bool | dict)}
    return json.dumps([world, choices], sort_keys=True)


TRACED = list({program_keys(path): path for path in reversed(CONFIGS)}.values())
"""One configuration of each kind: tracing takes seconds, and scenarios of one world are the same operations."""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_builds(path, tmp_path):
    assert path.read_text().startswith("# "), "the header says what the configuration reaches"
    config = with_data(of_file(path), tmp_path / "data.npz")
    algorithm = build(config).algorithm
    assert plan_of(algorithm.num_updates, config.epochs).longer_epochs == 0, "one compiled program is enough"


@pytest.mark.parametrize("path", TRACED, ids=lambda path: path.stem)
def test_update_traces(path, tmp_path):
    algorithm = build(with_data(of_file(path), tmp_path / "data.npz")).algorithm
    data = algorithm.load_data()
    state = jax.eval_shape(algorithm.init, jax.random.key(0), algorithm.hparams, data)
    after, metrics = jax.eval_shape(algorithm.update, state, data)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert any(name.endswith("_loss") for name in metrics)
