"""Computes the fields of a unit of work, one operator after another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_space import typed_row
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.dynamics import DynamicsMeter, measuring_side
from spinlock.simulation.dynamics_columns import DYNAMICS_NAMES
from spinlock.simulation.operator_runs import OperatorRunner
from spinlock.simulation.rollout import update_weights
from spinlock.simulation.sobol_design import Design
from spinlock.simulation.variants import InitialConditions


@dataclass(frozen=True)
class UnitFields:
    """Fields of the samples of a unit of work, on the device that computed them.

    Args:
        initial: Initial conditions u_0 of all samples, (n, C, H, W) float32.
        trajectory: Fields u_1 .. u_T, (n, M, T, C, H, W) float32. Those of samples that were not
            asked for are not meaningful.
        measured: Measured dynamics of the operators whose first sample was asked for, (o, D)
            float32; o = 0 if the configuration leaves dynamics out.
        in_range: Whether all fields and dynamics of the unit are finite, asked for or not, () bool;
            None if they need not be, because fields were computed in float32.
    """

    initial: Tensor
    trajectory: Tensor
    measured: Tensor
    in_range: Tensor | None = None


class FieldSource(Protocol):
    """Something that computes the fields of units of work."""

    def fields(self, unit: Design, rows: range) -> UnitFields:
        """Compute the fields of a unit.

        Args:
            unit: Design of all samples of the unit.
            rows: Positions of the samples that are asked for.
        """


class OperatorByOperator:
    """Applies one operator after another.

    Args:
        config: Configuration of the dataset.
        device: Device to compute on.
        initial_conditions: Distributions of the initial conditions.
        clock: Counts the time of the stages.

    Attributes:
        family: Operator family of the dataset.
    """

    def __init__(
        self,
        config: GenerationConfig,
        device: torch.device,
        initial_conditions: InitialConditions,
        clock: StageClock,
    ) -> None:
        self._config, self._device, self._clock = config, device, clock
        self._initial_conditions = initial_conditions
        self._runner = OperatorRunner(config, device, clock)
        self.family = self._runner.family

    @cached_property
    def _meter(self) -> DynamicsMeter | None:
        # Not in the constructor, which does not use the device.
        return dynamics_meter(self._config, self._device)

    def fields(self, unit: Design, rows: range) -> UnitFields:
        """Compute the fields of a unit; see `FieldSource.fields`."""
        config = self._config
        with self._clock.stage("initial conditions"):
            initial = self._initial_conditions.fields(
                config.seed,
                torch.arange(unit.start, unit.stop, device=self._device),
                unit.variant,
                config.channels,
                config.grid_size,
            )
        size = (len(initial), config.num_realizations, config.num_timesteps, *initial.shape[1:])
        # The dtype is explicit because the caller may have changed torch's default.
        trajectory = torch.zeros(size, dtype=torch.float32, device=self._device)
        measured: list[Tensor] = []
        for same in runs(rows, lambda row: int(unit.operator_index[row])):
            measured += self._roll_out(unit, same, initial, trajectory)
        return UnitFields(initial, trajectory, stacked(measured, self._device))

    def _roll_out(
        self, unit: Design, rows: range, initial: Tensor, trajectory: Tensor
    ) -> list[Tensor]:
        """Compute the trajectories of those rows of a unit that share one operator.

        Returns:
            The operator's dynamics [D], if its first sample is among the rows; else nothing.
        """
        values = typed_row(unit.values[rows.start])
        operator = self._runner.draw(int(unit.operator_index[rows.start]), values)
        for row in rows:
            self._runner.roll_out(operator, initial[row], unit.start + row, trajectory[row])
        # An operator is measured once, with its first sample.
        if self._meter is None or (unit.start + rows.start) % self._config.probes_per_operator:
            return []
        keep, gain = update_weights(values)
        on_grid = replace(values, grid_size=self._meter.side)
        with self._clock.stage("dynamics"):
            measured = self._meter.measure(
                operator.function,
                keep=keep,
                gain=gain,
                flow=self.family.flow(on_grid, device=self._device),
                noise_scale=values.noise_scale,
                noise_length=values.spatial_correlation,
            )
        return [measured]


def dynamics_meter(config: GenerationConfig, device: torch.device) -> DynamicsMeter | None:
    """Return the meter of a dataset's dynamics; None if the configuration leaves them out."""
    if not config.dynamics:
        return None
    side = measuring_side(config.grid_size, built_in=isinstance(config.operator, str))
    return DynamicsMeter(config.seed, config.channels, side, device)


def stacked(measured: list[Tensor], device: torch.device) -> Tensor:
    """Return measured dynamics as rows, (o, D) float32; o may be 0."""
    if measured:
        return torch.stack(measured)
    return torch.empty((0, len(DYNAMICS_NAMES)), dtype=torch.float32, device=device)


def runs(rows: range, key: Callable[[int], int]) -> Iterator[range]:
    """Split a range where the key changes.

    Example:
        >>> list(runs(range(3, 8), lambda row: row // 4))
        [range(3, 4), range(4, 8)]
    """
    for _, group in groupby(rows, key=key):
        members = list(group)
        yield range(members[0], members[-1] + 1)
