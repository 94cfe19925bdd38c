"""The algorithm contract: a named tuple of pure functions over one declared state, in the manner of optax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

State = Any
Policy = Any
Carry = Any
HParams = Any
Metrics = dict[str, jax.Array]


class Data(NamedTuple):
    """What an update reads and does not change: an argument of `init` and `update`, never closed over.

    So its numbers may differ between calls, seeds and sweep points without a second compilation, and nothing of it is
    in a checkpoint or there once for every seed.
    """

    env_params: Any
    """Of the environment that is learned from. Parameters of other policies may lie in them: an opponent, a micro
    policy inside a macro environment."""
    recorded: Any = None
    """Recorded experience, None where updates learn from the environment."""


class Algorithm(NamedTuple):
    """An algorithm bound to an environment and a configuration.

    `update` does a fixed amount of work, so whole-run training is a `lax.scan` of it, a resumable run is the same scan
    cut into chunks, and seeds or hyper-parameters are a `vmap` around it.
    """

    init: Callable[[jax.Array, HParams, Data], State]
    """`(key, hparams, data)`: everything needed to resume, warm-up done."""
    update: Callable[[State, Data], tuple[State, Metrics]]
    """`(state, data)`: `env_steps_per_update` environment steps and `gradient_steps_per_update` gradient steps; scalar
    metrics."""
    policy: Callable[[State], Policy]
    """Parameters and frozen normaliser: all that acting needs."""
    act: Callable[[Policy, Carry, jax.Array, jax.Array | None, jax.Array, bool], tuple[jax.Array, Carry]]
    """`(policy, carry, obs [..., A, d], mask, key, greedy)`: actions [..., A, ...] and the next carry."""
    initial_carry: Callable[[tuple[int, ...]], Carry]
    """Recurrent state at the start of an episode for a batch shape (without the agent axis). Empty means zeros:
    roll-outs and sequences set the carry to zero where an episode ends."""
    hparams: HParams
    """The configuration's numbers that may be traced and swept: a dataclass of scalars."""
    load_data: Callable[[], Data]
    """The data of the configured run. Recorded experience is read here and not before, so that a trained policy acts,
    is evaluated and exported where its data are not; raises what keeps the run from starting."""
    env_steps_per_update: int
    """0 where updates learn from recorded data alone: curves are then drawn over gradient steps."""
    gradient_steps_per_update: int
    warmup_env_steps: int
    """Environment steps that `init` takes."""
    num_updates: int
    """Updates of the configured run."""
    reward_scale: float = 1.0
    """It learns from rewards times this, so `q_values` are estimates of scaled returns. What is reported, and recorded
    data, are not scaled."""
    vectorise_seeds: bool = True
    """Whether several seeds run fastest in one `vmap` on a CPU, too; not where one update fills the caches."""
    q_values: Callable[[Policy, jax.Array, jax.Array, Any], jax.Array] | None = None
    """`(policy, obs [T, N, d], action [T, N, k], env_params)`: estimates [critics, T, N] along episodes, where
    defined."""
    discount: float = 1.0
    """Of one frame of the world, for what `q_values` estimate."""
    warmup_report: Callable[[State], Metrics] | None = None
    """`(fresh state)`: what the actions of the warm-up were like, as scalars for the screen."""
    replay_field: str | None = None
    """Field of the state that holds the replay, which a checkpoint may leave out."""
    learned: tuple[str, ...] = ()
    """Fields of the state that hold what has been learned: another run can start from them. Their `gradient_steps`, if
    any, count from zero there."""
