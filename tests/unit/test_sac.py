"""SAC: targets and losses against plain loops, the temperature's direction, every key, rules of a traced algorithm."""

from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from replay_cases import (
    SMALL,
    SMALL_LSTM,
    Run,
    T,
    check_days,
    choice_world,
    copied,
    marker_world,
    plain_actor,
    plain_head,
    plain_memory,
    plain_q,
    plain_returns,
    random_like,
    trees_equal,
)
from shared import with_data

from envs_jax.base import Guidance
from envs_jax.spaces import Box
from purerl.algos import sac
from purerl.learn.buffers import Sequences
from purerl.learn.optimizers import Schedule
from purerl.learn.twin_critics import temperature_loss
from purerl.nets.actions import Actions, Choices
from purerl.nets.critics import Critics
from purerl.nets.networks import NetworkConfig

FEED_FORWARD = sac.Config(
    num_envs=4, steps_per_update=T, sequence_length=1, updates_per_step=0.125, warmup_steps=16, buffer_size=48,
    batch_size=5, gamma=0.9, actor_lr=1e-2, critic_lr=1e-2, alpha_lr=1e-2, actor=SMALL, critic=SMALL,
)  # fmt: skip
RECURRENT = FEED_FORWARD.model_copy(
    update={"sequence_length": T, "actor": SMALL_LSTM, "critic": SMALL_LSTM, "noise_correlation": 0.5}
)
CHOICES = FEED_FORWARD.model_copy(update={"n_step": 3})
"""Two gradient updates per call; twelve days of replay, four days per call."""
RANGE = Actions(np.array([-1.0]), np.array([0.5]), np.array([2.0]), sigmoid=False)


@pytest.fixture(scope="module")
def recurrent():
    return Run(sac, RECURRENT, updates=4)


@pytest.fixture(scope="module")
def feed_forward():
    return Run(sac, FEED_FORWARD, updates=3)


@pytest.fixture(scope="module")
def choices():
    return Run(sac, CHOICES, updates=3, env=choice_world())


# A run


def test_whole_days_are_stored_and_overwritten(recurrent):
    for updates, state in enumerate(recurrent.history):
        filled = min(4 * (updates + 1), 12)
        assert int(state.ring.size) == filled
        check_days(jax.tree.map(lambda x, n=filled: np.asarray(x)[:, :n], state.ring.data))


def test_metrics_are_finite_scalars(recurrent, feed_forward, choices):
    for metrics in (*recurrent.metrics, *feed_forward.metrics, *choices.metrics):
        for name, value in metrics.items():
            assert np.shape(value) == () and np.isfinite(value), name


def test_the_first_update_counts_the_agent_steps_of_the_warm_up(feed_forward):
    algorithm = feed_forward.algorithm
    first, *others = (int(metrics["agent_steps"]) for metrics in feed_forward.metrics)
    assert first == algorithm.warmup_env_steps + algorithm.env_steps_per_update
    assert set(others) == {algorithm.env_steps_per_update}


def test_no_illegal_choice_is_ever_stored(choices):
    for state in choices.history:
        data = jax.tree.map(lambda x, n=int(state.ring.size): np.asarray(x)[:, :n], state.ring.data)
        assert np.take_along_axis(data.legal[:1], data.action[..., None], -1).all()
        assert (data.reward > 0).all(), "an illegal choice costs 1000"


def test_targets_follow_the_critics(recurrent):
    first, second = (jax.device_get(state.learner) for state in recurrent.history[:2])
    assert not trees_equal(first.params.critics, second.params.critics)
    # Two updates in a call: the average moved by no more than two times tau of the way.
    jax.tree.map(
        lambda old, new, target: np.testing.assert_array_less(
            np.abs(target - old), 2 * RECURRENT.tau * (np.abs(new - old) + 0.03)
        ),
        first.params.critics,
        second.params.critics,
        second.target,
    )
    assert not trees_equal(first.target, second.target)


def test_greedy_acting_is_the_median_and_sampling_is_not(feed_forward):
    algorithm, state = feed_forward.algorithm, feed_forward.history[-1]
    policy, obs = algorithm.policy(state), jnp.ones((3, 1, 3))
    greedy, _ = algorithm.act(policy, (), obs, None, jax.random.key(0), True)
    outputs = plain_actor(FEED_FORWARD, policy, np.ones((1, 3)))
    np.testing.assert_allclose(greedy[:, 0, 0], 2 * np.tanh(outputs[0]), rtol=1e-4)
    sampled, _ = algorithm.act(policy, (), obs, None, jax.random.key(0), False)
    assert len(set(np.asarray(sampled).ravel().tolist())) == 3


def test_acting_step_by_step_equals_the_unroll(recurrent):
    algorithm, policy = recurrent.algorithm, random_like(recurrent.algorithm.policy(recurrent.history[-1]), seed=1)
    obs = jnp.asarray(np.random.default_rng(2).normal(size=(T, 6, 1, 3)), jnp.float32)
    network = nets_of(RECURRENT).actor

    @jax.jit
    def both(policy, obs):
        carry, actions = algorithm.initial_carry((6,)), []
        for t in range(T):
            action, carry = algorithm.act(policy, carry, obs[t], None, jax.random.key(0), True)
            actions.append(action)
        return jnp.stack(actions), 2 * jnp.tanh(network(policy, obs[:, :, 0])[..., :1])

    stepped, unrolled = both(policy, obs)
    np.testing.assert_allclose(stepped[:, :, 0], unrolled, atol=1e-5)


def test_correlated_noise_is_stationary_from_the_first_step():
    """Standard normal at every step, the first included, and correlated as said."""
    noise = jax.random.normal(jax.random.key(0), (6, 40_000, 1, 1))
    memory = sac.Memory((), jnp.zeros((40_000, 1, 1)), jnp.zeros((40_000, 1, 1)))
    seen = []
    for drawn in noise:
        value = sac.correlated(memory, drawn, jnp.asarray(0.8))
        memory = sac.Memory((), value, jnp.ones_like(memory.begun))
        seen.append(np.asarray(value)[:, 0, 0])
    np.testing.assert_allclose(np.std(seen, axis=1), 1, atol=0.02)
    np.testing.assert_allclose([np.corrcoef(a, b)[0, 1] for a, b in pairwise(seen)], 0.8, atol=0.02)


# Traced programs


def test_chunks_equal_the_whole_run(feed_forward):
    """Two calls of `update` are a scan of two, bit for bit; `Run` raises at a second trace of one."""
    algorithm, start = feed_forward.algorithm, feed_forward.history[0]
    whole, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: algorithm.update(s), s, length=2))(copied(start))
    assert trees_equal(whole, feed_forward.history[2])


def test_donated_state_shares_no_buffer(choices):
    hparams = choices.algorithm.hparams
    state = choices.init(6)
    buffers = [getattr(leaf, "_base_array", leaf).unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, hparams))]
    assert len(set(buffers)) == len(buffers)
    choices.update(state)
    assert jax.tree.leaves(state.ring)[0].is_deleted()


@pytest.mark.slow
def test_seeds_under_vmap_equal_single_runs(feed_forward, same_keys):
    starts = [feed_forward.init(seed) for seed in range(2)]
    stacked = jax.jit(lambda *states: jax.tree.map(lambda *x: jnp.stack(x), *states))(*starts)
    together, _ = jax.jit(jax.vmap(feed_forward.algorithm.update))(stacked)
    assert not trees_equal(starts[0].learner.params, starts[1].learner.params)
    for i, start in enumerate(starts):
        alone, _ = feed_forward.update(start)
        mine = jax.tree.map(lambda x, i=i: x[i], jax.device_get((together.learner, together.ring)))
        chex.assert_trees_all_close(mine, jax.device_get((alone.learner, alone.ring)), atol=1e-5)


# Targets and losses against plain loops


def nets_of(config, actions=RANGE, obs_dim: int = 3, preview=None) -> sac.Nets:
    is_choice = isinstance(actions, Choices)
    critics = Critics(config.critic, config.critic_arch, obs_dim, actions.dim, preview, is_choice)
    return sac.networks(config, actions, critics)


def plain_soft_value(config, actions, actor, critics, obs, past, legal, alpha, noise, how):
    """`(value, entropy)` of the policy after observations [t + 1, d] and past actions [t, k]."""
    outputs = plain_actor(config, actor, obs)
    pick = min if how == "min" else (lambda both: sum(both) / 2)
    if isinstance(actions, Choices):
        weights = np.where(legal, np.exp(outputs - outputs.max()), 0)
        pi = weights / weights.sum()
        q = [plain_each(config, critic, obs, past) for critic in critics]
        entropy = -sum(p * np.log(p) for p in pi if p > 0)
        return sum(p * pick([q[0][i], q[1][i]]) for i, p in enumerate(pi)) + alpha * entropy, entropy
    half = outputs.shape[0] // 2
    log_std = np.clip(outputs[half:], config.log_std_min, config.log_std_max)
    u = outputs[:half] + np.exp(log_std) * noise
    density = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - np.tanh(u) ** 2)
    action = (actions.low + actions.high) / 2 + (actions.high - actions.low) / 2 * np.tanh(u)
    entropy = -density.sum()
    return pick([plain_q(config, critic, obs, past, action) for critic in critics]) + alpha * entropy, entropy


def plain_each(config, critic, obs, past):
    if not config.critic.recurrent:
        return plain_head(critic["head"], obs[-1])
    inputs = [np.concatenate([o, a]) for o, a in zip(obs, [np.zeros(3), *past], strict=True)]
    return plain_head(critic["head"], plain_memory(critic["core"]["params"]["lstm_0"], inputs))


CASES = {
    "transitions": (RANGE, {"actor": SMALL, "critic": SMALL, "sequence_length": 1}),
    "days, 3 steps, mean": (RANGE, {"n_step": 3, "target_value": "mean", "actor_value": "mean"}),
    "concat": (RANGE, {"critic_arch": "concat"}),
    "narrow": (RANGE, {"log_std_min": -0.3, "log_std_max": 0.1}),
    "choices": (Choices(3), {"actor": SMALL, "critic": SMALL, "sequence_length": 1}),
    "choices with memory": (Choices(3), {"n_step": 2}),
}


@pytest.fixture(scope="module")
def computed():
    """Targets, actor loss and entropy of every case, and what they were computed from."""
    key, rng, cases = jax.random.key(7), np.random.default_rng(3), {}
    for name, (actions, changes) in CASES.items():
        config = RECURRENT.model_copy(update=changes)
        steps, nets = config.sequence_length, nets_of(config, actions)
        params = random_like(jax.eval_shape(nets.init, key, 0.3))._replace(log_alpha=jnp.log(0.3))
        target = random_like(params.critics, seed=5)
        terminated = (np.arange(steps)[:, None] == steps - 1) & (np.arange(6) < 3)
        action, legal = rng.uniform(-1, 0.5, (steps, 6, 1)), None
        if isinstance(actions, Choices):
            action = np.eye(3)[rng.integers(0, 3, (steps, 6))]
            legal = rng.random((steps + 1, 6, 3)) < 0.6
            legal[..., 1] = True
            legal = jnp.asarray(legal)
        batch = Sequences(*(jnp.asarray(x, jnp.float32) for x in (
            rng.normal(size=(steps + 1, 6, 3)), action, rng.normal(size=(steps, 6)),
        )), jnp.asarray(terminated), legal)  # fmt: skip
        noise = jnp.asarray(rng.normal(size=(2, steps, 6, actions.dim)), jnp.float32)
        cases[name] = config, actions, nets, params, target, batch, noise

    def one(config, actions, nets, params, target, batch, noise):
        y = sac.targets(config, nets, params, target, batch, sac.hparams_of(config, actions), noise[0])
        history = nets.critics.history(params.critics, batch.obs[:-1], batch.action)
        loss = sac.actor_loss(
            config, nets, params.actor, params.critics, params.log_alpha, history, batch, noise[1]
        )  # fmt: skip
        return y, *loss

    def run(arrays):
        return {name: one(*case[:3], *arrays[name]) for name, case in cases.items()}

    results = jax.device_get(jax.jit(run)({name: case[3:] for name, case in cases.items()}))
    return {name: (*case, results[name]) for name, case in cases.items()}


@pytest.mark.parametrize("case", CASES)
def test_targets_equal_a_plain_loop(case, computed):
    """r + gamma (1 - terminated) (Q - alpha log pi), with the present policy and the target critics."""
    config, actions, _, params, target, batch, noise, (y, _, _) = computed[case]
    critics = [jax.tree.map(lambda x, i=i: np.asarray(x[i]), target) for i in range(2)]
    value = np.zeros(batch.reward.shape)
    for t, n in np.ndindex(*value.shape):
        obs, past = np.asarray(batch.obs[: t + 2, n], np.float64), np.asarray(batch.action[: t + 1, n], np.float64)
        legal = None if batch.legal is None else np.asarray(batch.legal[t + 1, n])
        value[t, n], _ = plain_soft_value(
            config, actions, params.actor, critics, obs, past, legal, 0.3, np.asarray(noise[0, t, n]),
            config.target_value,
        )  # fmt: skip
    np.testing.assert_allclose(y, plain_returns(config, batch, value), atol=5e-5)


@pytest.mark.parametrize("case", CASES)
def test_actor_loss_equals_a_plain_loop(case, computed):
    """-(Q - alpha log pi), a mean over steps and items; and the entropy that the temperature sees."""
    config, actions, _, params, _, batch, noise, (_, loss, entropy) = computed[case]
    critics = [jax.tree.map(lambda x, i=i: np.asarray(x[i]), params.critics) for i in range(2)]
    values = np.zeros((*batch.reward.shape, 2))
    for t, n in np.ndindex(*batch.reward.shape):
        obs, past = np.asarray(batch.obs[: t + 1, n], np.float64), np.asarray(batch.action[:t, n], np.float64)
        legal = None if batch.legal is None else np.asarray(batch.legal[t, n])
        values[t, n] = plain_soft_value(
            config, actions, params.actor, critics, obs, past, legal, 0.3, np.asarray(noise[1, t, n]),
            config.actor_value,
        )  # fmt: skip
    np.testing.assert_allclose(loss, -values[..., 0].mean(), rtol=1e-4)
    np.testing.assert_allclose(entropy, values[..., 1], atol=5e-5)


@pytest.mark.parametrize("case", ["days, 3 steps, mean", "choices with memory"])
def test_the_actor_loss_does_not_reach_into_the_history(case, computed):
    config, _, nets, params, _, batch, noise, _ = computed[case]

    @jax.jit
    def gradients(params):
        history = nets.critics.history(params.critics, batch.obs[:-1], batch.action)
        loss = lambda actor, history: sac.actor_loss(  # noqa: E731
            config, nets, actor, params.critics, params.log_alpha, history, batch, noise[1]
        )[0]
        return jax.grad(loss, (0, 1))(params.actor, history)

    actor, history = gradients(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(actor))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(history))


# The temperature


@pytest.mark.parametrize(("entropy", "sign"), [(-3.0, -1), (1.0, 1)])
def test_too_little_entropy_raises_the_temperature_and_too_much_lowers_it(entropy, sign):
    """Against the target -2, two of four agents in play: the gradient is the mean excess of those two."""
    alive = jnp.array([[True, False, True, False]])
    entropies = jnp.array([[entropy, 99.0, entropy, 99.0]])
    gradient = jax.grad(temperature_loss)(jnp.log(0.2), entropies, -2.0, alive)
    assert float(gradient) == pytest.approx(entropy + 2.0)
    assert np.sign(gradient) == sign


def run_of_temperature(**changes):
    """Temperatures before and after three updates with the learning rate 0.1."""
    run = Run(sac, FEED_FORWARD.model_copy(update={"alpha_lr": 0.1, **changes}), updates=3)
    return [float(np.exp(state.learner.params.log_alpha)) for state in run.history]


@pytest.mark.slow
def test_the_temperature_of_a_run_moves_towards_the_target():
    low, high = run_of_temperature(target_entropy=-50.0), run_of_temperature(target_entropy=50.0)
    assert low[0] == high[0] == pytest.approx(0.1)
    assert (np.diff(low) < 0).all() and (np.diff(high) > 0).all()
    fixed = run_of_temperature(learn_alpha=False)
    assert fixed == [fixed[0]] * 4


def test_entropy_targets():
    """Minus the components of a range; half the logarithm of the number of legal choices; or as the user says."""
    wanted = lambda config, actions: sac.hparams_of(config, actions)  # noqa: E731
    box = Actions(-np.ones(2), np.ones(2), np.ones(2), sigmoid=False)
    assert (float(wanted(FEED_FORWARD, box).target_entropy), float(wanted(FEED_FORWARD, box).target_entropy_share)) == (
        -2.0,
        0.0,
    )
    legal = jnp.array([[[True, True, False], [True, False, False]]] * 2)
    batch = Sequences(jnp.zeros((2, 2, 3)), jnp.zeros((1, 2, 3)), jnp.zeros((1, 2)), jnp.zeros((1, 2), bool), legal)
    nets = nets_of(FEED_FORWARD, Choices(3))
    asked = lambda config: float(  # noqa: E731
        sac.alpha_loss(nets, jnp.asarray(0.0), jnp.zeros((1, 2)), batch, sac.hparams_of(config, Choices(3)))[1]
    )
    assert asked(FEED_FORWARD) == pytest.approx(0.5 * np.log(2) / 2)
    assert asked(FEED_FORWARD.model_copy(update={"target_entropy": 0.7})) == pytest.approx(0.7)


# Every key acts

TRACED = {
    "gamma": 0.5, "tau": 0.5, "actor_lr": 0.1, "critic_lr": 0.1, "alpha_lr": 0.1, "target_entropy": 3.0,
    "noise_correlation": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("name", TRACED)
def test_every_traced_number_changes_the_update(name, recurrent):
    """In the program that is already compiled: a sweep needs no other."""
    state = recurrent.history[3]
    changed = state.replace(hparams=state.hparams.replace(**{name: jnp.asarray(TRACED[name], jnp.float32)}))
    before, _ = recurrent.update(copied(state))
    after, _ = recurrent.update(copied(changed))
    if name == "noise_correlation":
        assert not trees_equal(before.ring, after.ring)
    assert not trees_equal(before.replace(hparams=after.hparams), after)


def test_traced_numbers_of_the_start_and_of_choices(feed_forward, choices):
    hparams = feed_forward.algorithm.hparams.replace(initial_alpha=jnp.asarray(0.7, jnp.float32))
    state = feed_forward.init(0, hparams)
    assert float(jnp.exp(state.learner.params.log_alpha)) == pytest.approx(0.7)
    state = choices.history[1]
    more = state.replace(hparams=state.hparams.replace(target_entropy_share=jnp.asarray(0.9, jnp.float32)))
    alphas = [choices.update(copied(s))[1]["target_entropy"] for s in (state, more)]
    assert alphas[1] / alphas[0] == pytest.approx(0.9 / 0.5)


BASES = {"transitions": FEED_FORWARD, "days": RECURRENT}
STATIC = {
    "total_env_steps": ("transitions", {"total_env_steps": 64, "lr_schedule": Schedule(type="cosine")}),
    "num_envs": ("transitions", {"num_envs": 8}),
    "steps_per_update": ("transitions", {"steps_per_update": 8}),
    "sequence_length": ("transitions", {"sequence_length": T}),
    "updates_per_step": ("transitions", {"updates_per_step": 0.25}),
    "warmup_steps": ("transitions", {"warmup_steps": 32}),
    "buffer_size": ("transitions", {"buffer_size": 96}),
    "replay_dtype": ("transitions", {"replay_dtype": "float16"}),
    "batch_size": ("transitions", {"batch_size": 6}),
    "n_step": ("transitions", {"n_step": 2}),
    "policy_delay": ("transitions", {"policy_delay": 2}),
    "lr_schedule": ("transitions", {"lr_schedule": Schedule(type="step")}),
    "optimizer": ("transitions", {"optimizer": "rmsprop"}),
    "max_grad_norm": ("transitions", {"max_grad_norm": 7.0}),
    "target_value": ("transitions", {"target_value": "mean"}),
    "actor_value": ("transitions", {"actor_value": "q1"}),
    "critic_arch": ("days", {"critic_arch": "concat"}),
    "critic_preview": ("transitions", {"critic_preview": True}),
    "learn_alpha": ("transitions", {"learn_alpha": False}),
    "log_std_min": ("transitions", {"log_std_min": -3.0}),
    "log_std_max": ("transitions", {"log_std_max": 1.0}),
    "guided_warmup": ("transitions", {"guided_warmup": True}),
    "actor": ("transitions", {"actor": NetworkConfig(hidden_sizes=(5,))}),
    "critic": ("transitions", {"critic": NetworkConfig(hidden_sizes=(4,), activation="tanh")}),
}


@pytest.fixture(scope="module")
def programs():
    """What is traced for a configuration: the whole text of `init` and `update`."""
    known = {}

    def program(config) -> str:
        if config not in known:
            algorithm = with_data(sac.make(config, marker_world()))
            trace = jax.make_jaxpr(algorithm.init, return_shape=True)
            init, state = trace(jax.random.key(0), algorithm.hparams)
            known[config] = str(init) + str(jax.make_jaxpr(algorithm.update)(state))
        return known[config]

    return program


@pytest.mark.parametrize("key", STATIC)
def test_every_static_key_changes_the_program(key, programs):
    base, changes = STATIC[key]
    changed = sac.Config(**{**BASES[base].model_dump(), **changes})
    reference = BASES[base]
    if key == "total_env_steps":  # compared with the same schedule
        reference = reference.model_copy(update={"lr_schedule": Schedule(type="cosine")})
    assert programs(changed) != programs(reference)


def test_no_key_is_left_out():
    others = {"initial_alpha", "target_entropy_share"}  # tested by themselves
    assert set(TRACED) | set(STATIC) | others == set(sac.Config.model_fields) - {"name"}


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor": SMALL_LSTM}, "recurrent networks need sequence_length"),
        ({"sequence_length": 3}, "steps_per_update must equal"),
        ({"updates_per_step": 0.01}, "gives no gradient update per update call"),
        ({"log_std_min": 3.0}, "below log_std_max"),
        ({"target_entropy": "half"}, "target_entropy"),
        ({"batchsize": 3}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        sac.Config(**{**FEED_FORWARD.model_dump(), **changes})


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"sequence_length": 2, "steps_per_update": 2}, marker_world(), "episodes of 4 steps"),
        ({}, marker_world(Box(-np.inf, np.inf, (1,))), "bounded action space"),
        ({"critic_preview": True}, marker_world(guidance=Guidance()), "offers no preview"),
        ({"noise_correlation": 0.5}, choice_world(), "not choices"),
    ],
)
def test_environments_that_do_not_fit_are_refused(changes, world, message):
    with pytest.raises(ValueError, match=message):
        with_data(sac.make(FEED_FORWARD.model_copy(update=changes), world))
