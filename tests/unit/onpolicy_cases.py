"""What tests of algorithms that learn from roll-outs share: a case for losses, and a world that is a walk."""

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Assessment, Column, Environment
from envs_jax.spaces import Box, Discrete
from purerl.learn.actors import Settings
from purerl.learn.policy_gradient import Batch
from purerl.nets.actor_critic import ActorCritic
from purerl.nets.networks import NetworkConfig
from purerl.nets.policies import Outputs

LINEAR = NetworkConfig(hidden_sizes=())
LSTM = NetworkConfig(lstm_hidden_size=4, hidden_sizes=(4,), activation="tanh")
LEGAL = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1]], bool)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def linear_case(config: Settings):
    """Nets without hidden layers, random parameters, five rows, and the numbers a loss is made of."""
    rng = np.random.default_rng(0)
    nets = ActorCritic(config.actor, config.critic, Discrete(3, (1,)), obs_dim=2, critic_dim=2)
    shapes = jax.eval_shape(nets.init, jax.random.key(0))
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes)
    obs, old = rng.normal(size=(5, 2)), rng.normal(size=(5, 3))
    action = np.array([0, 2, 1, 0, 2])
    masked_old = log_softmax(np.where(LEGAL, old, -1e9))
    rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (obs, old, masked_old[np.arange(5), action]))
    old_value, advantage, target = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(3, 5)))
    batch = Batch(
        obs=rows[0], critic_obs=rows[0], legal=jnp.asarray(LEGAL), raw_action=jnp.asarray(action),
        old_outputs=Outputs(rows[1], None), old_log_prob=rows[2], old_value=old_value, advantage=advantage,
        target=target, weight=None,
    )  # fmt: skip
    return nets, params, batch


def layer(head):
    kernel, bias = jax.tree.leaves(head)[::-1] if jax.tree.leaves(head)[0].ndim == 1 else jax.tree.leaves(head)
    return np.asarray(kernel, np.float64), np.asarray(bias, np.float64)


def walk_world(space=None, goal: float | None = None, **changes) -> Environment:
    """Walk cut after five steps: reward minus the distance from the start; the action is the step.

    Args:
        goal: the walk terminates when its first coordinate gets there; None: it is endless.
    """
    space = Box(-2.0, 6.0, (2,)) if space is None else space

    def reset_env(key, params):
        state = (jnp.zeros(2), jnp.zeros((), jnp.int32))
        return state[0], state

    def step_env(key, state, action, params):
        move = action if isinstance(space, Box) else jnp.array([1.0, -1.0]) * (action - 1)
        at, time = state[0] + move / 10, state[1] + 1
        reward = -jnp.sum(jnp.abs(at))
        info = {"lowest": jnp.min(move), "highest": jnp.max(move)}
        there = jnp.array(False) if goal is None else at[0] >= goal
        return at, (at, time), reward, there, (time == 5) & ~there, info

    return Environment(
        name="walk",
        default_params=None,
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-10.0, 10.0, (2,)),
        action_space=lambda params: space,
        assessment=Assessment(columns={name: Column(name) for name in ("lowest", "highest")}),
        **changes,
    )
