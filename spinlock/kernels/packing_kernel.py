"""Triton kernel that stores fields as operands, and the storage of operands in other kernels."""

import triton
import triton.language as tl
from torch import Tensor

from spinlock.kernels.layer_table import CHANNEL_TILE, padded_width

_CHANNELS = tl.constexpr(CHANNEL_TILE)
#: Pixels of a tile.
PACKED_PIXELS = 128


@triton.jit
def store_operands(high, low, position, value, mask):
    """Store float32 values as `spinlock.kernels.operands.write_operands` does."""
    if high.dtype.element_ty == tl.float32:
        rounded = (value.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
        # The bits of a NaN could become those of zero.
        value = tl.where(value == value, rounded.to(tl.float32, bitcast=True), value)
        tl.store(high + position, value, mask=mask)
    else:
        part = value.to(high.dtype.element_ty)
        tl.store(high + position, part, mask=mask)
        if high.dtype.element_ty == tl.float16:
            tl.store(low + position, (value - part.to(tl.float32)).to(tl.float16), mask=mask)


@triton.jit
def load_operands(high, low, position, mask):
    """Return float32 values as `spinlock.kernels.operands.read_operands` does."""
    value = tl.load(high + position, mask=mask, other=0.0).to(tl.float32)
    if high.dtype.element_ty == tl.float16:
        value += tl.load(low + position, mask=mask, other=0.0).to(tl.float32)
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
    row = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
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
    grid = (triton.cdiv(size, PACKED_PIXELS), count)
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
