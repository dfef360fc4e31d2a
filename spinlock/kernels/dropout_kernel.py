"""Triton kernel that makes dropout masks."""

import triton
import triton.language as tl
from torch import Tensor

#: Channels that a program compares at a time.
DROPOUT_BLOCK = 64


@triton.jit(do_not_specialize=["stride"])
def dropout_kernel(numbers, mask, layers, limits, stride: tl.int32, BLOCK: tl.constexpr):
    """Make the mask of one layer; the rank of a channel is the number of smaller numbers."""
    row = tl.program_id(0).to(tl.int64)
    width = tl.load(layers + 3 * row).to(tl.int32)
    padded = tl.load(layers + 3 * row + 1).to(tl.int32)
    offset = tl.load(layers + 3 * row + 2)
    limit = tl.load(limits + 2 * row)
    factor = tl.load(limits + 2 * row + 1)
    drawn = numbers + row * stride
    shift = tl.load(drawn + width)
    for first in tl.range(0, padded, BLOCK):
        channel = first + tl.arange(0, BLOCK)
        own = tl.load(drawn + channel, mask=channel < width, other=2.0)[:, None]
        rank = tl.zeros((BLOCK,), tl.int32)
        for start in tl.range(0, width, BLOCK):
            other = start + tl.arange(0, BLOCK)
            value = tl.load(drawn + other, mask=other < width, other=2.0)[None, :]
            # Of equal numbers, that of the first channel is the smaller one.
            earlier = (value == own) & (other[None, :] < channel[:, None])
            rank += tl.sum(((value < own) | earlier).to(tl.int32), axis=1)
        kept = (rank.to(tl.float32) + shift >= limit) & (channel < width)
        tl.store(mask + offset + channel, tl.where(kept, factor, 0.0), mask=channel < padded)


def launch_silence_channels(numbers: Tensor, mask: Tensor, layers: Tensor, limits: Tensor) -> None:
    """Launch the kernel; see `spinlock.kernels.dropout_masks`."""
    grid = (len(numbers),)
    dropout_kernel[grid](numbers, mask, layers, limits, numbers.shape[1], BLOCK=DROPOUT_BLOCK)
