"""Figures of camera worlds: moments of an episode, what is covered and delivered over time, who watches whom, a film.

Reading order: `figures` (what a finished run gets), `moments_figure`, `curves_figure`, `animation`. Single moments are
drawn in `drawing`, selections in `selection_figure`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.animation import Animation, FuncAnimation
from matplotlib.figure import Figure

from envs_jax.base import FRAMES
from envs_jax.episodes import POLICY, Material, Replay
from envs_jax.mate.drawing import COLORS, draw_moment, legend, moment_of, table_of
from envs_jax.mate.params import Params
from envs_jax.mate.selection_figure import selection_figure
from envs_jax.mate.state import State

BESIDE = "greedy"
"""The scripted team whose episodes are shown beside the policy's."""
FEW, MANY = 16, 64
"""Episodes that are averaged over after a training run, and where time does not matter."""
MOST_BYTES = 500_000_000
"""Of the states of a player's episodes, which are fewer where they would take more."""
MOMENTS = 4
LONGEST_FILM, PICTURES_PER_S = 500, 12
"""Frames of the world that a film shows at most; it shows every fifth."""
FILM_STEP = 5


class Film(NamedTuple):
    """One episode, numpy: states and coverage after the picture, [pictures, ...]."""

    states: State
    coverage_rate: np.ndarray


def figures(material: Material) -> dict[str, Figure | Animation]:
    """All figures by file name: the policy and the greedy team that it replaces, from the same starts."""
    replay = material.replay()
    count = affordable(replay, material.episodes or (MANY if material.everything else FEW))
    players = POLICY, *(name for name in (BESIDE,) if name in replay.env.assessment.compared)
    shown = {name: replay.play(name, np.arange(count)) for name in players}
    params, name = replay.params.world, replay.env.name
    films = {player: film_of(records) for player, records in shown.items()}
    drawn: dict[str, Figure | Animation] = {
        "team": moments_figure(films[POLICY], params, name),
        "coverage": curves_figure(shown, yardstick_lines(material.report), name),
        "selection": selection_figure(shown, name),
    }
    if material.everything:
        drawn["episode"] = animation({player: sampled(film) for player, film in films.items()}, params)
    return drawn


def affordable(replay: Replay, count: int) -> int:
    """As many episodes as may be, at most `count`."""
    state = jax.eval_shape(replay.env.reset_env, jax.random.key(0), replay.params)
    size = replay.env.max_episode_length * sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
    return max(1, min(count, MOST_BYTES // size))


def yardstick_lines(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Means over whole episodes, entry -> yardstick -> value, of those that were scored beside the policy."""
    rules = report.get("detail", {}).get("rules", {})
    columns = {"coverage_rate": "mean_coverage_rate", "mean_transport_rate": "mean_transport_rate"}
    return {
        entry: dict(zip(rules["names"], rules[column], strict=True))
        for entry, column in columns.items()
        if column in rules
    }


def film_of(records: Mapping[str, Any], episode: int = 0) -> Film:
    """An episode of `envs_jax.episodes.play`, decision by decision."""
    active = np.asarray(records["active"][episode], bool)
    states = jax.tree.map(lambda x: np.asarray(x[episode])[active], records["state"].world)
    return Film(states, np.asarray(records["coverage_rate"][episode])[active])


def sampled(film: Film) -> Film:
    """Every `FILM_STEP`-th frame of a film's first `LONGEST_FILM`, or the decision that was held in it."""
    steps = np.asarray(film.states.steps)
    wanted = np.arange(0, min(LONGEST_FILM, steps[-1] + 1), FILM_STEP)
    at = np.searchsorted(steps, wanted, side="right") - 1
    return Film(jax.tree.map(lambda x: x[at], film.states), film.coverage_rate[at])


def moments_figure(film: Film, params: Params, name: str) -> Figure:
    """A few moments of one episode beside each other."""
    figure = Figure(figsize=(3.6 * MOMENTS, 4.3), layout="constrained")
    axes = figure.subplots(1, MOMENTS, squeeze=False)[0]
    table = table_of(jax.tree.map(lambda x: x[0], film.states), params)
    for ax, index in zip(axes, np.linspace(0, len(film.coverage_rate) - 1, MOMENTS).round().astype(int), strict=True):
        state = jax.tree.map(lambda x: x[index], film.states)  # noqa: B023
        draw_moment(ax, moment_of(state, table, params), f"frame {int(state.steps)}")
    figure.legend(handles=legend(), loc="outside lower center", ncols=len(legend()), fontsize=8, frameon=False)
    figure.suptitle(name, fontsize=10)
    return figure


def curves_figure(
    shown: Mapping[str, Mapping[str, np.ndarray]], lines: Mapping[str, Mapping[str, float]], name: str
) -> Figure:
    """Means over the episodes that have not ended, with three standard errors of the policy; yardsticks as lines.

    Args:
        lines: entry -> yardstick -> mean over whole episodes.
    """
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    panels = {"coverage_rate": "share of the targets in view", "mean_transport_rate": "targets' efficiency"}
    labelled: dict[str, Any] = {}
    for ax, (entry, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for number, (yardstick, value) in enumerate(lines.get(entry, {}).items()):
            style = ("--", ":", "-.")[number % 3]
            line = ax.axhline(value, color=COLORS[(number + 2) % len(COLORS)], lw=1.1, ls=style)
            labelled.setdefault(f"{yardstick}, whole episodes", line)
        for number, (player, records) in enumerate(shown.items()):
            values = np.where(np.asarray(records["active"], bool), np.asarray(records[entry], float), np.nan)
            frames = np.asarray(records.get(FRAMES, np.ones_like(values)))
            time = np.cumsum(np.nanmax(np.where(np.isnan(values), np.nan, frames), axis=0, initial=0))
            mean, error = running_mean(values)
            (line,) = ax.plot(time, mean, color=COLORS[number], lw=2.0 if player == POLICY else 1.3)
            labelled.setdefault(player, line)
            if player == POLICY:
                ax.fill_between(time, mean - 3 * error, mean + 3 * error, color=COLORS[number], alpha=0.2, lw=0)
        ax.set(xlabel="frame", ylabel=label, ylim=(0, 1))
        ax.grid(alpha=0.3)
    order = [*shown, *(text for text in labelled if text not in shown)]
    figure.legend([labelled[text] for text in order], order, loc="outside right center", fontsize=8, frameon=False)
    episodes = len(next(iter(shown.values()))["active"])
    figure.suptitle(f"{name}, {episodes} episodes: mean of those that have not ended", fontsize=10)
    return figure


def running_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error over episodes [E, T] at each step, smoothed over a twentieth of the time."""
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    mean = np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1)
    spread = np.sqrt(np.where(there, (values - mean) ** 2, 0).sum(axis=0) / np.maximum(count - 1, 1))
    window = np.ones(max(1, values.shape[1] // 20))
    weight = np.convolve(count, window, mode="same")
    smooth = lambda x: np.convolve(x * count, window, mode="same") / np.maximum(weight, 1e-9)  # noqa: E731
    gone = count == 0
    error = np.where(gone, np.nan, smooth(spread / np.sqrt(np.maximum(count, 1))))
    return np.where(gone, np.nan, smooth(mean)), error


def animation(films: Mapping[str, Film], params: Params) -> Animation:
    """Films side by side."""
    figure = Figure(figsize=(4.4 * len(films), 4.9), layout="constrained")
    axes = figure.subplots(1, len(films), squeeze=False)[0]
    tables = {name: table_of(jax.tree.map(lambda x: x[0], film.states), params) for name, film in films.items()}
    pictures = max(len(film.coverage_rate) for film in films.values())

    def draw(number: int) -> list:
        for ax, (name, film) in zip(axes, films.items(), strict=True):
            ax.clear()
            at = min(number, len(film.coverage_rate) - 1)
            state = jax.tree.map(lambda x: x[at], film.states)  # noqa: B023
            covered = film.coverage_rate[: at + 1].mean()
            title = f"{name}   frame {int(state.steps):4d}   coverage so far {covered:.2f}"
            draw_moment(ax, moment_of(state, tables[name], params), title)
        return []

    draw(0)
    figure.legend(handles=legend(), loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once is enough, and more than half of the time of a picture
    return FuncAnimation(figure, draw, frames=pictures, interval=1000 / PICTURES_PER_S, cache_frame_data=False)
