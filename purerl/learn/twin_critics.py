"""Twin critics: the keys of algorithms that have them, their losses, and those of maximum-entropy policies under them.

Haarnoja et al. 2018a (arXiv 1801.01290) and 2018b (1812.05905); choices as in Christodoulou 2019 (1910.07207).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from envs_jax.base import Environment
from purerl.learn.buffers import Sequences
from purerl.learn.replay_config import WIDE, ReplayConfig
from purerl.nets.actions import Actions, Choices
from purerl.nets.critics import CriticArch, Critics, Preview, Reduction, reduce_twins
from purerl.nets.distributions import Categorical
from purerl.nets.networks import NetworkConfig
from purerl.nets.policies import SoftPolicy


class TwinConfig(ReplayConfig):
    """Keys of algorithms with a replay whose actor follows twin critics."""

    policy_delay: int = Field(1, ge=1, description="critic updates per update of everything else")
    tau: float = Field(0.005, gt=0, le=1)
    actor_lr: float = Field(3e-4, gt=0)
    critic_lr: float = Field(3e-4, gt=0)
    target_value: Literal["min", "mean"] = Field("min", description="of both target critics")
    actor_value: Reduction = Field("min", description="of both critics, for the actor")
    critic_arch: CriticArch = "history"
    critic_preview: bool = Field(
        False,
        description="critics see the environment's preview of the action and learn what follows the previewed reward",
    )
    critic: NetworkConfig = WIDE

    @model_validator(mode="after")
    def _whole_blocks(self):
        if self.gradient_steps() % self.policy_delay:
            raise ValueError(
                f"updates_per_step gives {self.gradient_steps()} gradient updates per update call "
                f"({self.env_steps()} environment steps): make it a positive multiple of policy_delay"
            )
        return self

    @property
    def recurrent(self) -> bool:
        return self.actor.recurrent or self.critic.recurrent


def mean_in_play(x, alive):
    """Mean of x [T, N] over agents in play (`alive`, bool [T, N]); None: over all."""
    if alive is None:
        return jnp.mean(x)
    return jnp.sum(x * alive) / jnp.maximum(jnp.sum(alive), 1)


def critic_loss(critics: Critics, params, batch: Sequences, y):
    """Mean squared error to targets y [T, N] over batch, steps and both heads; and `(q, history)`."""
    history = critics.history(params, batch.obs[:-1], batch.action)
    q = critics.q(params, history, batch.obs[:-1], batch.action)
    error = (q - y) ** 2
    if batch.alive is None:
        return jnp.mean(error), (q, history)
    return mean_in_play(jnp.mean(error, axis=0), batch.alive), (q, history)


def soft_value(
    policy: SoftPolicy, critics: Critics, critic_params, outputs, history, obs, legal, alpha, noise, how: Reduction
) -> tuple[jax.Array, jax.Array]:
    """E[Q(o, a) - alpha log pi(a | o)] over actions of the policy: one sample of a range, the sum over choices.

    This is the value of the next observation in the critics' target (2018b, eq. 3), and, with the gradient through
    `outputs`, what the actor ascends (eq. 7, 9; Christodoulou eq. 10, 12).

    Args:
        outputs: the actor's [T, N, m] for obs [T, N, d]; `history` is what the critics know before the action.
        noise: from `policy.draw`, [T, N, k]; choices need none.

    Returns:
        Value and entropy, or its estimate from the sample, [T, N] each.
    """
    dist = policy.distribution(outputs, legal)
    if isinstance(dist, Categorical):
        q = reduce_twins(critics.q_each(critic_params, history), how)
        entropy = dist.entropy()
        return jnp.sum(dist.probs * q, axis=-1) + alpha * entropy, entropy
    assert isinstance(policy.actions, Actions)
    raw = dist.sample_from(noise)
    q = reduce_twins(critics.q(critic_params, history, obs, policy.actions.squash(raw)), how)
    entropy = -dist.raw_log_prob(raw)
    return q + alpha * entropy, entropy


def entropy_target(policy: SoftPolicy, wanted: Any, share: Any, legal=None):
    """Entropy that the temperature steers to: `wanted`, plus for choices `share` of the logarithm of their number.

    With `legal`, bool [..., n], that is the number of legal ones, observation by observation; of a range whose
    components are not all in use, the share of `wanted` that is theirs.
    """
    if not isinstance(policy.actions, Choices):
        return wanted if legal is None else wanted * jnp.mean(legal, axis=-1)
    count = policy.actions.n if legal is None else jnp.maximum(jnp.sum(legal, axis=-1), 1)
    return wanted + share * jnp.log(count)


def entropy_aim(actions: Actions | Choices, given: float | Literal["auto"], share: float) -> tuple[float, float]:
    """`(wanted, share)` for `entropy_target`: what is given, or minus the number of components; `share` of choices."""
    if given != "auto":
        return given, 0.0
    return (0.0, share) if isinstance(actions, Choices) else (-float(actions.dim), 0.0)


def temperature_loss(log_alpha, entropy, target, alive=None):
    """log alpha times the entropy above target (2018b, eq. 18, with log alpha in alpha's place).

    Its gradient has the sign of the paper's: too little entropy raises alpha, too much lowers it.
    """
    return log_alpha * mean_in_play(jax.lax.stop_gradient(entropy - target), alive)


def critics_of(
    env: Environment,
    env_params,
    actions: Actions | Choices,
    network: NetworkConfig,
    arch: CriticArch,
    with_preview: bool,
) -> Critics:
    """Critics for an environment (with an agent axis).

    Raises:
        ValueError: `with_preview`, and the environment offers none.
    """
    obs_dim = env.observation_space(env_params).shape[1]
    if not with_preview:
        return Critics(network, arch, obs_dim, actions.dim, choices=isinstance(actions, Choices))
    if env.guidance.preview is None or isinstance(actions, Choices):
        raise ValueError(f"algo.critic_preview: {env.name} offers no preview of actions here; set it to false")
    of_agents, unit = env.guidance.preview, actions.unit

    def of_one(obs, action, env_params):
        return of_agents(obs[None], action[None] * unit, env_params)[0]

    size = jax.eval_shape(of_one, jnp.zeros(obs_dim), jnp.zeros(actions.dim), env_params).shape[0]
    preview: Preview = jax.vmap(jax.vmap(of_one, (0, 0, None)), (0, 0, None))
    return Critics(network, arch, obs_dim, actions.dim, preview, preview_size=size)
