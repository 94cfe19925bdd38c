"""The ring of sequences: order of overwriting, what is sampled, whole items only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purerl.learn.buffers import Sequences, make_ring, memory_bytes, push, sample_indices, take

STEPS = 3


def items(*names: int) -> Sequences:
    """Sequences whose every entry says which item and which step it belongs to: 10 * name + step."""
    name = jnp.asarray(names)
    at = lambda steps: (10.0 * name[None] + jnp.arange(steps)[:, None])[..., None]  # noqa: E731
    return Sequences(at(STEPS + 1), at(STEPS), at(STEPS)[..., 0], (name[None] % 2 == jnp.zeros((STEPS, 1))))


def names(ring) -> list[int]:
    return (np.asarray(ring.data.reward[0]) // 10).astype(int).tolist()


def test_a_full_ring_overwrites_its_oldest_items():
    ring = make_ring(items(0, 0), 4)
    for pushed, size, held in (((1, 2), 2, [1, 2, 0, 0]), ((3, 4), 4, [1, 2, 3, 4]), ((5, 6), 4, [5, 6, 3, 4])):
        ring = push(ring, items(*pushed))
        assert (int(ring.size), names(ring)) == (size, held)
    assert int(ring.cursor) == 2


def test_a_taken_item_is_whole_and_in_order():
    ring = push(make_ring(items(0, 0, 0), 6), items(7, 8, 9))
    batch = take(ring, jnp.array([2, 0, 2, 1]))
    expected = items(9, 7, 9, 8)
    for got, want in zip(jax.tree.leaves(batch), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


def test_only_filled_items_are_drawn_and_all_of_them():
    ring = push(make_ring(items(0, 0, 0), 300), items(1, 2, 3))
    drawn = np.asarray(sample_indices(ring, jax.random.key(0), (50, 60)))
    counts = np.bincount(drawn.ravel(), minlength=300)
    assert counts[3:].sum() == 0
    np.testing.assert_allclose(counts[:3], 1000, atol=130)  # five standard deviations


def test_an_uneven_capacity_is_refused():
    with pytest.raises(ValueError, match="multiple of 2"):
        push(make_ring(items(0), 5), items(1, 2))


def test_half_precision_keeps_observations_in_half_the_memory_and_gives_them_back_in_full():
    example = items(0, 0)
    ring = push(
        make_ring(example, 2, "float16"), example.replace(obs=example.obs.at[0].set(jnp.array([[1e6], [-1e6]])))
    )
    assert (ring.data.obs.dtype, ring.data.action.dtype, ring.data.reward.dtype) == ("float16", "float32", "float32")
    batch = take(ring, jnp.array([0, 1]))
    assert batch.obs.dtype == jnp.float32
    np.testing.assert_array_equal(batch.obs[1:], example.obs[1:])
    np.testing.assert_array_equal(batch.obs[0, :, 0], [65504.0, -65504.0])  # the largest there are, and not infinite
    assert memory_bytes(make_ring(example, 2)) - memory_bytes(ring) == 2 * 2 * (STEPS + 1)


def test_memory_is_that_of_the_stored_numbers():
    ring = make_ring(items(0), 10)
    assert memory_bytes(ring) == 10 * (4 * (STEPS + 1) + 4 * STEPS + 4 * STEPS + STEPS)
