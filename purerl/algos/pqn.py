"""PQN (Gallici et al. 2024): values learned from fresh roll-outs, without a replay and without a target network.

Reading order: `Config`, `HParams`, `State`, `lesson_of` (steps and targets of a roll-out), `make` (epochs of
minibatches, update). Agents act and explore as in `qplex`, their utilities become one value of the team by a mixer
(`vdn`: PQN-VDN, as Rutherford et al. 2024 have it), and targets and the loss are those of `purerl.learn.joint_values`.

Many environments take a few steps each; lambda-returns of them, made by the network that recorded them, are what it
then learns from in some epochs, and the steps are forgotten. What keeps this stable in place of a target network is
layer normalisation (`q_network.layer_norm`, on unless said). Feed-forward agents learn from single steps; agents with
memory from whole roll-outs, whose first step starts from the memory it had when it was recorded.

Deviations: targets are made once for every roll-out, also with memory, where the authors make them anew in every
minibatch; lambda-returns are not corrected for actions that were not greedy, as theirs are not.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field, model_validator

from envs_jax.base import Environment
from purerl.learn import rollout, sharding
from purerl.learn.actors import traced
from purerl.learn.buffers import Sequences
from purerl.learn.chunks import chunks_of
from purerl.learn.joint_values import Parts, TargetConfig, ValueNets, targets, td_loss
from purerl.learn.minibatches import dealt, orders, require_even
from purerl.learn.optimizers import OptimizerName, Schedule, loss_step, make_optimizer
from purerl.learn.teams import Mixing, Players, TeamConfig, epsilon_after
from purerl.nets.utilities import AgentConfig, Memory
from purerl.types import Algorithm, Data
from purerl.validation import StepCount


class NormalisedAgent(AgentConfig):
    layer_norm: bool = Field(True, description="as in `AgentConfig`")


class Config(TeamConfig):
    """Keys beside those of `TeamConfig`."""

    name: Literal["pqn"] = "pqn"
    mixer: Mixing = "vdn"
    total_env_steps: StepCount = 1_000_000
    num_envs: int = Field(128, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(32, gt=0, description="steps of every environment per update call")
    epochs: int = Field(2, ge=1)
    minibatches: int = Field(16, ge=1, description="per epoch; with memory: of whole environments")
    gamma: float = Field(0.99, ge=0, le=1)
    td_lambda: float = Field(0.65, ge=0, le=1)
    lr: float = Field(2.5e-4, gt=0)
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "radam"
    optimizer_eps: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(10.0, gt=0)
    q_network: NormalisedAgent = NormalisedAgent(type="mlp")

    @model_validator(mode="after")
    def _divides(self):
        require_even(self.num_envs, self.env_steps(), self.minibatches, self.recurrent)
        return self

    @property
    def recurrent(self) -> bool:
        return self.q_network.recurrent

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update


@struct.dataclass
class HParams:
    """The numbers that may be traced: a sweep over them compiles once."""

    gamma: jax.Array
    td_lambda: jax.Array
    lr: jax.Array
    epsilon_start: jax.Array
    epsilon_end: jax.Array
    epsilon_anneal_steps: jax.Array
    epsilon_decay: jax.Array


@struct.dataclass
class Learner:
    params: Parts
    optimizer: Any


@struct.dataclass
class State:
    learner: Learner
    worlds: rollout.Worlds
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: HParams


def lesson_of(
    config: Config, nets: ValueNets, params: Parts, steps: rollout.Steps, h: HParams
) -> tuple[Sequences, jax.Array]:
    """What a roll-out teaches: steps and targets, leaves [T, N, ...]; without memory steps are rows [1, T * N, ...].

    Args:
        params: of the networks that recorded it.
        steps: [T, N, A, ...]; `extra` is `teams.Chosen`.
    """
    memory = steps.extra.memory
    batch = chunks_of(steps._replace(extra=None), memory, config.steps_per_update, 0, config.team_reward)
    y = targets(TargetConfig(double_q=False, n_step=1, traces=True), nets, params, params, batch, 0, h)
    if config.recurrent:
        return batch, y
    return jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), (batch.replace(carry=memory), y))  # type: ignore


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind the algorithm to an environment whose agents each make a choice, or several at once.

    Raises:
        ValueError: other actions, or a mixer that the global state does not fit.
    """
    env_params = env.default_params if env_params is None else env_params
    players = Players(config.name, config, config.mixer, env, env_params)
    nets = players.nets
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm, config.optimizer_eps)

    def empty_memory(batch_shape: tuple[int, ...]) -> Memory:
        return nets.utilities.empty_memory((*batch_shape, players.agents))

    def init(key, hparams: HParams, data: Data) -> State:
        key_nets, key_worlds, key_run = jax.random.split(key, 3)
        params = nets.init(key_nets)
        memory = empty_memory((config.num_envs,))
        return State(
            learner=Learner(params, optimizer.init(params)),
            worlds=rollout.start_worlds(players.env, data.env_params, key_worlds, config.num_envs, memory),
            key=key_run,
            updates=jnp.zeros((), jnp.int32),
            hparams=hparams,
        )

    def learned(learner: Learner, batch: Sequences, y, key, rate):
        """The learner after its epochs of minibatches, and means of what was watched."""

        def step(learner: Learner, minibatch):
            own, own_y = jax.tree.map(lambda x: sharding.own_share(x, 1), minibatch)
            loss = partial(td_loss, nets, batch=own, y=own_y, burn_in=0)
            (_, watched), norm, params, opt = loss_step(optimizer, loss, learner.params, learner.optimizer, rate)
            return Learner(params, opt), {**watched, "grad_norm": norm}

        order = orders(key, y.shape[1], config.epochs)
        parts = dealt((batch, y), order, config.epochs * config.minibatches, axis=1)
        learner, watched = jax.lax.scan(step, learner, parts)
        return learner, sharding.mean_over_shares({name: jnp.mean(values) for name, values in watched.items()})

    def update(state: State, data: Data):
        key, key_collect, key_learn = jax.random.split(state.key, 3)
        learner, h = state.learner, state.hparams
        env_steps = state.updates.astype(jnp.float32) * config.env_steps()
        epsilon = epsilon_after(config.epsilon_schedule, h, env_steps)
        factor = config.lr_schedule.factor(env_steps, config.total_env_steps)
        exploring = players.exploring(learner.params.agents, data.env_params, epsilon, config.num_envs)
        worlds, steps, tally = rollout.collect(
            players.env, data.env_params, state.worlds, *exploring, key_collect, config.steps_per_update,
            reward_scale=reward_scale,
        )  # fmt: skip
        learner, metrics = learned(
            learner, *lesson_of(config, nets, learner.params, steps, h), key_learn, factor * h.lr
        )
        metrics |= rollout.tally_metrics(tally)
        metrics |= {"epsilon": epsilon, "hit_prob": jnp.mean(steps.extra.hit), "learning_rate_factor": factor}
        return State(learner, worlds, key, state.updates + 1, h), metrics

    return Algorithm(
        reward_scale=reward_scale,
        init=init,
        update=update,
        policy=lambda state: state.learner.params.agents,
        act=players.act,
        initial_carry=empty_memory,
        hparams=traced(HParams, config),
        load_data=lambda: Data(env_params),
        learned=("learner",),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.epochs * config.minibatches,
        warmup_env_steps=0,
        num_updates=max(config.total_env_steps // config.env_steps(), 1),
        vectorise_seeds=not config.recurrent,
    )
