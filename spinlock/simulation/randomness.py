"""Computes random numbers from addresses, without a generator that has a state.

The address of a random number is ``(seed, stream, index, substream, position)``, and its value is a
pure function of the address: Philox4x64-10, a counter-based generator [1]_ in the implementation of
``numpy.random.Philox``. The CPU computes the integers, so they are equal for every device, process
and order of evaluation; only the conversion to floating point on the device rounds. No global
generator is read or seeded.

The Philox counter consists of four 64-bit words, the key of two:

====================  =================================================================
counter word 0        ``1 + word // 4`` (each counter yields four 64-bit words)
counter word 1        substream: layer of an operator, or realization and timestep
counter word 2        index: the operator or the sample
counter word 3        stream: what the number is for
key words 0, 1        the seed, and 0
====================  =================================================================

A word yields two numbers of `uniform` and `normal`, or four of `symmetric_uniform`, low bits first.
The position of a number counts numbers, not words.

.. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
   1, 2, 3", SC 2011, doi:10.1145/2063384.2063405.
"""

import math
from collections.abc import Callable
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.runtime.threads import available_cores, shared_pool

# Words drawn and converted at a time; a quarter of a megabyte stays in the second-level cache.
_CHUNK = 1 << 15


class Stream(IntEnum):
    """Purpose of a random number. The values decide the bytes of samples: never renumber them.

    Example:
        >>> from spinlock import Stream
        >>> from spinlock.simulation.randomness import uniform
        >>> uniform(42, Stream.WEIGHTS, 0, 1) == uniform(42, Stream.FORCING, 0, 1)
        tensor([False])
    """

    CALIBRATION = 0
    WEIGHTS = 1
    DROPOUT = 2
    INITIAL_CONDITION = 3
    FORCING = 4
    REFERENCE = 5


#: Seed, stream, index and substream.
_Address = tuple[int, Stream, int, int]


def philox_words(address: _Address, start: int, count: int) -> NDArray[np.int64]:
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


def _draw(
    seed: int,
    stream: Stream,
    index: Tensor | int,
    count: int,
    substream: Tensor | int,
    device: torch.device | str,
    numbers_per_word: int,
    convert: Callable[[Tensor, Tensor], None],
) -> Tensor:
    """Draw the words of each address and convert them to ``count`` numbers."""
    indices = torch.as_tensor(index, dtype=torch.int64, device="cpu").numpy()
    substreams = torch.as_tensor(substream, dtype=torch.int64, device="cpu").numpy()
    pairs = np.broadcast(indices, substreams)
    addresses: list[_Address] = [(seed, stream, int(i), int(s)) for i, s in pairs]
    words = -(-count // numbers_per_word)
    size = len(addresses), words * numbers_per_word
    out = torch.empty(size, dtype=torch.float32, device=device)
    if out.device.type == "cpu":
        for row, address in zip(out, addresses, strict=True):
            for start in range(0, words, _CHUNK):
                part = torch.from_numpy(philox_words(address, start, min(_CHUNK, words - start)))
                stop = (start + len(part)) * numbers_per_word
                convert(part, row[start * numbers_per_word : stop])
    else:
        convert(_on_device(addresses, words, out.device), out)
    return out.view(*pairs.shape, words * numbers_per_word)[..., :count]


def _on_device(addresses: list[_Address], words: int, device: torch.device) -> Tensor:
    """Draw the words of addresses in threads and copy them to a device, (n, words)."""
    size, pinned = (len(addresses), words), device.type == "cuda"
    host = torch.empty(size, dtype=torch.int64, device="cpu", pin_memory=pinned)
    # A NumPy view, because other threads may not write to a tensor of inference mode.
    drawn = host.numpy()
    pool = shared_pool("randomness", min(16, available_cores()))

    def fill(row: int, start: int) -> None:
        part = drawn[row, start : start + _CHUNK]
        part[:] = philox_words(addresses[row], start, len(part))

    parts = [(row, start) for row in range(len(addresses)) for start in range(0, words, _CHUNK)]
    for future in [pool.submit(fill, *part) for part in parts]:
        future.result()
    return host.to(device, non_blocking=True)


def _to_uniform(words: Tensor, out: Tensor) -> None:
    # 23 bits and one half: the centers of 2^23 cells, exact in float32, never 0 or 1.
    out.copy_(words.view(torch.int32) >> 9).add_(2.0**22 + 0.5).mul_(2.0**-23)


def _to_normal(words: Tensor, out: Tensor) -> None:
    halves = words.view(torch.int32)
    # (x + 1) / 2^31 lies in (0, 1], so the logarithm is finite and the radius at most 6.56.
    radius = (halves[..., ::2] & 0x7FFFFFFF).float().add_(1).mul_(2.0**-31)
    radius = radius.log_().mul_(-2).sqrt_()
    angle = halves[..., 1::2].float().mul_(2.0**-31 * math.pi)
    torch.mul(radius, angle.cos(), out=out[..., ::2])
    torch.mul(radius, angle.sin_(), out=out[..., 1::2])


def uniform(
    seed: int,
    stream: Stream,
    index: Tensor | int,
    count: int,
    *,
    substream: Tensor | int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return uniform random numbers in the open interval (0, 1).

    Args:
        seed: Seed of the dataset, in [0, 2^64).
        stream: Purpose of the numbers.
        index: Nonnegative index of operators or samples: an integer or an int64 tensor (...).
        count: Number of random numbers at each address.
        substream: Nonnegative second coordinate, broadcast against ``index``.
        device: Device of the result.

    Returns:
        Random numbers, (..., count) float32.

    Example:
        >>> import torch
        >>> from spinlock.simulation.randomness import Stream, uniform
        >>> uniform(42, Stream.WEIGHTS, 3, 2)
        tensor([0.0557, 0.4233])
        >>> uniform(42, Stream.WEIGHTS, torch.tensor([1, 3]), 2)[1]
        tensor([0.0557, 0.4233])
    """
    return _draw(seed, stream, index, count, substream, device, 2, _to_uniform)


def symmetric_uniform(
    seed: int,
    stream: Stream,
    index: Tensor | int,
    count: int,
    *,
    substream: Tensor | int = 0,
    scale: float = 1.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return uniform random numbers in (-scale, scale) on 65,536 equally spaced levels.

    They cost half as much as those of `uniform` and serve as weights of operators. Their variance
    is scale^2 / 3 up to float32 rounding.

    Args:
        seed: Seed of the dataset, in [0, 2^64).
        stream: Purpose of the numbers.
        index: Nonnegative index of operators or samples: an integer or an int64 tensor (...).
        count: Number of random numbers at each address.
        substream: Nonnegative second coordinate, broadcast against ``index``.
        scale: Upper bound of the absolute values.
        device: Device of the result.

    Returns:
        Random numbers, (..., count) float32.

    Example:
        >>> from spinlock.simulation.randomness import Stream, symmetric_uniform
        >>> symmetric_uniform(42, Stream.WEIGHTS, 3, 2, substream=2)
        tensor([-0.6656, -0.6845])
    """

    def convert(words: Tensor, out: Tensor) -> None:
        # Signed 16-bit integers plus one half: the centers of 2^16 cells, symmetric about 0.
        out.copy_(words.view(torch.int16)).add_(0.5).mul_(scale * 2.0**-15)

    return _draw(seed, stream, index, count, substream, device, 4, convert)


def normal(
    seed: int,
    stream: Stream,
    index: Tensor | int,
    count: int,
    *,
    substream: Tensor | int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return standard normal random numbers (Box and Muller 1958).

    Args:
        seed: Seed of the dataset, in [0, 2^64).
        stream: Purpose of the numbers.
        index: Nonnegative index of operators or samples: an integer or an int64 tensor (...).
        count: Number of random numbers at each address.
        substream: Nonnegative second coordinate, broadcast against ``index``.
        device: Device of the result.

    Returns:
        Random numbers, (..., count) float32, with absolute values below 6.57.

    Example:
        >>> from spinlock.simulation.randomness import Stream, normal
        >>> normal(42, Stream.FORCING, 7, 3)
        tensor([-0.6287,  0.0581, -1.6796])
    """
    return _draw(seed, stream, index, count, substream, device, 2, _to_normal)
