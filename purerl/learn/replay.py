"""What algorithms with a replay share: collection into the replay, warm-up, the update call.

Reading order: `Source` (an environment whose steps become replay items), `State` and `advanced` (one update call),
n-step windows, batches. Configuration keys are in `purerl.learn.replay_config`.

An item of the replay is a sequence: one transition (`sequence_length` 1) or a whole episode of fixed length. Networks
start every item with an empty memory. With `n_step` above 1 a transition covers up to that many steps, fewer where its
episode ends; the newest `n_step - 1` steps of every environment wait until their windows are complete. Or items are
what a function of the source's own cuts from the steps (`purerl.learn.chunks`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from envs_jax.base import Environment
from purerl.learn import rollout, sharding, signals
from purerl.learn.buffers import Ring, Sequences, make_ring, push, sample_indices
from purerl.learn.replay_config import ReplayConfig, RingConfig
from purerl.learn.returns import discount_of
from purerl.nets.actions import Actions, Choices
from purerl.nets.networks import initial_carry
from purerl.types import Data

Exploring = tuple[rollout.Act, rollout.Draw]
"""How an algorithm acts where it has not learned yet."""

IDLE = 0.05
"""Actions up to this magnitude (in units) count as idle in the report of the warm-up."""


class Source(NamedTuple):
    """Where experience comes from: an environment (with an agent axis) whose steps become replay items."""

    config: RingConfig
    env: Environment
    actions: Actions | Choices
    agents: int
    obs_dim: int
    reward_scale: float
    memory_of: Callable[[tuple[int, ...]], Any]
    """The actor's empty memory for a batch shape, which includes the agents."""
    cut: Callable[[rollout.Steps], Sequences] | None = None
    """Items of steps [waiting + T, B, A, ...]; None: transitions over n steps, or whole episodes."""
    followed: signals.Followed | None = None
    """The scalar of `info` that the steps keep."""

    def empty_memory(self, batch_shape):
        """The actor's memory at the start of an episode."""
        return self.memory_of((*batch_shape, self.agents))

    def collect(
        self, params, worlds: rollout.Worlds, act: rollout.Act, draw: rollout.Draw, key, num_steps: int | None = None
    ):
        """`rollout.collect`; by default the steps of one update call."""
        num_steps = self.config.steps_per_update if num_steps is None else num_steps
        return rollout.collect(
            self.env, params, worlds, act, draw, key, num_steps, reward_scale=self.reward_scale, followed=self.followed
        )

    def items(self, recent: rollout.Steps | None, steps: rollout.Steps, gamma):
        """`(replay items, recent)` of the steps [T, B, A, ...] of one update call.

        Args:
            recent: the steps that wait; None where none do.
        """
        if self.cut is not None:
            steps = (
                steps if recent is None else jax.tree.map(lambda old, new: jnp.concatenate([old, new]), recent, steps)
            )
            waiting = None if recent is None else jax.tree.map(lambda x: x[self.config.steps_per_update :], steps)
            return self.cut(steps), waiting
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
        if self.config.item_steps() == 1:
            items = self.config.items_per_push()
            obs, legal = (
                None if a is None else jnp.stack([a, b]).reshape(2, items, *a.shape[2:]) for a, b in ends
            )  # fmt: skip
            each = jax.tree.map(lambda x: x.reshape(1, items, *x.shape[2:]), each)
        else:
            obs, legal = (None if a is None else jnp.concatenate([a, b[-1:]]) for a, b in ends)
        action, reward, terminated, alive, span = each
        return Sequences(obs, action, reward, terminated, legal, alive, span)  # type: ignore[arg-type]

    def fill(self, params, key_worlds, key_warm, memory, gamma, guided: bool, exploring: Exploring | None = None):
        """Fresh environments after the warm-up, a replay with its steps, the steps that wait, and how many steps of
        agents it took.

        Args:
            params: of the environment.
            memory: what `worlds.carry` is at the start.
            guided: warm up with the environment's rule instead of uniform actions.
            exploring: how to warm up instead of either.
        """
        if exploring is not None:
            return self._filled(params, key_worlds, key_warm, memory, gamma, *exploring)
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

        return self._filled(params, key_worlds, key_warm, memory, gamma, act, draw)

    def _filled(self, params, key_worlds, key_warm, memory, gamma, act: rollout.Act, draw: rollout.Draw):
        config = self.config

        def body(carry, key, _):
            worlds, ring, recent, agent_steps = carry
            worlds, steps, tally = self.collect(params, worlds, act, draw, key)
            items, recent = self.items(recent, steps, gamma)
            return (worlds, push(ring, items), recent, agent_steps + tally.agent_steps), None

        worlds = rollout.start_worlds(self.env, params, key_worlds, config.num_envs, memory, self.followed)
        recent, agent_steps = None, jnp.zeros((), jnp.int32)
        if config.waiting_steps():
            key_warm, key_recent = jax.random.split(key_warm)
            worlds, steps, tally = self.collect(params, worlds, act, draw, key_recent, config.waiting_steps())
            recent, agent_steps = steps if self.cut else self._recorded(steps), tally.agent_steps

        def one_push():
            steps = self.collect(params, worlds, act, draw, key_warm)[1]
            return self.items(recent, steps, gamma)[0]

        ring = make_ring(jax.eval_shape(one_push), config.capacity(), config.replay_dtype)
        keys = jax.random.split(key_warm, config.warmup_pushes())
        return rollout.scan_with_keys(body, (worlds, ring, recent, agent_steps), keys)[0]

    def warmup_env_steps(self) -> int:
        """Environment steps that `fill` takes."""
        config = self.config
        return config.warmup_pushes() * config.env_steps() + config.waiting_steps() * config.num_envs

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
    return Source(
        config,
        env,
        actions,
        agents,
        obs_dim,
        reward_scale,
        lambda batch_shape: initial_carry(config.actor, batch_shape),
    )


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
    """Steps that wait for their n-step window to close, or for the chunk that they warm up."""
    worlds: rollout.Worlds
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: Any
    warmup_agent_steps: jax.Array
    """Steps of agents in the warm-up; the first update tells them with its own, then it is zero."""


def first_state(
    source: Source, data: Data, keys, params, target, optimizer, memory, hparams, guided: bool = False,
    exploring: Exploring | None = None,
) -> State:  # fmt: skip
    """The state after the warm-up.

    Args:
        keys: `(worlds, warm-up, run)`.
        target: copied, because the state is donated and the same buffer must not appear in it twice.
        memory, guided, exploring: as for `Source.fill`.
    """
    key_worlds, key_warm, key_run = keys
    worlds, ring, recent, agent_steps = source.fill(
        data.env_params, key_worlds, key_warm, memory, hparams.gamma, guided, exploring
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
    learner, metrics = taught(
        config, state.learner, ring, key_draw, key_blocks, block, state.hparams, data, steps_per_block
    )
    metrics |= rollout.tally_metrics(tally._replace(agent_steps=tally.agent_steps + state.warmup_agent_steps))
    metrics["learning_rate_factor"] = config.learning_rate_factor(state.learner.gradient_steps)
    told = jnp.zeros_like(state.warmup_agent_steps)
    return State(learner, ring, recent, worlds, key, state.updates + 1, state.hparams, told), steps, metrics


def taught(
    config: RingConfig, learner: Learner, ring: Ring, key_draw, key_blocks, block: GradientBlock, hparams, data: Data,
    steps_per_block: int = 1,
) -> tuple[Learner, dict[str, jax.Array]]:  # fmt: skip
    """The learner after the gradient steps of one update call, and means of what they watched."""
    blocks = config.gradient_steps() // steps_per_block
    # All item numbers of an update in one draw: many small draws would cost more than the gather.
    indices = sample_indices(ring, key_draw, (blocks, steps_per_block, config.batch_size))
    learner, watched = rollout.scan_with_keys(
        lambda learner, key, drawn: block(learner, ring, drawn, key, hparams, data),
        learner,
        jax.random.split(key_blocks, blocks),
        indices,
    )
    return learner, sharding.mean_over_shares({name: jnp.mean(values) for name, values in watched.items()})


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
