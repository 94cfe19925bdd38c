"""The replay's contents: n-step windows, action masks, agents in play; and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay_cases import SMALL, T, choice_world, marker_world

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Box
from purerl.learn import rollout
from purerl.learn.buffers import push
from purerl.learn.replay import discounts, n_step_windows, source_of, to_batch
from purerl.learn.replay_config import ReplayConfig
from purerl.learn.twin_critics import critics_of
from purerl.nets.actions import actions_of

GAMMA = 0.5
CONFIG = ReplayConfig(
    num_envs=6, steps_per_update=4, sequence_length=1, warmup_steps=48, buffer_size=10**4, gamma=GAMMA, actor=SMALL,
)  # fmt: skip


def filled(env: Environment, pushes: int = 3, **changes):
    """Items of the warm-up and of some update calls with random legal actions, as arrays [time, item, A, ...]."""
    config = CONFIG.model_copy(update=changes)
    env = with_agent_axis(env)
    source = source_of(config, env, None, actions_of(env, None))

    def act(worlds, drawn):
        return source.actions.uniform(drawn, rollout.facts_of(env, None, worlds.state).legal), worlds.carry, None

    @jax.jit
    def run(key):
        key_worlds, key_warm, key_run = jax.random.split(key, 3)
        worlds, ring, recent, _ = source.fill(None, key_worlds, key_warm, (), jnp.asarray(GAMMA), guided=False)
        draw = lambda key: source.actions.draw_uniform(key, (config.num_envs, source.agents))  # noqa: E731

        def body(carry, key):
            worlds, ring, recent = carry
            worlds, steps, _ = source.collect(None, worlds, act, draw, key)
            items, recent = source.items(recent, steps, jnp.asarray(GAMMA))
            return (worlds, push(ring, items), recent), None

        (_, ring, _), _ = jax.lax.scan(body, (worlds, ring, recent), jax.random.split(key_run, pushes))
        return ring

    with jax.debug_key_reuse(True):
        ring = jax.device_get(run(jax.random.key(0)))
    assert int(ring.size) * config.sequence_length == 48 + pushes * config.env_steps()
    return jax.tree.map(lambda x: x[:, : int(ring.size)], ring.data)


@pytest.fixture(scope="module", params=[1, 3])
def days(request):
    return request.param, filled(choice_world(), n_step=request.param)


def test_a_window_covers_n_steps_or_ends_with_its_episode(days):
    """Also across update calls and across the warm-up."""
    n, items = days
    (day, step, length, terminates), (day_after, step_after, _, _) = np.moveaxis(items.obs[:, :, 0], -1, 1)
    covered = np.minimum(n, length - step)
    np.testing.assert_array_equal(day_after, day)
    np.testing.assert_array_equal(step_after - step, covered)
    span = np.ones_like(covered) if items.span is None else items.span[0, :, 0]
    np.testing.assert_array_equal(span, covered)
    assert len(set(covered)) == n
    expected = [sum(GAMMA**k * (s + k + 1) for k in range(int(c))) for s, c in zip(step, covered, strict=True)]
    np.testing.assert_allclose(items.reward[0, :, 0], expected, rtol=1e-6)
    ended = (step_after == length) & (terminates > 0)
    np.testing.assert_array_equal(items.terminated.reshape(-1), ended)
    assert 0 < ended.sum() < (step_after == length).sum()


def test_no_step_is_lost_or_stored_twice(days):
    _, items = days
    day, step = items.obs[0, :, 0, 0], items.obs[0, :, 0, 1]
    assert len(set(zip(day.tolist(), step.tolist(), strict=True))) == day.size


def test_legal_actions_of_both_ends_are_stored(days):
    """After a time limit those of the last state, not those of the next episode's first."""
    _, items = days
    np.testing.assert_array_equal(items.legal[:, :, 0], np.arange(3) != items.obs[:, :, 0, 1:2] % 3)
    assert (items.reward > 0).all(), "illegal actions cost 1000"
    assert len(set(items.action.reshape(-1).tolist())) == 3


def test_the_bootstrap_is_discounted_by_the_steps_covered(days):
    n, items = days
    batch = to_batch(items)
    weight = np.asarray(discounts(batch, jnp.asarray(GAMMA)))[0]
    covered = items.obs[1, :, 0, 1] - items.obs[0, :, 0, 1]
    np.testing.assert_allclose(weight, np.where(items.terminated.reshape(-1), 0, GAMMA**covered))
    assert batch.legal.shape == (2, day_count(items), 3)
    assert n == 1 or (weight == GAMMA**n).any()


def day_count(items) -> int:
    return items.reward.shape[1]


def test_windows_equal_a_plain_loop():
    """Rewards and ends at random, two agents of whom the second leaves play on its own."""
    rng, n, steps = np.random.default_rng(0), 4, 30
    shape = (steps, 5, 2)
    reward = rng.normal(size=shape).astype(np.float32)
    terminated, truncated = rng.random(shape[:2]) < 0.15, rng.random(shape[:2]) < 0.15
    truncated &= ~terminated
    alive = np.ones(shape, bool)
    alive[:, :, 1] = rng.random(shape[:2]) < 0.8
    alive_after = alive & (rng.random(shape) < 0.9)
    number = np.arange(steps, dtype=np.float32)[:, None, None, None] * np.ones((*shape, 1), np.float32)
    recorded = rollout.Steps(
        number, number, reward, terminated, truncated, number + 1, None,
        rollout.Facts(None, alive), rollout.Facts(None, alive_after),
    )  # fmt: skip
    windows, span = n_step_windows(jax.tree.map(jnp.asarray, recorded), GAMMA, n)
    for t, b, a in np.ndindex(steps - n + 1, 5, 2):
        total, dead = 0.0, False
        for k in range(n):
            total += GAMMA**k * reward[t + k, b, a]
            dead = bool(terminated[t + k, b] or (alive[t + k, b, a] and not alive_after[t + k, b, a]))
            if dead or truncated[t + k, b]:
                break
        np.testing.assert_allclose(windows.reward[t, b, a], total, atol=1e-5)
        assert bool(windows.terminated[t, b, a]) == dead
        assert (int(span[t, b, a]), float(windows.final_obs[t, b, a, 0])) == (k + 1, t + k + 1)


def team_world() -> Environment:
    """Two agents for days of four steps; the second leaves after its second step."""

    def observed(state):
        return jnp.stack([state, state + 10.0])[:, None]

    def step_env(key, state, action, params):
        state = state + 1
        return observed(state), state, jnp.ones(2), state == T, jnp.zeros((), bool), {}

    return Environment(
        name="team",
        default_params=None,
        reset_env=lambda key, params: (observed(jnp.zeros(())), jnp.zeros(())),
        step_env=step_env,
        observation_space=lambda params: Box(0.0, 20.0, (2, 1)),
        action_space=lambda params: Box(-1.0, 1.0, (2, 1)),
        num_agents=2,
        alive=lambda state, params: jnp.stack([jnp.array(True), state < 2]),
        episode_length=T,
    )


@pytest.mark.parametrize("sequence_length", [1, T])
def test_an_agent_that_leaves_has_terminated(sequence_length):
    items = to_batch(filled(team_world(), sequence_length=sequence_length))
    hour = np.asarray(items.obs)[:-1, :, 0]
    second = hour >= 10
    hour = np.where(second, hour - 10, hour)
    np.testing.assert_array_equal(items.alive, ~second | (hour < 2))
    np.testing.assert_array_equal(
        np.asarray(items.terminated)[items.alive], (hour == np.where(second, 1, T - 1))[items.alive]
    )


@pytest.mark.parametrize("n_step", [1, 1 + T])
def test_the_warm_up_counts_steps_of_agents_in_play(n_step):
    env = with_agent_axis(team_world())
    source = source_of(CONFIG.model_copy(update={"n_step": n_step}), env, None, actions_of(env, None))
    fill = jax.jit(lambda key: source.fill(None, key, jax.random.key(1), (), 0.9, guided=False)[3])
    assert int(fill(jax.random.key(0))) == source.warmup_env_steps() * 6 // 4


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"sequence_length": 2, "steps_per_update": 2}, marker_world(), "episodes of 4 steps"),
    ],
)
def test_environments_that_do_not_fit_are_refused(changes, world, message):
    env = with_agent_axis(world)
    with pytest.raises(ValueError, match=message):
        source_of(CONFIG.model_copy(update=changes), env, None, actions_of(env, None))


def test_a_preview_that_a_world_does_not_offer_is_refused():
    env = with_agent_axis(choice_world())
    with pytest.raises(ValueError, match="offers no preview"):
        critics_of(env, None, actions_of(env, None), SMALL, "history", with_preview=True)


def test_a_guided_warm_up_needs_a_rule():
    env = with_agent_axis(choice_world())
    source = source_of(CONFIG, env, None, actions_of(env, None))
    with pytest.raises(ValueError, match="has none"):
        source.fill(None, jax.random.key(0), jax.random.key(1), (), 0.9, guided=True)
