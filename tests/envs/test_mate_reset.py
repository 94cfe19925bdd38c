"""Starts of camera worlds: nothing overlaps, cargo and loads add up, pools hold starts."""

from functools import partial

import jax
import numpy as np
import pytest

from envs_jax.mate import reset
from envs_jax.mate.params import PRESETS, WAREHOUSES, params_of, rules_of
from envs_jax.mate.state import NO_GOAL

FEW, MANY = 64, 1000


def drawn(name: str, count: int, **changes):
    """Rules, the pool and all its starts."""
    preset = PRESETS[name]._replace(**changes)
    rules = rules_of(preset)
    pool = reset.draw_pool(jax.random.key(0), count, params_of(preset), rules)
    return rules, pool, jax.tree.map(np.asarray, jax.jit(reset.all_of)(pool))


@pytest.fixture(scope="module")
def starts():
    return drawn("4v4-9", MANY)


@pytest.fixture(scope="module")
def navigation():
    return drawn("Navigation", FEW)


def discs_of(state):
    """Places [E, N, 2], radii [E, N] and required gaps [N] of cameras, obstacles, targets and the warehouses' discs."""
    layout = state.layout
    count = len(layout.camera_loc)
    phantoms = np.broadcast_to(WAREHOUSES, (count, 4, 2))
    loc = np.concatenate([phantoms, layout.camera_loc, layout.obstacle_loc, state.target_loc], axis=1)
    none = np.zeros(state.target_loc.shape[:2])
    radius = np.concatenate([np.full((count, 4), 56.25), layout.camera_radius, layout.obstacle_radius, none], axis=1)
    gap = np.repeat([0, 20, 20, 0], [4, layout.camera_loc.shape[1], layout.obstacle_loc.shape[1], none.shape[1]])
    return loc, radius, gap


def least_free_space(state):
    """Smallest distance between edges, less the gap that the later of both needs."""
    loc, radius, gap = discs_of(state)
    distance = np.linalg.norm(loc[:, :, None] - loc[:, None], axis=-1)
    space = distance - radius[:, :, None] - radius[:, None] - np.maximum(gap[:, None], gap[None]) * (
        gap[None, :] >= gap[:, None]
    )  # fmt: skip
    later = np.triu(np.ones(space.shape[1:], bool), 1)
    # Targets, the last, are points that may share a place.
    later[-state.target_loc.shape[1] :, -state.target_loc.shape[1] :] = False
    return space[:, later].min(axis=1)


def test_nothing_overlaps(starts):
    """A thousand starts of the default preset."""
    _, _, state = starts
    assert least_free_space(state).min() > -0.01
    loc, radius, _ = discs_of(state)
    assert (np.abs(loc[:, 4:-4]) <= 1000 - 1.2 * radius[:, 4:-4, None] + 1e-3).all()
    radius = state.layout.obstacle_radius
    assert radius.min() >= 25 and radius.max() <= 100 and abs(radius.mean() - 62.5) < 2


def test_entities_stand_in_boxes_of_their_own(starts):
    _, _, state = starts
    preset = PRESETS["4v4-9"]
    for loc, boxes in ((state.layout.camera_loc, preset.camera_boxes), (state.target_loc, preset.target_boxes)):
        low, high = np.array(boxes)[:, ::2], np.array(boxes)[:, 1::2]
        inside = ((loc[:, :, None] >= low - 1e-3) & (loc[:, :, None] <= high + 1e-3)).all(axis=-1)
        assert inside.any(axis=2).all()
    where = np.sign(state.layout.camera_loc) @ [2, 1]
    assert (np.sort(where, axis=1) == [-3, -1, 1, 3]).all()
    # Shuffled: each camera stands in each corner equally often.
    for camera in where.T:
        assert all(abs((camera == corner).mean() - 0.25) < 0.06 for corner in (-3, -1, 1, 3))


def test_cameras_look_anywhere(starts):
    _, _, state = starts
    turns = state.orientation_deg / 5
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-4)
    assert set(np.round(turns).astype(int).ravel()) == set(range(-36, 36))
    assert state.viewing_angle_deg.min() >= 30 and state.viewing_angle_deg.max() <= 180
    assert abs(state.viewing_angle_deg.mean() - 105) < 4


def test_half_of_the_targets_carry_two(starts):
    _, _, state = starts
    assert (np.sort(state.layout.capacity, axis=1) == [1, 1, 2, 2]).all()
    assert (abs((state.layout.capacity == 2).mean(axis=0) - 0.5) < 0.06).all()
    np.testing.assert_allclose(state.layout.step_size, 20 / state.layout.capacity)


def test_every_warehouse_sends_and_nothing_is_lost(starts):
    _, _, state = starts
    underway = (state.load[..., None] * (state.goal[..., None] == np.arange(4))).sum(axis=1)
    np.testing.assert_array_equal(state.remaining.sum(axis=1) + underway, state.awaiting)
    units = state.awaiting.sum(axis=1)
    assert set(units) <= {32, 64} and (units == 32).mean() > 0.99
    assert (np.diagonal(state.remaining, axis1=1, axis2=2) == 0).all() and state.remaining.min() >= 0
    per_pair = state.awaiting.mean(axis=0) / units.mean()
    assert (abs(per_pair - 0.25) < 0.02).all()


def test_targets_start_loaded_in_the_centre(starts):
    _, _, state = starts
    assert (state.goal != NO_GOAL).all() and (state.load <= state.layout.capacity).all() and state.load.min() == 1
    np.testing.assert_array_equal(state.freight, 100 * state.load)
    np.testing.assert_array_equal(state.bounty, 100 * state.load)
    assert not state.empty_bits.any() and not state.steps.any() and not state.team_return.any()
    assert all(abs((state.goal == g).mean() - 0.25) < 0.04 for g in range(4))
    # Who can carry two finds two units for one recipient, mostly.
    assert 0.85 < (state.load == state.layout.capacity).mean() < 0.95


def test_perception_is_that_of_the_start(starts):
    _, _, state = starts
    # A narrow third of the views reaches the centre, and an average of these covers a seventh of the directions.
    assert 0.03 < state.sight.c2t.mean() < 0.07 and state.sight.c2c[:, np.arange(4), np.arange(4)].all()


def test_obstacles_of_navigation_that_find_no_place_have_no_radius(navigation):
    """The reference lost 3 of 800; the others overlap nothing."""
    _, _, state = navigation
    radius = state.layout.obstacle_radius
    lost = radius == 0
    assert 0 < lost.mean() < 0.03 or lost.sum() == 0
    assert ((radius >= 25) | lost).all() and radius.max() <= 100
    space = least_free_space(state)
    # Without a radius an obstacle may lie in another.
    assert space[~lost.any(axis=1)].min() > -0.01
    assert (state.goal == NO_GOAL).all() and not state.load.any() and not state.freight.any()


def test_an_entity_without_room_is_tried_five_hundred_times():
    """The number of rounds, and what becomes of an obstacle and of a camera where everything is taken."""
    box = (0.0, 0.0, 0.0, 0.0)
    changes = {"camera_boxes": (box,) * 2, "obstacle_boxes": ((-30.0, 30.0, -30.0, 30.0),), "target_boxes": (box,)}
    _, _, state = drawn("4v4-9", 3, **changes)
    np.testing.assert_allclose(state.layout.camera_loc, 0)
    assert (state.layout.camera_radius == 40).all() and (state.layout.obstacle_radius == 0).all()
    assert (np.abs(state.layout.obstacle_loc) <= 30).all() and state.layout.obstacle_loc.any()


@pytest.mark.parametrize("name", ["4v2-0", pytest.param("8v8-9", marks=pytest.mark.slow)])
def test_other_presets(name):
    """One of them unshuffled: who is first stands in the first box, and carries two."""
    rules, _, state = drawn(name, FEW, shuffle_entities=name != "4v2-0")
    assert least_free_space(state).min() > -0.01
    assert (state.layout.capacity == 2).sum(axis=1).tolist() == [rules.num_high_capacity] * FEW
    assert (state.remaining.sum(axis=2) + state.load.sum(axis=1, keepdims=True) > 0).all()
    if name == "4v2-0":
        assert state.layout.obstacle_loc.shape == (FEW, 0, 2) and (state.layout.capacity == [2, 1]).all()
        assert (np.sign(state.layout.camera_loc) == [[1, 1], [1, -1], [-1, -1], [-1, 1]]).all()


def test_cargo_is_drawn_until_every_warehouse_sends():
    rules = rules_of(PRESETS["1v1-0"])
    draw = jax.jit(jax.vmap(partial(reset.draw_cargo, rules=rules)))
    cargo = np.asarray(draw(jax.random.split(jax.random.key(0), MANY)))
    assert (cargo.sum(axis=2) > 0).all() and (cargo.sum(axis=(1, 2)) % 8 == 0).all()
    # A batch of eight leaves a warehouse out with probability 4 (3/4)^8 - 6 (1/2)^8 + 4 (1/4)^8.
    again = 4 * 0.75**8 - 6 * 0.5**8 + 4 * 0.25**8
    assert abs((cargo.sum(axis=(1, 2)) > 8).mean() - again) < 4 * np.sqrt(again * (1 - again) / MANY)


def test_a_pool_gives_its_starts_and_all_of_them(starts):
    _, pool, state = starts
    few = pool._replace(rows=pool.rows[:8])
    given = jax.jit(jax.vmap(reset.from_pool, (0, None)))(jax.random.split(jax.random.key(5), 200), few)
    which = (np.asarray(given.target_loc)[:, None] == state.target_loc[None, :8]).all(axis=(2, 3))
    assert (which.sum(axis=1) == 1).all() and which.any(axis=0).all()
    for ours, every in zip(jax.tree.leaves(given), jax.tree.leaves(state), strict=True):
        assert ours.dtype == every.dtype
        np.testing.assert_array_equal(ours, every[np.argmax(which, axis=1)])


def test_a_pool_holds_what_was_drawn(starts):
    """Its example is the first start as it was drawn, never a row."""
    _, pool, state = starts
    for ours, every in zip(jax.tree.leaves(pool.example), jax.tree.leaves(state), strict=True):
        assert ours.dtype == every.dtype
        np.testing.assert_array_equal(ours, every[0])
    assert len({tuple(loc) for loc in state.target_loc[:, 0].tolist()}) == MANY
