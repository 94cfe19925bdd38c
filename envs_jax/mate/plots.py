"""Figures of camera worlds: moments of an episode, what is covered and delivered over time, an episode as a film.

Reading order: `figures` (what a finished run gets), `moments_figure`, `curves_figure`, `animation`. Single moments are
drawn in `drawing`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.animation import Animation, FuncAnimation
from matplotlib.figure import Figure

from envs_jax.base import FRAMES
from envs_jax.episodes import POLICY, Material, Replay
from envs_jax.mate import matches, reference
from envs_jax.mate.drawing import WIDEST_FAN, draw_moment, legend, moment_of, table_of
from envs_jax.mate.params import Params, Rules
from envs_jax.mate.players import CAMERAS, TARGETS
from envs_jax.mate.state import State

FEW, MANY = 16, 64
"""Episodes that are averaged over after a training run, and where time does not matter."""
MOMENTS = 4
LONGEST_FILM, PICTURES_PER_S = 500, 12
"""Frames of the world that a film shows at most; it shows every fifth."""
FILM_STEP = 5
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B59B00", "#555555", "#7A3E9D", "#56B4E9")
YARDSTICKS = {"greedy cameras": ("greedy", "greedy"), "random cameras": ("random", "greedy")}
"""Whole episodes of the reference, drawn as lines: label -> cameras and targets."""


class Film(NamedTuple):
    """One episode, numpy: states and coverage before the picture, [pictures, ...]."""

    states: State
    coverage_rate: np.ndarray


def figures(material: Material) -> dict[str, Figure | Animation]:
    """All figures by file name: the policy, and the rules that the environment knows, from the same starts."""
    replay = material.replay()
    count = material.episodes or (MANY if material.everything else FEW)
    shown = {name: replay.play(name, np.arange(count)) for name in (POLICY, *replay.env.guidance.rules)}
    params = replay.params.world
    film = film_of(shown[POLICY])
    drawn: dict[str, Figure | Animation] = {
        "team": moments_figure(film, params, replay.env.name),
        "coverage": curves_figure(shown, replay.env.name),
    }
    if material.everything:
        drawn["episode"] = animation(beside_greedy(film, replay), params)
    return drawn


def film_of(records: Mapping[str, Any], episode: int = 0) -> Film:
    """An episode of `envs_jax.episodes.play`, decision by decision."""
    active = np.asarray(records["active"][episode], bool)
    states = jax.tree.map(lambda x: np.asarray(x[episode])[active], records["state"].world)
    return Film(states, np.asarray(records["coverage_rate"][episode])[active])


def beside_greedy(film: Film, replay: Replay) -> dict[str, Film]:
    """The policy's film, and one of greedy cameras from the same start against greedy targets."""
    steps = np.asarray(film.states.steps)
    frames = int(min(LONGEST_FILM, steps[-1] + 1))
    start = jax.tree.map(lambda x: x[0], film.states)
    teams = matches.Teams(CAMERAS["greedy"], TARGETS["greedy"])
    play = jax.jit(partial(matches.film, teams=teams, rules=counts_of(start), frames=frames))
    states, metrics = jax.device_get(play(jax.random.key(0), start, params=replay.params.world))
    chosen = np.arange(0, frames, FILM_STEP)
    greedy = Film(jax.tree.map(lambda x: x[chosen], states), metrics.coverage_rate[chosen])
    own = np.searchsorted(steps, chosen).clip(max=len(steps) - 1)
    return {POLICY: Film(jax.tree.map(lambda x: x[own], film.states), film.coverage_rate[own]), "greedy": greedy}


def counts_of(state: State) -> Rules:
    """Rules that are enough to go on from a state."""
    (cameras, obstacles), targets = state.layout.c2o.shape, state.goal.size
    return Rules(cameras, targets, obstacles, num_high_capacity=0, num_cargoes=0, fan=WIDEST_FAN)


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


def curves_figure(shown: Mapping[str, Mapping[str, np.ndarray]], name: str) -> Figure:
    """Means over episodes that have not ended, with three standard errors of the policy, and what the reference has."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = {"coverage_rate": "share of the targets in view", "mean_transport_rate": "targets' efficiency"}
    for ax, (entry, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for number, (player, records) in enumerate(shown.items()):
            values = np.where(np.asarray(records["active"], bool), np.asarray(records[entry], float), np.nan)
            frames = np.asarray(records.get(FRAMES, np.ones_like(values)))
            time = np.cumsum(np.nanmax(np.where(np.isnan(values), np.nan, frames), axis=0, initial=0))
            mean, error = running_mean(values)
            color = COLORS[number % len(COLORS)]
            ax.plot(time, mean, color=color, lw=2.0 if player == POLICY else 1.0, label=player)
            if player == POLICY:
                ax.fill_between(time, mean - 3 * error, mean + 3 * error, color=color, alpha=0.2, lw=0)
        for style, (yardstick, pair) in zip(("--", ":"), YARDSTICKS.items(), strict=True):
            row = reference.SCRIPTED.get((name.removeprefix("mate/"), *pair))
            if row is not None:
                ax.axhline(getattr(row, entry).mean, color="black", lw=1.0, ls=style, label=f"reference, {yardstick}")
        ax.set(xlabel="frame", ylabel=label, ylim=(0, 1))
        ax.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(name, fontsize=10)
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
