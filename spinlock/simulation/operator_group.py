"""Applies many convolutional operators to their fields at once, with one launch for each step.

The results are those of `spinlock.simulation.convolutional_operator.ConvOperator` up to rounding.
They do not depend on which operators are in a group. Drawn weights are never scaled: the factors
that calibration finds are applied to the results of convolutions.
"""

from collections.abc import Sequence

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
from spinlock.simulation.calibration import calibration_fields
from spinlock.simulation.convolutional_operator import OUTPUT_BOUND, OUTPUT_ITERATIONS
from spinlock.simulation.group_layout import GroupLayout
from spinlock.simulation.group_plan import plan_application
from spinlock.simulation.randomness import Stream

_CALIBRATION = "calibration"


class OperatorGroupPlan:
    """What the host prepares for a group of operators; it depends on the design alone.

    Args:
        operators: Index and parameter values of each operator. They share the grid and the size of
            the calibration fields.
        applications: Side of the fields in pixels, and number of fields of each operator, by the
            name of the application.
        seed: Seed of the dataset.
        channels: Number of channels C of a field.
    """

    def __init__(
        self,
        operators: Sequence[tuple[int, ParameterValues]],
        applications: dict[str, tuple[int, Sequence[int]]],
        *,
        seed: int,
        channels: int,
    ) -> None:
        values = operators[0][1]
        self.seed, self.channels, self.num_operators = seed, channels, len(operators)
        self.layout = GroupLayout(operators, channels)
        self.calibration = seed, channels, values.grid_size, values.kernel_size
        fields = calibration_fields(*self.calibration, torch.device("cpu"))
        counts = [len(fields)] * len(operators)
        shape = fields.shape[-1], counts
        self.plans = {_CALIBRATION: plan_application(self.layout, *shape, calibrating=True)} | {
            name: plan_application(self.layout, *shape) for name, shape in applications.items()
        }

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all tables by name."""
        tables = self.layout.arrays()
        for name, plan in self.plans.items():
            tables |= {f"{name}.{key}": array for key, array in plan.arrays.items()}
        return tables


class OperatorGroup:
    """Operators of a group, drawn and calibrated.

    Args:
        plan: What the host has prepared.
        tables: ``plan.arrays()`` on the device of the operators.
        precision: Arithmetic of the convolutions; calibration uses float32.
        clock: Counts the time of the stages ``weights`` and ``calibration``; default: none.
    """

    def __init__(
        self,
        plan: OperatorGroupPlan,
        tables: dict[str, Tensor],
        precision: Precision = "float32",
        clock: StageClock | None = None,
    ) -> None:
        clock = clock or StageClock()
        self._plan, self._tables = plan, tables
        self._device = tables["layers"].device
        plans = plan.plans.values()
        self._sums = self._empty(max(plan.num_sums for plan in plans))
        self._pairs = self._empty(max(plan.num_pairs for plan in plans), 2)
        self._factor = self._empty(plan.layout.num_channels)
        self._shift = self._empty(plan.layout.num_channels)
        self._mask = self._empty(plan.layout.num_channels)
        with clock.stage("weights"):
            self._silence()
            self._draw("float32")
        with clock.stage("calibration"):
            self._calibrate()
        if precision != "float32":
            with clock.stage("weights"):
                self._draw(precision)

    def apply(self, fields: Tensor, application: str) -> Tensor:
        """Apply each operator to its fields.

        Args:
            fields: Fields, (n, C, H, W) float32; those of an operator lie one behind the other.
            application: Name of the application.

        Returns:
            Output fields, of the same shape.
        """
        plan = self._plan.plans[application]
        self._hidden_layers(application, fields)
        out = torch.empty_like(fields)
        problems, tile_list = self._table(application, "problems.exit", "finish.exit")
        bound_output(self._sums, self._factor, out, problems, tile_list, OUTPUT_BOUND)
        assert plan.num_fields == len(fields)
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
        tables = (self._tables[name] for name in ("layers", "tile_layer", "tile_index"))
        draw_weights(*self._weights, *tables, seed=self._plan.seed)
        size = max(plan.num_operands for plan in self._plan.plans.values())
        self._operands = make_operands(size, precision, self._device)

    def _calibrate(self) -> None:
        fields = calibration_fields(*self._plan.calibration, self._device)
        repeated = fields.repeat(self._plan.num_operators, 1, 1, 1)
        self._hidden_layers(_CALIBRATION, repeated, calibrated=len(fields))
        (problems,) = self._table(_CALIBRATION, "problems.exit")
        pixels = len(fields) * fields.shape[-1] ** 2
        limits = OUTPUT_BOUND, OUTPUT_ITERATIONS
        calibrate_output(self._sums, self._factor, problems, pixels, *limits)

    def _hidden_layers(self, application: str, fields: Tensor, calibrated: int = 0) -> None:
        """Compute all convolutions; the last one leaves its sums.

        Args:
            application: Name of the application.
            fields: Fields of all operators.
            calibrated: Number of calibration fields, if layers are calibrated by these fields.
        """
        plan = self._plan.plans[application]
        pack_fields(fields, *self._operands, *self._table(application, "offsets"))
        for step in range(plan.num_steps):
            names = ("problems", "moments", "finish")
            problems, measured, finished = self._table(
                application, *(f"{name}.{step}" for name in names)
            )
            self._convolve(application, str(step))
            if measured.shape[1]:
                moments(self._sums, self._pairs, problems, measured, plan.side)
            if calibrated:
                calibrate_scales(self._pairs, self._factor, self._shift, problems, calibrated)
            finish_layers(
                self._sums,
                self._pairs,
                self._factor,
                self._shift,
                self._mask,
                *self._operands,
                problems,
                finished,
                plan.side,
            )
        self._convolve(application, "exit")

    def _convolve(self, application: str, step: str) -> None:
        problems, tile_list = self._table(application, f"problems.{step}", f"convolve.{step}")
        side = self._plan.plans[application].side
        convolve(*self._operands, *self._weights, self._sums, problems, tile_list, side)
