"""Frames of camera worlds by hand: motion, sight, cargo, rewards, and the forms of observations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.mate import actions, cargo, geometry, motion, occlusion, rewards, sightings, transforms
from envs_jax.mate.layout import layout_of
from envs_jax.mate.params import PRESETS, Params, params_of, rules_of
from envs_jax.mate.perception import perceive
from envs_jax.mate.state import NEVER, NO_GOAL, Noise, State
from envs_jax.mate.transition import transition

PRESET = PRESETS["2v2-9"]._replace(obstacle_boxes=PRESETS["2v2-9"].obstacle_boxes[:1])
"""Two cameras at (-300, -300) and (300, 300), two targets, one obstacle."""
RULES = rules_of(PRESET)


def numbers(x) -> jax.Array:
    return jnp.asarray(x, float)


def params() -> Params:
    return params_of(PRESET)


def layout(obstacle=(0.0, 0.0), radius=50.0):
    cameras = numbers([[-300, -300], [300, 300]])
    return layout_of(cameras, numbers([obstacle]), numbers([radius]), jnp.array([1, 2], jnp.int32), params(), RULES)


def scene(**fields) -> State:
    """Two empty targets in the middle of the left and the right side, cameras that look to the right."""
    own = layout()
    loc = numbers([[-500.0, 0.0], [500.0, 0.0]])
    angles = numbers([0.0, 0.0]), numbers([90.0, 90.0])
    sight = perceive(own, *angles, loc, jnp.zeros((2, 2), bool), params())
    none, nobody = jnp.zeros(2, jnp.int32), jnp.zeros(2, bool)
    zero = jnp.zeros((), jnp.int32)
    state = State(
        own, *angles, loc, none + NO_GOAL, none, jnp.zeros((2, 4), bool), none, none, jnp.zeros((4, 4), jnp.int32),
        jnp.zeros(4, jnp.int32), zero, zero, zero, zero, sight,
        sightings.first(loc, nobody, sight.c2t.any(0)), nobody, nobody, none, none,
    )  # fmt: skip
    return state._replace(**{name: jnp.asarray(value, getattr(state, name).dtype) for name, value in fields.items()})


@pytest.fixture(scope="module")
def frame():
    """One frame without visible transmission, compiled."""

    @jax.jit
    def program(state, camera_action, target_action, goal_u):
        noise = Noise(jnp.zeros((2, 2), bool), goal_u)
        return transition(state, camera_action, target_action, noise, params(), RULES)

    return lambda state, turn=((0, 0), (0, 0)), move=((0, 0), (0, 0)), u=(0, 0): program(
        state, numbers(turn), numbers(move), numbers(u)
    )


def test_without_obstacles_cameras_see_to_their_limit_all_around():
    nothing = jnp.zeros((0, 2)), jnp.zeros(0)
    table = jax.jit(partial(occlusion.table_of, max_fan=16))(numbers([[0, 0], [5, 5]]), *nothing, 700.0, 0.1)
    assert table.angle_deg.shape == (2, 361) and np.all(np.asarray(table.free_range) == 700.0)


def test_tables_of_the_presets():
    sizes = {name: rules_of(preset) for name, preset in PRESETS.items()}
    lengths = {name: (r.camera_observation_size, r.target_observation_size, r.global_state_size)
               for name, r in sizes.items()}  # fmt: skip
    assert lengths["1v1-0"] == (34, 39, 54) and lengths["4v4-9"] == (106, 111, 156)
    assert lengths["8v8-9"] == (154, 159, 256) and lengths["Navigation"] == (190, 195, 253)
    assert [len(PRESETS), sizes["4v8-9"].num_high_capacity, sizes["1v1-9"].num_high_capacity] == [17, 4, 0]
    assert float(params_of(PRESETS["4v2-9"]).max_team_reward) == 3200
    assert sizes["Navigation"].sparse_reward and not sizes["Navigation"].start_loaded
    cheap = params_of(PRESETS["4v4-9"]._replace(bounty_factor=0.005, target_step_size=30.0), horizon=20_000)
    assert [int(cheap.freight_scale), int(cheap.bounty_scale), int(cheap.horizon)] == [67, 1, 10_001]


def test_cameras_turn_and_zoom_within_their_limits():
    turned, zoomed = motion.turn_cameras(
        numbers([178.0, -180.0, 0.0]), numbers([31.0, 179.0, 90.0]), numbers([[9, -9], [-1, 2], [-3, 1]]), params()
    )
    np.testing.assert_allclose(turned, [-177, 179, -3])
    np.testing.assert_allclose(zoomed, [30, 180, 91])
    far = geometry.sight_range(numbers([30.0, 120.0]), 30.0, 1500.0)
    np.testing.assert_allclose(far, [1500, 750])


def test_targets_slide_along_discs():
    """One obstacle of radius 50 in the middle; steps of 20."""
    move = jax.jit(jax.vmap(lambda loc, wish: motion.move_targets(loc, wish, layout()._replace(step_size=numbers(20)))))
    cases = {
        "free": ((-500, 0), (3, 4), (-497, 4), False),
        "shortened": ((-500, 0), (30, 40), (-488, 16), True),
        "head-on": ((-60, 0), (20, 0), (-50, 0), True),
        # It touches after 10 at (-40, 30); the other 10 keep their component along (3, 4) / 5.
        "slides": ((-50, 30), (20, 0), (-40 + 10 * 0.36, 30 + 10 * 0.48), True),
        "away": ((-60, 0), (-20, 0), (-80, 0), False),
        "passes": ((-60, 50), (20, 0), (-40, 50), False),
        "inside": ((-10, 0), (5, 0), (-15, 0), True),
        "rests": ((-60, 0), (0, 0), (-60, 0), False),
        "camera": ((-350, -300), (20, 0), (-340, -300), True),
        "edge": ((-990, 0), (-20, 0), (-1000, 0), True),
    }
    starts, wishes, ends, collided = (np.array(x) for x in zip(*cases.values(), strict=True))
    got, colliding = move(numbers(starts)[:, None], numbers(wishes)[:, None])
    for name, end, expected in zip(cases, np.asarray(got)[:, 0], ends, strict=True):
        np.testing.assert_allclose(end, expected, atol=1e-3, err_msg=name)
    # What is only shortened has arrived where it could.
    expected = dict(zip(cases, collided, strict=True)) | {"shortened": False}
    assert dict(zip(cases, np.asarray(colliding)[:, 0], strict=True)) == expected


def test_sectors_include_their_borders():
    inside = partial(geometry.in_sector, unit_x=numbers(1.0), unit_y=numbers(0.0), reach=numbers(100.0))
    x, y = numbers([100, 100.01, 50, 50, 0, -1]), numbers([0, 0, 50, 50.01, 1, 1])
    assert inside(x, y, viewing_angle_deg=numbers(90.0)).tolist() == [True, False, True, False, False, False]
    assert inside(x, y, viewing_angle_deg=numbers(180.0)).tolist() == [True, False, True, True, True, False]


def test_obstacles_hide_what_is_behind_them():
    """From the origin, an obstacle of radius 30 at (100, 0): tangents of asin 0.3."""
    obstacle = numbers([[100.0, 0.0]]), numbers([30.0])
    camera = numbers([[0.0, 0.0]])
    edge = np.tan(np.arcsin(0.3))
    x = numbers([[60, 70, 70.001, 131, -150, 200, 200]])
    y = numbers([[0, 0, 0, 0, 0, 200 * edge - 0.1, 200 * edge + 0.1]])
    hidden = jax.jit(occlusion.blocked)(x, y, camera, *obstacle)
    assert hidden.tolist() == [[False, False, True, True, False, True, False]]
    table = jax.jit(partial(occlusion.table_of, max_fan=78))(camera, *obstacle, 1500.0, 0.1)
    by_table = occlusion.hidden(x, y, camera, *obstacle, table)
    assert by_table.tolist() == [[False, False, True, True, False, True, False]]
    inside = jax.jit(partial(occlusion.table_of, max_fan=78))(camera, camera + 1, obstacle[1], 1500.0, 0.1)
    assert float(jnp.max(inside.free_range)) == 0
    assert bool(occlusion.blocked(x, y, camera, camera + 1, obstacle[1]).all())


def test_who_sees_whom():
    own = layout()
    at = numbers([[-310, -300], [300, 100]])
    see = jax.jit(lambda transmit, phi: perceive(own, numbers(phi), numbers([90.0, 90.0]), at, transmit, params()))
    sight = see(jnp.zeros((2, 2), bool), [180.0, -90.0])
    assert sight.c2t.tolist() == [[True, False], [False, True]]
    assert sight.t2c.tolist() == [[True, False], [False, True]]
    assert sight.t2o.tolist() == [[True], [True]]
    assert sight.t2t.tolist() == np.eye(2, dtype=bool).tolist() and sight.c2c.tolist() == np.eye(2, dtype=bool).tolist()
    # The cameras look at each other, and the obstacle is between them; targets can be seen through it by luck.
    at = numbers([[-100.0, -100.0], [150.0, 150.0]])
    assert not layout().c2c_clear[0, 1] and layout((100.0, -100.0)).c2c_clear.all()
    blocked = jax.jit(
        lambda transmit: perceive(own, numbers([45.0, -135.0]), numbers([90.0, 90.0]), at, transmit, params()).c2t
    )
    assert blocked(jnp.zeros((2, 2), bool)).tolist() == [[True, False], [False, True]]
    assert blocked(jnp.array([[0, 1], [1, 0]], bool)).tolist() == [[True, True], [True, True]]


def test_bounties_and_deliveries(frame):
    """Target 0 delivers two units in warehouse 1 and loads; target 1 is tracked on its way."""
    remaining = np.zeros((4, 4), int)
    remaining[1, [0, 3]] = 1, 2
    state = scene(
        target_loc=[[-860, 860], [500, 100]], goal=[1, 2], load=[2, 1], freight=[200, 100], bounty=[150, 7],
        remaining=remaining, awaiting=[1, 2, 1, 2], viewing_angle_deg=[90, 90], orientation_deg=[45, -45],
        steps_since_load=[9, 4], tracked_since_load=[5, 2],
    )  # fmt: skip
    after, brought = frame(state, u=(0.9, 0.5))
    assert after.sight.c2t.tolist() == [[False, False], [False, True]]
    assert int(brought.reward) == 350 - 1 and int(after.team_return) == 349
    assert int(after.delayed_return) == 350 - 50 and int(after.delivered) == 2
    # The second recipient of two: warehouse 3; a target of capacity 1 takes one unit.
    assert after.goal.tolist() == [3, 2] and after.load.tolist() == [1, 1]
    assert after.freight.tolist() == [100, 100] and after.bounty.tolist() == [100, 6]
    assert after.remaining[1].tolist() == [1, 0, 0, 1] and after.awaiting.tolist() == [1, 0, 1, 2]
    assert after.delivered_now.tolist() == [True, False] and not after.empty_bits.any()
    assert after.steps_since_load.tolist() == [0, 5] and after.tracked_since_load.tolist() == [0, 3]
    metrics = brought.metrics
    assert [float(metrics.coverage_rate), float(metrics.real_coverage_rate)] == [0.5, 0.5]
    np.testing.assert_allclose(metrics.mean_transport_rate, 300 / 400)
    assert not brought.terminated and not brought.truncated
    # Who carries for elsewhere only looks; who stands in an empty one with nothing learns that it is empty.
    state = scene(target_loc=[[860, 860], [-860, -860]], goal=[2, -1], load=[1, 0], awaiting=[0, 0, 1, 0],
                  bounty=[5, 0], orientation_deg=[0, -45])  # fmt: skip
    after, _ = frame(state)
    assert after.goal.tolist() == [2, -1] and after.bounty.tolist() == [5, 0]
    assert after.empty_bits.tolist() == [[True, False, False, False], [False, False, True, False]]


def test_later_targets_find_what_earlier_ones_left(frame):
    remaining = np.zeros((4, 4), int)
    remaining[0, 1] = 2
    at = [[900, 900], [900, 870]]
    after, _ = frame(scene(target_loc=at, remaining=remaining, awaiting=[0, 2, 0, 0]))
    assert after.load.tolist() == [1, 1] and after.goal.tolist() == [1, 1]
    assert after.empty_bits[:, 0].tolist() == [False, True] and int(after.remaining.sum()) == 0


def test_episodes_end_one_frame_after_their_limit_or_with_the_last_delivery(frame):
    waiting = {"awaiting": [1, 0, 0, 0]}
    assert [bool(frame(scene(steps=steps, **waiting))[1].truncated) for steps in (9_999, 10_000)] == [False, True]
    last = scene(target_loc=[[900, 900], [0, 200]], goal=[0, -1], load=[1, 0], freight=[100, 0], **waiting)
    assert bool(frame(last)[1].terminated)


def test_choice_of_a_recipient_is_uniform_over_those_who_wait():
    choose = jax.jit(cargo.new_load)
    row, u = np.tile([[0], [3], [0], [1]], (1, 4)), numbers([0.0, 0.49, 0.5, 1 - 2**-24])
    recipient, units = choose(jnp.asarray(row, jnp.int32), jnp.full(4, 2, jnp.int32), u)
    assert recipient.tolist() == [1, 1, 3, 3] and units.tolist() == [2, 2, 1, 1]
    three = jnp.asarray(np.tile([[1], [1], [1], [0]], (1, 4)), jnp.int32)
    assert choose(three, jnp.full(4, 2, jnp.int32), u)[0].tolist() == [0, 1, 1, 2]
    assert int(choose(jnp.zeros((4, 1), jnp.int32), jnp.ones(1, jnp.int32), u[:1])[1][0]) == 0


def test_grids_of_actions():
    assert actions.grid(3)[:4].tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0]]
    disc = actions.disc_grid(5)
    np.testing.assert_allclose(np.linalg.norm(disc, axis=1).max(), 1)
    np.testing.assert_allclose(disc[[0, 4, 14]], [[-(0.5**0.5)] * 2, [0.5**0.5, -(0.5**0.5)], [1, 0]], atol=1e-12)
    turn = actions.camera_action(jnp.array([0, 24, 12]), 5, params())
    np.testing.assert_allclose(turn, [[-5, -2.5], [5, 2.5], [0, 0]])
    np.testing.assert_allclose(actions.target_action(jnp.array([14]), 5, numbers([10.0])), [[10, 0]], atol=1e-6)
    with pytest.raises(ValueError, match="4 discrete levels: an odd number"):
        actions.grid(4)


@pytest.fixture(scope="module")
def seen():
    """Observations in several forms of a scene where camera 0 sees nobody and camera 1 sees target 1."""
    state = scene(target_loc=[[-900, 0], [500, 100]], goal=[2, -1], load=[1, 0], orientation_deg=[45, -45])
    sight = perceive(state.layout, state.orientation_deg, state.viewing_angle_deg, state.target_loc,
                     jnp.zeros((2, 2), bool), params())  # fmt: skip
    state = state._replace(sight=sight, empty_bits=jnp.zeros((2, 4), bool).at[1, 3].set(True))
    forms = {
        "raw": transforms.RAW,
        "relative": transforms.Options(relative=True),
        "shared": transforms.Options(view="shared"),
        "enhanced": transforms.Options(view="enhanced"),
        "bearings": transforms.Options(view="shared", bearings=True),
        "network": transforms.Options(relative=True, rescale=True, zero_masked=True, drop_index=True),
    }

    known = sightings.Sighting(
        numbers([[0, 0], [400, 200]]), jnp.array([True, True]), jnp.array([NEVER, 25], jnp.int32)
    )
    blind = state._replace(sighting=known, sight=sight._replace(c2t=jnp.zeros((2, 2), bool)))
    memory = transforms.Options(view="remembered", relative=True, rescale=True, bearings=True)

    @jax.jit
    def program(state, blind):
        cameras = {name: transforms.camera_observation(state, params(), form) for name, form in forms.items()}
        targets = {name: transforms.target_observation(state, params(), form) for name, form in forms.items()}
        cameras["remembered"] = transforms.camera_observation(blind, params(), memory)
        return cameras, targets, transforms.state_vector(state, params(), rescale=True, scale=True)

    return jax.tree.map(np.asarray, program(state, blind))


def test_raw_observations(seen):
    cameras, targets, _ = seen
    raw = cameras["raw"][1]
    assert raw.shape == (22 + 10 + 4 + 14,) and raw[:5].tolist() == [2, 2, 1, 1, 925]
    np.testing.assert_allclose(raw[13:22], [300, 300, 40, 866.0254 * 0.5**0.5, -866.0254 * 0.5**0.5, 90, 1500, 5, 2.5],
                               rtol=1e-5)  # fmt: skip
    assert raw[22:32].tolist() == [0, 0, 0, 0, 0, 500, 100, 500, 0, 1]
    assert raw[32:36].tolist() == [0, 0, 50, 1] and raw[36:43].tolist() == [0] * 7 and raw[49] == 1
    raw = targets["raw"][0]
    assert raw[13:27].tolist() == [-900, 0, 500, 1, 20, 1, 0, 0, 1, 0, 0, 0, 0, 0]


def test_forms_of_observations(seen):
    cameras, targets, state = seen
    relative = cameras["relative"][1]
    assert relative[4:6].tolist() == [625, 625] and relative[13:15].tolist() == [300, 300]
    assert relative[22:32].tolist() == [0, 0, 0, 0, 0, 200, -200, 500, 0, 1] and relative[43:45].tolist() == [0, 0]
    assert cameras["shared"][:, 31].tolist() == [1, 1] and cameras["shared"][:, [42, 49]].tolist() == [[1, 1]] * 2
    assert targets["shared"][:, 23:27].tolist() == [[0, 0, 0, 1]] * 2
    assert cameras["enhanced"][0, [26, 31, 35, 42, 49]].tolist() == [1] * 5
    assert targets["enhanced"][:, 23:27].tolist() == [[1, 1, 1, 1]] * 2
    network = cameras["network"]
    assert network.shape == (2, 49) and network[0, 21:31].tolist() == [0] * 10
    np.testing.assert_allclose(network[1, 26:31], [0.1, -0.1, -0.5, 0, 1], atol=1e-6)
    own = targets["network"][:, 12:26]
    np.testing.assert_allclose(own[0], [-0.45, 0, -0.5, 1, -0.98, -1, 0, 0, 1, 0, 0, 0, 0, 0], atol=1e-6)
    assert own[1, 5] == 1
    assert state.shape == (29 + 18 + 32 + 3,) and np.abs(state[4:]).max() <= 1


def test_what_nobody_sees_is_where_it_was_seen_last(seen):
    """Camera 0 stands at (-300, -300) and looks to 45 degrees, camera 1 at (300, 300) and to -45."""
    cameras, _, _ = seen
    views = cameras["remembered"]
    assert views.shape == (2, 50 + 3 + 2 * 7)
    np.testing.assert_allclose(
        views[:, 22:25], [[0.5**0.5, 0.5**0.5, (1 / 3) ** 0.5], [0.5**0.5, -(0.5**0.5), (1 / 3) ** 0.5]], atol=1e-6
    )
    assert not views[:, 29:37].any()  # of the one that nobody ever saw: neither distance nor freshness
    place, loaded, bearing, fresh = views[:, 37:39], views[:, 40], views[:, 41:48], views[:, 48]
    np.testing.assert_allclose(place, [[0.35, 0.25], [0.05, -0.05]], atol=1e-6)
    assert loaded.tolist() == [1, 1] and fresh.tolist() == [0.5, 0.5]
    now = cameras["bearings"][:, 41:48]  # of the one that camera 1 sees
    assert now[:, 4].tolist() == [0, 1] and now[:, 5].tolist() == [1, 0]
    np.testing.assert_allclose(now[:, 6], [1 - np.hypot(200, 200) / 2000, 0], atol=1e-6)
    off = np.array([np.degrees(np.arctan2(500, 700)) - 45, 0.0])
    distance = np.hypot([700, 100], [500, 100]) / 2000
    expected = [distance, np.cos(np.radians(off)), np.sin(np.radians(off)), off / 90, *[[0, 0]] * 3]
    np.testing.assert_allclose(bearing, np.transpose(expected), atol=1e-6)


def test_sightings_grow_old(frame):
    """Target 1 passes out of the view of all, target 0 was never in it."""
    state = scene(target_loc=[[-900, 0], [500, 100]], goal=[2, 1], orientation_deg=[45, -45])
    after, _ = frame(state)
    assert after.sighting.frames_ago.tolist() == [NEVER, 0] and after.sighting.loaded.tolist()[1]
    later, _ = frame(after._replace(target_loc=numbers([[-900, 0], [-900, 500]]), goal=jnp.array([2, NO_GOAL])))
    assert later.sighting.frames_ago.tolist() == [NEVER, 1] and later.sighting.loaded.tolist()[1]
    np.testing.assert_allclose(later.sighting.loc[1], [500, 100])


def test_terms_of_rewards(frame):
    after, brought = frame(scene(target_loc=[[-900, 0], [500, 100]], goal=[2, -1], load=[1, 0], bounty=[9, 9],
                                 orientation_deg=[45, -45], empty_bits=[[0] * 4, [1] * 4]))  # fmt: skip
    terms = rewards.camera_terms(("raw_reward", "coverage_rate", "num_tracked", "baseline"), after, brought, params())
    assert {name: value.tolist() for name, value in terms.items()} == {
        "raw_reward": [1.0], "coverage_rate": [0.5], "num_tracked": [0.0, 1.0], "baseline": [1.0],
    }  # fmt: skip
    weights = {"raw_reward": 2.0, "num_tracked": 1.0}
    for reduction, expected in {
        "none": [2, 3],
        "mean": [2.5, 2.5],
        "sum": [5, 5],
        "max": [3, 3],
        "min": [2, 2],
    }.items():
        got = rewards.reduced({name: terms[name] for name in weights}, weights, 2, reduction)
        assert got.tolist() == expected, reduction
    own = rewards.target_terms(("raw_reward", "is_tracked", "normalized_goal_distance", "is_colliding"),
                               after, brought, params())  # fmt: skip
    assert own["raw_reward"].tolist() == [-1.0] and own["is_tracked"].tolist() == [0.0, 1.0]
    away = (np.hypot(25, 925) - 75) / 2000, 0.5
    np.testing.assert_allclose(own["normalized_goal_distance"], away, rtol=1e-6)
