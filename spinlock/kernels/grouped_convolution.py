"""Convolutions of many operators in one launch, of fields in the layout (pixels, channels).

Each operation works on the data of all operators of a group, which lie one behind the other in
flat tensors. A table (`spinlock.kernels.layer_table`) lists the problems of a launch, and a list of
tiles divides them among the processors of a device.
"""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from spinlock.kernels.kernel_operation import kernel_operation
from spinlock.kernels.layer_table import Column, padded_width, rows_of
from spinlock.kernels.operands import read_operands, write_operands

#: Pixels and output channels of a tile of `convolve`.
CONVOLUTION_TILE = 128, 64


def _pack_fields(fields: Tensor, high: Tensor, low: Tensor, offsets: Tensor) -> None:
    """Store fields as operands in the layout (pixels, channels).

    Args:
        fields: Fields, (n, C, H, W) float32.
        high: High parts of the operands, see `spinlock.kernels.operands`.
        low: Low parts.
        offsets: Offset of each field among the operands, (n,) int64.
    """
    channels = fields.shape[1]
    last_channel = fields.flatten(2).transpose(1, 2)
    values = F.pad(last_channel, (0, padded_width(channels) - channels)).flatten(1)
    for row, offset in zip(values, offsets.tolist(), strict=True):
        part = slice(offset, offset + len(row))
        write_operands(row, high[part], low[part])


def _convolve(
    high: Tensor,
    low: Tensor,
    weights_high: Tensor,
    weights_low: Tensor,
    sums: Tensor,
    problems: Tensor,
    tile_list: Tensor,
) -> None:
    """Compute periodic cross-correlations.

    Args:
        high: High parts of the fields, see `spinlock.kernels.operands`.
        low: Low parts of the fields.
        weights_high: High parts of the weights.
        weights_low: Low parts of the weights.
        sums: Tensor that receives the results, float32.
        problems: Table of problems, (n, columns) int64.
        tile_list: Tiles of `CONVOLUTION_TILE` elements, from `tiles`, (2, number of tiles) int32.
    """
    for row in rows_of(problems, tile_list):
        fan_in, fan_out, kernel = (row[c] for c in (Column.FAN_IN, Column.FAN_OUT, Column.KERNEL))
        side = row[Column.SIDE]
        fields = row[Column.PIXELS] // side**2
        x = _part(high, low, row[Column.INPUT], (fields, side, side, fan_in))
        w = _part(weights_high, weights_low, row[Column.WEIGHTS], (kernel, kernel, fan_in, fan_out))
        # float64 makes this the exact result, to the rounding of float32.
        x, w = x.double().permute(0, 3, 1, 2), w.double().permute(3, 2, 0, 1)
        columns = F.unfold(F.pad(x, (kernel // 2,) * 4, mode="circular"), kernel)
        y = (w.flatten(1) @ columns).transpose(1, 2)
        start = row[Column.SUMS]
        sums[start : start + y.numel()] = y.flatten().float()


def _part(high: Tensor, low: Tensor, start: int, shape: tuple[int, ...]) -> Tensor:
    """Return the values of some operands."""
    size = int(np.prod(shape))
    part = slice(start, start + size)
    return read_operands(high[part], low[part]).view(shape)


pack_fields = kernel_operation(
    _pack_fields, "packing_kernel.launch_pack_fields", mutates=("high", "low")
)
convolve = kernel_operation(_convolve, "convolution_kernel.launch_convolve", mutates=("sums",))
