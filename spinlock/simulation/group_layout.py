"""Places the weights, channels and steps of a group of operators in shared tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.parameter_space import ParameterValues
from spinlock.kernels.layer_table import padded_width
from spinlock.kernels.weight_draws import LayerRow, weight_tiles
from spinlock.simulation.calibration import calibration_shape
from spinlock.simulation.network_layers import Layer, Network, network


class LayerStep(NamedTuple):
    """A layer of an operator, with what follows its convolution.

    Attributes:
        layer: The convolution.
        hidden: Whether normalization, activation and dropout follow.
        source: Which of the two fields of an operator is the input, 0 or 1.
        target: Which of the two receives the result.
        residual: Whether the field `target` is added to the result.
        projection: Convolution of the input that is computed at the same time, and added to the
            result of the next step instead of the field; default: none.
    """

    layer: Layer
    hidden: bool
    source: int = 0
    target: int = 0
    residual: bool = False
    projection: Layer | None = None


def steps_of(layers: Network) -> list[LayerStep]:
    """List the steps of an operator, without the last convolution."""
    steps = [LayerStep(layers.entry, hidden=False)]
    for block in layers.blocks:
        if len(block.convolutions) == 1:
            steps.append(LayerStep(block.convolutions[0], hidden=True))
            continue
        first, second = block.convolutions
        # The block's input stays in field 0 until the shortcut has been added.
        steps.append(LayerStep(first, hidden=True, target=1, projection=block.projection))
        steps.append(LayerStep(second, hidden=True, source=1, residual=True))
    return steps


@dataclass(frozen=True)
class PlacedOperator:
    """An operator of a group, and where its parts are.

    Args:
        values: Parameter values.
        steps: Steps without the last convolution.
        exit: The last convolution.
        weights: Offset of the weights of each layer, by its number.
        channels: Offset of the output channels of each layer, by its number.
    """

    values: ParameterValues
    steps: list[LayerStep]
    exit: Layer
    weights: dict[int, int]
    channels: dict[int, int]


class Member(NamedTuple):
    """An operator of a block.

    Attributes:
        number: Index of the operator.
        values: Parameter values.
        rows: Positions of its samples in the block.
    """

    number: int
    values: ParameterValues
    rows: range

    @property
    def calibration(self) -> tuple[int, int]:
        """Number and side of the calibration fields, which the operators of a group share."""
        return calibration_shape(self.values.grid_size, self.values.kernel_size)


def member_bytes(member: Member, channels: int, realizations: int) -> int:
    """Return the memory that an operator of a group takes, in bytes.

    Args:
        member: The operator.
        channels: Number of channels C of a field.
        realizations: Number of fields of each sample.
    """
    layers = network(member.values, channels)
    count, side = member.calibration
    pixels = member.values.grid_size**2 * realizations * len(member.rows) + count * side**2
    weights = sum(
        layer.kernel**2 * padded_width(layer.fan_in) * padded_width(layer.fan_out)
        for layer in layers.layers()
    )
    # Operands and sums have four bytes each in the largest format.
    return 4 * (pixels * sum(widths_of(steps_of(layers), layers.exit)) + weights)


def widths_of(steps: Sequence[LayerStep], last: Layer) -> tuple[int, int, int, int]:
    """Return the largest numbers of channels of what an operator needs memory for.

    Args:
        steps: Steps of the operator.
        last: The last convolution.

    Returns:
        Numbers of channels of field 0, of field 1, of sums and of projections.
    """
    first, second, projected = [padded_width(steps[0].layer.fan_in)], [0], [0]
    sums = [padded_width(last.fan_out)]
    for step in steps:
        width = padded_width(step.layer.fan_out)
        (second if step.target else first).append(width)
        sums.append(width)
        if step.projection is not None:
            projected.append(padded_width(step.projection.fan_out))
    return max(first), max(second), max(sums), max(projected)


class GroupLayout:
    """Places of all operators of a group.

    Args:
        operators: Index and parameter values of each operator.
        channels: Number of channels C of a field.

    Attributes:
        operators: The operators with their places.
        num_weights: Number of weights in memory.
        num_channels: Number of output channels of all layers in memory.
        widest: Largest number of output channels of a layer.
    """

    def __init__(self, operators: Sequence[tuple[int, ParameterValues]], channels: int) -> None:
        self.operators: list[PlacedOperator] = []
        self.num_weights = self.num_channels = self.widest = 0
        self._rows: list[LayerRow] = []
        self._masks: list[tuple[int, int, int]] = []
        self._limits: list[tuple[float, float]] = []
        for index, values in operators:
            layers = network(values, channels)
            placed = PlacedOperator(values, steps_of(layers), layers.exit, {}, {})
            hidden = {step.layer.number for step in placed.steps if step.hidden}
            for layer in layers.layers():
                rate = values.dropout_rate if layer.number in hidden else 0.0
                self._place(placed, index, layer, rate)
            self.operators.append(placed)

    def _place(self, placed: PlacedOperator, index: int, layer: Layer, rate: float) -> None:
        padded = padded_width(layer.fan_in), padded_width(layer.fan_out)
        sizes = layer.fan_in, layer.fan_out, layer.kernel**2, *padded
        self._rows.append(LayerRow(index, layer.number, *sizes, self.num_weights))
        self._masks.append((layer.fan_out, padded[1], self.num_channels))
        self._limits.append((rate * layer.fan_out, 1 / (1 - rate)))
        placed.weights[layer.number] = self.num_weights
        placed.channels[layer.number] = self.num_channels
        self.num_weights += layer.kernel**2 * padded[0] * padded[1]
        self.num_channels += padded[1]
        self.widest = max(self.widest, layer.fan_out)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the tables of `spinlock.kernels.weight_draws` and of `dropout_masks`."""
        layers = np.array(self._rows, dtype=np.int64)
        tile_layer, tile_index = weight_tiles(layers)
        return {
            "layers": layers,
            "tile_layer": tile_layer,
            "tile_index": tile_index,
            "masks": np.array(self._masks, dtype=np.int64),
            "limits": np.array(self._limits, dtype=np.float32),
        }
