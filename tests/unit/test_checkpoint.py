"""Checkpoints: bit-exact, atomic, damage is noticed, and the newest, the best and the periodic ones are kept."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from purerl.errors import CheckpointError, DamagedError
from purerl.run import checkpoint


@struct.dataclass
class Inner:
    weights: jax.Array
    ring: dict


def example():
    keys = jax.random.split(jax.random.key(7), 3)
    odd_floats = jnp.array([jnp.nan, -jnp.inf, -0.0, 1e-42], jnp.float32)
    return {
        "inner": Inner(odd_floats, {"data": jnp.arange(6, dtype=jnp.int8).reshape(2, 3), "empty": jnp.zeros((0, 2))}),
        "half": jnp.array([1.5, -2.0], jnp.bfloat16),
        "flag": jnp.asarray(True),
        "key": jax.random.key(3),
        "keys": keys,
        "other_kind": jax.random.key(3, impl="rbg"),
    }


def bits(tree):
    def leaf_bits(leaf):
        raw = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return str(leaf.dtype), leaf.shape, np.asarray(raw).tobytes()

    return jax.tree.map(leaf_bits, tree)


def test_restored_state_has_the_same_bits_types_and_structure(tmp_path):
    state = example()
    checkpoint.save(tmp_path, 4, state, {"episodes": 12})
    restored, meta = checkpoint.restore(tmp_path, jax.eval_shape(lambda: state))
    assert meta == {"episodes": 12, "epoch": 4}
    assert bits(restored) == bits(state)
    assert isinstance(restored["inner"], Inner)
    drawn = [jax.random.normal(s["key"]) for s in (state, restored)]
    assert drawn[0] == drawn[1]


def test_a_sub_tree_can_be_read_alone(tmp_path):
    checkpoint.save(tmp_path, 1, example(), {})
    part, _ = checkpoint.restore(tmp_path, {"flag": jnp.asarray(False)})
    assert bits(part) == bits({"flag": jnp.asarray(True)})


def test_skipped_leaves_are_filled_only_when_asked(tmp_path):
    state = example()
    checkpoint.save(tmp_path, 1, state, {}, skip=lambda path: ".ring" in path)
    like = {**state, "flag": jnp.asarray(False)}
    with pytest.raises(CheckpointError, match="has no"):
        checkpoint.restore(tmp_path, like)
    filled, _ = checkpoint.restore(tmp_path, like, fill=True)
    assert bits(filled) == bits(state)


@pytest.mark.parametrize(
    "like",
    [jnp.zeros((2, 2)), jnp.zeros(4, jnp.int32), jax.random.key(0)],
    ids=["shape", "dtype", "key"],
)
def test_leaves_of_another_configuration_are_refused(tmp_path, like):
    checkpoint.save(tmp_path, 1, {"w": jnp.zeros(4)}, {})
    with pytest.raises(CheckpointError, match=r"\['w'\].*another configuration") as error:
        checkpoint.restore(tmp_path, {"w": like})
    assert not isinstance(error.value, DamagedError)


def test_every_altered_or_truncated_file_is_noticed(tmp_path):
    """Flip one byte at many places, cut at many lengths: never a wrong number without an error."""
    state = example()
    path = checkpoint.save(tmp_path, 1, state, {"a": 1})
    good, expected = path.read_bytes(), bits(state)
    rng = np.random.default_rng(0)
    noticed = 0
    for position in rng.integers(0, len(good), 150):
        altered = bytearray(good)
        altered[position] ^= int(rng.integers(1, 256))
        path.write_bytes(altered)
        try:
            restored, meta = checkpoint.restore(tmp_path, state)
        except DamagedError:
            noticed += 1
        except CheckpointError:  # a leaf's name was altered: reported as another configuration
            noticed += 1
        else:  # bytes without meaning, such as a time stamp or the padding of a header
            assert bits(restored) == expected and meta == {"a": 1, "epoch": 1}
    assert noticed > 50
    for length in rng.integers(0, len(good), 40):
        path.write_bytes(good[:length])
        with pytest.raises(DamagedError):
            checkpoint.restore(tmp_path, state)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, capsys):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"w": jnp.full(100, float(step))}, {})
    newest = tmp_path / "epoch_000002.npz"
    newest.write_bytes(newest.read_bytes()[:300])
    tree, meta = checkpoint.restore(tmp_path, {"w": jnp.zeros(100)})
    assert (float(tree["w"][0]), meta["epoch"]) == (1.0, 1)
    assert "epoch_000002.npz is damaged" in capsys.readouterr().err
    with pytest.raises(DamagedError, match="epoch_000002"):
        checkpoint.restore(tmp_path, {"w": jnp.zeros(100)}, 2)


def test_all_damaged_is_an_error(tmp_path):
    checkpoint.save(tmp_path, 1, {"w": jnp.zeros(3)}, {}).write_bytes(b"")
    with pytest.raises(DamagedError):
        checkpoint.restore(tmp_path, {"w": jnp.zeros(3)})


def test_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.restore(tmp_path, {})
    checkpoint.save(tmp_path, 3, {}, {})
    with pytest.raises(CheckpointError, match=r"no checkpoint '5' \(have epochs: 3\)"):
        checkpoint.restore(tmp_path, {}, 5)
    with pytest.raises(CheckpointError, match="no checkpoint 'best'"):
        checkpoint.restore(tmp_path, {}, "best")


def test_newest_two_best_and_last_periodic_are_kept(tmp_path):
    for step in range(1, 24):
        checkpoint.save(tmp_path, step, {"step": jnp.asarray(step)}, {})
        if step == 3:
            checkpoint.mark_best(tmp_path, step, 1.0)
        checkpoint.prune(tmp_path, keep_periodic=2, every=5)
    assert checkpoint.available(tmp_path) == [3, 15, 20, 22, 23]
    assert checkpoint.restore(tmp_path, {"step": jnp.asarray(0)}, "best")[1]["epoch"] == 3
    checkpoint.prune(tmp_path, keep_periodic=0, every=5)
    assert checkpoint.available(tmp_path) == [3, 22, 23]


def test_killed_inside_a_write_leaves_the_old_file(tmp_path):
    """The process dies by SIGKILL after part of the new file has reached the disk."""
    driver = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        import jax.numpy as jnp, numpy as np
        from purerl import checkpoint

        directory = Path(sys.argv[1])
        checkpoint.save(directory, 1, {"w": jnp.ones(1000)}, {})
        write = np.savez

        def die_half_way(stream, **arrays):
            write(stream, **arrays)
            stream.flush()
            stream.truncate(stream.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        np.savez = die_half_way
        checkpoint.save(directory, 1, {"w": jnp.zeros(1000)}, {})
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", driver, str(tmp_path)], env=environment, timeout=120)
    assert ended.returncode == -9
    assert len(list(tmp_path.glob(".epoch_000001.npz.tmp"))) == 1
    tree, _ = checkpoint.restore(tmp_path, {"w": jnp.zeros(1000)})
    assert float(tree["w"].min()) == 1.0
