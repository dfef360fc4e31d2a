"""Periodic convolution by direct sums or by Fourier tiles, whichever a cost model predicts faster.

Rounding depends on the method, so the method depends on shapes alone (`choose_tile`).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from spinlock.simulation.fourier_tiles import (
    continue_periodically,
    fields_at_once,
    tiled_convolution,
)


def periodic_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, tf32: bool = False
) -> Tensor:
    """Compute the periodic cross-correlation of fields, which keeps their size.

    Args:
        x: Fields, (n, I, H, W). On a CPU, the ``channels_last`` layout is fastest.
        weight: Weights, (O, I, k, k) with odd k, fastest in the layout of `prepared`. If they are
            bfloat16, fields and results are also rounded to bfloat16, and sums are float32.
        bias: Bias, (O,); default: none.
        tf32: Whether a CUDA device may round float32 operands to TF32, default: no. The switches of
            the process have no influence.

    Returns:
        Result, (n, O, H, W), in the dtype of x; on a CPU in the ``channels_last`` layout.

    Example:
        >>> import torch
        >>> x = torch.arange(16.0).view(1, 1, 4, 4)
        >>> periodic_convolution(x, torch.full((1, 1, 3, 3), 1 / 9))[0, 0, 1, 1]
        tensor(5.)
    """
    if weight.dtype == torch.bfloat16:
        return _bfloat16_convolution(x, weight, bias)
    if x.device.type != "cpu":
        return direct_convolution(x, weight, bias, tf32=tf32)
    fan_out, fan_in, kernel, _ = weight.shape
    # The tiles write into reused buffers, which automatic differentiation does not support.
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
        # The same roundings around float32 sums do not require a CPU with bfloat16 units.
        y = periodic_convolution(rounded.to(x.dtype), weight.to(x.dtype)).to(torch.bfloat16)
    else:
        y = direct_convolution(rounded, weight)
    wide = y.to(x.dtype)
    return wide if bias is None else wide.add_(bias[:, None, None])


def direct_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, tf32: bool = False
) -> Tensor:
    """Compute `periodic_convolution` by direct sums; arguments and result are the same.

    On a CPU it takes one matrix product for each row of the kernel: k consecutive pixels of I
    channels are contiguous in memory, so the product needs only a k-fold copy of the field. torch's
    convolution compiles and caches code for each new combination of sizes. Operators rarely share
    sizes, so compiling took as long as computing, and memory grew with the number of operators.
    """
    margin = weight.shape[-1] // 2
    if x.device.type != "cpu":
        padded = _continued(x, margin)
        # Unlike torch.conv2d, this function takes the rules of rounding as arguments. They are then
        # no switches of the process, which other threads would have to share.
        result: Tensor = torch._convolution(
            padded,
            weight,
            bias,
            stride=[1, 1],
            padding=[0, 0],
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=1,
            benchmark=False,
            deterministic=True,
            cudnn_enabled=True,
            allow_tf32=tf32,
        )
        return result
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


def _continued(x: Tensor, margin: int) -> Tensor:
    """Continue fields periodically by a margin, which may be wider than the fields."""
    for dim in (-2, -1) if margin else ():
        size = x.shape[dim]
        position = torch.arange(-margin, size + margin, device=x.device).remainder(size)
        x = x.index_select(dim, position)
    return x


def prepared(weight: Tensor) -> Tensor:
    """Return weights (O, I, k, k) in the memory layout that is fastest on their device.

    On a CPU this is the layout of (k, k, I, O), in which weights enter the transform.
    """
    if weight.device.type != "cpu":
        return weight.contiguous()
    return weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)


def select_outputs(weight: Tensor, outputs: Tensor) -> Tensor:
    """Return ``weight[outputs]`` in the layout of a CPU, where operators are pruned."""
    return _columns(weight.permute(2, 3, 1, 0), outputs).permute(3, 2, 0, 1)


def select_channels(fields: Tensor, channels: Tensor) -> Tensor:
    """Return ``fields[:, channels]`` in the layout of a CPU."""
    return _columns(fields.permute(0, 2, 3, 1), channels).permute(0, 3, 1, 2)


def _columns(values: Tensor, which: Tensor) -> Tensor:
    """Return ``values[..., which]``; selecting columns of a matrix is five times as fast."""
    selected = values.reshape(-1, values.shape[-1]).index_select(1, which)
    return selected.view(*values.shape[:-1], -1)


# Constants of the cost model: picoseconds of one thread for each of `cost_terms`. They are a
# nonnegative least-squares fit of relative errors (`python -m benchmarks.convolution --fit`) to 312
# layers with kernels 3, 5, 7 and 3 to 256 channels, on a busy core of a Xeon with AVX-512. Nine in
# ten predictions are between 0.6 and 1.3 of the measured time. Choosing by them took 1 % longer
# than the best choice for each layer; direct sums alone took 4.1 times as long.
# Other constants would change the bytes of samples.
_DIRECT_PICOSECONDS = (11.9, 512.0, 145.0, 80e6)
_TILED_PICOSECONDS = (19.6, 313.0, 889.0, 1210.0, 20.9e6)


def candidate_tiles(kernel: int) -> tuple[int, int]:
    """Return the tile sizes with 8 and 16 valid pixels per side, which divide the usual grids."""
    return kernel + 7, kernel + 15


def cost_terms(
    kernel: int, fan_in: int, fan_out: int, fields: tuple[int, int, int], tile: int | None
) -> tuple[float, ...]:
    """Return the quantities that the time of a convolution depends on linearly.

    Args:
        kernel: Side k of the kernel in pixels.
        fan_in: Number of input channels I.
        fan_out: Number of output channels O.
        fields: Number n of fields, and their height and width.
        tile: Side of the Fourier tiles in pixels; None for direct sums.

    Returns:
        For direct sums: multiplications; input pixels and output pixels times rows of the kernel;
        one. For tiles: multiplications; transformed weights; input and output pixels of tiles; row
        frequencies.
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
    """Predict the fastest method on a CPU.

    Args:
        kernel: Side k of the kernel in pixels.
        fan_in: Number of input channels I.
        fan_out: Number of output channels O.
        fields: Number n of fields, and their height and width.

    Returns:
        Side of the Fourier tiles in pixels, or None for direct sums.
    """

    def cost(tile: int | None) -> float:
        terms = cost_terms(kernel, fan_in, fan_out, fields, tile)
        constants = _DIRECT_PICOSECONDS if tile is None else _TILED_PICOSECONDS
        return sum(term * constant for term, constant in zip(terms, constants, strict=True))

    methods: list[int | None] = [None, *(candidate_tiles(kernel) if kernel > 1 else ())]
    return min(methods, key=cost)
