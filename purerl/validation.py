"""From a mapping to a validated section, or to one line that says what is wrong with it."""

import difflib
import json
import typing
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from purerl.errors import ConfigError
from purerl.yaml_rules import one_line, short


class Source(NamedTuple):
    """Where a key came from, for messages."""

    file: str
    overridden: tuple[str, ...]

    def of(self, key: str) -> str:
        given_on_command_line = any(key == o or key.startswith(f"{o}.") for o in self.overridden)
        return "override" if given_on_command_line else self.file


def validated(model: Any, data: dict[str, Any], where: Source, prefix: str, keys: Sequence[str]) -> Any:
    """`model` built from `data`; strict, so that text is no number and a number no truth value.

    Args:
        prefix: dotted path of `data` in the configuration; `keys` are all keys of the schema, for suggestions.
    """
    try:
        # Strict JSON rules are the right ones for YAML: lists may become tuples, but nothing else is converted.
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise ConfigError(_message(error, where, prefix, keys)) from error


def _message(error: ValidationError, where: Source, prefix: str, keys: Sequence[str]) -> str:
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key = ".".join([*([prefix] if prefix else []), *_path_of(first["loc"])])
    source = where.of(key)
    if first["type"] == "extra_forbidden":
        return f"{source}: unknown key '{key}'; {nearest_key(key, keys)}"
    if first["type"] == "missing":
        return f"{source}: missing key '{key}'"
    # A field that allows several types reports one problem for each of them.
    same_place = [p for p in problems if _path_of(p["loc"]) == _path_of(first["loc"])]
    reasons = list(dict.fromkeys(_reason(p) for p in same_place))
    of_several_keys = first["type"] == "value_error" and isinstance(first["input"], dict)
    value = "" if of_several_keys else f" = {short(first['input'])}"
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
    return one_line(text.replace("Input should be", "must be").replace("valid array", "valid list"))


def nearest_key(key: str, keys: Sequence[str]) -> str:
    """Suggest a sibling first, then any key of the schema whose last part is alike."""
    parent, _, last = key.rpartition(".")
    siblings = [k for k in keys if k.rpartition(".")[0] == parent]
    for candidates in (siblings, keys):
        by_name = {k.rpartition(".")[2]: k for k in reversed(candidates)}
        close = difflib.get_close_matches(last, list(by_name), n=1)
        if close:
            return f"did you mean '{by_name[close[0]]}'?"
    return f"valid keys here: {', '.join(k.rpartition('.')[2] for k in siblings)}"


def schema_keys(model: Any, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        yield key
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from schema_keys(part, key)
