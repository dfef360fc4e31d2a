"""Addressed randomness: a number is looked up, never consumed.

Every random number in a dataset has an address, ``(seed, stream, index, substream, position)``, and
its value is a pure function of that address: Philox4x64-10, a counter-based generator of integer
additions, multiplications and exclusive-ors [1]_, as NumPy's ``numpy.random.Philox`` evaluates it.
The integers are computed on the host and are the same for every device, in every process and in any
order of evaluation; only the conversion to floating point, on the device, rounds. No global
generator is read or seeded.

The Philox counter holds four 64-bit words, the key two:

====================  =================================================================
counter word 0        ``1 + word // 4`` (each counter yields four 64-bit words)
counter word 1        substream: layer of an operator, or realization and timestep
counter word 2        index: the operator or the sample
counter word 3        stream: what the number is for
key words 0, 1        the seed, and 0
====================  =================================================================

A word holds two numbers of `uniform` and `normal`, four of `symmetric_uniform`, low bits first; a
number's position counts them.

.. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
   1, 2, 3", SC 2011, doi:10.1145/2063384.2063405.
"""

import math
import os
from collections.abc import Callable
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.runtime.threads import shared_pool

# Words drawn and converted at a time: a quarter of a megabyte stays in the second-level cache.
_CHUNK = 1 << 15


class Stream(IntEnum):
    """What a random number is for. Values are part of the data's identity: never renumber."""

    CALIBRATION = 0
    WEIGHTS = 1
    DROPOUT = 2
    INITIAL_CONDITION = 3
    FORCING = 4


#: Seed, stream, index and substream.
_Address = tuple[int, Stream, int, int]


def philox_words(address: _Address, start: int, count: int) -> NDArray[np.int64]:
    """Philox's 64-bit words at positions ``start .. start + count - 1`` of an address.

    Args:
        address: Seed, stream, index and substream, each in [0, 2^64).
        start: First position, a multiple of 4.
        count: Number of words.

    Returns:
        (count,) int64: the words' bits.
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
    """Draw words at positions 0, 1, ... of each address and convert them to ``count`` numbers."""
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
    """The words of addresses, drawn by the host's threads and copied to a device: (n, words)."""
    size, pinned = (len(addresses), words), device.type == "cuda"
    host = torch.empty(size, dtype=torch.int64, device="cpu", pin_memory=pinned)
    # As NumPy sees it: torch refuses to write a tensor of inference mode from other threads.
    drawn = host.numpy()
    pool = shared_pool("randomness", min(16, os.cpu_count() or 1))

    def fill(row: int, start: int) -> None:
        part = drawn[row, start : start + _CHUNK]
        part[:] = philox_words(addresses[row], start, len(part))

    parts = [(row, start) for row in range(len(addresses)) for start in range(0, words, _CHUNK)]
    for future in [pool.submit(fill, *part) for part in parts]:
        future.result()
    return host.to(device, non_blocking=True)


def _to_uniform(words: Tensor, out: Tensor) -> None:
    # 23 bits and a half: the centres of 2^23 cells, each exact in float32, none equal to 0 or 1.
    out.copy_(words.view(torch.int32) >> 9).add_(2.0**22 + 0.5).mul_(2.0**-23)


def _to_normal(words: Tensor, out: Tensor) -> None:
    halves = words.view(torch.int32)
    # (x + 1) / 2^31 lies in (0, 1], so the logarithm is finite; the largest radius is 6.56.
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
    """Uniform numbers in the open interval (0, 1).

    Args:
        seed: The dataset's seed, in [0, 2^64).
        stream: What the numbers are for.
        index: Operator or sample index (not negative): an integer or an int64 tensor (...).
        count: Numbers wanted at each address, positions 0..count-1.
        substream: Second coordinate (not negative), broadcast against ``index``.
        device: Where to convert and return them.

    Returns:
        float32 tensor of shape (..., count).
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
    """Uniform numbers in (-scale, scale) on 65,536 equally spaced levels: half of `uniform`'s cost.

    For the weights of operators, drawn by the million. Arguments as for `uniform`; the variance is
    scale^2 / 3 (to float32 rounding).

    Returns:
        float32 tensor of shape (..., count).
    """

    def convert(words: Tensor, out: Tensor) -> None:
        # Signed 16-bit integers plus one half: the centres of 2^16 cells, symmetric about 0.
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
    """Standard normal numbers (Box and Muller 1958). Arguments as for `uniform`.

    Returns:
        float32 tensor of shape (..., count), every value of modulus below 6.57.
    """
    return _draw(seed, stream, index, count, substream, device, 2, _to_normal)
