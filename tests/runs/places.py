"""The probe world of `fake` in two places, near and far, with shifts of its targets: what tests of deployment fly."""

import dataclasses

import fake
import jax
import jax.numpy as jnp
import numpy as np

import envs_jax
from envs_jax.base import Environment, ShiftGroup

FACTORS = {"near": 1.0, "far": 2.0}
SIZES = 0.0, -0.1, 0.1, 0.2


def register(setitem) -> None:
    for place in FACTORS:
        setitem(envs_jax.registered_envs, f"places/{place}", "places:make_env")
        setitem(envs_jax.config_models, f"places/{place}", "fake:EnvConfig")


def make_env(place: str, **settings) -> Environment:
    """`fake.make_env` with targets times a factor; one kind of shift adds to them all."""
    env = fake.make_env(**settings)
    splits = {name: FACTORS[place] * targets for name, targets in env.splits.items()}

    def score(split, records, cache_dir=None):
        worst = records["reward"].sum(axis=2).min(axis=1).tolist()
        return env.score(split, records, cache_dir)._replace(detail={"worst": worst}, bound=None, percent_of_bound=None)

    def known(names, possible):
        for name in names:
            if name not in possible:
                raise ValueError(f"unknown name '{name}'")

    def shifts(kinds):
        known(kinds or (), ("target",))
        labels = [
            {"kind": "target" if size else "none", "who": "all", "axis": "", "size": size, "unit": "", "scale": "small"}
            for size in SIZES
        ]
        shifted = np.stack([np.asarray(splits["test"]) + size for size in SIZES])
        return [ShiftGroup(world, labels, shifted, {"target": 2})]

    def scenarios(names):
        known(names, FACTORS)
        params = jnp.stack([FACTORS[name] * env.splits["test"] for name in names])
        return [ShiftGroup(world, [{"scenario": name} for name in names], jax.device_get(params))]

    world = dataclasses.replace(
        env, name=f"places/{place}", default_params=splits["train"], splits=splits, score=score, shown=("worst",),
        shifts=shifts, scenarios=scenarios, rules={"still": lambda key, state, params: jnp.zeros(1)},
        compared=("still",),
    )  # fmt: skip
    return world
