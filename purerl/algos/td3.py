"""TD3 (Fujimoto, van Hoof, Meger 2018), feed-forward on transitions or with an LSTM on whole episodes.

Reading order: `Config`, `HParams`, `State`, networks and acting, targets, losses, one gradient block, collection,
`make`.

Recurrent training works on whole episodes of fixed length (a trading day): the replay stores them complete, every
network starts each with an empty memory, and the targets of all steps come from one unroll of the target networks.
The `history` critic reads (o_t, a_{t-1}) through its LSTM and sees a_t only in its head, so that changing a_t for the
actor's loss leaves the history untouched; `concat` feeds (o_t, a_t) to the LSTM at every step.

Deviations from the paper, each behind a key: target noise is applied in units of the action range on every step of a
sequence; `target_value` and `actor_value` may be the mean of both critics (the minimum biases long horizons with
gamma 1); a penalty on the pre-squash output and a critic-only start keep the actor out of saturation; gradients are
clipped by their global norm; actor and critic gradients of one step use the same parameters; with `critic_preview` the
critics are told what an action does at once (the environment's `preview`, its immediate reward first) and learn what
follows, which is no longer model-free.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Box
from purerl import rollout, sharding
from purerl.buffers import Ring, Sequences, make_ring, push, sample_indices, take
from purerl.networks import Core, Head, NetworkConfig, initial_carry
from purerl.optimizers import OptimizerName, Schedule, descend, make_optimizer
from purerl.returns import n_step_returns
from purerl.types import Algorithm

SATURATED = 0.95
"""Share of the half range from which an action counts as saturated."""
IDLE = 0.05
"""Actions up to this magnitude (in units) count as idle in the report of the warm-up."""


class Exploration(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    initial_noise_std: float = Field(0.5, ge=0, description="in units of the largest action magnitude")
    final_noise_std: float = Field(0.5, ge=0)
    noise_decay_env_steps: int = Field(1, ge=1, description="linear decay from initial to final after warm-up")
    guided_warmup: bool = Field(False, description="warm up with the environment's rule instead of uniform actions")


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["td3"] = "td3"
    total_env_steps: int = Field(52_800, gt=0)
    num_envs: int = Field(22, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(24, gt=0, description="steps of every environment per update call")
    sequence_length: int = Field(24, gt=0, description="1: transitions; otherwise the episode length")
    updates_per_step: float = Field(1.0, gt=0, description="gradient updates per environment step")
    warmup_steps: int = Field(5000, ge=0, description="environment steps before the first update")
    buffer_size: int = Field(200_000, gt=0, description="environment steps kept")
    batch_size: int = Field(128, gt=0, description="sequences per gradient update")
    gamma: float = Field(1.0, ge=0, le=1)
    n_step: int = Field(1, ge=1)
    tau: float = Field(0.01, gt=0, le=1)
    policy_delay: int = Field(2, ge=1)
    target_noise: float = Field(0.5, ge=0)
    noise_clip: float = Field(0.4, ge=0)
    actor_lr: float = Field(5e-5, gt=0)
    critic_lr: float = Field(5e-5, gt=0)
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "adam"
    max_grad_norm: float = Field(1.0, gt=0)
    target_value: Literal["min", "mean"] = "min"
    actor_value: Literal["min", "mean", "q1"] = "min"
    target_clip: float | None = Field(None, gt=0, description="targets are clipped to +- this")
    saturation_penalty: float = Field(0.0, ge=0, description="weight of relu(|pre-squash output| - threshold)^2")
    saturation_threshold: float = Field(1.5, ge=0)
    critic_only_updates: int = Field(0, ge=0, description="updates before the actor starts to learn")
    critic_arch: Literal["history", "concat"] = "history"
    critic_preview: bool = Field(
        False,
        description="critics see the environment's preview of the action and learn what follows the previewed reward",
    )
    output_activation: Literal["auto", "tanh", "sigmoid"] = Field("auto", description="auto: sigmoid for [0, 1]")
    actor: NetworkConfig = NetworkConfig(lstm_hidden_size=64)
    critic: NetworkConfig = NetworkConfig(lstm_hidden_size=64)
    exploration: Exploration = Exploration()

    @model_validator(mode="after")
    def _consistent(self):
        if (self.actor.recurrent or self.critic.recurrent) and self.sequence_length == 1:
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

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update

    def gradient_steps(self) -> int:
        return round(self.env_steps() * self.updates_per_step)

    def items_per_push(self) -> int:
        return self.env_steps() // self.sequence_length


@struct.dataclass
class HParams:
    """The numbers that may be traced: a sweep over them compiles once."""

    gamma: jax.Array
    tau: jax.Array
    actor_lr: jax.Array
    critic_lr: jax.Array
    target_noise: jax.Array
    noise_clip: jax.Array
    initial_noise_std: jax.Array
    final_noise_std: jax.Array
    saturation_penalty: jax.Array


class Pair(NamedTuple):
    """Parameters of the actor and of the twin critics (leaves with a leading axis of 2)."""

    actor: Any
    critics: Any


@struct.dataclass
class Learner:
    """What gradient steps change."""

    params: Pair
    target: Pair
    optimizer: Pair
    gradient_steps: jax.Array


@struct.dataclass
class State:
    learner: Learner
    ring: Ring
    worlds: rollout.Worlds
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: HParams


class Actions(NamedTuple):
    """Action range in units of its largest magnitude, so that noise of 0.1 means the same everywhere."""

    low: np.ndarray
    high: np.ndarray
    unit: np.ndarray
    sigmoid: bool

    def squash(self, x):
        """Pre-squash network output -> action in units."""
        if self.sigmoid:
            return self.low + (self.high - self.low) * jax.nn.sigmoid(x)
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * jnp.tanh(x)

    def clip(self, action):
        return jnp.clip(action, self.low, self.high)

    def saturated(self, action):
        return jnp.abs(2 * (action - self.low) / (self.high - self.low) - 1) > SATURATED


def action_range(env: Environment, env_params, output_activation: str) -> Actions:
    box = env.action_space(env_params)
    if not isinstance(box, Box):
        raise ValueError(f"TD3 needs continuous actions, {env.name} has {box}")
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), box.shape)[0] for bound in (box.low, box.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"TD3 needs a bounded action space, {env.name} has [{low}, {high}]")
    unit = np.maximum(np.abs(low), np.abs(high))
    sigmoid = output_activation == "sigmoid" or (output_activation == "auto" and bool((low >= 0).all()))
    return Actions(low / unit, high / unit, unit, sigmoid)


class Nets:
    """The two network families as functions of (params, inputs). Sequences are [T, N, ...], N = batch * agents."""

    def __init__(self, config: Config, obs_dim: int, action_dim: int, preview=None):
        self.config, self.obs_dim, self.action_dim, self.preview = config, obs_dim, action_dim, preview
        self.actor_core, self.actor_head = Core(config.actor), Head(config.actor, action_dim, out_scale=0.1)
        self.critic_core, self.critic_head = Core(config.critic), Head(config.critic, 1)

    def init(self, key) -> Pair:
        key_actor, key_critics = jax.random.split(key)
        return Pair(self._init_actor(key_actor), jax.vmap(self._init_critic)(jax.random.split(key_critics)))

    def _init_actor(self, key):
        key_core, key_head = jax.random.split(key)
        xs = jnp.zeros((1, 1, self.obs_dim))
        core: Any = self.actor_core.init(key_core, xs)
        return {"core": core, "head": self.actor_head.init(key_head, self.actor_core.apply(core, xs))}

    def _init_critic(self, key):
        key_core, key_head = jax.random.split(key)
        recurrent = self.config.critic.recurrent
        xs = jnp.zeros((1, 1, self.obs_dim + (self.action_dim if recurrent else 0)))
        core: Any = self.critic_core.init(key_core, xs)
        parts: list[Any] = [self.critic_core.apply(core, xs)]
        if not (recurrent and self.config.critic_arch == "concat"):
            parts.append(jnp.zeros((1, 1, self.action_dim)))
        if self.preview is not None:
            parts.append(self.preview(jnp.zeros((1, 1, self.obs_dim)), jnp.zeros((1, 1, self.action_dim))))
        return {"core": core, "head": self.critic_head.init(key_head, *parts)}

    def actor(self, params, obs):
        """Pre-squash outputs [T, N, k] for a sequence of observations."""
        return self.actor_head.apply(params["head"], self.actor_core.apply(params["core"], obs))

    def actor_step(self, params, carry, obs):
        step: Any = self.actor_core.apply(params["core"], carry, obs, method="step")
        carry, features = step
        return carry, self.actor_head.apply(params["head"], features)

    def history(self, critics, obs, action):
        """What both critics know before each action: leaves [2, T, N, ...].

        Args:
            obs: [T, N, d]; action: [T - 1, N, k] or longer, taken after each observation.
        """
        return [self._history(p, obs, action) for p in _each(critics)]

    def _history(self, params, obs, action):
        if not self.config.critic.recurrent:
            return obs
        if self.config.critic_arch == "history":
            previous = jnp.concatenate([jnp.zeros_like(action[:1]), action[: obs.shape[0] - 1]])
            return self.critic_core.apply(params["core"], jnp.concatenate([obs, previous], axis=-1))
        padded = jnp.concatenate([action, jnp.zeros_like(action[:1])])[: obs.shape[0]]

        def body(carry, x):
            step: Any = self.critic_core.apply(params["core"], carry, x, method="step")
            return step[0], carry

        inputs = jnp.concatenate([obs, padded], axis=-1)
        _, before = jax.lax.scan(body, initial_carry(self.config.critic, obs.shape[1:2]), inputs)
        return before, obs

    def q(self, critics, history, obs, action):
        """Values [2, T, N] of actions [T, N, k] given the history and the present observation [T, N, d]."""
        seen = None if self.preview is None else self.preview(obs, action)
        return jnp.stack([self._q(p, h, action, seen) for p, h in zip(_each(critics), history, strict=True)])

    def _q(self, params, history, action, seen):
        if self.config.critic.recurrent and self.config.critic_arch == "concat":
            before, obs = history
            inputs = jnp.concatenate([obs, action], axis=-1)
            step: Any = self.critic_core.apply(params["core"], before, inputs, method="step")
            parts = [step[1]]
        else:
            parts = [history, action]
        if seen is not None:
            parts.append(seen)
        value: Any = self.critic_head.apply(params["head"], *parts)
        return value[..., 0] if seen is None else seen[..., 0] + value[..., 0]


def _each(critics) -> list[Any]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], critics) for i in range(2)]


def reduce_twins(values, how: str):
    """[2, ...] -> [...]."""
    match how:
        case "min":
            return jnp.min(values, axis=0)
        case "mean":
            return jnp.mean(values, axis=0)
        case _:
            return values[0]


def targets(config: Config, nets: Nets, actions: Actions, target: Pair, batch: Sequences, h: HParams, noise):
    """Bootstrapped targets [T, N] for all steps, from one unroll of the target networks over T + 1 observations.

    Args:
        noise: standard normal [T, N, k].
    """
    noise = h.target_noise * noise
    next_action = actions.squash(nets.actor(target.actor, batch.obs)[1:])
    next_action = actions.clip(next_action + jnp.clip(noise, -h.noise_clip, h.noise_clip))
    history = nets.history(target.critics, batch.obs, batch.action)
    next_history = jax.tree.map(lambda x: x[1:], history)
    value = reduce_twins(nets.q(target.critics, next_history, batch.obs[1:], next_action), config.target_value)
    y = n_step_returns(batch.reward, h.gamma * (1.0 - batch.terminated), value, config.n_step)
    if config.target_clip is not None:
        y = jnp.clip(y, -config.target_clip, config.target_clip)
    return jax.lax.stop_gradient(y)


def critic_loss(nets: Nets, critics, batch: Sequences, y):
    """Mean squared error over batch, steps and both heads."""
    history = nets.history(critics, batch.obs[:-1], batch.action)
    q = nets.q(critics, history, batch.obs[:-1], batch.action)
    return jnp.mean((q - y) ** 2), (q, history)


def actor_loss(config: Config, nets: Nets, actions: Actions, actor, critics, history, batch: Sequences, penalty):
    """-Q of the actor's own actions, plus the penalty on outputs far into saturation."""
    raw = nets.actor(actor, batch.obs[:-1])
    action = actions.squash(raw)
    q = reduce_twins(nets.q(critics, jax.lax.stop_gradient(history), batch.obs[:-1], action), config.actor_value)
    excess = jnp.maximum(jnp.abs(raw) - config.saturation_threshold, 0.0)
    return -jnp.mean(q) + penalty * jnp.mean(excess**2), jnp.mean(actions.saturated(action))


def learning_rate_factor(config: Config, gradient_steps):
    """Schedule at a number of gradient steps done, as a factor of the base rate."""
    env_steps = gradient_steps * (config.env_steps() / config.gradient_steps())
    return config.lr_schedule.factor(env_steps, config.total_env_steps)


def noise_std(config: Config, h: HParams, updates):
    done = jnp.clip(updates * config.env_steps() / config.exploration.noise_decay_env_steps, 0.0, 1.0)
    return h.initial_noise_std + done * (h.final_noise_std - h.initial_noise_std)


def hparams_of(config: Config) -> HParams:
    e = config.exploration
    values = (
        config.gamma, config.tau, config.actor_lr, config.critic_lr, config.target_noise, config.noise_clip,
        e.initial_noise_std, e.final_noise_std, config.saturation_penalty,
    )  # fmt: skip
    return HParams(*(jnp.asarray(v, jnp.float32) for v in values))


def make(config: Config, env: Environment, env_params=None) -> Algorithm:
    """Bind TD3 to an environment.

    Raises:
        ValueError: unbounded or discrete actions, or a `sequence_length` that is neither 1 nor the episode length.
    """
    env = with_agent_axis(env)
    env_params = env.default_params if env_params is None else env_params
    if config.sequence_length not in (1, env.episode_length):
        raise ValueError(
            f"algo.sequence_length {config.sequence_length}: {env.name} has episodes of "
            f"{env.episode_length or 'varying'} steps; use 1 (feed-forward) or that length"
        )
    agents, obs_dim = env.observation_space(env_params).shape
    actions = action_range(env, env_params, config.output_activation)
    preview = None
    if config.critic_preview:
        if env.preview is None:
            raise ValueError(f"algo.critic_preview: {env.name} offers no preview of actions here; set it to false")
        each = lambda obs, action: env.preview(obs[None], action[None] * actions.unit, env_params)[0]  # noqa: E731
        preview = jax.vmap(jax.vmap(each))
    nets = Nets(config, obs_dim, actions.low.size, preview)
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm)
    items = config.items_per_push()
    capacity = max(config.buffer_size // config.sequence_length // items, 1) * items
    warmup_pushes = max(-(-config.warmup_steps // config.env_steps()), 1)

    def act(policy, carry, obs, mask, key, greedy):
        del mask, key, greedy  # deterministic policy; exploration is added in `explore`
        carry, raw = nets.actor_step(policy.actor, carry, obs)
        return actions.squash(raw) * actions.unit, carry

    def empty_memory(batch_shape):
        return initial_carry(config.actor, (*batch_shape, agents))

    def explore(state: State):
        std = noise_std(config, state.hparams, state.updates)

        def choose(worlds, noise):
            action, carry = act(state.learner.params, worlds.carry, worlds.obs, None, None, False)
            return actions.clip(action / actions.unit + std * noise) * actions.unit, carry, None

        return choose

    rule = env.guided_action if config.exploration.guided_warmup else None

    def draw_noise(key):
        return jax.random.normal(key, (config.num_envs, agents, actions.low.size))

    def draw_warm_up(key):
        """Keys for the environment's rule, or uniform actions in units."""
        if rule is not None:
            return jax.random.split(key, config.num_envs)
        shape = (config.num_envs, agents, actions.low.size)
        return jax.random.uniform(key, shape, minval=actions.low, maxval=actions.high)

    def warm_up(worlds, drawn):
        if rule is not None:
            action = jax.vmap(rule, (0, 0, None))(drawn, worlds.state, env_params)
        else:
            action = drawn * actions.unit
        return action, worlds.carry, None

    def collect_warm_up(worlds, key):
        return rollout.collect(env, env_params, worlds, warm_up, draw_warm_up, key, config.steps_per_update)

    def to_sequences(steps: rollout.Steps) -> Sequences:
        """Recorded steps as replay items with agents folded into the features' leading axes."""
        if config.sequence_length == 1:
            obs = jnp.stack([steps.obs, steps.final_obs])
            obs = obs.reshape(2, items, *steps.obs.shape[2:])
            rest = jax.tree.map(lambda x: x.reshape(1, items, *x.shape[2:]),
                                (steps.action / actions.unit, steps.reward, steps.terminated))  # fmt: skip
            return Sequences(obs, *rest)
        obs = jnp.concatenate([steps.obs, steps.final_obs[-1:]])
        return Sequences(obs, steps.action / actions.unit, steps.reward, steps.terminated)

    def to_batch(items: Sequences) -> Sequences:
        """[T, batch, A, ...] -> [T, batch * A, ...]: agents share the networks."""
        fold = lambda x: x.reshape(x.shape[0], -1, *x.shape[3:])  # noqa: E731
        terminated = jnp.broadcast_to(items.terminated[..., None], items.reward.shape)
        return Sequences(fold(items.obs), fold(items.action), fold(items.reward), fold(terminated))

    def init(key, hparams) -> State:
        key_nets, key_worlds, key_warm, key_run = jax.random.split(key, 4)
        params = nets.init(key_nets)
        worlds = rollout.start_worlds(env, env_params, key_worlds, config.num_envs, empty_memory((config.num_envs,)))

        def fill(carry, key):
            worlds, ring = carry
            worlds, steps, _ = collect_warm_up(worlds, key)
            return (worlds, push(ring, to_sequences(steps))), steps.action

        shapes = jax.eval_shape(lambda w, k: to_sequences(collect_warm_up(w, k)[1]), worlds, key_warm)
        ring = make_ring(shapes, capacity)
        (worlds, ring), _ = jax.lax.scan(fill, (worlds, ring), jax.random.split(key_warm, warmup_pushes))
        zero = jnp.zeros((), jnp.int32)
        return State(
            learner=Learner(
                params=params,
                target=jax.tree.map(jnp.copy, params),  # donated state: the same buffer must not appear twice
                optimizer=Pair(optimizer.init(params.actor), optimizer.init(params.critics)),
                gradient_steps=zero,
            ),
            ring=ring,
            worlds=worlds,
            key=key_run,
            updates=jnp.copy(zero),
            hparams=hparams,
        )

    def critic_step(params, opt, batch, y, rate):
        (loss, (q, history)), gradient = jax.value_and_grad(
            lambda critics: critic_loss(nets, critics, batch, y), has_aux=True
        )(params.critics)
        gradient = sharding.mean_over_shares(gradient)
        critics, critic_opt = descend(optimizer, gradient, opt.critics, params.critics, rate)
        return loss, q, history, optax.tree.norm(gradient), critics, critic_opt

    def gradient_block(learner: Learner, ring: Ring, indices, key, h: HParams):
        """`policy_delay` critic updates, an actor update with the last of them, and the target update."""
        params, opt, target, gradient_steps = (
            learner.params, learner.optimizer, learner.target, learner.gradient_steps,
        )  # fmt: skip
        for k in range(config.policy_delay):
            key, key_noise = jax.random.split(key)
            batch = to_batch(take(ring, sharding.own_share(indices[k])))
            # Drawn for the whole batch, so that the numbers do not depend on how many devices share it.
            shape = (config.sequence_length, config.batch_size * agents, actions.low.size)
            noise = sharding.own_share(jax.random.normal(key_noise, shape), axis=1)
            factor = learning_rate_factor(config, gradient_steps)
            y = targets(config, nets, actions, target, batch, h, noise)
            loss, q, history, critic_norm, critics, critic_opt = critic_step(
                params, opt, batch, y, factor * h.critic_lr
            )
            old = params
            params, opt = Pair(params.actor, critics), Pair(opt.actor, critic_opt)
            gradient_steps = gradient_steps + 1
        (policy_loss, saturation), gradient = jax.value_and_grad(
            lambda actor: actor_loss(config, nets, actions, actor, old.critics, history, batch, h.saturation_penalty),
            has_aux=True,
        )(params.actor)
        gradient = sharding.mean_over_shares(gradient)
        learning = gradient_steps > config.critic_only_updates
        actor, actor_opt = descend(optimizer, gradient, opt.actor, params.actor, learning * factor * h.actor_lr)
        params, opt = Pair(actor, params.critics), Pair(actor_opt, opt.critics)
        target = optax.incremental_update(params, target, h.tau)
        metrics = {
            "critic_loss": loss,
            "actor_loss": policy_loss,
            "q1_mean": jnp.mean(q[0, 0]),
            "q2_mean": jnp.mean(q[1, 0]),
            "q1_mean_all": jnp.mean(q[0]),
            "q2_mean_all": jnp.mean(q[1]),
            "target_mean": jnp.mean(y),
            "critic_grad_norm": critic_norm,
            "actor_grad_norm": optax.tree.norm(gradient),
            "saturation": saturation,
        }
        return Learner(params, target, opt, gradient_steps), metrics

    def update(state: State):
        key, key_collect, key_draw, key_blocks = jax.random.split(state.key, 4)
        worlds, steps, sums = rollout.collect(
            env, env_params, state.worlds, explore(state), draw_noise, key_collect, config.steps_per_update
        )
        ring = push(state.ring, to_sequences(steps))
        blocks = config.gradient_steps() // config.policy_delay
        # All item numbers of an update in one draw: many small draws would cost more than the gather.
        indices = sample_indices(ring, key_draw, (blocks, config.policy_delay, config.batch_size))
        keys = jax.random.split(key_blocks, blocks)
        learner, losses = jax.lax.scan(
            lambda learner, block: gradient_block(learner, ring, *block, state.hparams), state.learner, (indices, keys)
        )
        metrics = sharding.mean_over_shares({name: jnp.mean(values) for name, values in losses.items()})
        metrics |= rollout.episode_means(sums)
        metrics["noise_std"] = noise_std(config, state.hparams, state.updates)
        metrics["learning_rate_factor"] = learning_rate_factor(config, state.learner.gradient_steps)
        if config.sequence_length > 1:
            metrics["q_start_bias"] = start_bias(state.learner.params, steps)
        return State(learner, ring, worlds, key, state.updates + 1, state.hparams), metrics

    def warmup_report(state: State):
        """Shares of negative, idle and positive actions in a fresh replay, and the share of the range they span."""
        filled = jnp.arange(capacity) < state.ring.size
        action, weight = state.ring.data.action[..., 0], filled[None, :, None] / jnp.sum(filled)
        share = lambda where: jnp.mean(jnp.sum(where * weight, axis=1))  # noqa: E731
        covered = jnp.where(filled[None, :, None], action, action[0, 0, 0])
        return {
            "negative": share(action < -IDLE),
            "idle": share(jnp.abs(action) <= IDLE),
            "positive": share(action > IDLE),
            "span": (jnp.max(covered) - jnp.min(covered)) / (actions.high[0] - actions.low[0]),
        }

    def start_bias(policy, steps):
        """Mean Q(o_0, pi(o_0)) of the collected episodes less the mean of what they returned."""
        obs = steps.obs[:1].reshape(1, -1, obs_dim)
        return jnp.mean(q_values(policy, obs, actions.squash(nets.actor(policy.actor, obs)) * actions.unit)) - jnp.mean(
            jnp.sum(steps.reward, axis=0)
        )

    def q_values(policy, obs, action):
        """Both critics' values [2, T, N] along sequences obs [T, N, d] with the actions taken [T, N, k]."""
        action = action / actions.unit
        return nets.q(policy.critics, nets.history(policy.critics, obs, action), obs, action)

    return Algorithm(
        init=init,
        update=update,
        policy=lambda state: state.learner.params,
        act=act,
        initial_carry=empty_memory,
        hparams=hparams_of(config),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=config.gradient_steps(),
        warmup_env_steps=warmup_pushes * config.env_steps(),
        num_updates=max(config.total_env_steps // config.env_steps(), 1),
        vectorise_seeds=not (config.actor.recurrent or config.critic.recurrent),
        q_values=q_values,
        warmup_report=warmup_report,
    )
