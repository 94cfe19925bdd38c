"""What algorithms that learn from roll-outs share: actor and critic, acting, roll-outs as training data, minibatches.

Reading order: `Settings` (the keys of all of them), `ActorCritic` (networks as functions), `Team` (agents that share
parameters or do not), `Trajectory` (a roll-out as the learner sees it), `Actors` (who record it), values along it,
reward scale, minibatches. What is done with the minibatches is in `purerl/policy_gradient.py`.

A learner sees N rows: with shared parameters these are environments times agents, because agents are folded into the
batch. Independent agents are as many learners, each with its own parameters and one row per environment; `Team` maps
over them, so nothing else needs to know.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Environment
from envs_jax.spaces import Space
from purerl.learn import rollout
from purerl.learn.normalize import RunningStats, merge, scaled, standardised
from purerl.learn.optimizers import OptimizerName, Schedule
from purerl.nets import pairs, policies
from purerl.nets.networks import Head, NetworkConfig, initial_carry, make_core
from purerl.nets.policies import Continuous, Outputs

CriticInput = Literal["obs", "global_state", "global_state_and_obs"]
"""`global_state` makes the critic central (MAPPO): one value for all agents; with `obs` beside it one for each."""

TANH = NetworkConfig(hidden_sizes=(64, 64), activation="tanh")


class Settings(BaseModel):
    """The keys that all these algorithms have; each adds its own and its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    total_env_steps: int = Field(500_000, gt=0)
    num_envs: int = Field(4, gt=0, description="environments stepped in parallel")
    steps_per_update: int = Field(128, gt=0, description="steps of every environment per update call")
    epochs: int = Field(4, ge=1)
    minibatches: int = Field(4, ge=1, description="per epoch; recurrent: of whole environments")
    gamma: float = Field(0.99, ge=0, le=1)
    clip: float = Field(0.2, gt=0, description="of the probability ratio")
    value_clip: float | None = Field(0.2, gt=0, description="null: no clipping of the value's change")
    normalize_advantage: bool = Field(True, description="in every minibatch")
    entropy_coef: float = Field(0.01, ge=0)
    entropy_schedule: Schedule = Schedule()
    value_coef: float = Field(0.5, ge=0)
    kl_coef: float = Field(0.0, ge=0, description="weight of KL(old || new); the start value with kl_target")
    kl_target: float | None = Field(None, gt=0, description="adapt kl_coef towards this KL after every update call")
    target_kl: float | None = Field(None, gt=0, description="stop the epochs of an update call beyond 1.5 times this")
    lr: float = Field(2.5e-4, gt=0)
    lr_schedule: Schedule = Schedule()
    optimizer: OptimizerName = "adam"
    optimizer_eps: float = Field(1e-5, gt=0)
    max_grad_norm: float = Field(0.5, gt=0)
    policy: Continuous = Field("normal", description="of continuous actions")
    initial_log_std: float = 0.0
    normalize_obs: bool = False
    normalize_reward: bool = Field(False, description="divide by the running std of the discounted return")
    shared_parameters: bool = Field(True, description="false: every agent has networks of its own")
    critic_input: CriticInput = Field("obs", description="what the critic sees; the global state makes it central")
    actor: NetworkConfig = TANH
    critic: NetworkConfig = TANH

    @model_validator(mode="after")
    def _consistent(self):
        unit, what = self.num_envs, "num_envs"
        if not self.recurrent:
            unit, what = self.env_steps(), "num_envs * steps_per_update"
        if unit % self.minibatches:
            raise ValueError(f"minibatches {self.minibatches} must divide {what} = {unit}")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target adapts kl_coef and needs one to start from: set kl_coef above 0")
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent or self.critic.recurrent

    def env_steps(self) -> int:
        """Environment steps of one update call."""
        return self.num_envs * self.steps_per_update


def traced(kind: Any, config: BaseModel) -> Any:
    """A dataclass of traced numbers, each from the key of the same name."""
    return kind(**{f.name: jnp.asarray(getattr(config, f.name), jnp.float32) for f in dataclasses.fields(kind)})


class ActorCritic:
    """Actor and critic as functions of (params, inputs). Sequences are [T, N, ...]; feed-forward rows [N, ...]."""

    def __init__(
        self,
        actor: NetworkConfig,
        critic: NetworkConfig,
        space: Space,
        obs_dim: int,
        critic_dim: int,
        continuous: Continuous = "normal",
        initial_log_std: float = 0.0,
        same_input: bool = False,
    ):
        self.space, self.obs_dim, self.critic_dim = space, obs_dim, critic_dim
        self.continuous: Continuous = continuous
        self.initial_log_std = initial_log_std
        self.actor_core = make_core(actor, obs_dim)
        self.actor_head = Head(actor, policies.output_size(space), out_scale=0.01)
        self.critic_core, self.critic_head = make_core(critic, critic_dim), Head(critic, 1)
        self.recurrent_critic = critic.recurrent
        self.activation = actor.activation
        self.side_by_side = same_input and pairs.can_pair(actor, critic)

    def init(self, key) -> dict[str, Any]:
        keys = jax.random.split(key, 4)

        def one(core, head, dim, key_core, key_head):
            xs = jnp.zeros((1, 1, dim))
            params: Any = core.init(key_core, xs)
            return {"core": params, "head": head.init(key_head, core.apply(params, xs))}

        actor = one(self.actor_core, self.actor_head, self.obs_dim, keys[0], keys[1])
        if spread := policies.continuous_size(self.space):
            actor["log_std"] = jnp.full((spread,), self.initial_log_std, jnp.float32)
        critic = one(self.critic_core, self.critic_head, self.critic_dim, keys[2], keys[3])
        return {"actor": actor, "critic": critic}

    def outputs(self, params, xs, carry=None, reset=None) -> Outputs:
        """The actor's outputs for sequences, or for rows of a feed-forward actor."""
        features = self.actor_core.apply(params["core"], xs, carry, reset)
        return self._with_spread(params, self.actor_head.apply(params["head"], features))

    def outputs_step(self, params, carry, x) -> tuple[Any, Outputs]:
        step: Any = self.actor_core.apply(params["core"], carry, x, method="step")
        return step[0], self._with_spread(params, self.actor_head.apply(params["head"], step[1]))

    def _with_spread(self, params, head) -> Outputs:
        if "log_std" not in params:
            return Outputs(head, None)
        return Outputs(head, jnp.broadcast_to(params["log_std"], (*head.shape[:-1], *params["log_std"].shape)))

    def distribution(self, outputs: Outputs, legal=None):
        return policies.distribution(self.space, outputs, legal, self.continuous)

    def value(self, params, xs, carry=None, reset=None):
        features = self.critic_core.apply(params["core"], xs, carry, reset)
        value: Any = self.critic_head.apply(params["head"], features)
        return value[..., 0]

    def value_step(self, params, carry, x):
        step: Any = self.critic_core.apply(params["core"], carry, x, method="step")
        value: Any = self.critic_head.apply(params["head"], step[1])
        return step[0], value[..., 0]

    def packed(self, params) -> dict[str, Any]:
        """Parameters in the form that gradient steps are made in: side by side where both networks have one shape."""
        if not self.side_by_side:
            return params
        actor, critic = params["actor"], params["critic"]
        return {**actor, "core": (), "head": pairs.paired(actor["head"], critic["head"])}

    def unpacked(self, packed, like) -> dict[str, Any]:
        """The inverse of `packed`, in the structure of the parameters `like`."""
        if not self.side_by_side:
            return packed
        heads = pairs.unpaired(packed["head"], like["actor"]["head"], like["critic"]["head"])
        actor = {**packed, "core": like["actor"]["core"], "head": heads[0]}
        return {"actor": actor, "critic": {**like["critic"], "head": heads[1]}}

    def outputs_and_values(self, packed, obs, critic_obs, memory: "Memory") -> tuple[Outputs, jax.Array]:
        """Both networks with `packed` parameters, for rows or, where one remembers, for sequences."""
        if not self.side_by_side:
            outputs = self.outputs(packed["actor"], obs, memory.actor, memory.reset)
            return outputs, self.value(packed["critic"], critic_obs, memory.critic, memory.reset)
        both = pairs.apply_pair(packed["head"], self.activation, obs)
        return self._with_spread(packed, both[0, : policies.output_size(self.space)].T), both[1, 0]


class Team(NamedTuple):
    """How agents become rows of learners."""

    agents: int
    shared: bool
    """One set of parameters for all agents; otherwise every leaf of a learner has a leading agent axis."""

    def rows(self, num_envs: int) -> int:
        """Rows of one learner."""
        return num_envs * self.agents if self.shared else num_envs

    def learners(self, function: Callable[..., Any], shared_args: tuple[int, ...] = ()) -> Callable[..., Any]:
        """`function` of one learner's arguments for all learners; `shared_args`: positions without an agent axis."""
        if self.shared:
            return function

        def lifted(*args):
            axes = tuple(None if i in shared_args else 0 for i in range(len(args)))
            return jax.vmap(function, axes)(*args)

        return lifted

    def split(self, key: jax.Array) -> jax.Array:
        """A key for every learner."""
        return key if self.shared else jax.random.split(key, self.agents)

    def grouped(self, tree: Any, time: bool = True) -> Any:
        """Leaves [T, B, A, ...] as one learner's [T, B * A, ...], or as [A, T, B, ...]; without `time` no T."""
        axis = 1 if time else 0

        def one(x):
            if self.shared:
                return x.reshape(*x.shape[:axis], x.shape[axis] * self.agents, *x.shape[axis + 2 :])
            return jnp.moveaxis(x, axis + 1, 0)

        return jax.tree.map(one, tree)

    def step(self, function: Callable[..., Any], params: Any, carry: Any, obs: jax.Array) -> tuple[Any, Any]:
        """`function(params, carry, obs)` of acting agents: leaves of carry, obs and results are [..., A, f]."""
        if self.shared:
            return function(params, carry, obs)
        return jax.vmap(function, (0, -2, -2), -2)(params, carry, obs)


class Trajectory(NamedTuple):
    """A roll-out as one learner sees it, [T, N, ...]."""

    obs: jax.Array
    """What the actor saw, normalised."""
    critic_obs: jax.Array
    final_critic_obs: jax.Array
    """After the step, before a reset."""
    raw_action: Any
    outputs: Outputs
    """Of the policy that acted."""
    legal: Any
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    """Both [T, N]: of the agent. One that stops acting while the others go on has terminated."""
    episode_end: jax.Array
    """[T, N] bool: of the environment, where memories start anew."""
    weight: jax.Array | None
    """[T, N]: one where the agent acted, zero where it did not; None: all act always."""


def critic_size(env: Environment, env_params, critic_input: CriticInput) -> int:
    """Inputs of the critic.

    Raises:
        ValueError: a central critic, and the environment has no global state.
    """
    obs_dim = env.observation_space(env_params).shape[-1]
    if critic_input == "obs":
        return obs_dim
    if env.global_state is None:
        raise ValueError(f"critic_input: {env.name} offers no global state; use obs")
    shapes = jax.eval_shape(lambda key: env.reset_env(key, env_params)[1], jax.random.key(0))
    size = jax.eval_shape(env.global_state, shapes, env_params).shape[-1]
    return size + (obs_dim if critic_input == "global_state_and_obs" else 0)


def trajectory_of(
    team: Team, steps: rollout.Steps, obs_stats: RunningStats | None, critic_input: CriticInput
) -> Trajectory:
    """The learner's view of recorded steps whose `extra` is (raw action, outputs).

    Args:
        obs_stats: of the observations, as they were while acting; None: not normalised.
    """
    raw, outputs = steps.extra
    agents = steps.obs.shape[2]
    obs, final_obs = steps.obs, steps.final_obs
    if obs_stats is not None:
        obs, final_obs = standardised(obs_stats, obs), standardised(obs_stats, final_obs)

    def seen_by_critic(obs, facts: rollout.Facts):
        if critic_input == "obs":
            return obs
        state = jnp.broadcast_to(facts.global_state[:, :, None], (*obs.shape[:3], facts.global_state.shape[-1]))
        return state if critic_input == "global_state" else jnp.concatenate([state, obs], axis=-1)

    def per_agent(flags):
        return jnp.broadcast_to(flags[:, :, None], (*flags.shape, agents))

    terminated, truncated = per_agent(steps.terminated), per_agent(steps.truncated)
    weight = steps.facts.alive
    if weight is not None:
        left = weight & ~steps.final_facts.alive
        terminated, truncated = terminated | left, truncated & ~left
        weight = weight.astype(steps.reward.dtype)
    end = per_agent(steps.terminated | steps.truncated)
    return team.grouped(
        Trajectory(
            obs,
            seen_by_critic(obs, steps.facts),
            seen_by_critic(final_obs, steps.final_facts),
            raw,
            outputs,
            steps.facts.legal,
            steps.reward,
            terminated,
            truncated,
            end,
            weight,
        )
    )


class Policy(NamedTuple):
    """All that acting needs; with independent parameters leaves have a leading agent axis."""

    actor: Any
    obs_stats: RunningStats


class RollOut(NamedTuple):
    """What actors record."""

    steps: rollout.Steps
    """`extra` is (raw action, outputs of the policy that acted)."""
    memory: Any
    """Of the actors before the first step, [B, A, ...]."""


class Actors:
    """The agents of B environments with their stochastic policies: acting, exploring, recording."""

    def __init__(self, config: Settings, env: Environment, env_params: Any, algorithm: str):
        """
        Raises:
            ValueError: a continuous action space without bounds, or a central critic without a global state.
        """
        self.config = config
        self.env = env = with_agent_axis(env)
        self.env_params = env.default_params if env_params is None else env_params
        agents, self.obs_dim = env.observation_space(self.env_params).shape
        self.space = env.action_space(self.env_params)
        policies.require_bounded(self.space, algorithm, env.name)
        critic_dim = critic_size(env, self.env_params, config.critic_input)
        self.nets = ActorCritic(
            config.actor, config.critic, self.space, self.obs_dim, critic_dim, config.policy, config.initial_log_std,
            same_input=config.critic_input == "obs",
        )  # fmt: skip
        self.team = Team(agents, config.shared_parameters)
        self.rows = self.team.rows(config.num_envs)

    def empty_memory(self, batch_shape: tuple[int, ...]):
        return initial_carry(self.config.actor, (*batch_shape, self.team.agents))

    def start(self, key) -> rollout.Worlds:
        """Fresh episodes in all environments."""
        num_envs = self.config.num_envs
        return rollout.start_worlds(self.env, self.env_params, key, num_envs, self.empty_memory((num_envs,)))

    def act(self, policy: Policy, carry, obs, mask, key, greedy: bool):
        """As `Algorithm.act`."""
        carry, outputs = self._outputs(policy, carry, obs)
        dist = self.nets.distribution(outputs, mask)
        raw = dist.mode() if greedy else dist.sample(key)
        return policies.env_action(self.space, dist.action(raw)), carry

    def record(self, policy: Policy, worlds: rollout.Worlds, key):
        """The next roll-out: `(worlds, RollOut, Tally)`."""

        def draw_noise(key):
            return policies.draw_noise(self.space, key, (self.config.num_envs, self.team.agents))

        def choose(worlds, noise):
            legal = rollout.facts_of(self.env, self.env_params, worlds.state).legal
            carry, outputs = self._outputs(policy, worlds.carry, worlds.obs)
            dist = self.nets.distribution(outputs, legal)
            raw = dist.sample_from(noise)
            return policies.env_action(self.space, dist.action(raw)), carry, (raw, outputs)

        num_steps = self.config.steps_per_update
        after, steps, tally = rollout.collect(self.env, self.env_params, worlds, choose, draw_noise, key, num_steps)
        return after, RollOut(steps, worlds.carry), tally

    def seen(self, policy: Policy, recorded: RollOut) -> tuple[Trajectory, Any, jax.Array]:
        """The learners' view of a roll-out with `policy`'s normaliser, the actors' memories, and the observations."""
        stats = policy.obs_stats if self.config.normalize_obs else None
        steps = trajectory_of(self.team, recorded.steps, stats, self.config.critic_input)
        return steps, self.team.grouped(recorded.memory, time=False), self.team.grouped(recorded.steps.obs)

    def _outputs(self, policy: Policy, carry, obs):
        if self.config.normalize_obs:
            obs = standardised(policy.obs_stats, obs)
        return self.team.step(self.nets.outputs_step, policy.actor, carry, obs)


def values_along(nets: ActorCritic, params, carry, steps: Trajectory):
    """Values before and after every step [T, N], and the critic's memory for the next roll-out."""
    if not nets.recurrent_critic:
        v = nets.value(params, jnp.stack([steps.critic_obs, steps.final_critic_obs]))
        return v[0], v[1], carry
    step = lambda carry, x: nets.value_step(params, carry, x)  # noqa: E731
    return remembered_values(step, carry, steps.critic_obs, steps.final_critic_obs, steps.episode_end)


def remembered_values(value_step: Callable, carry, obs, final_obs, episode_end):
    """`values_along` of a recurrent critic: it values the final observation with the memory from before the reset.

    Args:
        value_step: `(carry, x [N, d]) -> (carry, values [N])`.
        obs, final_obs: before and after every step [T, N, d]; `episode_end`: bool [T, N].
    """

    def body(carry, inputs):
        x, x_final, done = inputs
        carry, v = value_step(carry, x)
        _, v_after = value_step(carry, x_final)
        return jax.tree.map(lambda c: jnp.where(done[:, None], 0.0, c), carry), (v, v_after)

    carry, (v_t, v_tp1) = jax.lax.scan(body, carry, (obs, final_obs, episode_end))
    return v_t, v_tp1, carry


def scaled_rewards(steps: Trajectory, stats: RunningStats, running_return, gamma):
    """Rewards in units of the running std of the discounted return; the statistics and the running returns [N]."""

    def body(total, inputs):
        r, end = inputs
        total = total * gamma + r
        return jnp.where(end, 0.0, total), total

    running_return, totals = jax.lax.scan(body, running_return, (steps.reward, steps.terminated | steps.truncated))
    stats = merge(stats, totals, steps.weight)
    return scaled(stats, steps.reward), stats, running_return


class Memory(NamedTuple):
    """Where a recurrent minibatch starts, and where its episodes start anew."""

    actor: Any
    critic: Any
    reset: jax.Array | None
    """bool [T, N]: empty the memory before this step."""


def memory_of(steps: Trajectory, actor_carry, critic_carry, recurrent: bool) -> Memory:
    """Memories before the first step [N, ...]."""
    end = steps.episode_end
    reset = jnp.concatenate([jnp.zeros_like(end[:1]), end[:-1]]) if recurrent else None
    return Memory(actor_carry, critic_carry, reset)


SHUFFLED_BY_ONE_SORT = 2**14
"""Rows up to which the random part of the sorted numbers, 18 bits, makes ties rare."""


def shuffled(key: jax.Array, size: int) -> jax.Array:
    """The numbers 0 .. size - 1 in random order.

    Random bits with the number of the row in the lowest ones are sorted: plain numbers sort four times as fast on a CPU
    as the pairs that `jax.random.permutation` sorts, which took a tenth of a small update. Equal random bits keep their
    order.
    """
    if size > SHUFFLED_BY_ONE_SORT:
        return jax.random.permutation(key, size)
    low = jnp.uint32(2 ** (size - 1).bit_length() - 1)
    bits = jax.random.bits(key, (size,), jnp.uint32)
    return (jnp.sort((bits & ~low) | jnp.arange(size, dtype=jnp.uint32)) & low).astype(jnp.int32)


def minibatches(key, data: Any, memory: Memory, epochs: int, count: int):
    """Shuffled `(data, memory)` of every gradient step, leaves [epochs * count, ...].

    Feed-forward minibatches are made of rows (leaves of `data` [N, ...]), recurrent ones of whole sequences (leaves
    [T, N, ...]). Everything is gathered at once: many small gathers would cost more than the copies.
    """
    axis = 0 if memory.reset is None else 1
    size = jax.tree.leaves(data)[0].shape[axis]
    order = jax.vmap(lambda k: shuffled(k, size))(jax.random.split(key, epochs)).reshape(-1)

    def dealt(x, axis):
        x = jnp.take(x, order, axis=axis, mode="clip")
        x = x.reshape(*x.shape[:axis], epochs * count, -1, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    actor, critic = jax.tree.map(lambda x: dealt(x, 0), (memory.actor, memory.critic))
    reset = None if memory.reset is None else dealt(memory.reset, 1)
    return jax.tree.map(lambda x: dealt(x, axis), data), Memory(actor, critic, reset)


def weighted_mean(x: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Mean of `x`; weights have a mean of one (`relative_weight`), so that shares of a batch add up."""
    return jnp.mean(x if weight is None else weight * x)


def relative_weight(weight: jax.Array | None) -> jax.Array | None:
    """Weights with a mean of one over the whole minibatch; all zero where nobody acts."""
    return None if weight is None else weight / jnp.maximum(jnp.mean(weight), 1e-8)
