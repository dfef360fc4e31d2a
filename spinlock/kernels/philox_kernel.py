"""Triton kernels that draw random numbers: Philox4x64-10 as NumPy computes it, and conversions.

Results are bit for bit those of `spinlock.kernels.random_draws` and `weight_draws`, except that the
logarithms, sines and cosines of normal numbers are rounded as the device does.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from spinlock.kernels.packing_kernel import store_operands
from spinlock.kernels.random_draws import DISTRIBUTIONS
from spinlock.kernels.weight_draws import WEIGHT_STREAM, WEIGHT_TILE

_LEVEL = tl.constexpr(2.0**-15)
_CELL = tl.constexpr(2.0**-23)
_CENTER = tl.constexpr(2.0**22 + 0.5)
_HALF_WORD = tl.constexpr(2.0**-31)
_ANGLE = tl.constexpr(2.0**-31 * math.pi)
# Philox blocks of a program of `draw_kernel`: one for each thread of four warps.
DRAW_BLOCKS = 128
# One Philox block of `weight_kernel` for each thread, too.
WEIGHT_WARPS = WEIGHT_TILE // 32


@triton.jit
def interleaved(a, b, c, d):
    """Return a[0], b[0], c[0], d[0], a[1], ... of four vectors."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (4 * a.shape[0],))


@triton.jit
def philox_kernel_words(block, index, substream, stream, seed):
    """Return the four words of each block, (4 * blocks,) uint64; positions of blocks start at 0."""
    zero = block.to(tl.uint64) * 0
    m0 = zero + 0xD2E7470EE14C6C93
    m1 = zero + 0xCA5A826395121157
    c0 = block.to(tl.uint64) + 1
    c1 = zero + substream.to(tl.uint64)
    c2 = zero + index.to(tl.uint64)
    c3 = zero + stream.to(tl.uint64)
    k0 = zero + seed.to(tl.uint64)
    k1 = zero
    for _ in tl.static_range(10):
        high0 = tl.umulhi(m0, c0)
        high1 = tl.umulhi(m1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, m1 * c2, high0 ^ c3 ^ k1, m0 * c0
        k0 += 0x9E3779B97F4A7C15
        k1 += 0xBB67AE8584CAA73B
    return interleaved(c0, c1, c2, c3)


@triton.jit
def symmetric(words):
    """Return the four levels of each word, plus one half, float32."""
    quarters = interleaved(words, words >> 16, words >> 32, words >> 48)
    return quarters.to(tl.int16).to(tl.float32) + 0.5


@triton.jit(do_not_specialize=["seed", "stream", "count", "tiles"])
def draw_kernel(
    out,
    addresses,
    seed: tl.int64,
    stream: tl.int64,
    count: tl.int64,
    tiles: tl.int32,
    scale: tl.float32,
    DISTRIBUTION: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Draw a tile of the numbers of one address; see `spinlock.kernels.random_draws`."""
    row = (tl.program_id(0) // tiles).to(tl.int64)
    tile = (tl.program_id(0) % tiles).to(tl.int64)
    index = tl.load(addresses + 2 * row)
    substream = tl.load(addresses + 2 * row + 1)
    block = tile * BLOCKS + tl.arange(0, BLOCKS)
    words = philox_kernel_words(block, index, substream, stream, seed)
    if DISTRIBUTION == "symmetric_uniform":
        numbers = symmetric(words) * (scale * _LEVEL)
    else:
        low = words.to(tl.int32)
        high = (words >> 32).to(tl.int32)
        if DISTRIBUTION == "uniform":
            halves = tl.reshape(tl.join(low, high), (8 * BLOCKS,))
            numbers = ((halves >> 9).to(tl.float32) + _CENTER) * _CELL
        else:
            radius = ((low & 0x7FFFFFFF).to(tl.float32) + 1.0) * _HALF_WORD
            radius = tl.sqrt_rn(tl.log(radius) * -2.0)
            angle = high.to(tl.float32) * _ANGLE
            pairs = tl.join(radius * tl.cos(angle), radius * tl.sin(angle))
            numbers = tl.reshape(pairs, (8 * BLOCKS,))
    position = tile * numbers.shape[0] + tl.arange(0, numbers.shape[0])
    tl.store(out + row * count + position, numbers, mask=position < count)


def launch_draw_numbers(
    addresses: Tensor, seed: int, stream: int, count: int, distribution: str, scale: float
) -> Tensor:
    """Launch `draw_kernel`; the arguments are those of `torch.ops.spinlock.draw_numbers`."""
    addresses = addresses.contiguous()
    out = torch.empty((len(addresses), count), dtype=torch.float32, device=addresses.device)
    tiles = -(-count // (4 * DISTRIBUTIONS[distribution][0] * DRAW_BLOCKS))
    if len(addresses) * tiles:
        draw_kernel[(len(addresses) * tiles,)](
            out,
            addresses,
            seed,
            stream,
            count,
            tiles,
            scale,
            DISTRIBUTION=distribution,
            BLOCKS=DRAW_BLOCKS,
        )
    return out


@triton.jit(do_not_specialize=["seed"])
def weight_kernel(
    high,
    low,
    layers,
    tile_layer,
    tile_index,
    seed: tl.int64,
    STREAM: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Draw a tile of the weights of one layer; see `spinlock.kernels.weight_draws`."""
    row = layers + 8 * tl.load(tile_layer + tl.program_id(0)).to(tl.int64)
    tile = tl.load(tile_index + tl.program_id(0))
    index = tl.load(row)
    substream = tl.load(row + 1)
    fan_in = tl.load(row + 2).to(tl.int32)
    fan_out = tl.load(row + 3).to(tl.int32)
    taps = tl.load(row + 4).to(tl.int32)
    padded_in = tl.load(row + 5).to(tl.int32)
    padded_out = tl.load(row + 6).to(tl.int32)
    offset = tl.load(row + 7)
    block = tile * BLOCKS + tl.arange(0, BLOCKS)
    words = philox_kernel_words(block, index, substream, index * 0 + STREAM, seed)
    numbers = symmetric(words) * _LEVEL
    position = tile * (16 * BLOCKS) + tl.arange(0, 16 * BLOCKS)
    inside = position < taps * fan_in * fan_out
    output = position % fan_out
    remainder = position // fan_out
    place = (remainder // fan_in * padded_in + remainder % fan_in) * padded_out + output
    store_operands(high, low, offset + place, numbers, inside)


def launch_draw_weights(
    high: Tensor, low: Tensor, layers: Tensor, tile_layer: Tensor, tile_index: Tensor, seed: int
) -> None:
    """Launch `weight_kernel`; the arguments are those of `torch.ops.spinlock.draw_weights`."""
    if len(tile_layer):
        weight_kernel[(len(tile_layer),)](
            high,
            low,
            layers,
            tile_layer,
            tile_index,
            seed,
            STREAM=WEIGHT_STREAM,
            BLOCKS=WEIGHT_TILE,
            num_warps=WEIGHT_WARPS,
        )
