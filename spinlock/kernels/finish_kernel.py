"""Triton kernels that finish layers and outputs."""

import triton
import triton.language as tl
from torch import Tensor

from spinlock.kernels.layer_finish import FINISH_TILE
from spinlock.kernels.layer_table import VARIANCE_FLOOR, Activation, Column, Normalization, Shortcut
from spinlock.kernels.packing_kernel import load_operands, store_operands

_SUMS = tl.constexpr(int(Column.SUMS))
_RESULT = tl.constexpr(int(Column.RESULT))
_SHORTCUT = tl.constexpr(int(Column.SHORTCUT))
_SHORTCUT_DATA = tl.constexpr(int(Column.SHORTCUT_DATA))
_SHORTCUT_CHANNELS = tl.constexpr(int(Column.SHORTCUT_CHANNELS))
_FAN_OUT = tl.constexpr(int(Column.FAN_OUT))
_WIDTH = tl.constexpr(int(Column.WIDTH))
_PIXELS = tl.constexpr(int(Column.PIXELS))
_CHANNELS = tl.constexpr(int(Column.CHANNELS))
_SIDE = tl.constexpr(int(Column.SIDE))
_MOMENTS = tl.constexpr(int(Column.MOMENTS))
_ACTIVATION = tl.constexpr(int(Column.ACTIVATION))
_NORMALIZATION = tl.constexpr(int(Column.NORMALIZATION))
_COLUMNS = tl.constexpr(len(Column))
_INSTANCE = tl.constexpr(int(Normalization.INSTANCE))
_RELU = tl.constexpr(int(Activation.RELU))
_GELU = tl.constexpr(int(Activation.GELU))
_SILU = tl.constexpr(int(Activation.SILU))
_IDENTITY = tl.constexpr(int(Shortcut.IDENTITY))
_PROJECTION = tl.constexpr(int(Shortcut.PROJECTION))
_FLOOR = tl.constexpr(VARIANCE_FLOOR)
_ROOT_HALF = tl.constexpr(0.7071067811865476)
OPTIONS = {"num_warps": 8}
#: Elements that a program of the calibration of outputs loads at a time.
OUTPUT_BLOCK = 1024


@triton.jit
def _tile(row, index, PIXEL_TILE: tl.constexpr, CHANNEL_TILE: tl.constexpr):
    """Return the pixels, the channels and the positions of the elements of a tile."""
    fan_out = tl.load(row + _FAN_OUT).to(tl.int32)
    blocks = fan_out // CHANNEL_TILE
    pixel = (index // blocks) * PIXEL_TILE + tl.arange(0, PIXEL_TILE)
    channel = (index % blocks) * CHANNEL_TILE + tl.arange(0, CHANNEL_TILE)
    return pixel, channel, pixel[:, None].to(tl.int64) * fan_out + channel[None, :]


@triton.jit
def _bounded(x, bound):
    """Compute b tanh(x / b)."""
    small = tl.exp(-2.0 * tl.abs(x / bound))
    magnitude = bound * ((1.0 - small) / (1.0 + small))
    return tl.where(x < 0, -magnitude, magnitude)


@triton.jit(do_not_specialize_on_alignment=["tile_problem", "tile_index"])
def finish_kernel(
    sums,
    pairs,
    factor,
    shift,
    mask,
    high,
    low,
    problems,
    tile_problem,
    tile_index,
    PIXEL_TILE: tl.constexpr,
    CHANNEL_TILE: tl.constexpr,
):
    """Finish one tile of one problem."""
    tile = tl.program_id(0)
    row = problems + tl.load(tile_problem + tile).to(tl.int64) * _COLUMNS
    pixel, channel, position = _tile(row, tl.load(tile_index + tile), PIXEL_TILE, CHANNEL_TILE)
    inside = (pixel < tl.load(row + _PIXELS))[:, None] & (channel >= 0)[None, :]
    channels = tl.load(row + _CHANNELS) + channel
    scale = tl.load(factor + channels)[None, :]
    y = tl.load(sums + tl.load(row + _SUMS) + position, mask=inside, other=0.0)
    if tl.load(row + _NORMALIZATION) == _INSTANCE:
        fan_out = tl.load(row + _FAN_OUT).to(tl.int32)
        side = tl.load(row + _SIDE).to(tl.int32)
        pair = (pixel // (side * side))[:, None] * fan_out + channel[None, :]
        place = pairs + 2 * (tl.load(row + _MOMENTS) + pair)
        mean = tl.load(place, mask=inside, other=0.0)
        variance = tl.load(place + 1, mask=inside, other=0.0)
        y = (y - mean) * (scale / tl.sqrt(scale * scale * variance + _FLOOR))
    else:
        y = y * scale + tl.load(shift + channels)[None, :]
    activation = tl.load(row + _ACTIVATION)
    if activation == _RELU:
        # Unlike a maximum, the comparison preserves NaN.
        y = tl.where(y < 0, 0.0, y)
    elif activation == _GELU:
        y = 0.5 * y * (1.0 + tl.erf(y * _ROOT_HALF))
    elif activation == _SILU:
        y = y / (1.0 + tl.exp(-y))
    y = y * tl.load(mask + channels)[None, :]
    shortcut = tl.load(row + _SHORTCUT)
    given = tl.load(row + _SHORTCUT_DATA) + position
    if shortcut == _IDENTITY:
        y += load_operands(high, low, given, inside)
    elif shortcut == _PROJECTION:
        own = tl.load(factor + tl.load(row + _SHORTCUT_CHANNELS) + channel)
        y += tl.load(sums + given, mask=inside, other=0.0) * own[None, :]
    store_operands(high, low, tl.load(row + _RESULT) + position, y, inside)


@triton.jit(do_not_specialize_on_alignment=["tile_problem", "tile_index"])
def output_kernel(
    sums,
    factor,
    fields,
    problems,
    tile_problem,
    tile_index,
    bound,
    SIZE: tl.constexpr,
    PIXEL_TILE: tl.constexpr,
    CHANNEL_TILE: tl.constexpr,
):
    """Write the output of one tile of one problem."""
    tile = tl.program_id(0)
    row = problems + tl.load(tile_problem + tile).to(tl.int64) * _COLUMNS
    pixel, channel, position = _tile(row, tl.load(tile_index + tile), PIXEL_TILE, CHANNEL_TILE)
    width = tl.load(row + _WIDTH)
    inside = (pixel < tl.load(row + _PIXELS))[:, None] & (channel < width)[None, :]
    x = tl.load(sums + tl.load(row + _SUMS) + position, mask=inside, other=0.0)
    y = _bounded(x * tl.load(factor + tl.load(row + _CHANNELS)), bound)
    field = tl.load(row + _RESULT) + pixel // SIZE
    target = (field * width)[:, None] + channel[None, :]
    tl.store(fields + target * SIZE + (pixel % SIZE)[:, None], y, mask=inside)


@triton.jit
def output_calibration_kernel(
    sums,
    factor,
    problems,
    pixels,
    bound,
    ITERATIONS: tl.constexpr,
    CHANNEL_TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Calibrate the output of one problem."""
    row = problems + tl.program_id(0).to(tl.int64) * _COLUMNS
    fan_out = tl.load(row + _FAN_OUT).to(tl.int32)
    width = tl.load(row + _WIDTH).to(tl.int32)
    given = sums + tl.load(row + _SUMS)
    count = pixels * fan_out
    scale = tl.full((), 1.0, tl.float32)
    for iteration in tl.static_range(ITERATIONS + 1):
        total = tl.zeros((BLOCK,), tl.float32)
        for first in tl.range(0, count, BLOCK):
            element = first + tl.arange(0, BLOCK)
            inside = (element < count) & (element % fan_out < width)
            x = tl.load(given + element, mask=inside, other=0.0)
            # The first pass makes the RMS of x itself 1.
            if iteration > 0:
                x = _bounded(x * scale, bound)
            total += x * x
        scale = scale / tl.sqrt(tl.sum(total, axis=0) / (pixels * width).to(tl.float32))
    for first in tl.range(0, fan_out, CHANNEL_TILE):
        channel = tl.load(row + _CHANNELS) + first + tl.arange(0, CHANNEL_TILE)
        tl.store(factor + channel, scale + tl.zeros((CHANNEL_TILE,), tl.float32))


def launch_finish_layers(
    sums: Tensor,
    pairs: Tensor,
    factor: Tensor,
    shift: Tensor,
    mask: Tensor,
    high: Tensor,
    low: Tensor,
    problems: Tensor,
    tile_list: Tensor,
) -> None:
    """Launch the kernel; see `spinlock.kernels.layer_finish.finish_layers`."""
    pixels, channels = FINISH_TILE
    finish_kernel[(tile_list.shape[1],)](
        sums,
        pairs,
        factor,
        shift,
        mask,
        high,
        low,
        problems,
        tile_list[0],
        tile_list[1],
        PIXEL_TILE=pixels,
        CHANNEL_TILE=channels,
        **OPTIONS,
    )


def launch_bound_output(
    sums: Tensor, factor: Tensor, fields: Tensor, problems: Tensor, tile_list: Tensor, bound: float
) -> None:
    """Launch the kernel; see `spinlock.kernels.bounded_output.bound_output`."""
    pixels, channels = FINISH_TILE
    output_kernel[(tile_list.shape[1],)](
        sums,
        factor,
        fields,
        problems,
        tile_list[0],
        tile_list[1],
        bound,
        SIZE=fields.shape[-1] * fields.shape[-2],
        PIXEL_TILE=pixels,
        CHANNEL_TILE=channels,
    )


def launch_calibrate_output(
    sums: Tensor, factor: Tensor, problems: Tensor, pixels: int, bound: float, iterations: int
) -> None:
    """Launch the kernel; see `spinlock.kernels.bounded_output.calibrate_output`."""
    output_calibration_kernel[(len(problems),)](
        sums,
        factor,
        problems,
        pixels,
        bound,
        ITERATIONS=iterations,
        CHANNEL_TILE=FINISH_TILE[1],
        BLOCK=OUTPUT_BLOCK,
    )
