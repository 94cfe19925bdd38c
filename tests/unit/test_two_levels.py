"""Two levels of decisions: held steps against a plain loop, acting frame by frame, what the fast level learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from replay_cases import Run
from team_cases import AGENTS, MIXING, PARTS, RNN, team_world

from envs_jax.adapters import with_agent_axis
from purerl.algos import hierarchical
from purerl.learn import rollout
from purerl.learn.buffers import take
from purerl.learn.two_levels import narrowed, open_to

HELD, ENVS, STEPS = 2, 3, 8
CONFIG = hierarchical.Config(
    num_envs=ENVS, steps_per_update=STEPS, chunk_length=4, burn_in=1, warmup_steps=24, buffer_size=96, batch_size=5,
    fast_buffer_size=200, updates_per_step=1 / 12, held_frames=HELD, q_network=RNN, mixing_network=MIXING,
    fast_q_network=RNN, fast_mixing_network=MIXING, lr=1e-2, target_update_interval=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def run():
    return Run(hierarchical, CONFIG, updates=2, env=team_world(PARTS))


@pytest.fixture(scope="module")
def chunks(run):
    """All chunks of the slow and of the fast level, on the host."""
    state = run.history[-1]
    rings = state.slow.ring, state.fast_ring
    return [jax.device_get(take(ring, np.arange(int(ring.size)))) for ring in rings]


def test_the_fast_level_chooses_one_of_what_is_held_or_all_of_it():
    held = np.array([[True, False, True], [False, False, False]])
    np.testing.assert_array_equal(open_to(held), [[True, False, True, True], [False, False, False, True]])
    assert narrowed(np.array([2, 3]), held).tolist() == [[False, False, True], [False, False, False]]
    assert narrowed(np.array([3, 3]), held).tolist() == held.tolist()


def test_frames_are_those_of_a_plain_loop(chunks):
    """Within chunks of the fast level the world is played again with what was chosen; the first row starts anywhere."""
    _, fast = chunks
    held, obs = fast.obs[..., :PARTS] > 0, fast.obs[..., PARTS:]
    np.testing.assert_array_equal(fast.legal, open_to(held))
    assert np.take_along_axis(fast.legal, fast.action[..., None], axis=-1).all()
    kind, time = obs[:, :, 0, 0] + 0.5, np.round(obs[:, :, 0, 1] / 0.3)
    played = fast.alive.any(axis=-1)
    assert 0 < played.mean() < 1, "episodes of three and five frames end inside of steps of two"
    selected = np.asarray(narrowed(fast.action, held)).sum(axis=-1)
    paid = 0.1 * (time[..., None] + 1) * np.arange(1.0, AGENTS + 1) + 0.5 * selected
    np.testing.assert_allclose(fast.team_reward[played], paid.mean(axis=-1)[played], atol=1e-5)
    assert (fast.team_reward[~played] == 0).all()
    np.testing.assert_array_equal(fast.span, time + 1)
    ends = time + 1 == np.where(kind == 0, 3, 5)
    np.testing.assert_array_equal(fast.terminated.all(axis=-1)[played], (ends & (kind == 0))[played])
    np.testing.assert_array_equal(fast.truncated[played], (ends & (kind == 1))[played])
    assert fast.truncated[~played].all(), "what is not played starts nothing: memories are emptied after it"
    np.testing.assert_allclose(fast.final_obs[..., PARTS + 1], 0.3 * (time + 1)[..., None].repeat(2, -1), atol=1e-5)
    done = fast.truncated | fast.terminated.all(axis=-1)
    np.testing.assert_array_equal(fast.reset[1:], done[:-1])


def test_a_step_of_the_slow_level_is_the_sum_of_its_frames(chunks):
    slow, fast = chunks
    assert set(np.unique(slow.span)) <= {1.0, 3.0, 5.0, 7.0}, "frames 0 and 1, 2 and 3, or the last alone"
    assert slow.obs.shape[-1] == fast.obs.shape[-1] - PARTS
    np.testing.assert_array_equal(slow.legal.shape[2:], (AGENTS, PARTS, 2))
    assert np.take_along_axis(slow.legal, slow.action[..., None], axis=-1).all()


@pytest.fixture(scope="module")
def both_ways(run):
    """An episode in the held world and frame by frame: rewards, and what was selected in every frame."""
    algorithm, env = run.algorithm, with_agent_axis(team_world(PARTS))
    state = run.history[-1]
    policy = algorithm.policy(state)
    with jax.debug_key_reuse(False):  # two ways to the same episode draw the same numbers
        return jax.device_get(jax.jit(lambda key: played_both_ways(algorithm, env, policy, key))(jax.random.key(4)))


def played_both_ways(algorithm, env, policy, key, steps=3):
    fast = hierarchical.Players("x", CONFIG.fast(), "qplex", hierarchical.fast_view(env), None)
    world = hierarchical.held_world(env, fast, HELD)
    params = hierarchical.Levels(None, policy.fast, jnp.zeros(()))
    slow = hierarchical.Players("x", CONFIG, "qplex", world, params)
    starts = jax.random.split(key, 6)

    def one(start):
        def held_step(carry, key):
            state, memory = carry
            action, memory = slow.act(policy.slow, memory, state.obs, world.action_mask(state, params), key, True)
            _, state, reward, terminated, truncated, info = world.step_env(key, state, action, params)
            inner = info[rollout.INNER]
            selected = narrowed(inner.action, inner.obs[..., :PARTS] > 0)
            return (state, memory), (reward, selected, inner.facts.alive, terminated | truncated)

        first = world.reset_env(start, params)[1], slow.nets.utilities.empty_memory((AGENTS,))
        _, held = jax.lax.scan(held_step, first, jax.random.split(start, steps))

        def frame(carry, key):
            obs, state, memory = carry
            action, memory = algorithm.act(policy, memory, obs, env.action_mask(state, None), key, True)
            obs, state, reward, *_ = env.step_env(key, state, action, None)
            return (obs, state, memory), (reward, action)

        carry = *env.reset_env(start, None), algorithm.initial_carry(())
        _, frames = jax.lax.scan(frame, carry, jax.random.split(start, steps * HELD))
        return held, frames

    return jax.vmap(one)(starts)


def test_acting_frame_by_frame_is_acting_in_held_steps(both_ways):
    (reward, selected, alive, ends), (frame_reward, frame_action) = both_ways
    first = np.cumsum(ends, axis=1) - ends == 0  # steps of the first episode: nothing is reset here
    played = (alive.any(axis=-1) & first[..., None]).reshape(len(reward), -1)
    assert set(played.sum(axis=1)) == {3, 5}
    np.testing.assert_array_equal(selected.reshape(frame_action.shape)[played], frame_action[played] == 1)
    sums = np.where(played[..., None], frame_reward, 0).reshape(*selected.shape[:3], AGENTS).sum(axis=2)
    np.testing.assert_allclose(reward[first], sums[first], atol=1e-5)
    assert (frame_action[played] == 1).any()


def test_both_levels_learn(run):
    start, end = run.history[0], run.history[-1]
    for before, after in ((start.slow.learner, end.slow.learner), (start.fast, end.fast)):
        pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True)
        assert all(np.abs(a - b).max() > 0 for a, b in pairs)
        assert int(after.gradient_steps) == 4
    for metrics in run.metrics:
        assert all(np.shape(value) == () and np.isfinite(value) for value in metrics.values())
    assert {"td_loss", "fast_td_loss", "fast_keeps", "fast_lambda_mean", "frames"} <= set(run.metrics[0])


def test_worlds_without_selections_and_keys_without_use_are_refused():
    with pytest.raises(ValueError, match="two levels: actions of team select no entities; use qplex"):
        hierarchical.make(CONFIG, team_world())
    with pytest.raises(ValidationError, match="signal: two levels follow none; leave it out"):
        hierarchical.Config(signal="progress")
    with pytest.raises(ValidationError, match="mixer vdn: qplex_hrl has qplex, qplex_atten, adaptive"):
        hierarchical.Config(mixer="vdn")
