"""Chooses the operator family of a dataset: convolutional, transport, or a user's own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from spinlock.configuration.generation_config import Precision
from spinlock.configuration.import_path import Trusted, instantiate
from spinlock.configuration.operator_axes import BUILTIN_AXES
from spinlock.configuration.parameter_axes import Axis
from spinlock.configuration.parameter_space import ParameterValues
from spinlock.errors import ConfigurationError
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.transport_flow import TransportFlow

#: Maps float32 fields (n, C, H, W) to fields of the same shape, each field independently. It must
#: not modify its argument, and it is called in inference mode.
Operator = Callable[[Tensor], Tensor]


class OperatorFamily(ABC):
    """Base class of operator families: makes an operator from parameter values and an index.

    A dataset uses a subclass that its configuration names by import path: ``generation: {operator:
    {class_path: package.Class, init_args: {...}}}``. The operator must depend on the arguments of
    `operator` alone. Draw random numbers with the functions of `spinlock.simulation.randomness`,
    at addresses made from the seed and the index.

    Attributes:
        axes: Axes that the family adds to the parameter space, as ranges or tuples of values by
            name. `operator` finds the values of an operator in ``values.operator_axes``. They are
            sampled, stored and checked like the 15 axes of every family. Default: none.

    Example:
        >>> import torch
        >>> from spinlock import OperatorFamily, Stream
        >>> from spinlock.simulation.randomness import uniform
        >>> from spinlock.configuration import UniformRange
        >>> class RandomShifts(OperatorFamily):
        ...     axes = {"gain": UniformRange(0.5, 1.0)}
        ...
        ...     def operator(self, values, *, seed, index, channels, precision, device):
        ...         shift = int(8 * uniform(seed, Stream.WEIGHTS, index, 1))
        ...         gain = values.operator_axes["gain"]
        ...         return lambda fields: gain * fields.roll(shift, dims=-1)
    """

    axes: ClassVar[Mapping[str, Axis]] = {}

    @abstractmethod
    def operator(
        self,
        values: ParameterValues,
        *,
        seed: int,
        index: int,
        channels: int,
        precision: Precision,
        device: torch.device,
    ) -> Operator:
        """Return the operator with an index.

        Args:
            values: Parameter values of the operator.
            seed: Seed of the dataset.
            index: Index of the operator.
            channels: Number of channels C of a field.
            precision: Arithmetic that the configuration asks for. The operator applies it: torch's
                operations on float32 tensors do not round to TF32, whatever it is.
                `spinlock.simulation.convolution.periodic_convolution` takes an argument ``tf32``.
            device: Device of the fields that the operator will be applied to.
        """

    def flow(self, values: ParameterValues, *, device: torch.device) -> Operator | None:
        """Return a map of fields that is applied after each update; default: None, no such map.

        Args:
            values: Parameter values of the operator.
            device: Device of the fields.
        """
        return None


class ConvolutionalFamily(OperatorFamily):
    """Random convolutional networks.

    Args:
        clock: Counts the time of drawing and calibrating operators.
    """

    def __init__(self, clock: StageClock | None = None) -> None:
        self._clock = clock

    def operator(
        self,
        values: ParameterValues,
        *,
        seed: int,
        index: int,
        channels: int,
        precision: Precision,
        device: torch.device,
    ) -> Operator:
        """Return the operator with an index."""
        return ConvOperator(
            values,
            seed=seed,
            index=index,
            channels=channels,
            precision=precision,
            device=device,
            clock=self._clock,
        )


class TransportFamily(ConvolutionalFamily):
    """Random convolutional networks; an exact flow moves, smooths and scales each updated field."""

    axes = BUILTIN_AXES["transport"]

    def flow(self, values: ParameterValues, *, device: torch.device) -> Operator:
        """Return the exact flow of one timestep."""
        own = values.operator_axes
        try:
            return TransportFlow(**own, grid_size=values.grid_size, device=device)
        except (TypeError, ValueError) as error:
            # A file that names this class by its path may declare any axes.
            raise ConfigurationError(
                f"parameter_space.operator_axes: {dict(own)} cannot be used for transport: {error}"
            ) from error


_BUILTIN = {"convolutional": ConvolutionalFamily, "transport": TransportFamily}


def operator_family(
    spec: Mapping[str, object] | str, trusted: Trusted = None, clock: StageClock | None = None
) -> OperatorFamily:
    """Return the operator family of a configuration.

    Args:
        spec: Value of ``GenerationConfig.operator``.
        trusted: Modules that class paths may name besides this package; None: every module.
        clock: Counts the time of drawing and calibrating convolutional operators.

    Raises:
        ConfigurationError: If the family cannot be imported or constructed.
    """
    if isinstance(spec, str):
        return _BUILTIN[spec](clock)
    return instantiate(OperatorFamily, spec, "operator", trusted)  # type: ignore[type-abstract]
