"""Maps points of the unit cube to typed values on the axes of the operator space."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.parameter_axes import (
    TEXT_BYTES,
    Axis,
    IntegerRange,
    LogUniformRange,
    UniformRange,
)


@dataclass(frozen=True)
class ParameterValues:
    """Typed values on the 15 axes, in column order, and on the axes of the operator family.

    `ParameterSpaceConfig` documents what each axis means.

    Args:
        operator_axes: Values on the axes that the operator family declares, by name; default: none.

    Example:
        >>> from spinlock import GenerationConfig
        >>> from spinlock.configuration.parameter_space import typed_row
        >>> from spinlock.simulation.sobol_design import make_design
        >>> values = typed_row(make_design(GenerationConfig(4)).values[0])
        >>> values.num_layers, values.update_policy
        (2, 'autoregressive')
    """

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
    operator_axes: Mapping[str, Any] = field(default_factory=dict)


#: The 15 axes that every parameter space has, in column order.
PARAMETER_NAMES: tuple[str, ...] = tuple(axis.name for axis in fields(ParameterValues)[:-1])


class _Integers:
    """Consecutive integers that each have an equal share of [0, 1)."""

    dtype = np.dtype(np.int64)

    def __init__(self, axis: IntegerRange) -> None:
        self._low, self._count = axis.low, axis.high - axis.low + 1

    def value(self, unit: NDArray[np.float64]) -> NDArray[Any]:
        return self._low + _share(unit, self._count)


class _Choice:
    """Values that each have an equal share of [0, 1)."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        text = isinstance(values[0], str)
        self.dtype = np.dtype(f"S{TEXT_BYTES}") if text else np.dtype(np.int64)
        self._values = np.array(values, dtype=self.dtype)

    def value(self, unit: NDArray[np.float64]) -> NDArray[Any]:
        return self._values.take(_share(unit, len(self._values)))


def _share(unit: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return which of ``count`` equal parts of [0, 1) a coordinate lies in; 1 is in the last."""
    return np.minimum((unit * count).astype(np.int64), count - 1)


class _Continuous:
    """Real numbers with a uniform distribution, or with a uniform logarithm."""

    dtype = np.dtype(np.float64)

    def __init__(self, axis: UniformRange) -> None:
        self._low, self._high = axis.low, axis.high
        self._logarithmic = isinstance(axis, LogUniformRange)

    def value(self, unit: NDArray[np.float64]) -> NDArray[Any]:
        if self._logarithmic:
            inside = self._low * np.exp(unit * np.log(self._high / self._low))
        else:
            inside = self._low + unit * (self._high - self._low)
        return np.asarray(inside).clip(self._low, self._high)


def _axis(config: Axis) -> _Integers | _Choice | _Continuous:
    if isinstance(config, UniformRange):
        return _Continuous(config)
    if isinstance(config, IntegerRange):
        return _Integers(config)
    return _Choice(config)


class ParameterSpace:
    """The axes of the operator space, as a map from the unit cube to typed values.

    Args:
        axes: Ranges and choices by the name of the axis, in column order.

    Attributes:
        names: Names of the A axes.
        dtype: Type of the structured array of `values`.

    Example:
        >>> import numpy as np
        >>> from spinlock import GenerationConfig
        >>> space = GenerationConfig(1).space
        >>> center = space.values(np.full((1, 15), 0.5))
        >>> center["num_layers"], center["activation"], center["alpha"]
        (array([4]), array([b'gelu'], dtype='|S16'), array([0.5]))
    """

    def __init__(self, axes: Mapping[str, Axis]) -> None:
        self._axes = {name: _axis(axis) for name, axis in axes.items()}
        self.names = tuple(self._axes)
        self.dtype = np.dtype([(name, axis.dtype) for name, axis in self._axes.items()])

    def values(self, unit: NDArray[np.floating[Any]]) -> NDArray[np.void]:
        """Return the typed values at points of the unit cube.

        Args:
            unit: Points, shape (N, A), with each coordinate in [0, 1].

        Returns:
            Structured array (N,) with one field per axis. Text is ASCII bytes.

        Raises:
            ValueError: If the shape is wrong or a coordinate lies outside [0, 1].
        """
        points = np.asarray(unit, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != len(self._axes):
            raise ValueError(f"points must have shape (N, {len(self._axes)}), got {points.shape}")
        if points.size and not (points.min() >= 0 and points.max() <= 1):
            raise ValueError(
                f"coordinates must lie in [0, 1], got {points.min():g} to {points.max():g}"
            )
        out = np.empty(len(points), dtype=self.dtype)
        for column, (name, axis) in enumerate(self._axes.items()):
            out[name] = axis.value(points[:, column])
        return out


def typed_row(row: np.void) -> ParameterValues:
    """Convert one row of the structured array of `ParameterSpace.values` to Python types.

    Args:
        row: One element of the array.

    Returns:
        The same values as Python integers, floats and strings.

    Example:
        >>> import numpy as np
        >>> from spinlock import GenerationConfig
        >>> rows = GenerationConfig(1).space.values(np.zeros((1, 15)))
        >>> typed_row(rows[0]).noise_type
        'gaussian'
    """
    values: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name in row.dtype.names or ():
        value = row[name].item()
        (values if name in PARAMETER_NAMES else own)[name] = (
            value.decode() if isinstance(value, bytes) else value
        )
    return ParameterValues(**values, operator_axes=own)
