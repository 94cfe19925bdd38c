"""What algorithms with a replay share: configuration keys, collection into the replay, warm-up, the update call.

Reading order: `ReplayConfig`, `Source` (an environment whose steps become replay items), `State` and `advanced` (one
update call), n-step windows, batches.

An item of the replay is a sequence: one transition (`sequence_length` 1) or a whole episode of fixed length. Networks
start every item with an empty memory. With `n_step` above 1 a transition covers up to that many steps, fewer where its
episode ends; the newest `n_step - 1` steps of every environment wait until their windows are complete.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.base import Environment
from purerl.learn import rollout, sharding
from purerl.learn.buffers import Ring, Sequences, make_ring, push, sample_indices
from purerl.learn.optimizers import OptimizerName, Schedule
from purerl.learn.returns import discount_of
from purerl.nets.actions import Actions, Choices
from purerl.nets.networks import NetworkConfig, initial_carry
from purerl.types import Data
from purerl.validation import StepCount

WIDE = NetworkConfig(hidden_sizes=(256, 256))

IDLE = 0.05
"""Actions up to this magnitude (in units) count as idle in the report of the warm-up."""


class ReplayConfig(BaseModel):
    """Keys that every algorithm with a replay has; each adds its own and its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total_env_steps: StepCount = 100_000
    num_envs: int = Field(1, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(1, gt=0, description="steps of every environment per update call")
    sequence_length: int = Field(1, gt=0, description="1: transitions; otherwise the episode length")
    updates_per_step: float = Field(1.0, gt=0, description="gradient updates per environment step")
    warmup_steps: int = Field(5000, ge=0, description="environment steps before the first update")
    buffer_size: int = Field(200_000, gt=0, description="environment steps kept")
    batch_size: int = Field(256, gt=0, description="sequences per gradient update")
    gamma: float = Field(0.99, ge=0, le=1)
    n_step: int = Field(1, ge=1, description="rewards before the bootstrap; fewer where an episode ends")
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "adam"
    max_grad_norm: float = Field(1.0, gt=0)
    actor: NetworkConfig = WIDE

    @model_validator(mode="after")
    def _whole_sequences(self):
        if self.recurrent and self.sequence_length == 1:
            raise ValueError("recurrent networks need sequence_length = episode length, not 1")
        if self.sequence_length > 1 and self.steps_per_update != self.sequence_length:
            raise ValueError("steps_per_update must equal sequence_length when whole episodes are stored")
        if self.gradient_steps() < 1:
            raise ValueError(f"updates_per_step {self.updates_per_step} gives no gradient update per update call "
                             f"({self.env_steps()} environment steps): make one of them larger")  # fmt: skip
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update

    def gradient_steps(self) -> int:
        """Gradient updates of one update call."""
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
    actions: Actions | Choices
    agents: int
    obs_dim: int
    reward_scale: float

    def empty_memory(self, batch_shape):
        """The actor's memory at the start of an episode."""
        return initial_carry(self.config.actor, (*batch_shape, self.agents))

    def collect(
        self, params, worlds: rollout.Worlds, act: rollout.Act, draw: rollout.Draw, key, num_steps: int | None = None
    ):
        """`rollout.collect`; by default the steps of one update call."""
        num_steps = self.config.steps_per_update if num_steps is None else num_steps
        scale = self.reward_scale
        return rollout.collect(self.env, params, worlds, act, draw, key, num_steps, reward_scale=scale)

    def items(self, recent: rollout.Steps | None, steps: rollout.Steps, gamma):
        """`(replay items, recent)` of the steps [T, B, A, ...] of one update call.

        Args:
            recent: the steps whose windows are open; None where no item covers several steps.
        """
        steps = self._recorded(steps)
        if recent is None:
            if steps.facts.alive is not None:
                steps = steps._replace(terminated=own_ends(steps)[0])
            return self._to_items(steps, _frames_of_agents(steps)), None
        steps = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), recent, steps)
        windows, span = n_step_windows(steps, gamma, self.config.n_step)
        recent = jax.tree.map(lambda x: x[self.config.steps_per_update :], steps)
        return self._to_items(windows, span), recent

    def _recorded(self, steps: rollout.Steps) -> rollout.Steps:
        """What the replay needs of recorded steps, actions as it keeps them."""
        keep = lambda facts: facts._replace(global_state=None)  # noqa: E731
        return steps._replace(
            action=self.actions.stored(steps.action),
            extra=None,
            facts=keep(steps.facts),
            final_facts=keep(steps.final_facts),
        )

    def _to_items(self, steps: rollout.Steps, span=None) -> Sequences:
        """Steps [T, B, A, ...] as replay items [time, item, A, ...].

        A transition ends with the observation before any reset, an episode with that of its last step.
        """
        each = (steps.action, steps.reward, steps.terminated, steps.facts.alive, span)
        ends = ((steps.obs, steps.final_obs), (steps.facts.legal, steps.final_facts.legal))
        if self.config.sequence_length == 1:
            items = self.config.items_per_push()
            obs, legal = (
                None if a is None else jnp.stack([a, b]).reshape(2, items, *a.shape[2:]) for a, b in ends
            )  # fmt: skip
            each = jax.tree.map(lambda x: x.reshape(1, items, *x.shape[2:]), each)
        else:
            obs, legal = (None if a is None else jnp.concatenate([a, b[-1:]]) for a, b in ends)
        action, reward, terminated, alive, span = each
        return Sequences(obs, action, reward, terminated, legal, alive, span)  # type: ignore[arg-type]

    def fill(self, params, key_worlds, key_warm, memory, gamma, guided: bool):
        """Fresh environments after the warm-up, a replay with its steps, the steps whose windows are open, and how many
        steps of agents it took.

        Args:
            params: of the environment.
            memory: what `worlds.carry` is at the start.
            guided: warm up with the environment's rule instead of uniform actions.
        """
        env, config = self.env, self.config
        if guided and env.guidance.guided_action is None:
            raise ValueError(f"algo: guided_warmup needs a rule to warm up with, and {env.name} has none")
        rule = env.guidance.guided_action if guided else None

        def draw(key):
            if rule is not None:
                return jax.random.split(key, config.num_envs)
            return self.actions.draw_uniform(key, (config.num_envs, self.agents))

        def act(worlds, drawn):
            if rule is not None:
                action = jax.vmap(rule, (0, 0, None))(drawn, worlds.state, params)
            else:
                action = self.actions.uniform(drawn, rollout.facts_of(env, params, worlds.state).legal)
            return action, worlds.carry, None

        def body(carry, key, _):
            worlds, ring, recent, agent_steps = carry
            worlds, steps, tally = self.collect(params, worlds, act, draw, key)
            items, recent = self.items(recent, steps, gamma)
            return (worlds, push(ring, items), recent, agent_steps + tally.agent_steps), None

        worlds = rollout.start_worlds(env, params, key_worlds, config.num_envs, memory)
        recent, agent_steps = None, jnp.zeros((), jnp.int32)
        if config.sequence_length == 1 and config.n_step > 1:
            key_warm, key_recent = jax.random.split(key_warm)
            worlds, steps, tally = self.collect(params, worlds, act, draw, key_recent, config.n_step - 1)
            recent, agent_steps = self._recorded(steps), tally.agent_steps

        def one_push():
            steps = self.collect(params, worlds, act, draw, key_warm)[1]
            return self.items(recent, steps, gamma)[0]

        ring = make_ring(jax.eval_shape(one_push), config.capacity())
        keys = jax.random.split(key_warm, config.warmup_pushes())
        return rollout.scan_with_keys(body, (worlds, ring, recent, agent_steps), keys)[0]

    def warmup_env_steps(self) -> int:
        """Environment steps that `fill` takes."""
        waiting = self.config.n_step - 1 if self.config.sequence_length == 1 else 0
        return self.config.warmup_pushes() * self.config.env_steps() + waiting * self.config.num_envs

    def warmup_report(self, ring: Ring) -> dict[str, jax.Array]:
        """Shares of negative, idle and positive actions in a fresh replay, and the share of the range they span."""
        assert isinstance(self.actions, Actions)
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


def source_of(
    config: ReplayConfig, env: Environment, env_params, actions: Actions | Choices, reward_scale: float = 1.0
) -> Source:
    """Bind an environment (with an agent axis).

    Raises:
        ValueError: a `sequence_length` that is neither 1 nor the episode length.
    """
    if config.sequence_length not in (1, env.episode_length):
        raise ValueError(
            f"algo.sequence_length {config.sequence_length}: {env.name} has episodes of "
            f"{env.episode_length or 'varying'} steps; use 1 (feed-forward) or that length"
        )
    agents, obs_dim = env.observation_space(env_params).shape
    return Source(config, env, actions, agents, obs_dim, reward_scale)


@struct.dataclass
class Learner:
    """What gradient steps change; the parts are an algorithm's own."""

    params: Any
    target: Any
    optimizer: Any
    gradient_steps: jax.Array


@struct.dataclass
class State:
    learner: Learner
    ring: Ring
    recent: rollout.Steps | None
    """Steps that wait for their n-step window to close."""
    worlds: rollout.Worlds
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: Any
    warmup_agent_steps: jax.Array
    """Steps of agents in the warm-up; the first update tells them with its own, then it is zero."""


def first_state(source: Source, data: Data, keys, params, target, optimizer, memory, hparams, guided: bool) -> State:
    """The state after the warm-up.

    Args:
        keys: `(worlds, warm-up, run)`.
        target: copied, because the state is donated and the same buffer must not appear in it twice.
        memory, guided: as for `Source.fill`.
    """
    key_worlds, key_warm, key_run = keys
    worlds, ring, recent, agent_steps = source.fill(
        data.env_params, key_worlds, key_warm, memory, hparams.gamma, guided
    )
    zero = jnp.zeros((), jnp.int32)
    learner = Learner(params, jax.tree.map(jnp.copy, target), optimizer, zero)
    return State(learner, ring, recent, worlds, key_run, jnp.copy(zero), hparams, agent_steps)


GradientBlock = Callable[[Learner, Ring, jax.Array, jax.Array, Any, Data], tuple[Learner, dict[str, jax.Array]]]
"""`(learner, ring, item numbers [block, batch], key, hparams, data)`: the steps between two target updates."""


def advanced(
    source: Source,
    state: State,
    data: Data,
    act: rollout.Act,
    draw: rollout.Draw,
    block: GradientBlock,
    steps_per_block: int = 1,
) -> tuple[State, rollout.Steps, dict[str, jax.Array]]:
    """One update call: steps into the replay, then blocks of gradient steps; `(state, steps, metrics)`.

    Args:
        steps_per_block: gradient steps between two updates of the target network.
    """
    config = source.config
    key, key_collect, key_draw, key_blocks = jax.random.split(state.key, 4)
    worlds, steps, tally = source.collect(data.env_params, state.worlds, act, draw, key_collect)
    items, recent = source.items(state.recent, steps, state.hparams.gamma)
    ring = push(state.ring, items)
    blocks = config.gradient_steps() // steps_per_block
    # All item numbers of an update in one draw: many small draws would cost more than the gather.
    indices = sample_indices(ring, key_draw, (blocks, steps_per_block, config.batch_size))
    learner, watched = rollout.scan_with_keys(
        lambda learner, key, drawn: block(learner, ring, drawn, key, state.hparams, data),
        state.learner,
        jax.random.split(key_blocks, blocks),
        indices,
    )
    metrics = sharding.mean_over_shares({name: jnp.mean(values) for name, values in watched.items()})
    metrics |= rollout.tally_metrics(tally._replace(agent_steps=tally.agent_steps + state.warmup_agent_steps))
    metrics["learning_rate_factor"] = config.learning_rate_factor(state.learner.gradient_steps)
    told = jnp.zeros_like(state.warmup_agent_steps)
    return State(learner, ring, recent, worlds, key, state.updates + 1, state.hparams, told), steps, metrics


def own_ends(steps: rollout.Steps) -> tuple[jax.Array, jax.Array]:
    """Every agent's own end [T, B, A]: `(terminated, terminated or truncated)`. One that leaves play has terminated."""
    terminated = jnp.broadcast_to(steps.terminated[..., None], steps.reward.shape)
    done = terminated | steps.truncated[..., None]
    if steps.facts.alive is None:
        return terminated, done
    left = steps.facts.alive & ~steps.final_facts.alive
    return terminated | left, done | left


def _frames_of_agents(steps: rollout.Steps) -> jax.Array | None:
    """[T, B, A] that the steps took; None: one each."""
    return None if steps.frames is None else jnp.broadcast_to(steps.frames[..., None], steps.reward.shape)


def n_step_windows(steps: rollout.Steps, gamma, n: int) -> tuple[rollout.Steps, jax.Array]:
    """Transitions over up to n steps, from each of the first T - n + 1 steps; none reaches beyond its episode.

    Args:
        steps: T consecutive steps of B environments with A agents.

    Returns:
        Steps whose reward is the discounted sum over the window, with the end of its last step, and the number of
        frames covered [T - n + 1, B, A].
    """
    count = steps.reward.shape[0] - n + 1
    ended, done = own_ends(steps)
    reward, terminated, running = steps.reward[:count], ended[:count], ~done[:count]
    frames = _frames_of_agents(steps)
    span = jnp.ones(reward.shape) if frames is None else frames[:count]
    after = steps.final_obs, steps.final_facts.legal
    last = jax.tree.map(lambda x: x[:count], after)
    for k in range(1, n):
        reward = reward + running * gamma ** (k if frames is None else span) * steps.reward[k : k + count]
        terminated = jnp.where(running, ended[k : k + count], terminated)
        later = jax.tree.map(lambda x, k=k: x[k : k + count], after)
        last = jax.tree.map(lambda new, old, on=running: jnp.where(on[..., None], new, old), later, last)
        span = span + (running if frames is None else running * frames[k : k + count])
        running = running & ~done[k : k + count]
    first = jax.tree.map(lambda x: x[:count], steps)
    final_facts = first.final_facts._replace(legal=last[1])
    return first._replace(reward=reward, terminated=terminated, final_obs=last[0], final_facts=final_facts), span


def to_batch(items: Sequences) -> Sequences:
    """[T, batch, A, ...] -> [T, batch * A, ...]: agents share the networks."""
    terminated = items.terminated if items.terminated.ndim == 3 else items.terminated[..., None]
    items = dataclasses.replace(items, terminated=jnp.broadcast_to(terminated, items.reward.shape))
    return jax.tree.map(lambda x: x.reshape(x.shape[0], -1, *x.shape[3:]), items)


def discounts(batch: Sequences, gamma) -> jax.Array:
    """Weight [T, N] of the value after each stored step: none after a termination."""
    return discount_of(gamma, batch.span) * (1.0 - batch.terminated)
