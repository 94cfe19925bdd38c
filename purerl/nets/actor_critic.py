"""Actor and critic of one policy as functions of parameters and inputs.

Reading order: `Memory` (what a recurrent network starts from), `ActorCritic`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.spaces import Space
from purerl.nets import pairs, policies
from purerl.nets.networks import Head, NetworkConfig, make_core
from purerl.nets.policies import Continuous, Outputs


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
        if deviations := policies.continuous_size(self.space):
            actor["log_std"] = jnp.full((deviations,), self.initial_log_std, jnp.float32)
        critic = one(self.critic_core, self.critic_head, self.critic_dim, keys[2], keys[3])
        return {"actor": actor, "critic": critic}

    def outputs(self, params, xs, carry=None, reset=None) -> Outputs:
        """The actor's outputs for sequences, or for rows of a feed-forward actor."""
        features = self.actor_core.apply(params["core"], xs, carry, reset)
        return self._with_deviation(params, self.actor_head.apply(params["head"], features))

    def outputs_step(self, params, carry, x) -> tuple[Any, Outputs]:
        step: Any = self.actor_core.apply(params["core"], carry, x, method="step")
        return step[0], self._with_deviation(params, self.actor_head.apply(params["head"], step[1]))

    def _with_deviation(self, params, head) -> Outputs:
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
        return self._with_deviation(packed, both[0, : policies.output_size(self.space)].T), both[1, 0]


class Memory(NamedTuple):
    """Where a recurrent minibatch starts, and where its episodes start anew."""

    actor: Any
    critic: Any
    reset: jax.Array | None
    """bool [T, N]: empty the memory before this step."""
