"""Periodic convolution by overlapping Fourier tiles.

This is overlap-save [1]_ in two dimensions. The field is cut into overlapping tiles of ``tile`` by
``tile`` pixels, tile and kernel are transformed, multiplied and transformed back, and only the
``tile - kernel + 1`` pixels per side without wrapped products are kept. Per pair of channels, a
tile takes 3/2 tile^2 real multiplications instead of kernel^2 per pixel: eleven times fewer for
kernel 7 and tile 22, three times fewer for kernel 3. All of them are in matrix products.

- The transforms are products with small matrices, first along rows, then along columns. They run at
  the speed of memory and leave the axes in the order that the next step needs.
- The row frequencies are v + 1/2. Half of them determine a real tile, and all have the same form,
  whereas frequencies 0 and t/2 of the ordinary transform are real. The wrapped products change sign
  (a negacyclic convolution), but they are discarded.
- A complex product takes three real ones [2]_: with k1 = Wr (Xr + Xi), k2 = (Wi - Wr) Xr and
  k3 = (Wr + Wi) Xi, the product W X is (k1 - k3) + i (k1 + k2). The sums are rows of the transform
  matrices and add no cost.

.. [1] A. V. Oppenheim, R. W. Schafer, "Discrete-time signal processing", 3rd ed., section 8.7.3.
.. [2] D. E. Knuth, "The art of computer programming", vol. 2, section 4.6.4, exercise 41.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

#: Largest size in bytes of the tiles that are processed at once, unless one field has more.
MAX_TILE_BYTES = 1 << 25
# Sizes in bytes of the transformed weights of a row frequency. Up to the first size they are made
# at once, beyond it in thirds, and in sixths if a third exceeds the second size. Larger parts would
# leave the caches before they are used.
_WHOLE_ROW_BYTES, _PART_BYTES = 1 << 19, 1 << 21
# BLAS adds the products in another order if a matrix has three rows or fewer.
_FEWEST_ROWS = 8


@dataclass(frozen=True)
class _Transforms:
    """Matrices that act on the rows (``first``) and columns (``second``) of a tile of t pixels.

    Row frequencies are v = 0..t/2-1 and column frequencies u = 0..t-1. "Parts" are the real and the
    imaginary part, "factors" the three of a complex product, and m = t - k + 1 is the number of
    valid pixels per side.
    """

    tile_first: Tensor  # (t/2 * 2 parts, t)
    tile_second: Tensor  # (3 factors * t, 2 parts * t)
    weight_first: Tensor  # (t/2 * 2 parts, k)
    weight_second: Tensor  # (3 factors * t, 2 parts * k)
    inverse_second: Tensor  # (2 parts * m, 3 factors * t)
    inverse_first: Tensor  # (m, t/2 * 2 parts)


def _waves(frequency: Tensor, position: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """Return the parts of exp(-2 pi i frequency position / tile), one row per frequency."""
    phase = 2 * math.pi / tile * frequency[:, None] * position
    return phase.cos(), -phase.sin()


@cache
def _transforms(kernel: int, tile: int) -> _Transforms:
    u = torch.arange(tile, dtype=torch.float64, device="cpu")
    v = u[: tile // 2] + 0.5
    valid = u[: tile - kernel + 1]
    # A correlation is a convolution with the reflected kernel.
    taps = -u[:kernel]

    def first(position: Tensor) -> Tensor:
        return torch.stack(_waves(v, position, tile), dim=1).flatten(0, 1)

    def second(position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps from both parts of the input to the real and the imaginary part."""
        real, imaginary = _waves(u, position, tile)
        return torch.cat((real, -imaginary), dim=1), torch.cat((imaginary, real), dim=1)

    xr, xi = second(u)
    wr, wi = second(taps)
    cosine, minus_sine = (wave.T for wave in _waves(u, valid, tile))

    def back(of_real: Tensor, of_imaginary: Tensor) -> Tensor:
        """Return columns for k1, k2 and k3, given those for Yr = k1 - k3 and Yi = k1 + k2."""
        return torch.cat((of_real + of_imaginary, of_imaginary, -of_real), dim=1)

    of_tile, of_weight = torch.cat((xr + xi, xr, xi)), torch.cat((wr, wi - wr, wr + wi))
    inverse = torch.cat((back(cosine, minus_sine), back(-minus_sine, cosine))) / tile
    # Each frequency v + 1/2 also represents its conjugate.
    last = first(valid).T * (2 / tile)
    matrices = first(u), of_tile, first(taps), of_weight, inverse, last
    return _Transforms(*(matrix.float().contiguous() for matrix in matrices))


class _Workspace(threading.local):
    """Memory that all convolutions of a thread reuse.

    New memory costs a page fault every 4 KiB, which for the largest layers takes half as long as
    the arithmetic. Each named part keeps the largest size that was requested.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Tensor] = {}

    def take(self, part: str, *shape: int) -> Tensor:
        """Return uninitialized float32 memory, valid until the same part is taken again."""
        size = math.prod(shape)
        if part not in self._parts or self._parts[part].numel() < size:
            # Tensors created in inference mode could not be written to outside of it.
            with torch.inference_mode(False):
                self._parts[part] = torch.empty(size, dtype=torch.float32, device="cpu")
        return self._parts[part][:size].view(shape)


_workspace = _Workspace()


def tiled_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, tile: int
) -> Tensor:
    """Compute `periodic_convolution` by overlap-save Fourier tiles.

    Args:
        x: Fields, (n, I, H, W) float32.
        weight: Weights, (O, I, k, k) float32, fastest in the layout of `prepared`.
        bias: Bias, (O,); default: none.
        tile: Side t of a tile in pixels, even and at least k.

    Returns:
        Result, (n, O, H, W) float32 in the ``channels_last`` layout.
    """
    fields, taps = x.permute(0, 2, 3, 1), weight.permute(2, 3, 1, 0).contiguous()
    num, height, width, fan_in = fields.shape
    kernel, fan_out = taps.shape[0], taps.shape[3]
    valid = tile - kernel + 1
    rows, columns = -(-height // valid), -(-width // valid)
    transforms = _transforms(kernel, tile)
    weights = _workspace.take("weights", tile, kernel * fan_in * fan_out)
    torch.mm(transforms.weight_first, taps.view(kernel, -1), out=weights)
    y = x.new_empty(num, rows * valid, columns * valid, fan_out)
    step = fields_at_once(tile, rows * columns, fan_in)
    for some, out in zip(torch.split(fields, step), torch.split(y, step), strict=True):
        tiles = _overlapping_tiles(some, kernel, tile, rows, columns)
        products = _tile_products(tiles, weights, transforms, fan_in, fan_out)
        shape = (valid, valid, len(some), rows, columns, fan_out)
        pixels = products.view(shape).permute(2, 3, 0, 4, 1, 5)
        target = out.view(len(some), rows, valid, columns, valid, fan_out)
        if bias is None:
            target.copy_(pixels)
        else:
            torch.add(pixels, bias, out=target)
    return y[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def fields_at_once(tile: int, tiles_per_field: int, fan_in: int) -> int:
    """Return the number of fields whose tiles fit into `MAX_TILE_BYTES`, at least one."""
    return max(1, MAX_TILE_BYTES // (4 * tile**2 * tiles_per_field * fan_in))


def _runs(margin: int, size: int, period: int) -> Iterator[tuple[slice, slice]]:
    """Split 0..size-1 into pieces that stay consecutive after a shift by margin mod period."""
    start = 0
    while start < size:
        source = (start - margin) % period
        length = min(period - source, size - start)
        yield slice(start, start + length), slice(source, source + length)
        start += length


def continue_periodically(fields: Tensor, margin: int, out: Tensor) -> Tensor:
    """Fill out, (n, h, w, C), with periodic fields, (n, H, W, C), from pixel (-margin, -margin)."""
    for row, source_row in _runs(margin, out.shape[1], fields.shape[1]):
        for column, source_column in _runs(margin, out.shape[2], fields.shape[2]):
            out[:, row, column] = fields[:, source_row, source_column]
    return out


def _overlapping_tiles(fields: Tensor, kernel: int, tile: int, rows: int, columns: int) -> Tensor:
    """Cut (n, H, W, C) into tiles (tile, tile * n * rows * columns * C)."""
    num, channels, valid = len(fields), fields.shape[3], tile - kernel + 1
    height, width = rows * valid + kernel - 1, columns * valid + kernel - 1
    padded = _workspace.take("first", num, height, width, channels)
    continue_periodically(fields, kernel // 2, padded)
    field, row, column, channel = padded.stride()
    overlapping = padded.as_strided(
        (tile, tile, num, rows, columns, channels),
        (row, column, field, valid * row, valid * column, channel),
        padded.storage_offset(),
    )
    tiles = _workspace.take("second", *overlapping.shape)
    return tiles.copy_(overlapping).view(tile, -1)


def _tile_products(
    tiles: Tensor, weights: Tensor, transforms: _Transforms, fan_in: int, fan_out: int
) -> Tensor:
    """Transform tiles, multiply them by the transformed weights and transform back.

    One row frequency is processed at a time, which bounds memory and makes good use of caches. If
    the layer is large, only some of its transformed weights are made before they are used.

    Args:
        tiles: Tiles, (t, t * T * I), where T is the number of tiles.
        weights: Weights transformed along rows, (t, k * I * O).
        transforms: Matrices for the kernel and the tile.
        fan_in: Number of input channels I.
        fan_out: Number of output channels O.

    Returns:
        Valid pixels, (m, m * T * O).
    """
    tile, num, bins = len(tiles), tiles.shape[1] // (len(tiles) * fan_in), 3 * len(tiles)
    spectrum = torch.mm(transforms.tile_first, tiles, out=_workspace.take("first", *tiles.shape))
    x = _workspace.take("x", bins, num, fan_in)
    some = _bins_at_once(tile, fan_in * fan_out)
    w = _workspace.take("w", some, fan_in, fan_out)
    y = _workspace.take("y", bins, num, fan_out)
    z = _workspace.take("second", tile // 2, len(transforms.inverse_second), num * fan_out)
    spectrum = spectrum.view(tile // 2, 2 * tile, -1)
    weights = weights.view(tile // 2, -1, fan_in * fan_out)
    for v in range(tile // 2):
        torch.mm(transforms.tile_second, spectrum[v], out=x.view(bins, -1))
        for start in range(0, bins, some):
            part = slice(start, start + some)
            torch.mm(transforms.weight_second[part], weights[v], out=w.view(some, -1))
            torch.bmm(x[part], w, out=y[part])
        torch.mm(transforms.inverse_second, y.view(bins, -1), out=z[v])
    pixels = _workspace.take("first", len(transforms.inverse_first), z.numel() // tile)
    return torch.mm(transforms.inverse_first, z.view(tile, -1), out=pixels)


def _bins_at_once(tile: int, pairs: int) -> int:
    """Return how many of the 3 t factors of a row frequency are multiplied at a time.

    The number decides the speed only, because each sum has the same terms in the same order.

    Args:
        tile: Side t of a tile in pixels.
        pairs: Number of pairs of an input and an output channel.
    """
    if 4 * 3 * tile * pairs <= _WHOLE_ROW_BYTES:
        return 3 * tile
    if 4 * tile * pairs <= _PART_BYTES or tile // 2 < _FEWEST_ROWS:
        return tile
    return tile // 2
