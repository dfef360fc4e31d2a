"""Ranges and choices of the axes of the parameter space, validated on construction."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from spinlock.configuration.validation import check_types
from spinlock.errors import ConfigurationError

Activation = Literal["relu", "gelu", "silu"]
NoiseType = Literal["gaussian", "laplace"]
NoiseSchedule = Literal["constant", "annealing", "periodic"]
Normalization = Literal["none", "instance", "batch"]
UpdatePolicy = Literal["autoregressive", "residual", "convex"]

# Spectral bands and finite differences of the features need at least this many pixels.
MIN_GRID_SIZE = 8
MAX_GRID_SIZE = 2**14
#: Width in bytes of the text of a choice in a file.
TEXT_BYTES = 16


@dataclass(frozen=True)
class IntegerRange:
    """Integers ``low..high``, both included, with equal probability.

    Args:
        low: Smallest value.
        high: Largest value.

    Example:
        >>> ParameterSpaceConfig(num_layers=IntegerRange(2, 3)).num_layers
        IntegerRange(low=2, high=3)
    """

    low: int
    high: int


@dataclass(frozen=True)
class UniformRange:
    """Real numbers between ``low`` and ``high``, uniformly distributed.

    Args:
        low: Smallest value.
        high: Largest value.

    Example:
        >>> UniformRange(0, 1)
        UniformRange(low=0.0, high=1.0)
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        # 1 and 1.0 are the same number and must give the same fingerprint.
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))


@dataclass(frozen=True)
class LogUniformRange(UniformRange):
    """Positive real numbers between ``low`` and ``high``, with uniformly distributed logarithm."""


#: Values of an axis: a range, or a choice between values of equal probability.
Axis = IntegerRange | UniformRange | tuple[Any, ...]


@dataclass(frozen=True)
class ParameterSpaceConfig:
    """The 15 axes of every parameter space, in column order, and changes to further axes.

    A tuple is a choice between values of equal probability. In yaml, a range is ``{low: ..., high:
    ...}``, where a missing bound keeps its default, and a choice is a list.

    Args:
        num_layers: Number of hidden blocks; if it exceeds 3, each block is a residual pair of
            convolutions.
        base_channels: Number of channels B of the first hidden block.
        kernel_size: Side length of the square convolution kernels in pixels, odd.
        activation: Nonlinearity after each hidden convolution.
        dropout_rate: Fraction of hidden channels that are set to zero, chosen once per operator.
        noise_type: Marginal distribution of the forcing.
        noise_scale: Standard deviation of the forcing before its schedule is applied.
        noise_schedule: Time dependence of the forcing.
        schedule_period: Period of the periodic schedule in timesteps.
        spatial_correlation: Length of the forcing's Gaussian kernel as a fraction of the grid.
        normalization: Normalization after each hidden convolution.
        grid_size: Side length of the grid in pixels; one value, because a file holds fields of one
            shape.
        update_policy: Update policy, which combines the old field with the operator's output.
        alpha: Weight of the old field under the update policy ``convex``.
        dt: Step size of the update policy ``residual``.
        operator_axes: Changes to the axes that the operator family adds, by name: ``{low: ...,
            high: ...}``, where a missing bound stays as declared, or for a choice a list of values.
            Default: no changes. The configuration in a file lists every axis of the family, with
            the ``kind`` of each range: ``integer``, ``uniform`` or ``log_uniform``.

    Raises:
        ConfigurationError: If a range or a choice is not valid. Names the axis.

    Example:
        >>> space = ParameterSpaceConfig(grid_size=(64,), activation=("gelu",))
        >>> space.grid_size, space.kernel_size
        ((64,), (3, 5, 7))
    """

    num_layers: IntegerRange = IntegerRange(2, 5)
    base_channels: IntegerRange = IntegerRange(16, 64)
    kernel_size: tuple[int, ...] = (3, 5, 7)
    activation: tuple[Activation, ...] = ("relu", "gelu", "silu")
    dropout_rate: UniformRange = UniformRange(0.0, 0.3)
    noise_type: tuple[NoiseType, ...] = ("gaussian", "laplace")
    noise_scale: LogUniformRange = LogUniformRange(1e-5, 1.0)
    noise_schedule: tuple[NoiseSchedule, ...] = ("constant", "annealing", "periodic")
    schedule_period: IntegerRange = IntegerRange(50, 200)
    spatial_correlation: UniformRange = UniformRange(0.0, 0.3)
    normalization: tuple[Normalization, ...] = ("none", "instance", "batch")
    grid_size: tuple[int, ...] = (128,)
    update_policy: tuple[UpdatePolicy, ...] = ("autoregressive", "residual", "convex")
    alpha: UniformRange = UniformRange(0.1, 0.9)
    dt: LogUniformRange = LogUniformRange(0.001, 0.1)
    operator_axes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for axis in dataclasses.fields(self):
            # A list and a tuple of the same values must be the same configuration.
            if isinstance(getattr(self, axis.name), list):
                object.__setattr__(self, axis.name, tuple(getattr(self, axis.name)))
        check_types(self, "parameter_space.")
        for name, values in self.base_axes.items():
            check_axis(f"parameter_space.{name}", values, *_LIMITS.get(name, UNLIMITED))
        self._check_grid()

    @property
    def base_axes(self) -> dict[str, Axis]:
        """The 15 axes that every parameter space has, by name."""
        names = [axis.name for axis in dataclasses.fields(self) if axis.name != "operator_axes"]
        return {name: getattr(self, name) for name in names}

    def check_dropout(self) -> None:
        """Check that dropout leaves every layer of a convolutional operator at least one channel.

        Raises:
            ConfigurationError: If dropout could silence all channels of a layer.
        """
        width, rate = self.base_channels.low, self.dropout_rate.high
        if width * (1 - rate) < 1:
            raise ConfigurationError(
                f"parameter_space.dropout_rate: at a rate of {rate:g}, dropout could silence all "
                f"channels of a layer of base_channels={width}; base_channels * (1 - dropout_rate) "
                "must be at least 1"
            )

    def _check_grid(self) -> None:
        if len(self.grid_size) != 1:
            raise ConfigurationError(
                f"parameter_space.grid_size: must be one choice, because a file holds fields of "
                f"one shape; got {list(self.grid_size)}. Generate one dataset per grid size."
            )
        grid = self.grid_size[0]
        if not MIN_GRID_SIZE <= grid <= MAX_GRID_SIZE:
            raise ConfigurationError(
                f"parameter_space.grid_size: must be at least {MIN_GRID_SIZE} pixels and at most "
                f"{MAX_GRID_SIZE}, got {grid}"
            )
        for kernel in self.kernel_size:
            if kernel < 1 or kernel % 2 == 0:
                raise ConfigurationError(
                    f"parameter_space.kernel_size: must be odd and positive, got {kernel}"
                )
            if kernel > grid:
                raise ConfigurationError(
                    f"parameter_space.kernel_size: a kernel of {kernel} pixels does not fit a grid "
                    f"of {grid}; use kernels of at most {grid} pixels or a larger "
                    "parameter_space.grid_size"
                )


#: Limits of an axis that takes all finite numbers.
UNLIMITED = (-math.inf, math.inf)
# Bounds of each numeric axis; the upper bound is exclusive.
_LIMITS: dict[str, tuple[float, float]] = {
    "num_layers": (1, 2**10),
    "base_channels": (1, 2**16),
    "dropout_rate": (0.0, 1.0),
    "noise_scale": (0.0, math.inf),
    "schedule_period": (1, 2**20),
    "spatial_correlation": (0.0, math.inf),
    "alpha": (0.0, math.nextafter(1.0, 2.0)),
    "dt": (0.0, math.inf),
}


def describe_axis(values: Axis) -> str:
    """Describe the values of an axis in words.

    Args:
        values: Range or choice.

    Example:
        >>> describe_axis(LogUniformRange(0.5, 4.0)), describe_axis((3, 5, 7))
        ('log-uniform 0.5 to 4', '3, 5, 7')
    """
    if isinstance(values, tuple):
        return ", ".join(map(str, values))
    kind = "uniform" if isinstance(values, UniformRange) else "integer"
    kind = "log-uniform" if isinstance(values, LogUniformRange) else kind
    return f"{kind} {values.low:g} to {values.high:g}"


def check_axis(name: str, values: Axis, least: float, bound: float) -> None:
    """Check the values of an axis.

    Args:
        name: Name of the setting, for messages.
        values: Range or choice.
        least: Smallest number that the axis allows.
        bound: Number that all values lie below.

    Raises:
        ConfigurationError: If a choice is empty or repeats a value, or a range is not valid.
    """
    if isinstance(values, tuple):
        _check_choice(name, values)
    else:
        check_types(values, f"{name}.")
        _check_range(name, values, least, bound)


def _check_choice(name: str, values: tuple[object, ...]) -> None:
    if not values:
        raise ConfigurationError(f"{name}: at least one value is needed, got an empty list")
    if len(set(values)) != len(values):
        raise ConfigurationError(f"{name}: values must differ from each other, got {list(values)}")


def _check_range(
    name: str, values: IntegerRange | UniformRange, least: float, bound: float
) -> None:
    low, high = values.low, values.high
    # Integers are finite, and some are too large for a float.
    if isinstance(values, UniformRange) and not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigurationError(f"{name}: low and high must be finite, got low={low}, high={high}")
    if low > high:
        raise ConfigurationError(f"{name}: low must not exceed high, got low={low}, high={high}")
    if isinstance(values, LogUniformRange) and low <= 0:
        raise ConfigurationError(f"{name}: a logarithmic axis needs low > 0, got low={low}")
    if low < least or high >= bound:
        raise ConfigurationError(
            f"{name}: values must lie in [{least:g}, {bound:g}), got low={low}, high={high}"
        )
    if isinstance(values, UniformRange) and not math.isfinite(_width(values)):
        raise ConfigurationError(
            f"{name}: low and high are too far apart for a float64, got low={low}, high={high}"
        )


def _width(values: UniformRange) -> float:
    """Return the number with which `ParameterSpace` spreads the values of a range."""
    logarithmic = isinstance(values, LogUniformRange)
    return values.high / values.low if logarithmic else values.high - values.low
