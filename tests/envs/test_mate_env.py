"""Camera worlds as environments: contract, what is conserved over whole episodes, settings and their errors."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_jax
from envs_jax.base import FRAMES, Guest, Selection
from envs_jax.check import check_env
from envs_jax.mate.config import MateConfig
from envs_jax.mate.opponents import Either, Opponent, either
from envs_jax.mate.params import PRESETS
from envs_jax.mate.state import without_layout

SMALL = "mate/2v2-9"
WORLDS, STEPS = 4, 350


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (SMALL, {"horizon": 17, "selection_head": "factored"}),
        pytest.param("mate/1v2-0", {"learner": "both", "horizon": 6, "reset_pool": 3}, marks=pytest.mark.slow),
        pytest.param("mate/4v4-9", {"control": "flat", "frame_skip": 3, "horizon": 12}, marks=pytest.mark.slow),
        pytest.param(
            "mate/Navigation", {"learner": "targets", "control": "continuous", "horizon": 5}, marks=pytest.mark.slow
        ),
        pytest.param("mate/2v4-9", {"learner": "targets", "opponent": "greedy", "horizon": 5}, marks=pytest.mark.slow),
        pytest.param(
            "mate/4v8-9",
            {"opponent": {"greedy": 0.5, "random": 0.5}, "occlusion": "table", "multi_selection": False, "horizon": 8},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "mate/2v2-9",
            {"reward_coefficients": {"soft_coverage_score": 1.0}, "camera_view": "shared", "horizon": 10},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_keeps_the_contract(name, settings):
    check_env(envs_jax.make(name, **settings), steps=12)


def test_actions_or_worlds_may_be_the_same_for_all():
    env = envs_jax.make(SMALL)
    key, keys = (jax.eval_shape(lambda k: k, k) for k in (jax.random.key(0), jax.random.split(jax.random.key(0), 3)))
    action, actions = jnp.zeros(2, jnp.int32), jnp.zeros((3, 2), jnp.int32)
    _, game = jax.eval_shape(env.reset, key)
    _, games = jax.eval_shape(jax.vmap(env.reset), keys)
    for axes, args in (((0, 0, None), (keys, games, action)), ((None, None, 0), (key, game, actions))):
        assert jax.eval_shape(jax.vmap(env.step_env, (*axes, None)), *args, env.default_params)[2].shape == (3, 2)


@pytest.fixture(scope="module")
def played():
    """Four worlds of `SMALL` with random macro actions, without resets: states and what the steps brought."""
    env = envs_jax.make(SMALL, reward_coefficients={"raw_reward": 1.0}, reward_reduction="none")

    @jax.vmap
    def step(key, game):
        key_action, key_step = jax.random.split(key)
        action = env.action_space(env.default_params).sample(key_action)
        _, after, reward, terminated, truncated, info = env.step_env(key_step, game, action, env.default_params)
        return after, (without_layout(after.world), reward, terminated | truncated, info)

    @jax.jit
    def play(key):
        key_reset, key_steps = jax.random.split(key)
        obs, game = jax.vmap(env.reset)(jax.random.split(key_reset, WORLDS))
        keys = jax.random.split(key_steps, (STEPS, WORLDS))
        view = jax.vmap(
            lambda game: (env.action_mask(game, env.default_params), env.global_state(game, env.default_params))
        )
        return game.world, (*view(game), obs), jax.lax.scan(lambda game, keys: step(keys, game), game, keys)[1]

    world, view, history = jax.tree.map(np.asarray, play(jax.random.key(3)))
    return view, world, *jax.tree.map(lambda x: np.swapaxes(x, 0, 1), history)


def running(ended) -> np.ndarray:
    """Steps of the first episode of each world, the last one included; [W, K]."""
    return np.cumsum(ended, axis=1) - ended == 0


def test_nothing_is_lost_and_rewards_add_up(played):
    _, first, after, reward, ended, info = played
    whole = lambda state, axes: state.remaining.sum(axes) + state.load.sum(-1) + state.delivered  # noqa: E731
    begun = whole(first, (1, 2))
    now = running(ended)
    assert (whole(after, (2, 3)) == begun[:, None])[now].all()
    on_the_way = after.load.sum(-1) + after.remaining.sum((2, 3))
    assert (after.awaiting.sum(-1) == on_the_way)[now].all()
    bounty, load = after.bounty, after.load
    assert ((bounty >= 0) & (bounty <= 100 * load)).all() and (after.delivered.max(axis=1) > 8).all()
    # Deliveries pay freight and what is left of the bounty; every unit of bounty that is lost was charged at once. With
    # sparse rewards it is charged with the delivery.
    lost_on_the_way = (100 * load - bounty).sum(-1)
    paid = 200 * after.delivered - after.delayed_return
    assert ((paid >= 0) & (paid <= 200 * after.delivered)).all() and (paid.max(axis=1) > 0).all()
    assert (after.team_return == after.delayed_return - lost_on_the_way)[now].all()
    assert np.abs(np.cumsum(info["raw_reward"], axis=1) + after.team_return)[now].max() == 0
    assert (reward == info["raw_reward"][..., None]).all()


def test_episodes_end_when_all_is_delivered(played):
    _, _, after, _, ended, info = played
    assert ended.any()
    assert ((after.awaiting.sum(-1) == 0) == ended)[running(ended)].all()
    frames = info[FRAMES]
    assert (frames[~ended & running(ended)] == 5).all() and (frames >= 1).all() and (frames <= 5).all()
    assert (after.steps == np.cumsum(frames, axis=1))[running(ended)].all()


def test_metrics_of_frames_are_averaged(played):
    *_, info = played
    for name in ("coverage_rate", "real_coverage_rate", "mean_transport_rate"):
        assert info[name].min() >= 0 and info[name].max() <= 1
    # Two targets, five frames: tenths.
    tenths = info["coverage_rate"] * 10
    whole_steps = info[FRAMES] == 5
    np.testing.assert_allclose(tenths[whole_steps], np.round(tenths[whole_steps]), atol=1e-5)
    assert len(np.unique(np.round(tenths[whole_steps]))) > 5
    assert info["num_tracked"].shape == (WORLDS, STEPS, 2)
    np.testing.assert_allclose(
        info["num_valid_selected_targets"] + info["num_invalid_selected_targets"],
        info["num_selected_targets"],
        atol=1e-5,
    )


def test_masks_and_global_state(played):
    (mask, vector, _), world, *_ = played
    assert mask.shape == (WORLDS, 2, 4) and mask[..., 0].all() and not mask.all()
    assert (mask.sum(axis=-1) == 2 ** world.sight.c2t.sum(axis=-1)).all()
    assert vector.shape == (WORLDS, 106)


def test_entities_are_where_they_are_said_to_be(played):
    (_, _, obs), world, *_ = played
    entities, sight = envs_jax.make(SMALL).entities, world.sight
    start = entities.own
    assert list(entities.kinds) == ["targets", "obstacles", "cameras"]
    for kind, visible in zip(entities.kinds.values(), (sight.c2t, world.layout.c2o, sight.c2c), strict=True):
        block = obs[..., start : start + kind.number * kind.size].reshape(WORLDS, 2, kind.number, kind.size)
        np.testing.assert_array_equal(block[..., -1], visible)
        assert (np.abs(block[~visible]) == 0).all()
        start += kind.number * kind.size
    assert start == obs.shape[-1] and sight.c2t.any() and not sight.c2t.all()


def test_what_observations_are_made_of_is_told_of_one_team():
    assert list(envs_jax.make(SMALL, learner="targets").entities.kinds) == ["cameras", "obstacles", "targets"]
    both = envs_jax.make("mate/1v2-0", learner="both")
    assert both.entities is None and both.selection is None
    factored = envs_jax.make("mate/4v8-9", selection_head="factored")
    assert factored.selection == Selection("factored", 8, "targets")
    assert factored.action_space(factored.default_params).shape == (4, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"opponent": "gredy"}, "unknown opponent 'gredy'; did you mean 'greedy'?"),
        ({"opponent": {"greedy": 0.0}}, "weights of opponents"),
        ({"opponent": {"greedy": -1.0, "random": 2.0}}, "weights of opponents"),
        ({"opponent": {"run:x": 0.5, "random": 0.5}}, "say guest: run:x, and give `guest` the weight"),
        ({"opponent": {"guest": 0.5, "random": 0.5}}, "give both or neither"),
        ({"guest": "run:x"}, "give both or neither"),
        ({"guest": "x", "opponent": {"guest": 1.0}}, "guest 'x': it is run:DIR"),
        ({"opponent": "guest"}, "unknown opponent 'guest'"),
        ({"targets": {"num": -1}}, "greater than or equal to 0"),
        ({"targets": {"num": 0}}, "there must be one at least"),
        ({"cameras": {"boxes": [[0, 0], [50, 0]]}}, "camera 0 and camera 1 overlap: 50 apart, at least 100 are needed"),
        ({"obstacles": {"boxes": [[-300, -280]]}}, "camera 0 and obstacle 0 overlap"),
        ({"cameras": {"boxes": [[0, 0, 10, -10]]}}, "low must not exceed high"),
        ({"obstacles": {"radius": [30, 20]}}, "0 <= low <= high"),
        ({"control": "macro", "learner": "targets"}, "control macro is for cameras"),
        ({"reward_coefficients": {"covrage_rate": 1.0}}, "did you mean 'coverage_rate'?"),
        ({"discrete_levels": 4}, "must be odd"),
        ({"selection_head": "factored", "multi_selection": False}, "it belongs to multi_selection: true"),
        ({"frame_skp": 4}, "frame_skp"),
    ],
)
def test_bad_settings_are_refused_in_a_line(settings, message):
    with pytest.raises(ValueError) as error:
        MateConfig(**settings).preset("2v2-9")
    assert message in str(error.value)


def test_unknown_presets_and_worlds_without_cameras_are_refused():
    with pytest.raises(ValueError, match="unknown environment 'mate/4v4-8'; did you mean 'mate/4v4-9'"):
        envs_jax.make("mate/4v4-8")
    with pytest.raises(ValueError, match="unknown preset '4v4'; did you mean '4v4-"):
        MateConfig().preset("4v4")
    with pytest.raises(ValueError, match="Navigation has no cameras to train: set learner: targets"):
        MateConfig().preset("Navigation")


def test_every_parameter_of_a_preset_can_be_changed():
    keys = {
        "cameras": {"num": 3, "radius": 30, "min_viewing_angle_deg": 20, "max_sight_range": 900},
        "targets": {"num": 5, "step_size": 10, "sight_range": 400},
        "obstacles": {"boxes": [[0, 0, -500, 500]], "radius": [5, 6], "transmittance": 0.5},
        "bounty_factor": 2.0, "max_episode_steps": 77, "num_cargoes_per_target": 3, "reward_type": "sparse",
        "high_capacity_target_split": 0.2, "targets_start_with_cargoes": False, "shuffle_entities": False,
    }  # fmt: skip
    preset = MateConfig(**keys).preset("4v4-9")
    assert len(preset.camera_boxes) == 3 and len(preset.target_boxes) == 5
    assert preset.obstacle_boxes == ((0, 0, -500, 500),) and preset.obstacle_radius == (5, 6)
    changed = [field for field, value in preset._asdict().items() if value != getattr(PRESETS["4v4-9"], field)]
    same = {"camera_rotation_step_deg", "camera_zooming_step_deg"}
    assert set(changed) == set(preset._fields) - same


def test_registered_names_are_those_of_the_presets():
    names = {name.removeprefix("mate/") for name in envs_jax.registered_envs if name.startswith("mate/")}
    assert names == set(PRESETS)


def a_guest(observation: int, control: str):
    """A policy whose first weight decides, with a counter as memory."""
    sizes = {"flat": 25, "macro": 4, "continuous": 2}

    def act(policy, carry, obs, mask, key, greedy):
        value = obs @ policy
        if control == "continuous":
            return jnp.tanh(value), carry + 1
        value = value if mask is None else jnp.where(mask, value, -jnp.inf)
        return jnp.argmax(value, axis=-1), carry + 1

    weights = np.random.default_rng(0).normal(size=(observation, sizes[control]))
    return Guest(jnp.asarray(weights, float), act, lambda batch: jnp.zeros((*batch, 2), jnp.int32))


@pytest.mark.parametrize(
    ("learner", "control"),
    [
        ("targets", "macro"),
        *(pytest.param(*case, marks=pytest.mark.slow)
          for case in (("cameras", "flat"), ("cameras", "continuous"), ("targets", "flat"))),
    ],
)  # fmt: skip
def test_policies_of_runs_are_opponents(learner, control):
    size = {"cameras": 86, "targets": 81}[learner]
    settings = {"opponent": "run:somewhere", "opponent_control": control, "learner": learner, "control": "continuous"}
    env = envs_jax.make(SMALL, guests={"opponent": a_guest(size, control)}, **settings)
    params = env.default_params

    @jax.jit
    def play(keys):
        def step(game, now):
            game = jax.vmap(env.step_env, (0, 0, 0, None))(now, game, jnp.zeros((len(now), 2, 2)), params)[1]
            return game, game

        return jax.lax.scan(step, jax.vmap(env.reset)(keys[0])[1], keys[1:])[1]

    ends = jax.device_get(play(jax.random.split(jax.random.key(1), (3, 3))))
    first, second = (jax.tree.map(lambda x, k=k: x[k], ends) for k in (0, 1))
    assert first.opponent.age.tolist() == [1] * 3
    moved = first.world.target_loc - second.world.target_loc
    turned = first.world.orientation_deg - second.world.orientation_deg
    assert (np.abs(moved).max() > 0) == (learner == "cameras") and (np.abs(turned).max() > 0) == (learner == "targets")
    if control == "macro":
        assert np.array_equal(first.opponent.action, second.opponent.action)
        assert second.opponent.carry.tolist() == first.opponent.carry.tolist() == [[1, 1]] * 3
    with pytest.raises(ValueError, match="opponent: this policy does not act as 2 agents with observations of"):
        envs_jax.make(SMALL, guests={"opponent": a_guest(size + 1, control)}, **settings)
    with pytest.raises(ValueError, match="opponent run:somewhere: runs are opened by purerl"):
        envs_jax.make(SMALL, **settings)


def test_a_policy_is_one_of_several_opponents():
    def always(number):
        start = lambda *args: jnp.full(400, number)  # noqa: E731
        act = lambda memory, *args: (memory + 1, memory * jnp.ones((1, 2, 1)))  # noqa: E731
        return Opponent(2, lambda words: words[0], start, act)

    team = either(always(3), always(7), share=0.25)
    words = np.random.default_rng(0).integers(2**32, size=(team.num_words, 400), dtype=np.uint32)
    draws, state = team.draw(jnp.asarray(words)), SimpleNamespace(steps=np.zeros(400))
    memory, action = team.act(team.start(draws, state, None, ()), state, draws, None, ())
    assert team.num_words == 5 and [x.tolist() for x in memory.memories] == [[4] * 400, [8] * 400]
    np.testing.assert_array_equal(action[0, 0], np.where(memory.is_first, 3, 7))
    assert abs(float(memory.is_first.mean()) - 0.25) < 0.08


def test_a_run_has_a_weight_among_opponents():
    mixed = {"opponent": {"guest": 1.0, "greedy": 1.0}, "guest": "run:somewhere", "learner": "targets"}
    env = envs_jax.make(SMALL, guests={"guest": a_guest(81, "macro")}, **mixed)
    game = jax.eval_shape(env.reset, jax.random.key(0))[1]
    assert isinstance(game.opponent, Either) and game.opponent.memories[0].carry.shape == (2,)
    with pytest.raises(ValueError, match="opponent run:somewhere: runs are opened by purerl"):
        envs_jax.make(SMALL, **mixed)


@pytest.mark.slow
def test_four_thousand_worlds_are_each_as_if_alone():
    """Decisions, ends and resets of eight of 4096 worlds, one by one."""
    env = envs_jax.make("mate/4v4-9", horizon=12)

    def play(key):
        key_reset, key_play = jax.random.split(key)
        obs, game = env.reset(key_reset)

        def step(game, key):
            key_action, key_step = jax.random.split(key)
            action = env.action_space(env.default_params).sample(key_action)
            obs, game, reward, terminated, truncated, _ = env.step(key_step, game, action)
            return game, (obs, reward, terminated | truncated)

        return obs, jax.lax.scan(step, game, jax.random.split(key_play, 4))[1]

    keys = jax.random.split(jax.random.key(2), 4096)
    together = jax.device_get(jax.jit(jax.vmap(play))(keys))
    assert together[1][2].sum() == 4096
    alone = jax.jit(play)
    for world in np.linspace(0, 4095, 8).astype(int):
        ours = jax.tree.map(lambda x, w=world: x[w], together)
        for batch, single in zip(jax.tree.leaves(ours), jax.tree.leaves(alone(keys[world])), strict=True):
            np.testing.assert_allclose(batch, single, rtol=1e-4, atol=1e-4)
