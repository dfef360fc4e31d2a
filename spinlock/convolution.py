"""Periodic convolution, on a CPU by Fourier tiles where those are faster than direct sums.

Rounding depends on the method, so the method depends on shapes alone (`choose_tile`).
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from spinlock.fourier_tiles import continue_periodically, fields_at_once, tiled_convolution


def periodic_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Periodic cross-correlation that keeps the size of the field, by the fastest method known.

    Args:
        x: (n, I, H, W) fields. On a CPU, ``channels_last`` in memory is fastest.
        weight: (O, I, k, k), k odd, best as `prepared` for the device.
        bias: (O,) or None.

    Returns:
        (n, O, H, W); ``channels_last`` in memory on a CPU.
    """
    if x.device.type != "cpu":
        return direct_convolution(x, weight, bias)
    fan_out, fan_in, kernel, _ = weight.shape
    # The tiles write into buffers of their own, which automatic differentiation cannot follow.
    differentiated = torch.is_grad_enabled() and x.requires_grad
    if x.dtype == torch.float32 and not differentiated:
        tile = choose_tile(kernel, fan_in, fan_out, (len(x), x.shape[2], x.shape[3]))
        if tile is not None:
            return tiled_convolution(x, weight, bias, tile=tile)
    if kernel == 1:
        y = x.permute(0, 2, 3, 1) @ weight[:, :, 0, 0].T
        return (y if bias is None else y + bias).permute(0, 3, 1, 2)
    return direct_convolution(x, weight, bias)


def direct_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`periodic_convolution` by the library's convolution of the padded field."""
    margin = weight.shape[-1] // 2
    if x.device.type != "cpu":
        padded = F.pad(x, (margin, margin, margin, margin), mode="circular") if margin else x
        return F.conv2d(padded, weight, bias)
    # The channels_last layout is a fifth faster, and a copy in pieces twice as fast as F.pad.
    num, channels, height, width = x.shape
    padded = x.new_empty(num, height + 2 * margin, width + 2 * margin, channels)
    continue_periodically(x.permute(0, 2, 3, 1), margin, padded)
    return F.conv2d(padded.permute(0, 3, 1, 2), weight, bias)


def prepared(weight: Tensor) -> Tensor:
    """The same weights (O, I, k, k) in the order in memory that their device wants.

    On a CPU the taps come first: (k, k, I, O) is how weights enter the transform.
    """
    if weight.device.type != "cpu":
        return weight.contiguous()
    fan_out, fan_in, kernel, _ = weight.shape
    taps = weight.reshape(fan_out * fan_in, kernel**2).T.contiguous().view(-1, fan_out, fan_in)
    turned = weight.new_empty(kernel**2, fan_in, fan_out)
    # A transposition of one matrix is blocked for the cache, a permutation of axes is not.
    for tap, out in zip(taps, turned, strict=True):
        out.copy_(tap.T)
    return turned.view(kernel, kernel, fan_in, fan_out).permute(3, 2, 0, 1)


def select_outputs(weight: Tensor, outputs: Tensor) -> Tensor:
    """``weight[outputs]`` in the same order in memory."""
    if weight.device.type != "cpu":
        return weight[outputs]
    taps = weight.permute(2, 3, 1, 0)
    # Indexing other than a matrix's columns is five times slower.
    selected = taps.reshape(-1, taps.shape[3]).index_select(1, outputs)
    return selected.view(*taps.shape[:3], -1).permute(3, 2, 0, 1)


# The cost model: picoseconds of one thread for each of `cost_terms`, fitted (relative squares, none
# negative) by `python -m benchmarks.convolution --fit` to 312 layers with kernels 3, 5, 7 and 3 to
# 256 channels, on a core of a Xeon with AVX-512 that multiplies large matrices at 180 GFLOP/s. Nine
# predictions in ten are between 0.7 and 1.2 of the measured time; choosing by them took 1 % longer
# than the best choice for each layer, and direct sums throughout 3.7 times as long.
# They are part of what a sample is: other constants are other bytes.
_DIRECT_PICOSECONDS = (10.4, 37.5, 146.5, 88e6)
_TILED_PICOSECONDS = (15.7, 309.0, 810.0, 1063.0, 20e6)


def candidate_tiles(kernel: int) -> tuple[int, int]:
    """Tiles with 8 and with 16 valid pixels a side, which fill the usual grids without waste."""
    return kernel + 7, kernel + 15


def cost_terms(
    kernel: int, fan_in: int, fan_out: int, fields: tuple[int, int, int], tile: int | None
) -> tuple[float, ...]:
    """What the time of a convolution is proportional to; arguments as for `choose_tile`.

    Returns:
        For direct sums (tile None): multiplications; pixels in, and out; one. For tiles:
        multiplications; weights transformed; pixels of tiles in, and out; row frequencies.
    """
    num, height, width = fields
    pixels, pairs = math.prod(fields), fan_in * fan_out
    if tile is None:
        return kernel**2 * pairs * pixels, fan_in * pixels, fan_out * pixels, 1
    valid = tile - kernel + 1
    tiles = -(-height // valid) * -(-width // valid)
    passes = -(-num // fields_at_once(tile, tiles, fan_in))
    bins, pixels = 3 * tile**2 // 2, tile**2 * tiles * num
    work = bins * pairs * tiles * num, bins * pairs * passes
    return *work, pixels * fan_in, pixels * fan_out, tile / 2 * passes


@lru_cache(maxsize=1024)
def choose_tile(kernel: int, fan_in: int, fan_out: int, fields: tuple[int, int, int]) -> int | None:
    """The fastest method on a CPU: pixels a side of the Fourier tiles, or None for direct sums.

    Args:
        kernel: Pixels k of the side of the kernel.
        fan_in: Channels I of the fields.
        fan_out: Channels O of the result.
        fields: Number n of fields, and their height and width.
    """

    def cost(tile: int | None) -> float:
        terms = cost_terms(kernel, fan_in, fan_out, fields, tile)
        constants = _DIRECT_PICOSECONDS if tile is None else _TILED_PICOSECONDS
        return sum(term * constant for term, constant in zip(terms, constants, strict=True))

    methods: list[int | None] = [None, *(candidate_tiles(kernel) if kernel > 1 else ())]
    return min(methods, key=cost)
