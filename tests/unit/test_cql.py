"""CQL and cloning: the log-sum-exp against integration, losses against plain loops, rules of a traced algorithm."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from offline_cases import metadata, small_dataset
from pydantic import ValidationError
from replay_cases import SMALL, SMALL_LSTM, Run, T, copied, marker_world, plain_head, random_like, trees_equal

from envs_jax.spaces import Box, Discrete
from purerl.algos import bc, cql
from purerl.errors import ConfigError
from purerl.learn import dataset, offline
from purerl.learn.buffers import Sequences
from purerl.nets.actions import Actions, Choices
from purerl.nets.critics import Critics
from purerl.nets.networks import NetworkConfig
from purerl.nets.policies import SoftPolicy
from purerl.run import program
from purerl.types import Data

RANGE = Actions(np.array([-1.0]), np.array([1.0]), np.array([2.0]), sigmoid=False)
GAMMA, ALPHA, WEIGHT = 0.9, 0.3, 2.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of a dataset of the marker world and of one with choices."""
    directory = tmp_path_factory.mktemp("data")
    paths = {"range": directory / "range.npz", "choices": directory / "choices.npz"}
    dataset.write(paths["range"], small_dataset(items=12))
    dataset.write(paths["choices"], small_dataset(items=12, choices=3))
    return {name: str(path) for name, path in paths.items()}


SETTINGS = {
    "total_gradient_steps": 12, "gradient_steps_per_update": 2, "batch_size": 4, "actor_lr": 1e-2, "actor": SMALL,
}  # fmt: skip
CQL = {**SETTINGS, "critic_lr": 1e-2, "alpha_lr": 1e-2, "num_actions": 2, "critic": SMALL, "bc_updates": 3}


# The log-sum-exp


class Parabola:
    """Critics whose values are -(action - centre)^2 / width, centres and widths being their parameters."""

    def q(self, params, history, obs, action):
        centre, width = params
        return -((action[..., 0] - centre[:, None, None]) ** 2) / width[:, None, None]


def test_the_estimate_tends_to_the_logarithm_of_the_integral():
    """With a policy far from uniform, so that wrong weights would show."""
    params = jnp.array([0.4, -0.9]), jnp.array([0.1, 0.5])
    outputs = jnp.array([[[0.8, 0.3]], [[-0.8, 0.5]]])
    count = 40_000
    rng = np.random.default_rng(0)
    uniform = jnp.asarray(rng.uniform(-1, 1, (count, 1, 1, 1)), jnp.float32)
    noise = jnp.asarray(rng.normal(size=(2, count, 1, 1, 1)), jnp.float32)
    drawn = cql.candidates(SoftPolicy(RANGE), outputs, uniform, noise)
    assert drawn.action.shape == (3 * count, 1, 1, 1)
    estimate = cql.log_sum_exp(Parabola(), params, None, None, None, drawn)[:, 0, 0]
    grid = (np.arange(20_000) + 0.5) / 10_000 - 1
    for value, centre, width in zip(estimate, *map(np.asarray, params), strict=True):
        integral = np.mean(np.exp(-((grid - centre) ** 2) / width)) * 2
        assert float(value) == pytest.approx(np.log(integral), abs=0.02)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_each_kind_of_sample_estimates_the_integral_alone(part):
    outputs, count = jnp.array([[[0.2, 0.3]], [[-0.3, 0.5]]]), 40_000
    rng = np.random.default_rng(1)
    uniform = jnp.asarray(rng.uniform(-1, 1, (count, 1, 1, 1)), jnp.float32)
    noise = jnp.asarray(rng.normal(size=(2, count, 1, 1, 1)), jnp.float32)
    drawn = cql.candidates(SoftPolicy(RANGE), outputs, uniform, noise)
    drawn = jax.tree.map(lambda x: x[part * count : (part + 1) * count], drawn)
    flat = jnp.zeros(2), jnp.full(2, 1e9)
    np.testing.assert_allclose(cql.log_sum_exp(Parabola(), flat, None, None, None, drawn), np.log(2), atol=0.03)


def test_over_choices_the_sum_is_exact_and_knows_only_legal_ones():
    critics = Critics(NetworkConfig(hidden_sizes=(4,)), "history", 3, 3, choices=True)
    params = random_like(jax.eval_shape(critics.init, jax.random.key(0)))
    obs = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5, 3)), jnp.float32)
    legal = jnp.asarray(np.random.default_rng(3).random((2, 5, 3)) < 0.5).at[..., 0].set(True)
    history = critics.history(params, obs, None)
    for mask in (None, legal):
        value = cql.log_sum_exp(critics, params, history, obs, mask, None)
        for twin, t, n in np.ndindex(2, 2, 5):
            head = jax.tree.map(lambda x, twin=twin: x[twin], params["head"])
            q = plain_head(head, np.asarray(obs[t, n], np.float64))
            allowed = q if mask is None else q[np.asarray(mask[t, n])]
            assert float(value[twin, t, n]) == pytest.approx(np.log(np.exp(allowed).sum()), rel=1e-4)


# Losses


def case(actions: Actions | Choices):
    """Nets with random parameters and a batch [T = 2, N = 3] with an absent agent and, for choices, masks."""
    rng = np.random.default_rng(4)
    policy = SoftPolicy(actions)
    choices = isinstance(actions, Choices)
    critics = Critics(SMALL, "history", 3, actions.dim, choices=choices)
    nets = cql.Nets(policy, policy.network(SMALL, 3), critics)
    actor, q, target = (
        random_like(jax.eval_shape(net.init, jax.random.key(0)), seed)
        for seed, net in enumerate((nets.actor, critics, critics))
    )
    stored = rng.integers(0, 3, (2, 3)) if choices else rng.uniform(-0.9, 0.9, (2, 3, 1))
    legal = None
    if choices:
        legal = rng.random((3, 3, 3)) < 0.6
        legal[:2] |= np.arange(3) == stored[..., None]
        legal[2, :, 1] = True
    batch = Sequences(
        obs=jnp.asarray(rng.normal(size=(3, 3, 3)), jnp.float32),
        action=jnp.asarray(stored, jnp.int32 if choices else jnp.float32),
        reward=jnp.asarray(rng.normal(size=(2, 3)), jnp.float32),
        terminated=jnp.asarray([[False, True, False], [False, False, True]]),
        legal=None if legal is None else jnp.asarray(legal),
        alive=jnp.asarray([[True, True, False], [True, True, True]]),
    )
    return nets, actor, q, target, batch


def critic_of(params, twin: int):
    return jax.tree.map(lambda x: x[twin], params["head"])


@pytest.mark.parametrize("backup_entropy", [False, True])
def test_losses_over_a_range_equal_a_plain_loop(backup_entropy):
    nets, actor, q, target, batch = case(RANGE)
    rng = np.random.default_rng(5)
    noise = jnp.asarray(rng.normal(size=(2, 3, 1)), jnp.float32)
    samples = jnp.asarray(rng.normal(size=(2, 2, 2, 3, 1)), jnp.float32)
    uniform = jnp.asarray(rng.uniform(-1, 1, (2, 2, 3, 1)), jnp.float32)
    config = cql.Config(dataset="", backup_entropy=backup_entropy)

    @jax.jit
    def compute(actor, q, target, batch, noise):
        outputs = nets.actor(actor, batch.obs)
        y = cql.targets(config, nets, target, outputs, batch, ALPHA, GAMMA, noise)
        drawn = cql.candidates(nets.policy, outputs, uniform, samples)
        loss, (error, gap, values, history) = cql.conservative_loss(nets, q, batch, y, drawn, WEIGHT)
        of_actor = [
            cql.actor_loss(config, nets, actor, q, history, batch, batch.action, ALPHA, cloning, noise)[0]
            for cloning in (False, True)
        ]
        return y, loss, error, gap, values, of_actor

    y, loss, error, gap, values, of_actor = jax.device_get(compute(actor, q, target, batch, noise))
    obs, act = np.asarray(batch.obs, np.float64), np.asarray(batch.action, np.float64)

    def policy_at(t, n):
        mean, log_std = plain_head(actor["head"], obs[t, n])
        return mean, np.exp(np.clip(log_std, -10, 2))

    def log_density(raw, t, n):
        mean, std = policy_at(t, n)
        normal = -0.5 * ((raw - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        return normal - np.log(1 - np.tanh(raw) ** 2)

    def value(params, twin, t, n, action):
        return plain_head(critic_of(params, twin), np.append(obs[t, n], action))[0]

    errors, gaps, wanted, cloned = [], [], [], []
    for t, n in np.ndindex(2, 3):
        mean, std = policy_at(t + 1, n)
        raw = mean + std * float(noise[t, n, 0])
        after = min(value(target, twin, t + 1, n, np.tanh(raw)) for twin in (0, 1))
        after -= backup_entropy * ALPHA * log_density(raw, t + 1, n)
        expected = float(batch.reward[t, n]) + GAMMA * (1 - bool(batch.terminated[t, n])) * after
        assert y[t, n] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        if not batch.alive[t, n]:
            continue
        for twin in (0, 1):
            taken = value(q, twin, t, n, act[t, n, 0])
            assert values[twin, t, n] == pytest.approx(taken, rel=1e-4, abs=1e-5)
            terms = [np.exp(value(q, twin, t, n, float(uniform[m, t, n, 0]))) / 0.5 for m in range(2)]
            for at in (0, 1):
                mean, std = policy_at(t + at, n)
                raws = [mean + std * float(samples[at, m, t, n, 0]) for m in range(2)]
                terms += [np.exp(value(q, twin, t, n, np.tanh(r)) - log_density(r, t + at, n)) for r in raws]
            gaps.append(np.log(np.mean(terms)) - taken)
            errors.append((taken - expected) ** 2)
        mean, std = policy_at(t, n)
        raw = mean + std * float(noise[t, n, 0])
        entropy = -log_density(raw, t, n)
        wanted.append(-min(value(q, twin, t, n, np.tanh(raw)) for twin in (0, 1)) - ALPHA * entropy)
        cloned.append(-log_density(np.arctanh(act[t, n, 0]), t, n) - ALPHA * entropy)
    assert len(gaps) == 10, "one agent is out of play in one step"
    assert error == pytest.approx(np.mean(errors), rel=1e-3)
    assert gap == pytest.approx(np.mean(gaps), rel=1e-3)
    assert loss == pytest.approx(np.mean(errors) + WEIGHT * np.mean(gaps), rel=1e-3)
    assert of_actor[0] == pytest.approx(np.mean(wanted), rel=1e-3, abs=1e-3)
    assert of_actor[1] == pytest.approx(np.mean(cloned), rel=1e-3, abs=1e-3)


def test_losses_over_choices_equal_a_plain_loop():
    nets, actor, q, target, batch = case(Choices(3))
    stored, config = batch.action, cql.Config(dataset="", backup_entropy=True)
    batch = batch.replace(action=nets.policy.actions.features(stored))

    @jax.jit
    def compute(actor, q, target, batch):
        outputs = nets.actor(actor, batch.obs)
        y = cql.targets(config, nets, target, outputs, batch, ALPHA, GAMMA, None)
        _, (error, gap, _, history) = cql.conservative_loss(nets, q, batch, y, None, WEIGHT)
        of_actor = [
            cql.actor_loss(config, nets, actor, q, history, batch, stored, ALPHA, cloning, None)[0]
            for cloning in (False, True)
        ]
        return y, error, gap, of_actor

    y, error, gap, of_actor = jax.device_get(compute(actor, q, target, batch))
    obs, legal = np.asarray(batch.obs, np.float64), np.asarray(batch.legal)

    def policy_at(t, n):
        logits = np.where(legal[t, n], plain_head(actor["head"], obs[t, n]), -np.inf)
        p = np.exp(logits - logits.max())
        p = p / p.sum()
        return p, -sum(x * np.log(x) for x in p if x > 0)

    def smaller(params, t, n):
        return np.minimum(*(plain_head(critic_of(params, twin), obs[t, n]) for twin in (0, 1)))

    errors, gaps, wanted, cloned = [], [], [], []
    for t, n in np.ndindex(2, 3):
        p, entropy = policy_at(t + 1, n)
        after = p @ smaller(target, t + 1, n) + ALPHA * entropy
        expected = float(batch.reward[t, n]) + GAMMA * (1 - bool(batch.terminated[t, n])) * after
        assert y[t, n] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        if not batch.alive[t, n]:
            continue
        for twin in (0, 1):
            all_values = plain_head(critic_of(q, twin), obs[t, n])
            taken = all_values[int(stored[t, n])]
            gaps.append(np.log(np.exp(all_values[legal[t, n]]).sum()) - taken)
            errors.append((taken - expected) ** 2)
        p, entropy = policy_at(t, n)
        wanted.append(-(p @ smaller(q, t, n)) - ALPHA * entropy)
        cloned.append(-np.log(p[int(stored[t, n])]) - ALPHA * entropy)
    assert error == pytest.approx(np.mean(errors), rel=1e-3)
    assert gap == pytest.approx(np.mean(gaps), rel=1e-3)
    assert of_actor[0] == pytest.approx(np.mean(wanted), rel=1e-3, abs=1e-3)
    assert of_actor[1] == pytest.approx(np.mean(cloned), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("gap", "rises"), [(3.0, True), (1.0, False), (-4.0, False)])
def test_the_weight_rises_while_the_gap_is_above_the_threshold_and_falls_below(gap, rises):
    slope = jax.grad(cql.weight_loss)(0.5, jnp.asarray(gap), 2.0)
    assert float(-slope) == pytest.approx(gap - 2.0)
    assert (float(-slope) > 0) == rises


def test_actions_at_the_bounds_are_cloned_just_inside():
    outputs = jnp.array([[[0.3, -1.0]]])
    at_bound = offline.clone_log_prob(SoftPolicy(RANGE), outputs, jnp.array([[[1.0]]]))
    inside = offline.clone_log_prob(SoftPolicy(RANGE), outputs, jnp.array([[[offline.INSIDE]]]))
    assert np.isfinite(at_bound).all()
    np.testing.assert_array_equal(at_bound, inside)


# Runs


def config_of(kind: str, files) -> bc.Config | cql.Config:
    match kind:
        case "range":
            return cql.Config(dataset=files["range"], lagrange_threshold=0.5, lagrange_lr=1e-2, **CQL)
        case "choices":
            return cql.Config(dataset=files["choices"], **CQL)
        case "episodes":
            recurrent = {"actor": SMALL_LSTM, "critic": SMALL_LSTM, "sequence_length": T}
            return cql.Config(dataset=files["range"], **{**CQL, **recurrent})
        case _:
            return bc.Config(dataset=files["range"], **SETTINGS)


@pytest.fixture(scope="module")
def ran(files):
    """Runs by kind, of three updates each; made when asked for."""
    made: dict[str, Run] = {}

    def of(kind: str) -> Run:
        if kind not in made:
            module = bc if kind == "cloning" else cql
            world = marker_world(Discrete(3)) if kind == "choices" else marker_world()
            made[kind] = Run(module, config_of(kind, files), updates=3, env=world)
        return made[kind]

    return of


KINDS = ["range", "choices", pytest.param("episodes", marks=pytest.mark.slow), "cloning"]


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_traced_once_change_everything_and_log_finite_scalars(ran, kind):
    run = ran(kind)
    first, last = run.history[0], run.history[-1]
    assert not trees_equal(first.learner, last.learner)
    assert int(last.learner.gradient_steps) == 6 and int(last.updates) == 3
    for metrics in run.metrics:
        for name, value in metrics.items():
            assert np.shape(value) == () and np.isfinite(value), name
    assert run.algorithm.env_steps_per_update == 0 and run.algorithm.warmup_env_steps == 0


def test_the_weight_moves_only_in_lagrange_form(ran):
    fixed = [float(m["min_q_weight"]) for m in ran("choices").metrics]
    assert fixed == [5.0] * 3
    adapted, gaps = ([float(m[name]) for m in ran("range").metrics] for name in ("min_q_weight", "conservative_gap"))
    assert len(set(adapted)) == 3
    assert (adapted[-1] > 5.0) == (gaps[0] > 0.5)


@pytest.mark.slow
def test_seeds_under_vmap_equal_single_runs(ran, same_keys):
    run = ran("choices")
    keys = jax.random.split(jax.random.key(7), 2)
    states = jax.jit(jax.vmap(run.algorithm.init, (0, None)))(keys, run.algorithm.hparams)
    together, _ = jax.jit(jax.vmap(run.algorithm.update))(states)
    alone = run.update(copied(jax.tree.map(lambda x: x[1], states)))[0]
    for a, b in zip(jax.tree.leaves(together.learner), jax.tree.leaves(alone.learner), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=2e-4, atol=1e-5)


def test_chunks_equal_the_whole_with_the_data_as_arguments_of_the_program(ran, files):
    run = ran("cloning")
    start, algorithm = run.history[0], bc.make(run.config, marker_world())
    data = algorithm.load_data()
    over = jax.jit(
        lambda state, data, count: program.scan_updates(algorithm.update, state, data, count), static_argnums=2
    )
    chunked, first_metrics = over(copied(start), data, 2)
    chunked, _ = over(chunked, data, 2)
    assert trees_equal(chunked, over(copied(start), data, 4)[0])
    single = [float(metrics["actor_loss"]) for metrics in run.metrics[:2]]
    np.testing.assert_allclose(first_metrics["actor_loss"], single, rtol=1e-5)


def test_acting_is_greedy_or_random_and_masked(ran):
    run = ran("choices")
    policy = run.algorithm.policy(run.history[-1])
    obs = jnp.zeros((64, 1, 3))
    mask = jnp.broadcast_to(jnp.array([False, True, True]), (64, 1, 3))
    act = jax.jit(run.algorithm.act, static_argnums=5)
    greedy, _ = act(policy, (), obs, mask, jax.random.key(0), True)
    random, _ = act(policy, (), obs, mask, jax.random.key(0), False)
    assert len(set(np.asarray(greedy).ravel().tolist())) == 1
    assert set(np.asarray(random).ravel().tolist()) == {1, 2}


def test_nothing_is_read_before_training(tmp_path):
    missing = str(tmp_path / "gone.npz")
    algorithm = cql.make(cql.Config(dataset=missing, **CQL), marker_world())
    jax.eval_shape(algorithm.init, jax.random.key(0), algorithm.hparams, Data(None))
    with pytest.raises(ConfigError, match=r"gone\.npz: no such dataset; record it with"):
        algorithm.load_data()


def test_data_of_another_world_keep_a_run_from_starting(files):
    other = marker_world(observation_space=lambda params: Box(-1.0, 1.0, (5,)))
    with pytest.raises(ConfigError, match="observation size: 3, here 5"):
        cql.make(cql.Config(dataset=files["range"], **CQL), other).load_data()
    assert json.loads(metadata().model_dump_json())["world"]["observation_size"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor": SMALL_LSTM}, "recurrent networks need sequence_length"),
        ({"lagrange_threshold": 1.0, "min_q_weight": 0.0}, "needs one to start from"),
        ({"log_std_min": 3.0}, "log_std_min 3.0 must be below log_std_max 2.0"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        cql.Config(dataset="x", **{**CQL, **changes})
