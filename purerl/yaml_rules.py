"""YAML with unsurprising scalars, and dotted overrides of what it holds.

Version 1.1 reads `3e-4` as text, `on` as true, `2021-01-01` as a date and accepts a key twice; here numbers are
numbers, only true and false are booleans, dates stay text and a repeated key is an error.
"""

import typing
from pathlib import Path
from typing import Any

import yaml

from purerl.errors import ConfigError

MOST_DIGITS = 1000
"""Of a whole number; Python refuses to read much longer ones."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: typing.ClassVar[dict] = {}


class Dumper(yaml.SafeDumper):
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


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    digits = node.value.replace("_", "")
    if len(digits) > MOST_DIGITS:
        raise yaml.constructor.ConstructorError(
            problem=f"a number of {len(digits)} digits", problem_mark=node.start_mark
        )
    return int(digits)


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
    _Loader.add_constructor(f"{tag}int", _int)
    _Loader.add_constructor(f"{tag}float", _float)
    Dumper.add_implicit_resolver(f"{tag}float", re.compile(rf"^(?:{_FLOAT})$"), numbers)


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
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply to be a configuration") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {one_line(str(error))}") from error
    if data is None:
        raise ConfigError(f"{path}: the file is empty")
    return data


def parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def with_override(data: dict[str, Any], override: str) -> dict[str, Any]:
    """A copy of `data` with one `dotted.key=value` set; other branches are shared."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override '{override}': write dotted.key=value, such as algo.batch_size=64")
    try:
        value = parse_yaml(text)
    except RecursionError as error:
        raise ConfigError(f"override '{key}': nested too deeply to be a value") from error
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"override '{override}': the value is not YAML: {one_line(problem)}") from error

    def place(branch: Any, names: list[str], path: tuple[str, ...]) -> Any:
        if not names:
            return value
        if branch is None:
            branch = {}
        if not isinstance(branch, dict):
            raise ConfigError(f"override '{override}': '{'.'.join(path)}' is {short(branch)} and has no keys")
        return {**branch, names[0]: place(branch.get(names[0]), names[1:], (*path, names[0]))}

    return place(data, parts, ())


def short(value: Any) -> str:
    text = one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(text: str) -> str:
    return " ".join(text.split())
