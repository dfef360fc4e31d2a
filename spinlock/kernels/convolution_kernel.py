"""Triton kernel of the convolutions of many operators in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from spinlock.kernels.grouped_convolution import CONVOLUTION_TILE
from spinlock.kernels.layer_table import CHANNEL_TILE, Column
from spinlock.kernels.operands import LOW_SCALE

_INPUT = tl.constexpr(int(Column.INPUT))
_WEIGHTS = tl.constexpr(int(Column.WEIGHTS))
_SUMS = tl.constexpr(int(Column.SUMS))
_FAN_IN = tl.constexpr(int(Column.FAN_IN))
_FAN_OUT = tl.constexpr(int(Column.FAN_OUT))
_KERNEL = tl.constexpr(int(Column.KERNEL))
_PIXELS = tl.constexpr(int(Column.PIXELS))
_SIDE = tl.constexpr(int(Column.SIDE))
_COLUMNS = tl.constexpr(len(Column))
_LOW_SCALE = tl.constexpr(LOW_SCALE)


#: Sizes of tiles, and number of tiles of the inner loop that are loaded ahead.
CONSTANTS = {
    "PIXEL_TILE": CONVOLUTION_TILE[0],
    "OUTPUT_TILE": CONVOLUTION_TILE[1],
    "INPUT_TILE": CHANNEL_TILE,
    "STAGES": 4,
}
OPTIONS = {"num_warps": 4}


@triton.jit(do_not_specialize_on_alignment=["tile_problem", "tile_index"])
def convolution_kernel(
    x_high,
    x_low,
    w_high,
    w_low,
    sums,
    problems,
    tile_problem,
    tile_index,
    SPLIT: tl.constexpr,
    PIXEL_TILE: tl.constexpr,
    OUTPUT_TILE: tl.constexpr,
    INPUT_TILE: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Compute one tile of pixels and output channels of one problem.

    The products of a tile are summed in the order of taps, then input channels. The order does not
    depend on the other problems of the launch.
    """
    tile = tl.program_id(0)
    row = problems + tl.load(tile_problem + tile).to(tl.int64) * _COLUMNS
    index = tl.load(tile_index + tile)
    # Offsets and numbers of channels are multiples of 16, which allows wide loads.
    x_offset = tl.multiple_of(tl.load(row + _INPUT), 16)
    w_offset = tl.multiple_of(tl.load(row + _WEIGHTS), 16)
    y_offset = tl.multiple_of(tl.load(row + _SUMS), 16)
    fan_in = tl.multiple_of(tl.load(row + _FAN_IN).to(tl.int32), 16)
    fan_out = tl.multiple_of(tl.load(row + _FAN_OUT).to(tl.int32), 16)
    kernel = tl.load(row + _KERNEL).to(tl.int32)
    count = tl.load(row + _PIXELS).to(tl.int32)
    side = tl.load(row + _SIDE).to(tl.int32)

    columns = tl.cdiv(fan_out, OUTPUT_TILE)
    pixel = (index // columns) * PIXEL_TILE + tl.arange(0, PIXEL_TILE)
    output = (index % columns) * OUTPUT_TILE + tl.arange(0, OUTPUT_TILE)
    channel = tl.arange(0, INPUT_TILE)
    # Rows beyond the last pixel repeat it, and are not stored.
    inside = tl.minimum(pixel, count - 1)
    field = inside // (side * side) * (side * side)
    y = inside // side % side
    x = inside % side
    margin = kernel // 2
    steps = fan_in // INPUT_TILE
    acc = tl.zeros((PIXEL_TILE, OUTPUT_TILE), tl.float32)
    rest = tl.zeros((PIXEL_TILE, OUTPUT_TILE), tl.float32)
    for step in tl.range(0, kernel * kernel * steps, num_stages=STAGES):
        tap = step // steps
        first = (step % steps) * INPUT_TILE
        y_from = y + tap // kernel - margin
        x_from = x + tap % kernel - margin
        y_from = tl.where(y_from < 0, y_from + side, tl.where(y_from < side, y_from, y_from - side))
        x_from = tl.where(x_from < 0, x_from + side, tl.where(x_from < side, x_from, x_from - side))
        row_from = (field + y_from * side + x_from).to(tl.int64)
        source = row_from[:, None] * fan_in + (first + channel)[None, :]
        weight = (step * INPUT_TILE + channel)[:, None] * fan_out + output[None, :]
        kept = (output < fan_out)[None, :]
        a = tl.load(x_high + (x_offset + source))
        b = tl.load(w_high + (w_offset + weight), mask=kept, other=0.0)
        acc = tl.dot(a, b, acc, input_precision="tf32")
        if SPLIT:
            # The product of the two low halves is below the rounding of float32.
            a_low = tl.load(x_low + (x_offset + source))
            b_low = tl.load(w_low + (w_offset + weight), mask=kept, other=0.0)
            rest = tl.dot(a_low, b, rest)
            rest = tl.dot(a, b_low, rest)
    if SPLIT:
        acc += rest / _LOW_SCALE
    target = sums + y_offset + pixel[:, None].to(tl.int64) * fan_out + output[None, :]
    tl.store(target, acc, mask=(pixel < count)[:, None] & (output < fan_out)[None, :])


def launch_convolve(
    high: Tensor,
    low: Tensor,
    weights_high: Tensor,
    weights_low: Tensor,
    sums: Tensor,
    problems: Tensor,
    tile_list: Tensor,
) -> None:
    """Launch the kernel; see `spinlock.kernels.grouped_convolution.convolve`."""
    convolution_kernel[(tile_list.shape[1],)](
        high,
        low,
        weights_high,
        weights_low,
        sums,
        problems,
        tile_list[0],
        tile_list[1],
        SPLIT=high.dtype == torch.float16,
        **CONSTANTS,
        **OPTIONS,
    )
