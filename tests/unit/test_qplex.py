"""Values of teams: targets and loss against a plain loop over what was recorded, mutations that must be noticed,
acting, the replay of chunks, several choices at once, what follows a scalar of `info`, every key."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixing_cases import qplex_by_hand
from pydantic import ValidationError
from replay_cases import Run, copied, random_like, trees_equal
from team_cases import AGENTS, CHOICES, MIXING, PARTS, RNN, progress, team_world

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Box
from purerl.algos import qplex
from purerl.learn import joint_values
from purerl.learn.buffers import Sequences, take
from purerl.learn.joint_values import Parts, targets, td_loss
from purerl.learn.signals import Followed, Signal, require_told, shaped
from purerl.learn.teams import TeamConfig, epsilon_after, networks
from purerl.learn.value_learner import moved_target
from purerl.nets.utilities import AgentConfig, Memory, best_available

BURN_IN, LENGTH = 2, 4
GAMMA = 0.9
CONFIG = qplex.Config(
    num_envs=3, steps_per_update=2 * LENGTH, chunk_length=LENGTH, burn_in=BURN_IN, warmup_steps=24, buffer_size=96,
    batch_size=5, updates_per_step=1 / 12, gamma=GAMMA, lr=1e-2, target_update_interval=3, epsilon_anneal_steps=100,
    q_network=RNN, mixing_network=MIXING,
)  # fmt: skip
"""Two gradient updates per call, six chunks per call."""
WINDOW = 2
FOLLOWING = CONFIG.model_copy(update={
    "share_params": False, "replay_dtype": "float16", "signal": "progress", "signal_window": WINDOW,
    "shaping": "potential", "shaping_weight": 0.7, "exploration_bonus": 0.2, "exploration_bonus_below": 0.35,
    "selection_entropy_weight": 0.3, "selection_temperature": 0.8,
})  # fmt: skip
"""In a world of `PARTS` choices at once: all that is beside the plain algorithm."""
SUBSETS = np.array(list(itertools.product((0, 1), repeat=PARTS)))


@pytest.fixture(scope="module")
def run():
    return Run(qplex, CONFIG, updates=3, env=team_world())


@pytest.fixture(scope="module")
def recorded(run):
    """All chunks in the replay after three calls, on the host."""
    ring = run.history[-1].ring
    assert int(ring.size) == ring.data.reward.shape[1] == 24
    batch = jax.device_get(ring.data)
    assert batch.reset[BURN_IN + 1 :].any() and batch.terminated.any() and batch.truncated.any()
    assert (~batch.alive).any() and (~batch.legal).any() and (batch.span > 1).any()
    return batch


# Targets and loss by hand


CASES = {
    "qplex": CONFIG,
    "own_lambda": CONFIG.model_copy(update={"share_params": False, "td_lambda": 0.6}),
    "iql_n_step": qplex.Config(
        **{**CONFIG.model_dump(), "name": "iql", "mixer": "iql", "n_step": 3, "double_q": False}
    ),
}


class Case:
    """Networks with random parameters, and what the learner makes of the recorded batch."""

    def __init__(self, config: qplex.Config, batch, parts: int | None = None):
        env = with_agent_axis(team_world(parts))
        self.config, self.batch, self.parts = config, batch, parts
        self.nets = networks(config, config.mixer, env, None, CHOICES if parts is None else 2, parts)
        shapes = jax.eval_shape(self.nets.init, jax.random.key(0))
        self.params, self.target = random_like(shapes, 1), random_like(shapes, 2)

    def computed(self):
        """`(targets, loss, gradient of the loss)` by the learner; not cached, since tests change what it calls."""
        config, h = self.config, qplex.hparams_of(self.config)

        @jax.jit
        def ask(params, target, batch):
            if config.shaping != "none":
                batch = shaped(config.shaping, batch, h.gamma, h.shaping_weight)
            y = targets(config.target_config(), self.nets, params, target, batch, BURN_IN, h)
            loss = lambda p: td_loss(self.nets, p, batch, y, BURN_IN, config.loss_config())[0]  # noqa: E731
            return y, *jax.value_and_grad(loss)(params)

        return jax.device_get(ask(self.params, self.target, self.batch))

    # What an agent can do, one by one: three choices, or all subsets

    def actions(self) -> np.ndarray:
        """What describes each [n, f]."""
        return np.eye(CHOICES) if self.parts is None else SUBSETS

    def number(self, action) -> np.ndarray:
        """[A] of actions [A], or [A, m]."""
        return action if self.parts is None else action @ [4, 2, 1]

    def utilities(self, out) -> np.ndarray:
        return out if self.parts is None else out[0] + SUBSETS @ out[1:]

    def allowed(self, legal) -> np.ndarray:
        """[A, n] of masks [A, n], or [A, m, 2]."""
        return legal if self.parts is None else (legal[:, None, :, 1] | (SUBSETS == 0)).all(axis=-1)

    def before(self, previous) -> np.ndarray:
        """What agents see of their last actions [A, f]."""
        if self.parts is not None:
            return previous == 2
        return np.stack([np.eye(CHOICES)[p - 1] if p else np.zeros(CHOICES) for p in previous])


def numbers(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def utilities_by_hand(own, memory, x):
    """One step of one agent's network: `(memory [h], utilities [n])`."""
    core, head = own["core"]["params"], own["head"]["params"]["_Linear_0"]
    x = np.maximum(x @ core["encoder_0"]["kernel"] + core["encoder_0"]["bias"], 0.0)
    gru = core["gru_0"]
    x_r, x_z, x_n = np.split(x @ gru["w_x"] + gru["b"], 3)
    h_r, h_z, h_n = np.split(memory @ gru["w_h"], 3)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    candidate = np.tanh(x_n + sigmoid(x_r + h_r) * (h_n + gru["b_h"]))
    memory = candidate + sigmoid(x_z + h_z) * (memory - candidate)
    return memory, memory @ head["kernel"] + head["bias"]


def team_by_hand(case: Case, agents, memories, obs, previous):
    """One step of all agents: `(memories [A, h], utilities [A, n])`."""
    found, before = [], case.before(previous)
    for agent in range(AGENTS):
        own = agents if case.config.share_params else jax.tree.map(lambda x, agent=agent: x[agent], agents)
        x = np.concatenate([obs[agent], before[agent], np.eye(AGENTS)[agent]])
        memory, out = utilities_by_hand(own, memories[agent], x)
        found.append((memory, case.utilities(out)))
    return tuple(np.stack(part) for part in zip(*found, strict=True))


def values_by_hand(case: Case, mixer, utility, action, legal, alive, state):
    """Joint value, or one value for every agent."""
    best = np.where(legal, utility, -np.inf).max(axis=1) * alive
    taken = utility[np.arange(AGENTS), action] * alive
    if case.config.name == "iql":
        return taken
    return np.array([qplex_by_hand(mixer, state, taken, best, case.actions()[action])[0]])


def by_hand(case: Case):
    """Targets and squared errors [T, N, M] with their weights, chunk by chunk and step by step."""
    config, batch = case.config, case.batch
    params, target = numbers(case.params), numbers(case.target)
    steps, chunks = batch.team_reward.shape
    width = AGENTS if config.name == "iql" else 1
    y, value, weight = (np.zeros((steps, chunks, width)) for _ in range(3))
    for n in range(chunks):
        memory = their_memory = numbers(batch.carry.network[0][0, n])
        previous = batch.carry.previous[0, n]
        following = np.zeros((steps, width))
        for t in range(steps):
            if batch.reset[t, n]:
                memory, their_memory, previous = 0 * memory, 0 * memory, 0 * previous
            alive, state, action = batch.alive[t, n], batch.global_state[t, n], case.number(batch.action[t, n])
            allowed = case.allowed(batch.legal[t, n])
            memory, utility = team_by_hand(case, params.agents, memory, batch.obs[t, n], previous)
            their_memory, _ = team_by_hand(case, target.agents, their_memory, batch.obs[t, n], previous)
            value[t, n] = values_by_hand(case, params.mixer, utility, action, allowed, alive, state)
            weight[t, n] = alive if config.name == "iql" else alive.any()
            previous = batch.action[t, n] + 1
            _, after = team_by_hand(case, params.agents, memory, batch.final_obs[t, n], previous)
            _, theirs = team_by_hand(case, target.agents, their_memory, batch.final_obs[t, n], previous)
            legal = case.allowed(batch.final_legal[t, n])
            chooser = after if config.double_q else theirs
            greedy = np.where(legal, chooser, -np.inf).argmax(axis=1)
            left = alive & ~batch.terminated[t, n]
            following[t] = values_by_hand(
                case, target.mixer, theirs, greedy, legal, left, batch.final_global_state[t, n]
            )
        for t in range(BURN_IN, steps):
            y[t, n] = return_by_hand(config, batch, following, n, t)
    return y[BURN_IN:], value[BURN_IN:], weight[BURN_IN:]


def return_by_hand(config, batch, following, n, t):
    """From the definition: rewards until the window, the episode or the chunk ends, then what follows."""
    one_step_target = lambda t, beyond: reward(t) + discount(t) * beyond  # noqa: E731

    def reward(t):
        if config.shaping == "none":
            return batch.team_reward[t, n]
        gain = discount(t) * batch.signal.after[t, n] - batch.signal.before[t, n]
        return batch.team_reward[t, n] + config.shaping_weight * gain

    def discount(t):
        ended = batch.terminated[t, n] if config.name == "iql" else batch.terminated[t, n].all()
        return GAMMA ** batch.span[t, n] * (1.0 - ended)

    def looked_ahead(t, left):
        if left == 1 or batch.truncated[t, n] or t + 1 == len(batch.span):
            return one_step_target(t, following[t])
        beyond = looked_ahead(t + 1, left - 1)
        if config.td_lambda > 0:
            beyond = (1 - config.td_lambda) * following[t] + config.td_lambda * beyond
        return one_step_target(t, beyond)

    return looked_ahead(t, 10**6 if config.td_lambda > 0 else config.n_step)


def require_as_by_hand(case: Case, expected) -> None:
    y, value, weight = expected
    computed, loss, _ = case.computed()
    np.testing.assert_allclose(computed, y, rtol=1e-5, atol=1e-5)
    assert loss == pytest.approx((weight * (value - y) ** 2).sum() / weight.sum(), rel=1e-5)


@pytest.fixture(scope="module")
def qplex_case(recorded):
    case = Case(CASES["qplex"], recorded)
    return case, by_hand(case)


@pytest.mark.parametrize("name", [name for name in CASES if name != "qplex"])
def test_targets_and_loss_of_variants_are_those_of_a_plain_loop(name, recorded):
    case = Case(CASES[name], recorded)
    require_as_by_hand(case, by_hand(case))


def test_targets_and_loss_are_those_of_a_plain_loop(qplex_case):
    require_as_by_hand(*qplex_case)


# Several choices at once, a replay in half precision, a scalar of `info`


@pytest.fixture(scope="module")
def following():
    """One call: state after it, its metrics, all chunks."""
    run = Run(qplex, FOLLOWING, updates=1, env=team_world(PARTS))
    ring = run.history[-1].ring
    assert ring.data.obs.dtype == ring.data.final_global_state.dtype == np.float16
    return run, jax.device_get(take(ring, jnp.arange(12)))


@pytest.fixture(scope="module")
def following_case(following):
    case = Case(FOLLOWING.model_copy(update={"selection_entropy_weight": 0.0}), following[1], PARTS)
    return case, by_hand(case)


def test_several_choices_with_shaped_rewards_are_those_of_a_plain_loop_over_all_subsets(following_case):
    require_as_by_hand(*following_case)


def test_a_choice_that_is_masked_in_a_sum_of_maxima_is_noticed(following_case, monkeypatch):
    monkeypatch.setattr(joint_values, "best_available", lambda utility, legal: best_available(utility, None))
    with pytest.raises(AssertionError):
        require_as_by_hand(*following_case)


def test_unshaped_rewards_are_noticed(following_case, monkeypatch):
    monkeypatch.setitem(globals(), "shaped", lambda shaping, batch, gamma, weight: batch)
    with pytest.raises(AssertionError):
        require_as_by_hand(*following_case)


def test_what_is_masked_is_never_selected(following):
    _, batch = following
    assert np.take_along_axis(batch.legal, batch.action[..., None], axis=-1).all()
    assert (batch.action == 1).any() and not batch.legal[..., 1].all()


def test_undecided_selections_lower_the_loss(following_case):
    """By the weight times the mean entropy of the agents in play."""
    case, _ = following_case
    batch, config = case.batch, FOLLOWING
    total, count = 0.0, 0.0
    agents = numbers(case.params.agents)
    for n in range(batch.team_reward.shape[1]):
        memory, previous = numbers(batch.carry.network[0][0, n]), batch.carry.previous[0, n]
        for t in range(BURN_IN + LENGTH):
            if batch.reset[t, n]:
                memory, previous = 0 * memory, 0 * previous
            memory, utility = team_by_hand(case, agents, memory, batch.obs[t, n], previous)
            previous, allowed = batch.action[t, n] + 1, case.allowed(batch.legal[t, n])
            for agent in np.flatnonzero(batch.alive[t, n]) if t >= BURN_IN else ():
                total += entropy_by_hand(utility[agent], allowed[agent], config.selection_temperature)
                count += 1.0
    plain, entropic = case.computed()[1], Case(config, batch, PARTS).computed()[1]
    assert plain - entropic == pytest.approx(config.selection_entropy_weight * total / count, rel=1e-4)


def entropy_by_hand(utility, allowed, temperature) -> float:
    total = 0.0
    for part in range(PARTS):
        selects = SUBSETS[:, part] == 1
        if (selects & allowed).any():
            p = 1 / (1 + np.exp((utility[~selects & allowed].max() - utility[selects & allowed].max()) / temperature))
            total -= p * np.log(p) + (1 - p) * np.log(1 - p)
    return total


def test_the_scalar_is_followed_through_every_episode(following):
    _, batch = following
    kind, time = batch.obs[:, :, 0, 0] + 0.5, np.round(batch.obs[:, :, 0, 1] / 0.3)
    at = lambda t: progress(kind, t)  # noqa: E731
    np.testing.assert_allclose(batch.signal.after, at(time + 1), atol=1e-5)
    np.testing.assert_allclose(batch.signal.before, np.where(time > 0, at(time), 0.0), atol=1e-5)
    recent = np.where(time == 0, at(1), np.where(time == 1, at(1), (at(time - 1) + at(time)) / 2))
    np.testing.assert_allclose(batch.signal.mean, recent, atol=1e-5)
    assert {0, 1, 2, 3} <= set(time.ravel().astype(int))


@jax.jit
def changed(hparams, **values):
    """Strongly typed like what they replace, so that nothing is traced again."""
    return dataclasses.replace(hparams, **{name: 0 * getattr(hparams, name) + x for name, x in values.items()})


def test_shaping_and_the_bonus_reach_the_update(following):
    """The same program with other numbers: the weight changes targets, the bonus who explores."""
    run, batch = following

    def metrics(**values):
        state = copied(run.history[0])
        return run.update(dataclasses.replace(state, hparams=changed(state.hparams, **values)))[1]

    still = {"epsilon_start": 0.0, "epsilon_end": 0.0, "exploration_bonus": 0.0}
    plain = metrics(**still)
    assert float(plain["hit_prob"]) == 1.0
    assert float(metrics(**{**still, "shaping_weight": 9.0})["target_mean"]) != float(plain["target_mean"])
    shares = [float(metrics(**{**still, "exploration_bonus": x})["hit_prob"]) for x in (0.5, 1.0)]
    assert 1.0 > shares[0] > shares[1] > 0.5, (
        "half of the choices are the greedy ones anyway, and not all means are low"
    )
    assert 0 < float(plain["selection_entropy"]) <= 1.0
    assert float(plain["signal_mean"]) == pytest.approx(batch.signal.after.mean(), abs=0.1)


def test_shaped_rewards():
    """One team of two: a step inside of an episode, one that ends it, one that is cut off."""
    terminated = np.array([[False, False], [True, True], [False, False]])[:, None]
    signal = Signal(*(np.array(x, np.float32)[:, None] for x in ([0.2, 0.5, 0.4], [0.6, 0.1, 0.4], [0.5, 0.3, 0.6])))
    batch = Sequences(
        *[None] * 3, terminated=terminated, span=np.full((3, 1), 2.0), team_reward=np.ones((3, 1)), signal=signal
    )
    potential = shaped("potential", batch, 0.9, 0.5).team_reward[:, 0]
    np.testing.assert_allclose(potential, 1 + 0.5 * np.array([0.81 * 0.5 - 0.2, -0.5, 0.81 * 0.6 - 0.4]), rtol=1e-6)
    improvement = shaped("improvement", batch, 0.9, 0.5).team_reward[:, 0]
    np.testing.assert_allclose(improvement, 1 + 0.5 * np.array([0.0, 0.2, 0.2]), rtol=1e-6)


def test_scalars_that_are_not_told_are_refused():
    world = with_agent_axis(team_world())
    require_told(Followed("progress", 3), world, None)
    with pytest.raises(ValueError, match="signal 'progres': team tells no such scalar of a step; did you mean 'prog"):
        require_told(Followed("progres", 3), world, None)
    with pytest.raises(ValueError, match="selection_entropy_weight: actions of team select no entities"):
        qplex.make(CONFIG.model_copy(update={"selection_entropy_weight": 0.1}), team_world())
    with pytest.raises(ValueError, match="attention_rnn: team does not tell of which entities its observations"):
        qplex.make(CONFIG.model_copy(update={"q_network": AgentConfig(type="attention_rnn")}), team_world())


# Mutations: each is a mistake that others made, and the check above must see it


def test_a_maximum_of_online_utilities_in_the_target_is_noticed(qplex_case, monkeypatch):
    proper = joint_values.following_value

    def mutated(nets, target, online_after, target_after, batch, double_q):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(joint_values, "best_available", lambda utility, legal: best_available(online_after, legal))
            return proper(nets, target, online_after, target_after, batch, double_q)

    monkeypatch.setattr(joint_values, "following_value", mutated)
    with pytest.raises(AssertionError):
        require_as_by_hand(*qplex_case)


def test_a_masked_action_in_a_maximum_is_noticed(qplex_case, monkeypatch):
    monkeypatch.setattr(joint_values, "best_available", lambda utility, legal: best_available(utility, None))
    with pytest.raises(AssertionError):
        require_as_by_hand(*qplex_case)


def test_a_masked_action_that_is_chosen_is_noticed(qplex_case, monkeypatch):
    monkeypatch.setattr(joint_values, "greedy", lambda utility, legal: jnp.argmax(utility, axis=-1))
    with pytest.raises(AssertionError):
        require_as_by_hand(*qplex_case)


def require_that_the_mixer_learns(case: Case) -> None:
    gradient = case.computed()[2]
    for path, x in jax.tree.leaves_with_path(gradient.mixer):
        assert np.abs(x).max() > 1e-6, jax.tree_util.keystr(path)


def test_the_mixer_learns(qplex_case):
    require_that_the_mixer_learns(qplex_case[0])


def test_a_mixer_outside_of_the_loss_is_noticed(qplex_case, monkeypatch):
    proper = joint_values.joint_value

    def sum_alone(nets, mixer, *rest):
        joint = proper(nets._replace(mixer=None), mixer, *rest)
        return joint._replace(value=jnp.sum(joint.value, axis=-1, keepdims=True))

    monkeypatch.setattr(joint_values, "joint_value", sum_alone)
    with pytest.raises(AssertionError):
        require_that_the_mixer_learns(qplex_case[0])
    with pytest.raises(AssertionError):
        require_as_by_hand(*qplex_case)


# A run


def test_metrics_are_finite_scalars(run):
    for metrics in run.metrics:
        for name, value in metrics.items():
            assert np.shape(value) == () and np.isfinite(value), name
    assert {"td_loss", "td_error_abs", "q_tot_mean", "target_mean", "grad_norm", "epsilon", "lambda_mean", "lambda_min",
            "lambda_max", "hit_prob"} <= set(run.metrics[0])  # fmt: skip


def test_consecutive_chunks_overlap_by_the_burn_in(run, recorded):
    """Also across update calls and from the warm-up on: the newest steps wait for the next call."""
    one_env = np.asarray(recorded.obs)[:, 0::3, 0].reshape(BURN_IN + LENGTH, -1, 3)
    np.testing.assert_array_equal(one_env[-BURN_IN:, :-1], one_env[:BURN_IN, 1:])


def test_masked_actions_are_never_taken(recorded):
    legal = np.take_along_axis(recorded.legal, recorded.action[..., None], axis=-1)
    assert legal.all()


def test_stored_memories_are_those_of_the_actor(run):
    """The first chunks of a call after which no gradient was: a memory is what acting from the start gives."""
    state = run.history[0]
    assert isinstance(state.worlds.carry, Memory)
    batch = jax.device_get(state.ring.data)
    agents = numbers(state.learner.params.agents)
    case = Case(CONFIG, batch)
    for n in range(3):
        memory, previous = numbers(batch.carry.network[0][0, n]), batch.carry.previous[0, n]
        assert (memory == 0).all() and (previous == 0).all(), "the run starts here"
        for t in range(LENGTH):
            if batch.reset[t, n]:
                memory, previous = 0 * memory, 0 * previous
            memory, _ = team_by_hand(case, agents, memory, batch.obs[t, n], previous)
            previous = batch.action[t, n] + 1
        done = (batch.terminated[LENGTH - 1, n].all() | batch.truncated[LENGTH - 1, n]).item()
        following = batch.carry.network[0][0, n + 3]
        np.testing.assert_allclose(following, 0 * memory if done else memory, atol=1e-5)


def test_the_target_network_is_copied_when_it_is_due(run):
    """Two gradient updates a call, a copy after every third: the calls end after 2, 4 and 6."""
    start, two, four, six = (state.learner for state in run.history)
    assert trees_equal(start.params, start.target)
    assert trees_equal(two.target, start.target) and not trees_equal(two.params, two.target)
    assert not trees_equal(four.target, start.target) and not trees_equal(four.params, four.target)
    assert trees_equal(six.params, six.target)


def test_a_soft_target_moves_by_its_share():
    new, old = Parts({"w": jnp.array([2.0])}, {}), Parts({"w": jnp.array([1.0])}, {})
    moved = moved_target(new, old, 0.25, jnp.array(True))
    assert moved.agents["w"].tolist() == [1.25]
    assert moved_target(new, old, 0.25, jnp.array(False)).agents["w"].tolist() == [1.0]


def test_greedy_acting_takes_the_best_available_and_remembers_it(run):
    algorithm, policy = run.algorithm, run.algorithm.policy(run.history[-1])
    obs = np.random.default_rng(0).normal(size=(5, AGENTS, 3)).astype(np.float32)
    mask = np.array([[True, False, True], [False, True, True]])[None].repeat(5, axis=0)
    act = jax.jit(lambda carry: algorithm.act(policy, carry, obs, mask, None, True))
    action, carry = jax.device_get(act(algorithm.initial_carry((5,))))
    case = Case(CONFIG, None)
    for n in range(5):
        memory, utility = team_by_hand(case, numbers(policy), np.zeros((AGENTS, 4)), obs[n], np.zeros(AGENTS, int))
        np.testing.assert_array_equal(action[n], np.where(mask[n], utility, -np.inf).argmax(axis=1))
        np.testing.assert_allclose(carry.network[0][n], memory, atol=1e-5)
    np.testing.assert_array_equal(carry.previous, action + 1)


# Exploration and keys


def test_exploration_falls_with_the_steps_of_all_environments(run):
    assert [float(m["epsilon"]) for m in run.metrics] == pytest.approx([1.0, 1 - 0.95 * 0.24, 1 - 0.95 * 0.48])
    h = TeamConfig(epsilon_start=0.8, epsilon_end=0.1, epsilon_anneal_steps=10, epsilon_decay=0.5)
    linear = [float(epsilon_after("linear", h, np.float32(steps))) for steps in (0, 5, 10, 99)]
    assert linear == pytest.approx([0.8, 0.45, 0.1, 0.1])
    exponential = [float(epsilon_after("exponential", h, np.float32(steps))) for steps in (0, 1, 2, 99)]
    assert exponential == pytest.approx([0.8, 0.4, 0.2, 0.1])


def test_without_exploration_every_action_is_the_greedy_one(run):
    state = copied(run.history[0])
    _, metrics = run.update(
        dataclasses.replace(state, hparams=changed(state.hparams, epsilon_start=0.0, epsilon_end=0.0))
    )
    assert float(metrics["hit_prob"]) == 1.0 and float(run.metrics[0]["hit_prob"]) < 0.9


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "vdn", "mixer": "qplex"}, "mixer qplex: vdn has vdn"),
        ({"mixer": "qmix"}, "mixer qmix: qplex has qplex, qplex_atten, adaptive"),
        ({"chunk_length": 5}, "must be a multiple of chunk_length 5"),
        ({"q_network": {"type": "mlp"}}, "set burn_in to 0"),
        ({"n_step": 3, "td_lambda": 0.5}, "two ways to look further"),
        ({"tau": 0.01}, "would hardly move the target network"),
        ({"updates_per_step": 1e-4}, "gives no gradient update"),
        ({"shaping": "potential"}, "shaping looks at a scalar of info: name it by signal"),
        ({"exploration_bonus": 0.1}, "exploration_bonus looks at a scalar of info"),
        ({"adaptive": True}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        qplex.Config(**keys)


def test_names_of_public_code_are_taken():
    config = qplex.Config(learning_rate=1e-3, grad_clip=5.0, learning_starts=100, total_timesteps=2000)
    assert (config.lr, config.max_grad_norm, config.warmup_steps, config.total_env_steps) == (1e-3, 5.0, 100, 2000)


def test_ranges_of_actions_are_refused():
    world = Environment(
        name="range", default_params=None, reset_env=lambda key, p: (jnp.zeros(2), 0), step_env=lambda *_: None,
        observation_space=lambda p: Box(0.0, 1.0, (2,)), action_space=lambda p: Box(-1.0, 1.0, (1,)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="qplex takes one choice of every agent, or several; range has a range"):
        qplex.make(qplex.Config(), world)
