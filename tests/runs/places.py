"""The probe world of `fake` in two places, near and far, with shifts of its targets: what tests of deployment fly.

Its score has a number that comes from whole records and that the first seed and far targets do not have.
"""

import dataclasses

import fake
import jax
import jax.numpy as jnp
import numpy as np

import envs_jax
from envs_jax.base import Conditions, Environment, Group, Guidance

FACTORS = {"near": 1.0, "far": 2.0}
SIZES = 0.0, -0.1, 0.1, 0.2
KNOWN_UP_TO = 0.75
"""Targets with a larger one among them have no `gap`."""


def register(setitem) -> None:
    for place in FACTORS:
        world = envs_jax.World((f"places/{place}",), "places:make_env", "fake:EnvConfig")
        setitem(envs_jax.registered_envs, f"places/{place}", world)


def moved(params: fake.TrackParams, factor: float, by: float = 0.0) -> fake.TrackParams:
    return params._replace(targets=factor * params.targets + by)


def stacked(params: list[fake.TrackParams]) -> fake.TrackParams:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf, np.float32) for leaf in leaves]), *params)


def make_env(place: str, **settings) -> Environment:
    """`fake.make_env` with targets times a factor; one kind of shift adds to them all."""
    env = fake.make_env(**settings)
    splits = {name: moved(params, FACTORS[place]) for name, params in env.assessment.splits.items()}

    def score(split, records, cache_dir=None):
        worst = records["reward"].sum(axis=2).min(axis=1).tolist()
        gap = records["apart"].mean(axis=(1, 2))
        unknown = (np.arange(len(gap)) < len(gap) - 1) | (records["target"].max() > KNOWN_UP_TO)
        detail = {"worst": worst, "inner": {"gap": np.where(unknown, np.nan, gap).tolist()}}
        return env.assessment.score(split, records, cache_dir)._replace(
            detail=detail, bound=None, percent_of_bound=None
        )

    def condense(records, params):
        return {"apart": jnp.abs(records["action"][:, 0, 0] - records["state"].target)}

    def known(names, possible):
        for name in names:
            if name not in possible:
                raise ValueError(f"unknown name '{name}'")

    def shifts(kinds):
        known(kinds or (), ("target",))
        labels = [
            {"kind": "target" if size else "none", "who": "all", "axis": "", "size": size, "unit": "", "scale": scale}
            for size, scale in zip(SIZES, ("", "small", "small", "large"), strict=True)
        ]
        return [Group(world, labels, stacked([moved(splits["test"], 1.0, size) for size in SIZES]), {"target": 2})]

    def scenarios(names):
        known(names, FACTORS)
        params = stacked([moved(env.assessment.splits["test"], FACTORS[name]) for name in names])
        return [Group(world, [{"condition": name} for name in names], params)]

    world = dataclasses.replace(
        env, name=f"places/{place}", default_params=splits["train"],
        guidance=Guidance(rules={"still": lambda key, state, params: jnp.zeros(1)}),
        assessment=env.assessment._replace(
            splits=splits, score=score, condense=condense, shown=("worst", "inner.gap"), compared=("still",),
            conditions={
                "shifts": Conditions(shifts, "changes", why_left_out="too far"),
                "scenarios": Conditions(scenarios, "one by one", own=place),
            },
        ),
    )  # fmt: skip
    return world
