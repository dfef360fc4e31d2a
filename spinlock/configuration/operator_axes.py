"""Axes that an operator family adds to the parameter space.

A family declares its axes as a class attribute, for example ``axes = {"gain": UniformRange(0.5,
2.0)}``. The configuration may change their ranges. A file holds the kind and the range of each
axis, so it can be read without importing the family.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from spinlock.configuration.import_path import Trusted, imported
from spinlock.configuration.parameter_axes import (
    MAX_GRID_SIZE,
    TEXT_BYTES,
    UNLIMITED,
    Axis,
    IntegerRange,
    LogUniformRange,
    UniformRange,
    check_axis,
)
from spinlock.configuration.validation import shown
from spinlock.errors import ConfigurationError

_RANGES: dict[str, type[IntegerRange] | type[UniformRange]] = {
    "integer": IntegerRange,
    "uniform": UniformRange,
    "log_uniform": LogUniformRange,
}
_CHOICE = re.compile(r"[\w.+-]+", re.ASCII)
_NAME = re.compile(r"[a-z]\w{0,63}", re.ASCII)
_MAX_AXES = 256
# Coordinates have 24 significant bits, so that more values would not have equal probability.
_MOST_INTEGERS = 2**20
_LARGEST = 2**63

#: Axes of the operator families of this package.
BUILTIN_AXES: dict[str, dict[str, Axis]] = {
    "convolutional": {},
    "transport": {
        "diffusion": UniformRange(0.0, 1.0),
        "velocity_x": UniformRange(-3.0, 3.0),
        "velocity_y": UniformRange(-3.0, 3.0),
        "growth": UniformRange(-0.1, 0.1),
    },
}
# Numbers of these axes that are allowed; the upper bound is exclusive.
_LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "transport": {
        "diffusion": (0.0, math.inf),
        # A field moves by no more than the largest grid, and its factor exp(growth) is a float32.
        "velocity_x": (-MAX_GRID_SIZE, MAX_GRID_SIZE),
        "velocity_y": (-MAX_GRID_SIZE, MAX_GRID_SIZE),
        "growth": (-64.0, 64.0),
    },
}


def declared_axes(operator: str | Mapping[str, Any], trusted: Trusted) -> dict[str, Axis]:
    """Return the axes that an operator family declares.

    Args:
        operator: Value of ``GenerationConfig.operator``. A class that it names is imported.
        trusted: Modules that class paths may name besides this package; None: every module.

    Raises:
        ConfigurationError: If the class cannot be imported, or its ``axes`` is not a mapping.
    """
    if isinstance(operator, str):
        return BUILTIN_AXES[operator]
    path = str(operator["class_path"])
    axes = getattr(imported(path, "operator", trusted), "axes", {})
    if not isinstance(axes, Mapping):
        raise ConfigurationError(
            f"operator: {path}.axes must be a mapping from names to ranges, got {axes!r}"
        )
    # A list and a tuple of the same values are the same choice.
    return {name: tuple(axis) if isinstance(axis, list) else axis for name, axis in axes.items()}


def axis_limits(operator: str | Mapping[str, Any]) -> Mapping[str, tuple[float, float]]:
    """Return the limits of the axes of a family of this package; of another family, none.

    Args:
        operator: Value of ``GenerationConfig.operator``.

    Returns:
        Smallest number, and the number that all values lie below, by name of the axis.
    """
    return _LIMITS.get(operator, {}) if isinstance(operator, str) else {}


def resolve_axes(
    declared: Mapping[str, Axis] | None,
    changes: Mapping[str, Any],
    base: Mapping[str, Axis],
    limits: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> dict[str, Axis]:
    """Return the axes of an operator family with the changes that a configuration makes to them.

    Args:
        declared: Axes that the family declares, by name; None if ``changes`` describes every axis
            completely, as in a file.
        changes: Value of ``ParameterSpaceConfig.operator_axes``.
        base: The 15 axes that every parameter space has.
        limits: Limits of the axes, as `axis_limits` returns them; default: no limits.

    Raises:
        ConfigurationError: If an axis is unknown or not valid, or has the name of another axis; or
            if there are too many axes.

    Example:
        >>> resolve_axes({"gain": UniformRange(0, 1)}, {"gain": {"high": 2}}, {})
        {'gain': UniformRange(low=0.0, high=2.0)}
    """
    names = changes if declared is None else declared
    if unknown := [name for name in changes if name not in names]:
        raise ConfigurationError(
            f"parameter_space.operator_axes: unknown axis {shown(unknown[0])}; the operator family "
            f"declares {', '.join(map(str, names)) or 'none'}"
        )
    if len(names) > _MAX_AXES:
        raise ConfigurationError(
            f"parameter_space.operator_axes: must be at most {_MAX_AXES} axes, got {len(names)}"
        )
    axes = {}
    for name in names:
        if name in base or not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise ConfigurationError(
                f"parameter_space.operator_axes: {shown(name)} must be a name of at most 64 "
                "lowercase letters, digits and _ that no other axis has"
            )
        where = f"parameter_space.operator_axes.{name}"
        axes[name] = _axis(changes.get(name, {}), (declared or {}).get(name), where)
        _check(axes[name], where, limits.get(name, UNLIMITED))
    return axes


def _axis(change: object, declared: Axis | None, where: str) -> Axis:
    """Return a declared axis with a change, or the axis that a file describes completely."""
    if declared is not None and isinstance(change, Mapping) and not change:
        return declared
    if isinstance(declared, IntegerRange | UniformRange):
        return _range(change, declared, where)
    if isinstance(change, list | tuple):
        return tuple(change)
    if declared is not None:
        raise ConfigurationError(f"{where}: expected a list of values, got {shown(change)}")
    return _range(change, None, where)


def _range(change: object, declared: IntegerRange | UniformRange | None, where: str) -> Axis:
    """Return a declared range with a change, or the range that a file describes completely."""
    if not isinstance(change, Mapping) or not {*change} <= {"kind", "low", "high"}:
        choice = "" if declared is not None else " or a list of values"
        raise ConfigurationError(
            f"{where}: expected {{low: ..., high: ...}}{choice}, got {shown(change)}"
        )
    bounds = {name: change[name] for name in ("low", "high") if name in change}
    kinds = tuple(_RANGES)
    kind = change.get("kind")
    if declared is not None:
        bounds = {"low": declared.low, "high": declared.high} | bounds
        # An operator that expects an integer cannot use a fraction.
        kinds = ("integer",) if isinstance(declared, IntegerRange) else ("uniform", "log_uniform")
        kind = change.get("kind", _kind(declared))
    if kind not in kinds or len(bounds) < 2:
        choice = "" if declared is not None else "a list of values, or "
        raise ConfigurationError(
            f"{where}: expected {choice}a range with low, high and a kind ({', '.join(kinds)}), "
            f"got {shown(change)}"
        )
    if not all(_is_number(value, real=kind != "integer") for value in bounds.values()):
        raise ConfigurationError(
            f"{where}: low and high must be numbers below 2^63"
            f"{' without a fraction' if kind == 'integer' else ''}, got {shown(change)}"
        )
    return _RANGES[kind](**bounds)


def _is_number(value: object, *, real: bool) -> bool:
    if isinstance(value, int):
        return type(value) is not bool and abs(value) < _LARGEST
    return real and isinstance(value, float)


def _check(axis: object, where: str, limits: tuple[float, float]) -> None:
    if isinstance(axis, tuple):
        _check_values(axis, where)
    elif not isinstance(axis, IntegerRange | UniformRange):
        raise ConfigurationError(f"{where}: must be a range or a tuple of values, got {axis!r}")
    check_axis(where, axis, *limits)
    if isinstance(axis, IntegerRange):
        if max(abs(axis.low), abs(axis.high)) >= _LARGEST:
            raise ConfigurationError(f"{where}: low and high must be below 2^63")
        if axis.high - axis.low >= _MOST_INTEGERS:
            raise ConfigurationError(
                f"{where}: must have at most {_MOST_INTEGERS} values, got {axis}"
            )


def _check_values(values: tuple[object, ...], where: str) -> None:
    texts = [isinstance(value, str) for value in values]
    valid = all(
        (isinstance(v, str) and len(v) <= TEXT_BYTES and _CHOICE.fullmatch(v))
        or (type(v) is int and abs(v) < _LARGEST)
        for v in values
    )
    if not valid or len(set(texts)) > 1:
        raise ConfigurationError(
            f"{where}: values must be integers below 2^63, or names of at most {TEXT_BYTES} ASCII "
            f"letters, digits, _, ., + and -; got {shown(list(values))}"
        )


def _kind(axis: IntegerRange | UniformRange) -> str:
    return next(name for name, kind in _RANGES.items() if type(axis) is kind)


def plain_axis(axis: Axis) -> dict[str, Any] | list[Any]:
    """Return an axis as plain data that `resolve_axes` can read without a declaration."""
    if isinstance(axis, tuple):
        return list(axis)
    return {"kind": _kind(axis), "low": axis.low, "high": axis.high}
