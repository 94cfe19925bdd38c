"""What tests of algorithms with a replay share: a world whose numbers say where they belong, a checked run, and
networks as plain loops."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from shared import with_data

from envs_jax.base import Environment, Guidance
from envs_jax.spaces import Box, Discrete
from purerl.learn.buffers import Sequences
from purerl.nets.networks import NetworkConfig

T = 4
"""Steps of a day in the marker world."""


def marker_world(action_space=None, **changes) -> Environment:
    """Days of T hours; the observation tells the number of the day, the hour and the action before it.

    The reward is the action plus an eighth of the hour, so every stored number says where it belongs. The numbers
    are multiples of powers of two: exact in float32.
    """
    action_space = Box(-2.0, 2.0, (1,)) if action_space is None else action_space

    def reset_env(key, params):
        day = jax.random.randint(key, (), 0, 1024) / 1024
        obs = jnp.stack([day, jnp.zeros(()), jnp.zeros(())])
        return obs, obs

    def step_env(key, state, action, params):
        reward = action[0] + state[1] / 8
        state = jnp.stack([state[0], state[1] + 1, action[0]])
        return state, state, reward, state[1] == T, jnp.zeros((), bool), {}

    world = {
        "name": "marker",
        "default_params": None,
        "reset_env": reset_env,
        "step_env": step_env,
        "observation_space": lambda params: Box(-10.0, 10.0, (3,)),
        "action_space": lambda params: action_space,
        "episode_length": T,
        "max_episode_length": T,
        "guidance": Guidance(
            guided_action=lambda key, state, params: jnp.full((1,), 0.5),
            preview=lambda obs, action, params: jnp.stack([action[0] + obs[1] / 8, obs[0]]),
        ),
    }
    return Environment(**{**world, **changes})


SMALL = NetworkConfig(hidden_sizes=(4,))
SMALL_LSTM = NetworkConfig(lstm_hidden_size=4, hidden_sizes=(4,))


def random_like(shapes, seed: int = 0, scale: float = 0.7):
    """Random arrays of these shapes: initialisers take long to compile and are not what is tested."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(scale * rng.normal(size=s.shape), s.dtype), shapes)


copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


class Run:
    """A compiled algorithm in which every use of a random key is checked; `update` is donated and traced once."""

    def __init__(self, module, config, updates: int, env: Environment | None = None):
        self.config = config
        self.algorithm = with_data(module.make(config, marker_world() if env is None else env))
        self._init = jax.jit(self.algorithm.init)
        chex.clear_trace_counter()  # it takes runs that one fixture makes for the same
        update = chex.assert_max_traces(self.algorithm.update, n=1)
        self._update = jax.jit(update, donate_argnums=0)
        self.history, self.metrics = [self.init(0)], []
        """States after 0..updates calls, as copies that donation does not touch, and the metrics of each call."""
        for _ in range(updates):
            state, numbers = self.update(copied(self.history[-1]))
            self.history.append(state)
            self.metrics.append(jax.device_get(numbers))

    def init(self, seed: int, hparams=None):
        with jax.debug_key_reuse(True):
            return self._init(jax.random.key(seed), self.algorithm.hparams if hparams is None else hparams)

    def update(self, state):
        with jax.debug_key_reuse(True):
            return self._update(state)


def trees_equal(a, b) -> bool:
    """Exactly equal leaves; keys by their numbers."""
    numbers = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(numbers(x), numbers(y)) for x, y in pairs)


def check_days(batch: Sequences) -> None:
    """Every item [:, n] is one day from its first to its last hour, with the actions and rewards of its hours."""
    obs = np.asarray(batch.obs)[:, :, 0]
    action, reward = 2 * np.asarray(batch.action)[:, :, 0, 0], np.asarray(batch.reward)[:, :, 0]
    assert (obs[:, :, 0] == obs[:1, :, 0]).all(), "two days in one item"
    np.testing.assert_array_equal(obs[:, :, 1], np.tile(np.arange(T + 1)[:, None], (1, obs.shape[1])))
    np.testing.assert_array_equal(obs[1:, :, 2], action)
    np.testing.assert_allclose(reward, action + obs[:-1, :, 1] / 8, atol=1e-6)
    np.testing.assert_array_equal(batch.terminated, np.tile(np.arange(T)[:, None] == T - 1, (1, obs.shape[1])))


def choice_world() -> Environment:
    """Days of one to five steps that end in a termination or a time limit; choice number (step mod 3) is illegal.

    The observation tells day, step, length and whether the end is a termination; step number t pays t + 1.
    """

    def reset_env(key, params):
        key_day, key_length, key_end = jax.random.split(key, 3)
        length = jax.random.randint(key_length, (), 1, 6).astype(jnp.float32)
        end = jax.random.bernoulli(key_end).astype(jnp.float32)
        obs = jnp.stack([jax.random.uniform(key_day), jnp.zeros(()), length, end])
        return obs, obs

    def step_env(key, state, action, params):
        illegal = action == state[1] % 3
        reward = jnp.where(illegal, -1000.0, state[1] + 1)
        state = state.at[1].add(1)
        ended = state[1] == state[2]
        return state, state, reward, ended & (state[3] > 0), ended & (state[3] == 0), {}

    return Environment(
        name="choices",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(0.0, 5.0, (4,)),
        action_space=lambda params: Discrete(3),
        action_mask=lambda state, params: jnp.arange(3) != state[1] % 3,
    )


# Networks as plain loops


def plain_memory(layer, inputs) -> np.ndarray:
    """Output of an LSTM layer after a whole list of inputs, from an empty memory."""
    w_x, w_h, b = (np.asarray(layer[name], np.float64) for name in ("w_x", "w_h", "b"))
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    h = c = np.zeros(w_h.shape[0])
    for x in inputs:
        i, f, o, g = np.split(x @ w_x + h @ w_h + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def plain_head(head, x) -> np.ndarray:
    layers = [head["params"][name] for name in sorted(head["params"])]
    for layer in layers[:-1]:
        x = np.maximum(x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"]), 0)
    return x @ np.asarray(layers[-1]["kernel"], np.float64) + np.asarray(layers[-1]["bias"])


def plain_actor(config, actor, obs) -> np.ndarray:
    """Pre-squash output for the last of the observations [t + 1, d]."""
    features = plain_memory(actor["core"]["params"]["lstm_0"], obs) if config.actor.recurrent else obs[-1]
    return plain_head(actor["head"], features)


def plain_q(config, critic, obs, past, action) -> float:
    """Value of `action` after observations [t + 1, d] and past actions [t, k]."""
    if not config.critic.recurrent:
        return plain_head(critic["head"], np.concatenate([obs[-1], action]))[0]
    layer = critic["core"]["params"]["lstm_0"]
    if config.critic_arch == "concat":
        inputs = [np.concatenate([o, a]) for o, a in zip(obs, [*past, action], strict=True)]
        return plain_head(critic["head"], plain_memory(layer, inputs))[0]
    inputs = [np.concatenate([o, a]) for o, a in zip(obs, [0 * action, *past], strict=True)]
    return plain_head(critic["head"], np.concatenate([plain_memory(layer, inputs), action]))[0]


def plain_returns(config, batch: Sequences, value) -> np.ndarray:
    """n-step returns [T, N] that bootstrap from `value` of the observations after each step."""
    steps, size = batch.reward.shape
    y = np.zeros((steps, size))
    for n in range(size):
        for start in range(steps):
            factor, total = 1.0, 0.0
            for t in range(start, min(start + config.n_step, steps)):
                total += factor * float(batch.reward[t, n])
                factor *= 0.0 if batch.terminated[t, n] else config.gamma
            y[start, n] = total + factor * value[t, n]
    return y
