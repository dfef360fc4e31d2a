"""Triton kernels of moments of channels, and of the calibration that uses them."""

import triton
import triton.language as tl
from torch import Tensor

from spinlock.kernels.layer_table import CHANNEL_TILE, VARIANCE_FLOOR, Column, Normalization

_SUMS = tl.constexpr(int(Column.SUMS))
_FAN_OUT = tl.constexpr(int(Column.FAN_OUT))
_WIDTH = tl.constexpr(int(Column.WIDTH))
_CHANNELS = tl.constexpr(int(Column.CHANNELS))
_SIDE = tl.constexpr(int(Column.SIDE))
_MOMENTS = tl.constexpr(int(Column.MOMENTS))
_NORMALIZATION = tl.constexpr(int(Column.NORMALIZATION))
_COLUMNS = tl.constexpr(len(Column))
_BATCH = tl.constexpr(int(Normalization.BATCH))
_TILE = tl.constexpr(CHANNEL_TILE)
_FLOOR = tl.constexpr(VARIANCE_FLOOR)
#: Pixels, and channels, that a program loads at a time.
MOMENTS_PIXELS, CALIBRATION_BLOCK = 128, 64


@triton.jit(do_not_specialize_on_alignment=["tile_problem", "tile_index"])
def moments_kernel(sums, out, problems, tile_problem, tile_index, PIXELS: tl.constexpr):
    """Compute the moments of 16 channels of one field in two passes."""
    tile = tl.program_id(0)
    row = problems + tl.load(tile_problem + tile).to(tl.int64) * _COLUMNS
    index = tl.load(tile_index + tile)
    fan_out = tl.load(row + _FAN_OUT)
    side = tl.load(row + _SIDE).to(tl.int32)
    size = side * side
    blocks = fan_out.to(tl.int32) // _TILE
    field = (index // blocks).to(tl.int64)
    channel = (index % blocks) * _TILE + tl.arange(0, _TILE)
    pixel = tl.arange(0, PIXELS)
    base = sums + tl.load(row + _SUMS) + field * size * fan_out
    place = base + pixel[:, None].to(tl.int64) * fan_out + channel[None, :]
    total = tl.zeros((PIXELS, _TILE), tl.float32)
    for first in tl.range(0, size, PIXELS):
        inside = (pixel + first < size)[:, None]
        total += tl.load(place + first * fan_out, mask=inside, other=0.0)
    mean = tl.sum(total, axis=0) / size
    total = tl.zeros((PIXELS, _TILE), tl.float32)
    for first in tl.range(0, size, PIXELS):
        inside = (pixel + first < size)[:, None]
        value = tl.load(place + first * fan_out, mask=inside, other=0.0)
        deviation = tl.where(inside, value - mean[None, :], 0.0)
        total += deviation * deviation
    variance = tl.sum(total, axis=0) / size
    target = out + 2 * (tl.load(row + _MOMENTS) + field * fan_out + channel)
    tl.store(target, mean)
    tl.store(target + 1, variance)


@triton.jit(do_not_specialize=["fields"])
def calibration_kernel(
    pairs,
    factor,
    shift,
    problems,
    fields: tl.int32,
    BLOCK: tl.constexpr,
):
    """Calibrate one problem; sums of moments are float64."""
    row = problems + tl.program_id(0).to(tl.int64) * _COLUMNS
    fan_out = tl.load(row + _FAN_OUT).to(tl.int32)
    width = tl.load(row + _WIDTH)
    given = pairs + 2 * tl.load(row + _MOMENTS)
    total = tl.zeros((BLOCK,), tl.float64)
    for first in tl.range(0, fan_out, BLOCK):
        channel = first + tl.arange(0, BLOCK)
        inside = channel < fan_out
        for field in tl.range(0, fields):
            place = given + 2 * (field * fan_out + channel)
            mean = tl.load(place, mask=inside, other=0.0).to(tl.float64)
            variance = tl.load(place + 1, mask=inside, other=0.0).to(tl.float64)
            total += variance + mean * mean
    power = tl.sum(total, axis=0) / (fields * width).to(tl.float64)
    scale = 1.0 / tl.sqrt(power)
    batch = tl.load(row + _NORMALIZATION) == _BATCH
    for first in tl.range(0, fan_out, BLOCK):
        channel = first + tl.arange(0, BLOCK)
        inside = channel < fan_out
        center = tl.zeros((BLOCK,), tl.float64)
        for field in tl.range(0, fields):
            place = given + 2 * (field * fan_out + channel)
            center += tl.load(place, mask=inside, other=0.0).to(tl.float64)
        center = center / fields
        spread = tl.zeros((BLOCK,), tl.float64)
        for field in tl.range(0, fields):
            place = given + 2 * (field * fan_out + channel)
            mean = tl.load(place, mask=inside, other=0.0).to(tl.float64)
            variance = tl.load(place + 1, mask=inside, other=0.0).to(tl.float64)
            spread += variance + (mean - center) * (mean - center)
        spread = spread / fields
        normalized = scale / tl.sqrt(scale * scale * spread + _FLOOR)
        channels = tl.load(row + _CHANNELS) + channel
        own = tl.where(batch, normalized, scale)
        added = tl.where(batch, -center * normalized, 0.0)
        tl.store(factor + channels, own.to(tl.float32), mask=inside)
        tl.store(shift + channels, added.to(tl.float32), mask=inside)


def launch_moments(sums: Tensor, out: Tensor, problems: Tensor, tile_list: Tensor) -> None:
    """Launch the kernel; see `spinlock.kernels.layer_finish.moments`."""
    grid = (tile_list.shape[1],)
    if grid[0]:
        moments_kernel[grid](sums, out, problems, tile_list[0], tile_list[1], PIXELS=MOMENTS_PIXELS)


def launch_calibrate_scales(
    pairs: Tensor, factor: Tensor, shift: Tensor, problems: Tensor, fields: int
) -> None:
    """Launch the kernel; see `spinlock.kernels.layer_finish.calibrate_scales`."""
    grid = (len(problems),)
    calibration_kernel[grid](pairs, factor, shift, problems, fields, BLOCK=CALIBRATION_BLOCK)
