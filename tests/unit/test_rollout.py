"""Vectorised stepping: records, auto-reset, recurrent memory, sums over finished episodes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Assessment, Column, Environment
from envs_jax.spaces import Box
from purerl.learn import rollout

LENGTH, ENVS, STEPS = 3, 2, 7


def counting_world() -> Environment:
    """Episodes of three steps numbered from 0; reward = step + 10 * action, the logged `length` counts steps."""

    def reset_env(key, params):
        return jnp.zeros(1), jnp.zeros((), jnp.int32)

    def step_env(key, count, action, params):
        reward = count + 10.0 * action[0]
        info = {"steps": jnp.ones(())}
        count = count + 1
        ends = count == LENGTH
        return jnp.full(1, count, jnp.float32), count, reward, ends, jnp.zeros((), bool), info

    box = Box(0.0, 10.0, (1,))
    return Environment(
        "counting",
        None,
        reset_env,
        step_env,
        lambda p: box,
        lambda p: box,
        assessment=Assessment(columns={"length": Column("steps")}),
    )


def run(key, env=None):
    """Seven steps of two worlds; the policy's memory counts its own steps and is its action."""
    env = with_agent_axis(counting_world() if env is None else env)

    def act(worlds, noise):
        memory = worlds.carry + 1
        return memory[..., None], memory, {"seen": worlds.carry, "noise": noise}

    key_start, key_steps = jax.random.split(key)
    worlds = rollout.start_worlds(env, None, key_start, ENVS, jnp.zeros((ENVS, 1)))
    return rollout.collect(env, None, worlds, act, jax.random.normal, key_steps, STEPS)


@pytest.fixture(scope="module")
def collected():
    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.key(0)))


def test_records_are_time_first_and_reset_themselves(collected):
    _, steps, _ = collected
    assert steps.obs.shape == (STEPS, ENVS, 1, 1)
    for world in range(ENVS):
        assert steps.obs[:, world, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert steps.final_obs[:, world, 0, 0].tolist() == [1, 2, 3, 1, 2, 3, 1]
        assert steps.terminated[:, world].tolist() == [False, False, True, False, False, True, False]
        assert not steps.truncated.any()
        assert steps.reward[:, world, 0].tolist() == [10, 21, 32, 10, 21, 32, 10]


def test_memory_is_emptied_where_an_episode_ends(collected):
    worlds, steps, _ = collected
    assert steps.extra["seen"][:, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert worlds.carry.tolist() == [[1.0], [1.0]]


def test_sums_are_over_finished_episodes_only(collected):
    worlds, _, tally = collected
    assert int(tally.episodes) == 4
    assert {name: float(total) for name, total in tally.total.items()} == {"return": 4 * 63, "length": 12}
    assert {name: total.tolist() for name, total in worlds.running.items()} == {"return": [10, 10], "length": [1, 1]}
    assert rollout.tally_metrics(tally)["episode/return"] == 63


def steps_of(terminated, alive=None) -> rollout.Steps:
    """What `tally_of` reads of steps [T, B] of worlds with two agents."""
    done = jnp.asarray(terminated)
    nothing = jnp.zeros_like(done)
    return rollout.Steps(
        obs=None, action=None, reward=jnp.zeros((*done.shape, 2)), terminated=done, truncated=nothing, final_obs=None,
        extra=None, facts=rollout.Facts(alive=alive), final_facts=rollout.Facts(),
    )  # fmt: skip


def test_extremes_are_those_of_episodes_that_ended():
    running = {"return": jnp.asarray([[-9.0, 3.0], [5.0, 99.0], [-2.0, 1.0]])}
    tally = rollout.tally_of(steps_of([[False, True], [True, False], [True, False]]), running)
    metrics = {name: float(value) for name, value in rollout.tally_metrics(tally).items()}
    assert metrics == {
        "episode/return": 2.0, "episode/return_min": -2.0, "episode/return_max": 5.0, "episode/count": 3,
        "agent_steps": 12,
    }  # fmt: skip


def test_columns_are_sums_means_and_last_values():
    columns = {"sum": Column("x"), "mean": Column("x", "mean"), "last": Column("n", "last")}
    env = dataclasses.replace(counting_world(), assessment=Assessment(columns=columns))
    running = {name: jnp.zeros(2) for name in rollout._running_names(env)}
    for x, n in ((1.0, 5), (2.0, 7), (6.0, 4)):
        info = {"x": jnp.array([x, 2 * x]), "n": jnp.array([n, -n])}
        running, shown = rollout._after_step(env, running, jnp.ones(2), info)
    assert {name: values.tolist() for name, values in shown.items()} == {
        "return": [3.0, 3.0], "sum": [9.0, 18.0], "mean": [3.0, 6.0], "last": [4.0, -4.0],
    }  # fmt: skip


def test_agents_that_left_take_no_steps():
    alive = jnp.asarray([[[True, True], [True, False]], [[False, True], [False, False]]])
    tally = rollout.tally_of(steps_of(jnp.zeros((2, 2), bool), alive), {"return": jnp.zeros((2, 2))})
    assert int(tally.agent_steps) == 4


def test_metrics_without_an_ended_episode_are_finite():
    tally = rollout.tally_of(steps_of(jnp.zeros((3, 2), bool)), {"return": jnp.ones((3, 2))})
    metrics = {name: float(value) for name, value in rollout.tally_metrics(tally).items()}
    ended = {name: value for name, value in metrics.items() if name.startswith("episode/")}
    assert set(ended.values()) == {0.0} and metrics["agent_steps"] == 12


def test_noise_of_every_step_is_its_own(collected):
    _, steps, _ = collected
    assert len(set(steps.extra["noise"].tolist())) == STEPS


def test_resets_drawn_ahead_are_those_of_step_by_step(collected, monkeypatch):
    monkeypatch.setattr(rollout, "RESETS_AHEAD_BYTES", 0)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(lambda key: run(key))(jax.random.key(0)), collected)


# Gradients and whole episodes


def pushed_world() -> Environment:
    """A position that the actions move, rewarded at every step; episodes of three steps start anew at one."""

    def reset_env(key, params):
        return jnp.ones(1), (jnp.ones(()), jnp.zeros((), jnp.int32))

    def step_env(key, state, action, params):
        at, count = state[0] * (1 + action[0]), state[1] + 1
        return at[None], (at, count), at, count == LENGTH, jnp.zeros((), bool), {}

    box = Box(-1.0, 1.0, (1,))
    return Environment("pushed", None, reset_env, step_env, lambda p: box, lambda p: box, episode_length=LENGTH)


def pushed(actions, num_steps: int, **how):
    """Rewards [T] of one world that is pushed by actions [T]."""
    env = with_agent_axis(pushed_world())

    def act(worlds, noise):
        return actions[worlds.carry[0, 0].astype(int)][None, None, None], worlds.carry + 1, None

    worlds = rollout.start_worlds(env, None, jax.random.key(0), 1, jnp.zeros((1, 1)))
    draw = lambda key: jnp.zeros((1, 0))  # noqa: E731
    with jax.debug_key_reuse(True):
        _, steps, _ = rollout.collect(env, None, worlds, act, draw, jax.random.key(1), num_steps, **how)
    return steps.reward[:, 0, 0], steps


def test_gradients_run_through_steps_and_stop_at_resets():
    """At rest every reward is the position, one: its slope is one in each action since the reset."""
    slopes = jax.jacobian(lambda a: pushed(a, 5)[0])(jnp.zeros(LENGTH))
    # The memory is emptied at the end of an episode, so the second one is pushed by the same actions again.
    ones = np.tril(np.ones((LENGTH, LENGTH)))
    np.testing.assert_allclose(slopes, np.concatenate([ones, ones[:2]]))


def test_whole_episodes_are_the_same_with_one_reset():
    actions = jnp.array([0.5, -0.5, 1.0])
    (a, steps), (b, once) = pushed(actions, LENGTH), pushed(actions, LENGTH, whole_episodes=True)
    np.testing.assert_array_equal(a, b)
    jax.tree.map(np.testing.assert_array_equal, steps, once)


@pytest.mark.parametrize("ahead_bytes", [0, rollout.RESETS_AHEAD_BYTES], ids=["step by step", "ahead"])
def test_seeds_at_once_use_every_key_once(ahead_bytes, monkeypatch):
    """`vmap` moves the axis of the keys of steps and resets, which the check of key reuse must not take for a use."""
    monkeypatch.setattr(rollout, "RESETS_AHEAD_BYTES", ahead_bytes)
    world = counting_world()

    def reset_env(key, params):
        obs, state = world.reset_env(key, params)
        return obs + 0 * jax.random.uniform(key), state

    def step_env(key, count, action, params):
        obs, *rest = world.step_env(key, count, action, params)
        return obs + 0 * jax.random.uniform(key), *rest

    random_world = dataclasses.replace(world, reset_env=reset_env, step_env=step_env)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    _, steps, _ = jax.jit(jax.vmap(lambda key: run(key, random_world)))(keys)
    assert steps.obs.shape == (2, STEPS, ENVS, 1, 1)
