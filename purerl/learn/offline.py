"""What algorithms that learn from a recorded dataset share: configuration keys, the data, cloning, the algorithm around
one gradient step.

Reading order: `OfflineConfig`, `Recorded` (the data, read late), `clone_log_prob`, `State`, `assemble`.

The data are an argument of updates (`purerl.types.Data`). They are read when training starts and not before, so that a
trained policy acts, is evaluated and exported where its data are not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.base import Environment
from envs_jax.paths import AbsolutePath
from purerl.learn import rollout, sharding
from purerl.learn.buffers import Sequences, sample_indices, take
from purerl.learn.dataset import as_ring, read, require_same, world_of
from purerl.learn.optimizers import OptimizerName, Schedule
from purerl.learn.replay import to_batch
from purerl.nets.actions import Actions
from purerl.nets.networks import Network, NetworkConfig, initial_carry
from purerl.nets.policies import SoftPolicy
from purerl.types import Algorithm, Data
from purerl.validation import LogStd

INSIDE = 0.999
"""Recorded actions are cloned up to this share of the half range: a squashed normal cannot reach the bounds."""


class OfflineConfig(BaseModel):
    """Keys of every algorithm that learns from a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: AbsolutePath = Field(description="file that purerl.record wrote")
    total_gradient_steps: int = Field(20_000, gt=0)
    gradient_steps_per_update: int = Field(50, gt=0, description="of one update call, which takes no env step")
    sequence_length: int = Field(1, gt=0, description="1: transitions; otherwise the length of recorded episodes")
    batch_size: int = Field(256, gt=0, description="sequences per gradient step")
    actor_lr: float = Field(3e-4, gt=0)
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "adam"
    max_grad_norm: float = Field(1.0, gt=0)
    log_std_min: LogStd = Field(-5.0, description="of the squashed normal; recorded rules would drive it to -infinity")
    log_std_max: LogStd = 2.0
    actor: NetworkConfig = NetworkConfig(hidden_sizes=(256, 256))

    @model_validator(mode="after")
    def _ordered(self):
        if self.log_std_min >= self.log_std_max:
            raise ValueError(f"log_std_min {self.log_std_min} must be below log_std_max {self.log_std_max}")
        if self.recurrent and self.sequence_length == 1:
            raise ValueError("recurrent networks need sequence_length = episode length, not 1")
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent


class Recorded:
    """Where a dataset is and the environment (with an agent axis) that it has to fit."""

    def __init__(
        self, config: OfflineConfig, env: Environment, env_params: Any, policy: SoftPolicy, reward_scale: float = 1.0
    ):
        self.config, self.policy, self.reward_scale = config, policy, reward_scale
        self.env_params, self.world = env_params, world_of(env, env_params)

    def load(self) -> Data:
        """All items on the device, in a full ring.

        Raises:
            ConfigError: no such file, a damaged one, or one of another world.
        """
        path = Path(self.config.dataset)
        data = read(path)
        require_same(path, data.metadata.world, self.world)
        unit = self.policy.actions.unit if isinstance(self.policy.actions, Actions) else None
        return Data(self.env_params, as_ring(data, self.config.sequence_length, unit, self.reward_scale))


def clone_log_prob(policy: SoftPolicy, outputs, action, legal=None):
    """log pi(recorded action) [T, N] from the actor's outputs [T, N, m].

    Args:
        action: as the replay keeps it: units [T, N, k], or choices [T, N].
    """
    raw = action
    if isinstance(policy.actions, Actions):
        low, high = policy.actions.low, policy.actions.high
        raw = jnp.arctanh(jnp.clip(2 * (action - low) / (high - low) - 1, -INSIDE, INSIDE))
    return policy.distribution(outputs, legal).raw_log_prob(raw)


def before(legal):
    """Legal actions before every step, from those at every observation."""
    return None if legal is None else legal[:-1]


@struct.dataclass
class State:
    learner: Any
    """What gradient steps change; `learner.gradient_steps` counts them."""
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: Any


GradientStep = Callable[[Any, Sequences, jax.Array, Any, Any], tuple[Any, dict[str, jax.Array]]]
"""`(learner, batch [T, N, ...], key, hparams, env_params) -> (learner, metrics)`."""


def assemble(
    recorded: Recorded,
    actor: Network,
    init_learner: Callable[[jax.Array, Any], Any],
    gradient_step: GradientStep,
    policy_of: Callable[[Any], Any],
    hparams: Any,
    **more: Any,
) -> Algorithm:
    """The algorithm that repeats `gradient_step` on random batches of the data and acts by `actor`.

    Args:
        init_learner: `(key, hparams)`.
        policy_of: what acting needs of a learner, with the actor's parameters as `actor`.
        more: further fields of `Algorithm`.
    """
    config, policy = recorded.config, recorded.policy

    def act(params, carry, obs, mask, key, greedy):
        carry, outputs = actor.step(params.actor, carry, obs)
        return policy.choose(outputs, mask, key, greedy), carry

    def init(key, hparams, data: Data):
        del data
        key_learner, key_run = jax.random.split(key)
        return State(init_learner(key_learner, hparams), key_run, jnp.zeros((), jnp.int32), hparams)

    def update(state: State, data: Data):
        key, key_draw, key_steps = jax.random.split(state.key, 3)
        # All item numbers of an update in one draw: many small draws would cost more than the gather.
        indices = sample_indices(data.recorded, key_draw, (config.gradient_steps_per_update, config.batch_size))

        def body(learner, key, indices):
            batch = to_batch(take(data.recorded, sharding.own_share(indices)))
            return gradient_step(learner, batch, key, state.hparams, data.env_params)

        keys = jax.random.split(key_steps, config.gradient_steps_per_update)
        learner, metrics = rollout.scan_with_keys(body, state.learner, keys, indices)
        metrics = sharding.mean_over_shares({name: jnp.mean(values) for name, values in metrics.items()})
        metrics["learning_rate_factor"] = learning_rate_factor(config, state.learner.gradient_steps)
        return State(learner, key, state.updates + 1, state.hparams), metrics

    return Algorithm(
        reward_scale=recorded.reward_scale,
        init=init,
        update=update,
        policy=lambda state: policy_of(state.learner),
        act=act,
        initial_carry=lambda batch_shape: initial_carry(config.actor, (*batch_shape, recorded.world.num_agents)),
        hparams=hparams,
        env_steps_per_update=0,
        gradient_steps_per_update=config.gradient_steps_per_update,
        warmup_env_steps=0,
        num_updates=max(config.total_gradient_steps // config.gradient_steps_per_update, 1),
        vectorise_seeds=not config.recurrent,
        load_data=recorded.load,
        learned=("learner",),
        **more,
    )


def learning_rate_factor(config: OfflineConfig, gradient_steps):
    """The schedule, whose steps are gradient steps here."""
    return config.lr_schedule.factor(gradient_steps, config.total_gradient_steps)


def draw_for_batch(config: OfflineConfig, agents: int, draw: Callable[[tuple[int, ...]], jax.Array], *samples: int):
    """This device's share of random numbers [*samples, T, N, ...], drawn for the whole batch.

    So the numbers do not depend on how many devices share it.

    Args:
        draw: of a shape.
    """
    leading = (*samples, config.sequence_length, config.batch_size * agents)
    return sharding.own_share(draw(leading), axis=len(samples) + 1)
