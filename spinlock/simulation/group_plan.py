"""Plans the application of a group of operators to fields: one launch per step for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spinlock.kernels.grouped_convolution import CONVOLUTION_TILE
from spinlock.kernels.layer_finish import FINISH_TILE
from spinlock.kernels.layer_table import (
    CHANNEL_TILE,
    Activation,
    Column,
    Normalization,
    Shortcut,
    padded_width,
    tiles,
)
from spinlock.simulation.group_layout import GroupLayout, PlacedOperator, widths_of
from spinlock.simulation.network_layers import Layer

_Row = list[int]


@dataclass(frozen=True)
class GroupPlan:
    """Tables of one kind of application, for example of the first timestep.

    Args:
        side: Side of the fields, H = W, in pixels.
        num_fields: Number of fields of all operators.
        num_steps: Number of steps, without the last convolution.
        num_operands: Number of operands.
        num_sums: Number of sums.
        num_pairs: Number of pairs of moments.
        arrays: Tables by name. Of step s: ``problems.s`` of its convolutions, and the lists of
            tiles ``convolve.s``, ``moments.s`` and ``finish.s`` (without projections). The last
            convolution has the name ``exit`` instead of a number. ``offsets`` are those of the
            fields among the operands.
    """

    side: int
    num_fields: int
    num_steps: int
    num_operands: int
    num_sums: int
    num_pairs: int
    arrays: dict[str, NDArray[np.generic]]


def plan_application(
    layout: GroupLayout, side: int, fields: Sequence[int], *, calibrating: bool = False
) -> GroupPlan:
    """Plan an application of the operators of a group.

    Args:
        layout: Places of the operators.
        side: Side of the fields, H = W, in pixels.
        fields: Number of fields of each operator.
        calibrating: Whether the moments of every step are computed, which calibration needs.

    Returns:
        The plan.
    """
    num_steps = max(len(operator.steps) for operator in layout.operators)
    finished: list[list[_Row]] = [[] for _ in range(num_steps)]
    projected: list[list[_Row]] = [[] for _ in range(num_steps)]
    exits: list[_Row] = []
    offsets: list[NDArray[np.int64]] = []
    operands = sums = pairs = first_field = 0
    for operator, count in zip(layout.operators, fields, strict=True):
        pixels = count * side**2
        first, second, summed, projections = widths_of(operator.steps, operator.exit)
        places = _Places(
            fields=(operands, operands + pixels * first),
            sums=sums,
            projection=sums + pixels * summed,
            pairs=(pairs, pairs + count * summed),
            pixels=pixels,
        )
        entry = padded_width(operator.steps[0].layer.fan_in)
        offsets.append(operands + side**2 * entry * np.arange(count))
        for step, (finish, project) in enumerate(zip(finished, projected, strict=False)):
            if step < len(operator.steps):
                rows = _rows(operator, step, places)
                finish.append(rows[0])
                project += rows[1:]
        exits.append(_convolution(operator, operator.exit, 0, places.sums, places))
        exits[-1][Column.RESULT] = first_field
        operands += pixels * (first + second)
        sums += pixels * (summed + projections)
        pairs += count * (summed + projections)
        first_field += count
    arrays: dict[str, NDArray[np.generic]] = {"offsets": np.concatenate(offsets)}
    for step in range(num_steps):
        arrays |= _tables(str(step), finished[step], projected[step], side, calibrating)
    arrays |= _tables("exit", exits, [], side, False)
    return GroupPlan(side, first_field, num_steps, operands, sums, pairs, arrays)


@dataclass(frozen=True)
class _Places:
    """Offsets of the data of an operator: its two fields, sums, projection and moments."""

    fields: tuple[int, int]
    sums: int
    projection: int
    pairs: tuple[int, int]
    pixels: int


def _rows(operator: PlacedOperator, number: int, places: _Places) -> list[_Row]:
    """Return the problem of a step and, if there is one, that of its projection."""
    step = operator.steps[number]
    row = _convolution(operator, step.layer, step.source, places.sums, places)
    row[Column.RESULT] = places.fields[step.target]
    if step.hidden:
        row[Column.ACTIVATION] = Activation[operator.values.activation.upper()]
        row[Column.NORMALIZATION] = Normalization[operator.values.normalization.upper()]
    if step.residual:
        projection = operator.steps[number - 1].projection
        if projection is None:
            row[Column.SHORTCUT] = Shortcut.IDENTITY
            row[Column.SHORTCUT_DATA] = places.fields[step.target]
        else:
            row[Column.SHORTCUT] = Shortcut.PROJECTION
            row[Column.SHORTCUT_DATA] = places.projection
            row[Column.SHORTCUT_CHANNELS] = operator.channels[projection.number]
    if step.projection is None:
        return [row]
    projected = _convolution(operator, step.projection, step.source, places.projection, places)
    projected[Column.MOMENTS] = places.pairs[1]
    return [row, projected]


def _convolution(
    operator: PlacedOperator, layer: Layer, source: int, sums: int, places: _Places
) -> _Row:
    """Return the problem of a convolution that nothing follows."""
    row = [0] * len(Column)
    row[Column.INPUT] = places.fields[source]
    row[Column.WEIGHTS] = operator.weights[layer.number]
    row[Column.SUMS] = sums
    row[Column.FAN_IN] = padded_width(layer.fan_in)
    row[Column.FAN_OUT] = padded_width(layer.fan_out)
    row[Column.WIDTH] = layer.fan_out
    row[Column.KERNEL] = layer.kernel
    row[Column.PIXELS] = places.pixels
    row[Column.CHANNELS] = operator.channels[layer.number]
    row[Column.MOMENTS] = places.pairs[0]
    return row


def _tables(
    name: str, finished: list[_Row], projected: list[_Row], side: int, calibrating: bool
) -> dict[str, NDArray[np.generic]]:
    """Return the tables of a step."""
    # Tiles of long sums come first, so that the processors finish at about the same time.
    finished.sort(key=lambda row: -(row[Column.KERNEL] ** 2) * row[Column.FAN_IN])
    problems = np.array(finished + projected, dtype=np.int64)
    pixels, outputs = CONVOLUTION_TILE
    count, width = problems[:, Column.PIXELS], problems[:, Column.FAN_OUT]
    normalized = problems[:, Column.NORMALIZATION] == Normalization.INSTANCE
    fields = count // side**2 * (normalized | calibrating)
    own = slice(len(finished))
    return {
        f"problems.{name}": problems,
        f"convolve.{name}": tiles(-(-count // pixels) * -(-width // outputs)),
        f"finish.{name}": tiles(-(-count[own] // FINISH_TILE[0]) * (width[own] // FINISH_TILE[1])),
        f"moments.{name}": tiles(fields * (width // CHANNEL_TILE)),
    }
