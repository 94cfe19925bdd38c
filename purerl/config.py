"""The configuration of a run: its schema, loading from YAML with dotted overrides, and one-line errors.

Reading order: the sections of `RunConfig`, `load_config` (read, override, validate), comparing configurations, YAML
with unsurprising scalars, error messages.
"""

import difflib
import hashlib
import importlib
import json
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import envs_jax
from purerl.presets import PRESETS

ALGORITHMS: dict[str, str] = {
    "apg": "purerl.algos.apg",
    "appo": "purerl.algos.impala",
    "bc": "purerl.algos.bc",
    "cql": "purerl.algos.cql",
    "impala": "purerl.algos.impala",
    "ppo": "purerl.algos.ppo",
    "sac": "purerl.algos.sac",
    "td3": "purerl.algos.td3",
}
"""Name -> module with `Config` and `make`; imported when a configuration asks for it."""


class ConfigError(ValueError):
    """Something the user can put right; the message is one line that names the place and the remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EarlyStop(_Section):
    metric: Literal["score", "return", "percent_of_bound"] = "score"
    patience: int = Field(5, ge=1, description="evaluations without a gain before the run stops")
    min_delta: float = Field(0.0, ge=0, description="smallest gain that counts, in units of the metric")


class BandStop(_Section):
    """Ends a run whose training episodes have become good: judged band by band, a band being a share of training."""

    metric: str = Field("conflict_free", description="a share among the environment's episode columns")
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
    seed: int = Field(1234, ge=0)
    final_split: str = Field("test", description="scored once, after training")
    quick_every_epochs: int | None = Field(None, ge=1, description="write a few episodes step by step")
    quick_dates: list[str] | None = Field(None, description="null: one per season, the first of each in the split")
    early_stop: EarlyStop | None = None
    streaks: dict[str, int] | None = Field(
        None, description="milestone of the environment's score -> evaluations in a row that end the run"
    )
    bands: BandStop | None = Field(None, description="end by training episodes; its keys have defaults")

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
    num_devices: int = Field(1, ge=1, description="devices (on a CPU: cores) that share the seeds or each batch")
    cpu_threads: int | None = Field(
        None, ge=1, description="threads that operations are shared out to; null: all cores; 1 suits tiny networks"
    )
    deterministic: bool = Field(True, description="ask accelerators for reproducible reductions")
    epochs: int = Field(100, ge=1, description="parts of the run after which it logs, evaluates and saves")
    reward_scale: float = Field(
        1.0, gt=0, description="algorithms learn from rewards times this; what is reported is not scaled"
    )
    env: dict[str, Any]
    algo: dict[str, Any]
    evaluation: Evaluation = Evaluation()
    checkpointing: Checkpointing = Checkpointing()
    logging: Logging = Logging()

    def to_yaml(self) -> str:
        """The resolved configuration; `load_config` reads it back unchanged."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    def algorithm_config(self) -> Any:
        """The `Config` of the algorithm's module."""
        model = _algorithm_module(self.algo["name"]).Config
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
    return resolve_config(data, str(path), overrides)


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> list[RunConfig]:
    """The configurations of a file whose `env.name` is one of `envs_jax.suites`, one for each member; else the one."""
    data = _overridden(read_yaml(Path(path)), str(path), overrides)
    env = data.get("env")
    name = env.get("name") if isinstance(env, dict) else None
    members = envs_jax.suites.get(name, ()) if isinstance(name, str) else ()
    return [load_config(path, [*overrides, f"env.name={member}"]) for member in members] or [
        load_config(path, overrides)
    ]


def _overridden(data: Any, source: str, overrides: Sequence[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected a mapping of keys, found {_short(data)}")
    for override in overrides:
        data = _with_override(data, override)
    return data


def resolve_config(data: Any, source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """`load_config` for a mapping that is already in memory; `source` names it in error messages."""
    data = _overridden(data, source, overrides)
    where = _Source(source, tuple(override.partition("=")[0] for override in overrides))
    data = _with_preset(data, where)
    env, algo = (_named_section(data, section, where) for section in ("env", "algo"))
    models = {"": RunConfig, "env": _env_model(env["name"], where), "algo": _algo_model(algo["name"], where)}
    keys = [key for prefix, model in models.items() if model is not None for key in _schema_keys(model, prefix)]
    top = _validated(RunConfig, data, where, "", keys)
    if models["env"] is not None:
        settings = {k: v for k, v in env.items() if k != "name"}
        env = {"name": env["name"], **_validated(models["env"], settings, where, "env", keys).model_dump(mode="json")}
    settings = _without_foreign_name(models["algo"], algo)
    algo = {"name": algo["name"], **_validated(models["algo"], settings, where, "algo", keys).model_dump(mode="json")}
    return top.model_copy(update={"env": env, "algo": algo})


def _with_preset(data: dict[str, Any], where: "_Source") -> dict[str, Any]:
    """`data` over the keys that its `preset` stands for."""
    if "preset" not in data:
        return data
    name, algorithm = data["preset"], _named_section(data, "algo", where)["name"]
    known = [preset for algo, preset in PRESETS if algo == algorithm]
    if name not in known:
        raise ConfigError(f"{where.of('preset')}: preset: '{name}'; {algorithm} has {', '.join(known) or 'none'}")

    def over(base: Any, given: Any) -> Any:
        if not isinstance(base, dict) or not isinstance(given, dict):
            return given
        return {**base, **{key: over(base.get(key), value) for key, value in given.items()}}

    return over(PRESETS[algorithm, name], {key: value for key, value in data.items() if key != "preset"})


def algorithm_module(config: RunConfig) -> Any:
    """The module `purerl.algos.<name>` of the configured algorithm."""
    return _algorithm_module(config.algo["name"])


def _algorithm_module(name: str) -> Any:
    return importlib.import_module(ALGORITHMS[name])


def _named_section(data: dict[str, Any], section: str, where: "_Source") -> dict[str, Any]:
    value = data.get(section)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ConfigError(f"{where.of(section)}: missing key '{section}.name'; every run names its {section}")
    return value


def _env_model(name: str, where: "_Source") -> Any:
    """Schema of the environment's keys, None where they are free."""
    try:
        envs_jax.require_known_name(name)
    except ValueError as error:
        raise ConfigError(f"{where.of('env.name')}: env.name: {error}") from error
    return envs_jax.config_model(name)


def _algo_model(name: str, where: "_Source") -> Any:
    if name not in ALGORITHMS:
        close = difflib.get_close_matches(name, list(ALGORITHMS), n=1, cutoff=0.4)
        hint = f"did you mean '{close[0]}'?" if close else f"valid names: {', '.join(ALGORITHMS)}"
        raise ConfigError(f"{where.of('algo.name')}: algo.name: unknown algorithm '{name}'; {hint}")
    return _algorithm_module(name).Config


def _without_foreign_name(model: Any, section: dict[str, Any]) -> dict[str, Any]:
    """Some algorithms have `name` among their own keys, for those that validate a `Config` alone."""
    return {k: v for k, v in section.items() if k != "name" or "name" in model.model_fields}


# Comparing configurations

NOT_PART_OF_A_RUN = ("logging",)
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
            return f"{key}: {_short(before.get(key))} -> {_short(after.get(key))}"
    return None


def _comparable(config: RunConfig) -> dict[str, Any]:
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in NOT_PART_OF_A_RUN}


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


# YAML. Version 1.1 reads `3e-4` as text, `on` as true, `2021-01-01` as a date and accepts a key twice; here numbers are
# numbers, only true and false are booleans, dates stay text and a repeated key is an error.


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: typing.ClassVar[dict] = {}


class _Dumper(yaml.SafeDumper):
    # Text that the loader would read as a number has to be quoted, also where YAML 1.1 would not.
    yaml_implicit_resolvers: typing.ClassVar[dict] = {
        first: list(resolvers) for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key '{key_node.value}' appears twice; keep one", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
    loader.flatten_mapping(node)
    return {str(loader.construct_object(key)): loader.construct_object(value, deep=True) for key, value in node.value}


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | int:
    text = node.value.replace("_", "").lower()
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    # `1e6` is a good way to write a count of steps.
    return int(value) if "e" in text and value.is_integer() and abs(value) < 2**53 else value


def _build_yaml() -> None:
    import re

    tag = "tag:yaml.org,2002:"
    numbers = list("-+.0123456789")
    _Loader.add_implicit_resolver(f"{tag}bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
    _Loader.add_implicit_resolver(f"{tag}int", re.compile(r"^[-+]?[0-9][0-9_]*$"), numbers)
    _Loader.add_implicit_resolver(f"{tag}float", re.compile(rf"^(?:{_FLOAT})$"), numbers)
    _Loader.add_implicit_resolver(f"{tag}null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
    _Loader.add_implicit_resolver(f"{tag}merge", re.compile(r"^(?:<<)$"), ["<"])
    _Loader.add_constructor(f"{tag}map", _mapping)
    _Loader.add_constructor(f"{tag}int", lambda loader, node: int(node.value.replace("_", "")))
    _Loader.add_constructor(f"{tag}float", _float)
    _Dumper.add_implicit_resolver(f"{tag}float", re.compile(rf"^(?:{_FLOAT})$"), numbers)


_build_yaml()


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, with the scalar rules above.

    Raises:
        ConfigError: not YAML, an empty file, or a key given twice; the message names file and line.
        FileNotFoundError: no such file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        data = parse_yaml(path.read_text())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {_one_line(str(error))}") from error
    if data is None:
        raise ConfigError(f"{path}: the file is empty")
    return data


def parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _with_override(data: dict[str, Any], override: str) -> dict[str, Any]:
    """A copy of `data` with one `dotted.key=value` set; other branches are shared."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override '{override}': write dotted.key=value, such as algo.batch_size=64")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"override '{override}': the value is not YAML: {_one_line(problem)}") from error

    def place(branch: Any, names: list[str], path: tuple[str, ...]) -> Any:
        if not names:
            return value
        if branch is None:
            branch = {}
        if not isinstance(branch, dict):
            raise ConfigError(f"override '{override}': '{'.'.join(path)}' is {_short(branch)} and has no keys")
        return {**branch, names[0]: place(branch.get(names[0]), names[1:], (*path, names[0]))}

    return place(data, parts, ())


# Errors


class _Source(NamedTuple):
    """Where a key came from, for messages."""

    file: str
    overridden: tuple[str, ...]

    def of(self, key: str) -> str:
        given_on_command_line = any(key == o or key.startswith(f"{o}.") for o in self.overridden)
        return "override" if given_on_command_line else self.file


def _validated(model: Any, data: dict[str, Any], where: _Source, prefix: str, keys: Sequence[str]) -> Any:
    """`model` built from `data`; strict, so that text is no number and a number no truth value.

    Args:
        prefix: dotted path of `data` in the configuration; `keys` are all keys of the schema, for suggestions.
    """
    try:
        # Strict JSON rules are the right ones for YAML: lists may become tuples, but nothing else is converted.
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise ConfigError(_message(error, where, prefix, keys)) from error


def _message(error: ValidationError, where: _Source, prefix: str, keys: Sequence[str]) -> str:
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = ".".join([*([prefix] if prefix else []), *_path_of(first["loc"])])
    source = where.of(key)
    if first["type"] == "extra_forbidden":
        return f"{source}: unknown key '{key}'; {_nearest_key(key, keys)}"
    if first["type"] == "missing":
        return f"{source}: missing key '{key}'"
    # A field that allows several types reports one problem for each of them.
    same_place = [p for p in problems if _path_of(p["loc"]) == _path_of(first["loc"])]
    reasons = list(dict.fromkeys(_reason(p) for p in same_place))
    of_several_keys = first["type"] == "value_error" and isinstance(first["input"], dict)
    value = "" if of_several_keys else f" = {_short(first['input'])}"
    return f"{source}: {key or 'configuration'}{value}: {' or '.join(reasons)}"


def _path_of(location: tuple[int | str, ...]) -> list[str]:
    """Keys only: pydantic adds the names of union members such as `constrained-str` or `list[str]`."""
    types = {"str", "int", "float", "bool", "none", "dict", "date"}
    names = [str(part) for part in location]
    return [n for n in names if n not in types and not any(mark in n for mark in "[(") and "constrained-" not in n]


def _reason(problem: Any) -> str:
    if problem["type"] == "bool_type" and str(problem["input"]).lower() in ("on", "off", "yes", "no"):
        return "write true or false"
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return _one_line(text.replace("Input should be", "must be").replace("valid array", "valid list"))


def _nearest_key(key: str, keys: Sequence[str]) -> str:
    """Suggest a sibling first, then any key of the schema whose last part is alike."""
    parent, _, last = key.rpartition(".")
    siblings = [k for k in keys if k.rpartition(".")[0] == parent]
    for candidates in (siblings, keys):
        by_name = {k.rpartition(".")[2]: k for k in reversed(candidates)}
        close = difflib.get_close_matches(last, list(by_name), n=1)
        if close:
            return f"did you mean '{by_name[close[0]]}'?"
    return f"valid keys here: {', '.join(k.rpartition('.')[2] for k in siblings)}"


def _schema_keys(model: Any, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        yield key
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _schema_keys(part, key)


def _short(value: Any) -> str:
    text = _one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
