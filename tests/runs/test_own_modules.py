"""A world and an algorithm of a user's own, in a folder outside the package, named in a YAML file alone."""

import json
import re
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

import envs_jax
from purerl import evaluate, load_policy, train
from purerl.config import config_hash, load_config
from purerl.errors import ConfigError
from purerl.run import runs

DOCS = Path(__file__).parents[2] / "docs"
WORLD = """
    import dataclasses
    from typing import NamedTuple

    import jax
    import jax.numpy as jnp
    from pydantic import BaseModel

    from envs_jax import Environment
    from envs_jax.spaces import Box, Discrete
    from own_physics import moved

    STEPS = 5

    class State(NamedTuple):
        place: jax.Array
        time: jax.Array

    class Keys(BaseModel, extra="forbid"):
        goal: float = 0.5
        starts: tuple[float, float] = (-1.0, 1.0)

    def make(goal: float = 0.5, starts: tuple[float, float] = (-1.0, 1.0), unset=jnp.zeros) -> Environment:
        def observe(state, params):
            return jnp.stack([state.place - params, state.time / STEPS])

        def reset_env(key, params):
            state = State(jax.random.uniform(key, minval=starts[0], maxval=starts[1]), jnp.zeros(()))
            return observe(state, params), state

        def step_env(key, state, action, params):
            state = State(moved(state.place, action), state.time + 1)
            reward = -jnp.abs(state.place - params)
            return observe(state, params), state, reward, jnp.zeros((), bool), state.time >= STEPS, {}

        assert isinstance(starts, tuple)
        return Environment(
            name="walk", default_params=jnp.asarray(goal), reset_env=reset_env, step_env=step_env,
            observation_space=lambda params: Box(-jnp.inf, jnp.inf, (2,)), action_space=lambda params: Discrete(3),
            episode_length=STEPS, max_episode_length=STEPS,
        )

    def by_keys(keys: Keys) -> Environment:
        return make(keys.goal, keys.starts)

    def led(leader: str, guests=None):
        guest, base = guests["leader"], make()
        own, start = lambda params: params[0], lambda: guest.initial_carry(())

        def step_env(key, state, action, params):
            # The leader sees the place twice and pushes with what it chooses.
            state, carry = state
            seen = jnp.full((1, 2), state.place)
            push, carry = guest.act(params[1], carry, seen, None, key, True)
            obs, state, *rest, info = base.step_env(key, state, action, own(params))
            state = state._replace(place=state.place + push[0, 0])
            return obs, (state, carry), *rest, {"push": push[0, 0]}

        def reset_env(key, params):
            obs, state = base.reset_env(key, own(params))
            return obs, (state, start())

        return dataclasses.replace(
            base, name="led", default_params=(base.default_params, guest.policy), reset_env=reset_env, step_env=step_env
        )

    def deaf(leader: str):
        return make()

    def calibrated():
        from envs_jax.base import Assessment

        return dataclasses.replace(make(), assessment=Assessment(calibration={"scale": 1.0}))

    def nothing():
        return None

    def figures(material):
        return {}
"""
PHYSICS = """
    def moved(place, action):
        return place + 0.2 * (action - 1.0)
"""
ALGORITHM = """
    from purerl.algos import ppo

    class Config(ppo.Config):
        name: str = "own_ppo"
        clip: float = 0.1

    make = ppo.make
"""
CONFIG = {
    "epochs": 1,
    "env": {"name": "own_walk:make", "goal": 0.25},
    "algo": {"name": "own_ppo", "total_env_steps": 80, "num_envs": 4, "steps_per_update": 10, "minibatches": 1},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the user's files; what is imported from it is forgotten afterwards."""
    folder = tmp_path / "own"
    folder.mkdir()
    files = {
        "own_walk": WORLD,
        "own_physics": PHYSICS,
        "own_ppo": ALGORITHM,
        "own_broken": "import nowhere",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield folder
    for name in files:
        sys.modules.pop(name, None)


def written_from(page: str, folder: Path) -> None:
    """The files of a page of docs/: its code blocks, each with its name in the first line."""
    blocks = re.findall(r"```(?:python|yaml)\n(# (\S+)\n.*?)```", (DOCS / page).read_text(), re.DOTALL)
    for text, name in blocks:
        (folder / name).write_text(text)


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The folder of a user who followed docs/own_world.md and docs/own_algorithm.md."""
    folder = tmp_path / "documented"
    folder.mkdir()
    for page in ("own_world.md", "own_algorithm.md"):
        written_from(page, folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield folder
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_a_world_and_an_algorithm_of_a_users_own(documented, tmp_path, monkeypatch):
    """As in the documentation, then from another directory in what could be another process."""
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    small = ["env.name=assessed_walk:make", "env.goal_m=0.3", "logging.tensorboard=false", "logging.csv=false"]
    monkeypatch.chdir(documented)
    assert train.main(["--config", "climb.yaml", "--run-dir", str(run_dir), *small]) == 0
    exec((documented / "check.py").read_text().replace("goal_m=0.3))", "goal_m=0.3), steps=3)"))
    led = runs.build_env(load_config("walk.yaml", ["env.name=follow:make", f"env.leader=run:{run_dir}"]))
    envs_jax.check_env(led, steps=3)
    with pytest.raises(ConfigError, match="env: leader: write run:DIR, not 'runs/walk'"):
        runs.build_env(load_config("walk.yaml", ["env.name=follow:make", "env.leader=runs/walk"]))
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert stored["modules_in"] == [str(documented)]
    assert stored["env"] == {"name": "assessed_walk:make", "goal_m": 0.3} and stored["algo"]["step_size"] == 1.0
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(documented))])
    for name in ("walk", "assessed_walk", "climb"):
        del sys.modules[name]
    assert (
        evaluate.main(["--run", str(run_dir), "--conditions", "stress", "--episodes", "4", "--json", "out.json"]) == 0
    )
    assert [row["kind"] for row in json.loads(Path("out.json").read_text())["stress"]] == ["none", "wind", "wind"]
    assert (run_dir / "plots" / "stress_return.png").exists()
    policy = load_policy(run_dir)
    action, _ = policy.act(np.zeros((2, 2), np.float32), policy.initial_carry(2))
    assert action.shape == (2,)
    assert train.main(["--resume", "--run-dir", str(run_dir)]) == 0
    assert load_config(documented / "walk.yaml").algo["name"] == "ppo"


def test_the_keys_of_a_model_are_checked(documented):
    with pytest.raises(ConfigError, match=r"env\.goal_m = 3"):
        load_config(documented / "walk.yaml", ["env.name=checked_walk:make", "env.goal_m=3"])


def test_the_folder_of_the_modules_is_no_part_of_what_a_run_is(folder):
    config = load_config(folder / "run.yaml")
    assert config_hash(config) == config_hash(config.model_copy(update={"modules_in": []}))


def test_a_factory_may_take_a_model_of_its_keys(folder):
    config = load_config(folder / "run.yaml", ["env.name=own_walk:by_keys"])
    assert config.env["starts"] == [-1.0, 1.0]
    assert envs_jax.make(**config.env).name == "walk"
    assert callable(envs_jax.figure_function("own_walk:by_keys"))


def test_modules_are_found_in_a_folder_that_is_named(folder, tmp_path):
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**CONFIG, "modules_in": ["own"]}))
    assert load_config(tmp_path / "other.yaml").modules_in == [str(folder)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env.gaol=1"], "unknown key 'env.gaol'; did you mean 'env.goal'?"),
        (["env.unset=1"], "unknown key 'env.unset'"),
        (["env.goal=far"], "env.goal = 'far': must be a valid number"),
        (["env.name=own_wlk:make"], "env.name: no module 'own_wlk' in "),
        (["env.name=own_walk:mak"], "module 'own_walk' has no factory 'mak'; did you mean 'own_walk:make'?"),
        (["env.name=own_walk:STEPS"], "module 'own_walk' has no factory 'STEPS'"),
        (
            ["env.name=own_broken:make"],
            "'own_broken' cannot be imported: ModuleNotFoundError: No module named",
        ),
        (["env.name=own_walk:make:twice"], "unknown environment 'own_walk:make:twice'"),
        (["env.name=textwrap:dedent", "env.goal=null"], "unknown key 'env.goal'"),
        (["algo.name=own_pp"], "unknown algorithm 'own_pp'; "),
        (["algo.name=pppo"], "unknown algorithm 'pppo'; did you mean 'ppo'? (no module 'pppo' in "),
        (["algo.name=own_walk"], "algo.name: module 'own_walk' has no 'Config'"),
        (["modules_in=3"], "modules_in = 3: must be a valid list"),
    ],
)
def test_what_is_not_there_is_one_line(folder, overrides, message):
    with pytest.raises(ConfigError) as error:
        load_config(folder / "run.yaml", overrides)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_policy_of_another_run_acts_inside_a_world(folder, finished_run, tmp_path, monkeypatch):
    """`run:DIR` is found from everywhere later, and its policy is a parameter of the world."""
    (tmp_path / "leader").symlink_to(finished_run)
    config = load_config(folder / "run.yaml", ["env={name: 'own_walk:led', leader: 'run:leader'}"])
    assert config.env["leader"] == f"run:{tmp_path / 'leader'}"
    monkeypatch.chdir(folder)
    env, leader = runs.build(config).env, load_policy(finished_run)
    goal, policy = env.default_params
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    chosen, _ = leader.act(np.full((1, 2), state[0].place, np.float32), leader.initial_carry(1))
    for scale, push in ((1.0, chosen[0, 0]), (0.0, 0.0)):
        info = env.step_env(jax.random.key(1), state, np.ones((1,), np.int32), (goal, scale * policy))[-1]
        assert float(info["push"]) == pytest.approx(float(push), abs=1e-6)
    assert chosen[0, 0] != 0


def test_a_policy_of_no_run_is_one_line(folder, tmp_path, capsys):
    command = ["--config", str(folder / "run.yaml"), "--run-dir", str(tmp_path / "run")]
    assert train.main([*command, "env={name: 'own_walk:led', leader: 'run:nowhere'}"]) == 2
    message = capsys.readouterr().err.strip()
    assert "nowhere" in message and "\n" not in message
    assert not (tmp_path / "run").exists()


def test_a_factory_that_takes_no_policy_is_given_none(folder, finished_run):
    config = load_config(folder / "run.yaml", [f"env={{name: 'own_walk:deaf', leader: 'run:{finished_run}'}}"])
    with pytest.raises(ConfigError, match="own_walk:deaf: leader: its factory takes no policies; give it the keyword"):
        runs.build(config)


def test_an_algorithm_without_a_reward_scale_is_given_none(documented):
    with pytest.raises(ConfigError, match="reward_scale: climb takes none; set it to 1"):
        runs.build(load_config(documented / "climb.yaml", ["reward_scale=0.5"]))


def test_a_factory_of_something_else_is_refused(folder):
    load_config(folder / "run.yaml")  # from here on the module can be imported
    with pytest.raises(ValueError, match=r"own_walk:nothing returned NoneType, not an envs_jax\.Environment"):
        envs_jax.make("own_walk:nothing")
    with pytest.raises(ValueError, match="own_walk:calibrated has a calibration and takes none"):
        envs_jax.make("own_walk:calibrated")
    with pytest.raises(ValueError, match="unknown setting 'gaol' of own_walk:make; did you mean 'goal'"):
        envs_jax.make("own_walk:make", gaol=1)


def test_two_modules_of_one_name_are_not_mixed_up(folder, tmp_path):
    load_config(folder / "run.yaml")
    other = tmp_path / "other"
    other.mkdir()
    (other / "own_walk.py").write_text((folder / "own_walk.py").read_text())
    (other / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.raises(ConfigError, match=f"module 'own_walk' of {other} cannot be imported: .* has the same name"):
        load_config(other / "run.yaml")
