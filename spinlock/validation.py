"""Checking a configuration's values against its annotations, for those who write Python."""

import dataclasses
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from spinlock.errors import ConfigurationError


def check_types(instance: Any, prefix: str = "") -> None:  # noqa: ANN401 (any dataclass)
    """Check the fields of a dataclass against their annotations, which yaml's parser does for yaml.

    Understood are the kinds that configurations are made of: int, float, str, Any, Literal, unions,
    ``tuple[X, ...]``, ``dict[str, X]`` and dataclasses.

    Args:
        instance: A dataclass instance.
        prefix: Put in front of field names in messages.

    Raises:
        ConfigurationError: Naming the first field whose value is of another kind, what it is and
            what is allowed.
    """
    hints = get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        if not _matches(value, hint):
            raise ConfigurationError(
                f"{prefix}{field.name}: must be {_describe(hint)}, got {value!r} "
                f"({type(value).__name__})"
            )


def _matches(value: object, hint: Any) -> bool:  # noqa: ANN401 (annotations have no common type)
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return any(value == allowed and type(value) is type(allowed) for allowed in arguments)
    if origin in (Union, UnionType):
        return any(_matches(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_matches(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _matches(key, arguments[0]) and _matches(item, arguments[1])
            for key, item in value.items()
        )
    if isinstance(value, bool):
        # bool is a subclass of int, but True layers are nobody's intention.
        return hint is bool
    return isinstance(value, int | float) if hint is float else type(value) is hint


def _describe(hint: Any) -> str:  # noqa: ANN401 (annotations have no common type)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(argument) for argument in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is tuple:
        return f"a list of values, each {_describe(arguments[0])}"
    if origin is dict:
        return f"a mapping to {_describe(arguments[1])}"
    return f"of type {hint.__name__}"
