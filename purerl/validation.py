"""From a mapping to a validated section, or to one line that says what is wrong with it.

Reading order: `validated`, what numbers are allowed anywhere, messages, suggestions.
"""

import difflib
import json
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from purerl.errors import ConfigError
from purerl.yaml_rules import one_line, short


class Source(NamedTuple):
    """Where a key came from, for messages."""

    file: str
    overridden: tuple[str, ...]

    def of(self, key: str) -> str:
        given_on_command_line = any(key == o or key.startswith(f"{o}.") for o in self.overridden)
        return "override" if given_on_command_line else self.file

    def of_all(self, key: str) -> str:
        """Of a mapping: an override of one of its keys may have made it what it is."""
        return "override" if any(o.startswith(f"{key}.") for o in self.overridden) else self.of(key)


def validated(model: Any, data: dict[str, Any], where: Source, prefix: str, keys: Sequence[str]) -> Any:
    """`model` built from `data`; strict, so that text is no number and a number no truth value.

    Args:
        prefix: dotted path of `data` in the configuration; `keys` are all keys of the schema, for suggestions.
    """
    try:
        # Strict JSON rules are the right ones for YAML: lists may become tuples, but nothing else is converted.
        built = model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise ConfigError(_message(error, where, prefix, keys)) from error
    for key, value in _long_integers(built, prefix):
        raise ConfigError(f"{where.of(key)}: {key} = {value}: must be between {-INT32_MAX} and {INT32_MAX}")
    return built


# Numbers

FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
FLOAT32_MIN = 2.0**-126
"""Smaller ones are zero on the device: it has no subnormal numbers, and counts in single precision."""
INT32_MAX = 2**31 - 1
"""The device counts in 32 bits."""

StepCount = Annotated[int, Field(gt=0, le=10**15)]
"""Environment steps of a whole run: the host alone counts them, in Python's integers."""

LogStd = Annotated[float, Field(ge=-20, le=20)]
"""Logarithm of a standard deviation, whose square and inverse square single precision still has."""


def require_representable(value: Any, where: Source, key: str = "") -> None:
    """Raise ConfigError for the first number in `value`, a tree as read from YAML, that single precision lacks.

    Before the schema, whose own rules may compute with the numbers; so it holds for every schema, and where none is.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            require_representable(item, where, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            require_representable(item, where, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        wrong = not_representable(value)
        if wrong:
            raise ConfigError(f"{where.of(key)}: {key} = {short(value)}: {wrong}")


def not_representable(number: float) -> str | None:
    """What is wrong with a number as one of single precision, or None."""
    if isinstance(number, float) and not math.isfinite(number):
        return "must be a finite number"
    if abs(number) > FLOAT32_MAX:
        return f"must be at most {FLOAT32_MAX:.4g} in size, the largest number in single precision"
    if 0 < abs(number) < FLOAT32_MIN:
        return f"must be 0 or at least {FLOAT32_MIN:.4g} in size, the smallest number in single precision"
    return None


def _long_integers(value: Any, key: str, bounded: bool = False) -> Iterator[tuple[str, int]]:
    """Keys of integers that the device cannot hold; a field with an upper bound of its own has said what it takes."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            own = any(hasattr(rule, "le") or hasattr(rule, "lt") for rule in field.metadata)
            yield from _long_integers(getattr(value, name), f"{key}.{name}" if key else name, own)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _long_integers(item, key)
    elif isinstance(value, int) and not bounded and abs(value) > INT32_MAX:
        yield key, value


# Messages


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
    if isinstance(first["input"], dict):
        source = where.of_all(key)
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
