"""Plans the application of a group of operators to fields: one launch per step for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


class Part(NamedTuple):
    """Fields that operators are applied to.

    Attributes:
        side: Side of the fields, H = W, in pixels.
        fields: Number of fields of each operator.
        calibrating: Whether the operators are calibrated by these fields.
    """

    side: int
    fields: Sequence[int]
    calibrating: bool = False


@dataclass(frozen=True)
class GroupPlan:
    """Tables of one kind of application, for example of the first timestep.

    Args:
        num_steps: Number of steps, without the last convolution.
        num_operands: Number of operands.
        num_sums: Number of sums.
        num_pairs: Number of pairs of moments.
        arrays: Tables by name. Of step s: ``problems.s`` of its convolutions; the lists of tiles
            ``convolve.s``, ``moments.s`` and ``finish.s``, which leaves out projections; and the
            problems ``calibrated.s`` of the calibration fields. The last convolution has the name
            ``exit`` instead of a number, and its list ``finish.exit`` leaves out the calibration
            fields. ``offsets.p`` are those of the fields of part p among the operands.
    """

    num_steps: int
    num_operands: int
    num_sums: int
    num_pairs: int
    arrays: dict[str, NDArray[np.generic]]


class _Problem(NamedTuple):
    """A row of the table of problems, and what follows its convolution."""

    row: _Row
    calibrating: bool
    finished: bool


def plan_application(layout: GroupLayout, parts: Sequence[Part]) -> GroupPlan:
    """Plan an application of the operators of a group.

    Args:
        layout: Places of the operators.
        parts: Fields to apply them to.

    Returns:
        The plan.
    """
    num_steps = max(len(operator.steps) for operator in layout.operators)
    steps: list[list[_Problem]] = [[] for _ in range(num_steps)]
    exits: list[_Problem] = []
    arrays: dict[str, NDArray[np.generic]] = {}
    operands = sums = pairs = 0
    for number, part in enumerate(parts):
        offsets: list[NDArray[np.int64]] = []
        first_field = 0
        for operator, count in zip(layout.operators, part.fields, strict=True):
            pixels = count * part.side**2
            first, second, summed, projections = widths_of(operator.steps, operator.exit)
            places = _Places(
                fields=(operands, operands + pixels * first),
                sums=sums,
                projection=sums + pixels * summed,
                pairs=(pairs, pairs + count * summed),
                pixels=pixels,
                side=part.side,
            )
            entry = padded_width(operator.steps[0].layer.fan_in)
            offsets.append(operands + part.side**2 * entry * np.arange(count))
            # Operators with fewer steps than others wait for the last convolution.
            for step in range(len(operator.steps)):
                own, *projected = _rows(operator, step, places)
                steps[step].append(_Problem(own, part.calibrating, finished=True))
                steps[step] += [_Problem(row, part.calibrating, False) for row in projected]
            last = _convolution(operator, operator.exit, 0, places.sums, places)
            last[Column.RESULT] = first_field
            exits.append(_Problem(last, part.calibrating, finished=not part.calibrating))
            operands += pixels * (first + second)
            sums += pixels * (summed + projections)
            pairs += count * (summed + projections)
            first_field += count
        arrays[f"offsets.{number}"] = np.concatenate(offsets)
    for step in range(num_steps):
        arrays |= _tables(str(step), steps[step], moments=True)
    arrays |= _tables("exit", exits, moments=False)
    return GroupPlan(num_steps, operands, sums, pairs, arrays)


@dataclass(frozen=True)
class _Places:
    """Offsets of the data of an operator: its two fields, sums, projection and moments."""

    fields: tuple[int, int]
    sums: int
    projection: int
    pairs: tuple[int, int]
    pixels: int
    side: int


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
    row[Column.SIDE] = places.side
    return row


def _tables(
    name: str, problems: list[_Problem], *, moments: bool
) -> dict[str, NDArray[np.generic]]:
    """Return the tables of a step."""
    # Tiles of long sums come first, so that the processors finish at about the same time.
    problems.sort(key=lambda own: -(own.row[Column.KERNEL] ** 2) * own.row[Column.FAN_IN])
    rows = np.array([own.row for own in problems], dtype=np.int64)
    calibrating = np.array([own.calibrating for own in problems])
    finished = np.array([own.finished for own in problems])
    pixels, outputs = CONVOLUTION_TILE
    count, width = rows[:, Column.PIXELS], rows[:, Column.FAN_OUT]
    normalized = rows[:, Column.NORMALIZATION] == Normalization.INSTANCE
    fields = count // rows[:, Column.SIDE] ** 2 * (moments & (normalized | calibrating))
    return {
        f"problems.{name}": rows,
        f"calibrated.{name}": rows[calibrating],
        f"convolve.{name}": tiles(-(-count // pixels) * -(-width // outputs)),
        f"finish.{name}": tiles(-(-count // FINISH_TILE[0]) * (width // FINISH_TILE[1]) * finished),
        f"moments.{name}": tiles(fields * (width // CHANNEL_TILE)),
    }
