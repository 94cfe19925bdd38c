"""Chunks across ends of episodes: one program over items of a replay equals a plain loop over what was played."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_jax.base import Environment
from envs_jax.spaces import Box, Discrete
from purerl.learn import rollout
from purerl.learn.buffers import make_ring, push, take
from purerl.learn.chunks import chunks_of
from purerl.learn.returns import discount_of, lambda_returns
from purerl.learn.trajectory import remembered_outputs

AGENTS, ENVS, BURN_IN, LENGTH, CHUNKS = 2, 3, 2, 4, 3
STEPS = BURN_IN + CHUNKS * LENGTH
GAMMA, TRACE = 0.9, 0.6


def team_world() -> Environment:
    """Episodes of three or five steps, the longer ones cut off; a step takes as many frames as its number."""

    def start(key, params):
        state = jax.random.randint(key, (), 0, 2), jnp.zeros((), jnp.int32)
        return observe(state), state

    def observe(state):
        kind, time = state
        return jnp.stack([jnp.stack([kind + 1.0, time + 0.0, agent + 0.0]) for agent in range(AGENTS)])

    def step(key, state, action, params):
        kind, time = state
        state = kind, time + 1
        reward = 0.1 * (time + 1.0) * jnp.arange(1.0, AGENTS + 1) + action
        ends = state[1] == jnp.where(kind == 0, 3, 5)
        return observe(state), state, reward, ends & (kind == 0), ends & (kind == 1), {"frames": time + 1}

    return Environment(
        name="team",
        default_params=None,
        reset_env=start,
        step_env=step,
        observation_space=lambda params: Box(-10.0, 10.0, (AGENTS, 3)),
        action_space=lambda params: Discrete(2, (AGENTS,)),
        num_agents=AGENTS,
        global_state=lambda state, params: jnp.stack([state[0] + 0.0, state[1] + 0.0]),
    )


def remembering(carry, x):
    """A memory of one number [..., 1] of what was seen, and two utilities [..., 2] of it."""
    carry = 0.5 * carry + jnp.sum(x, axis=-1, keepdims=True)
    return carry, jnp.concatenate([jnp.sin(carry), jnp.cos(carry)], axis=-1)


@pytest.fixture(scope="module")
def played():
    """Steps [T, B, ...] and the acting memory before each of them."""
    env = team_world()

    def act(worlds, noise):
        carry, utility = remembering(worlds.carry, worlds.obs)
        return jnp.argmax(utility + noise, axis=-1), carry, worlds.carry

    def draw(key):
        return jax.random.normal(key, (ENVS, AGENTS, 2))

    @jax.jit
    def play(key):
        key_start, key_steps = jax.random.split(key)
        worlds = rollout.start_worlds(env, None, key_start, ENVS, jnp.zeros((ENVS, AGENTS, 1)))
        _, steps, tally = rollout.collect(env, None, worlds, act, draw, key_steps, STEPS)
        return steps, tally.frames

    steps, frames = jax.device_get(play(jax.random.key(1)))
    done = steps.terminated | steps.truncated
    assert done[:, 0].sum() >= 2 and steps.terminated.any() and steps.truncated.any()
    assert frames == steps.frames.sum()
    return steps


def team_value(utility, action, state):
    """A mixer: it sees all agents of a step and the global state, [..., A, 2] -> [...]."""
    chosen = jnp.take_along_axis(utility, action[..., None], axis=-1)[..., 0]
    return jnp.prod(chosen, axis=-1) * (1.0 + state.sum(axis=-1))


@jax.jit
def loss_and_errors(items):
    """Weighted squared errors of joint values to TD(lambda) targets, [T, N] and their mean."""

    def folded(x):
        return x.reshape(*x.shape[:1], -1, *x.shape[3:])

    ends = jnp.repeat(items.terminated[..., 0] | items.truncated, AGENTS, axis=1)
    carry = items.carry[0].reshape(-1, 1)
    before, after, _ = remembered_outputs(remembering, carry, folded(items.obs), folded(items.final_obs), ends)
    before, after = (x.reshape(*items.reward.shape, 2) for x in (before, after))
    value = team_value(before, items.action, items.global_state)
    following = team_value(after, jnp.argmax(after, axis=-1), items.final_global_state)
    alive = 1.0 - items.terminated[..., 0]
    target = lambda_returns(
        items.team_reward, discount_of(GAMMA, items.span) * alive, TRACE * (1.0 - items.truncated), following
    )
    errors = items.weight * (value - target)
    return jnp.sum(errors**2) / jnp.sum(items.weight), errors


def by_a_loop(steps, env: int, first: int) -> np.ndarray:
    """Errors [LENGTH] of the steps from `first` on, played again one by one from the start of the episode."""
    done = steps.terminated | steps.truncated
    memory = np.asarray(steps.extra[0, env])
    values, following = [], []
    for t in range(first + LENGTH):
        if t and done[t - 1, env]:
            memory = np.zeros_like(memory)
        memory, utility = remembering(memory, steps.obs[t, env])
        _, utility_after = remembering(memory, steps.final_obs[t, env])
        values.append(float(team_value(utility, steps.action[t, env], steps.facts.global_state[t, env])))
        best = np.argmax(utility_after, axis=-1)
        following.append(float(team_value(utility_after, best, steps.final_facts.global_state[t, env])))
    errors, beyond = [], None
    for t in reversed(range(first, first + LENGTH)):
        reward = float(steps.reward[t, env].sum())
        discount = 0.0 if steps.terminated[t, env] else GAMMA ** float(steps.frames[t, env])
        trace = 0.0 if steps.truncated[t, env] or beyond is None else TRACE
        beyond = reward + discount * ((1 - trace) * following[t] + trace * (beyond or 0.0))
        errors.append(values[t] - beyond)
    return np.array(errors[::-1])


def test_items_of_a_replay_equal_a_plain_loop(played):
    items = chunks_of(played, played.extra, LENGTH, BURN_IN)
    ring = push(make_ring(items, 2 * CHUNKS * ENVS), items)
    order = np.random.default_rng(0).permutation(CHUNKS * ENVS)
    loss, errors = loss_and_errors(take(ring, jnp.asarray(order)))
    expected = np.zeros((BURN_IN + LENGTH, CHUNKS * ENVS))
    for place, number in enumerate(order):
        chunk, env = divmod(int(number), ENVS)
        expected[BURN_IN:, place] = by_a_loop(played, env, chunk * LENGTH + BURN_IN)
    np.testing.assert_allclose(errors, expected, atol=2e-5)
    assert float(loss) == pytest.approx((expected[BURN_IN:] ** 2).mean(), rel=1e-4)
    assert np.abs(expected[BURN_IN:]).min(axis=0).max() > 0


def test_every_step_counts_once(played):
    items = chunks_of(played, played.extra, LENGTH, BURN_IN, "mean")
    times = np.asarray(items.obs)[:, :, 0, 1].reshape(BURN_IN + LENGTH, CHUNKS, ENVS)
    kept = times[BURN_IN:].transpose(1, 0, 2).reshape(-1, ENVS)
    np.testing.assert_array_equal(kept, played.obs[BURN_IN:, :, 0, 1])
    np.testing.assert_array_equal(items.weight[:, 0], [0.0] * BURN_IN + [1.0] * LENGTH)
    np.testing.assert_allclose(items.team_reward[:, 0], played.reward[: BURN_IN + LENGTH, 0].mean(axis=-1), rtol=1e-6)


def test_steps_that_make_no_chunks_are_refused(played):
    with pytest.raises(ValueError, match="14 steps less 2 of burn-in make no chunks of 5 steps"):
        chunks_of(played, played.extra, 5, BURN_IN)
