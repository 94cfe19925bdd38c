"""APG: its gradient against finite differences, closed forms and itself; windows; the rules of a traced algorithm."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from shared import with_data

from envs_jax.base import Assessment, Column, Environment
from envs_jax.spaces import Box, Discrete
from purerl.algos import apg
from purerl.errors import ConfigError
from purerl.learn.optimizers import Schedule
from purerl.nets.networks import Network, NetworkConfig, initial_carry

LINEAR = NetworkConfig(hidden_sizes=())
SMALL = NetworkConfig(hidden_sizes=(4,), activation="tanh")
MEMORY = NetworkConfig(lstm_hidden_size=4, hidden_sizes=(4,), activation="tanh")
LENGTH = 3


def spring_world(length: int | None = LENGTH, cut: str = "terminated", observe=None, **changes) -> Environment:
    """A point pulled by the action: x' = 0.9 x + 0.5 a, reward -(x^2 + a^2 / 2); starts at random.

    `observe(x, step)` is the observation; episodes end after `length` steps by a termination or a truncation.
    """
    observe = observe or (lambda x, step: jnp.stack([x, step / 4]))

    def seen(state):
        return observe(state[0], state[1].astype(state[0].dtype))

    def reset_env(key, params):
        state = (jax.random.normal(key, ()), jnp.zeros((), jnp.int32))
        return seen(state), state

    def step_env(key, state, action, params):
        x, step = state
        reward = -(x**2 + 0.5 * action[0] ** 2)
        state = (0.9 * x + 0.5 * action[0], step + 1)
        ends = jnp.zeros((), bool) if length is None else step + 1 == length
        flags = (ends & (cut == "terminated"), ends & (cut == "truncated"))
        return seen(state), state, reward, *flags, {"position": state[0]}

    size = jax.eval_shape(lambda: observe(jnp.zeros(()), jnp.zeros(()))).shape
    world = {
        "name": "spring",
        "default_params": None,
        "reset_env": reset_env,
        "step_env": step_env,
        "observation_space": lambda params: Box(-10.0, 10.0, size),
        "action_space": lambda params: Box(-10.0, 10.0, (1,)),
        "episode_length": length,
        "differentiable": True,
        "assessment": Assessment(columns={"position": Column("position")}),
    }
    return Environment(**{**world, **changes})


EPISODES = apg.Config(
    num_envs=4, steps_per_update=LENGTH, bootstrap=False, gamma=0.9, lr=1e-2, actor=SMALL, total_env_steps=1200
)
WINDOWS = EPISODES.model_copy(
    update={
        "bootstrap": True,
        "steps_per_update": 5,
        "noise_std": 0.1,
        "normalize_obs": True,
        "critic": SMALL,
        "critic_epochs": 2,
        "critic_minibatches": 2,
    }
)
RECURRENT = WINDOWS.model_copy(update={"actor": MEMORY, "critic": MEMORY, "normalize_obs": False})
KINDS = {"episodes": EPISODES, "windows": WINDOWS, "recurrent": RECURRENT}


def started(config, env, seed=0):
    """`(bound, state)` at the start of a run."""
    algorithm = with_data(apg.make(config, env))
    return apg.bind(config, env, env.default_params), jax.jit(algorithm.init)(jax.random.key(seed), algorithm.hparams)


def loss_of(bound, state, key=None):
    """The actor's loss as a function of its parameters."""
    key = jax.random.key(7) if key is None else key
    return lambda params: apg.actor_loss(params, bound, bound.env.default_params, state, key, state.hparams.noise_std)[
        0
    ]


# The gradient


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_finite_differences(kind):
    """In float64, along random directions; windows of five steps reach over the ends of episodes of three."""
    with jax.enable_x64(True):
        bound, state = started(KINDS[kind], spring_world(cut="truncated" if KINDS[kind].bootstrap else "terminated"))
        flat, unflatten = jax.flatten_util.ravel_pytree(state.actor)
        loss_and_gradient = jax.jit(jax.value_and_grad(lambda x: loss_of(bound, state)(unflatten(x))))
        gradient = loss_and_gradient(flat)[1]
        assert gradient.dtype == jnp.float64
        for direction in np.random.default_rng(0).normal(size=(3, flat.size)):
            step = 1e-4 * direction
            slope = (loss_and_gradient(flat + step)[0] - loss_and_gradient(flat - step)[0]) / 2e-4
            assert float(gradient @ direction) == pytest.approx(float(slope), rel=1e-4)


def test_whole_episodes_are_windows_of_that_length_without_value():
    """A termination cuts the bootstrap: the value at the end of an episode changes nothing."""
    bound, state = started(EPISODES, spring_world())
    valued, start = started(EPISODES.model_copy(update={"bootstrap": True}), spring_world())
    ours = jax.jit(jax.grad(loss_of(bound, state)))(state.actor)
    theirs = jax.jit(jax.grad(loss_of(valued, start.replace(actor=state.actor))))(state.actor)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)


def linear_params(kernel):
    """Parameters of a network without hidden layers, zero bias."""
    kernel = jnp.asarray(kernel, jnp.float32)[:, None]
    shapes = jax.eval_shape(Network(LINEAR, kernel.size, 1).init, jax.random.key(0))
    return jax.tree.map(lambda s: kernel if s.shape == kernel.shape else jnp.zeros(s.shape), shapes)


def test_windows_with_the_exact_value_add_up_to_the_gradient_of_all_steps():
    """Policy a = k x on the endless world: its value -P x^2 is linear in the observation (x, x^2)."""
    gain, gamma, steps = -0.4, 0.9, 4
    contraction = 0.9 + 0.5 * gain
    p = (1 + 0.5 * gain**2) / (1 - gamma * contraction**2)
    world = spring_world(None, observe=lambda x, step: jnp.stack([x, x**2]))
    config = EPISODES.model_copy(update={"bootstrap": True, "actor": LINEAR, "critic": LINEAR, "gamma": gamma})

    def window(steps, worlds=None):
        bound, state = started(config.model_copy(update={"steps_per_update": steps}), world)
        # Actions are 10 tanh(raw), so k x needs raw = k x / 10 where that is small.
        state = state.replace(
            actor=linear_params([gain / 10, 0.0]),
            critic=state.critic.replace(target=linear_params([0.0, -p])),
            worlds=jax.tree.map(lambda x: 0.1 * x if x.dtype == jnp.float32 else x, state.worlds),
        )
        state = state.replace(worlds=worlds or state.worlds.replace(obs=jax.vmap(lambda x: jnp.stack([x, x**2])[None])(
            state.worlds.state[0])))  # fmt: skip
        loss = lambda p: apg.actor_loss(p, bound, None, state, jax.random.key(7), 0.0)  # noqa: E731
        (value, (rolled, *_)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.actor)
        return steps * value, jax.tree.map(lambda g: steps * g, gradient), rolled[0]

    value, whole, _ = window(2 * steps)
    first_value, first, worlds = window(steps)
    _, second, _ = window(steps, worlds)
    assert float(value) == pytest.approx(float(first_value), rel=1e-4)
    joined = jax.tree.map(lambda a, b: a + gamma**steps * b, first, second)
    scale = float(jnp.abs(jax.tree.leaves(whole)[-1]).max())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-3 * scale), joined, whole)


def test_linear_quadratic_control_finds_the_optimal_gains():
    """One gain for every step of the episode, as the backward Riccati recursion gives them."""
    a, b, q, r, length = 0.9, 0.5, 1.0, 0.5, 4
    p, gains = 0.0, []
    for _ in range(length):
        gain = a * b * p / (r + b * b * p)
        p = q + a * a * p - a * b * p * gain
        gains.insert(0, -gain)
    config = EPISODES.model_copy(
        update={"steps_per_update": length, "gamma": 1.0, "actor": LINEAR, "num_envs": 64, "lr": 2e-3,
                "lr_schedule": Schedule(type="cosine"), "total_env_steps": 400 * 64 * length}
    )  # fmt: skip
    world = spring_world(length, observe=lambda x, step: x * jax.nn.one_hot(step.astype(int), length))
    algorithm = with_data(apg.make(config, world))

    @jax.jit
    def train(key):
        state = algorithm.init(key, algorithm.hparams)
        return jax.lax.scan(lambda s, _: (algorithm.update(s)[0], None), state, length=algorithm.num_updates)[0]

    state = train(jax.random.key(0))
    x = 0.1
    action, _ = algorithm.act(algorithm.policy(state), (), x * jnp.eye(length)[:, None], None, None, True)
    np.testing.assert_allclose(action[:, 0, 0] / x, gains, atol=0.02)


# Windows


def test_the_value_of_a_window_by_hand():
    """Two episodes in five steps, the first ended by a time limit, the second by a termination, and a third begins."""
    flags = np.zeros((5, 1), bool)
    window = apg.Window(
        jnp.zeros((5, 1, 1)), jnp.zeros((5, 1, 1)), jnp.asarray([[1.0], [2.0], [4.0], [8.0], [16.0]]),
        terminated=jnp.asarray(flags).at[3].set(True), truncated=jnp.asarray(flags).at[1].set(True),
    )  # fmt: skip
    values = jnp.asarray([[100.0], [10.0], [100.0], [100.0], [20.0]])
    expected = (1 + 0.5 * (2 + 0.5 * 10)) + (4 + 0.5 * 8) + (16 + 0.5 * 20)
    assert float(apg.window_value(window, values, 0.5)) == pytest.approx(expected / 5)
    assert window.restarts[:, 0].tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("recurrent", [False, True])
def test_the_next_value_is_that_of_the_true_final_observation(recurrent):
    """With memory: seen with the memory from before the reset, and a new episode starts with an empty one."""
    net = Network(MEMORY if recurrent else SMALL, 2, 1)
    params = jax.jit(net.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    obs, final_obs = (jnp.asarray(rng.normal(size=(4, 2, 2)), jnp.float32) for _ in range(2))
    ends = jnp.zeros((4, 2), bool).at[1].set(True)
    final_obs = jnp.where(ends[..., None], final_obs, jnp.roll(obs, -1, axis=0)).at[-1].set(final_obs[-1])
    window = apg.Window(obs, final_obs, jnp.zeros((4, 2)), jnp.zeros_like(ends), ends, None)
    memory = initial_carry(net.config, (2,))
    values, after = apg.next_values(net, params, memory, window)
    first = net(params, jnp.concatenate([obs[:2], final_obs[1:2]]))[..., 0]
    second = net(params, jnp.concatenate([obs[2:], final_obs[3:]]))[..., 0]
    np.testing.assert_allclose(values, jnp.concatenate([first[1:], second[1:]]), atol=1e-6)
    if recurrent:
        assert any((np.abs(leaf) > 1e-3).any() for leaf in jax.tree.leaves(after))


# Updates


def one_update(config, env, seed=0):
    algorithm = with_data(apg.make(config, env))
    with jax.debug_key_reuse(True):
        before = jax.jit(algorithm.init)(jax.random.key(seed), algorithm.hparams)
        return before, *jax.jit(algorithm.update)(before)


@pytest.mark.parametrize(
    "kind", ["episodes", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("windows", "recurrent"))]
)
def test_an_update_changes_every_parameter_and_is_finite(kind):
    before, after, metrics = one_update(KINDS[kind], spring_world(cut="truncated"))
    assert all(np.isfinite(value) and np.ndim(value) == 0 for value in jax.device_get(metrics).values())
    assert float(metrics["skipped"]) == 0
    assert float(after.obs_stats.count) == KINDS[kind].normalize_obs * KINDS[kind].env_steps()
    parts = [(before.actor, after.actor)]
    if KINDS[kind].bootstrap:
        parts += [(before.critic.params, after.critic.params), (before.critic.target, after.critic.target)]
    for old, new in parts:
        for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
            assert (np.asarray(a) != np.asarray(b)).any()


def test_a_gradient_that_is_not_finite_leaves_the_actor_as_it_was():
    """The square root's slope at zero is infinite; the loss itself is finite."""

    def step_env(key, state, action, params):
        reward = -jnp.sqrt(jnp.maximum(action[0] - 20.0, 0.0))
        return jnp.ones(1), state, reward, jnp.array(True), jnp.array(False), {}

    world = spring_world(
        1, reset_env=lambda key, params: (jnp.ones(1), jnp.zeros(())), step_env=step_env, assessment=Assessment(),
        observation_space=lambda params: Box(-1.0, 1.0, (1,)),
    )  # fmt: skip
    before, after, metrics = one_update(EPISODES.model_copy(update={"steps_per_update": 1}), world)
    assert float(metrics["skipped"]) == 1
    assert float(metrics["actor_grad_norm"]) == 0
    jax.tree.map(np.testing.assert_array_equal, (before.actor, before.optimizer), (after.actor, after.optimizer))


def test_acting_is_greedy_and_in_the_units_of_the_environment():
    algorithm = with_data(apg.make(WINDOWS, spring_world(cut="truncated", action_space=lambda p: Box(0.0, 4.0, (1,)))))
    policy = algorithm.policy(algorithm.init(jax.random.key(0), algorithm.hparams))
    action, _ = algorithm.act(policy, (), 100 * jnp.ones((5, 1, 2)), None, jax.random.key(0), False)
    assert action.shape == (5, 1, 1)
    assert 0 < float(action.min()) <= float(action.max()) < 4
    assert len(np.unique(action)) == 1


def several(update, count):
    return lambda state: jax.lax.scan(lambda s, _: (update(s)[0], None), state, length=count)[0]


@pytest.mark.parametrize("kind", ["episodes", pytest.param("recurrent", marks=pytest.mark.slow)])
def test_two_chunks_are_one_run_and_traced_once(kind):
    """Bit for bit, with donated states."""
    chex.clear_trace_counter()  # it counts functions of one name together
    algorithm = with_data(apg.make(KINDS[kind], spring_world(cut="truncated")))
    init = jax.jit(algorithm.init)
    chunk = jax.jit(several(chex.assert_max_traces(algorithm.update, n=1), 1), donate_argnums=0)
    whole = jax.jit(several(algorithm.update, 2))(init(jax.random.key(5), algorithm.hparams))
    numbers = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    parts = chunk(chunk(init(jax.random.key(5), algorithm.hparams)))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(numbers(a), numbers(b)), parts, whole)


@pytest.mark.slow
def test_a_seed_under_vmap_is_a_single_run():
    algorithm = with_data(apg.make(WINDOWS, spring_world(cut="truncated")))
    train = lambda seed: several(algorithm.update, 2)(algorithm.init(jax.random.key(seed), algorithm.hparams)).actor  # noqa: E731
    many, single = jax.jit(jax.vmap(train))(jnp.array([5, 6])), jax.jit(train)(6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6), many, single)


# Keys

TRACED = {"gamma": 0.5, "lr": 0.1, "critic_lr": 0.1, "td_lambda": 0.2, "tau": 0.1, "noise_std": 0.7}
STATIC = {
    "total_env_steps": {"total_env_steps": 600, "lr_schedule": Schedule(type="linear")},
    "num_envs": {"num_envs": 6},
    "steps_per_update": {"steps_per_update": 6},
    "bootstrap": {"bootstrap": False, "steps_per_update": LENGTH},
    "lr_schedule": {"lr_schedule": Schedule(type="cosine")},
    "optimizer": {"optimizer": "rmsprop"},
    "max_grad_norm": {"max_grad_norm": 0.5},
    "noise_schedule": {"noise_schedule": Schedule(type="linear")},
    "output_activation": {"output_activation": "sigmoid"},
    "normalize_obs": {"normalize_obs": False},
    "critic_epochs": {"critic_epochs": 3},
    "critic_minibatches": {"critic_minibatches": 1},
    "actor": {"actor": NetworkConfig(hidden_sizes=(5,))},
    "critic": {"critic": NetworkConfig(hidden_sizes=(4,), activation="elu")},
}


def program(config) -> str:
    algorithm = with_data(apg.make(config, spring_world(cut="truncated")))
    state = jax.eval_shape(algorithm.init, jax.random.key(0), algorithm.hparams)
    return str(jax.make_jaxpr(algorithm.update)(state))


@pytest.fixture(scope="module")
def base_program():
    return program(WINDOWS)


@pytest.mark.parametrize("key", STATIC)
def test_every_static_key_changes_the_program(key, base_program):
    reference = base_program
    if key == "total_env_steps":
        reference = program(WINDOWS.model_copy(update={"lr_schedule": Schedule(type="linear")}))
    assert program(WINDOWS.model_copy(update=STATIC[key])) != reference


def test_every_traced_number_changes_the_update():
    algorithm = with_data(apg.make(WINDOWS, spring_world(cut="truncated")))
    update = jax.jit(lambda s: algorithm.update(algorithm.update(s)[0])[0])
    result = lambda h: jax.tree.leaves((  # noqa: E731
        lambda s: (s.actor, s.critic.target))(update(algorithm.init(jax.random.key(0), h))))  # fmt: skip
    base = result(algorithm.hparams)
    for name, value in TRACED.items():
        changed = result(algorithm.hparams.replace(**{name: jnp.float32(value)}))
        assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(base, changed, strict=True)), name


def test_no_key_is_left_out():
    assert set(TRACED) | set(STATIC) == set(apg.Config.model_fields) - {"name"}


# What is refused


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        apg.Config(horizon=3)


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({}, {"differentiable": False}, "spring declares itself not differentiable; choose another algorithm"),
        ({}, {"action_space": lambda params: Discrete(3)}, "continuous actions"),
        ({}, {"action_space": lambda params: Box(-np.inf, np.inf, (1,))}, "bounded action space"),
        ({"steps_per_update": 4}, {}, "steps_per_update 4: spring has episodes of 3 steps"),
        ({}, {"episode_length": None}, "episodes of varying steps"),
    ],
)
def test_environments_that_do_not_fit_are_refused_in_one_line(changes, world, message):
    with pytest.raises(ValueError, match=message) as refusal:
        with_data(apg.make(EPISODES.model_copy(update=changes), spring_world(**world)))
    assert "\n" not in str(refusal.value)


def test_minibatches_that_do_not_divide_the_environments_are_refused():
    with pytest.raises(ConfigError, match=r"critic_minibatches 3 must divide the environments .* of a device: 4"):
        program(WINDOWS.model_copy(update={"critic_minibatches": 3}))
