"""Learning bands: the configurations reach what their headers say. Minutes each; run with `pytest -m slow`."""

import json
from pathlib import Path

import numpy as np
import pytest

from purerl import runner
from purerl.config import load_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
CONFIGS = Path(__file__).parents[2] / "configs"


def trained_report(config: str, run_dir: Path, *overrides: str) -> dict:
    """Final report of a run of a configuration as it stands."""
    assert runner.run(load_config(CONFIGS / config, overrides), run_dir) == runner.EXIT_OK
    (path,) = (run_dir / "eval").glob("final_*.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(("config", "percent"), [("bess_td3.yaml", 95.0), ("bess_td3_ff.yaml", 95.0)])
def test_trading_policy_captures_the_battery_value_of_2022(config, percent, tmp_path):
    report = trained_report(config, tmp_path / "run")
    assert report["percent_of_bound"] >= percent
    assert all(report["policy"] > value for value in report["baselines"].values())
    assert report["detail"]["months_below_idle_per_seed"] == [[]]
    assert abs(report["q_start_bias"]) < 0.1 * abs(report["return"])


def test_a_policy_with_forecasts_earns_at_least_what_the_rolling_plan_earns(tmp_path):
    report = trained_report("bess_td3_forecast.yaml", tmp_path / "run")
    assert report["policy"] >= report["baselines"]["rolling_lp"]


@pytest.mark.parametrize(
    ("config", "band"),
    [("pendulum_td3.yaml", -200.0), ("pendulum_sac.yaml", -200.0), ("mountaincar_sac.yaml", 90.0)],
)
def test_control_tasks_reach_the_published_band(config, band, tmp_path):
    report = trained_report(config, tmp_path / "run")
    assert len(report["policy_per_seed"]) == 5
    assert np.mean(report["policy_per_seed"]) >= band
