"""Values of a team from chunks of experience: what a mixer makes of the agents' utilities, targets, the loss.

Reading order: `ValueNets` (networks and what their outputs mean), utilities along chunks, joint values, targets, the
loss.

Everything is [T, N, A, ...]: time, chunks, agents. Utilities are [T, N, A, n], of m choices at once [T, N, A, m, n].
Values are [T, N, M]: M = 1 behind a mixer, M = A for independent learners, each of which has the team's reward to
itself. Agents that are not in play have no utility: zero chosen, zero at best. Targets of a step that ends an episode
are made of its true final observation, seen with the memory from before the reset; a termination cuts them, a time
limit does not.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs_jax.base import Selection
from purerl.learn.buffers import Sequences
from purerl.learn.returns import discount_of, lambda_returns, n_step_returns
from purerl.learn.trajectory import Team, remembered_outputs
from purerl.nets.mixers import Joint, Mixer
from purerl.nets.selections import margins, selection_entropy
from purerl.nets.utilities import Utilities, best_available, chosen, greedy


class Parts(NamedTuple):
    """Parameters of the agents and of the mixer."""

    agents: Any
    """With independent parameters leaves have a leading agent axis."""
    mixer: Any


class ValueNets(NamedTuple):
    team: Team
    utilities: Utilities
    mixer: Mixer | None
    """None: independent learners."""
    selection: Selection | None = None
    """What actions select; None: they are something else."""

    def init(self, key: jax.Array) -> Parts:
        key_agents, key_mixer = jax.random.split(key)
        init = self.utilities.init if self.team.shared else jax.vmap(self.utilities.init)
        return Parts(init(self.team.split(key_agents)), {} if self.mixer is None else self.mixer.init(key_mixer))


# Utilities along chunks


class Inputs(NamedTuple):
    """What the networks see along chunks, and where memories start: [T, N, A, ...]."""

    before: jax.Array
    after: jax.Array
    """After the steps, before any reset."""
    reset: jax.Array
    """bool: memories are emptied before the step."""
    carry: Any
    """Leaves [1, N, A, ...]."""


def inputs_of(utilities: Utilities, batch: Sequences) -> Inputs:
    """A chunk's observations with the actions that came before them."""
    assert batch.reset is not None and batch.final_obs is not None
    reset = jnp.broadcast_to(batch.reset[..., None], batch.obs.shape[:3])
    previous = None
    if utilities.config.previous_action:
        shifted = jnp.concatenate([batch.carry.previous, batch.action[:-1] + 1])
        previous = jnp.where(utilities.per_part(reset), 0, shifted)
    before = utilities.inputs(batch.obs, previous)
    return Inputs(before, utilities.inputs(batch.final_obs, batch.action + 1), reset, batch.carry.network)


def utilities_before(nets: ValueNets, agents, seen: Inputs) -> jax.Array:
    """Utilities [T, N, A, ...] before every step."""

    def of_learner(own, _):
        agents, xs, reset, carry = own
        return nets.utilities.along(agents, jax.tree.map(lambda c: c[0], carry), xs, reset)

    team = nets.team
    own = agents, *team.grouped((seen.before, seen.reset, seen.carry))
    return team.ungrouped(team.learners(of_learner)(own, None))


def utilities_after(nets: ValueNets, agents, seen: Inputs) -> jax.Array:
    """Utilities [T, N, A, ...] after every step, before any reset."""

    def of_learner(own, _):
        agents, xs, xs_after, reset, carry = own
        step = lambda carry, x: nets.utilities.step(agents, carry, x)  # noqa: E731
        if not nets.utilities.config.recurrent:
            return step((), xs_after)[1]
        ends = jnp.concatenate([reset[1:], jnp.zeros_like(reset[:1])])  # what follows the last step is not seen
        start = jax.tree.map(lambda c: jnp.where(reset[0][:, None], 0.0, c[0]), carry)
        return remembered_outputs(step, start, xs, xs_after, ends)[1]

    team = nets.team
    own = agents, *team.grouped((seen.before, seen.after, seen.reset, seen.carry))
    return team.ungrouped(team.learners(of_learner)(own, None))


# Joint values


def joint_value(nets: ValueNets, mixer, utility, action, legal, alive, state) -> Joint:
    """The value [T, N, M] of actions [T, N, A], or [T, N, A, m] of m choices at once.

    Args:
        mixer: its parameters.
        utility: [T, N, A, n] or [T, N, A, m, n]; `legal` bool of that shape, None: all; `alive` bool [T, N, A], None:
            all.
        state: [T, N, s].
    """
    each = chosen(utility, action), best_available(utility, legal)
    taken, best = map(nets.utilities.of_action, each)
    if alive is not None:
        taken, best = jnp.where(alive, taken, 0.0), jnp.where(alive, best, 0.0)
    if nets.mixer is None:
        return Joint(taken)
    joint = nets.mixer.value(mixer, taken, best, state, nets.utilities.features(action))
    return joint._replace(value=joint.value[..., None])


def states_of(batch: Sequences) -> tuple[jax.Array, jax.Array]:
    """Global states before and after the steps [T, N, s]; where the world has none, all observations side by side."""
    assert batch.final_obs is not None
    if batch.global_state is None or batch.final_global_state is None:
        lead = batch.obs.shape[:2]
        return batch.obs.reshape(*lead, -1), batch.final_obs.reshape(*lead, -1)
    return batch.global_state, batch.final_global_state


def after_burn_in(batch: Sequences, burn_in: int) -> Sequences:
    """The steps that losses count; carries are left behind."""
    return jax.tree.map(lambda x: x[burn_in:], batch.replace(carry=None)) if burn_in else batch  # type: ignore


# Targets


class TargetConfig(NamedTuple):
    double_q: bool
    n_step: int
    traces: bool
    """Lambda-returns instead of n steps."""


def following_value(nets: ValueNets, target: Parts, online_after, target_after, batch: Sequences, double_q: bool):
    """The target networks' value [T, N, M] of what follows every step, at the greedy actions.

    Double Q (van Hasselt et al. 2016, eq. 4): the online utilities choose, the target's are what it is worth, and the
    target's own maxima what it might have been.

    Args:
        online_after, target_after: utilities after the steps [T, N, A, ...].
    """
    legal = batch.final_legal
    best = greedy(online_after if double_q else target_after, legal)
    alive = None if batch.alive is None else batch.alive & ~batch.terminated
    return joint_value(nets, target.mixer, target_after, best, legal, alive, states_of(batch)[1]).value


def td_targets(config: TargetConfig, batch: Sequences, following, gamma, td_lambda) -> jax.Array:
    """Targets [T, N, M] with the discount counted in frames.

    A step after which no agent is left is a termination for the team, and for independent learners everybody's own end.
    """
    assert batch.team_reward is not None and batch.truncated is not None
    own = batch.terminated.shape[-1] == following.shape[-1]
    ended = batch.terminated if own else jnp.all(batch.terminated, axis=-1, keepdims=True)
    span = None if batch.span is None else batch.span[..., None]
    discount = discount_of(gamma, span) * (1.0 - ended)
    reward, truncated = (
        jnp.broadcast_to(x[..., None], following.shape) for x in (batch.team_reward, batch.truncated)
    )  # fmt: skip
    discount = jnp.broadcast_to(discount, following.shape)
    if config.traces:
        y = lambda_returns(reward, discount, td_lambda * (1.0 - truncated), following)
    else:
        y = n_step_returns(reward, discount, following, config.n_step, truncated)
    return jax.lax.stop_gradient(y)


def targets(config: TargetConfig, nets: ValueNets, params: Parts, target: Parts, batch: Sequences, burn_in: int, h):
    """Targets [T - burn_in, N, M] of the steps that count; `h` has `gamma` and `td_lambda`."""
    seen = inputs_of(nets.utilities, batch)
    online, theirs = (utilities_after(nets, p.agents, seen)[burn_in:] for p in (params, target))
    batch = after_burn_in(batch, burn_in)
    following = following_value(nets, target, online, theirs, batch, config.double_q)
    return td_targets(config, batch, following, h.gamma, h.td_lambda)


# The loss


def weights_of(batch: Sequences, values: int) -> jax.Array:
    """Weights [T, N, M] of the steps in losses: of a team in which somebody is in play, of agents in play."""
    assert batch.weight is not None
    weight = batch.weight[..., None]
    if batch.alive is not None:
        own = batch.alive.shape[-1] == values
        weight = weight * (batch.alive if own else jnp.any(batch.alive, axis=-1, keepdims=True))
    return jnp.broadcast_to(weight, (*batch.weight.shape, values))


class LossConfig(NamedTuple):
    """What the loss is made of beside the error."""

    selection_entropy_weight: float = 0.0
    selection_temperature: float = 1.0


ERROR_ALONE = LossConfig()


def td_loss(
    nets: ValueNets, params: Parts, batch: Sequences, y, burn_in: int, config: LossConfig = ERROR_ALONE
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean squared error of joint values to targets y [T - burn_in, N, M] (QMIX, eq. 6), and what to watch."""
    seen = inputs_of(nets.utilities, batch)
    utility = utilities_before(nets, params.agents, seen)[burn_in:]
    batch = after_burn_in(batch, burn_in)
    joint = joint_value(nets, params.mixer, utility, batch.action, batch.legal, batch.alive, states_of(batch)[0])
    weight = weights_of(batch, y.shape[-1])
    share = weight / jnp.maximum(jnp.sum(weight), 1.0)

    def mean(x):
        return jnp.sum(share * x)

    error = joint.value - y
    loss = mean(error**2)
    watched = {
        "td_loss": loss,
        "td_error_abs": mean(jnp.abs(error)),
        "q_tot_mean": mean(joint.value),
        "target_mean": mean(y),
    }
    if joint.importance is not None:
        watched |= {
            "lambda_mean": jnp.mean(joint.importance),
            "lambda_min": jnp.min(joint.importance),
            "lambda_max": jnp.max(joint.importance),
        }
    if joint.alpha is not None:
        watched["alpha_mean"] = jnp.mean(joint.alpha)
    if joint.penalty is not None:
        watched["attention_penalty"] = jnp.mean(joint.penalty)
        loss = loss + watched["attention_penalty"]
    watched |= attention_watched(nets, params.agents, seen, burn_in)
    if nets.selection is not None:
        entropy, watched["selection_entropy"] = selection_entropies(nets, utility, batch, config.selection_temperature)
        if config.selection_entropy_weight:
            loss = loss - config.selection_entropy_weight * entropy
    return loss, watched


def selection_entropies(nets: ValueNets, utility, batch: Sequences, temperature: float) -> tuple[jax.Array, jax.Array]:
    """The mean entropy of an agent's selection in nats, and all of it as a share of the largest that it could be.

    Args:
        utility: before the steps that count [T, N, A, ...].
    """
    assert nets.selection is not None
    entropy, largest = selection_entropy(margins(nets.selection, utility, batch.legal), temperature)
    weight = weights_of(batch, entropy.shape[-1])
    total = jnp.sum(weight * entropy)
    return total / jnp.maximum(jnp.sum(weight), 1.0), total / jnp.maximum(jnp.sum(weight * largest), 1e-6)


def attention_watched(nets: ValueNets, agents, seen: Inputs, burn_in: int) -> dict[str, jax.Array]:
    """Mean shares of the agents' attention by kind of entity; nothing where networks do not attend."""
    if not nets.utilities.config.attends:
        return {}

    def of_learner(own, _):
        agents, xs = own
        return nets.utilities.attention(agents, xs)

    found = nets.team.learners(of_learner)((agents, nets.team.grouped(seen.before[burn_in:])), None)
    return {f"attention_{kind}": jnp.mean(share) for kind, share in found.items()}
