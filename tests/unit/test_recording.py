"""Recording plays what a plain loop plays, keeps whole episodes, and names what it cannot play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay_cases import T, marker_world

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment, Guidance
from envs_jax.spaces import Box, Discrete
from purerl import record as command
from purerl.errors import ConfigError
from purerl.run import recording
from purerl.run.recording import Behaviour


def follow(key, state, params):
    """A rule that depends on the state: half the hour, clipped."""
    return jnp.clip(0.5 * state[1:2] - 0.5, -1.0, 1.0)


def walk_world() -> Environment:
    """Episodes of three to six steps with an end of either kind; of four choices those above the step are illegal."""

    def observed(state):
        return jnp.asarray(state, jnp.float32)

    def reset_env(key, params):
        state = jnp.stack([jnp.zeros((), jnp.int32), jax.random.randint(key, (), 3, 7)])
        return observed(state), state

    def step_env(key, state, action, params):
        state = state + jnp.array([1, 0])
        last, odd = state[0] == state[1], state[1] % 2 == 1
        return observed(state), state, action.astype(jnp.float32), last & odd, last & ~odd, {}

    return Environment(
        name="walk",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(0.0, 9.0, (2,)),
        action_space=lambda params: Discrete(4),
        max_episode_length=6,
        action_mask=lambda state, params: jnp.arange(4) <= state[0],
        guidance=Guidance(rules={"highest": lambda key, state, params: jnp.minimum(state[0], 3)}),
    )


@pytest.fixture(scope="module")
def days():
    env = with_agent_axis(marker_world(guidance=Guidance(rules={"follow": follow})))
    behaviours = [Behaviour("follow"), Behaviour("follow", 2.0, 0.25)]
    with jax.debug_key_reuse(True):
        return recording.record(env, behaviours, 9, seed=5, num_envs=4, settings={"name": "marker"})


def test_every_episode_is_a_whole_day_with_its_own_numbers(days):
    assert days.action.shape == (T, 9, 1, 1) and days.obs.shape == (T + 1, 9, 1, 3)
    obs, action, reward = days.obs[:, :, 0], days.action[:, :, 0, 0], days.reward[:, :, 0]
    np.testing.assert_array_equal(obs[:, :, 0], np.tile(obs[0, :, 0], (T + 1, 1)))
    np.testing.assert_array_equal(obs[:, :, 1], np.tile(np.arange(T + 1)[:, None], (1, 9)))
    np.testing.assert_array_equal(obs[1:, :, 2], action)
    np.testing.assert_allclose(reward, action + obs[:-1, :, 1] / 8, atol=1e-6)
    last = np.tile(np.arange(T)[:, None] == T - 1, (1, 9))
    np.testing.assert_array_equal(days.terminated[..., 0], last)
    assert not days.truncated.any()
    assert days.legal is None and days.alive is None
    assert len(set(obs[0, :, 0].tolist())) > 5, "days differ"


def test_behaviours_play_their_share_with_their_noise(days):
    by_rule = np.clip(0.5 * days.obs[:-1, 3:, 0, 1] - 0.5, -1, 1)
    off = days.action[:, 3:, 0, 0] - by_rule
    assert 0.25 < np.std(off) < 0.8, "0.25 in units of the largest action, which is 2"
    assert np.abs(days.action).max() <= 2.0
    pure, noisy = days.metadata.played
    assert (pure.behaviour, pure.noise, pure.episodes, pure.steps) == ("follow", 0.0, 3, 12)
    assert (noisy.behaviour, noisy.noise, noisy.episodes, noisy.steps) == ("follow", 0.25, 6, 24)
    assert noisy.mean_return == pytest.approx(days.reward[:, 3:].sum() / 6, rel=1e-5)
    assert (days.metadata.seed, days.metadata.episodes, days.metadata.world.name) == (5, 9, "marker")


def test_a_rule_plays_as_in_a_plain_loop(days):
    env = with_agent_axis(marker_world())
    for item in range(3):
        state = jnp.asarray(days.obs[0, item, 0])
        for step in range(T):
            action = follow(None, state, None)
            np.testing.assert_allclose(days.action[step, item, 0], action)
            obs, state, reward, terminated, _, _ = env.step_env(None, state, action[None], None)
            np.testing.assert_allclose(days.obs[step + 1, item], obs)
            np.testing.assert_allclose(days.reward[step, item], reward)
            assert bool(terminated) == bool(days.terminated[step, item, 0])


@pytest.fixture(scope="module")
def walks():
    behaviours = [Behaviour("random"), Behaviour("highest", 1.0, 0.5)]
    with jax.debug_key_reuse(True):
        return recording.record(with_agent_axis(walk_world()), behaviours, 30, seed=0, num_envs=4, settings={})


def test_episodes_of_varying_length_become_transitions_in_order(walks):
    """Whole episodes, one after the other, as many as asked for, none of them cut."""
    step, length = walks.obs[..., 0, 0], walks.obs[0, :, 0, 1]
    np.testing.assert_array_equal(step[1], step[0] + 1)
    done = (walks.terminated[0, :, 0] | walks.truncated[0]).astype(int)
    assert done.sum() == 30 and done[-1] == 1
    np.testing.assert_array_equal(step[0], np.concatenate([[0], (step[1] * (1 - done))[:-1]]))
    np.testing.assert_array_equal(done, step[1] == length)
    np.testing.assert_array_equal(walks.terminated[0, :, 0], (done == 1) & (length % 2 == 1))
    np.testing.assert_array_equal(walks.truncated[0], (done == 1) & (length % 2 == 0))


def test_only_legal_choices_are_played_and_masks_belong_to_their_observations(walks):
    np.testing.assert_array_equal(walks.legal[:, :, 0], np.arange(4) <= walks.obs[:, :, 0, :1])
    action, step = walks.action[0, :, 0], walks.obs[0, :, 0, 0]
    assert (action <= step).all()
    highest, free, first = action == np.minimum(step, 3), step > 0, walks.metadata.played[0].steps
    assert 0.1 < np.mean(highest[:first][free[:first]]) < 0.6
    assert 0.55 < np.mean(highest[first:][free[first:]]) < 0.95


def test_shares_add_up():
    behaviours = [Behaviour("a", 1.0), Behaviour("b", 1.0), Behaviour("c", 0.5)]
    assert recording.episodes_each(behaviours, 101) == [40, 41, 20]
    assert recording.episodes_each(behaviours[:1], 1) == [1]
    with pytest.raises(ConfigError, match="behaviour c: its share of 2 episodes is none; record more"):
        recording.episodes_each(behaviours, 2)


def test_an_unknown_behaviour_names_the_known_ones():
    env = with_agent_axis(marker_world(guidance=Guidance(rules={"follow": follow})))
    with pytest.raises(ConfigError, match="behaviour 'folow': marker has random, follow, run:DIR"):
        recording.record(env, [Behaviour("folow")], 1, 0, 1, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random", ("random", 1.0, 0.0)),
        ("idle:0.5", ("idle", 0.5, 0.0)),
        ("idle:2:0.1", ("idle", 2.0, 0.1)),
        ("run:runs/best:1:0.2", ("run:runs/best", 1.0, 0.2)),
    ],
)
def test_behaviours_on_the_command_line(text, expected):
    assert command.behaviour(text) == expected
