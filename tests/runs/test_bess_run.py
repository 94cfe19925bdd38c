"""A short run of the main configuration, end to end: what it leaves behind is complete and agrees with itself."""

import json
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

import envs_jax
import purerl
from envs_jax.bess import physics, splits
from envs_jax.bess.table import DataError
from purerl.config import load_config
from purerl.report.closing import conclude
from purerl.run import runs, session
from purerl.run.runs import build_env

CONFIG = Path(__file__).parents[2] / "configs" / "bess_td3.yaml"
SMALL = (
    "epochs=2", "algo.total_env_steps=1536", "algo.num_envs=32", "algo.warmup_steps=768", "algo.batch_size=8",
    "algo.updates_per_step=0.01", "algo.critic_only_updates=4", "algo.actor.hidden_sizes=[16]",
    "algo.critic.hidden_sizes=[16]", "algo.actor.lstm_hidden_size=8", "algo.critic.lstm_hidden_size=8",
    "env.test_dates=2022-03-01..2022-04-30", "env.val_dates=2022-01-01..2022-01-31", "evaluation.every_epochs=1",
    "evaluation.quick_every_epochs=2",
)  # fmt: skip

QUICK_COLUMNS = [
    "season_name", "eval_date", "hour", "action", "delta", "soc_before", "soc", "dod_morning", "dod_evening",
    "p_battery", "p_pv_raw", "p_pv_grid", "p_bess_em", "p_reserve", "price_em", "price_as", "revenue_pv",
    "revenue_energy", "revenue_reserve", "degradation_cost", "reward", "q1_eval", "q2_eval",
    "cumulative_revenue", "cumulative_degradation", "cumulative_profit", "time_to_peak_hour", "peak_hour",
    "clipped_mw", "optimum_p_battery",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("bess") / "run"
    config = load_config(CONFIG, SMALL)
    assert session.run(config, run_dir, conclude=conclude) == session.EXIT_OK
    return config, run_dir


def test_the_run_directory_is_complete(finished):
    config, run_dir = finished
    for name in ("config.yaml", "metadata.json", "training_progress.csv", "metrics.jsonl", "policy/best.npz"):
        assert (run_dir / name).stat().st_size > 0
    for name in ("days_by_season", "profit_by_month", "dispatch_by_hour_and_price", "learning_curve", "losses"):
        assert (run_dir / "plots" / f"{name}.png").stat().st_size > 5000
    metadata = json.loads((run_dir / "metadata.json").read_text())
    assert (metadata["status"], metadata["num_agents"]) == ("finished", 1)
    assert metadata["observation_size"] == build_env(config).observation_space(None).shape[-1]
    assert any((run_dir / "tensorboard").iterdir())


def test_logs_have_the_columns_of_trading(finished):
    _, run_dir = finished
    progress = pd.read_csv(run_dir / "training_progress.csv")
    wanted = (
        "return episode_profit episode_revenue episode_degradation rev_pv rev_energy rev_reserve deg_cost final_soc "
    )
    wanted += "throughput_mwh noise_std critic_loss actor_loss q1_mean q2_mean q1_mean_all q2_mean_all q_start_bias"
    assert set(wanted.split()) <= set(progress.columns)
    assert (progress["agent_steps"] == progress["env_steps"]).all(), "one agent that always acts"
    assert (progress["return_min"] < progress["return"]).all() and (progress["return"] < progress["return_max"]).all()
    parts = progress["rev_pv"] + progress["rev_energy"] + progress["rev_reserve"]
    np.testing.assert_allclose(parts, progress["episode_revenue"], rtol=1e-5)
    np.testing.assert_allclose(
        progress["episode_revenue"] - progress["deg_cost"], progress["episode_profit"], rtol=1e-5
    )
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert {"critic_loss", "q_start_bias", "q1_mean_all"} <= set(rows[-1])


def test_quick_evaluation_writes_one_day_per_season(finished):
    _, run_dir = finished
    combined = pd.read_csv(run_dir / "eval" / "hourly_ep0002.csv")
    assert list(combined.columns) == QUICK_COLUMNS
    single = pd.read_csv(run_dir / "eval" / "hourly_ep0002_winter.csv")
    assert len(single) == 24 and set(single["season_name"]) == {"winter"}
    assert single["q1_eval"].notna().all()


def test_logged_commands_reproduce_the_logged_profit(finished):
    config, run_dir = finished
    hourly = pd.read_csv(run_dir / "eval" / "hourly_final_test.csv")
    env = envs_jax.make("bess", **config.env_settings())
    params = env.assessment.splits["test"]
    rules = config_rules(config)
    command = hourly["delta"].to_numpy().reshape(-1, 24) * float(params.plant.power_mw)
    table = params.table
    _, hours, soc = jax.vmap(lambda *day: physics.simulate_day(params.plant, rules, *day))(
        command.astype(np.float32), table.pv_mw, table.price_eur_per_mwh, table.reserve_eur_per_mw_h
    )
    logged = hourly["cumulative_profit"].to_numpy().reshape(-1, 24)[:, -1]
    np.testing.assert_allclose(np.asarray(hours.profit_eur).sum(axis=1), logged, atol=0.1)
    np.testing.assert_allclose(np.asarray(soc)[:, -1], hourly["soc"].to_numpy().reshape(-1, 24)[:, -1], atol=1e-4)


def test_the_report_adds_up(finished):
    _, run_dir = finished
    report = json.loads((run_dir / "eval" / "final_test.json").read_text())
    idle, bound = report["baselines"]["idle"], report["bound"]
    share = 100 * (report["policy"] - idle) / (bound - idle)
    assert share == pytest.approx(report["percent_of_bound"], abs=1e-6)
    assert all(value <= bound for value in report["baselines"].values())
    days = report["detail"]["days"]
    months = sum(month["policy"] for month in report["detail"]["months"])
    assert months == pytest.approx(report["policy"] * days, rel=1e-9)


def test_the_run_keeps_its_days_and_needs_none_to_act(finished, monkeypatch, market):
    _, run_dir = finished
    changed = market.take(np.arange(len(market)))
    changed.price_eur_per_mwh[changed.dates == np.datetime64("2022-03-15"), 3] += 1.0
    monkeypatch.setattr(splits, "load_market", lambda *_, **__: changed)
    with pytest.raises(DataError, match=r"1 day\(s\) of the run are not what they were .*, the first 2022-03-15"):
        runs.open_run(run_dir)
    monkeypatch.setattr(splits, "load_market", None)
    size = json.loads((run_dir / "metadata.json").read_text())["observation_size"]
    assert purerl.load_policy(run_dir).obs_shape == (size,)


def config_rules(config):
    from envs_jax.bess.config import BessConfig

    return BessConfig(**config.env_settings()).rules()
