"""Write the tables of learning results in `benchmarks/README.md` from the records.

    python benchmarks/table.py [--check]

Everything between the two marks in that file is made here: edit this script or measure again. `--check` writes nothing
and fails if the file does not say what the records say.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
README, RESULTS, CONFIGS = HERE / "README.md", HERE / "results", HERE.parent / "configs"
START, END = "<!-- tables: start -->\n", "<!-- tables: end -->\n"

PUBLISHED = {
    "cartpole_ppo": "500",
    "cartpole_impala": "500, of PPO",
    "cartpole_appo": "500, of PPO",
    "acrobot_ppo": "-100, the band",
    "pendulum_ppo": "-250, the band",
    "pendulum_td3": "-152 ± 90 after 20,000 steps",
    "pendulum_sac": "-157 ± 89 after 20,000 steps",
    "mountaincar_sac": "94.7 ± 1.1 after 50,000 steps",
    "minatar_breakout_ppo": "28",
    "minatar_spaceinvaders_ppo": "131",
    "cartpole_hidden_ppo": "450, the band",
}
"""Of the standard tasks in the order of the table, with what is published or asked for."""
TRADING = (
    "bess_td3_1", "bess_td3_5", "bess_td3_ff_5", "bess_sac_1", "bess_ppo_1", "bess_ppo_lstm_1", "bess_apg_1",
    "bess_cql_1", "bess_bc_1", "bess_td3_forecast_1", "bess_td3_parity_1",
)  # fmt: skip

AIR_TRAFFIC = {
    **{name: f"atc_{name}_ppo" for name in ("head_on", "parallel", "t_formation", "canonical_crossing", "converging")},
    **{f"merge_{name}": "atc_merges_ppo" for name in ("2x2", "3p1", "4all")},
    **{f"cross_{name}": "atc_crosses_ppo" for name in ("2x2", "3p1", "4all")},
    **{f"chase_{name}": "atc_chases_ppo" for name in ("2x2", "3p1", "4all")},
    "generic": "atc_generic_ppo",
}
"""Scenario -> configuration."""
ONE_CROSSING = ("mappo", "sac", "impala", "appo", "cql", "bc")
RIVALS = ("mvp", "mvp_1.05", "evade_right", "go_to_waypoint", "noop")


def values_of(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}_seeds.json").read_text())["values"]


def work(config: str) -> str:
    algo = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())["algo"]
    if "total_gradient_steps" in algo:
        return f"{algo['total_gradient_steps']:,} gradient steps"
    return f"{int(float(algo['total_env_steps'])):,}"


def standard_rows() -> list[list[str]]:
    rows = []
    for config, published in PUBLISHED.items():
        values = values_of(f"{config}_5")
        test = values["test"]
        seeds = ", ".join(f"{x:.0f}" for x in test["policy_per_seed"])
        mean = f"{test['policy']:.1f} ± {test['policy_std']:.1f}"
        rows.append([f"`{config}`", work(config), mean, seeds, published, f"{values['train_wall_clock_s']:.0f} s"])
    return rows


def percent(report: dict[str, Any] | None) -> str:
    if report is None:
        return ""
    each = report["percent_of_bound_per_seed"]
    mean = f"{report['percent_of_bound']:.1f} %"
    if len(each) == 1:
        return mean
    return f"{mean} ({min(each):.1f} to {max(each):.1f})"


def trading_rows() -> list[list[str]]:
    rows = []
    for name in TRADING:
        config, _, seeds = name.rpartition("_")
        values = values_of(name)
        scores = [percent(values["test"]), percent(values.get("de2018"))]
        rows.append([f"`{config}`", work(config), seeds, *scores, f"{values['train_wall_clock_s']:.0f} s"])
    return rows


def air_traffic_rows() -> list[list[str]]:
    rows = []
    for scenario, config in AIR_TRAFFIC.items():
        many = values_of(f"atc_{scenario}_ppo_{1 if scenario == 'generic' else 5}")
        took = [many["train_wall_clock_s"]]
        if scenario != "generic":
            took.append(values_of(f"atc_{scenario}_ppo_1")["train_wall_clock_s"])
        test = many["test"]
        each = test["policy_per_seed"]
        success = f"{test['policy']:.3f}" + (
            f" ({min(each):.3f} to {max(each):.3f})" if len(each) > 1 else ", one seed"
        )
        rivals = [f"{test['baselines'][rival]:.3f}" for rival in RIVALS]
        closest = min(test["detail"]["min_separation_percentiles_nm"]["5"])
        seconds = ", ".join(f"{x:.0f} s" for x in took)
        rows.append([f"`{scenario}`", f"`{config}`", work(config), success, *rivals, f"{closest:.1f} NM", seconds])
    return rows


def crossing_rows() -> list[list[str]]:
    rows = []
    for algorithm in ONE_CROSSING:
        config = f"atc_canonical_crossing_{algorithm}"
        values = values_of(f"{config}_1")
        test = values["test"]
        free, reached = (f"{test['detail'][name][0]:.3f}" for name in ("conflict_free", "reached_ratio"))
        seconds = f"{values['train_wall_clock_s']:.0f} s"
        rows.append(
            [f"`{config}`", work(config), f"{test['policy']:.3f}", free, reached, f"{test['return']:.1f}", seconds]
        )
    return rows


def matrix_rows(number: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one number of the policy for random traffic and of the scripted pilots in every scenario."""
    cells = json.loads((RESULTS / "scenarios_atc_generic.json").read_text())["values"]["cells"]
    pilots = list(dict.fromkeys(cell["player"] for cell in cells))
    scenarios = list(dict.fromkeys(cell["condition"] for cell in cells))
    found = {(cell["player"], cell["condition"]): cell[number] for cell in cells}
    rows = [[f"`{s}`", *(f"{found[pilot, s]:.3f}" for pilot in pilots)] for s in scenarios]
    return [number, *pilots], rows


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows))


def tables() -> str:
    standard = ["configuration", "env steps", "return, five seeds", "each seed", "published or asked", "wall-clock"]
    trading = ["configuration", "env steps", "seeds", "NL 2022", "DE 2018", "wall-clock"]
    traffic = [
        "scenario",
        "configuration",
        "env steps",
        "success, five seeds",
        *RIVALS,
        "5 % below",
        "wall-clock; one seed",
    ]
    crossing = ["configuration", "work", "success", "conflict free", "arrived", "return", "wall-clock"]
    parts = (
        (standard, standard_rows()), (trading, trading_rows()), (traffic, air_traffic_rows()),
        (crossing, crossing_rows()), matrix_rows("los_risk"), matrix_rows("reached_ratio"),
    )  # fmt: skip
    return "\n" + "\n".join(markdown(header, rows) for header, rows in parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail where the file is out of date")
    args = parser.parse_args()
    text = README.read_text()
    before, rest = text.split(START)
    _, after = rest.split(END)
    new = before + START + tables() + END + after
    if args.check and new != text:
        sys.exit("benchmarks/README.md: the tables are not those of the records; run python benchmarks/table.py")
    README.write_text(new)


if __name__ == "__main__":
    main()
