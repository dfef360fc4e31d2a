"""Holds computed samples, and checks those that a device has delivered."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import SimulationError
from spinlock.features import SDFFeatures
from spinlock.features.response import ResponseFeatures
from spinlock.simulation.dynamics_rows import dynamics_rows
from spinlock.simulation.sobol_design import Design


@dataclass(frozen=True)
class Samples:
    """Consecutive samples, in the memory of the host.

    Args:
        index: Sample indices, (n,) int64.
        initial: Initial conditions, (n, C, H, W) float32.
        fields: Fields at the stored timesteps, (n, M, T', C, H, W) float32.
        features: Features of the trajectories at all timesteps.
        initial_features: Per-timestep features of the initial conditions, (n, 46) float32.
        custom: Custom features by array name (see `spinlock.features.custom_columns`).
        responses: Response features; None if the configuration leaves them out.
        dynamics: Dynamics of the operators whose first sample is among these, (o, D) float32; None
            if the configuration leaves them out.
    """

    index: NDArray[np.int64]
    initial: Tensor
    fields: Tensor
    features: SDFFeatures
    initial_features: Tensor
    custom: dict[str, Tensor]
    responses: ResponseFeatures | None
    dynamics: Tensor | None

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class UnitResult:
    """Samples of a unit of work as they come from the device, not yet checked.

    Args:
        unit: Design of all samples of the unit.
        wanted: Indices of the samples that were asked for.
        unchecked: These samples, with the measured columns of the dynamics alone.
        finite: Whether each of them has finite fields, (n,) bool, in the memory of the host.
        in_range: Whether the unit was computed in the range of numbers of its kernels, () bool, in
            the memory of the host; None if there were no kernels.
    """

    unit: Design
    wanted: range
    unchecked: Samples
    finite: Tensor
    in_range: Tensor | None

    def samples(self, config: GenerationConfig) -> Samples:
        """Return the samples, after the device has delivered all of them.

        Args:
            config: Configuration of the dataset.

        Raises:
            SimulationError: If a field or the dynamics of an operator have NaN or infinite values.
        """
        require_finite(self.finite, self.wanted.start)
        measured = self.unchecked.dynamics
        if measured is None:
            return self.unchecked
        probes = config.probes_per_operator
        first = [row - self.unit.start for row in self.wanted if row % probes == 0]
        values, operators = self.unit.values[first], self.unit.operator_index[first]
        rows = dynamics_rows(measured, values, operators, config)
        return replace(self.unchecked, dynamics=rows)


def require_finite(finite: Tensor, start: int) -> None:
    """Check that all samples are finite.

    Args:
        finite: Whether each sample is, (n,) bool.
        start: Index of the first sample.

    Raises:
        SimulationError: If not. Names the samples.
    """
    if not finite.all():
        bad = ((~finite).nonzero()[:, 0] + start).tolist()
        raise SimulationError(f"NaN or infinite values in the fields of samples {bad}")


def to_host(tensor: Tensor) -> Tensor:
    """Copy to the memory of the host; from a CUDA device asynchronously, into pinned memory."""
    if tensor.device.type == "cpu":
        return tensor
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)
