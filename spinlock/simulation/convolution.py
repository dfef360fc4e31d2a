"""Periodic convolution, on a CPU by Fourier tiles where those are faster than direct sums.

Rounding depends on the method, so the method depends on shapes alone (`choose_tile`).
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from spinlock.simulation.fourier_tiles import (
    continue_periodically,
    fields_at_once,
    tiled_convolution,
)


def periodic_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Periodic cross-correlation that keeps the size of the field, by the fastest method known.

    Args:
        x: (n, I, H, W) fields. On a CPU, ``channels_last`` in memory is fastest.
        weight: (O, I, k, k), k odd, best as `prepared` for the device. In bfloat16, fields and
            results are rounded to bfloat16 too, and sums are float32.
        bias: (O,) or None.

    Returns:
        (n, O, H, W) in the type of x; ``channels_last`` in memory on a CPU.
    """
    if weight.dtype == torch.bfloat16:
        return _bfloat16_convolution(x, weight, bias)
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


def _bfloat16_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rounded = x.to(torch.bfloat16)
    if x.device.type == "cpu":
        # No processor is asked to have bfloat16 units: the same roundings around float32 sums.
        y = periodic_convolution(rounded.to(x.dtype), weight.to(x.dtype)).to(torch.bfloat16)
    else:
        y = direct_convolution(rounded, weight)
    wide = y.to(x.dtype)
    return wide if bias is None else wide.add_(bias[:, None, None])


def direct_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`periodic_convolution` by direct sums; arguments and result alike.

    On a CPU by matrix products, one for each row of the kernel: k consecutive pixels of I channels
    lie in one piece, so a product takes a k-fold copy of the field and no more. The library's
    convolution compiles code for each new combination of sizes, and keeps it: operators hardly
    ever share one, so that took as long as the sums, and memory that grew with their number.
    """
    margin = weight.shape[-1] // 2
    if x.device.type != "cpu":
        padded = F.pad(x, (margin, margin, margin, margin), mode="circular") if margin else x
        return F.conv2d(padded, weight, bias)
    fields, taps = x.permute(0, 2, 3, 1), weight.permute(2, 3, 1, 0)
    (num, height, width, fan_in), (kernel, _, _, fan_out) = fields.shape, taps.shape
    taps = taps.reshape(kernel, kernel * fan_in, fan_out)
    padded = x.new_empty(num, height + 2 * margin, width + 2 * margin, fan_in)
    continue_periodically(fields, margin, padded)
    shape = (num, height + 2 * margin, width, kernel * fan_in)
    rows = padded.as_strided(shape, padded.stride()).contiguous()
    pixels = height * width

    def products(field: Tensor) -> Tensor:
        out = field[:pixels] @ taps[0]
        for row in range(1, kernel):
            out.addmm_(field[row * width :][:pixels], taps[row])
        return out

    results = [products(field.view(-1, kernel * fan_in)) for field in rows]
    y = torch.stack(results) if num > 1 else results[0]
    y = y.view(num, height, width, fan_out)
    return (y if bias is None else y.add_(bias)).permute(0, 3, 1, 2)


def prepared(weight: Tensor) -> Tensor:
    """The same weights (O, I, k, k) in the order in memory that their device wants.

    On a CPU the taps come first: (k, k, I, O) is how weights enter the transform.
    """
    if weight.device.type != "cpu":
        return weight.contiguous()
    return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)


def select_outputs(weight: Tensor, outputs: Tensor) -> Tensor:
    """``weight[outputs]`` in the same order in memory."""
    if weight.device.type != "cpu":
        return weight[outputs]
    return _columns(weight.permute(2, 3, 1, 0), outputs).permute(3, 2, 0, 1)


def select_channels(fields: Tensor, channels: Tensor) -> Tensor:
    """``fields[:, channels]`` in the same order in memory."""
    if fields.device.type != "cpu":
        return fields[:, channels]
    return _columns(fields.permute(0, 2, 3, 1), channels).permute(0, 3, 1, 2)


def _columns(values: Tensor, which: Tensor) -> Tensor:
    """``values[..., which]``, five times faster: as the columns of a matrix."""
    selected = values.reshape(-1, values.shape[-1]).index_select(1, which)
    return selected.view(*values.shape[:-1], -1)


# The cost model: picoseconds of one thread for each of `cost_terms`, fitted (relative squares, none
# negative) by `python -m benchmarks.convolution --fit` to 312 layers with kernels 3, 5, 7 and 3 to
# 256 channels, on a busy core of a Xeon with AVX-512. Nine predictions in ten are between 0.6 and
# 1.3 of the measured time; choosing by them took 1 % longer than the best choice for each layer,
# and direct sums throughout 4.1 times as long.
# They are part of what a sample is: other constants are other bytes.
_DIRECT_PICOSECONDS = (11.9, 512.0, 145.0, 80e6)
_TILED_PICOSECONDS = (19.6, 313.0, 889.0, 1210.0, 20.9e6)


def candidate_tiles(kernel: int) -> tuple[int, int]:
    """Tiles with 8 and with 16 valid pixels a side, which fill the usual grids without waste."""
    return kernel + 7, kernel + 15


def cost_terms(
    kernel: int, fan_in: int, fan_out: int, fields: tuple[int, int, int], tile: int | None
) -> tuple[float, ...]:
    """What the time of a convolution is proportional to; arguments as for `choose_tile`.

    Returns:
        For direct sums (tile None): multiplications; pixels in, and out, for each row of the
        kernel; one. For tiles: multiplications; weights transformed; pixels of tiles in, and out;
        row frequencies.
    """
    num, height, width = fields
    pixels, pairs = math.prod(fields), fan_in * fan_out
    if tile is None:
        passes = kernel * pixels
        return kernel * pairs * passes, fan_in * passes, fan_out * passes, 1
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
