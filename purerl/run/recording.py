"""Playing behaviours on the device and keeping their steps as a dataset.

Reading order: what a behaviour does (`Player`), playing, episodes from steps, `record`.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_jax.base import Environment
from purerl.errors import ConfigError
from purerl.learn import rollout
from purerl.learn.dataset import Dataset, Metadata, Played, require_same, world_of
from purerl.learn.replay import own_ends
from purerl.nets.actions import Choices, actions_of
from purerl.run import memory, runs

STEPS_PER_CALL = 256
"""Steps of one compiled call where episodes have no fixed length."""


class Behaviour(NamedTuple):
    name: str
    """`random`, a rule of the environment, or `run:DIR`."""
    share: float = 1.0
    """Weight among the episodes."""
    noise: float = 0.0
    """Continuous: standard deviation in units of the largest action. Discrete: probability of a random legal action."""


# Behaviours


class Player(NamedTuple):
    """A behaviour as `rollout.collect` wants it."""

    act: rollout.Act
    draw: rollout.Draw
    memory: Any
    """Of the policy at the start of B episodes."""


def make_player(chosen: Behaviour, env: Environment, params: Any, num_envs: int) -> Player:
    """The behaviour in `env`, which has an agent axis.

    Raises:
        ConfigError: an unknown behaviour, or a run of another world.
    """
    actions = actions_of(env, params)
    leading = (num_envs, world_of(env, params).num_agents)

    def random(worlds, drawn):
        return actions.uniform(drawn, rollout.facts_of(env, params, worlds.state).legal)

    def draw_random(key):
        return actions.draw_uniform(key, leading)

    if chosen.name == "random":
        return Player(lambda worlds, drawn: (random(worlds, drawn), worlds.carry, None), draw_random, ())
    policy, draw_policy, memory = _policy_of(chosen.name, env, params, num_envs)

    def draw(key):
        key_policy, key_noise, key_chance = jax.random.split(key, 3)
        if isinstance(actions, Choices):
            return draw_policy(key_policy), (draw_random(key_noise), jax.random.uniform(key_chance, leading))
        return draw_policy(key_policy), jax.random.normal(key_noise, (*leading, actions.dim))

    def act(worlds, drawn):
        for_policy, noise = drawn
        action, carry = policy(worlds, for_policy)
        if isinstance(actions, Choices):
            for_random, chance = noise
            return jnp.where(chance < chosen.noise, random(worlds, for_random), action), carry, None
        return actions.clip(action / actions.unit + chosen.noise * noise) * actions.unit, carry, None

    return Player(act, draw, memory)


def _policy_of(name: str, env: Environment, params: Any, num_envs: int) -> tuple[Callable, rollout.Draw, Any]:
    """`(worlds, drawn) -> (action, memory)` of a rule or a trained run, what draws for it, and its first memory."""
    if name in env.guidance.rules:
        rule = jax.vmap(env.guidance.rules[name], (0, 0, None))
        by_rule = lambda worlds, keys: (rule(keys, worlds.state, params), worlds.carry)  # noqa: E731
        return by_rule, lambda key: jax.random.split(key, num_envs), ()
    if not name.startswith("run:"):
        raise ConfigError(f"behaviour '{name}': {env.name} has {', '.join(['random', *env.guidance.rules, 'run:DIR'])}")
    run_dir = Path(name.removeprefix("run:"))
    run = runs.open_run(run_dir, without_data=True)
    require_same(run_dir, world_of(run.env, run.env.default_params), world_of(env, params))
    policy, _ = runs.pick_seed(run, *runs.read_policy(run_dir, run, "best"))

    def by_run(worlds, key):
        legal = rollout.facts_of(env, params, worlds.state).legal
        return run.algorithm.act(policy, worlds.carry, worlds.obs, legal, key, True)

    return by_run, lambda key: key, run.algorithm.initial_carry((num_envs,))


# Playing


def episodes_each(behaviours: Sequence[Behaviour], episodes: int) -> list[int]:
    """Episodes of every behaviour by its share; they sum to `episodes`.

    Raises:
        ConfigError: a behaviour would get none.
    """
    reached = np.cumsum([behaviour.share for behaviour in behaviours])
    counts = np.diff(np.round(episodes * reached / reached[-1]), prepend=0).astype(int).tolist()
    for behaviour, count in zip(behaviours, counts, strict=True):
        if count < 1:
            raise ConfigError(f"behaviour {behaviour.name}: its share of {episodes} episodes is none; record more")
    return counts


def _steps_per_call(env: Environment) -> int:
    return env.episode_length or min(env.max_episode_length, STEPS_PER_CALL)


def play(env: Environment, params: Any, player: Player, key: jax.Array, quota: np.ndarray) -> rollout.Steps:
    """Steps [T, B, ...] on the host in which environment number b ends at least `quota[b]` episodes."""
    num_envs, num_steps = len(quota), _steps_per_call(env)

    @jax.jit
    def start(key):
        return rollout.start_worlds(env, params, key, num_envs, player.memory)

    @jax.jit
    def advance(worlds, key):
        key, key_steps = jax.random.split(key)
        worlds, steps, _ = rollout.collect(env, params, worlds, player.act, player.draw, key_steps, num_steps)
        return worlds, steps, key

    key_start, key = jax.random.split(key)
    worlds, parts, ended = start(key_start), [], np.zeros(num_envs, int)
    while (ended < quota).any():
        worlds, steps, key = advance(worlds, key)
        parts.append(jax.device_get(steps))
        ended += (parts[-1].terminated | parts[-1].truncated).sum(axis=0)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def whole_episodes(steps: rollout.Steps, quota: np.ndarray, episode_length: int | None) -> dict[str, Any]:
    """The first `quota[b]` episodes of every environment as items of a dataset.

    A fixed number per environment: to stop all at one time would prefer short episodes.

    Returns:
        Arrays by the names of `Dataset`: items of `episode_length` steps, or of one where that is None.
    """
    ended, done = np.asarray(own_ends(steps)[0]), steps.terminated | steps.truncated
    wanted = np.swapaxes(np.cumsum(done, axis=0) - done < quota, 0, 1)

    def items(x):
        """[time, item, ...]; the steps of an environment follow each other."""
        by_env = np.swapaxes(x, 0, 1)
        if episode_length is None:
            return by_env[wanted][None]
        episodes = by_env.reshape(-1, episode_length, *x.shape[2:])
        return np.swapaxes(episodes[wanted.reshape(-1, episode_length)[:, 0]], 0, 1)

    def with_last(before, after):
        return None if before is None else np.concatenate([items(before), items(after)[-1:]])

    alive = steps.facts.alive
    return {
        "obs": with_last(steps.obs, steps.final_obs),
        "action": items(steps.action),
        "reward": items(steps.reward),
        "terminated": items(ended),
        "truncated": items(steps.truncated),
        "legal": with_last(steps.facts.legal, steps.final_facts.legal),
        "alive": None if alive is None else items(alive),
    }


def _require_room(env: Environment, params: Any, player: Player, num_envs: int, episodes: int) -> None:
    """Refuse more worlds or episodes than the memory holds; episodes without a fixed length count as one step."""
    num_steps = _steps_per_call(env)

    def call(key):
        key_start, key_steps = jax.random.split(key)
        worlds = rollout.start_worlds(env, params, key_start, num_envs, player.memory)
        return rollout.collect(env, params, worlds, player.act, player.draw, key_steps, num_steps)[:2]

    worlds, steps = jax.eval_shape(call, jax.random.key(0))
    one = memory.bytes_of(steps) // (num_envs * num_steps)
    memory.require_room(
        [
            memory.Part("played at once", memory.bytes_of((worlds, steps)), ("--num-envs",)),
            memory.Part("the dataset", one * episodes * (env.episode_length or 1), ("--episodes",)),
        ]
    )


def record(
    env: Environment,
    behaviours: Sequence[Behaviour],
    episodes: int,
    seed: int,
    num_envs: int,
    settings: dict[str, Any],
) -> Dataset:
    """Play all behaviours on the training split of `env`, which has an agent axis.

    Args:
        settings: the configuration's `env` section, for the metadata.

    Raises:
        ConfigError: as `make_player` and `episodes_each`.
    """
    params = env.default_params
    parts, played = [], []
    for index, (chosen, count) in enumerate(zip(behaviours, episodes_each(behaviours, episodes), strict=True)):
        width = min(count, num_envs)
        player = make_player(chosen, env, params, width)
        _require_room(env, params, player, width, count)
        quota = count // width + (np.arange(width) < count % width)
        steps = play(env, params, player, jax.random.fold_in(jax.random.key(seed), index), quota)
        part = whole_episodes(steps, quota, env.episode_length)
        mean_return = float(part["reward"].sum(dtype=np.float64)) / count
        played.append(
            Played(
                behaviour=chosen.name,
                noise=chosen.noise,
                episodes=count,
                steps=part["truncated"].size,
                mean_return=mean_return,
            )
        )
        parts.append(part)
    arrays = jax.tree.map(lambda *part: np.concatenate(part, axis=1), *parts)
    metadata = Metadata(
        world=world_of(env, params),
        settings=settings,
        played=played,
        seed=seed,
        episodes=episodes,
        versions={package: version(package) for package in ("purerl", "jax", "numpy")},
    )
    return Dataset(**arrays, metadata=metadata)
