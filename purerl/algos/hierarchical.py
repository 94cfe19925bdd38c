"""Values of teams at two levels: what to select, held over several frames, and in every frame what of it to look at.

Reading order: `Config`, `Policy` and `FrameMemory`, `make` (both levels, start, update, acting frame by frame).

The slow level is QPLEX (`purerl.algos.qplex`) on a world whose steps are scans of frames in which the fast level acts
(`purerl.learn.two_levels`). The fast level is QPLEX on those frames: its agents see what is held, choose one selected
entity or all of it, and have networks, mixer and replay of their own. What an update changes of the fast level is an
argument of the next roll-out. Rewards of the slow level are sums over its frames, discounts of both count frames.

Both levels share the keys of learning and of exploration. The fast level's chunks have no burn-in: memories start as
they were recorded. What follows the last frame of a selection is valued as if it went on to be held.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.selections import from_subset, to_subset
from purerl.algos import qplex
from purerl.algos.qplex import HParams, hparams_of
from purerl.learn import replay
from purerl.learn.buffers import Ring, make_ring, push
from purerl.learn.replay import Exploring, Learner, Source, advanced, first_state, taught
from purerl.learn.teams import Mixing, Players, epsilon_after
from purerl.learn.two_levels import Levels, fast_view, frames_of, held_world, narrowed, open_to, with_held
from purerl.learn.value_learner import ValueLearner
from purerl.nets.mixer_parts import MixerConfig
from purerl.nets.utilities import AgentConfig, Memory
from purerl.types import Algorithm, Data


class Config(qplex.Config):
    """Keys beside those of QPLEX, which are about the slow level. Steps are its steps; the world's are frames."""

    name: Literal["qplex_hrl"] = "qplex_hrl"  # type: ignore[assignment]
    mixer: Mixing = "qplex"
    held_frames: int = Field(5, ge=1, le=1000, description="steps of the world for which a selection is held")
    fast_mixer: Mixing = "qplex"
    fast_q_network: AgentConfig = AgentConfig()
    fast_mixing_network: MixerConfig = MixerConfig()
    fast_buffer_size: int = Field(200_000, gt=0, description="frames kept for the fast level")

    @model_validator(mode="after")
    def _nothing_unused(self):
        if self.signal is not None:
            raise ValueError("signal: two levels follow none; leave it out")
        return self

    def fast(self) -> "Config":
        """The keys of the fast level, whose steps are frames."""
        pushes = max(self.fast_buffer_size // (self.env_steps() * self.held_frames), 1)
        return self.model_copy(
            update={
                "total_env_steps": self.total_env_steps * self.held_frames,
                "steps_per_update": self.steps_per_update * self.held_frames,
                "updates_per_step": self.updates_per_step / self.held_frames,
                "buffer_size": pushes * self.env_steps() * self.held_frames,
                "burn_in": 0,
                "mixer": self.fast_mixer,
                "q_network": self.fast_q_network,
                "mixing_network": self.fast_mixing_network,
                "selection_entropy_weight": 0.0,
            }
        )


class Policy(NamedTuple):
    """Parameters of the agents of both levels."""

    slow: Any
    fast: Any


class FrameMemory(NamedTuple):
    """What acting carries from frame to frame; zeros at the start of an episode."""

    slow: Memory
    fast: Memory
    held: jax.Array
    """bool [..., A, T]"""
    frame: jax.Array
    """int [..., A, 1] of those for which it is held; before the first the slow level decides."""


@struct.dataclass
class State:
    slow: replay.State
    """Of the slow level, with the worlds of both."""
    fast: Learner
    fast_ring: Ring


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind both levels to an environment whose actions select entities for one frame.

    Raises:
        ValueError: actions that select nothing, or keys that ask for more than the world tells.
    """
    env_params = env.default_params if env_params is None else env_params
    env, fast_config = with_agent_axis(env), config.fast()
    fast = Players(config.name, fast_config, config.fast_mixer, fast_view(env), env_params)
    selection = env.selection
    assert selection is not None
    world = held_world(env, fast, config.held_frames)
    slow = Players(config.name, config, config.mixer, world, Levels(env_params, None, jnp.zeros(())))
    slow_values = ValueLearner(config, slow.nets, reward_scale)
    fast_values = ValueLearner(fast_config, fast.nets, reward_scale)
    source = Source(
        config, world, slow.actions, slow.agents, slow.obs_dim, reward_scale, slow.nets.utilities.empty_memory,
        slow_values.cut,
    )  # fmt: skip

    def levels(data: Data, fast_params, epsilon) -> Data:
        """What a roll-out of the slow level reads."""
        return data._replace(env_params=Levels(data.env_params, fast_params.agents, epsilon))

    def exploring(slow_params, data: Data, epsilon) -> Exploring:
        return slow.exploring(slow_params.agents, data.env_params, epsilon, config.num_envs)

    def init(key, hparams: HParams, data: Data) -> State:
        key_slow, key_fast, key_run, *keys = jax.random.split(key, 5)
        params, fast_params = slow.nets.init(key_slow), fast.nets.init(key_fast)
        data = levels(data, fast_params, hparams.epsilon_start)
        acting = exploring(params, data, hparams.epsilon_start)
        state = first_state(
            source, data, [*keys, key_run], params, params, slow_values.optimizer.init(params),
            source.empty_memory((config.num_envs,)), hparams, exploring=acting,
        )  # fmt: skip
        key, key_more = jax.random.split(state.key)
        # The fast level's replay starts with the frames of one more roll-out.
        worlds, steps, tally = source.collect(data.env_params, state.worlds, *acting, key_more)
        items, recent = source.items(state.recent, steps, hparams.gamma)
        frames = fast_values.cut(frames_of(steps, reward_scale))
        state = dataclasses.replace(
            state, key=key, worlds=worlds, recent=recent, ring=push(state.ring, items),
            warmup_agent_steps=state.warmup_agent_steps + tally.agent_steps,
        )  # fmt: skip
        zero, opt = jnp.zeros((), jnp.int32), fast_values.optimizer.init(fast_params)
        learner = Learner(fast_params, jax.tree.map(jnp.copy, fast_params), opt, zero)
        return State(state, learner, push(make_ring(frames, fast_config.capacity(), config.replay_dtype), frames))

    def update(state: State, data: Data):
        hparams = state.slow.hparams
        env_steps = state.slow.updates.astype(jnp.float32) * config.env_steps()
        epsilon = epsilon_after(config.epsilon_schedule, hparams, env_steps)
        data = levels(data, state.fast.params, epsilon)
        acting = exploring(state.slow.learner.params, data, epsilon)
        after, steps, metrics = advanced(source, state.slow, data, *acting, slow_values.gradient_step)
        key, key_draw, key_blocks = jax.random.split(after.key, 3)
        frames = frames_of(steps, reward_scale)
        ring = push(state.fast_ring, fast_values.cut(frames))
        learner, watched = taught(
            fast_config, state.fast, ring, key_draw, key_blocks, fast_values.gradient_step, hparams, data
        )
        metrics |= {f"fast_{name}": value for name, value in watched.items()}
        played = jnp.any(frames.facts.alive, axis=-1)
        kept = (frames.action == selection.number) & played[..., None]
        metrics |= {
            "epsilon": epsilon,
            "hit_prob": jnp.mean(steps.extra.hit),
            "fast_keeps": jnp.mean(kept) / jnp.maximum(jnp.mean(played), 1e-6),
        }
        return State(dataclasses.replace(after, key=key), learner, ring), metrics

    def act(policy: Policy, memory: FrameMemory, obs, mask, key, greedy: bool):
        """One frame; see `Algorithm.act`."""
        action, decided = slow.act(policy.slow, memory.slow, obs, mask, key, greedy)
        due = memory.frame == 0
        held = jnp.where(due, to_subset(selection.encoding, action, selection.number), memory.held)
        choice, fast_memory = fast.act(policy.fast, memory.fast, with_held(obs, held), open_to(held), key, greedy)
        following = FrameMemory(
            slow=jax.tree.map(lambda new, old: _where_due(due, new, old), decided, memory.slow),
            fast=fast_memory,
            held=held,
            frame=(memory.frame + 1) % config.held_frames,
        )
        return from_subset(selection.encoding, narrowed(choice, held)), following

    def initial_carry(batch_shape: tuple[int, ...]) -> FrameMemory:
        shape = *batch_shape, slow.agents
        return FrameMemory(
            slow.nets.utilities.empty_memory(shape),
            fast.nets.utilities.empty_memory(shape),
            jnp.zeros((*shape, selection.number), bool),
            jnp.zeros((*shape, 1), jnp.int32),
        )

    return Algorithm(
        reward_scale=reward_scale,
        init=init,
        update=update,
        policy=lambda state: Policy(state.slow.learner.params.agents, state.fast.params.agents),
        act=act,
        initial_carry=initial_carry,
        hparams=hparams_of(config),
        load_data=lambda: Data(env_params),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=2 * config.gradient_steps(),
        warmup_env_steps=source.warmup_env_steps() + config.env_steps(),
        num_updates=config.num_updates(),
        vectorise_seeds=not config.recurrent,
    )


def _where_due(due: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Leaves [..., A] or [..., A, h]; `due` is [..., A, 1]."""
    return jnp.where(due if new.ndim == due.ndim else due[..., 0], new, old)
