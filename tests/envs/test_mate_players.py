"""Scripted players of both teams: against recordings of the reference, and by hand where nothing is recorded."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mate_recordings import SNAPSHOTS, each_recording, load, world

from envs_jax.mate import assignment, baselines, camera_players, heuristic_cameras, matches, target_players
from envs_jax.mate.aim import aim, half_circles, iterated, wanted_viewing_angle_deg
from envs_jax.mate.params import PRESETS, WAREHOUSES, params_of, rules_of
from envs_jax.mate.players import CAMERAS, TARGETS, Mixed, mixture, watching
from envs_jax.mate.recorded import from_arrays
from envs_jax.mate.reset import start
from envs_jax.mate.state import NO_GOAL

SIGHTS = "ct", "cc", "tc", "tt", "to"
RULES, PARAMS = rules_of(PRESETS["4v4-9"]), params_of(PRESETS["4v4-9"])


def stacked(rollout, rules, params, count):
    """What players see of the first `count` snapshots, leaves [count, ...]."""
    first = from_arrays(rollout, 0, params, rules)
    changing = {field: rollout[key][:count].astype(getattr(first, field).dtype) for field, key in SNAPSHOTS.items()}
    sight = first.sight._replace(**{f"{who}2{whom}": rollout[f"mask_{who}2{whom}"][:count] for who, whom in SIGHTS})
    constant = jax.tree.map(lambda x: np.broadcast_to(x, (count, *x.shape)), first)
    return constant._replace(**changing, sight=sight)


# Against recordings


@each_recording("tgt_agent_goal", "tgt_agent_noise", "tgt_agent_noise_new")
def test_greedy_targets_repeat_a_recording(path, x64):
    """From the first frame on, with the recorded random numbers: goals, noise and actions."""
    rollout = load(path)
    rules, params = world(rollout)
    frames = len(rollout["tgt_action"])
    states = stacked(rollout, rules, params, frames)
    reach = target_players.WANDER * rollout["tgt_step_size"][:, None]
    choice = np.zeros(rollout["tgt_agent_goal"].shape)
    seen_empty = np.cumsum(rollout["tgt_empty_bits"][:frames].any(axis=1), axis=0) > 0
    for k, goals in enumerate(rollout["tgt_agent_goal"]):
        # The number that picks the recorded warehouse among the open ones.
        is_open = np.flatnonzero(~seen_empty[k])
        for t, goal in enumerate(goals):
            if goal in is_open:
                choice[k, t] = (np.flatnonzero(is_open == goal)[0] + 0.5) / len(is_open)
    draws = target_players.Draws(
        change_u=np.where(rollout["tgt_agent_noise_new"], 0.0, 1.0), wander=rollout["tgt_agent_noise"] / reach,
        choice_u=choice,
    )  # fmt: skip

    @jax.jit
    def replayed(states, draws):
        first = jax.tree.map(lambda x: x[0], (draws, states))
        memory = target_players.start_greedy(*first, params)

        def frame(memory, now):
            memory, action = target_players.act_greedy(memory, *now, params)
            return memory, (memory.goal, memory.path.wander, action)

        return jax.lax.scan(frame, memory, (states, draws))[1]

    goal, wander, action = replayed(states, draws)
    np.testing.assert_array_equal(goal, rollout["tgt_agent_goal"])
    np.testing.assert_allclose(wander, rollout["tgt_agent_noise"], atol=1e-9)
    np.testing.assert_allclose(action, rollout["tgt_action"], atol=1e-9)


@each_recording("tgt_agent_noise_new")
def test_recorded_targets_wander_more_often_when_stuck(path):
    rollout = load(path)
    moved = np.linalg.norm(np.diff(rollout["tgt_loc"], axis=0), axis=-1)[:-1]
    stuck = moved <= target_players.STUCK * rollout["tgt_step_size"]
    new = rollout["tgt_agent_noise_new"][1:]
    for rate, expected in ((new[stuck], target_players.CHANGE_STUCK), (new[~stuck], target_players.CHANGE)):
        spread = np.sqrt(expected * (1 - expected) / max(rate.size, 1))
        assert rate.size == 0 or abs(rate.mean() - expected) < 4 * spread


@each_recording("cam_mem_loc", "cam_mem_left")
def test_greedy_cameras_repeat_a_recording(path, x64):
    """Actions from recorded memories, and memories from recorded sightings where nobody told anything."""
    rollout = load(path)
    rules, params = world(rollout)
    frames = len(rollout["cam_action"])
    states = stacked(rollout, rules, params, frames)
    left = rollout["cam_mem_left"].astype(np.int32)

    @jax.jit
    def each_frame(states, loc, left):
        def one(state, loc, left):
            draws = camera_players.draw_greedy(jnp.zeros(camera_players.num_words_greedy(rules), jnp.uint32), rules)
            empty = camera_players.start_greedy(draws, state, params)
            remembered = empty._replace(loc=loc, frames_left=left)
            action, has_target = camera_players.nearest_remembered(remembered, state, params)
            # With everybody waiting, no message is sent.
            mute = remembered._replace(delay=jnp.full_like(empty.delay, 9), introduced=jnp.ones((), bool))
            later = camera_players.exchange(mute, state, draws.delay, params)
            told = remembered._replace(introduced=jnp.ones((), bool))
            return action, has_target, later, camera_players.exchange(told, state, draws.delay, params)

        return jax.vmap(one)(states, loc, left)

    action, has_target, _, _ = each_frame(states, rollout["cam_mem_loc"], left)
    assert has_target.mean() > 0.5
    np.testing.assert_allclose(action[has_target], rollout["cam_action"][has_target], atol=1e-9)
    # A frame later: what was seen is known, what was not either faded by one or was told by somebody who saw it.
    shifted = jax.tree.map(lambda x: x[1:], states)
    _, _, mute, told = each_frame(shifted, rollout["cam_mem_loc"][:-1], left[:-1])
    heard = np.asarray(mute.frames_left) != left[1:]
    assert 0 < heard.mean() < 0.2
    assert (left[1:][heard] == camera_players.MEMORY_FRAMES).all() and not rollout["mask_c2t"][1:frames][heard].any()
    assert (np.asarray(told.frames_left)[heard] == camera_players.MEMORY_FRAMES).all()
    known = (left[1:] > 0) & ~heard
    np.testing.assert_allclose(np.asarray(mute.loc)[known], rollout["cam_mem_loc"][1:][known], atol=1e-9)
    np.testing.assert_allclose(np.asarray(told.loc)[heard], rollout["cam_mem_loc"][1:][heard], atol=1e-9)


# By hand


@lru_cache
def scene():
    """A start of 4v4-9, numpy."""
    return jax.tree.map(np.asarray, jax.jit(partial(start, rules=RULES))(jax.random.key(3), PARAMS))


def test_the_viewing_angle_puts_a_point_in_the_middle_of_the_view():
    distance = np.linspace(1.0, 2000.0, 500)
    angle = np.asarray(wanted_viewing_angle_deg(distance, PARAMS), float)
    reach = 1500 * np.sqrt(30 / angle)
    free = (angle > 30) & (angle < 180)
    middle = reach / (1 + np.sin(np.radians(angle / 2)))
    assert free.sum() > 50
    np.testing.assert_allclose(middle[free], distance[free], rtol=2e-4)
    assert (np.diff(angle) <= 1e-3).all() and angle[0] == 180 and angle[-1] == 30


def test_the_polynomial_is_the_iteration(x64):
    nearness = np.linspace(0, 2, 4001)
    np.testing.assert_allclose(half_circles(nearness), iterated(nearness), atol=1e-11)
    short = half_circles(nearness.astype(np.float32))
    np.testing.assert_allclose(short, iterated(nearness), atol=3e-6)
    assert short.dtype == np.float32


def test_aiming_turns_the_short_way_within_the_limits():
    north = aim(np.array([-1.0, 0.0, 1e3]), np.array([-0.01, 1e3, 1e3]), np.array([179.0, 88.0, -170.0]),
                np.array([180.0, 31.0, 30.0]), PARAMS)  # fmt: skip
    np.testing.assert_allclose(north[:, 0], [1.573, 2.0, -5.0], atol=1e-3)
    np.testing.assert_allclose(north[:2, 1], [0.0, 2.5], atol=1e-5)


def greedy_of(state, **changes):
    """Greedy targets that have just acted, with what they believed changed before, and wander nowhere."""
    still = target_players.Draws(np.ones(4), np.zeros((4, 2)), np.full(4, 0.5))
    memory = target_players.start_greedy(still, state, PARAMS)._replace(**changes)
    return target_players.act_greedy(memory, state, still, PARAMS)


def test_a_greedy_target_heads_for_its_goal_and_else_for_a_warehouse_that_may_have_stock():
    empty = np.zeros((4, 4), bool)
    empty[0, 1] = True
    state = scene()._replace(
        target_loc=np.array([[0.0, 0], [925, 0], [0, 0], [925, 920]]), goal=np.array([2, -1, -1, 0], np.int32),
        empty_bits=empty,
    )  # fmt: skip
    # The second keeps its goal, the third gives up a warehouse that the first saw empty, for the third of 0, 2, 3.
    memory, action = greedy_of(state, goal=np.array([0, 3, 1, -1], np.int32))
    assert memory.goal.tolist() == [2, 3, 2, 0] and memory.empty.tolist() == [False, True, False, False]
    longest = state.layout.step_size
    np.testing.assert_allclose(np.linalg.norm(action, axis=1)[:3], longest[:3], rtol=1e-5)
    np.testing.assert_allclose(action[3], [0, 5], atol=1e-5)
    for t, goal in enumerate((2, 3, 2)):
        away = WAREHOUSES[goal] - state.target_loc[t]
        np.testing.assert_allclose(action[t], longest[t] * away / np.linalg.norm(away), rtol=1e-5)
    nowhere, action = greedy_of(state._replace(goal=np.full(4, NO_GOAL, np.int32)), empty=np.ones(4, bool))
    assert nowhere.goal.tolist() == [NO_GOAL] * 4 and not action.any()


def test_heuristic_targets_leave_the_view_of_a_camera_that_they_see():
    state = scene()
    camera = state.layout.camera_loc[0]
    loc = np.stack([camera + np.array([100, y]) for y in (60.0, 60.0, -60.0, 60.0)])
    goal = np.array([0 if camera[1] > 0 else 1] * 4, np.int32)
    sight = state.sight._replace(t2c=np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], bool))
    state = state._replace(target_loc=loc, goal=goal, sight=sight, orientation_deg=np.zeros(4),
                           viewing_angle_deg=np.full(4, 90.0))  # fmt: skip
    still = target_players.Draws(np.ones(4), np.zeros((4, 2)), np.zeros(4))
    memory = target_players.start_greedy(still, state, PARAMS)
    _, greedy = target_players.act_greedy(memory, state, still, PARAMS)
    _, evading = target_players.act_heuristic(memory, state, still, PARAMS)
    changed = np.abs(np.asarray(evading - greedy)).max(axis=1) > 1e-3
    reach = 1500 * np.sqrt(30 / 90)
    drift = loc - (camera + np.array([reach / (1 + np.sin(np.pi / 4)), 0]))
    along = (np.asarray(greedy) * drift).sum(axis=1) >= 0
    assert changed.tolist() == (along & sight.t2c[:, 0]).tolist() and not changed[1]
    step = state.layout.step_size[:, None]
    drift = drift * np.minimum(1, 0.5 * step / np.linalg.norm(drift, axis=1, keepdims=True))
    expected = np.clip(np.asarray(greedy) + drift, -step, step)
    np.testing.assert_allclose(evading[changed], expected[changed], rtol=1e-4, atol=1e-4)


def test_naive_targets_go_round_and_skip_what_they_know_to_be_empty():
    empty = np.zeros((4, 4), bool)
    empty[1, 1] = empty[3] = True
    state = scene()._replace(target_loc=np.full((4, 2), 925.0), goal=np.array([2, -1, -1, -1], np.int32),
                             empty_bits=empty)  # fmt: skip
    still = target_players.Draws(np.ones(4), np.zeros((4, 2)), np.array([0.0, 0.2, 0.6, 0.9]))
    memory = target_players.start_naive(still, state, PARAMS)
    assert memory.goal.tolist() == [0, 0, 2, 3] and memory.turn.tolist() == [-1, 1, -1, 1]
    memory = memory._replace(goal=np.array([0, 0, 2, 0], np.int32), turn=np.array([-1, 1, 1, 1], np.int32))
    memory, _ = target_players.act_naive(memory, state, still, PARAMS)
    # A loaded one and one that believes nothing go on to the next; the third is not there yet.
    assert memory.goal.tolist() == [3, 2, 2, 1]


def test_random_players_keep_an_action_for_twenty_frames():
    player = TARGETS["random"]

    @jax.jit
    def actions(key):
        state = jax.tree.map(jnp.asarray, scene())
        words = jax.random.bits(key, (50, player.num_words(RULES)), jnp.uint32)
        draws = jax.vmap(lambda w: player.draw(w, RULES))(words)
        memory = player.start(jax.tree.map(lambda x: x[0], draws), state, PARAMS)
        return jax.lax.scan(lambda memory, d: player.act(memory, state, d, PARAMS), memory, draws)[1]

    taken = np.asarray(actions(jax.random.key(0)))
    changes = np.flatnonzero(np.abs(np.diff(taken, axis=0)).max(axis=(1, 2)) > 0)
    assert changes.tolist() == [19, 39]
    assert (np.abs(taken) <= scene().layout.step_size[:, None]).all() and taken.min() < -3 and taken.max() > 3


def test_naive_cameras_widen_and_turn_anticlockwise():
    player = CAMERAS["naive"]
    draws = player.draw(jnp.array([0, 2**31, 2**32 - 1, 2**30], jnp.uint32), RULES)
    _, action = player.act((), scene(), draws, PARAMS)
    np.testing.assert_allclose(action, np.array([[0, 0], [1, 0.5], [2, 1], [0.5, 0.25]]), atol=1e-5)


def test_greedy_cameras_tell_each_other_what_lies_in_the_others_reach():
    """Four frames by hand: an introduction, a message, silence while it is owed a delay, the next message."""
    state, waits = scene(), np.full((4, 4), 2, np.int32)
    sight = state.sight._replace(c2t=np.array([[1, 0, 0, 0]] + [[0] * 4] * 3, bool))
    far = state.layout.camera_loc.copy()
    far[3] = state.target_loc[0] + [1651.0, 0]
    state = state._replace(sight=sight, layout=state.layout._replace(camera_loc=far))
    draws = camera_players.draw_greedy(jnp.zeros(camera_players.num_words_greedy(RULES), jnp.uint32), RULES)
    memory = camera_players.start_greedy(draws, state, PARAMS)
    left = []
    for _ in range(6):
        memory = camera_players.exchange(memory, state, waits, PARAMS)
        left.append(np.asarray(memory.frames_left)[:, 0].tolist())
    assert left == [[25, 0, 0, 0], [25, 0, 0, 0], [25, 25, 25, 0], [25, 24, 24, 0], [25, 25, 25, 0], [25, 24, 24, 0]]
    assert not np.asarray(memory.frames_left)[:, 1:].any()


def test_greedy_cameras_may_ignore_what_has_unloaded():
    state = scene()
    memory = camera_players.start_greedy(
        camera_players.draw_greedy(jnp.zeros(camera_players.num_words_greedy(RULES), jnp.uint32), RULES), state, PARAMS
    )
    ever = np.zeros((4, 4), bool)
    ever[0] = True
    memory = memory._replace(frames_left=np.ones((4, 4), np.int32), loc=np.broadcast_to(state.target_loc, (4, 4, 2)),
                             ever_loaded=ever)  # fmt: skip
    _, has_target = camera_players.nearest_remembered(memory, state, PARAMS, ignore_unloaded=True)
    assert has_target.tolist() == [False, True, True, True]


# Heuristic cameras


def test_a_pose_is_worth_most_with_the_target_inside_and_near():
    table = heuristic_cameras.table_of(30.0)
    worth = np.asarray(table.worth)
    assert worth.shape == (41, 21, 72) and worth.max() <= 1 and worth.min() == 0
    # Hand: 90 deg wide, straight ahead, half of its range away.
    viewing = np.asarray(table.viewing_angle_deg)
    v = np.flatnonzero(np.isclose(viewing, 90))[0]
    reach = 1500 * np.sqrt(30 / 90)
    distance = 1500 * 10 / 40
    inscribed = reach / (1 + 1 / np.sin(np.pi / 4))
    edge = min(distance, reach - distance, distance * np.sin(np.pi / 4))
    np.testing.assert_allclose(worth[10, v, 0], edge / inscribed * (1 - distance / reach), rtol=1e-4)
    assert not worth[10, v, 10:63].any() and worth[10, v, 8] > 0 and worth[10, v, 64] > 0


def test_the_nearest_point_of_the_grid_and_the_choice_of_poses_are_those_of_a_loop():
    state = scene()
    sight = state.sight._replace(c2t=np.array([[1, 1, 0, 1]] + [[0] * 4] * 3, bool))
    state = state._replace(sight=sight)
    table = heuristic_cameras.table_of(30.0)
    worth = jax.jit(heuristic_cameras.worth_of_poses)(state, table, PARAMS)
    bearing, distance = np.meshgrid(-180 + 5.0 * np.arange(72), 1500 / 40 * np.arange(41), indexing="ij")
    points = np.stack([distance * np.cos(np.radians(bearing)), distance * np.sin(np.radians(bearing))], axis=-1)
    expected = np.zeros((4, 21, 36))
    covers = np.zeros((4, 21 * 36), int)
    for c in range(4):
        for t in (0, 1, 3):
            away = state.target_loc[t] - state.layout.camera_loc[c]
            if np.linalg.norm(away) > 1500:
                continue
            b, d = np.unravel_index(np.argmin(np.linalg.norm(points - away, axis=-1)), bearing.shape)
            own = np.stack([np.asarray(table.worth)[d, :, (b - 2 * o) % 72] for o in range(36)], axis=1)
            expected[c] += own
            covers[c] += (own.ravel() > 0) << t
    np.testing.assert_allclose(worth.score, expected.reshape(4, -1), atol=1e-5)
    np.testing.assert_array_equal(worth.covers, covers)
    order_u = np.random.default_rng(0).random((32, 4)).astype(np.float32)
    poses = jax.jit(heuristic_cameras.best_poses)(worth, state, table, order_u, PARAMS)
    best = -1.0
    for order in np.argsort(order_u, axis=1):
        covered, total = 0, 0.0
        for c in order:
            new = np.array([int(x).bit_count() for x in covers[c] & ~covered])
            pose = np.argmax(np.asarray(worth.score)[c] + new)
            covered, total = covered | covers[c, pose], total + worth.score[c, pose]
        best = max(best, total + int(covered).bit_count())
    turned, viewing = np.asarray(poses[0]), np.asarray(poses[1])
    index = np.round((viewing - 30) / 7.5).astype(int) * 36 + np.round((turned + 180) / 10).astype(int)
    total = sum(worth.score[c, i] for c, i in enumerate(index))
    total += int(np.bitwise_or.reduce([covers[c, i] for c, i in enumerate(index)])).bit_count()
    np.testing.assert_allclose(total, best, rtol=1e-5)


# Yardsticks


@pytest.mark.parametrize("shape", [(4, 4), (4, 8), (5, 3), (1, 1)], ids=str)
def test_matchings_are_the_cheapest(shape):
    from scipy.optimize import linear_sum_assignment

    cost = np.random.default_rng(1).random((20, *shape)).astype(np.float32)
    pairs = np.asarray(jax.jit(jax.vmap(assignment.cheapest_matching))(cost))
    assert (pairs.sum(axis=1) <= 1).all() and (pairs.sum(axis=2) <= 1).all()
    assert (pairs.sum(axis=(1, 2)) == min(shape)).all()
    for one, chosen in zip(cost, pairs, strict=True):
        np.testing.assert_allclose(one[chosen].sum(), one[linear_sum_assignment(one)].sum(), rtol=1e-5)


def test_too_many_to_match_is_an_error_in_one_line():
    with pytest.raises(ValueError, match="13 cameras and 14 targets cannot be matched exactly: at most 12"):
        assignment.cheapest_matching(np.zeros((13, 14)))


def test_selections_follow_what_is_visible():
    state = scene()
    visible = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]], bool)
    loc = state.layout.camera_loc
    state = state._replace(
        sight=state.sight._replace(c2t=visible),
        target_loc=np.stack([loc[0] + 50, loc[0] + 90, loc[0] - 300, loc[2] - 10]),
    )
    chosen = {
        name: np.asarray(select(jax.random.key(0), state, PARAMS)) for name, select in baselines.SELECTIONS.items()
    }
    assert not chosen["never"].any() and chosen["all_targets"].all()
    np.testing.assert_array_equal(chosen["all_visible"], visible)
    distance = np.linalg.norm(loc[:, None] - state.target_loc[None], axis=-1)
    nearest = np.argmin(np.where(visible, distance, np.inf), axis=1)
    np.testing.assert_array_equal(chosen["nearest_visible"], (np.arange(4) == nearest[:, None]) & visible)
    assert not (chosen["random_half"] & ~visible).any()
    own = chosen["matched"]
    assert own.sum() == 3 and (own.sum(axis=0) <= 1).all() and (own[:2].sum(axis=1) == 1).all() and own[2, 3]
    assert np.array_equal(chosen["matched_and_unclaimed"], own), "everything visible is somebody's"
    lone = state._replace(sight=state.sight._replace(c2t=visible & (np.arange(4) < 2)[:, None] & [[1], [0], [0], [0]]))
    shared = np.asarray(baselines.matched_and_unclaimed(jax.random.key(0), lone, PARAMS))
    assert shared[0].tolist() == [True, True, False, False]


# Players as such


@lru_cache
def short_game():
    """A few frames of mixtures of all players of both teams: every one of them acts in every frame."""
    cameras = {
        **CAMERAS,
        "assigned": watching(lambda key, state, params: baselines.privileged(state), baselines.aim_at, 5),
    }
    teams = matches.Teams(*[mixture(dict.fromkeys(players, 1.0), players) for players in (cameras, TARGETS)])
    starts = jax.tree.map(lambda x: np.stack([x] * 3), scene())
    play = jax.jit(lambda key, starts, params: matches.play(key, starts, teams, params, RULES, 6))
    return jax.tree.map(np.asarray, play(jax.random.key(0), starts, PARAMS))


def test_every_player_plays():
    match, cameras = short_game()
    assert all(np.isfinite(values).all() for values in (*match, *jax.tree.leaves(cameras)))
    assert (match.episode_length == 6).all() and (match.num_delivered_cargoes == 0).all()
    assert (match.coverage_rate <= 1).all() and (match.early_coverage_rate == match.coverage_rate).all()
    # All targets start with bounty, none of which is lost in so few frames.
    np.testing.assert_allclose(match.camera_return, 6 * 4 * match.coverage_rate, rtol=1e-5)
    np.testing.assert_allclose(match.real_coverage_rate, match.coverage_rate, rtol=1e-5)


def test_a_held_selection_counts_what_it_sees():
    watched = short_game()[1].memories[-1]
    assert (watched.age == 6).all() and (watched.valid <= watched.selected).all()
    assert (watched.subset.sum(axis=-1) == 1).all() and (watched.selected == 5 * 4).all()


def test_a_mixture_draws_one_player_per_episode():
    player = mixture({"random": 3.0, "naive": 0.0, "greedy": 1.0}, TARGETS)

    @jax.jit
    @jax.vmap
    def started(key):
        state = jax.tree.map(jnp.asarray, scene())
        words = jax.random.bits(key, (2, player.num_words(RULES)), jnp.uint32)
        memory = player.start(player.draw(words[0], RULES), state, PARAMS)
        draws = player.draw(words[1], RULES)
        memory, action = player.act(memory, state, draws, PARAMS)
        _, greedy = TARGETS["greedy"].act(player.start(player.draw(words[0], RULES), state, PARAMS).memories[1], state,
                                          draws[1][1], PARAMS)  # fmt: skip
        return memory.number, action, greedy

    number, action, greedy = (np.asarray(x) for x in started(jax.random.split(jax.random.key(1), 400)))
    assert set(number) == {0, 1} and abs(number.mean() - 0.25) < 0.08
    same = np.abs(action - greedy).max(axis=(1, 2)) < 1e-5
    np.testing.assert_array_equal(same, number == 1)
    assert mixture({"greedy": 2.0}, TARGETS) is TARGETS["greedy"]
    assert Mixed._fields == ("number", "memories")
    for weights in ({"greedy": -1.0, "random": 2.0}, {"greedy": 0.0}):
        with pytest.raises(ValueError, match="weights of opponents"):
            mixture(weights, TARGETS)


def test_players_see_only_what_is_in_their_sight():
    """Moving what nobody sees changes no action."""
    state = scene()
    blind = state.sight._replace(c2t=np.zeros((4, 4), bool), t2c=np.zeros((4, 4), bool), t2t=np.eye(4, dtype=bool))
    state = state._replace(sight=blind)
    elsewhere = state._replace(target_loc=state.target_loc + 100.0)
    turned = state._replace(orientation_deg=state.orientation_deg + 10.0)
    words = np.random.default_rng(0).integers(2**32, size=1000, dtype=np.uint32)

    @jax.jit
    def actions(state, pairs):
        def of(player, seen):
            draws = player.draw(jnp.asarray(words[: player.num_words(RULES)]), RULES)
            memory = player.start(draws, state, PARAMS)
            return jax.vmap(lambda seen: player.act(memory, seen, draws, PARAMS)[1])(seen)

        return [
            {name: of(player, seen) for name, player in team.items()}
            for team, seen in zip((CAMERAS, TARGETS), pairs, strict=True)
        ]

    pairs = [jax.tree.map(lambda *x: np.stack(x), state, other) for other in (elsewhere, turned)]
    for team in actions(state, pairs):
        for name, (one, two) in team.items():
            np.testing.assert_array_equal(one, two, err_msg=name)
