"""What tests of recorded data share: small datasets with numbers that say where they belong."""

import numpy as np

from purerl.learn.dataset import Dataset, Metadata, Played, World

WORLD = World(
    name="marker", observation_size=3, num_agents=1, choices=None, action_low=[-2.0], action_high=[2.0],
    calibration=None,
)  # fmt: skip


def metadata(**world) -> Metadata:
    return Metadata(
        world=WORLD.model_copy(update=world),
        settings={"name": "marker"},
        played=[Played(behaviour="random", noise=0.0, episodes=6, steps=24, mean_return=1.5)],
        seed=3,
        episodes=6,
        versions={"purerl": "0"},
    )


def small_dataset(items: int = 6, steps: int = 4, choices: int | None = None) -> Dataset:
    """Items of `steps` steps of one agent with observations [3]; with `choices`, action masks, too."""
    rng = np.random.default_rng(0)
    shape = (steps, items, 1)
    world: dict = {} if choices is None else {"choices": choices, "action_low": None, "action_high": None}
    action = rng.uniform(-2, 2, (*shape, 1)).astype(np.float32)
    legal = None
    if choices is not None:
        action = rng.integers(0, choices, shape).astype(np.int32)
        legal = rng.random((steps + 1, items, 1, choices)) < 0.5
        legal[:-1] |= np.arange(choices) == action[..., None]
        legal[-1, ..., 0] = True
    last = np.broadcast_to((np.arange(steps) == steps - 1)[:, None], (steps, items))
    return Dataset(
        obs=rng.normal(size=(steps + 1, items, 1, 3)).astype(np.float32),
        action=action,
        reward=rng.normal(size=shape).astype(np.float32),
        terminated=(last & (np.arange(items) % 2 == 0))[..., None].copy(),
        truncated=last & (np.arange(items) % 2 == 1),
        legal=legal,
        alive=rng.random(shape) < 0.8,
        metadata=metadata(**world),
    )
