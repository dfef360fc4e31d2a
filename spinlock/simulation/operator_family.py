"""Chooses the operators of a dataset: convolutional ones, or a user-defined family."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from spinlock.configuration.generation_config import Precision
from spinlock.configuration.import_path import Trusted, instantiate
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.parameter_space import ParameterValues

#: Maps float32 fields (n, C, H, W) to fields of the same shape, each field independently. It must
#: not modify its argument, and it is called in inference mode.
Operator = Callable[[Tensor], Tensor]


class OperatorFamily(ABC):
    """Base class of operator families: makes an operator from parameter values and an index.

    A dataset uses a subclass that its configuration names by import path: ``generation: {operator:
    {class_path: package.Class, init_args: {...}}}``. The operator must depend on the arguments of
    `operator` alone. Draw random numbers with the functions of `spinlock.simulation.randomness`,
    at addresses made from the seed and the index.

    Example:
        >>> import torch
        >>> from spinlock import OperatorFamily, Stream
        >>> from spinlock.simulation.randomness import uniform
        >>> class RandomShifts(OperatorFamily):
        ...     def operator(self, values, *, seed, index, channels, precision, device):
        ...         shift = int(8 * uniform(seed, Stream.WEIGHTS, index, 1))
        ...         return lambda fields: fields.roll(shift, dims=-1)
    """

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
            precision: Arithmetic that the configuration asks for.
            device: Device of the fields that the operator will be applied to.
        """


def operator_family(
    spec: Mapping[str, object] | str, trusted: Trusted = None, clock: StageClock | None = None
) -> Callable[..., Operator]:
    """Return the function that makes operators, with the arguments of `OperatorFamily.operator`.

    Args:
        spec: Value of ``GenerationConfig.operator``.
        trusted: Modules that class paths may name besides this package; None: every module.
        clock: Counts the processor time of drawing and calibrating convolutional operators.

    Raises:
        ConfigurationError: If the family cannot be imported or constructed.
    """
    if isinstance(spec, str):
        return partial(ConvOperator, clock=clock)
    family = instantiate(OperatorFamily, spec, "operator", trusted)  # type: ignore[type-abstract]
    return family.operator
