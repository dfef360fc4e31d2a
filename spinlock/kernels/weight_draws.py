"""Draws the weights of a group of operators into one arena, in the format of their arithmetic."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.kernels.kernel_operation import kernel_operation
from spinlock.kernels.layer_table import tiles
from spinlock.kernels.operands import split_operands
from spinlock.kernels.random_draws import philox_words, signed, to_symmetric_uniform

#: Philox blocks of a tile. A block has four words, and a word yields four weights.
WEIGHT_TILE = 256
#: `spinlock.Stream.WEIGHTS`.
WEIGHT_STREAM = 1


class LayerRow(NamedTuple):
    """Row of the table of layers: where the weights of a layer come from and go to.

    Attributes:
        operator: Index of the operator.
        substream: Number of the layer, from 1.
        fan_in: Number of input channels.
        fan_out: Number of output channels.
        taps: Number of pixels of the kernel.
        padded_in: Number of input channels in the arena.
        padded_out: Number of output channels in the arena.
        offset: Position of the layer's first weight in the arena.

    Example:
        >>> row = LayerRow(7, 1, fan_in=3, fan_out=4, taps=9, padded_in=16, padded_out=16, offset=0)
        >>> row.weights
        108
    """

    operator: int
    substream: int
    fan_in: int
    fan_out: int
    taps: int
    padded_in: int
    padded_out: int
    offset: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.taps * self.fan_in * self.fan_out


def weight_tiles(layers: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """List the tiles of work of `draw_weights`.

    Args:
        layers: Table of layers, (L, 8) int64, with the columns of `LayerRow`.

    Returns:
        The row of each tile's layer, and the number of the tile within the layer, both (tiles,)
        int32.

    Example:
        >>> import numpy as np
        >>> sizes = {"fan_in": 64, "fan_out": 32, "padded_in": 64, "padded_out": 32}
        >>> row = LayerRow(7, 1, taps=3, **sizes, offset=0)
        >>> weight_tiles(np.array([row, row]))
        (array([0, 0, 1, 1], dtype=int32), array([0, 1, 0, 1], dtype=int32))
    """
    counts = layers[:, 2] * layers[:, 3] * layers[:, 4]
    tile_layer, tile_index = tiles(-(-counts // (16 * WEIGHT_TILE)))
    return tile_layer, tile_index


def _draw_weights(
    high: Tensor, low: Tensor, layers: Tensor, tile_layer: Tensor, tile_index: Tensor, seed: int
) -> None:
    """Draw weights one tile after another."""
    rows = [LayerRow(*row) for row in layers.tolist()]
    for layer, tile in zip(tile_layer.tolist(), tile_index.tolist(), strict=True):
        row, first = rows[layer], 16 * WEIGHT_TILE * tile
        address = seed % 2**64, WEIGHT_STREAM, row.operator, row.substream
        words = torch.from_numpy(philox_words(address, first // 4, 4 * WEIGHT_TILE))
        numbers = torch.empty(16 * WEIGHT_TILE, dtype=torch.float32, device="cpu")
        to_symmetric_uniform(words, numbers)
        numbers = numbers[: row.weights - first]
        position = torch.arange(first, first + len(numbers), device="cpu")
        output, remainder = position % row.fan_out, position // row.fan_out
        input_, tap = remainder % row.fan_in, remainder // row.fan_in
        place = row.offset + (tap * row.padded_in + input_) * row.padded_out + output
        upper, lower = split_operands(numbers, high.dtype)
        high[place] = upper
        if lower is not None:
            low[place] = lower


_operation = kernel_operation(
    _draw_weights, "philox_kernel.launch_draw_weights", mutates=("high", "low")
)


def draw_weights(
    high: Tensor, low: Tensor, layers: Tensor, tile_layer: Tensor, tile_index: Tensor, seed: int
) -> None:
    """Draw the weights of all layers of a group of operators into an arena.

    The number at a position of ``symmetric_uniform(seed, Stream.WEIGHTS, index, count,
    substream=substream)`` is the weight of an output, an input and a tap; positions count outputs
    first, then inputs, then taps. Its place in the arena is
    ``offset + (tap * padded_in + input) * padded_out + output``. Other places are left as they are.

    The numbers have 17 significant bits, which float16 operands hold exactly; see
    `spinlock.kernels.operands`.

    Args:
        high: Arena of the high parts, (size,) float16, float32 or bfloat16.
        low: Low parts, (size,) float16; empty unless ``high`` is float16.
        layers: Table of layers, (L, 8) int64, with the columns of `LayerRow`. A layer has fewer
            than 2^31 - 4096 weights.
        tile_layer: Row of each tile's layer, (tiles,) int32, from `weight_tiles`.
        tile_index: Number of each tile within its layer, (tiles,) int32, from `weight_tiles`.
        seed: Seed of the dataset, in [0, 2^64).

    Example:
        >>> import numpy as np, torch
        >>> row = LayerRow(3, 2, fan_in=2, fan_out=1, taps=1, padded_in=2, padded_out=2, offset=0)
        >>> table = np.array([row])
        >>> tiles = [torch.from_numpy(part) for part in weight_tiles(table)]
        >>> arena, none = torch.zeros(4), torch.zeros(0, dtype=torch.float16)
        >>> draw_weights(arena, none, torch.from_numpy(table), *tiles, seed=42)
        >>> arena
        tensor([-0.6655,  0.0000, -0.6846,  0.0000])
    """
    _operation(high, low, layers, tile_layer, tile_index, signed(seed))
