"""Named hyper-parameters in a configuration, and the piecewise schedule that one of them needs."""

import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from purerl.config import load_config, resolve_config
from purerl.errors import ConfigError
from purerl.learn.optimizers import Schedule
from purerl.presets import PRESETS


def resolved(algorithm: str, preset: str, *overrides: str):
    algo = {"name": algorithm} | ({"dataset": "none.npz"} if algorithm == "cql" else {})
    data = {"preset": preset, "env": {"name": "atc/head_on"}, "algo": algo}
    return resolve_config(data, "test", overrides)


@pytest.mark.parametrize(("algorithm", "preset"), PRESETS)
def test_every_preset_is_a_valid_configuration_of_its_values(algorithm, preset):
    config = resolved(algorithm, preset)
    for key, value in PRESETS[algorithm, preset]["algo"].items():
        found = config.algo[key]
        expected = value
        if isinstance(value, dict):
            found = {name: found[name] for name in value}
        np.testing.assert_equal(found, expected)
    assert config.reward_scale == PRESETS[algorithm, preset].get("reward_scale", 1.0)


def test_keys_beside_a_preset_win_and_a_resolved_file_needs_no_preset(tmp_path):
    config = resolved("ppo", "wide", "algo.num_envs=64", "algo.actor.hidden_sizes=[8]", "reward_scale=1")
    assert (config.algo["num_envs"], config.reward_scale) == (64, 1.0)
    assert (config.algo["actor"]["hidden_sizes"], config.algo["actor"]["activation"]) == ([8], "tanh")
    assert config.algo["steps_per_update"] == 32
    path = tmp_path / "again.yaml"
    path.write_text(config.to_yaml())
    assert not path.read_text().startswith("preset") and "\npreset:" not in path.read_text()
    assert load_config(path) == config


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="test: preset: 'huge'; ppo has small, wide, ppo_tuned"):
        resolved("ppo", "huge")
    with pytest.raises(ConfigError, match="override: preset: 'wide'; sac has small"):
        resolved("sac", "small", "preset=wide")


def test_piecewise_schedule():
    schedule = Schedule(type="piecewise", points=[(0.0, 1.0), (0.5, 0.2), (1.0, 0.0)])
    at = [float(schedule.factor(jnp.asarray(steps), 100)) for steps in (0, 25, 50, 75, 100, 200)]
    np.testing.assert_allclose(at, [1.0, 0.6, 0.2, 0.1, 0.0, 0.0], atol=1e-6)
    for wrong in (
        {"type": "piecewise"},
        {"points": [(0.0, 1.0)]},
        {"type": "piecewise", "points": [(0.5, 1), (0.1, 1)]},
    ):
        with pytest.raises(ValidationError, match="points"):
            Schedule(**wrong)
