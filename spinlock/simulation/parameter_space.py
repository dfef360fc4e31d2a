"""The operator space: a point of the unit cube <-> typed values on the 15 axes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.parameter_axes import (
    IntegerRange,
    LogUniformRange,
    ParameterSpaceConfig,
    UniformRange,
)

# Fixed-width UTF-8 text of a choice in the compound type of the file.
_TEXT_BYTES = 16


@dataclass(frozen=True)
class ParameterValues:
    """Typed values on the 15 axes, in column order (see `ParameterSpaceConfig` for meanings)."""

    num_layers: int
    base_channels: int
    kernel_size: int
    activation: str
    dropout_rate: float
    noise_type: str
    noise_scale: float
    noise_schedule: str
    schedule_period: int
    spatial_correlation: float
    normalization: str
    grid_size: int
    update_policy: str
    alpha: float
    dt: float


PARAMETER_NAMES: tuple[str, ...] = tuple(axis.name for axis in fields(ParameterValues))
PARAMETER_GROUPS: dict[str, tuple[str, ...]] = {
    "architecture": PARAMETER_NAMES[:5],
    "stochastic": PARAMETER_NAMES[5:10],
    "operator": PARAMETER_NAMES[10:12],
    "evolution": PARAMETER_NAMES[12:],
}


class Axis(Protocol):
    """One axis: a map between [0, 1) and its values."""

    dtype: np.dtype[Any]

    def value(self, unit: NDArray[np.float64]) -> NDArray[Any]:
        """Values at coordinates ``unit`` in [0, 1)."""

    def unit(self, value: NDArray[Any]) -> NDArray[np.float64]:
        """Coordinates of values; the middle of its cell for a discrete value."""


class _Choice:
    """Discrete values, each with an equal share of [0, 1)."""

    def __init__(self, name: str, values: Sequence[int] | Sequence[str]) -> None:
        self._name = name
        text = isinstance(values[0], str)
        self.dtype = np.dtype(f"S{_TEXT_BYTES}") if text else np.dtype(np.int64)
        self._values = np.array(values, dtype=self.dtype)

    def value(self, unit: NDArray[np.float64]) -> NDArray[Any]:
        count = len(self._values)
        return self._values.take(np.minimum((unit * count).astype(np.int64), count - 1))

    def unit(self, value: NDArray[Any]) -> NDArray[np.float64]:
        matches = np.asarray(value, dtype=self.dtype)[..., None] == self._values
        if not matches.any(axis=-1).all():
            allowed = [v.decode() if isinstance(v, bytes) else v for v in self._values.tolist()]
            raise ValueError(
                f"{self._name}: got {np.unique(value).tolist()}, allowed are {allowed}"
            )
        return np.asarray((matches.argmax(axis=-1) + 0.5) / len(self._values))


class _Continuous:
    """Real numbers, uniform in themselves or in their logarithm."""

    dtype = np.dtype(np.float64)

    def __init__(self, name: str, low: float, high: float, logarithmic: bool) -> None:
        self._name, self._low, self._high, self._logarithmic = name, low, high, logarithmic

    def value(self, unit: NDArray[np.float64]) -> NDArray[Any]:
        if self._logarithmic:
            inside = self._low * np.exp(unit * np.log(self._high / self._low))
        else:
            inside = self._low + unit * (self._high - self._low)
        return np.asarray(inside).clip(self._low, self._high)

    def unit(self, value: NDArray[Any]) -> NDArray[np.float64]:
        value = np.asarray(value, dtype=np.float64)
        if np.any((value < self._low) | (value > self._high)):
            raise ValueError(
                f"{self._name}: values must lie in [{self._low:g}, {self._high:g}], got "
                f"{value.min():g}..{value.max():g}"
            )
        if self._low == self._high:
            return np.full(value.shape, 0.5)
        if self._logarithmic:
            return np.asarray(np.log(value / self._low) / np.log(self._high / self._low))
        return np.asarray((value - self._low) / (self._high - self._low))


def _axis(name: str, config: object) -> Axis:
    match config:
        case IntegerRange(low=low, high=high):
            return _Choice(name, range(low, high + 1))
        case UniformRange(low=low, high=high):
            return _Continuous(name, low, high, isinstance(config, LogUniformRange))
        case tuple() as values:
            return _Choice(name, values)
    raise TypeError(f"{name}: no axis is known for {config!r}")


class ParameterSpace:
    """The 15 axes of operators.

    Args:
        config: Ranges and choices of the axes.
    """

    def __init__(self, config: ParameterSpaceConfig) -> None:
        self._axes = {name: _axis(name, getattr(config, name)) for name in PARAMETER_NAMES}
        self.dtype = np.dtype([(name, axis.dtype) for name, axis in self._axes.items()])

    def values(self, unit: NDArray[np.floating[Any]]) -> NDArray[np.void]:
        """Typed values at points of the unit cube.

        Args:
            unit: (N, 15), each coordinate in [0, 1].

        Returns:
            Structured array (N,) with one field per axis; text is ASCII bytes.

        Raises:
            ValueError: If the shape or a coordinate is out of range.
        """
        points = np.asarray(unit, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != len(self._axes):
            raise ValueError(f"points must have shape (N, {len(self._axes)}), got {points.shape}")
        if points.size and not (points.min() >= 0 and points.max() <= 1):
            raise ValueError("coordinates must lie in [0, 1]")
        out = np.empty(len(points), dtype=self.dtype)
        for column, (name, axis) in enumerate(self._axes.items()):
            out[name] = axis.value(points[:, column])
        return out

    def unit(self, values: NDArray[np.void]) -> NDArray[np.float64]:
        """Points (N, 15) of the unit cube whose values are given; inverse of `values`.

        A discrete value maps to the middle of its cell.

        Raises:
            ValueError: If a value is not on its axis, naming the axis and what it allows.
        """
        return np.stack([axis.unit(values[name]) for name, axis in self._axes.items()], axis=-1)


def typed_row(row: np.void) -> ParameterValues:
    """One row of the structured array of `ParameterSpace.values`, with Python types."""
    items: list[Any] = [row[name].item() for name in PARAMETER_NAMES]
    decoded: list[Any] = [item.decode() if isinstance(item, bytes) else item for item in items]
    return ParameterValues(*decoded)
