"""Maximum-entropy policies: their distribution, their value under twin critics, and the temperature.

Haarnoja et al. 2018a (arXiv 1801.01290) and 2018b (1812.05905); choices as in Christodoulou 2019 (1910.07207).
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from purerl.nets.actions import Actions, Choices
from purerl.nets.critics import Critics, Reduction, mean_in_play, reduce_twins
from purerl.nets.distributions import Categorical, SquashedNormal, masked
from purerl.nets.networks import Network, NetworkConfig


class SoftPolicy(NamedTuple):
    """A squashed normal over a range of actions, or a categorical over choices, from an actor's outputs.

    Entropies of the squashed normal are those of the action in units of the half range, in (-1, 1).
    """

    actions: Actions | Choices
    log_std_min: float = -10.0
    log_std_max: float = 2.0

    def network(self, config: NetworkConfig, obs_dim: int) -> Network:
        """Logits of the choices; or means and log standard deviations, side by side."""
        out_dim = self.actions.dim if isinstance(self.actions, Choices) else 2 * self.actions.dim
        return Network(config, obs_dim, out_dim, out_scale=0.1)

    def distribution(self, outputs, legal=None) -> Categorical | SquashedNormal:
        """Of raw actions, from outputs [..., m]; `legal` is bool [..., n], None: all choices are."""
        if isinstance(self.actions, Choices):
            return Categorical(masked(outputs, legal))
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return SquashedNormal(mean, jnp.clip(log_std, self.log_std_min, self.log_std_max))

    def draw(self, key, leading: tuple[int, ...]):
        """Random numbers [*leading, k] for `sample_from` of the distribution."""
        draw = jax.random.gumbel if isinstance(self.actions, Choices) else jax.random.normal
        return draw(key, (*leading, self.actions.dim))

    def env_action(self, raw):
        """Raw action -> what the environment takes."""
        if isinstance(self.actions, Choices):
            return raw
        return self.actions.squash(raw) * self.actions.unit

    def choose(self, outputs, legal, key, greedy: bool):
        """What the environment takes: the mode, or a sample."""
        dist = self.distribution(outputs, legal)
        return self.env_action(dist.mode() if greedy else dist.sample(key))


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
        return jnp.sum(jax.nn.softmax(dist.logits) * q, axis=-1) + alpha * entropy, entropy
    assert isinstance(policy.actions, Actions)
    raw = dist.sample_from(noise)
    q = reduce_twins(critics.q(critic_params, history, obs, policy.actions.squash(raw)), how)
    entropy = -dist.log_prob(raw)
    return q + alpha * entropy, entropy


def entropy_target(policy: SoftPolicy, wanted: Any, share: Any, legal=None):
    """Entropy that the temperature steers to: `wanted`, plus for choices `share` of the logarithm of their number.

    With `legal`, bool [..., n], that is the number of legal ones, observation by observation.
    """
    if not isinstance(policy.actions, Choices):
        return wanted
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
