"""Axes that an operator family adds to the parameter space.

A family declares its axes as a class attribute, for example ``axes = {"gain": UniformRange(0.5,
2.0)}``. The configuration may change their ranges. A file holds the kind and the range of each
axis, so it can be read without importing the family.
"""

import re
from collections.abc import Mapping
from typing import Any

from spinlock.configuration.import_path import Trusted, imported
from spinlock.configuration.parameter_axes import (
    TEXT_BYTES,
    Axis,
    IntegerRange,
    LogUniformRange,
    UniformRange,
    check_axis,
)
from spinlock.errors import ConfigurationError

_RANGES: dict[str, type[IntegerRange] | type[UniformRange]] = {
    "integer": IntegerRange,
    "uniform": UniformRange,
    "log_uniform": LogUniformRange,
}
_CHOICE = re.compile(r"[\w.+-]+", re.ASCII)
_NAME = re.compile(r"[a-z]\w*", re.ASCII)
# Every value of an integer axis is held in memory.
_MOST_INTEGERS = 2**20

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


def resolve_axes(
    declared: Mapping[str, Axis] | None, changes: Mapping[str, Any], base: Mapping[str, Axis]
) -> dict[str, Axis]:
    """Return the axes of an operator family with the changes that a configuration makes to them.

    Args:
        declared: Axes that the family declares, by name; None if ``changes`` describes every axis
            completely, as in a file.
        changes: Value of ``ParameterSpaceConfig.operator_axes``.
        base: The 15 axes that every parameter space has.

    Raises:
        ConfigurationError: If an axis is unknown or not valid, or has the name of another axis.

    Example:
        >>> resolve_axes({"gain": UniformRange(0, 1)}, {"gain": {"high": 2}}, {})
        {'gain': UniformRange(low=0.0, high=2.0)}
    """
    names = changes if declared is None else declared
    if unknown := [name for name in changes if name not in names]:
        raise ConfigurationError(
            f"parameter_space.operator_axes: unknown axis {unknown[0]!r}; the operator family "
            f"declares {', '.join(names) or 'none'}"
        )
    axes = {}
    for name in names:
        where = f"parameter_space.operator_axes.{name}"
        if name in base or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{where}: must be a name of lowercase letters, digits and _ that no other axis has"
            )
        axes[name] = _axis(changes.get(name, {}), (declared or {}).get(name), where)
        _check(axes[name], where)
    return axes


def _axis(change: object, declared: Axis | None, where: str) -> Axis:
    """Return a declared axis with a change, or the axis that a file describes completely."""
    if isinstance(change, list | tuple):
        return tuple(change)
    if not isinstance(change, Mapping) or not {*change} <= {"kind", "low", "high"}:
        raise ConfigurationError(
            f"{where}: expected {{low: ..., high: ...}} or a list of values, got {change!r}"
        )
    kinds = {kind: name for name, kind in _RANGES.items()}
    bounds = {name: change[name] for name in ("low", "high") if name in change}
    if isinstance(declared, IntegerRange | UniformRange):
        kind = change.get("kind", kinds[type(declared)])
        bounds = {"low": declared.low, "high": declared.high} | bounds
    else:
        kind = change.get("kind")
        if declared is not None and not change:
            return declared
    if kind not in _RANGES or len(bounds) < 2:
        raise ConfigurationError(
            f"{where}: expected a list of values, or a range with low, high and a kind "
            f"({', '.join(_RANGES)}), got {change!r}"
        )
    numbers = int if kind == "integer" else int | float
    if not all(isinstance(value, numbers) and type(value) is not bool for value in bounds.values()):
        raise ConfigurationError(f"{where}: low and high must be numbers, got {change!r}")
    return _RANGES[kind](**bounds)


def _check(axis: Axis, where: str) -> None:
    if not isinstance(axis, IntegerRange | UniformRange | tuple):
        raise ConfigurationError(f"{where}: must be a range or a tuple of values, got {axis!r}")
    check_axis(where, axis, float("-inf"), float("inf"))
    if isinstance(axis, IntegerRange) and axis.high - axis.low >= _MOST_INTEGERS:
        raise ConfigurationError(f"{where}: must have at most {_MOST_INTEGERS} values, got {axis}")
    if isinstance(axis, tuple):
        texts = [isinstance(value, str) for value in axis]
        valid = all(
            (isinstance(v, str) and len(v) <= TEXT_BYTES and _CHOICE.fullmatch(v))
            or (type(v) is int and abs(v) < 2**63)
            for v in axis
        )
        if not valid or any(texts) != all(texts):
            raise ConfigurationError(
                f"{where}: values must be integers, or names of at most {TEXT_BYTES} ASCII "
                f"letters, digits, _, ., + and -; got {list(axis)}"
            )


def plain_axis(axis: Axis) -> dict[str, Any] | list[Any]:
    """Return an axis as plain data that `resolve_axes` can read without a declaration."""
    if isinstance(axis, tuple):
        return list(axis)
    kind = next(name for name, kind in _RANGES.items() if type(axis) is kind)
    return {"kind": kind, "low": axis.low, "high": axis.high}
