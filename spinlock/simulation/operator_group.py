"""Applies many convolutional operators to their fields at once, with one launch for each step.

The results are those of `spinlock.simulation.convolutional_operator.ConvOperator` up to rounding.
They do not depend on which operators are in a group. Drawn weights are never scaled: the factors
that calibration finds are applied to the results of convolutions.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import Precision
from spinlock.configuration.parameter_space import ParameterValues
from spinlock.kernels.bounded_output import bound_output, calibrate_output
from spinlock.kernels.dropout_masks import silence_channels
from spinlock.kernels.grouped_convolution import convolve, pack_fields
from spinlock.kernels.layer_finish import calibrate_scales, finish_layers, moments
from spinlock.kernels.operands import make_operands
from spinlock.kernels.random_draws import draw_numbers
from spinlock.kernels.weight_draws import draw_weights
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.calibration import calibration_fields, calibration_shape
from spinlock.simulation.convolutional_operator import OUTPUT_BOUND, OUTPUT_ITERATIONS
from spinlock.simulation.group_layout import GroupLayout
from spinlock.simulation.group_plan import Part, plan_application
from spinlock.simulation.randomness import Stream

#: Side of fields in pixels, and number of fields of each operator.
Fields = tuple[int, Sequence[int]]

_CALIBRATION, _FIRST = "calibration", "first"


class OperatorGroupPlan:
    """What the host prepares for a group of operators; it depends on the design alone.

    Args:
        operators: Index and parameter values of each operator. They share the grid and the size of
            the calibration fields.
        first: Side in pixels and number, for each operator, of the fields of the first application.
        others: The same for further applications, by name; default: none.
        seed: Seed of the dataset.
        channels: Number of channels C of a field.
        precision: Arithmetic of the convolutions; calibration uses float32.
    """

    def __init__(
        self,
        operators: Sequence[tuple[int, ParameterValues]],
        first: Fields,
        others: Mapping[str, Fields] = MappingProxyType({}),
        *,
        seed: int,
        channels: int,
        precision: Precision = "float32",
    ) -> None:
        values = operators[0][1]
        self.seed, self.precision, self.num_operators = seed, precision, len(operators)
        self.layout = GroupLayout(operators, channels)
        # Operators with other kernels, but the same side, have the same calibration fields.
        _, side = calibration_shape(values.grid_size, values.kernel_size)
        self.calibration = seed, channels, values.grid_size, side
        fields = calibration_fields(*self.calibration, torch.device("cpu"))
        calibrating = Part(fields.shape[-1], [len(fields)] * len(operators), calibrating=True)
        # In float32, the first application and the calibration share their launches.
        parts = {_FIRST: [calibrating, Part(*first)]}
        if precision != "float32":
            parts = {_CALIBRATION: [calibrating], _FIRST: [Part(*first)]}
        parts |= {name: [Part(*given)] for name, given in others.items()}
        self.plans = {name: plan_application(self.layout, own) for name, own in parts.items()}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all tables by name."""
        tables = self.layout.arrays()
        for name, plan in self.plans.items():
            tables |= {f"{name}.{key}": array for key, array in plan.arrays.items()}
        return tables


class OperatorGroup:
    """Operators of a group.

    Args:
        plan: Plan of the group, which the host has prepared.
        tables: ``plan.arrays()`` on the device of the operators.
        clock: Counts the time of the stages ``weights``, ``calibration`` and ``convolutions`` of
            the constructor and of `first`; default: none. In float32, ``convolutions`` includes the
            calibration.
    """

    def __init__(
        self, plan: OperatorGroupPlan, tables: dict[str, Tensor], clock: StageClock | None = None
    ) -> None:
        self._plan, self._tables, self._clock = plan, tables, clock or StageClock()
        self._device = tables["layers"].device
        plans = plan.plans.values()
        self._sums = self._empty(max(plan.num_sums for plan in plans))
        self._pairs = self._empty(max(plan.num_pairs for plan in plans), 2)
        self._factor, self._shift, self._mask = self._empty(3, plan.layout.num_channels)
        with self._clock.stage("weights"):
            self._silence()
            self._draw("float32")

    def first(self, fields: Tensor) -> Tensor:
        """Calibrate the operators, and apply each to its first fields.

        Args:
            fields: Fields, (n, C, H, W) float32; those of an operator lie one behind the other.

        Returns:
            Output fields, of the same shape.
        """
        own = calibration_fields(*self._plan.calibration, self._device)
        calibrating = own.repeat(self._plan.num_operators, 1, 1, 1)
        pixels = len(own) * own.shape[-1] ** 2
        if self._plan.precision == "float32":
            with self._clock.stage("convolutions"):
                self._convolutions(_FIRST, [calibrating, fields], calibrated=len(own))
                self._calibrate_output(_FIRST, pixels)
                return self._output(_FIRST, fields)
        with self._clock.stage("calibration"):
            self._convolutions(_CALIBRATION, [calibrating], calibrated=len(own))
            self._calibrate_output(_CALIBRATION, pixels)
        with self._clock.stage("weights"):
            # Return their memory first.
            del self._weights, self._operands
            self._draw(self._plan.precision)
        with self._clock.stage("convolutions"):
            return self.apply(fields, _FIRST)

    def apply(self, fields: Tensor, application: str) -> Tensor:
        """Apply each operator to its fields, after `first`.

        Args:
            fields: Fields, (n, C, H, W) float32; those of an operator lie one behind the other.
            application: Name of the application.

        Returns:
            Output fields, of the same shape.
        """
        self._convolutions(application, [fields])
        return self._output(application, fields)

    def _output(self, application: str, fields: Tensor) -> Tensor:
        # Kernels expect contiguous fields, whatever the strides of the given ones.
        out = self._empty(*fields.shape)
        problems, tile_list = self._table(application, "problems.exit", "finish.exit")
        bound_output(self._sums, self._factor, out, problems, tile_list, OUTPUT_BOUND)
        return out

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    def _table(self, application: str, *names: str) -> tuple[Tensor, ...]:
        return tuple(self._tables[f"{application}.{name}"] for name in names)

    def _silence(self) -> None:
        """Draw the dropout masks of all layers."""
        addresses = self._tables["layers"][:, :2].contiguous()
        count = self._plan.layout.widest + 1
        drawn = draw_numbers(addresses, self._plan.seed, Stream.DROPOUT, count, "uniform")
        silence_channels(drawn, self._mask, *(self._tables[name] for name in ("masks", "limits")))

    def _draw(self, precision: Precision) -> None:
        """Draw the weights of all layers in a format, and make room for operands in it."""
        self._weights = make_operands(self._plan.layout.num_weights, precision, self._device)
        for part in self._weights:
            part.zero_()
        layers, tile_layer, tile_index = (
            self._tables[name] for name in ("layers", "tile_layer", "tile_index")
        )
        draw_weights(*self._weights, layers, tile_layer, tile_index, self._plan.seed)
        size = max(plan.num_operands for plan in self._plan.plans.values())
        self._operands = make_operands(size, precision, self._device)

    def _calibrate_output(self, application: str, pixels: int) -> None:
        (problems,) = self._table(application, "calibrated.exit")
        limits = OUTPUT_BOUND, OUTPUT_ITERATIONS
        calibrate_output(self._sums, self._factor, problems, pixels, *limits)

    def _convolutions(self, application: str, parts: list[Tensor], calibrated: int = 0) -> None:
        """Compute all convolutions; the last one leaves its sums.

        Args:
            application: Name of the application.
            parts: Fields of each part of its plan.
            calibrated: Number of calibration fields, if there are any.
        """
        for number, fields in enumerate(parts):
            pack_fields(fields, *self._operands, *self._table(application, f"offsets.{number}"))
        for step in range(self._plan.plans[application].num_steps):
            names = ("problems", "moments", "finish", "calibrated")
            problems, measured, finished, calibrating = self._table(
                application, *(f"{name}.{step}" for name in names)
            )
            self._convolve(application, str(step))
            if measured.shape[1]:
                moments(self._sums, self._pairs, problems, measured)
            if calibrated:
                calibrate_scales(self._pairs, self._factor, self._shift, calibrating, calibrated)
            finish_layers(
                self._sums,
                self._pairs,
                self._factor,
                self._shift,
                self._mask,
                *self._operands,
                problems,
                finished,
            )
        self._convolve(application, "exit")

    def _convolve(self, application: str, step: str) -> None:
        problems, tile_list = self._table(application, f"problems.{step}", f"convolve.{step}")
        convolve(*self._operands, *self._weights, self._sums, problems, tile_list)
