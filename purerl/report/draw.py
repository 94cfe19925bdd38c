"""Drawing all figures of a run from its directory."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from envs_jax.episodes import Replay


def draw_run(
    run_dir: Path, out: Path | None = None, everything: bool = False, episodes: int | None = None
) -> list[Path]:
    """Draw everything that the files of a run allow; returns the figures' paths.

    Args:
        everything, episodes: see `envs_jax.episodes.Material`.

    Raises:
        ConfigError: the directory holds no training log.
    """
    # Imported here: matplotlib takes a second and training starts without it.
    import pandas as pd

    import envs_jax
    from envs_jax.episodes import Material
    from purerl.report import style, training_figures
    from purerl.run.stored_config import read_config

    drawn = training_figures.training_figures(run_dir)
    report = training_figures.final_report(run_dir)
    name = read_config(run_dir).env["name"]
    figures = envs_jax.figure_function(name)  # found without loading the environment's data
    if report is not None and figures is not None:
        steps = pd.read_csv(next((run_dir / "eval").glob(f"*_final_{report['split']}.csv")))
        drawn |= figures(Material(report, steps, lambda: replay_of(run_dir), everything, episodes))
    return style.save_figures(drawn, out or run_dir / "plots")


def replay_of(run_dir: Path) -> "Replay":
    """The best policy of a run, of several seeds the best, from the starts of its final score."""
    import jax
    import jax.numpy as jnp

    from envs_jax.episodes import POLICY, Replay, play_rules
    from purerl.run.evaluation import rollout_cases
    from purerl.run.runs import open_run, pick_seed, read_policy

    run = open_run(run_dir)
    settings = run.config.evaluation
    params = run.env.split_params(settings.final_split)
    policy, _ = pick_seed(run, *read_policy(run_dir, run, "best"))

    @partial(jax.jit, static_argnums=0)
    def fly(player, policy, params, cases, key):
        if player != POLICY:
            records = play_rules(run.env, params, [player], cases, key, whole=True)
        else:
            stacked = jax.tree.map(lambda leaf: leaf[None], policy)
            records = rollout_cases(run.algorithm, run.env, params, stacked, cases, key, whole=True)
        return jax.tree.map(lambda values: values[0], records)

    def play(player: str, cases: np.ndarray) -> dict[str, Any]:
        key = jax.random.key(settings.final_seed)  # the same for all, and so the starts
        return jax.device_get(fly(player, policy, params, jnp.asarray(cases, jnp.int32), key))

    return Replay(run.env, params, play)
