"""The algorithms as the probe worlds see them: a small configuration of each, and how to ask it what it has learned.

Reading order: `Learner`, `trained` (all probes in one program), what each algorithm answers, the recipes without memory
and with it. `PERCEPTRON` and the recipes are also where tests of one algorithm's own abilities start.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from probe_worlds import LENGTH, Probe, probe_world, stacked
from shared import with_data

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Box
from purerl.algos import apg, impala, ppo, sac, td3
from purerl.nets.actions import Choices, actions_of
from purerl.nets.actor_critic import ActorCritic
from purerl.nets.critics import Critics
from purerl.nets.networks import NetworkConfig
from purerl.types import Algorithm

GAMMA = 0.5
PERCEPTRON = NetworkConfig(hidden_sizes=(16, 16), activation="tanh")
LSTM = NetworkConfig(lstm_hidden_size=16, hidden_sizes=(16,), activation="tanh")
GRU = LSTM.model_copy(update={"cell": "gru"})

Answers = Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
"""`(state, observations [T, N, 2]) -> (values, greedy actions)`, both [T, N], from an empty memory."""
Ask = Callable[[str, Any], tuple[np.ndarray, np.ndarray]]
"""The same for the probe of a name."""


class Learner(NamedTuple):
    make: Callable[..., Algorithm]
    config: Any
    updates: int
    answers: Callable[[Any, Environment], Answers]
    """Of a configuration and the probe world."""


def trained(learner: Learner, probes: dict[str, Probe], episode_length: int | None = None) -> Ask:
    """Learns all probes in one program, each with a key of its own; `episode_length` where all have that length."""
    env = dataclasses.replace(probe_world(episode_length), differentiable=True)

    @jax.jit
    def train(probes, keys):
        def one(probe, key):
            algorithm = with_data(learner.make(learner.config, env, probe))
            state = algorithm.init(key, algorithm.hparams)
            return jax.lax.scan(lambda s, _: (algorithm.update(s)[0], None), state, length=learner.updates)[0]

        return jax.vmap(one)(probes, keys)

    states = train(stacked(probes), jax.random.split(jax.random.key(0), len(probes)))
    answers = jax.jit(learner.answers(learner.config, env))

    def ask(name: str, obs):
        state = jax.tree.map(lambda x: x[list(probes).index(name)], states)
        value, action = answers(state, jnp.asarray(obs, jnp.float32))
        return np.asarray(value), np.asarray(action)

    return ask


# What each algorithm answers


def actor_critic(config, env) -> Answers:
    nets = ActorCritic(config.actor, config.critic, Box(-1.0, 1.0, (1, 1)), obs_dim=2, critic_dim=2)

    def answers(state, obs):
        params = state.learner.params
        return nets.value(params["critic"], obs), nets.outputs(params["actor"], obs).head[..., 0]

    return answers


def deterministic(config, env) -> Answers:
    nets = td3.networks(config, Critics(config.critic, config.critic_arch, 2, 1))

    def answers(state, obs):
        action = jnp.tanh(nets.actor(state.learner.params.actor, obs))
        return jnp.mean(nets.critics.along(state.learner.params.critics, obs, action), axis=0), action[..., 0]

    return answers


def soft_nets(config, env: Environment) -> sac.Nets:
    env = with_agent_axis(env)
    params = env.default_params
    actions = actions_of(env, params)
    obs_dim = env.observation_space(params).shape[1]
    critics = Critics(config.critic, "history", obs_dim, actions.dim, choices=isinstance(actions, Choices))
    return sac.networks(config, actions, critics)


def soft(config, env) -> Answers:
    nets = soft_nets(config, env)

    def answers(state, obs):
        params = state.learner.params
        action = nets.policy.env_action(nets.policy.distribution(nets.actor(params.actor, obs)).mode())
        return jnp.mean(nets.critics.along(params.critics, obs, action), axis=0), action[..., 0]

    return answers


def differentiated(config, env) -> Answers:
    bound = apg.bind(config, env, Probe())

    def answers(state, obs):
        action = bound.actions.squash(bound.actor(state.actor, obs))
        return bound.critic(state.critic.params, obs)[..., 0], action[..., 0]

    return answers


# Without memory

REPLAY = {
    "num_envs": 8, "warmup_steps": 64, "buffer_size": 4096, "gamma": GAMMA, "tau": 0.05, "actor_lr": 3e-3,
    "critic_lr": 1e-2, "updates_per_step": 0.25,
}  # fmt: skip
NOISE = {"target_noise": 0.1, "noise_clip": 0.2}
LITTLE_ENTROPY = {"initial_alpha": 0.02, "learn_alpha": False}
"""So little that values are those of the rewards, to two digits."""
STEPS = {
    "steps_per_update": 8, "sequence_length": 1, "batch_size": 64, "actor": PERCEPTRON, "critic": PERCEPTRON,
}  # fmt: skip
LAGGING = {
    "num_envs": 16, "steps_per_update": 16, "epochs": 2, "minibatches": 4, "gamma": GAMMA, "vtrace_lambda": 0.9,
    "lr": 5e-3, "entropy_coef": 0.0, "initial_log_std": -0.5, "max_grad_norm": 1.0, "actor": PERCEPTRON,
    "critic": PERCEPTRON,
}  # fmt: skip

TD3 = td3.Config(**REPLAY, **NOISE, **STEPS)
SAC = sac.Config(**REPLAY, **LITTLE_ENTROPY, **STEPS, n_step=2)
PPO = ppo.Config(
    num_envs=16, steps_per_update=16, epochs=4, minibatches=4, gamma=GAMMA, gae_lambda=0.9, lr=5e-3, value_clip=None,
    entropy_coef=0.0, initial_log_std=-0.5, max_grad_norm=1.0, actor=PERCEPTRON, critic=PERCEPTRON,
)  # fmt: skip
IMPALA = impala.Config(**LAGGING, actor_lag=2)
APPO = impala.Config(**LAGGING, name="appo", normalize_advantage=True, target_update_every=2)
APG = apg.Config(
    num_envs=16, steps_per_update=8, gamma=GAMMA, lr=1e-2, critic_lr=1e-2, critic_epochs=4, critic_minibatches=2,
    td_lambda=0.9, actor=PERCEPTRON, critic=PERCEPTRON,
)  # fmt: skip

FEED_FORWARD = {
    "td3": Learner(td3.make, TD3, 60, deterministic),
    "sac": Learner(sac.make, SAC, 80, soft),
    "ppo": Learner(ppo.make, PPO, 60, actor_critic),
    "impala": Learner(impala.make, IMPALA, 100, actor_critic),
    "appo": Learner(impala.make, APPO, 100, actor_critic),
    "apg": Learner(apg.make, APG, 100, differentiated),
}

# With memory: replays hold whole episodes, roll-outs are longer than episodes so that ends fall everywhere


def remembering(config, **changes):
    return config.model_copy(update={"actor": LSTM, "critic": LSTM, **changes})


WHOLE = {"steps_per_update": LENGTH, "sequence_length": LENGTH, "batch_size": 16}
RECURRENT = {
    "td3": Learner(td3.make, remembering(TD3, **WHOLE), 160, deterministic),
    "td3_concat": Learner(td3.make, remembering(TD3, **WHOLE, critic_arch="concat"), 160, deterministic),
    "sac": Learner(sac.make, remembering(SAC, **WHOLE, n_step=1), 160, soft),
    "sac_gru": Learner(sac.make, remembering(SAC, **WHOLE, n_step=1, actor=GRU, critic=GRU), 160, soft),
    "ppo": Learner(ppo.make, remembering(PPO, steps_per_update=20), 150, actor_critic),
    "ppo_gru": Learner(ppo.make, remembering(PPO, steps_per_update=20, actor=GRU, critic=GRU), 150, actor_critic),
    "appo": Learner(
        impala.make, remembering(APPO, epochs=4, steps_per_update=20, target_update_every=1), 150, actor_critic
    ),
    "apg": Learner(apg.make, remembering(APG, steps_per_update=15), 120, differentiated),
}
