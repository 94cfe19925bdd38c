"""A probe environment and a small learner with everything a real one has: replay, episodes, memory, PRNG keys.

The host side is tested with these, because a chunk of them compiles in a second.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from pydantic import BaseModel, ConfigDict, Field

from envs_jax.adapters import with_agent_axis
from envs_jax.base import Assessment, Environment, Score
from envs_jax.paths import AbsolutePath
from envs_jax.spaces import Box
from purerl.types import Algorithm, Data

LENGTH = 5
TARGETS = {"train": np.linspace(-0.5, 0.5, 7), "val": np.linspace(-0.4, 0.4, 4), "test": np.linspace(-0.3, 0.6, 5)}


class EnvConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    target_scale: float = Field(1.0, gt=0)
    price: float = Field(0.0, ge=0, description="of an action")
    data_path: AbsolutePath | None = None
    calibration: dict | None = None


class TrackParams(NamedTuple):
    targets: jax.Array
    scale: float
    """Of observed targets."""
    price: float
    """Of an action, per unit of its square."""


class TrackState(NamedTuple):
    target: jax.Array
    time: jax.Array


def make_env(provenance=None, without_data=False, **settings) -> Environment:
    """Reach a constant target with the action: reward -(action - target)^2, five steps, cases with known targets.

    Targets of the test may come from a file; a run keeps them, and only the file may grow.
    """
    config = EnvConfig(**settings)
    targets = {name: jnp.asarray(t * config.target_scale, jnp.float32) for name, t in TARGETS.items()}
    if config.data_path is not None and not without_data:
        found = np.loadtxt(config.data_path, ndmin=1).tolist()
        if provenance is not None and provenance["file"] == config.data_path:
            if found[: len(provenance["targets"])] != provenance["targets"]:
                raise ValueError(f"{config.data_path}: other targets than at the training")
            found = provenance["targets"]
        provenance = {"file": config.data_path, "targets": found}
        targets["test"] = jnp.asarray(found, jnp.float32)
    fitted = {"scale": float(np.abs(targets["train"]).max())}
    calibration = fitted if config.calibration is None else config.calibration
    splits = {name: TrackParams(t, calibration["scale"], config.price) for name, t in targets.items()}

    def observe(state, params):
        return jnp.stack([state.target / params.scale, jnp.ones(())])

    def reset_case(key, index, params):
        state = TrackState(params.targets[index], jnp.zeros((), jnp.int32))
        return observe(state, params), state

    def reset_env(key, params):
        return reset_case(key, jax.random.randint(key, (), 0, params.targets.shape[0]), params)

    def step_env(key, state, action, params):
        reward = -((action[0] - state.target) ** 2) - params.price * action[0] ** 2
        state = TrackState(state.target, state.time + 1)
        info = {"target": state.target, "cost": -reward}
        return observe(state, params), state, reward, state.time == LENGTH, jnp.zeros((), bool), info

    def score(split, records, cache_dir=None):
        gain = (records["reward"].sum(axis=2, dtype=np.float64)).mean(axis=1)
        idle = -LENGTH * float((np.asarray(targets[split])[records["case"][0, :, 0]] ** 2).mean())
        percent = (100 * (gain - idle) / -idle).tolist()
        return Score("points", gain.tolist(), {"idle": idle}, 0.0, percent, {})

    return Environment(
        name="track",
        default_params=splits["train"],
        reset_env=reset_env,
        step_env=step_env,
        observation_space=lambda params: Box(-10.0, 10.0, (2,)),
        action_space=lambda params: Box(-1.0, 1.0, (1,)),
        episode_length=LENGTH,
        max_episode_length=LENGTH,
        differentiable=True,
        assessment=Assessment(
            splits=splits,
            num_cases=lambda params: params.targets.shape[0],
            reset_case=reset_case,
            score=score,
            calibration=calibration,
            provenance=provenance,
        ),
    )


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    total_env_steps: int = Field(400, gt=0)
    num_envs: int = Field(4, gt=0)
    learning_rate: float = Field(0.1, gt=0)
    capacity: int = Field(16, gt=0)
    bad_update: int | None = Field(None, description="the loss is NaN from this update on")


@struct.dataclass
class HParams:
    learning_rate: float


@struct.dataclass
class State:
    weights: jax.Array
    ring: jax.Array
    key: jax.Array
    updates: jax.Array
    hparams: HParams


def make(config: Config, env: Environment, env_params=None) -> Algorithm:
    """Regress the action on the best action of replayed episodes; acts through an (unused but carried) memory."""
    env = with_agent_axis(env)
    env_params = env.default_params if env_params is None else env_params

    def act(policy, carry, obs, mask, key, greedy):
        action = jnp.clip(obs @ policy, -1.0, 1.0)
        return action + 0.01 * carry, 0.5 * carry + obs[..., :1]

    def initial_carry(batch_shape):
        return jnp.zeros((*batch_shape, 1, 1))

    def play(weights, env_params, key):
        """One episode of every environment: first observation, target and mean return."""
        key_reset, key_noise = jax.random.split(key)
        obs, state = jax.vmap(env.reset_env, (0, None))(jax.random.split(key_reset, config.num_envs), env_params)
        noise = 0.1 * jax.random.normal(key_noise, (LENGTH, config.num_envs, 1, 1))

        def body(carry, noise):
            obs, state, memory = carry
            action, memory = act(weights, memory, obs, None, None, False)
            keys = jax.random.split(jax.random.key(0), config.num_envs)
            obs, state, reward, *_ = jax.vmap(env.step_env, (0, 0, 0, None))(keys, state, action + noise, env_params)
            return (obs, state, memory), reward

        _, reward = jax.lax.scan(body, (obs, state, initial_carry((config.num_envs,))), noise)
        items = jnp.concatenate([obs[:, 0], state.target[:, None]], axis=1)
        return items, reward.sum(axis=(0, 2)).mean()

    def init(key, hparams, data):
        key_weights, key_ring, key = jax.random.split(key, 3)
        weights = jax.random.normal(key_weights, (2, 1))
        items, _ = play(weights, data.env_params, key_ring)
        ring = jnp.zeros((config.capacity, 3)).at[: config.num_envs].set(items)
        return State(weights, ring, key, jnp.zeros((), jnp.int32), jax.tree.map(jnp.asarray, hparams))

    def update(state, data):
        key, key_play, key_batch = jax.random.split(state.key, 3)
        items, mean_return = play(state.weights, data.env_params, key_play)
        start = (state.updates * config.num_envs) % config.capacity
        ring = jax.lax.dynamic_update_slice_in_dim(state.ring, items, start, axis=0)
        batch = ring[jax.random.randint(key_batch, (8,), 0, config.capacity)]
        loss_of = lambda w: jnp.mean((batch[:, :2] @ w - batch[:, 2:]) ** 2)  # noqa: E731
        loss, gradient = jax.value_and_grad(loss_of)(state.weights)
        if config.bad_update is not None:
            loss = jnp.where(state.updates + 1 >= config.bad_update, jnp.nan, loss)
        weights = state.weights - state.hparams.learning_rate * gradient
        metrics = {
            "loss": loss,
            "weight_norm": jnp.linalg.norm(weights),
            "episode/return": mean_return,
            "episode/count": jnp.asarray(config.num_envs),
        }
        return State(weights, ring, key, state.updates + 1, state.hparams), metrics

    steps = config.num_envs * LENGTH
    return Algorithm(
        init=init,
        update=update,
        policy=lambda state: state.weights,
        act=act,
        initial_carry=initial_carry,
        hparams=HParams(config.learning_rate),
        load_data=lambda: Data(env_params),
        replay_field="ring",
        env_steps_per_update=steps,
        gradient_steps_per_update=1,
        learned=("weights",),
        warmup_env_steps=steps,
        num_updates=config.total_env_steps // steps,
    )
