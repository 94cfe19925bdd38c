"""Values of teams: independent Q-learning (IQL), VDN, QMIX, QPLEX and QFIX, feed-forward or with memory, from a replay.

Reading order: `Config`, `HParams`, `make` (start, update). `name` picks the mixer; everything else is one
algorithm. `purerl.nets.mixers` has the mixers and their papers, `purerl.nets.utilities` the agents,
`purerl.learn.teams` how they act and explore, `purerl.learn.joint_values` targets and loss, `purerl.learn.chunks` what
the replay holds, `purerl.learn.value_learner` one gradient step.

Agents choose on their own, greedily but for a share epsilon. Their utilities become one value of the team, which is
trained to what the team is paid and the target network's value of what follows. Chunks are of one length, whatever the
length of episodes: a memory starts a chunk as it was when the actor recorded it and is warmed up over `burn_in` steps,
through which gradients pass but which no loss counts. With `q_network.type: mlp` and `chunk_length: 1` they are
transitions. One agent and `name: iql` is deep (recurrent) Q-learning.

Deviations: the squared error is averaged over steps and not over episodes; gradients are clipped by their global norm
before RMSprop sees them; the reward of the team is the mean of what its agents are paid (`team_reward`); lambda-returns
(`td_lambda`) are not corrected for actions that were not greedy. In no paper: a term of the loss for
undecided selections (`selection_entropy_weight`), rewards shaped by a scalar of `info` (`shaping`), more exploration
where it is low (`exploration_bonus`).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import AliasChoices, Field, model_validator

from envs_jax.base import Environment
from purerl.learn.actors import traced
from purerl.learn.joint_values import LossConfig, TargetConfig
from purerl.learn.optimizers import OptimizerName
from purerl.learn.replay import Source, State, advanced, first_state
from purerl.learn.replay_config import RingConfig
from purerl.learn.signals import SignalConfig, low_signal_epsilon, require_told
from purerl.learn.teams import Mixing, Players, TeamConfig, epsilon_after
from purerl.learn.value_learner import ValueLearner
from purerl.types import Algorithm, Data
from purerl.validation import StepCount


def _mixer_of_name(keys: dict[str, Any]) -> Any:
    return keys["name"]


class Config(RingConfig, TeamConfig, SignalConfig):
    """Keys beside those of `RingConfig`, `TeamConfig` and `SignalConfig`; some have the names of public code, too."""

    name: Literal["iql", "vdn", "qmix", "qplex", "qfix"] = "qplex"
    mixer: Mixing = Field(
        default_factory=_mixer_of_name, description="of qplex: qplex, qplex_atten or adaptive; otherwise the name's own"
    )
    total_env_steps: StepCount = Field(1_000_000, validation_alias=AliasChoices("total_env_steps", "total_timesteps"))
    num_envs: int = Field(32, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(32, gt=0, description="steps of every environment per update call: whole chunks")
    chunk_length: int = Field(32, gt=0, description="steps of a chunk that losses count")
    burn_in: int = Field(8, ge=0, description="steps before them that warm up the memory; 0 without one")
    updates_per_step: float = Field(1 / 64, gt=0, description="gradient updates per environment step")
    warmup_steps: int = Field(
        5000, ge=0, validation_alias=AliasChoices("warmup_steps", "learning_starts"),
        description="environment steps before the first update",
    )  # fmt: skip
    batch_size: int = Field(32, gt=0, description="chunks per gradient update")
    lr: float = Field(5e-4, gt=0, validation_alias=AliasChoices("lr", "learning_rate"))
    optimizer: OptimizerName = "rmsprop"
    optimizer_eps: float = Field(1e-5, gt=0, description="beside a root; RMSprop has its square under the root")
    max_grad_norm: float = Field(10.0, gt=0, validation_alias=AliasChoices("max_grad_norm", "grad_clip"))
    double_q: bool = True
    td_lambda: float = Field(0.0, ge=0, le=1, description="above 0: lambda-returns instead of n_step")
    target_update_interval: int = Field(200, ge=1, description="gradient updates between those of the target network")
    tau: float = Field(1.0, gt=0, le=1, description="how far it then moves; 1: it is copied")
    selection_entropy_weight: float = Field(
        0.0, ge=0, description="in the loss: of how evenly agents that select entities judge each of them"
    )
    selection_temperature: float = Field(1.0, gt=0, description="of the probabilities behind that entropy")

    @model_validator(mode="after")
    def _consistent(self):
        own = ("qplex", "qplex_atten", "adaptive") if self.name.startswith("qplex") else (self.name,)
        if self.mixer not in own:
            raise ValueError(f"mixer {self.mixer}: {self.name} has {', '.join(own)}")
        if self.steps_per_update % self.chunk_length:
            raise ValueError(
                f"steps_per_update {self.steps_per_update} must be a multiple of chunk_length {self.chunk_length}"
            )
        if self.burn_in and not self.q_network.recurrent:
            raise ValueError("burn_in warms up a memory, and q_network.type mlp has none: set burn_in to 0")
        if self.n_step > 1 and self.td_lambda > 0:
            raise ValueError("n_step and td_lambda are two ways to look further: set n_step to 1 or td_lambda to 0")
        if self.tau < 1 and self.target_update_interval > 1:
            raise ValueError(
                f"tau {self.tau} every {self.target_update_interval} updates would hardly move the target network: set "
                "target_update_interval to 1, or tau to 1"
            )
        return self

    @property
    def recurrent(self) -> bool:
        return self.q_network.recurrent

    def item_steps(self) -> int:
        return self.chunk_length

    def waiting_steps(self) -> int:
        return self.burn_in

    def loss_config(self) -> LossConfig:
        return LossConfig(self.selection_entropy_weight, self.selection_temperature)

    def target_config(self) -> TargetConfig:
        return TargetConfig(self.double_q, self.n_step, self.td_lambda > 0)


@struct.dataclass
class HParams:
    """The numbers that may be traced: a sweep over them compiles once."""

    gamma: jax.Array
    lr: jax.Array
    tau: jax.Array
    td_lambda: jax.Array
    epsilon_start: jax.Array
    epsilon_end: jax.Array
    epsilon_anneal_steps: jax.Array
    epsilon_decay: jax.Array
    shaping_weight: jax.Array
    exploration_bonus: jax.Array


def hparams_of(config: Config) -> HParams:
    return traced(HParams, config)


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind the algorithm to an environment whose agents each make a choice, or several at once.

    Raises:
        ValueError: other actions, a mixer that the global state does not fit, or keys that ask for more than the world
            tells.
    """
    env_params = env.default_params if env_params is None else env_params
    players = Players(config.name, config, config.mixer, env, env_params)
    nets, followed = players.nets, config.followed()
    require_told(followed, players.env, env_params)
    if config.selection_entropy_weight and nets.selection is None:
        raise ValueError(f"selection_entropy_weight: actions of {env.name} select no entities; set it to 0")

    values = ValueLearner(config, nets, reward_scale)
    source = Source(
        config, players.env, players.actions, players.agents, players.obs_dim, reward_scale,
        nets.utilities.empty_memory, values.cut, followed,
    )  # fmt: skip

    def share_of(epsilon, h: HParams):
        """Of uniform choices; with a signal, a function of the worlds."""
        if followed is None:
            return epsilon
        below = config.exploration_bonus_below
        return lambda worlds: low_signal_epsilon(worlds.recent, epsilon, h.exploration_bonus, below)

    def init(key, hparams: HParams, data: Data) -> State:
        key_nets, *keys = jax.random.split(key, 4)
        params = nets.init(key_nets)
        memory = source.empty_memory((config.num_envs,))
        return first_state(
            source, data, keys, params, params, values.optimizer.init(params), memory, hparams,
            exploring=players.exploring(
                params.agents, data.env_params, share_of(hparams.epsilon_start, hparams), config.num_envs
            ),
        )  # fmt: skip

    def update(state: State, data: Data):
        env_steps = state.updates.astype(jnp.float32) * config.env_steps()
        epsilon = epsilon_after(config.epsilon_schedule, state.hparams, env_steps)
        agents = state.learner.params.agents
        exploring = players.exploring(agents, data.env_params, share_of(epsilon, state.hparams), config.num_envs)
        after, steps, metrics = advanced(source, state, data, *exploring, values.gradient_step)
        metrics |= {"epsilon": epsilon, "hit_prob": jnp.mean(steps.extra.hit)}
        return after, metrics if steps.signal is None else {**metrics, "signal_mean": jnp.mean(steps.signal.after)}

    return Algorithm(
        reward_scale=reward_scale,
        init=init,
        update=update,
        policy=lambda state: state.learner.params.agents,
        act=players.act,
        initial_carry=source.empty_memory,
        hparams=hparams_of(config),
        load_data=lambda: Data(env_params),
        learned=("learner",),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.gradient_steps(),
        warmup_env_steps=source.warmup_env_steps(),
        num_updates=config.num_updates(),
        vectorise_seeds=not config.recurrent,
        replay_field="ring",
    )
