"""Recorded data in a file: what is written comes back, what is wrong is named in one line, and a ring serves it."""

import json

import jax
import numpy as np
import pytest
from offline_cases import WORLD, small_dataset
from replay_cases import marker_world

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Assessment
from envs_jax.spaces import Box, Discrete, Product
from purerl.errors import ConfigError
from purerl.learn import dataset
from purerl.learn.buffers import sample_indices, take


def assert_same(data, expected):
    for name, value in data._asdict().items():
        if name != "metadata":
            np.testing.assert_array_equal(value, getattr(expected, name), err_msg=name)
            assert value is None or value.dtype == getattr(expected, name).dtype
    assert data.metadata == expected.metadata


@pytest.mark.parametrize("choices", [None, 3])
def test_what_is_written_comes_back(tmp_path, choices):
    data = small_dataset(choices=choices)
    dataset.write(tmp_path / "new" / "data.npz", data)
    assert_same(dataset.read(tmp_path / "new" / "data.npz"), data)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data.npz"]


def test_without_masks_and_absent_agents_nothing_is_stored_for_them(tmp_path):
    data = small_dataset()._replace(alive=None)
    dataset.write(tmp_path / "data.npz", data)
    with np.load(tmp_path / "data.npz") as archive:
        assert not {"legal", "alive"} & set(archive.files)
    assert_same(dataset.read(tmp_path / "data.npz"), data)


def test_a_file_is_never_overwritten(tmp_path):
    path = tmp_path / "data.npz"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"data\.npz: exists already and is not overwritten"):
        dataset.write(path, small_dataset())
    assert path.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/data\.npz: cannot be written"):
        dataset.write(tmp_path / "file" / "data.npz", small_dataset())


def with_value(array, index, value):
    changed = array.copy()
    changed[index] = value
    return changed


def described(**changes):
    text = json.loads(small_dataset().metadata.model_dump_json())
    return {"metadata": np.array(json.dumps({**text, **changes}))}


DATA, CHOICES = small_dataset(), small_dataset(choices=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": None}, "has no array 'reward' .it has action, alive"),
        ({"metadata": None}, "has no array 'metadata'; this is no dataset of purerl.record"),
        ({"metadata": np.array("{")}, "metadata: text: Invalid JSON"),
        (described(seed="x"), "metadata: seed: Input should be a valid integer"),
        (described(format="other"), "has format 'other', this version reads 'purerl-dataset-1'"),
        ({"obs": with_value(DATA.obs, (2, 3, 0, 1), np.nan)}, r"obs\[2, 3, 0, 1\] is nan"),
        ({"reward": with_value(DATA.reward, (1, 2, 0), np.inf)}, r"reward\[1, 2, 0\] is inf"),
        ({"obs": DATA.obs[:-1]}, r"obs is float32\[4, 6, 1, 3\], expected float\[5, 6, 1, 3\]"),
        ({"action": DATA.action[..., 0]}, r"action is float32\[4, 6, 1\], expected float\[4, 6, 1, 1\]"),
        ({"action": DATA.action[:0]}, r"action has shape \[0, 6, 1, 1\], expected \[T, N, A, ...\]"),
        ({"action": DATA.action[0, 0]}, r"action has shape \[1, 1\], expected"),
        ({"action": DATA.action.repeat(2, axis=2)}, "action has 2 agents, metadata say 1"),
        ({"terminated": DATA.reward}, r"terminated is float32\[4, 6, 1\], expected bool\[4, 6, 1\]"),
        ({"truncated": DATA.truncated[:, :5]}, r"truncated is bool\[4, 5\], expected bool\[4, 6\]"),
        ({"alive": DATA.alive[:3]}, r"alive is bool\[3, 6, 1\], expected bool\[4, 6, 1\]"),
        ({"legal": CHOICES.legal}, r"legal is bool\[5, 6, 1, 3\], expected bool\[5, 6, 1, 0\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, changes, message):
    path = tmp_path / "data.npz"
    dataset.write(path, DATA)
    with np.load(path) as archive:
        arrays = {**{name: archive[name] for name in archive.files}, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(ConfigError, match=message) as caught:
        dataset.read(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (CHOICES.action.astype(np.float32), r"action is float32\[4, 6, 1\], expected int\[4, 6, 1\]"),
        (with_value(CHOICES.action, (0, 0, 0), 3), r"action has values outside of 0..2"),
        (with_value(CHOICES.action, (0, 0, 0), -1), r"action has values outside of 0..2"),
    ],
)
def test_choices_have_to_be_choices(tmp_path, action, message):
    dataset.write(tmp_path / "data.npz", CHOICES._replace(action=action))
    with pytest.raises(ConfigError, match=message):
        dataset.read(tmp_path / "data.npz")


def test_a_missing_file_names_the_command_that_records_it(tmp_path):
    with pytest.raises(
        ConfigError, match=r"gone.npz: no such dataset; record it with `python -m purerl.record --config"
    ):
        dataset.read(tmp_path / "gone.npz")


def test_a_file_that_is_no_archive_is_named(tmp_path):
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ConfigError, match=r"data\.npz: not a readable npz file"):
        dataset.read(tmp_path / "data.npz")


# Worlds


def test_the_world_of_an_environment():
    assert dataset.world_of(with_agent_axis(marker_world()), None) == WORLD
    discrete = dataset.world_of(with_agent_axis(marker_world(Discrete(5))), None)
    assert (discrete.choices, discrete.action_low, discrete.action_high) == (5, None, None)
    calibrated = dataset.world_of(
        with_agent_axis(marker_world(assessment=Assessment(calibration={"scale": (1, 2.5)}))), None
    )
    assert calibrated.calibration == {"scale": [1, 2.5]}
    assert calibrated == dataset.World.model_validate_json(calibrated.model_dump_json())
    with pytest.raises(ConfigError, match="marker: recorded data hold one kind of action"):
        dataset.world_of(with_agent_axis(marker_world(Product((Discrete(2), Box(-1.0, 1.0, (1,)))))), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, "name: other, here marker"),
        ({"observation_size": 7}, "observation size: 7, here 3"),
        ({"num_agents": 2}, "num agents: 2, here 1"),
        ({"choices": 4}, "choices: 4, here None"),
        ({"action_high": [1.0]}, r"action high: \[1.0\], here \[2.0\]"),
        ({"calibration": {"scale": 2.0}}, "another world .calibration.; use the same env settings"),
    ],
)
def test_data_of_another_world_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        dataset.require_same(tmp_path, WORLD.model_copy(update=changes), WORLD)
    dataset.require_same(tmp_path, WORLD.model_copy(), WORLD)


# Rings


def test_a_ring_of_whole_items_is_the_data_in_units():
    ring = dataset.as_ring(DATA, 4, np.array([2.0], np.float32), 0.5)
    assert (int(ring.size), int(ring.cursor)) == (6, 0)
    np.testing.assert_array_equal(ring.data.obs, DATA.obs)
    np.testing.assert_allclose(2 * ring.data.action, DATA.action)
    np.testing.assert_array_equal(ring.data.alive, DATA.alive)
    batch = take(ring, sample_indices(ring, jax.random.key(0), (64,)))
    assert {float(2 * x) for x in batch.reward[0, :, 0]} == {float(x) for x in DATA.reward[0, :, 0]}, "all are drawn"


def test_transitions_keep_what_belongs_together():
    data = CHOICES
    ring = dataset.as_ring(data, 1, None, 1.0)
    assert int(ring.size) == 24
    for step, item in ((0, 0), (1, 4), (3, 5)):
        at = 6 * step + item
        np.testing.assert_array_equal(ring.data.obs[:, at], data.obs[step : step + 2, item])
        np.testing.assert_array_equal(ring.data.legal[:, at], data.legal[step : step + 2, item])
        for name in ("action", "reward", "terminated", "alive"):
            np.testing.assert_array_equal(getattr(ring.data, name)[0, at], getattr(data, name)[step, item])


def test_items_of_another_length_are_refused():
    with pytest.raises(ConfigError, match="sequence_length 3: the dataset has items of 4 steps; use 1 or 4"):
        dataset.as_ring(DATA, 3, None, 1.0)
