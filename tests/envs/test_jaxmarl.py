"""Tasks of JaxMARL: the adapter on a world made for it, and, where the package is, the library's own worlds."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import envs_jax
from envs_jax.check import check_env
from envs_jax.jaxmarl import adapted
from purerl.algos import ppo, qplex

SPREAD = "MPE_simple_spread_v3"
BATTLE = {"name": "jaxmarl:HeuristicEnemySMAX", "scenario": "3m"}


# The adapter, on a world with everything that differs between agents


@struct.dataclass
class PairState:
    step: Any
    here: Any


class Choices:
    def __init__(self, n):
        self.n = n


class Pair:
    """Two agents of unequal senses and choices. The second is done after its first step, the first when it chooses 1;
    after three steps time is up, for both. Step number t pays t and 2 t."""

    agents = ("small", "large")
    max_steps = 3

    def action_space(self, agent):
        return Choices({"small": 2, "large": 3}[agent])

    def observed(self, state):
        return {"small": jnp.full(1, state.step), "large": {"b": jnp.full((2, 1), 7), "a": state.here[1] * 1.0}}

    def reset(self, key):
        state = PairState(step=0, here=jnp.ones(2, bool))  # weakly typed, as the library's are
        return self.observed(state), state

    def step_env(self, key, state, actions):
        step = state.step + 1
        here = state.here & jnp.stack([actions["small"] != 1, step != 1])
        state = PairState(step=step, here=here)
        late = step >= self.max_steps
        gone = ~here | late
        done = {"small": gone[0], "large": gone[1], "__all__": ~here[0] | late}
        return self.observed(state), state, {"small": step, "large": 2 * step}, done, {}

    def get_avail_actions(self, state):
        return {"small": jnp.ones(2), "large": jnp.array([0, 1, 1]) * state.here[1]}


def played(env, actions):
    """Observations, rewards, flags and who is left, step by step."""
    step = jax.jit(env.step_env)
    _, state = env.reset_env(jax.random.key(0), None)
    told = []
    for action in actions:
        obs, state, reward, terminated, truncated, _ = step(jax.random.key(0), state, np.array(action), None)
        told.append((obs.tolist(), reward.tolist(), bool(terminated), bool(truncated), state.alive.tolist()))
    return told, state


@pytest.fixture(scope="module")
def pair():
    return adapted("jaxnav", Pair())  # whose worlds end as this one does


def test_unequal_agents_are_padded(pair):
    assert pair.observation_space(None).shape == (2, 3) and pair.action_space(None) == (3, (2,))
    obs, state = pair.reset_env(jax.random.key(0), None)
    np.testing.assert_array_equal(obs, [[0, 0, 0], [1, 7, 7]])
    np.testing.assert_array_equal(pair.global_state(state, None), [0, 1, 7, 7])
    np.testing.assert_array_equal(pair.action_mask(state, None), [[True, True, False], [False, True, True]])
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


def test_agents_leave_and_a_limit_is_no_end(pair):
    told, state = played(pair, [[0, 0]] * 3)
    obs, reward, terminated, truncated, alive = zip(*told, strict=True)
    assert obs[0] == [[1.0, 0.0, 0.0], [0.0, 7.0, 7.0]] and reward == ([1.0, 2.0], [2.0, 4.0], [3.0, 6.0])
    assert (terminated, truncated) == ((False,) * 3, (False, False, True))
    assert alive == ([True, False],) * 3, "time that is up makes nobody leave"
    legal = pair.action_mask(state, None)
    np.testing.assert_array_equal(legal[1], [True] * 3, "nobody is left without a choice")


def test_what_the_task_ends_is_an_end(pair):
    told, _ = played(pair, [[0, 0], [1, 0]])
    assert told[1][2:] == (True, False, [False, False])


def test_mixed_actions_are_refused():
    world = Pair()
    world.action_space = {"small": Choices(2), "large": object()}.__getitem__
    with pytest.raises(ValueError, match="actions of the kinds Choices, object"):
        adapted("jaxnav", world)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    with pytest.raises(ValueError, match=r"^jaxmarl:hanabi needs .*: pip install 'purerl\[jaxmarl\]'$"):
        envs_jax.make("jaxmarl:hanabi")


# The library's worlds


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("jaxmarl")


def test_a_trajectory_is_the_librarys_own(library, same_keys):
    """28 steps, over the end of an episode of 26: observations, rewards, ends and states, bit for bit."""
    ours, theirs = envs_jax.make(f"jaxmarl:{SPREAD}"), library.make(SPREAD)
    key_start, *keys = jax.random.split(jax.random.key(3), 29)
    actions = np.random.default_rng(0).integers(0, 5, (28, 3))

    @jax.jit
    def both(keys, actions):
        def body(states, inputs):
            key, action = inputs
            mine, own = states
            obs, mine, reward, terminated, truncated, _ = ours.step(key, mine, action, None)
            their_obs, own, their_reward, done, _ = theirs.step(key, own, dict(zip(theirs.agents, action, strict=True)))
            rows = jnp.stack([jnp.stack([part[a] for a in theirs.agents]) for part in (their_obs,)])[0]
            paid = jnp.stack([their_reward[a] for a in theirs.agents])
            seen = ours.global_state(mine, None)
            return (mine, own), (
                (obs, reward, truncated, seen, mine.world.p_pos, terminated),
                (rows, paid, done["__all__"], rows.reshape(-1), own.p_pos, jnp.array(False)),
            )

        start = ours.reset(key_start)[1], theirs.reset(key_start)[1]
        return jax.lax.scan(body, start, (keys, actions))[1]

    mine, own = jax.device_get(both(jnp.stack(keys), actions))
    for a, b in zip(mine, own, strict=True):
        np.testing.assert_array_equal(a, b)
    assert mine[2].nonzero()[0].tolist() == [25]


@pytest.mark.parametrize(
    "settings",
    [
        {"name": f"jaxmarl:{SPREAD}", "num_agents": 2, "max_steps": 4},
        {"name": "jaxmarl:MPE_simple_speaker_listener_v4"},
        {"name": "jaxmarl:switch_riddle"},
        {"name": "jaxmarl:coin_game", "num_inner_steps": 2, "num_outer_steps": 2},
        BATTLE,
    ],
    ids=lambda settings: settings["name"],
)
def test_tasks_keep_the_contract(library, settings, same_keys):
    check_env(envs_jax.make(**settings), steps=9)


NOT_HERE = {"LearnedPolicyEnemySMAX", "ant_4x2", "halfcheetah_6x1", "hopper_3x1", "humanoid_9|8", "walker2d_2x3"}
"""They need a policy, which is no setting, or a package that the library has no use for any more."""


@pytest.mark.slow
def test_every_task_that_the_library_has_steps(library, same_keys):
    """Traced alone; some of them use a key twice."""
    for task in library.registered_envs:
        if task in NOT_HERE or task.startswith("JaxRobotarium"):
            with pytest.raises(ValueError, match=f"JaxMARL cannot make {task.partition('|')[0]}") as error:
                envs_jax.make(f"jaxmarl:{task}")
            assert "\n" not in str(error.value)
            continue
        env = envs_jax.make(f"jaxmarl:{task}")
        obs, state = jax.eval_shape(lambda key, env=env: env.reset_env(key, None), jax.random.key(0))
        action = env.action_space(None).sample(jax.random.key(0))
        after = jax.eval_shape(env.step_env, jax.random.key(0), state, action, None)
        assert obs.shape == after[0].shape == env.observation_space(None).shape, task
        types = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, after[1])]
        assert types[0] == types[1], task
        assert (after[2].shape, after[3].shape, after[4].shape) == ((env.num_agents,), (), ()), task


def test_a_battle_is_masked_lost_and_won(library, same_keys):
    env, theirs = envs_jax.make(**BATTLE), library.make("HeuristicEnemySMAX", scenario=_three_marines())
    step = jax.jit(env.step_env)
    _, state = env.reset_env(jax.random.key(0), None)
    for number in range(200):
        mask = np.asarray(env.action_mask(state, None))
        own = theirs.get_avail_actions(state.world)
        np.testing.assert_array_equal(mask, np.stack([own[a] for a in theirs.agents]).astype(bool))
        action = [row.nonzero()[0][-1] for row in mask]  # shoots where it can
        _, state, _, terminated, truncated, info = step(jax.random.key(number), state, np.array(action), None)
        np.testing.assert_array_equal(state.alive, state.world.state.unit_alive[:3])
        if terminated | truncated:
            break
    left = np.asarray(state.world.state.unit_alive)
    assert bool(terminated) == (not left[:3].any() or not left[3:].any())
    assert float(info["won"]) == float(left[:3].any() and not left[3:].any())


def _three_marines():
    from jaxmarl.environments.smax import map_name_to_scenario

    return map_name_to_scenario("3m")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("MPE_simple_spred_v3", {}, "did you mean 'MPE_simple_spread_v3'?"),
        (SPREAD, {"num_agent": 2}, "unknown setting 'num_agent' of JaxMARL's .*; did you mean 'num_agents'"),
        (SPREAD, {"num_agents": "two"}, "num_agents of JaxMARL's .* = 'two': must be like its default 3"),
        (SPREAD, {"max_steps": 4.5}, "must be like its default 25"),
        (SPREAD, {"local_ratio": 2}, "cannot make .*: local_ratio must be between"),
        ("HeuristicEnemySMAX", {"scenario": "4m"}, "unknown scenario '4m' of JaxMARL; did you mean"),
        ("overcooked", {"layout": "cramped"}, "did you mean 'cramped_room'"),
    ],
)
def test_mistakes_are_one_line(library, name, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        envs_jax.make(f"jaxmarl:{name}", **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "keys"),
    [
        (ppo, {"critic_input": "global_state"}),
        (qplex, {"chunk_length": 4, "steps_per_update": 4, "burn_in": 0, "updates_per_step": 0.25, "warmup_steps": 8}),
    ],
    ids=["mappo", "qplex"],
)
def test_teams_train_on_a_battle(library, module, keys):
    """With masks, agents that leave and the library's global state."""
    algorithm = module.make(module.Config(num_envs=4, total_env_steps=16, **keys), envs_jax.make(**BATTLE))
    state = jax.eval_shape(algorithm.init, jax.random.key(0), algorithm.hparams, algorithm.load_data())
    after, metrics = jax.eval_shape(algorithm.update, state, algorithm.load_data())
    assert jax.tree.structure(after) == jax.tree.structure(state) and "episode/won" in metrics
