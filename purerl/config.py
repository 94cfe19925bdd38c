"""The configuration of a run: its schema, loading from YAML with dotted overrides, and one-line errors.

Reading order: the sections of `RunConfig`, `load_config` (read, override, validate), comparing configurations, YAML
with unsurprising scalars, error messages.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

import envs_jax
from purerl import algos, modules
from purerl.errors import ConfigError
from purerl.presets import PRESETS
from purerl.validation import Source, require_representable, schema_keys, validated
from purerl.yaml_rules import Dumper, read_yaml, short, with_override


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EarlyStop(_Section):
    metric: Literal["score", "return", "percent_of_bound"] = "score"
    patience: int = Field(5, ge=1, description="evaluations without a gain before the run stops")
    min_delta: float = Field(0.0, ge=0, description="smallest gain that counts, in units of the metric")


class BandStop(_Section):
    """Ends a run whose training episodes have become good: judged band by band, a band being a share of training."""

    metric: str = Field(description="a share among the columns that the environment's episodes have in the log")
    share: float = Field(0.95, gt=0, le=1, description="mean of the metric in a good band")
    env_steps: int = Field(8200, ge=1, description="least length of a band, of one seed")
    updates: int = Field(4, ge=1, description="update calls that a band has at least")
    episodes: int = Field(20, ge=1, description="that end in a good band at least")
    good: int = Field(2, ge=1, description="good bands in a row that end the run")
    least: int = Field(3, ge=1, description="bands before it may end")


class Evaluation(_Section):
    every_epochs: int | None = Field(10, ge=1, description="null: only after the last epoch")
    split: str = "val"
    episodes: int | None = Field(None, ge=1, description="null: all cases of the split, or 100 random episodes")
    seed: int = Field(1234, ge=0, lt=2**31 - 1)
    final_split: str = Field("test", description="scored once, after training")
    quick_every_epochs: int | None = Field(None, ge=1, description="write a few episodes step by step")
    quick_cases: list[str] | None = Field(
        None,
        min_length=1,
        validation_alias=AliasChoices("quick_cases", "quick_dates"),
        description="names of those episodes; null: the few that the environment finds worth looking at",
    )
    early_stop: EarlyStop | None = None
    streaks: dict[str, PositiveInt] | None = Field(
        None, description="milestone of the environment's score -> evaluations in a row that end the run"
    )
    bands: BandStop | None = Field(None, description="end by training episodes; metric says by what")

    @property
    def final_seed(self) -> int:
        """Of the final score: another than that of the evaluations which chose the best policy."""
        return self.seed + 1


class Checkpointing(_Section):
    every_epochs: int = Field(10, ge=1)
    keep_periodic: int = Field(3, ge=0)
    save_best: bool = Field(True, description="keep and finally score the best policy of the evaluations")
    save_replay: bool = Field(True, description="false: smaller checkpoints, and a resumed run refills its replay")


class Wandb(_Section):
    project: str
    entity: str | None = None
    name: str | None = None
    mode: Literal["online", "offline"] = "online"


class Logging(_Section):
    csv: bool = True
    jsonl: bool = True
    tensorboard: bool = True
    wandb: Wandb | None = None
    progress: bool = True
    saturation_warning: float | None = Field(
        0.9, gt=0, le=1, description="warn when more than this share of actions sits at a bound"
    )


class RunConfig(_Section):
    """A run, completely. `env` and `algo` hold every key of their own schemas, defaults included."""

    seed: int = Field(42, ge=0, lt=2**31)
    num_seeds: int = Field(1, ge=1, description="seeds trained at once: seed, seed + 1, ...")
    device: Literal["auto", "cpu", "gpu"] = "auto"
    num_devices: int = Field(
        1, ge=1, le=1024, description="devices (on a CPU: cores) that share the seeds or each batch"
    )
    cpu_threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="threads that operations are shared out to; null: all cores; 1 suits tiny networks",
    )
    deterministic: bool = Field(True, description="ask accelerators for reproducible reductions")
    epochs: int = Field(100, ge=1, description="parts of the run after which it logs, evaluates and saves")
    reward_scale: float = Field(
        1.0, gt=0, description="algorithms learn from rewards times this; what is reported is not scaled"
    )
    starts_from: str | None = Field(
        None,
        description="`run:DIR` or `stage:NAME`: what that run has learned is where this one starts; same networks",
    )
    modules_in: list[str] = Field(
        [],
        description="folders of a user's modules in env.name and algo.name; found by itself beside this file or here",
    )
    env: dict[str, Any]
    algo: dict[str, Any]
    evaluation: Evaluation = Evaluation()
    checkpointing: Checkpointing = Checkpointing()
    logging: Logging = Logging()

    @field_validator("starts_from")
    @classmethod
    def _names_a_run(cls, value: str | None) -> str | None:
        kind, _, name = (value or "").partition(":")
        if value is not None and (kind not in ("run", "stage") or not name):
            raise ValueError("write run:DIR or stage:NAME")
        return value

    @model_validator(mode="after")
    def _seeds_fit(self):
        if self.seed + self.num_seeds > 2**31:
            raise ValueError(f"seed {self.seed} and num_seeds {self.num_seeds}: the last seed must be below 2^31")
        return self

    def to_yaml(self) -> str:
        """The resolved configuration; `load_config` reads it back unchanged."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True)

    def algorithm_config(self) -> Any:
        """The `Config` of the algorithm's module."""
        model = algos.module_of(self.algo["name"]).Config
        return model.model_validate_json(json.dumps(_without_foreign_name(model, self.algo)))

    def env_settings(self) -> dict[str, Any]:
        """Keywords of `envs_jax.make`, without the name."""
        return {k: v for k, v in self.env.items() if k != "name"}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply overrides `dotted.key=value` (value in YAML) and validate everything.

    Raises:
        ConfigError: one line with file (or `override`), full key, and the nearest valid key or the constraint.
        FileNotFoundError: no such file.
    """
    data = read_yaml(Path(path))
    return resolve_config(data, str(path), overrides, Path(path).parent)


ALONE = ""
"""Name of the only member of a file."""


def load_members(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, RunConfig]:
    """The runs that a file stands for, in their order, by the names of their directories.

    A file with `stages` has one for each: the keys of the stage over those beside `stages`. One whose `env.name` is
    among `envs_jax.suites` has one for each environment. Any other has one, `ALONE`. Overrides are for all.

    Raises:
        ConfigError, FileNotFoundError: as `load_config`.
    """
    data, folder = _overridden(read_yaml(Path(path)), str(path), overrides), Path(path).parent
    if "stages" in data:
        return _stages(data, str(path), overrides, folder)
    env = data.get("env")
    name = env.get("name") if isinstance(env, dict) else None
    members = envs_jax.suites.get(name, ()) if isinstance(name, str) else ()
    if not members:
        return {ALONE: load_config(path, overrides)}
    return {
        member.rpartition("/")[2]: load_config(path, [*overrides, f"env.name={member}"]) for member in members
    }  # fmt: skip


MOST_LETTERS = 100
"""Of a stage's name, which is that of its folder."""


def _stages(data: dict[str, Any], source: str, overrides: Sequence[str], folder: Path) -> dict[str, RunConfig]:
    base, stages = {key: value for key, value in data.items() if key != "stages"}, data["stages"]
    named = isinstance(stages, list) and all(isinstance(s, dict) and isinstance(s.get("name"), str) for s in stages)
    if not stages or not named:
        raise ConfigError(f"{source}: stages: write a list of stages, each with a name")
    found: dict[str, RunConfig] = {}
    for stage in stages:
        name, place = stage["name"], f"{source}: stage '{stage['name']}'"
        if name in found or len(name) > MOST_LETTERS or not name.replace("_", "").replace("-", "").isalnum():
            rule = f"names are different words of at most {MOST_LETTERS} letters, digits, - and _"
            raise ConfigError(f"{source}: stage {short(name)}: {rule}")
        given = {key: value for key, value in stage.items() if key != "name"}
        config = resolve_config(_over(base, given), place, overrides, folder)
        for earlier in stages_named_in(config.starts_from, *config.env.values()):
            if earlier not in found:
                raise ConfigError(f"{place}: stage:{earlier}: no earlier stage; there are {', '.join(found) or 'none'}")
        found[name] = config
    return found


def stages_named_in(*settings: Any) -> list[str]:
    """Stages that are asked for as `stage:NAME`, by `starts_from` or settings of an environment."""
    return [value.removeprefix("stage:") for value in settings if isinstance(value, str) and value.startswith("stage:")]


def _overridden(data: Any, source: str, overrides: Sequence[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of keys, found {short(data)}")
    for override in overrides:
        data = with_override(data, override)
    return data


def resolve_config(
    data: Any,
    source: str,
    overrides: Sequence[str] = (),
    folder: Path = Path(),
) -> RunConfig:
    """`load_config` for a mapping that is already in memory; `source` names it in error messages.

    `folder` is the one that relative folders of `modules_in` start from, and where users' modules are looked for next;
    then come the working directory and what is installed.
    """
    data = _overridden(data, source, overrides)
    where = Source(source, tuple(override.partition("=")[0] for override in overrides))
    data = _with_preset(data, where)
    env, algo = (_named_section(data, section, where) for section in ("env", "algo"))
    found_in = _provide_modules(data, env["name"], algo["name"], folder, where)
    models = {"": RunConfig, "env": _env_model(env["name"], where), "algo": _algo_model(algo["name"], where)}
    keys = [key for prefix, model in models.items() if model is not None for key in schema_keys(model, prefix)]
    require_representable(data, where)
    top = validated(RunConfig, data, where, "", keys)
    if models["env"] is not None:
        settings = {k: v for k, v in env.items() if k != "name"}
        env = {"name": env["name"], **validated(models["env"], settings, where, "env", keys).model_dump(mode="json")}
    settings = _without_foreign_name(models["algo"], algo)
    algo = {"name": algo["name"], **validated(models["algo"], settings, where, "algo", keys).model_dump(mode="json")}
    env, start = {key: _absolute(value) for key, value in env.items()}, _absolute(top.starts_from)
    return top.model_copy(update={"env": env, "algo": algo, "starts_from": start, "modules_in": found_in})


def _absolute(value: Any) -> Any:
    """`run:DIR` from the working directory as one that holds anywhere, in its one spelling; anything else as it is."""
    if not isinstance(value, str) or not value.startswith("run:"):
        return value
    return f"run:{os.path.abspath(value.removeprefix('run:'))}"


def _with_preset(data: dict[str, Any], where: "Source") -> dict[str, Any]:
    """`data` over the keys that its `preset` stands for."""
    if "preset" not in data:
        return data
    name, algorithm = data["preset"], _named_section(data, "algo", where)["name"]
    known = [preset for algo, preset in PRESETS if algo == algorithm]
    if name not in known:
        raise ConfigError(f"{where.of('preset')}: preset: '{name}'; {algorithm} has {', '.join(known) or 'none'}")

    return _over(PRESETS[algorithm, name], {key: value for key, value in data.items() if key != "preset"})


def _over(base: Any, given: Any) -> Any:
    """Mappings of mappings with the keys of `given` over those of `base`."""
    if not isinstance(base, dict) or not isinstance(given, dict):
        return given
    return {**base, **{key: _over(base.get(key), value) for key, value in given.items()}}


def algorithm_module(config: RunConfig) -> Any:
    """The module of the configured algorithm."""
    return algos.module_of(config.algo["name"])


def _named_section(data: dict[str, Any], section: str, where: "Source") -> dict[str, Any]:
    value = data.get(section)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ConfigError(f"{where.of(section)}: missing key '{section}.name'; every run names its {section}")
    return value


def _provide_modules(data: dict[str, Any], env: str, algo: str, folder: Path, where: "Source") -> list[str]:
    """Folders that hold the modules of a user's own world and algorithm, which can be imported from now on."""
    given = data.get("modules_in") or []
    places = [folder / str(place) for place in given] if isinstance(given, list) else []
    named = {"env.name": env.partition(":")[0]} if envs_jax.is_own(env) else {}
    named |= {} if algo in algos.ALGORITHMS else {"algo.name": algo}
    found = []
    for key, module in named.items():
        if not all(map(str.isidentifier, module.split("."))):
            raise ConfigError(f"{where.of(key)}: {key}: {algos.unknown(module)}")
        try:
            found.append(modules.provide(module, [*places, folder, Path.cwd()]))
        except ValueError as error:
            reason = f"{algos.unknown(module)} ({error})" if key == "algo.name" else error
            raise ConfigError(f"{where.of(key)}: {key}: {reason}") from error
    return list(dict.fromkeys(str(place) for place in found if place is not None))


def _env_model(name: str, where: "Source") -> Any:
    """Schema of the environment's keys, None where they are free."""
    try:
        envs_jax.require_known_name(name)
        return envs_jax.config_model(name)
    except ValueError as error:
        raise ConfigError(f"{where.of('env.name')}: env.name: {error}") from error


def _algo_model(name: str, where: "Source") -> Any:
    try:
        return algos.module_of(name).Config
    except ValueError as error:
        raise ConfigError(f"{where.of('algo.name')}: algo.name: {error}") from error


def _without_foreign_name(model: Any, section: dict[str, Any]) -> dict[str, Any]:
    """Some algorithms have `name` among their own keys, for those that validate a `Config` alone."""
    return {k: v for k, v in section.items() if k != "name" or "name" in model.model_fields}


# Comparing configurations

NOT_PART_OF_A_RUN = ("logging", "modules_in")
"""Sections that may differ between a run and its continuation."""


def config_hash(config: RunConfig) -> str:
    """Twelve hexadecimal digits over everything that decides the numbers of a run."""
    text = json.dumps(dict(_leaves(_comparable(config))), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def first_difference(old: RunConfig, new: RunConfig) -> str | None:
    """`key: old -> new` for the first key that differs, or None."""
    before, after = dict(_leaves(_comparable(old))), dict(_leaves(_comparable(new)))
    absent = object()
    for key in [*before, *(k for k in after if k not in before)]:
        if before.get(key, absent) != after.get(key, absent):
            return f"{key}: {short(before.get(key))} -> {short(after.get(key))}"
    return None


def _comparable(config: RunConfig) -> dict[str, Any]:
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in NOT_PART_OF_A_RUN}


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
