"""Analytic policy gradient: the return of a roll-out is differentiated through the environment itself.

Reading order: `Config`, `HParams`, `State`, what a window is worth, what is bound to an environment (`Bound`), the
actor's loss, the critic's fit, `make`.

Every update call steps all environments through a window of `steps_per_update` steps and follows the gradient of the
window's discounted rewards in the actor's parameters, through policy, dynamics and rewards. What comes after the window
is either nothing, because the window consists of whole episodes (`bootstrap: false`), or the value of the observation
it ends with: short-horizon actor-critic (SHAC; Xu et al. 2022, eq. 5 to 8), whose next window goes on where the last
one stopped. No gradient passes from one window to the one before, nor through an auto-reset. A termination is worth
nothing afterwards; a time limit is worth the value of the true final observation.

The actor may be recurrent: its memory runs through the windows and is emptied where an episode ends. A recurrent critic
starts every window from the memory that its target network had there. Agents share the networks.

Several devices divide the environments among them: each steps and differentiates its share.

Deviations from the paper: exploration noise of a given size is added before the squashing instead of learned; the value
is that of the target network in the actor's loss, too (as in the authors' program); the critic's minibatches are
environments with all their steps, dealt in turn and not shuffled; Adam keeps its usual betas. An update whose gradient
is not finite leaves the actor as it was and is counted in `skipped`; a loss that is not finite stays visible.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from pydantic import BaseModel, ConfigDict, Field

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from purerl.errors import ConfigError
from purerl.learn import rollout, sharding
from purerl.learn.actors import traced
from purerl.learn.normalize import RunningStats, empty_stats, merge, standardised
from purerl.learn.optimizers import OptimizerName, Schedule, descend, make_optimizer
from purerl.learn.returns import discount_of, lambda_returns
from purerl.learn.trajectory import remembered_outputs
from purerl.nets.actions import Actions, action_range
from purerl.nets.networks import Network, NetworkConfig, initial_carry
from purerl.types import Algorithm, Data
from purerl.validation import StepCount


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["apg"] = "apg"
    total_env_steps: StepCount = 2_000_000
    num_envs: int = Field(64, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(32, gt=0, description="steps of the window that is differentiated")
    gamma: float = Field(0.99, ge=0, le=1)
    bootstrap: bool = Field(True, description="value what follows the window; false: windows are whole episodes")
    lr: float = Field(2e-3, gt=0)
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "adam"
    max_grad_norm: float = Field(1.0, gt=0)
    noise_std: float = Field(0.0, ge=0, description="of normal noise on the actor's output before the squashing")
    noise_schedule: Schedule = Schedule()
    output_activation: Literal["auto", "tanh", "sigmoid"] = Field("auto", description="auto: sigmoid for [0, 1]")
    normalize_obs: bool = False
    critic_lr: float = Field(5e-4, gt=0)
    critic_epochs: int = Field(16, ge=1, description="passes of the critic over every window")
    critic_minibatches: int = Field(4, ge=1, description="per pass, of whole environments")
    td_lambda: float = Field(0.95, ge=0, le=1)
    tau: float = Field(0.6, gt=0, le=1, description="share by which the target critic follows after every update call")
    actor: NetworkConfig = NetworkConfig(hidden_sizes=(64, 64), activation="elu")
    critic: NetworkConfig = NetworkConfig(hidden_sizes=(64, 64), activation="elu")

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update


@struct.dataclass
class HParams:
    """The numbers that may be traced: a sweep over them compiles once."""

    gamma: jax.Array
    lr: jax.Array
    critic_lr: jax.Array
    td_lambda: jax.Array
    tau: jax.Array
    noise_std: jax.Array


class Policy(NamedTuple):
    """All that acting needs."""

    actor: Any
    obs_stats: RunningStats


@struct.dataclass
class Critic:
    """What `bootstrap` adds to the state."""

    params: Any
    target: Any
    optimizer: Any
    carry: Any
    """Memory [B * A, ...] of the target network before the next step."""


@struct.dataclass
class State:
    actor: Any
    optimizer: Any
    critic: Critic | None
    worlds: rollout.Worlds
    obs_stats: RunningStats
    key: jax.Array
    updates: jax.Array
    """Update calls done."""
    hparams: HParams


class Window(NamedTuple):
    """A roll-out as the estimators read it: [T, N, ...], N = environments * agents."""

    obs: jax.Array
    final_obs: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    frames: jax.Array | None = None
    """That the steps took; None: one each."""

    def discount(self, gamma) -> jax.Array:
        """[T, N]; zero after a termination."""
        return discount_of(gamma, self.frames) * (1.0 - self.terminated)

    @property
    def done(self) -> jax.Array:
        return self.terminated | self.truncated

    @property
    def restarts(self) -> jax.Array:
        """The first steps of the episodes that start inside the window."""
        return jnp.concatenate([jnp.zeros_like(self.done[:1]), self.done[:-1]])


def next_values(critic: Network, params, carry, window: Window):
    """Values of the true final observations after every step [T, N], and the memory after the window."""
    if not critic.config.recurrent:
        return critic(params, window.final_obs)[..., 0], carry

    def value_step(carry, x):
        carry, value = critic.step(params, carry, x)
        return carry, value[..., 0]

    _, v_tp1, carry = remembered_outputs(value_step, carry, window.obs, window.final_obs, window.done)
    return v_tp1, carry


def window_value(window: Window, v_tp1, gamma):
    """Mean over the steps of what the window is worth: the returns of the episodes in it, from where they start here.

    Args:
        v_tp1: values of the observations after every step [T, N]; they count after the last step and at truncations.
    """
    whole = lambda_returns(window.reward, window.discount(gamma), 1.0 - window.truncated, v_tp1)
    starts = window.restarts.at[0].set(True)
    return jnp.sum(starts * whole) / whole.size


def critic_loss(critic: Network, params, window: Window, target, carry):
    """Half the mean squared error (the paper's eq. 7)."""
    value = critic(params, window.obs, carry, window.restarts)[..., 0]
    return 0.5 * jnp.mean((value - target) ** 2)


# Actor and critic, bound to an environment


class Bound(NamedTuple):
    """A configuration and the environment it has been checked against."""

    config: Config
    env: Environment
    agents: int
    obs_dim: int
    actions: Actions
    actor: Network
    critic: Network
    reward_scale: float


def bind(config: Config, env: Environment, env_params, reward_scale: float = 1.0) -> Bound:
    """
    Raises:
        ValueError: the environment is not differentiable, its actions are discrete or unbounded, or windows without a
            value at their end are not made of whole episodes.
    """
    if not env.differentiable:
        raise ValueError(
            f"APG differentiates through the environment, and {env.name} declares itself not differentiable; "
            "choose another algorithm"
        )
    if not config.bootstrap and (env.episode_length is None or config.steps_per_update % env.episode_length):
        raise ValueError(
            f"algo.steps_per_update {config.steps_per_update}: {env.name} has episodes of "
            f"{env.episode_length or 'varying'} steps, and without bootstrap a window is made of whole episodes; "
            "set bootstrap to true or change it"
        )
    env = with_agent_axis(env)
    agents, obs_dim = env.observation_space(env_params).shape
    actions = action_range(env, env_params, config.output_activation)
    actor = Network(config.actor, obs_dim, actions.dim, out_scale=0.1)
    critic = Network(config.critic, obs_dim, 1)
    return Bound(config, env, agents, obs_dim, actions, actor, critic, reward_scale)


def seen(config: Config, obs_stats: RunningStats, obs):
    return standardised(obs_stats, obs) if config.normalize_obs else obs


def roll_out(bound: Bound, env_params, params, state: State, key, noise_std):
    """One window with the actor `params`: `(worlds, steps, tally)` of `rollout.collect`, for this device's share."""
    config, actions = bound.config, bound.actions

    def draw(key):
        shape = (config.num_envs, bound.agents, actions.dim)
        return jax.random.normal(key, shape) if config.noise_std else jnp.zeros((config.num_envs, 0))

    def choose(worlds, noise):
        carry, raw = bound.actor.step(params, worlds.carry, seen(config, state.obs_stats, worlds.obs))
        if config.noise_std:
            raw = raw + noise_std * noise
        action = actions.squash(raw)
        return action * actions.unit, carry, actions.saturated(action)

    return rollout.collect(
        bound.env, env_params, state.worlds, choose, draw, key, config.steps_per_update, shared=True,
        whole_episodes=config.steps_per_update == bound.env.episode_length, reward_scale=bound.reward_scale,
    )  # fmt: skip


def window_of(bound: Bound, steps: rollout.Steps, obs_stats: RunningStats) -> Window:
    """[T, B, A, ...] -> [T, B * A, ...]: agents share the networks."""
    obs, final_obs, reward = (
        x.reshape(x.shape[0], -1, *x.shape[3:]) for x in (steps.obs, steps.final_obs, steps.reward)
    )
    obs, final_obs = (seen(bound.config, obs_stats, x) for x in (obs, final_obs))
    shared = steps.terminated, steps.truncated, steps.frames
    terminated, truncated, frames = jax.tree.map(lambda x: jnp.repeat(x, bound.agents, axis=1), shared)
    return Window(obs, final_obs, reward, terminated, truncated, frames)


def actor_loss(params, bound: Bound, env_params, state: State, key, noise_std):
    """Less of the window's value; and `(rolled, window, v_tp1, carry)`: what the rest of an update reads."""
    rolled = roll_out(bound, env_params, params, state, key, noise_std)
    window = window_of(bound, rolled[1], state.obs_stats)
    v_tp1, carry = jnp.zeros_like(window.reward), None
    if state.critic is not None:
        start = jax.tree.map(sharding.own_share, state.critic.carry)
        v_tp1, carry = next_values(bound.critic, state.critic.target, start, window)
    return -window_value(window, v_tp1, state.hparams.gamma), (rolled, window, v_tp1, carry)


def fitted(bound: Bound, optimizer, value: Critic, window: Window, v_tp1, carry, h: HParams):
    """The critic after its passes over a window, towards TD(lambda) targets (the paper's eq. 6); and its metrics.

    Args:
        v_tp1: the target network's values of the observations after every step [T, N].
        carry: the target network's memory after the window.

    Raises:
        ConfigError: the environments of this device have no equal minibatches.
    """
    config = bound.config
    count = window.reward.shape[1]
    if count % config.critic_minibatches:
        raise ConfigError(
            f"critic_minibatches {config.critic_minibatches} must divide the environments (times agents) of a device: "
            f"{count}"
        )
    target = lambda_returns(window.reward, window.discount(h.gamma), h.td_lambda * (1.0 - window.truncated), v_tp1)

    def dealt(x, axis):
        """Minibatches first; environments in turn, so that every device has its part of each."""
        x = x.reshape(*x.shape[:axis], -1, config.critic_minibatches, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis + 1, 0)

    start = jax.tree.map(sharding.own_share, value.carry)
    batches = jax.tree.map(lambda x: dealt(x, 1), (window, target)), jax.tree.map(lambda x: dealt(x, 0), start)

    def step(learned, batch):
        (window, target), start = batch
        loss, gradient = jax.value_and_grad(lambda p: critic_loss(bound.critic, p, window, target, start))(learned[0])
        loss, gradient = sharding.mean_over_shares((loss, gradient))
        return descend(optimizer, gradient, learned[1], learned[0], h.critic_lr), loss

    (params, opt), losses = jax.lax.scan(
        lambda learned, _: jax.lax.scan(step, learned, batches),
        (value.params, value.optimizer), None, length=config.critic_epochs,
    )  # fmt: skip
    after = Critic(params, optax.incremental_update(params, value.target, h.tau), opt, sharding.whole_of(carry))
    return after, {"critic_loss": jnp.mean(losses), "value_mean": sharding.mean_over_shares(jnp.mean(v_tp1))}


def make(config: Config, env: Environment, env_params=None, reward_scale: float = 1.0) -> Algorithm:
    """Bind APG to a differentiable environment with bounded continuous actions.

    Raises:
        ValueError: as `bind`.
    """
    env_params = env.default_params if env_params is None else env_params
    bound = bind(config, env, env_params, reward_scale)
    optimizer = make_optimizer(config.optimizer, config.max_grad_norm)

    def act(policy: Policy, carry, obs, mask, key, greedy):
        del mask, key, greedy  # deterministic policy; exploration is added in `roll_out`
        carry, raw = bound.actor.step(policy.actor, carry, seen(config, policy.obs_stats, obs))
        return bound.actions.squash(raw) * bound.actions.unit, carry

    def empty_memory(batch_shape):
        return initial_carry(config.actor, (*batch_shape, bound.agents))

    def first_critic(key) -> Critic:
        params = bound.critic.init(key)
        target = jax.tree.map(jnp.copy, params)  # donated state: the same buffer must not appear twice
        memory = initial_carry(config.critic, (config.num_envs * bound.agents,))
        return Critic(params, target, optimizer.init(params), memory)

    def init(key, hparams, data: Data) -> State:
        key_actor, key_critic, key_worlds, key_run = jax.random.split(key, 4)
        params = bound.actor.init(key_actor)
        memory = empty_memory((config.num_envs,))
        return State(
            actor=params,
            optimizer=optimizer.init(params),
            critic=first_critic(key_critic) if config.bootstrap else None,
            worlds=rollout.start_worlds(bound.env, data.env_params, key_worlds, config.num_envs, memory),
            obs_stats=empty_stats((bound.obs_dim,)),
            key=key_run,
            updates=jnp.zeros((), jnp.int32),
            hparams=hparams,
        )

    def update(state: State, data: Data):
        h = state.hparams
        key, key_collect = jax.random.split(state.key)
        env_steps = state.updates * config.env_steps()
        factor = config.lr_schedule.factor(env_steps, config.total_env_steps)
        noise_std = h.noise_std * config.noise_schedule.factor(env_steps, config.total_env_steps)
        (loss, (rolled, window, v_tp1, carry)), gradient = jax.value_and_grad(actor_loss, has_aux=True)(
            state.actor, bound, data.env_params, state, key_collect, noise_std
        )
        worlds, steps, tally = rolled
        gradient, loss, saturation = sharding.mean_over_shares((gradient, loss, jnp.mean(steps.extra)))
        norm = optax.tree.norm(gradient)
        fine = jnp.isfinite(norm)
        new = descend(optimizer, gradient, state.optimizer, state.actor, factor * h.lr)
        params, opt = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, (state.actor, state.optimizer))
        metrics = {
            "actor_loss": loss,
            "actor_grad_norm": jnp.where(fine, norm, 0.0),
            "skipped": 1.0 - fine,
            "saturation": saturation,
            "learning_rate_factor": factor,
            "noise_std": noise_std,
            **rollout.tally_metrics(rollout.tally_over_shares(tally)),
        }
        critic = state.critic
        if critic is not None:
            critic, fit_metrics = fitted(bound, optimizer, critic, window, v_tp1, carry, h)
            metrics |= fit_metrics
        obs_stats = state.obs_stats
        if config.normalize_obs:
            obs_stats = merge(obs_stats, sharding.whole_of(steps.obs, axis=1))
        return State(
            actor=params,
            optimizer=opt,
            critic=critic,
            worlds=sharding.whole_of(worlds),
            obs_stats=obs_stats,
            key=key,
            updates=state.updates + 1,
            hparams=h,
        ), metrics

    return Algorithm(
        reward_scale=reward_scale,
        init=init,
        update=update,
        policy=lambda state: Policy(state.actor, state.obs_stats),
        act=act,
        initial_carry=empty_memory,
        hparams=traced(HParams, config),
        load_data=lambda: Data(env_params),
        learned=("actor", "optimizer", "critic", "obs_stats"),
        env_steps_per_update=config.env_steps(),
        gradient_steps_per_update=1 + config.bootstrap * config.critic_epochs * config.critic_minibatches,
        warmup_env_steps=0,
        num_updates=max(config.total_env_steps // config.env_steps(), 1),
    )
