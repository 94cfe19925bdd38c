"""What algorithms with a replay share: configuration keys, collection into the replay, warm-up, batches.

Reading order: `ReplayConfig`, `Source` (an environment whose steps become replay items), batches, schedules, reports.

An item of the replay is a sequence: one transition (`sequence_length` 1) or a whole episode of fixed length. Networks
start every item with an empty memory.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.base import Environment
from purerl import rollout
from purerl.actions import Actions
from purerl.buffers import Ring, Sequences, make_ring, push
from purerl.critics import CriticArch, Critics, Preview
from purerl.networks import NetworkConfig, initial_carry
from purerl.optimizers import OptimizerName, Schedule

IDLE = 0.05
"""Actions up to this magnitude (in units) count as idle in the report of the warm-up."""


class ReplayConfig(BaseModel):
    """Keys that every algorithm with a replay has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total_env_steps: int = Field(52_800, gt=0)
    num_envs: int = Field(22, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(24, gt=0, description="steps of every environment per update call")
    sequence_length: int = Field(24, gt=0, description="1: transitions; otherwise the episode length")
    updates_per_step: float = Field(1.0, gt=0, description="gradient updates per environment step")
    policy_delay: int = Field(1, ge=1, description="critic updates per actor update")
    warmup_steps: int = Field(5000, ge=0, description="environment steps before the first update")
    buffer_size: int = Field(200_000, gt=0, description="environment steps kept")
    batch_size: int = Field(128, gt=0, description="sequences per gradient update")
    gamma: float = Field(1.0, ge=0, le=1)
    n_step: int = Field(1, ge=1)
    tau: float = Field(0.01, gt=0, le=1)
    actor_lr: float = Field(5e-5, gt=0)
    critic_lr: float = Field(5e-5, gt=0)
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "adam"
    max_grad_norm: float = Field(1.0, gt=0)
    critic_arch: CriticArch = "history"
    critic_preview: bool = Field(
        False,
        description="critics see the environment's preview of the action and learn what follows the previewed reward",
    )
    actor: NetworkConfig = NetworkConfig(lstm_hidden_size=64)
    critic: NetworkConfig = NetworkConfig(lstm_hidden_size=64)

    @model_validator(mode="after")
    def _consistent(self):
        if self.recurrent and self.sequence_length == 1:
            raise ValueError("recurrent networks need sequence_length = episode length, not 1")
        if self.sequence_length > 1 and self.steps_per_update != self.sequence_length:
            raise ValueError("steps_per_update must equal sequence_length when whole episodes are stored")
        if self.n_step > 1 and self.sequence_length == 1:
            raise ValueError(f"n_step {self.n_step} needs whole episodes: set sequence_length to the episode length")
        if self.gradient_steps() < 1 or self.gradient_steps() % self.policy_delay:
            raise ValueError(
                f"updates_per_step gives {self.gradient_steps()} gradient updates per update call "
                f"({self.env_steps()} environment steps): make it a positive multiple of policy_delay"
            )
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent or self.critic.recurrent

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update

    def gradient_steps(self) -> int:
        """Critic updates of one update call."""
        return round(self.env_steps() * self.updates_per_step)

    def items_per_push(self) -> int:
        return self.env_steps() // self.sequence_length

    def capacity(self) -> int:
        """Items of the ring: whole pushes, at least one."""
        items = self.items_per_push()
        return max(self.buffer_size // self.sequence_length // items, 1) * items

    def warmup_pushes(self) -> int:
        """Update calls' worth of steps before the first gradient."""
        return max(-(-self.warmup_steps // self.env_steps()), 1)

    def num_updates(self) -> int:
        return max(self.total_env_steps // self.env_steps(), 1)

    def learning_rate_factor(self, gradient_steps):
        """Schedule at a number of gradient steps done, as a factor of the base rates."""
        env_steps = gradient_steps * (self.env_steps() / self.gradient_steps())
        return self.lr_schedule.factor(env_steps, self.total_env_steps)


class Source(NamedTuple):
    """Where experience comes from: an environment (with an agent axis) whose steps become replay items."""

    config: ReplayConfig
    env: Environment
    env_params: Any
    actions: Actions

    @property
    def agents(self) -> int:
        return self.env.observation_space(self.env_params).shape[0]

    @property
    def obs_dim(self) -> int:
        return self.env.observation_space(self.env_params).shape[1]

    def empty_memory(self, batch_shape):
        """The actor's memory at the start of an episode."""
        return initial_carry(self.config.actor, (*batch_shape, self.agents))

    def critics(self) -> Critics:
        """The critics that the configuration asks for."""
        c = self.config
        return Critics(c.critic, c.critic_arch, self.obs_dim, self.actions.dim, self._preview())

    def _preview(self) -> Preview | None:
        env = self.env
        if not self.config.critic_preview:
            return None
        if env.preview is None:
            raise ValueError(f"algo.critic_preview: {env.name} offers no preview of actions here; set it to false")
        unit = self.actions.unit
        each = lambda obs, action: env.preview(obs[None], action[None] * unit, self.env_params)[0]  # noqa: E731
        return jax.vmap(jax.vmap(each))

    def collect(self, worlds: rollout.Worlds, act: rollout.Act, draw: rollout.Draw, key):
        """`rollout.collect` for the steps of one update call."""
        return rollout.collect(self.env, self.env_params, worlds, act, draw, key, self.config.steps_per_update)

    def to_sequences(self, steps: rollout.Steps) -> Sequences:
        """Recorded steps [T, B, A, ...] as replay items [time, item, A, ...], actions in units.

        A transition ends with the observation before any reset, an episode with that of its last step.
        """
        action = steps.action / self.actions.unit
        if self.config.sequence_length == 1:
            items = self.config.items_per_push()
            obs = jnp.stack([steps.obs, steps.final_obs])
            obs = obs.reshape(2, items, *steps.obs.shape[2:])
            rest = jax.tree.map(lambda x: x.reshape(1, items, *x.shape[2:]), (action, steps.reward, steps.terminated))
            return Sequences(obs, *rest)
        obs = jnp.concatenate([steps.obs, steps.final_obs[-1:]])
        return Sequences(obs, action, steps.reward, steps.terminated)

    def fill(self, key_worlds, key_warm, guided: bool) -> tuple[rollout.Worlds, Ring]:
        """Fresh environments after the warm-up, and a replay with its steps.

        Args:
            guided: warm up with the environment's rule instead of uniform actions.
        """
        env, num_envs = self.env, self.config.num_envs
        worlds = rollout.start_worlds(env, self.env_params, key_worlds, num_envs, self.empty_memory((num_envs,)))
        rule = self.env.guided_action if guided else None

        def draw(key):
            """Keys for the environment's rule, or uniform actions in units."""
            if rule is not None:
                return jax.random.split(key, num_envs)
            shape = (num_envs, self.agents, self.actions.dim)
            return jax.random.uniform(key, shape, minval=self.actions.low, maxval=self.actions.high)

        def act(worlds, drawn):
            if rule is not None:
                action = jax.vmap(rule, (0, 0, None))(drawn, worlds.state, self.env_params)
            else:
                action = drawn * self.actions.unit
            return action, worlds.carry, None

        def body(carry, key):
            worlds, ring = carry
            worlds, steps, _ = self.collect(worlds, act, draw, key)
            return (worlds, push(ring, self.to_sequences(steps))), None

        shapes = jax.eval_shape(lambda w, k: self.to_sequences(self.collect(w, act, draw, k)[1]), worlds, key_warm)
        ring = make_ring(shapes, self.config.capacity())
        keys = jax.random.split(key_warm, self.config.warmup_pushes())
        return jax.lax.scan(body, (worlds, ring), keys)[0]

    def warmup_report(self, ring: Ring) -> dict[str, jax.Array]:
        """Shares of negative, idle and positive actions in a fresh replay, and the share of the range they span."""
        filled = jnp.arange(self.config.capacity()) < ring.size
        action, weight = ring.data.action[..., 0], filled[None, :, None] / jnp.sum(filled)
        share = lambda where: jnp.mean(jnp.sum(where * weight, axis=1))  # noqa: E731
        covered = jnp.where(filled[None, :, None], action, action[0, 0, 0])
        return {
            "negative": share(action < -IDLE),
            "idle": share(jnp.abs(action) <= IDLE),
            "positive": share(action > IDLE),
            "span": (jnp.max(covered) - jnp.min(covered)) / (self.actions.high[0] - self.actions.low[0]),
        }


def source_of(config: ReplayConfig, env: Environment, env_params, actions: Actions) -> Source:
    """Bind an environment (with an agent axis).

    Raises:
        ValueError: a `sequence_length` that is neither 1 nor the episode length.
    """
    if config.sequence_length not in (1, env.episode_length):
        raise ValueError(
            f"algo.sequence_length {config.sequence_length}: {env.name} has episodes of "
            f"{env.episode_length or 'varying'} steps; use 1 (feed-forward) or that length"
        )
    return Source(config, env, env_params, actions)


def to_batch(items: Sequences) -> Sequences:
    """[T, batch, A, ...] -> [T, batch * A, ...]: agents share the networks."""
    fold = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])  # noqa: E731
    terminated = jnp.broadcast_to(items.terminated[..., None], items.reward.shape)
    return Sequences(fold(items.obs), fold(items.action), fold(items.reward), fold(terminated))
