"""Scripted play of camera worlds beside what was measured of the reference, with the intervals of acceptance.

    python benchmarks/mate_statistics.py [--presets 4v4-9 4v8-9] [--episodes 64] [--without-heuristic]

Players that cost little are played as a mixture in one program, heuristic cameras apart. One record for every preset.
"""

import argparse
import time
from functools import partial

import jax
import numpy as np
import record

from envs_jax.mate import baselines, macro, matches, reference, reset
from envs_jax.mate.params import PRESETS, Params, Rules, params_of, rules_of
from envs_jax.mate.players import CAMERAS, TARGETS, Player, mixture, watching

FIGURES = reference.Scripted._fields[1:]
LONGEST = 10_001


def selections() -> dict[str, Player]:
    """Selections of targets, and the privileged assignment, by the names of `reference.SELECTIONS`."""
    held = {name: watching(select, macro.executor) for name, select in baselines.SELECTIONS.items()}
    for frames in (5, 1):
        assign = lambda key, state, params: baselines.privileged(state)  # noqa: E731
        held[f"privileged_{frames}"] = watching(assign, baselines.aim_at, frames)
    return held


def played(
    cameras: dict[str, Player], targets: Player, episodes: int, seed: int, params: Params, rules: Rules
) -> dict[str, tuple[dict[str, np.ndarray], float | None]]:
    """Of each of the `cameras`: figures of its episodes by name, and how many of its selections were visible."""
    key_start, key_play = jax.random.split(jax.random.key(seed))
    alone = len(cameras) == 1
    # A mixture does not give each the same number.
    count = episodes if alone else int(1.5 * episodes * len(cameras))
    starts = reset.all_of(reset.draw_pool(key_start, count, params, rules))
    teams = matches.Teams(mixture(dict.fromkeys(cameras, 1.0), cameras), targets)
    play = jax.jit(partial(matches.play, teams=teams, rules=rules, frames=LONGEST))
    match, memory = jax.device_get(play(key_play, starts, params=params))
    found = {}
    for number, name in enumerate(cameras):
        own = np.arange(count) if alone else np.flatnonzero(memory.number == number)[:episodes]
        remembered = memory if alone else memory.memories[number]
        selected = getattr(remembered, "selected", np.zeros(count))[own].sum()
        efficiency = float(remembered.valid[own].sum() / selected) if selected else None
        found[name] = {figure: values[own] for figure, values in match._asdict().items()}, efficiency
    return found


def compared(values: dict[str, np.ndarray], expected: dict[str, reference.Figure], episodes: int) -> dict[str, object]:
    """Means of ours beside the reference's, and whether they lie in the interval."""
    rows: dict[str, object] = {"episodes": len(values["coverage_rate"])}
    for name, figure in expected.items():
        low, high = reference.interval(figure, episodes, len(values[name]))
        mean = float(values[name].mean())
        rows[name] = {
            "mean": round(mean, 4),
            "deviation": round(float(values[name].std(ddof=1)), 4),
            "reference": figure.mean,
            "interval": [round(low, 4), round(high, 4)],
            "inside": low <= mean <= high,
        }
    return rows


def report(label: str, rows: dict[str, object]) -> None:
    print(f"{label} ({rows['episodes']} episodes)")
    for name, row in rows.items():
        if isinstance(row, dict):
            low, high = row["interval"]
            outside = "" if row["inside"] else "   OUTSIDE"
            print(f"    {name:22} {row['mean']:9.3f} in {low:9.3f} .. {high:9.3f}{outside}", flush=True)


def scripted(preset: str, episodes: int, heuristic: bool) -> dict[str, object]:
    """All rows of `reference.SCRIPTED` of a preset."""
    rules, params = rules_of(PRESETS[preset]), params_of(PRESETS[preset])
    results: dict[str, object] = {}
    for opponent in ("greedy", "heuristic"):
        names = [c for p, c, t in reference.SCRIPTED if (p, t) == (preset, opponent)]
        groups = [[name for name in names if name != "heuristic"], [name for name in names if name == "heuristic"]]
        for group in groups if heuristic else groups[:1]:
            if not group:
                continue
            cameras = {name: CAMERAS[name] for name in group}
            for name, (values, _) in played(cameras, TARGETS[opponent], episodes, 0, params, rules).items():
                row = reference.SCRIPTED[preset, name, opponent]
                expected = {figure: getattr(row, figure) for figure in FIGURES}
                results[f"{name} against {opponent}"] = compared(values, expected, row.episodes)
                report(f"{preset}: {name} against {opponent}", results[f"{name} against {opponent}"])
    return results


def selected(preset: str, episodes: int) -> dict[str, object]:
    """All rules of `selections` on a preset, those of `reference.SELECTIONS` with their intervals."""
    rules, params = rules_of(PRESETS[preset]), params_of(PRESETS[preset])
    results: dict[str, object] = {}
    for name, (values, efficiency) in played(selections(), TARGETS["greedy"], episodes, 1, params, rules).items():
        row = reference.SELECTIONS.get((preset, name))
        expected = {"coverage_rate": row.coverage_rate} if row else {}
        rows = compared(values, expected, reference.SELECTED_EPISODES)
        for figure in ("coverage_rate", "real_coverage_rate", "mean_transport_rate"):
            rows.setdefault(figure, round(float(values[figure].mean()), 4))
        results[name] = {
            **rows,
            "efficiency": None if efficiency is None else round(efficiency, 4),
            "reference_transport_rate": row and row.mean_transport_rate,
            "reference_efficiency": row and row.efficiency,
        }
        report(f"{preset}: {name}, transport {rows['mean_transport_rate']}, efficiency {efficiency}", rows)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    presets = list(dict.fromkeys(preset for preset, _, _ in reference.SCRIPTED))
    parser.add_argument("--presets", nargs="+", choices=presets, default=presets)
    parser.add_argument("--episodes", type=int, default=64, help="of every pair of players")
    parser.add_argument("--without-heuristic", action="store_true", help="leave out the cameras that take longest")
    arguments = parser.parse_args()
    for preset in arguments.presets:
        before, start = record.machine(), time.perf_counter()
        values = scripted(preset, arguments.episodes, not arguments.without_heuristic)
        if any(p == preset for p, _ in reference.SELECTIONS):
            values |= {"selections": selected(preset, arguments.episodes)}
        values["wall_s"] = round(time.perf_counter() - start, 1)
        print(record.write(f"mate_statistics_{preset}", values, before))


if __name__ == "__main__":
    main()
