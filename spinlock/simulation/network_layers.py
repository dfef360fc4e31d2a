"""Lists the convolutions of a random network: their sizes, numbers and gains."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spinlock.configuration.parameter_space import ParameterValues

# Networks with more blocks are residual, because deep plain stacks lose their input.
MAX_PLAIN_LAYERS = 3
_MAX_WIDTH_FACTOR = 4

#: Activations by name; those that can change their argument do.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu_,
    "gelu": F.gelu,
    "silu": lambda x: F.silu(x, inplace=True),
}


class Layer(NamedTuple):
    """A convolution of a network.

    Attributes:
        number: Position among the convolutions of the operator, from 1. It is the substream of
            their random numbers.
        fan_in: Number of input channels.
        fan_out: Number of output channels.
        kernel: Side of the kernel in pixels.
        gain: Factor of the standard deviation of the drawn weights.
    """

    number: int
    fan_in: int
    fan_out: int
    kernel: int
    gain: float

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.fan_in * self.fan_out * self.kernel**2


class Block(NamedTuple):
    """A hidden block.

    Attributes:
        convolutions: One convolution, or two if the block is residual.
        projection: The 1x1 convolution in the shortcut of a residual block; None for the identity.
    """

    convolutions: tuple[Layer, ...]
    projection: Layer | None


class Network(NamedTuple):
    """All convolutions of an operator.

    Attributes:
        entry: Convolution of the field.
        blocks: Hidden blocks.
        exit: Convolution to the channels of the field, 1x1.
    """

    entry: Layer
    blocks: tuple[Block, ...]
    exit: Layer

    def layers(self) -> Iterator[Layer]:
        """Iterate over the convolutions in the order of their numbers."""
        yield self.entry
        for block in self.blocks:
            yield from block.convolutions
            if block.projection is not None:
                yield block.projection
        yield self.exit


def network(values: ParameterValues, channels: int) -> Network:
    """Return the convolutions of an operator, including channels that dropout silences.

    Args:
        values: Parameter values of the operator.
        channels: Number of channels C of a field.

    Example:
        >>> from spinlock import GenerationConfig
        >>> from spinlock.configuration.parameter_space import typed_row
        >>> from spinlock.simulation.sobol_design import make_design
        >>> values = typed_row(make_design(GenerationConfig(4)).values[0])
        >>> [layer.fan_out for layer in network(values, 3).layers()]
        [48, 48, 96, 3]
    """
    widths, gain = hidden_widths(values), variance_preserving_gain(values.activation)
    side, number = values.kernel_size, 1

    def layer(fan_in: int, fan_out: int, kernel: int, gain: float) -> Layer:
        nonlocal number
        number += 1
        return Layer(number, fan_in, fan_out, kernel, gain)

    blocks = []
    for width_in, width in zip([widths[0], *widths[:-1]], widths, strict=True):
        convolutions, projection = [layer(width_in, width, side, gain)], None
        if values.num_layers > MAX_PLAIN_LAYERS:
            convolutions.append(layer(width, width, side, gain))
            if width_in != width:
                projection = layer(width_in, width, 1, 1.0)
        blocks.append(Block(tuple(convolutions), projection))
    entry = Layer(1, channels, widths[0], side, 1.0)
    return Network(entry, tuple(blocks), layer(widths[-1], channels, 1, 1.0))


def hidden_widths(values: ParameterValues) -> list[int]:
    """Return the number of channels of each hidden block, B * min(2^i, 4)."""
    blocks = range(1, values.num_layers + 1)
    return [largest_width(values.base_channels, count) for count in blocks]


def largest_width(base_channels: int, num_layers: int) -> int:
    """Return the number of channels of the last block, B * min(2^(n - 1), 4), which is the widest.

    Args:
        base_channels: Number of channels B of the first block.
        num_layers: Number of blocks n.
    """
    return base_channels * min(1 << (num_layers - 1), _MAX_WIDTH_FACTOR)


@cache
def variance_preserving_gain(activation: str) -> float:
    """Return 1 / sqrt(E f(z)^2) for the activation f and standard normal z.

    Args:
        activation: Name of the activation: ``relu``, ``gelu`` or ``silu``.

    Returns:
        The gain, computed by quadrature.

    Example:
        >>> round(variance_preserving_gain("relu") ** 2, 4)
        2.0
    """
    nodes = torch.linspace(-12, 12, 200_001, dtype=torch.float64, device="cpu")
    density = (-0.5 * nodes.square()).exp() / math.sqrt(2 * math.pi)
    activated = ACTIVATIONS[activation](nodes.clone())
    second_moment = torch.trapezoid(activated.square() * density, nodes)
    return 1 / math.sqrt(second_moment)
