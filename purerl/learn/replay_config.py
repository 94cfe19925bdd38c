"""Configuration keys of algorithms with a replay.

Reading order: `RingConfig` (all of them), `ReplayConfig` (items are transitions or whole episodes).
"""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from purerl.learn.buffers import StoredAs
from purerl.learn.optimizers import OptimizerName, Schedule
from purerl.nets.networks import NetworkConfig
from purerl.validation import StepCount

WIDE = NetworkConfig(hidden_sizes=(256, 256))


class RingConfig(BaseModel):
    """Keys that every algorithm with a replay has; each adds its own and its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total_env_steps: StepCount = 100_000
    num_envs: int = Field(1, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(1, gt=0, description="steps of every environment per update call")
    updates_per_step: float = Field(1.0, gt=0, description="gradient updates per environment step")
    warmup_steps: int = Field(5000, ge=0, description="environment steps before the first update")
    buffer_size: int = Field(200_000, gt=0, description="environment steps kept")
    replay_dtype: StoredAs = Field(
        "float32", description="of observations and states kept; float16: three digits, up to 65,504, half the memory"
    )
    batch_size: int = Field(256, gt=0, description="sequences per gradient update")
    gamma: float = Field(0.99, ge=0, le=1)
    n_step: int = Field(1, ge=1, description="rewards before the bootstrap; fewer where an episode ends")
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "adam"
    max_grad_norm: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _some_gradient(self):
        if self.gradient_steps() < 1:
            raise ValueError(f"updates_per_step {self.updates_per_step} gives no gradient update per update call "
                             f"({self.env_steps()} environment steps): make one of them larger")  # fmt: skip
        return self

    def item_steps(self) -> int:
        """Steps that an item of the replay adds to those before it."""
        return 1

    def waiting_steps(self) -> int:
        """The newest steps of every environment that are in no item yet, or that the next item begins with."""
        return 0

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update

    def gradient_steps(self) -> int:
        """Gradient updates of one update call."""
        return round(self.env_steps() * self.updates_per_step)

    def items_per_push(self) -> int:
        return self.env_steps() // self.item_steps()

    def capacity(self) -> int:
        """Items of the ring: whole pushes, at least one."""
        items = self.items_per_push()
        return max(self.buffer_size // self.item_steps() // items, 1) * items

    def warmup_pushes(self) -> int:
        """Update calls' worth of steps before the first gradient."""
        return max(-(-self.warmup_steps // self.env_steps()), 1)

    def num_updates(self) -> int:
        return max(self.total_env_steps // self.env_steps(), 1)

    def learning_rate_factor(self, gradient_steps):
        """Schedule at a number of gradient steps done, as a factor of the base rates."""
        env_steps = gradient_steps * (self.env_steps() / self.gradient_steps())
        return self.lr_schedule.factor(env_steps, self.total_env_steps)


class ReplayConfig(RingConfig):
    """Keys of algorithms whose items are transitions or whole episodes."""

    sequence_length: int = Field(1, gt=0, description="1: transitions; otherwise the episode length")
    actor: NetworkConfig = WIDE

    @model_validator(mode="after")
    def _whole_sequences(self):
        if self.recurrent and self.sequence_length == 1:
            raise ValueError("recurrent networks need sequence_length = episode length, not 1")
        if self.sequence_length > 1 and self.steps_per_update != self.sequence_length:
            raise ValueError("steps_per_update must equal sequence_length when whole episodes are stored")
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent

    def item_steps(self) -> int:
        return self.sequence_length

    def waiting_steps(self) -> int:
        return self.n_step - 1 if self.sequence_length == 1 else 0
