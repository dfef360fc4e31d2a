"""Checks values against annotations and builds dataclasses from plain data.

`structured` parses every configuration that is read from a file or a checkpoint. It builds only
classes that annotations name; it never imports, calls or opens anything that the data name.
"""

import dataclasses
import inspect
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from spinlock.errors import ConfigurationError

_T = TypeVar("_T")
_UNIONS = (Union, UnionType)
_LISTS = (tuple, Sequence)
# No setting is this large, and larger integers fit neither a float nor a fixed-width integer.
_LARGEST = 2**64


class _ShortRepr(reprlib.Repr):
    """Shows a wrong value in a message, however large or deeply nested it is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 200

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) < _LARGEST else "an integer beyond 2^64"


#: Returns a value as text for a message, shortened.
shown = _ShortRepr().repr


def check_types(instance: Any, prefix: str = "") -> None:  # noqa: ANN401 (any dataclass)
    """Check the fields of a dataclass against their annotations.

    Supported annotations are int, float, str, bool, None, Any, Literal, unions, ``tuple[X, ...]``,
    ``Sequence[X]``, ``dict[str, X]`` and dataclasses.

    Args:
        instance: Dataclass instance to check.
        prefix: Text in front of field names in messages.

    Raises:
        ConfigurationError: If a field's value has another type. Names the field, its value and what
            is allowed.
    """
    hints = get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value, hint = getattr(instance, field.name), hints[field.name]
        if not _matches(value, hint):
            raise _mismatch(f"{prefix}{field.name}", hint, value)


def structured(kind: type[_T], values: object, where: str = "") -> _T:
    """Build an instance of a dataclass from plain data, such as parsed JSON.

    Args:
        kind: Dataclass to build, with annotations that `check_types` supports.
        values: Mapping of field names to values: numbers, text, lists and mappings.
        where: Name of the setting, for messages; empty for the outermost one.

    Returns:
        The instance. Lists become tuples, and mappings become the dataclasses that annotations
        name.

    Raises:
        ConfigurationError: If a key is unknown or missing, or a value has the wrong type, is too
            large or is nested too deeply. Names the key, what was given and what is allowed.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Grid:
        ...     size: int
        ...     spacing: float = 1.0
        >>> structured(Grid, {"size": 64})
        Grid(size=64, spacing=1.0)
        >>> structured(Grid, {"side": 64})
        Traceback (most recent call last):
        spinlock.errors.ConfigurationError: side: unknown key; allowed are size, spacing
    """
    with _within_limits(where or "configuration"):
        return _structured(kind, values, where)


def check_arguments(function: Callable[..., object], values: Mapping[str, object]) -> None:
    """Check plain data against the parameters of a function, without calling it.

    Args:
        function: Function whose named parameters have annotations that `check_types` supports.
        values: Values by parameter name. ``*args`` and ``**kwargs`` accept nothing.

    Raises:
        ConfigurationError: As for `structured`.

    Example:
        >>> def resize(size: int, mode: str = "linear") -> None: ...
        >>> check_arguments(resize, {"size": 3})
        >>> check_arguments(resize, {"size": "3"})
        Traceback (most recent call last):
        spinlock.errors.ConfigurationError: size: must be of type int, got '3' (str)
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    hints = get_type_hints(function)
    allowed = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in named and name in hints
    ]
    with _within_limits("arguments"):
        for name, value in values.items():
            if name not in allowed:
                raise ConfigurationError(f"{name}: unknown key; allowed are {', '.join(allowed)}")
            _converted(hints[name], value, name)


def require_at_least(values: Mapping[str, Any], least: int) -> None:
    """Check that values are integers that are not too small.

    Args:
        values: Integers by the name of the setting; None passes.
        least: Smallest integer that is allowed.

    Raises:
        ConfigurationError: If a value is smaller, or no integer. Names the setting.
    """
    for name, value in values.items():
        if value is not None and not isinstance(value, Integral):
            raise ConfigurationError(
                f"{name}: must be of type int, got {shown(value)} ({type(value).__name__})"
            )
        if value is not None and value < least:
            raise ConfigurationError(f"{name}: must be at least {least}, got {value}")


def require_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Check that a setting is one of the allowed values.

    Args:
        name: Name of the setting.
        value: Value of the setting.
        allowed: Allowed values.

    Raises:
        ConfigurationError: If the value is not allowed. Lists the allowed values.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise ConfigurationError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")


@contextmanager
def _within_limits(where: str) -> Iterator[None]:
    """Report data that exceed what Python can process as an invalid setting."""
    try:
        yield
    except (OverflowError, RecursionError) as error:
        raise ConfigurationError(
            f"{where}: a number is too large or values are nested too deeply ({error})"
        ) from error


def _structured(kind: type[_T], values: object, where: str) -> _T:
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise _mismatch(where or "configuration", dict[str, Any], values)
    prefix = f"{where}." if where else ""
    for key in values:
        if key not in fields:
            raise ConfigurationError(f"{prefix}{key}: unknown key; allowed are {', '.join(fields)}")
    for name, field in fields.items():
        optional = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if name not in values and not optional:
            raise ConfigurationError(f"{prefix}{name}: is required and missing")
    hints = get_type_hints(kind)
    return kind(**{name: _converted(hints[name], values[name], prefix + name) for name in values})


def _converted(hint: Any, value: object, where: str) -> object:  # noqa: ANN401 (annotations)
    """Return a value converted to its annotation."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        chosen = next((each for each in arguments if _is_meant_for(each, value)), None)
        if chosen is None:
            raise _mismatch(where, hint, value)
        return _converted(chosen, value, where)
    if dataclasses.is_dataclass(hint):
        return _structured(hint, value, where)  # type: ignore[arg-type]
    if origin in _LISTS and isinstance(value, list | tuple):
        items = enumerate(value)
        return tuple(_converted(arguments[0], item, f"{where}[{i}]") for i, item in items)
    if origin is dict and isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise ConfigurationError(f"{where}: names must be text, got {shown(odd[0])}")
        pairs = value.items()
        return {key: _converted(arguments[1], item, f"{where}.{key}") for key, item in pairs}
    if not _matches(value, hint) or (hint is Any and not _is_plain(value)):
        raise _mismatch(where, hint, value)
    if type(value) is int and abs(value) >= _LARGEST:
        raise ConfigurationError(f"{where}: must be less than 2^64, got a larger number")
    return value


def _is_meant_for(hint: Any, value: object) -> bool:  # noqa: ANN401 (annotations)
    """Whether a value selects this member of a union."""
    if isinstance(value, Mapping):
        return dataclasses.is_dataclass(hint) or get_origin(hint) is dict
    if isinstance(value, list | tuple):
        return get_origin(hint) in _LISTS
    return _matches(value, hint)


def _is_plain(value: object) -> bool:
    """Whether JSON can represent a value."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _matches(value: object, hint: Any) -> bool:  # noqa: ANN401 (annotations)
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return any(value == allowed and type(value) is type(allowed) for allowed in arguments)
    if origin in _UNIONS:
        return any(_matches(value, argument) for argument in arguments)
    if origin in _LISTS:
        kind = tuple if origin is tuple else (tuple, list)
        return isinstance(value, kind) and all(_matches(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _matches(key, arguments[0]) and _matches(item, arguments[1])
            for key, item in value.items()
        )
    if isinstance(value, bool):
        # bool is a subclass of int, but True is not a number of layers.
        return hint is bool
    return isinstance(value, int | float) if hint is float else type(value) is hint


def _mismatch(where: str, hint: Any, value: object) -> ConfigurationError:  # noqa: ANN401
    return ConfigurationError(
        f"{where}: must be {_describe(hint)}, got {shown(value)} ({type(value).__name__})"
    )


def _describe(hint: Any) -> str:  # noqa: ANN401 (annotations)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(argument) for argument in arguments)
    if origin in _UNIONS:
        return " or ".join(_describe(argument) for argument in arguments)
    if origin in _LISTS:
        return f"a list of values, each {_describe(arguments[0])}"
    if origin is dict:
        return f"a mapping from names to values, each {_describe(arguments[1])}"
    if hint is Any:
        return "plain data (numbers, text, lists and mappings)"
    return "None" if hint is NoneType else f"of type {hint.__name__}"
