"""The configuration: YAML without surprises, overrides, and one-line errors that name key and remedy."""

import json

import jax.numpy as jnp
import pytest

from purerl import algos
from purerl.config import config_hash, first_difference, load_config, resolve_config
from purerl.errors import ConfigError
from purerl.learn.optimizers import Schedule
from purerl.yaml_rules import parse_yaml, with_override

MINIMAL = """
epochs: 2
env: {name: bess}
algo: {name: td3}
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL)
    return path


def fails(path, *overrides) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e6", 1_000_000),
        ("30_000", 30_000),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("010", 10),
        ("1:30", "1:30"),
        ("on", "on"),
        ("no", "no"),
        ("true", True),
        ("null", None),
        ("", None),
        ("2021-01-01", "2021-01-01"),
        ("2021-01-01..2021-12-31", "2021-01-01..2021-12-31"),
        ("[1, 2.0]", [1, 2.0]),
    ],
)
def test_scalars_mean_what_they_look_like(text, value):
    got = parse_yaml(text)
    assert got == value
    assert type(got) is type(value)


def test_defaults_are_resolved_and_survive_a_round_trip(minimal, tmp_path):
    loaded = load_config(minimal)
    assert loaded.evaluation.split == "val"
    assert loaded.env["degradation_model"] == "nonlinear"
    assert loaded.algo["tau"] == 0.01
    again = tmp_path / "again.yaml"
    again.write_text(loaded.to_yaml())
    assert load_config(again) == loaded


@pytest.mark.parametrize("awkward", ["3e-4", "1e6", "on", "null", "2021-01-01", "007", "a: b", ""])
def test_text_that_looks_like_something_else_survives_a_round_trip(minimal, tmp_path, awkward):
    loaded = load_config(minimal, [f"evaluation.split={json.dumps(awkward)}"])
    assert loaded.evaluation.split == awkward
    again = tmp_path / "again.yaml"
    again.write_text(loaded.to_yaml())
    assert load_config(again).evaluation.split == awkward


def test_overrides_replace_values_and_create_sections(minimal):
    loaded = load_config(
        minimal,
        [
            "algo.actor_lr=3e-4",
            "evaluation.early_stop.patience=3",
            "env.train_dates=[2021-01-01..2021-06-30]",
            "seed=7",
        ],
    )
    assert loaded.algo["actor_lr"] == 3e-4
    assert loaded.evaluation.early_stop.patience == 3
    assert loaded.env["train_dates"] == ["2021-01-01..2021-06-30"]
    assert loaded.seed == 7


def test_the_algorithm_reads_back_the_resolved_section(minimal):
    built = load_config(minimal, ["algo.batch_size=32", "algo.actor.hidden_sizes=[8, 8]"]).algorithm_config()
    assert built.batch_size == 32
    assert tuple(built.actor.hidden_sizes) == (8, 8)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("algo.btach_size=3", "override: unknown key 'algo.btach_size'; did you mean 'algo.batch_size'?"),
        ("sead=3", "override: unknown key 'sead'; did you mean 'seed'?"),
        ("env.limits.grid.poi_power_limit=3", "did you mean 'env.limits.grid.poi_power_limit_mw'?"),
        ("batch_sise=3", "did you mean 'algo.batch_size'?"),
        ("algo.reward_scal=3", "did you mean 'reward_scale'?"),
        ("algo.tau=.nan", "algo.tau = nan: must be"),
        ("evaluation.patience=3", "did you mean 'evaluation.early_stop.patience'?"),
        ("algo.name=td4", "algo.name: unknown algorithm 'td4'; did you mean 'td3'?"),
        ("env.name=bes", "env.name: unknown environment 'bes'; did you mean 'bess'?"),
        ("algo.batch_size=many", "override: algo.batch_size = 'many': must be a valid integer"),
        ("algo.batch_size=1.5", "algo.batch_size = 1.5"),
        ("algo.batch_size=true", "algo.batch_size = True: must be a valid integer"),
        ("algo.gamma=1.5", "algo.gamma = 1.5: must be less than or equal to 1"),
        ("epochs=0", "epochs = 0: must be greater than or equal to 1"),
        ("logging.csv=on", "logging.csv = 'on': write true or false"),
        ("env.terminal=fre", "env.terminal = 'fre': must be 'free', 'value', 'penalty' or 'carry'"),
        ("env.limits.bess.energy_capacity_mwh=-1", "env.limits.bess.energy_capacity_mwh = -1: must be greater than 0"),
        ("env.limits.bess.soc_min=0.95", "env.limits.bess: soc_min 0.95 must be below soc_max 0.9"),
        ("env.train_dates=3", "env.train_dates = 3: must be a valid string or must be a valid list"),
        ("algo", "override 'algo': write dotted.key=value"),
        (".a=1", "write dotted.key=value"),
        ("seed.x=1", "'seed' is 1 and has no keys"),
        ("seed=[1", "override 'seed=[1': the value is not YAML"),
        ("algo.actor_lr=.inf", "override: algo.actor_lr = inf: must be a finite number"),
        ("algo.actor_lr=1e400", "algo.actor_lr = inf: must be a finite number"),
        (f"algo.actor_lr={'9' * 400}", "must be at most 3.403e+38 in size, the largest number in single precision"),
        (f"algo.actor_lr={'9' * 5000}", "the value is not YAML: a number of 5000 digits"),
        ("algo.updates_per_step=.inf", "algo.updates_per_step = inf: must be a finite number"),
        ("algo.exploration.final_noise_std=-.inf", "algo.exploration.final_noise_std = -inf: must be a finite number"),
        ("reward_scale=1e-300", "override: reward_scale = 1e-300: must be 0 or at least 1.175e-38 in size"),
        ("reward_scale=1e39", "reward_scale = 1e+39: must be at most 3.403e+38"),
        ("env.limits.grid.poi_power_limit_mw=.inf", "env.limits.grid.poi_power_limit_mw = inf: must be a finite"),
        ("algo.lr_schedule={type: piecewise, points: [[0, 1], [1, .nan]]}", "algo.lr_schedule.points = nan: must be"),
        ("env={name: 'gymnax:Pendulum-v1', g: .nan}", "env.g = nan: must be a finite number"),
        ("algo.num_envs=3000000000", "algo.num_envs = 3000000000: must be between -2147483647 and 2147483647"),
        ("algo.total_env_steps=1000000000000000000000", "algo.total_env_steps = 1000000000000000000000: must be less"),
        ("algo.actor.hidden_sizes=[64, 0]", "algo.actor.hidden_sizes.1 = 0: must be greater than or equal to 1"),
        ("algo.actor.hidden_sizes=[-1]", "algo.actor.hidden_sizes.0 = -1: must be greater than or equal to 1"),
        ("algo.critic.hidden_sizes=[1000000000]", "must be less than or equal to 65536"),
        ("algo.actor.lstm_hidden_size=1000000000", "must be less than or equal to 65536"),
        ("evaluation.streaks={perfect: 0}", "evaluation.streaks.perfect = 0: must be greater than 0"),
        ("seed=2147483648", "seed = 2147483648: must be less than 2147483648"),
        ("num_seeds=2147483648", "seed 42 and num_seeds 2147483648: the last seed must be below 2^31"),
        ("num_devices=1000000000", "num_devices = 1000000000: must be less than or equal to 1024"),
    ],
)
def test_errors_name_key_and_remedy(minimal, override, expected):
    if override == "seed.x=1":
        minimal.write_text(MINIMAL + "seed: 1\n")
    assert expected in fails(minimal, override)


def test_the_last_seed_must_fit_too(minimal):
    assert load_config(minimal, ["seed=2147483646", "num_seeds=2"]).num_seeds == 2
    with pytest.raises(ConfigError, match=r"seed 2147483647 and num_seeds 2: the last seed must be below 2\^31"):
        load_config(minimal, ["seed=2147483647", "num_seeds=2"])


def test_a_budget_may_need_more_than_32_bits(minimal):
    """The host counts environment steps; schedules divide by their number on the device."""
    assert load_config(minimal, ["algo.total_env_steps=10_000_000_000"]).algo["total_env_steps"] == 10**10
    assert float(Schedule(type="linear").factor(jnp.float32(25e8), 10**10)) == pytest.approx(0.75)


def test_errors_of_the_file_name_the_file(minimal):
    minimal.write_text(MINIMAL + "epoch: 3\n")
    assert fails(minimal) == f"{minimal}: unknown key 'epoch'; did you mean 'epochs'?"


def test_a_repeated_key_is_an_error_with_its_line(minimal):
    minimal.write_text(MINIMAL + "epochs: 3\n")
    assert fails(minimal) == f"{minimal}:5: key 'epochs' appears twice; keep one"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file is empty"),
        ("- a\n- b\n", "expected a mapping of keys"),
        ("epochs: [1, 2\n", "expected ',' or ']'"),
        ("a: b: c\n", ":1: mapping values are not allowed here"),
        ("algo: {name: td3}\n", "missing key 'env.name'"),
        ("env: {name: bess}\nalgo: 3\n", "missing key 'algo.name'"),
    ],
)
def test_unusable_files(tmp_path, content, expected):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    assert expected in fails(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_merge_keys_of_yaml_work(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("base: &b {name: td3, tau: 0.02}\nenv: {name: bess}\nalgo: {<<: *b, tau: 0.03}\n")
    assert parse_yaml(path.read_text())["algo"] == {"name": "td3", "tau": 0.03}


def test_the_first_difference_ignores_logging(minimal):
    old = load_config(minimal)
    assert first_difference(old, load_config(minimal, ["logging.progress=false"])) is None
    assert config_hash(old) == config_hash(load_config(minimal, ["logging.progress=false"]))
    changed = load_config(minimal, ["algo.tau=0.5", "evaluation.early_stop.patience=2"])
    assert first_difference(old, changed) == "algo.tau: 0.01 -> 0.5"
    assert config_hash(old) != config_hash(changed)
    stop = load_config(minimal, ["evaluation.early_stop.patience=2"])
    assert first_difference(old, stop).startswith("evaluation.early_stop")


def test_every_algorithm_of_the_table_has_config_and_make():
    for name in algos.ALGORITHMS:
        module = algos.module_of(name)
        assert module.Config.model_config["extra"] == "forbid"
        assert callable(module.make)


def test_endless_nesting_is_one_line(tmp_path):
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 3000)
    with pytest.raises(ConfigError, match=r"deep\.yaml: nested too deeply"):
        load_config(tmp_path / "deep.yaml")
    with pytest.raises(ConfigError, match="override 'seed': nested too deeply"):
        with_override({}, "seed=" + "[" * 3000)


@pytest.mark.parametrize(("world", "algorithm"), [("bess", "td3"), ("atc/generic", "ppo"), ("mate/4v4-9", "qplex")])
def test_a_value_of_another_kind_is_one_line_at_every_key(world, algorithm):
    """Also where a schema looks at values before their kinds are known."""
    given = {"env": {"name": world}, "algo": {"name": algorithm}}
    whole = resolve_config(given, "c.yaml").model_dump(mode="json")
    for section in ("env", "algo", "evaluation", "checkpointing", "logging"):
        for key in whole[section]:
            for odd in ([[]], {"unknown": {}}):
                try:
                    resolve_config({**given, section: {**given.get(section, {}), key: odd}}, "c.yaml")
                except ConfigError as error:
                    assert "\n" not in str(error)
