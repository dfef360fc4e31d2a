"""Where a dataset's operators come from: the convolutional ones, or a family of the user's own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from spinlock.configuration.generation_config import Precision
from spinlock.configuration.import_path import Trusted, instantiate
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.convolutional_operator import ConvOperator
from spinlock.simulation.parameter_space import ParameterValues

#: Maps fields (n, C, H, W) float32 to fields of the same shape, each by itself; it leaves its
#: argument as it is, and runs in inference mode.
Operator = Callable[[Tensor], Tensor]


class OperatorFamily(ABC):
    """Parameter values and an address -> an operator.

    A subclass of the user's own is named in yaml: ``generation: {operator: {class_path:
    package.Class, init_args: {...}}}``. What it returns must depend on the arguments alone: random
    numbers come from `spinlock.simulation.randomness`, at addresses of the seed and the index.
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
        clock: StageClock,
    ) -> Operator:
        """The operator of an index.

        Args:
            values: The operator's parameter values.
            seed: The dataset's seed.
            index: The operator's index.
            channels: Channels C of a field.
            precision: Arithmetic asked for in the configuration.
            device: Where its fields will be.
            clock: Counts the time of making it, by stage.
        """


class ConvolutionalOperators(OperatorFamily):
    """The default: `spinlock.simulation.convolutional_operator.ConvOperator`."""

    def operator(
        self,
        values: ParameterValues,
        *,
        seed: int,
        index: int,
        channels: int,
        precision: Precision,
        device: torch.device,
        clock: StageClock,
    ) -> Operator:
        """The convolutional operator of an index; see `OperatorFamily.operator`."""
        return ConvOperator(
            values,
            seed=seed,
            index=index,
            channels=channels,
            precision=precision,
            device=device,
            clock=clock,
        )


def operator_family(spec: Mapping[str, object] | str, trusted: Trusted = None) -> OperatorFamily:
    """The family that ``GenerationConfig.operator`` names.

    Args:
        spec: Value of ``GenerationConfig.operator``.
        trusted: Modules that class paths may name besides this package; None: every module.

    Raises:
        ConfigurationError: If it cannot be made.
    """
    if isinstance(spec, str):
        return ConvolutionalOperators()
    return instantiate(OperatorFamily, spec, "operator", trusted)  # type: ignore[type-abstract]
