"""A sweep's directory: what was asked for, what is refused, what is written.

Reading order: `Definition`, `run` and its directory, the report (statistics, best point, its final score), the tables.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from purerl.config import RunConfig, config_hash
from purerl.errors import ConfigError, DamagedError
from purerl.report.statistics import CONFIDENCE, RESAMPLES, bootstrap_interval, interquartile_mean
from purerl.report.tables import print_table
from purerl.run.directory import check_run_dir
from purerl.run.evaluation import make_evaluate
from purerl.run.files import read_json, sealed, write_csv, write_json
from purerl.run.metadata import is_complete, now, read_metadata, surroundings, write_metadata
from purerl.run.process import stop_signals
from purerl.run.session import EXIT_DIVERGED, EXIT_OK
from purerl.run.stored_config import read_config, write_config
from purerl.sweeps.points import Axes, Point, Range, label
from purerl.sweeps.training import Sweep, train_points


class Definition(NamedTuple):
    """A sweep, completely."""

    config: RunConfig
    """Of all points, but for the swept keys."""
    axes: Axes
    points: list[Point]
    random: int | None = None
    """Points drawn; None: a grid."""
    at_once: int | None = None

    def to_json(self) -> dict[str, Any]:
        swept = {key: list(v) if isinstance(v, list) else v._asdict() for key, v in self.axes.items()}
        return {"swept": swept, "random": self.random, "at_once": self.at_once, "points": self.points}


def read_definition(out: Path) -> Definition:
    """What a directory was begun with.

    Raises:
        FileNotFoundError: no sweep was begun there. DamagedError: it cannot be read.
    """
    if not (out / "sweep.json").exists():
        raise FileNotFoundError(f"{out}: nothing to resume (no sweep.json)")
    stored = read_json(out / "sweep.json", "repeat the whole command with --resume", ["definition"])["definition"]
    axes = {key: Range(**v) if isinstance(v, dict) else v for key, v in stored["swept"].items()}
    return Definition(
        read_config(out), axes, stored["points"], stored["random"], stored["at_once"]
    )  # fmt: skip


# The run


def run(asked: Definition, place: Path | Callable[[], Path], resume: bool) -> int:
    """Train, score and write everything to a directory; returns the exit code of the command.

    Args:
        place: the directory, or a function that makes a new one; it is called when all points have been found sound.

    Raises:
        ConfigError: the directory holds something else, or a point that cannot be built.
    """
    if isinstance(place, Path):
        _check_directory(asked, place, resume)
        if resume and is_complete(place):
            print(f"{place}: this sweep is already complete")
            return EXIT_OK
    started, out = time.monotonic(), place if isinstance(place, Path) else Path()
    metadata = _metadata(out if resume else None)

    def note(status: str, **more: Any) -> None:
        seconds = round(metadata["wall_clock_s"] + time.monotonic() - started, 3)
        write_metadata(out, {**metadata, **more, "status": status, "updated": now(), "wall_clock_s": seconds})

    def begin() -> Path:
        nonlocal out
        out = place if isinstance(place, Path) else place()
        _open_directory(asked, out)
        note("running")
        return out / "parts"

    config = asked.config
    with stop_signals() as stop_requested:
        trained = train_points(
            config,
            asked.points,
            at_once=asked.at_once,
            stop=stop_requested,
            report=lambda line: print(line, flush=True) if config.logging.progress else None,
            begin=begin,
        )
    if trained is None:
        note("interrupted")
        print(f"interrupted and saved; continue with --resume --out {out}")
        return EXIT_OK
    report = report_of(trained, out / "parts" / "bounds")
    write_json(out / "sweep.json", sealed({"definition": asked.to_json(), **report}))
    write_tables(trained, report, out)
    _draw(out)
    note("finished", times=report["times"])
    print_table(table_of(report))
    if report["best"] is None:
        print("error: every point diverged", file=sys.stderr)
        return EXIT_DIVERGED
    return EXIT_OK


def _check_directory(asked: Definition, out: Path, resume: bool) -> None:
    """Refuse to mix sweeps; nothing has been written when this raises."""
    check_run_dir(asked.config, out, resume, "--out")
    if not resume:
        return
    try:
        before, after = read_definition(out).to_json(), asked.to_json()
    except DamagedError as error:  # whether the parts are this sweep's is checked when they are claimed
        print(f"warning: {error}; written anew", file=sys.stderr)
        return
    for name in ("random", "at_once"):
        if before[name] != after[name]:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{out}: holds another sweep: {flag} {before[name]} -> {after[name]}")
    for key in dict.fromkeys([*before["swept"], *after["swept"]]):
        old, new = (definition["swept"].get(key, "not swept") for definition in (before, after))
        if old != new:
            raise ConfigError(f"{out}: holds another sweep: {key}: {old} -> {new}")
    if before["points"] != after["points"]:
        raise ConfigError(f"{out}: holds another sweep: its keys in the order {', '.join(before['swept'])}")


def _open_directory(asked: Definition, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "sweep.json", sealed({"definition": asked.to_json()}))
        write_config(out, asked.config)
    except OSError as error:
        raise ConfigError(f"{out}: directory cannot be written: {error.strerror}") from error


def _metadata(earlier_dir: Path | None) -> dict[str, Any]:
    """What does not change while this process works. `sessions` counts the processes that worked on the sweep."""
    earlier = read_metadata(earlier_dir, warn=True) if earlier_dir else {}
    return {
        "created": earlier.get("created", now()),
        "sessions": earlier.get("sessions", 0) + 1,
        "wall_clock_s": earlier.get("wall_clock_s", 0.0),
        **surroundings(),
    }


def _draw(out: Path) -> None:
    # Imported here: matplotlib takes a second that a sweep need not wait for at its start.
    from purerl.report.style import save_figures
    from purerl.report.sweep_figures import sweep_figure

    save_figures({"sweep": sweep_figure(out)}, out)


# The report


def report_of(trained: Sweep, cache_dir: Path | None = None) -> dict[str, Any]:
    """Scores, statistics, the best point with its final score, programs and times, JSON-serialisable."""
    points = [_point_report(trained, number) for number in range(len(trained.points))]
    sound = [point for point in points if point["iqm"] is not None]
    best = max(sound, key=lambda point: point["iqm"])["point"] if sound else None
    settings = trained.config.evaluation
    return {
        "algo": trained.config.algo["name"],
        "env": trained.config.env["name"],
        "config_hash": config_hash(trained.config),
        "keys": trained.keys,
        "programs": [{"points": list(group.points)} for group in trained.groups],
        "seeds": trained.seeds,
        "split": settings.split,
        "unit": trained.unit,
        "statistics": {
            "score": "interquartile mean over seeds",
            "interval": "percentile bootstrap over the seeds of a point; for the table stratified by point",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
        },
        "points": points,
        "table": {
            **_statistics(trained.scores[[point["point"] for point in sound]]),
            "points_left_out": [point["point"] for point in points if point["iqm"] is None],
        },
        "best": None if best is None else {**points[best], "final": _final_score(trained, best, cache_dir)},
        "times": _times(trained),
    }


def _point_report(trained: Sweep, number: int) -> dict[str, Any]:
    percents = trained.percent_of_bound
    diverged = [{"seed": trained.seeds[s], **what} for (p, s), what in trained.diverged.items() if p == number]
    report = {
        "point": number,
        "values": trained.points[number],
        **_statistics(trained.scores[[number]]),
        "scores": trained.scores[number].tolist(),
        "diverged": diverged,
    }
    if percents is not None:
        report["percent_of_bound_iqm"] = _or_none(interquartile_mean(percents[number]))
    return report


def _statistics(scores: np.ndarray) -> dict[str, float | None]:
    """Of scores [strata, seeds]; None where one is missing, or where no interval can be given."""
    if not scores.size:
        return {"iqm": None, "low": None, "high": None}
    low, high = bootstrap_interval(scores)
    return {"iqm": _or_none(interquartile_mean(scores.reshape(-1))), "low": _or_none(low), "high": _or_none(high)}


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _final_score(trained: Sweep, best: int, cache_dir: Path | None) -> dict[str, Any]:
    """The best point on episodes that did not choose it."""
    run, settings = trained.run_of(best), trained.config.evaluation
    evaluate = make_evaluate(run.algorithm, run.env, cache_dir)
    score = evaluate(trained.policies[best], settings.final_split, settings.episodes, settings.final_seed).score
    final = {
        "episodes": f"split {settings.final_split}"
        if run.env.assessment.splits
        else "new episodes; the environment has no splits",
        **_statistics(np.array([score.policy])),
        "scores": score.policy,
        "baselines": score.baselines,
        "bound": score.bound,
    }
    if score.percent_of_bound is not None:
        final["percent_of_bound_iqm"] = _or_none(interquartile_mean(np.array(score.percent_of_bound)))
    return final


def _times(trained: Sweep) -> dict[str, Any]:
    names = ("compile_s", "init_s", "train_s", "evaluation_s")
    times = {name: round(sum(part[name] for part in trained.parts), 3) for name in names}
    env_steps = sum(part["env_steps"] for part in trained.parts)
    rate = env_steps / times["train_s"] if times["train_s"] else None
    return {"compare_programs_s": round(trained.compare_s, 3), **times, "env_steps": env_steps, "env_steps_per_s": rate}


# Tables


def write_tables(trained: Sweep, report: dict[str, Any], out: Path) -> None:
    """`table.csv`, `summary.csv`, `curves.csv`."""
    columns = list(trained.keys)
    table, curves = [], []
    for number, point in enumerate(trained.points):
        values = {"point": number, **{key: _cell(point.get(key, "")) for key in columns}}
        for s, seed in enumerate(trained.seeds):
            lost = trained.diverged.get((number, s), {"metric": "", "update": ""})
            row = {**values, "seed": seed, "score": trained.scores[number, s]}
            if trained.percent_of_bound is not None:
                row["percent_of_bound"] = trained.percent_of_bound[number][s]
            table.append({**row, "diverged_metric": lost["metric"], "diverged_update": lost["update"]})
            for e, (epoch, steps) in enumerate(zip(trained.epochs[number], trained.env_steps[number], strict=True)):
                score = trained.curves[number][e, s]
                curves.append({**values, "seed": seed, "epoch": epoch, "env_steps": steps, "score": score})
    summary = [
        {
            "point": point["point"],
            **{key: _cell(point["values"].get(key, "")) for key in columns},
            **{name: point[name] for name in ("iqm", "low", "high")},
            "seeds": len(point["scores"]),
            "diverged": len(point["diverged"]),
        }
        for point in report["points"]
    ]
    for name, rows in (("table", table), ("summary", summary), ("curves", curves)):
        write_csv(out / f"{name}.csv", rows)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict | bool) or value is None else value


def table_of(report: dict[str, Any]) -> Any:
    """A `rich` table: points from the best to the worst, then the whole table's statistics and the final score."""
    from rich.table import Table

    best = report["best"]
    traced = "; ".join(f"{key} {how}" for key, how in report["keys"].items())
    interval = f"{report['statistics']['confidence']:.0%}"
    table = Table(title=f"{len(report['points'])} points x {len(report['seeds'])} seeds", caption=traced)
    for name in ("point", f"IQM of {report['unit']}", interval, "diverged"):
        table.add_column(name, justify="left" if name == "point" else "right")
    order = sorted(report["points"], key=lambda p: -np.inf if p["iqm"] is None else p["iqm"], reverse=True)
    for point in order:
        lost = f"{len(point['diverged'])} of {len(point['scores'])}" if point["diverged"] else ""
        style = "bold" if best and point["point"] == best["point"] else None
        table.add_row(label(point["values"]), *_shown(point), lost, style=style)
    table.add_section()
    table.add_row("all points", *_shown(report["table"]), "")
    if best:
        table.add_row(f"best, {best['final']['episodes']}", *_shown(best["final"]), "", style="bold")
    return table


def _shown(statistics: dict[str, Any]) -> tuple[str, str]:
    if statistics["iqm"] is None:
        return "", ""
    interval = "" if statistics["low"] is None else f"{statistics['low']:.5g} .. {statistics['high']:.5g}"
    return f"{statistics['iqm']:.5g}", interval
