"""Triton kernel that stores fields as operands, and the storage of operands in other kernels."""

import triton
import triton.language as tl
from torch import Tensor

from spinlock.kernels.layer_table import CHANNEL_TILE, padded_width
from spinlock.kernels.operands import LOW_SCALE

_CHANNELS = tl.constexpr(CHANNEL_TILE)
_LOW_SCALE = tl.constexpr(LOW_SCALE)
#: Pixels of a tile.
PACKED_PIXELS = 128


@triton.jit
def store_operands(high, low, position, value, mask):
    """Store float32 values as `spinlock.kernels.operands.write_operands` does."""
    if high.dtype.element_ty == tl.float32:
        bits = value.to(tl.int32, bitcast=True)
        part = ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
        # The bits of a NaN could become those of zero.
        part = tl.where(value == value, part, value)
    elif high.dtype.element_ty == tl.bfloat16:
        # To nearest, halves to even. Triton's interpreter would truncate.
        bits = value.to(tl.int32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        bits = tl.where(value == value, rounded, bits >> 16)
        part = bits.to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        part = value.to(tl.float16)
        rest = (value - part.to(tl.float32)) * _LOW_SCALE
        tl.store(low + position, rest.to(tl.float16), mask=mask)
    tl.store(high + position, part, mask=mask)


@triton.jit
def load_operands(high, low, position, mask):
    """Return float32 values as `spinlock.kernels.operands.read_operands` does."""
    value = tl.load(high + position, mask=mask, other=0.0).to(tl.float32)
    if high.dtype.element_ty == tl.float16:
        value += tl.load(low + position, mask=mask, other=0.0).to(tl.float32) / _LOW_SCALE
    return value


@triton.jit
def packing_kernel(
    fields,
    high,
    low,
    offsets,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Store one tile of pixels of one field."""
    # One axis of programs, because the others are limited to 65,535.
    tiles: tl.constexpr = (SIZE + PIXELS - 1) // PIXELS
    row = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * PIXELS + tl.arange(0, PIXELS)
    target = tl.load(offsets + row)
    for first in tl.static_range(0, PADDED, _CHANNELS):
        channel = first + tl.arange(0, _CHANNELS)
        inside = (pixel < SIZE)[:, None] & (channel < WIDTH)[None, :]
        source = (row * WIDTH + channel)[None, :] * SIZE + pixel[:, None]
        value = tl.load(fields + source, mask=inside, other=0.0)
        position = target + pixel[:, None].to(tl.int64) * PADDED + channel[None, :]
        store_operands(
            high, low, position, value, (pixel < SIZE)[:, None] & (channel >= 0)[None, :]
        )


def launch_pack_fields(fields: Tensor, high: Tensor, low: Tensor, offsets: Tensor) -> None:
    """Launch the kernel; see `spinlock.kernels.grouped_convolution.pack_fields`."""
    count, channels, height, width = fields.shape
    size = height * width
    grid = (triton.cdiv(size, PACKED_PIXELS) * count,)
    packing_kernel[grid](
        fields.contiguous(),
        high,
        low,
        offsets,
        SIZE=size,
        WIDTH=channels,
        PADDED=padded_width(channels),
        PIXELS=PACKED_PIXELS,
    )
