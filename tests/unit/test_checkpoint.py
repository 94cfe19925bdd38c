"""Checkpoints: bit-exact, whole or not there, damage noticed; the newest, the best and the periodic ones are kept."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purerl.errors import CheckpointError, DamagedError
from purerl.run import bundle, checkpoint, items


@struct.dataclass
class Inner:
    weights: jax.Array
    ring: dict


def example():
    keys = jax.random.split(jax.random.key(7), 3)
    odd_floats = jnp.array([jnp.nan, -jnp.inf, -0.0, 1e-42], jnp.float32)
    ring = {"data": jnp.arange(6, dtype=jnp.int8).reshape(2, 3), "empty": jnp.zeros((0, 2))}
    return {
        "state": {
            "inner": Inner(odd_floats, ring),
            "half": jnp.array([1.5, -2.0], jnp.bfloat16),
            "eighth": jnp.array([1.5, -2.0], jnp.float8_e4m3fn),
            "key": jax.random.key(3),
            "keys": keys,
            "other_kind": jax.random.key(3, impl="rbg"),
            "no_keys": keys[:0],
        },
        "policy": (jnp.ones((2, 1)), {"w/o dots.": jnp.arange(3)}),
        "flag": jnp.asarray(True),
        "nothing": {},
    }


def bits(tree):
    def leaf_bits(leaf):
        raw = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return str(leaf.dtype), leaf.shape, np.asarray(raw).tobytes()

    return jax.tree.map(leaf_bits, tree)


def save(directory, *steps, tree=None, best=None, **settings):
    writer = checkpoint.Writer(directory, **settings)
    for step in steps:
        writer.save(step, {"w": jnp.full(100, float(step))} if tree is None else tree, {"episodes": 12}, best)
    writer.wait()
    return checkpoint.path_of(directory, steps[-1])


def change(file, position: int = 100, bit: int = 0):
    content = bytearray(file.read_bytes())
    content[position % len(content)] ^= 1 << bit
    file.write_bytes(content)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Directory with the example as checkpoint 4; not to be changed."""
    directory = tmp_path_factory.mktemp("saved")
    save(directory, 4, tree=example())
    return directory


def test_restored_state_has_the_same_bits_types_and_structure(saved):
    state = example()
    restored, meta = checkpoint.restore(saved, jax.eval_shape(lambda: state))
    assert meta == {"episodes": 12, "epoch": 4}
    assert bits(restored) == bits(state)
    assert isinstance(restored["state"]["inner"], Inner)
    drawn = [jax.random.normal(s["state"]["key"]) for s in (state, restored)]
    assert drawn[0] == drawn[1]


def test_a_part_is_read_and_checked_without_the_others(saved, tmp_path):
    path = shutil.copytree(saved / "epoch_000004", tmp_path / "epoch_000004")
    shutil.rmtree(path / "state")
    like = {"policy": example()["policy"]}
    assert bits(checkpoint.restore(tmp_path, like)[0]) == bits(like)
    some = {"policy": (None, like["policy"][1])}
    assert bits(checkpoint.restore(tmp_path, some)[0]) == bits(some)
    with pytest.raises(DamagedError, match="state"):
        checkpoint.restore(tmp_path, example())


def test_the_state_may_be_donated_at_once(tmp_path):
    tree, like = {"w": jnp.arange(10_000.0)}, {"w": jnp.zeros(10_000)}
    writer = checkpoint.Writer(tmp_path)
    writer.save(1, tree, {})
    jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)(tree)
    writer.wait()
    assert np.array_equal(checkpoint.restore(tmp_path, like)[0]["w"], np.arange(10_000.0))


def test_skipped_leaves_are_filled_and_no_others(tmp_path):
    state, skip = example(), lambda path: ".ring" in path
    save(tmp_path, 1, tree=state, skip=skip)
    with pytest.raises(DamagedError, match=r"has no .*\.ring"):
        checkpoint.restore(tmp_path, state)
    filled, _ = checkpoint.restore(tmp_path, state, fill=skip)
    assert bits(filled) == bits(state)
    with pytest.raises(DamagedError, match=r"has no '\['lost'\]'"):
        checkpoint.restore(tmp_path, {**state, "lost": jnp.ones(1)}, fill=skip)


@pytest.mark.parametrize(
    "like",
    [jnp.zeros((2, 2)), jnp.zeros(4, jnp.int32), jnp.zeros(4, jnp.bfloat16), jax.random.key(0)],
    ids=["shape", "dtype", "half", "key"],
)
def test_leaves_of_another_configuration_are_refused(saved, like):
    state = {"inner": Inner(like, {})}
    with pytest.raises(CheckpointError, match=r"weights.*another configuration") as error:
        checkpoint.restore(saved, {"state": state})
    assert not isinstance(error.value, DamagedError)


def test_numbers_are_not_taken_for_keys_nor_keys_for_numbers(saved):
    for name, like in (("key", jnp.zeros(2, jnp.uint32)), ("keys", jax.random.split(jax.random.key(0, impl="rbg"), 3))):
        with pytest.raises(CheckpointError, match="another configuration"):
            checkpoint.restore(saved, {"state": {name: like}})


@pytest.mark.parametrize("count", [1, 4])
def test_saved_on_two_devices_restored_on_another_number(tmp_path, count):
    def laid_out(count, axis):
        sharding = NamedSharding(Mesh(np.array(jax.devices()[:count]), ("d",)), PartitionSpec(axis))
        keys = jax.random.split(jax.random.key(1), 4)
        return jax.device_put({"w": jnp.arange(8.0).reshape(4, 2), "keys": keys}, sharding)

    # Policies lie on one device beside a state that is spread over several.
    save(tmp_path, 1, tree={"state": laid_out(2, "d"), "same": laid_out(2, None), "policy": jnp.ones(3)})
    like = {"state": laid_out(count, "d"), "same": laid_out(count, None)}
    restored, _ = checkpoint.restore(tmp_path, like)
    assert bits(restored) == bits(like)
    assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, like)


def test_every_altered_or_truncated_file_is_noticed(saved, tmp_path):
    """Flip bits of every file, cut every file: never a wrong number without an error."""
    state, rng = example(), np.random.default_rng(0)
    path, expected = tmp_path / "epoch_000004", bits(state)
    shutil.copytree(saved / "epoch_000004", path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    digested = [file for file in files if file.parent != path]
    assert len(digested) > 12
    for file in files:
        good = file.read_bytes()
        damages = [lambda file=file: file.write_bytes(b""), file.unlink]
        if good:
            damages.append(lambda file=file: change(file, int(rng.integers(2**30)), int(rng.integers(8))))
        for damage in damages if file in digested else damages[-1:]:
            damage()
            try:
                restored, meta = checkpoint.restore(tmp_path, state)
            except DamagedError:
                pass
            else:  # time stamps and texts that nobody reads
                assert file not in digested or (file.exists() and file.read_bytes() == good == b""), file
                assert bits(restored) == expected and meta == {"episodes": 12, "epoch": 4}
            file.write_bytes(good)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, capsys):
    newest = save(tmp_path, 1, 2)
    change(newest / "w" / "digests.json")
    tree, meta = checkpoint.restore(tmp_path, {"w": jnp.zeros(100)})
    assert (float(tree["w"][0]), meta["epoch"]) == (1.0, 1)
    assert f"{newest} is damaged" in capsys.readouterr().err
    with pytest.raises(DamagedError, match="epoch_000002"):
        checkpoint.restore(tmp_path, {"w": jnp.zeros(100)}, 2)
    save(tmp_path, 2)
    assert checkpoint.restore(tmp_path, {"w": jnp.zeros(100)})[1]["epoch"] == 2, "the damaged one is replaced"
    for step in (1, 2):
        shutil.rmtree(checkpoint.path_of(tmp_path, step) / "host")
    with pytest.raises(DamagedError, match="epoch_000001 is damaged"):
        checkpoint.restore(tmp_path, {"w": jnp.zeros(100)})


def test_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.restore(tmp_path, {})
    (tmp_path / "epoch_000003.npz").touch()
    with pytest.raises(CheckpointError, match=r"epoch_000003\.npz: written by an earlier version"):
        checkpoint.restore(tmp_path, {})
    save(tmp_path, 3, tree={})
    with pytest.raises(CheckpointError, match=r"no checkpoint '5' \(have epochs: 3\)"):
        checkpoint.restore(tmp_path, {}, 5)
    with pytest.raises(CheckpointError, match="no checkpoint 'best'"):
        checkpoint.restore(tmp_path, {}, "best")


def test_newest_two_best_and_last_periodic_are_kept(tmp_path):
    steps = [3, 5, 10, 15, 20, 22, 23]
    newest = save(tmp_path, *steps, best=3, keep_periodic=2, every=5)
    assert checkpoint.available(tmp_path) == [3, 15, 20, 22, 23]
    assert checkpoint.restore(tmp_path, {"w": jnp.zeros(100)}, "best")[1]["epoch"] == 3
    change(newest / "host" / "data.json")
    assert checkpoint.best_step(tmp_path) == 3, "of the newest that can be read"
    save(tmp_path, 21, best=15)
    assert checkpoint.available(tmp_path) == [15, 20, 21], "training went back to 20: what came later is no more"


def test_what_a_killed_process_leaves_is_no_checkpoint_and_goes(tmp_path):
    path = save(tmp_path, 1)
    for name in ("epoch_000002.orbax-checkpoint-tmp", "epoch_000000.deleted"):
        shutil.copytree(path, tmp_path / name)
    assert checkpoint.available(tmp_path) == [1]
    checkpoint.Writer(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["epoch_000001"]


def test_a_save_that_fails_is_told_at_the_next_one_or_when_waited_for(tmp_path, monkeypatch):
    writer = checkpoint.Writer(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(items, "_write_digests", lambda directory: os.read(-1, 1))
        writer.save(1, {"w": jnp.ones(3)}, {})
        with pytest.raises(CheckpointError, match=r"epoch_000001 could not be written \(OSError.*Bad file"):
            writer.save(2, {"w": jnp.ones(3)}, {})
    writer.wait()
    writer.save(2, {"w": jnp.ones(3)}, {})
    writer.wait()
    assert checkpoint.available(tmp_path) == [2]


def test_every_altered_or_truncated_bundle_is_noticed(tmp_path):
    """Flip one byte at many places, cut at many lengths: never a wrong number without an error."""
    state, path = example(), tmp_path / "best.npz"
    bundle.write_tree(path, state, {"a": 1})
    good, expected = path.read_bytes(), bits(state)
    rng = np.random.default_rng(0)
    noticed = 0
    for position in rng.integers(0, len(good), 100):
        altered = bytearray(good)
        altered[position] ^= int(rng.integers(1, 256))
        path.write_bytes(altered)
        try:
            restored, meta = bundle.read_tree(path, state)
        except CheckpointError:  # where a leaf's name was altered, it is told as another configuration
            noticed += 1
        else:  # bytes without meaning, such as a time stamp or the padding of a header
            assert bits(restored) == expected and meta == {"a": 1}
    assert noticed > 30
    for length in rng.integers(0, len(good), 20):
        path.write_bytes(good[:length])
        with pytest.raises(DamagedError):
            bundle.read_tree(path, state)
