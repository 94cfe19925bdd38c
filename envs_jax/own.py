"""A user's own world, named `module:factory`: finding its factory, checking its keywords, building it.

Modules are found where Python finds them; `purerl.config` adds the folders of a configuration to these places.
"""

import difflib
import importlib
import inspect
import json
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, PydanticSchemaGenerationError, TypeAdapter, create_model

if TYPE_CHECKING:
    from envs_jax.base import Environment

NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def imported(module: str) -> Any:
    """A user's module, from where Python finds modules.

    Raises:
        ValueError: there is none, or importing it fails for want of another one or by its syntax. What else goes wrong
            inside is the user's program and keeps its traceback.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, SyntaxError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name in _parents(module)
        place = f" ({error.filename}, line {error.lineno})" if isinstance(error, SyntaxError) else ""
        reason = "no such module" if missing else f"{type(error).__name__}: {error.msg}{place}"
        raise ValueError(f"module '{module}' cannot be imported: {reason}") from error


def _parents(module: str) -> list[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def factory_of(name: str) -> Any:
    module, _, attribute = name.partition(":")
    found = imported(module)
    factory = getattr(found, attribute, None)
    if not callable(factory):
        nearest = difflib.get_close_matches(attribute, [n for n in vars(found) if callable(vars(found)[n])], n=1)
        hint = f"; did you mean '{module}:{nearest[0]}'?" if nearest else ""
        raise ValueError(f"module '{module}' has no factory '{attribute}'{hint}")
    return factory


def make(name: str, settings: dict[str, Any]) -> "Environment":
    """The environment of a user's factory.

    Raises:
        ValueError: no such factory, a setting that it does not know or take, or something else than an `Environment`.
    """
    from envs_jax.base import Environment

    factory = factory_of(name)
    model, takes_model = keywords_of(factory)
    known = list(model.model_fields)
    for setting in settings if model.model_config["extra"] == "forbid" else ():
        if setting not in known:
            nearest = difflib.get_close_matches(setting, known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"known are {', '.join(known) or 'none'}"
            raise ValueError(f"unknown setting '{setting}' of {name}; {hint}")
    values = model(**settings)  # lists of YAML become the tuples that annotations ask for
    env = factory(values) if takes_model else factory(**{key: getattr(values, key) for key in settings})
    if not isinstance(env, Environment):
        raise ValueError(f"{name} returned {type(env).__name__}, not an envs_jax.Environment")
    return env


def keywords_of(factory: Any) -> tuple[Any, bool]:
    """The pydantic model of a factory's keywords, and whether the factory takes the model itself.

    A factory with one parameter that is annotated with a model takes that. Else the model is made from the signature:
    parameters whose default is not JSON cannot be set, and what pydantic does not know takes any value.
    """
    try:
        parameters = list(inspect.signature(factory, eval_str=True).parameters.values())
    except NameError:  # annotations of names that exist for type checkers alone
        parameters = list(inspect.signature(factory).parameters.values())
    of_one = parameters[0].annotation if len(parameters) == 1 else None
    if inspect.isclass(of_one) and issubclass(of_one, BaseModel):
        return of_one, True

    def known(annotation: Any) -> Any:
        try:
            TypeAdapter(annotation)
        except (PydanticSchemaGenerationError, NameError):
            return Any
        return annotation

    def is_json(value: Any) -> bool:
        try:
            json.dumps(value)
        except TypeError:
            return False
        return True

    fields: dict[str, Any] = {}
    free = False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            free = True
        elif parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            if default is ... or is_json(default):
                annotation = Any if parameter.annotation is inspect.Parameter.empty else known(parameter.annotation)
                fields[parameter.name] = (annotation, default)
    config = ConfigDict(extra="allow" if free else "forbid")
    return create_model(getattr(factory, "__name__", "Keywords"), __config__=config, **fields), False
