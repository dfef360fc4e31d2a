"""Computes random numbers from addresses: Philox4x64-10 and its conversion to floating point.

`spinlock.simulation.randomness` defines addresses. Its functions call the operation `draw_numbers`.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.kernels.device_operation import device_operation

# Words drawn and converted at a time; a quarter of a megabyte stays in the second-level cache.
CHUNK = 1 << 15


def philox_words(address: tuple[int, int, int, int], start: int, count: int) -> NDArray[np.int64]:
    """Return the 64-bit words at positions ``start .. start + count - 1`` of an address.

    Args:
        address: Seed, stream, index and substream, each in [0, 2^64).
        start: First position, a multiple of 4.
        count: Number of words.

    Returns:
        Bits of the words, (count,) int64.
    """
    seed, stream, index, substream = address
    # NumPy increments the counter before it generates.
    counter = np.array([start // 4, substream, index, stream], dtype=np.uint64)
    key = np.array([seed, 0], dtype=np.uint64)
    return np.random.Philox(counter=counter, key=key).random_raw(count).view(np.int64)


def to_uniform(words: Tensor, out: Tensor, scale: float = 1.0) -> None:
    """Convert each word to two uniform numbers in the open interval (0, 1); scale is unused."""
    # 23 bits and one half: the centers of 2^23 cells, exact in float32, never 0 or 1.
    out.copy_(words.view(torch.int32) >> 9).add_(2.0**22 + 0.5).mul_(2.0**-23)


def to_symmetric_uniform(words: Tensor, out: Tensor, scale: float = 1.0) -> None:
    """Convert each word to four uniform numbers in (-scale, scale)."""
    # Signed 16-bit integers plus one half: the centers of 2^16 cells, symmetric about 0.
    out.copy_(words.view(torch.int16)).add_(0.5).mul_(scale * 2.0**-15)


def to_normal(words: Tensor, out: Tensor, scale: float = 1.0) -> None:
    """Convert each word to two standard normal numbers (Box and Muller 1958); scale is unused."""
    halves = words.view(torch.int32)
    # (x + 1) / 2^31 lies in (0, 1], so the logarithm is finite and the radius at most 6.56.
    radius = (halves[..., ::2] & 0x7FFFFFFF).float().add_(1).mul_(2.0**-31)
    radius = radius.log_().mul_(-2).sqrt_()
    angle = halves[..., 1::2].float().mul_(2.0**-31 * np.pi)
    torch.mul(radius, angle.cos(), out=out[..., ::2])
    torch.mul(radius, angle.sin_(), out=out[..., 1::2])


#: Of each distribution: how many numbers a word yields, and the conversion.
DISTRIBUTIONS: dict[str, tuple[int, Callable[[Tensor, Tensor, float], None]]] = {
    "uniform": (2, to_uniform),
    "normal": (2, to_normal),
    "symmetric_uniform": (4, to_symmetric_uniform),
}


def _draw_numbers(
    addresses: Tensor, seed: int, stream: int, count: int, distribution: str, scale: float
) -> Tensor:
    """Draw numbers one address after another."""
    per_word, convert = DISTRIBUTIONS[distribution]
    words = -(-count // per_word)
    out = torch.empty((len(addresses), count), dtype=torch.float32, device="cpu")
    for row, (index, substream) in zip(out, addresses.tolist(), strict=True):
        address = seed % 2**64, stream, index % 2**64, substream % 2**64
        for start in range(0, words, CHUNK):
            part = torch.from_numpy(philox_words(address, start, min(CHUNK, words - start)))
            first, length = start * per_word, len(part) * per_word
            if first + length <= count:
                convert(part, row[first : first + length], scale)
            else:
                numbers = torch.empty(length, dtype=torch.float32, device="cpu")
                convert(part, numbers, scale)
                row[first:] = numbers[: count - first]
    return out


def _launch(
    addresses: Tensor, seed: int, stream: int, count: int, distribution: str, scale: float
) -> Tensor:
    from spinlock.kernels.philox_kernel import launch_draw_numbers

    return launch_draw_numbers(addresses, seed, stream, count, distribution, scale)


def _meta(
    addresses: Tensor, seed: int, stream: int, count: int, distribution: str, scale: float
) -> Tensor:
    return torch.empty((len(addresses), count), dtype=torch.float32, device="meta")


_operation = device_operation(_draw_numbers, launch=_launch, meta=_meta)


def draw_numbers(
    addresses: Tensor,
    seed: int,
    stream: int,
    count: int,
    distribution: str,
    scale: float = 1.0,
) -> Tensor:
    """Draw random numbers at addresses, on the device of these.

    Args:
        addresses: Index and substream of each address, (n, 2) int64.
        seed: Seed of the dataset, in [0, 2^64).
        stream: Purpose of the numbers, a `spinlock.Stream`.
        count: Number of random numbers at each address.
        distribution: ``uniform``, ``normal`` or ``symmetric_uniform``; see the functions of
            `spinlock.simulation.randomness`.
        scale: Upper bound of the absolute values of ``symmetric_uniform``, default: 1.

    Returns:
        Random numbers, (n, count) float32.

    Example:
        >>> import torch
        >>> draw_numbers(torch.tensor([[3, 0], [3, 2]]), 42, 1, 2, "uniform")
        tensor([[0.0557, 0.4233],
                [0.1578, 0.4912]])
    """
    return _operation(addresses, signed(seed), stream, count, distribution, scale)


def signed(seed: int) -> int:
    """Return the signed 64-bit integer that has the bits of a seed in [0, 2^64).

    Example:
        >>> signed(42), signed(2**64 - 1)
        (42, -1)
    """
    return seed - (seed >> 63 << 64)
