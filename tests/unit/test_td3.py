"""TD3: what is stored, targets and losses against plain loops, every key, and the rules of a traced algorithm."""

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
    copied,
    marker_world,
    plain_actor,
    plain_q,
    plain_returns,
    random_like,
    trees_equal,
)
from shared import with_data

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Guidance
from envs_jax.spaces import Box, Discrete
from purerl.algos import td3
from purerl.learn.buffers import Sequences, sample_indices, take
from purerl.learn.optimizers import Schedule
from purerl.learn.twin_critics import critic_loss
from purerl.nets.actions import Actions, action_range
from purerl.nets.critics import Critics
from purerl.nets.networks import NetworkConfig

FEED_FORWARD = td3.Config(
    num_envs=4, steps_per_update=T, sequence_length=1, updates_per_step=0.125, warmup_steps=16, buffer_size=48,
    batch_size=5, gamma=0.9, actor_lr=1e-2, critic_lr=1e-2, actor=SMALL, critic=SMALL,
)  # fmt: skip
RECURRENT = FEED_FORWARD.model_copy(
    update={
        "sequence_length": T,
        "actor": SMALL_LSTM,
        "critic": SMALL_LSTM,
        "critic_only_updates": 2,
        "exploration": td3.Exploration(initial_noise_std=0.5, final_noise_std=0.1, noise_decay_env_steps=64),
    }
)
"""Two gradient updates per call, so one actor and one target update; twelve days of replay; four days per call."""


def nets_of(config, preview=None, preview_size=0) -> td3.Nets:
    """Networks for the marker world."""
    return td3.networks(config, Critics(config.critic, config.critic_arch, 3, 1, preview, preview_size=preview_size))


# A run


@pytest.fixture(scope="module")
def recurrent():
    return Run(td3, RECURRENT, updates=5)


@pytest.fixture(scope="module")
def feed_forward():
    return Run(td3, FEED_FORWARD, updates=3)


def test_stored_and_sampled_sequences_never_cross_a_day(recurrent):
    """Through warm-up, collection and overwriting of the ring: five pushes into room for three."""
    for updates, state in enumerate(recurrent.history):
        filled = min(4 * (updates + 1), 12)
        assert int(state.ring.size) == filled
        check_days(jax.tree.map(lambda x, n=filled: np.asarray(x)[:, :n], state.ring.data))
        check_days(take(state.ring, sample_indices(state.ring, jax.random.key(updates), (64,))))
    days = [set(np.asarray(state.ring.data.obs)[0, :, 0, 0].tolist()) for state in recurrent.history]
    assert len(days[-1]) > 8
    assert not days[0] - {0.0} & days[-1], "the oldest days are gone"


def test_transitions_end_with_the_final_observation(feed_forward):
    """Also in the last hour, where the environment has reset itself."""
    data = feed_forward.history[-1].ring.data
    before, after = np.asarray(data.obs)[:, :, 0]
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    np.testing.assert_array_equal(before[:, 1] + 1, after[:, 1])
    np.testing.assert_array_equal(after[:, 2], 2 * np.asarray(data.action)[0, :, 0, 0])
    np.testing.assert_array_equal(np.asarray(data.terminated)[0], after[:, 1] == T)


def test_acting_step_by_step_equals_the_unroll(recurrent):
    algorithm, state = recurrent.algorithm, recurrent.history[-1]
    policy = random_like(algorithm.policy(state), seed=1)
    obs = jnp.asarray(np.random.default_rng(2).normal(size=(T, 6, 1, 3)), jnp.float32)
    nets = nets_of(RECURRENT)

    @jax.jit
    def both(policy, obs):
        carry, actions = algorithm.initial_carry((6,)), []
        for t in range(T):
            action, carry = algorithm.act(policy, carry, obs[t], None, None, True)
            actions.append(action)
        return jnp.stack(actions), 2 * jnp.tanh(nets.actor(policy.actor, obs[:, :, 0]))

    stepped, unrolled = both(policy, obs)
    np.testing.assert_allclose(stepped[:, :, 0], unrolled, atol=1e-5)
    assert np.abs(np.diff(stepped, axis=0)).max() > 0.01


def test_the_actor_waits_for_the_critics_and_targets_follow(recurrent):
    """`critic_only_updates` = 2 is one call; then Polyak averaging, once per block."""
    first, second, third = (jax.device_get(state.learner) for state in recurrent.history[:3])
    chex.assert_trees_all_equal(first.params.actor, second.params.actor)
    assert not trees_equal(second.params.actor, third.params.actor)
    assert not trees_equal(first.params.critics, second.params.critics)
    tau = RECURRENT.tau
    for before, after in ((first, second), (second, third)):
        mixed = jax.tree.map(lambda old, new: (1 - tau) * old + tau * new, before.target, after.params)
        chex.assert_trees_all_close(after.target, mixed, atol=1e-6)


def test_one_actor_update_per_policy_delay(recurrent):
    """The optimisers count their own steps."""
    optimizer = recurrent.history[3].learner.optimizer
    counts = lambda part: [int(leaf) for leaf in jax.tree.leaves(part) if leaf.dtype == jnp.int32]  # noqa: E731
    assert (counts(optimizer.actor), counts(optimizer.critics)) == ([3], [6])
    assert int(recurrent.history[3].learner.gradient_steps) == 6
    assert int(recurrent.history[3].updates) == 3


def test_noise_decays_after_the_warm_up(recurrent):
    """From 0.5 to 0.1 over 64 environment steps, 16 per call."""
    np.testing.assert_allclose([m["noise_std"] for m in recurrent.metrics], [0.5, 0.4, 0.3, 0.2, 0.1], atol=1e-6)


def test_start_bias_is_the_error_about_the_collected_days(recurrent):
    before, after = recurrent.history[3], recurrent.history[4]
    days = jax.tree.map(lambda x: np.asarray(x)[:, 4:8], after.ring.data)  # items of the fifth push
    obs, policy = days.obs[:1, :, 0], recurrent.algorithm.policy(before)
    action, _ = recurrent.algorithm.act(policy, recurrent.algorithm.initial_carry((4,)), days.obs[0], None, None, True)
    promised = np.mean(recurrent.algorithm.q_values(policy, obs, action[None, :, 0], None))
    earned = np.mean(np.sum(days.reward, axis=0))
    np.testing.assert_allclose(recurrent.metrics[3]["q_start_bias"], promised - earned, atol=1e-5)


def test_metrics_are_finite_scalars(recurrent, feed_forward):
    for metrics in (*recurrent.metrics, *feed_forward.metrics):
        for name, value in metrics.items():
            assert np.shape(value) == () and np.isfinite(value), name
    assert recurrent.metrics[-1]["episode/count"] == 4


# Traced programs


def test_an_update_is_traced_once(recurrent):
    """`assert_max_traces` in `Run` raises at the second; this is a call with other numbers and another seed."""
    state = recurrent.init(5)
    state = state.replace(hparams=state.hparams.replace(gamma=jnp.asarray(0.5, jnp.float32)))
    state, _ = recurrent.update(state)
    assert int(state.updates) == 1


def test_donated_state_shares_no_buffer(recurrent):
    """Neither twice within the state nor with the numbers that the caller keeps."""
    hparams = recurrent.algorithm.hparams
    state = recurrent.init(6)
    buffers = [getattr(leaf, "_base_array", leaf).unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, hparams))]
    assert len(set(buffers)) == len(buffers)
    recurrent.update(state)
    assert jax.tree.leaves(state.ring)[0].is_deleted()
    assert float(hparams.gamma) == pytest.approx(0.9)


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


def plain_targets(config, actions, target, batch, noise) -> np.ndarray:
    """Targets [T, N] step by step: every network starts from the first observation for every single target."""
    steps, size = batch.reward.shape
    value = np.zeros((steps, size))
    critics = [jax.tree.map(lambda x, i=i: np.asarray(x[i]), target.critics) for i in range(2)]
    for n in range(size):
        obs, past = np.asarray(batch.obs[:, n], np.float64), np.asarray(batch.action[:, n], np.float64)
        for t in range(steps):
            raw = plain_actor(config, target.actor, obs[: t + 2])
            clipped = np.clip(noise[t, n], -config.noise_clip, config.noise_clip)
            action = np.clip(np.asarray(actions.squash(raw), np.float64) + clipped, actions.low, actions.high)
            both = [plain_q(config, critic, obs[: t + 2], past[: t + 1], action) for critic in critics]
            value[t, n] = min(both) if config.target_value == "min" else sum(both) / 2
    y = plain_returns(config, batch, value)
    return y if config.target_clip is None else np.clip(y, -config.target_clip, config.target_clip)


TARGET_CASES = {
    "history": {},
    "history, 3 steps, mean": {"n_step": 3, "target_value": "mean"},
    "history, Monte Carlo": {"n_step": 24, "gamma": 1.0},
    "concat": {"critic_arch": "concat"},
    "concat, clipped": {"critic_arch": "concat", "n_step": 2, "target_clip": 0.7},
    "feed-forward": {"actor": SMALL, "critic": SMALL},
    "transitions": {"actor": SMALL, "critic": SMALL, "sequence_length": 1, "target_value": "mean"},
}


@pytest.fixture(scope="module")
def computed_targets():
    """Targets of every case, of `sequence_length` steps and six items, and what they were computed from."""
    actions = action_range(with_agent_axis(marker_world()), None, "auto")
    key, rng = jax.random.key(7), np.random.default_rng(3)
    cases = {}
    for name, changes in TARGET_CASES.items():
        config = RECURRENT.model_copy(update=changes)
        steps, nets = config.sequence_length, nets_of(config)
        target = random_like(jax.eval_shape(nets.init, key))
        # Three items end in termination, three are cut off: their last observation keeps its value.
        terminated = (np.arange(steps)[:, None] == steps - 1) & (np.arange(6) < 3)
        batch = Sequences(*(jnp.asarray(x, jnp.float32) for x in (
            rng.normal(size=(steps + 1, 6, 3)), rng.uniform(-1, 1, (steps, 6, 1)), rng.normal(size=(steps, 6)),
        )), jnp.asarray(terminated))  # fmt: skip
        cases[name] = config, nets, target, batch

    def one(config, nets, target, batch):
        noise = jax.random.normal(key, batch.action.shape)
        return td3.targets(config, nets, actions, target, batch, td3.hparams_of(config), noise)

    def run(inputs):
        return {name: one(config, nets, *inputs[name]) for name, (config, nets, _, _) in cases.items()}

    inputs = {name: (target, batch) for name, (_, _, target, batch) in cases.items()}
    with jax.debug_key_reuse(False):  # the same noise in every case
        y = jax.jit(run)(inputs)
    return {name: (*case, actions, key, np.asarray(y[name])) for name, case in cases.items()}


@pytest.mark.parametrize("case", TARGET_CASES)
def test_targets_equal_a_plain_loop(case, computed_targets, same_keys):
    config, _, target, batch, actions, key, y = computed_targets[case]
    noise = config.target_noise * np.asarray(jax.random.normal(key, batch.action.shape))
    assert (np.abs(noise) > config.noise_clip).any()
    np.testing.assert_allclose(y, plain_targets(config, actions, target, batch, noise), atol=2e-5)


def test_truncated_days_keep_the_value_of_their_last_observation(computed_targets):
    _, _, _, batch, _, _, y = computed_targets["history"]
    np.testing.assert_allclose(y[-1, :3], batch.reward[-1, :3])
    assert (np.abs(y[-1, 3:] - batch.reward[-1, 3:]) > 1e-3).all()


def test_monte_carlo_targets_of_terminated_days_are_their_returns(computed_targets):
    """With 24 steps or more no network has a say."""
    _, _, _, batch, _, _, y = computed_targets["history, Monte Carlo"]
    returns = np.cumsum(np.asarray(batch.reward)[::-1], axis=0)[::-1]
    np.testing.assert_allclose(y[:, :3], returns[:, :3], atol=1e-5)


@pytest.mark.parametrize("case", ["history", "concat", "feed-forward"])
def test_critics_equal_a_plain_loop(case, computed_targets):
    """Values along the sequences, and the loss: mean square over batch, steps and both heads."""
    config, nets, params, batch, _, _, y = computed_targets[case]
    loss, (q, _) = jax.jit(lambda p, b: critic_loss(nets.critics, p, b, y))(params.critics, batch)
    obs, action = np.asarray(batch.obs, np.float64), np.asarray(batch.action, np.float64)
    expected = np.zeros((2, T, 6))
    for i in range(2):
        critic = jax.tree.map(lambda x, i=i: x[i], params.critics)
        for t in range(T):
            for n in range(6):
                expected[i, t, n] = plain_q(config, critic, obs[: t + 1, n], action[:t, n], action[t, n])
    np.testing.assert_allclose(q, expected, atol=2e-5)
    np.testing.assert_allclose(loss, np.mean((expected - y) ** 2), rtol=1e-4)


@pytest.mark.parametrize("case", ["history", "concat"])
def test_another_action_changes_the_value_of_its_own_step_only(case, computed_targets):
    """The history holds what was done; the actor's loss asks about one step at a time."""
    _, nets, params, batch, _, _, _ = computed_targets[case]

    @jax.jit
    def values(change):
        history = nets.critics.history(params.critics, batch.obs[:-1], batch.action)
        return nets.critics.q(params.critics, history, batch.obs[:-1], batch.action + change)

    changed = np.asarray(values(jnp.zeros_like(batch.action).at[1].set(0.5)) != values(jnp.zeros_like(batch.action)))
    assert changed[:, 1].any()
    assert not changed[:, [0, 2, 3]].any()


def constant_networks(value: tuple[float, float], raw: float):
    """Networks whose output does not depend on their input: critics that say `value`, an actor that says `raw`."""
    nets = nets_of(FEED_FORWARD)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), jax.eval_shape(nets.init, jax.random.key(0)))
    zeros.critics["head"]["params"]["_Linear_1"]["bias"] = jnp.array(value)[:, None]
    zeros.actor["head"]["params"]["_Linear_1"]["bias"] = jnp.array([raw])
    return nets, zeros


ONE_STEP = Sequences(jnp.zeros((2, 2, 3)), jnp.zeros((1, 2, 1)), jnp.zeros((1, 2)), jnp.zeros((1, 2), bool))
SIGNED = Actions(np.array([-1.0]), np.array([1.0]), np.array([1.0]), sigmoid=False)


def test_critic_loss_by_hand():
    """Heads that say 1 and 3, targets 2 and 4: squares 1, 9, 1, 1."""
    nets, params = constant_networks((1.0, 3.0), 0.0)
    loss, _ = critic_loss(nets.critics, params.critics, ONE_STEP, jnp.array([[2.0, 4.0]]))
    assert float(loss) == pytest.approx((1 + 9 + 1 + 1) / 4)


@pytest.mark.parametrize(("how", "value"), [("min", 1.0), ("mean", 2.0), ("q1", 1.0)])
def test_actor_loss_by_hand(how, value):
    """Less the value, plus 0.3 times the squared excess of the output 2.5 over 1.5; tanh(2.5) counts as saturated."""
    nets, params = constant_networks((1.0, 3.0), 2.5)
    config = FEED_FORWARD.model_copy(update={"actor_value": how})
    history = nets.critics.history(params.critics, ONE_STEP.obs[:-1], ONE_STEP.action)
    loss, saturated = td3.actor_loss(
        config, nets, SIGNED, params.actor, params.critics, history, ONE_STEP, jnp.asarray(0.3)
    )
    assert float(loss) == pytest.approx(0.3 - value)
    assert float(saturated) == 1.0


def test_the_actor_may_ask_the_first_critic_alone():
    nets, params = constant_networks((3.0, 1.0), 0.0)
    values = {
        how: float(td3.actor_loss(FEED_FORWARD.model_copy(update={"actor_value": how}), nets, SIGNED, params.actor,
                                  params.critics, jnp.zeros((2, 1, 2, 3)), ONE_STEP, 0.0)[0])
        for how in ("min", "q1")
    }  # fmt: skip
    assert values == {"min": -1.0, "q1": -3.0}


def test_the_actor_loss_does_not_reach_into_the_history(computed_targets):
    config, nets, params, batch, actions, _, _ = computed_targets["history"]

    def loss(actor, critics, history):
        return td3.actor_loss(config, nets, actions, actor, critics, history, batch, 0.0)[0]

    @jax.jit
    def gradients(params):
        history = nets.critics.history(params.critics, batch.obs[:-1], batch.action)
        return jax.grad(loss, (0, 1, 2))(params.actor, params.critics, history)

    actor, critics, history = gradients(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(actor))
    assert not np.any(history)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(critics["core"]))


# Schedules


def test_learning_rate_schedules():
    """One environment step here is an eighth of a gradient step."""

    def factor(schedule, steps):
        config = FEED_FORWARD.model_copy(update={"lr_schedule": Schedule(**schedule), "total_env_steps": 800})
        return float(config.learning_rate_factor(steps))

    assert factor({}, 10**6) == 1
    step = {"type": "step", "decay_factor": 0.5, "decay_env_steps": 160}
    assert [factor(step, n) for n in (0, 19, 20, 40)] == [1, 1, 0.5, 0.25]
    cosine = {"type": "cosine", "final_factor": 0.1}
    np.testing.assert_allclose([factor(cosine, n) for n in (0, 50, 100, 999)], [1, 0.55, 0.1, 0.1], rtol=1e-6)


# Every key acts

TRACED = {
    "gamma": 0.5, "tau": 0.5, "actor_lr": 0.1, "critic_lr": 0.1, "target_noise": 0.0, "noise_clip": 0.0,
    "initial_noise_std": 0.0, "final_noise_std": 0.0, "saturation_penalty": 100.0,
}  # fmt: skip


@pytest.mark.parametrize("name", TRACED)
def test_every_traced_number_changes_the_update(name, recurrent):
    """In the program that is already compiled: a sweep needs no other."""
    state = recurrent.history[4]
    if name == "saturation_penalty":  # acts on outputs beyond the threshold only
        actor = jax.tree.map(jnp.copy, state.learner.params.actor)
        actor["head"]["params"]["_Linear_1"]["bias"] += 3.0
        learner = state.learner.replace(params=state.learner.params._replace(actor=actor))
        state = state.replace(learner=learner)
    assert hasattr(state.hparams, name)
    changed = state.replace(hparams=state.hparams.replace(**{name: jnp.asarray(TRACED[name], jnp.float32)}))
    before, _ = recurrent.update(copied(state))
    after, _ = recurrent.update(copied(changed))
    same = before.replace(hparams=after.hparams)
    assert not trees_equal(same, after)


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
    "n_step": ("days", {"n_step": 2}),
    "policy_delay": ("transitions", {"policy_delay": 1}),
    "lr_schedule": ("transitions", {"lr_schedule": Schedule(type="step")}),
    "lr_schedule.decay_factor": ("transitions", {"lr_schedule": Schedule(type="step", decay_factor=0.1)}),
    "lr_schedule.decay_env_steps": ("transitions", {"lr_schedule": Schedule(type="step", decay_env_steps=3)}),
    "lr_schedule.final_factor": ("transitions", {"lr_schedule": Schedule(type="cosine", final_factor=0.5)}),
    "optimizer": ("transitions", {"optimizer": "rmsprop"}),
    "max_grad_norm": ("transitions", {"max_grad_norm": 7.0}),
    "target_value": ("transitions", {"target_value": "mean"}),
    "actor_value": ("transitions", {"actor_value": "q1"}),
    "target_clip": ("transitions", {"target_clip": 1.0}),
    "saturation_threshold": ("transitions", {"saturation_threshold": 0.5}),
    "critic_only_updates": ("transitions", {"critic_only_updates": 3}),
    "critic_arch": ("days", {"critic_arch": "concat"}),
    "critic_preview": ("transitions", {"critic_preview": True}),
    "output_activation": ("transitions", {"output_activation": "sigmoid"}),
    "actor": ("transitions", {"actor": NetworkConfig(hidden_sizes=(5,))}),
    "critic": ("transitions", {"critic": NetworkConfig(hidden_sizes=(4,), activation="tanh")}),
    "critic.lstm_skip": ("days", {"critic": NetworkConfig(lstm_hidden_size=4, hidden_sizes=(4,), lstm_skip=True)}),
    "exploration": ("transitions", {"exploration": td3.Exploration(noise_decay_env_steps=99)}),
    "exploration.guided_warmup": ("transitions", {"exploration": td3.Exploration(guided_warmup=True)}),
}


@pytest.fixture(scope="module")
def programs():
    """What is traced for a configuration: the whole text of `init` and `update`."""
    known = {}

    def program(config) -> str:
        if config not in known:
            algorithm = with_data(td3.make(config, marker_world()))
            trace = jax.make_jaxpr(algorithm.init, return_shape=True)
            init, state = trace(jax.random.key(0), algorithm.hparams)
            known[config] = str(init) + str(jax.make_jaxpr(algorithm.update)(state))
        return known[config]

    return program


@pytest.mark.parametrize("key", STATIC)
def test_every_static_key_changes_the_program(key, programs):
    base, changes = STATIC[key]
    changed = td3.Config(**{**BASES[base].model_dump(), **changes})
    reference = BASES[base]
    if (
        key.startswith("lr_schedule.") or key == "total_env_steps"
    ):  # compared with the same schedule as it is by default
        kind = changed.lr_schedule.type
        reference = reference.model_copy(update={"lr_schedule": Schedule(type=kind)})
    assert programs(changed) != programs(reference)


def test_no_key_is_left_out():
    exploration = {"initial_noise_std", "final_noise_std"}  # traced, through `exploration`
    assert set(TRACED) - exploration | {key.split(".")[0] for key in STATIC} == set(td3.Config.model_fields) - {"name"}


def test_preview_is_added_to_what_the_critics_learn():
    """With zero weights the value is the previewed reward."""
    config = FEED_FORWARD.model_copy(update={"critic_preview": True})
    preview = lambda obs, action, params: jnp.concatenate([obs[..., :1] + action, action], axis=-1)  # noqa: E731
    nets = nets_of(config, preview, preview_size=2)
    params = jax.tree.map(lambda s: jnp.zeros(s.shape), jax.eval_shape(nets.init, jax.random.key(0)))
    obs, action = jnp.full((1, 2, 3), 2.0), jnp.full((1, 2, 1), 0.5)
    np.testing.assert_allclose(nets.critics.along(params.critics, obs, action), 2.5)


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor": SMALL_LSTM}, "recurrent networks need sequence_length"),
        ({"sequence_length": 3}, "steps_per_update must equal"),
        ({"updates_per_step": 0.19}, "positive multiple of policy_delay"),
        ({"updates_per_step": 0.01}, "gives no gradient update per update call"),
        ({"batchsize": 3}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        td3.Config(**{**FEED_FORWARD.model_dump(), **changes})


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({"sequence_length": 2, "steps_per_update": 2}, marker_world(), "episodes of 4 steps"),
        ({}, marker_world(Discrete(3)), "continuous actions"),
        ({}, marker_world(Box(-np.inf, np.inf, (1,))), "bounded action space"),
        ({"critic_preview": True}, marker_world(guidance=Guidance()), "offers no preview"),
    ],
)
def test_environments_that_do_not_fit_are_refused(changes, world, message):
    with pytest.raises(ValueError, match=message):
        with_data(td3.make(FEED_FORWARD.model_copy(update=changes), world))
