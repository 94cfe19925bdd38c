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


KEPT = ("calibration", "provenance", "without_data", "guests")
"""Keywords that are no settings, for factories that take them: `guests` are the policies that settings name
(`envs_jax.base.Guest`), and what `Assessment` says of the others a run gives back."""


def make(name: str, settings: dict[str, Any]) -> "Environment":
    """The environment of a user's factory.

    Raises:
        ValueError: no such factory, a setting that it does not know or take, or something else than an `Environment`.
    """
    from envs_jax.base import Environment

    factory = factory_of(name)
    model, takes_model = keywords_of(factory)
    known, taken = list(model.model_fields), [p.name for p in _parameters(factory)]
    if "guests" in settings and "guests" not in taken:
        policies = ", ".join(settings["guests"])
        raise ValueError(f"{name}: {policies}: its factory takes no policies; give it the keyword guests=None")
    kept = {key: value for key, value in settings.items() if key in KEPT and key in taken}
    settings = {key: value for key, value in settings.items() if key not in kept}
    for setting in settings if model.model_config.get("extra") == "forbid" else ():
        if setting not in known:
            nearest = difflib.get_close_matches(setting, known, n=1)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"known are {', '.join(known) or 'none'}"
            raise ValueError(f"unknown setting '{setting}' of {name}; {hint}")
    values = model(**settings)  # lists of YAML become the tuples that annotations ask for
    if takes_model:
        env = factory(values, **kept)
    else:
        env = factory(**{key: getattr(values, key) for key in settings}, **kept)
    if not isinstance(env, Environment):
        raise ValueError(f"{name} returned {type(env).__name__}, not an envs_jax.Environment")
    for key in ("calibration", "provenance"):
        if getattr(env.assessment, key) is not None and key not in [*taken, *known]:
            raise ValueError(f"{name} has a {key} and takes none; give its factory the keyword {key}=None")
    return env


def _parameters(factory: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory, eval_str=True).parameters.values())
    except NameError:  # annotations of names that exist for type checkers alone
        return list(inspect.signature(factory).parameters.values())


def keywords_of(factory: Any) -> tuple[Any, bool]:
    """The pydantic model of a factory's keywords, and whether the factory takes the model itself.

    A factory with one parameter (beside those of `KEPT`) that is annotated with a model takes that. Else the model is
    made from the signature: parameters whose default is not JSON cannot be set, and annotations that pydantic does not
    know take any value.
    """
    parameters = [parameter for parameter in _parameters(factory) if parameter.name not in KEPT]
    of_one = parameters[0].annotation if len(parameters) == 1 else None
    if inspect.isclass(of_one) and issubclass(of_one, BaseModel):
        return of_one, True
    fields: dict[str, Any] = {}
    free = False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            free = True
        elif parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            empty = parameter.empty
            if parameter.default is empty or _is_json(parameter.default):
                annotation = Any if parameter.annotation is empty else _known(parameter.annotation)
                fields[parameter.name] = (annotation, ... if parameter.default is empty else parameter.default)
    config = ConfigDict(extra="allow" if free else "forbid")
    return create_model(getattr(factory, "__name__", "Keywords"), __config__=config, **fields), False


def _known(annotation: Any) -> Any:
    try:
        TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, NameError):
        return Any
    return annotation


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
