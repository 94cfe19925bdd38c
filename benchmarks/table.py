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
    "bess_cql_1", "bess_bc_1", "bess_td3_forecast_1",
)  # fmt: skip

AIR_TRAFFIC = tuple(
    f"atc_{x}_ppo_1" for x in ("head_on", "parallel", "t_formation", "canonical_crossing", "converging")
)
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
    for name in AIR_TRAFFIC:
        config, _, seeds = name.rpartition("_")
        values = values_of(name)
        test = values["test"]
        scores = [f"{x:.3f}" for x in (test["policy"], *(test["baselines"][rival] for rival in RIVALS))]
        closest = min(test["detail"]["min_separation_percentiles_nm"]["5"])
        seconds = f"{values['train_wall_clock_s']:.0f} s"
        rows.append([f"`{config}`", work(config), seeds, *scores, f"{closest:.1f} NM", seconds])
    return rows


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows))


def tables() -> str:
    standard = ["configuration", "env steps", "return, five seeds", "each seed", "published or asked", "wall-clock"]
    trading = ["configuration", "env steps", "seeds", "NL 2022", "DE 2018", "wall-clock"]
    traffic = ["configuration", "env steps", "seeds", "success", *RIVALS, "5 % below", "wall-clock"]
    parts = (standard, standard_rows()), (trading, trading_rows()), (traffic, air_traffic_rows())
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
