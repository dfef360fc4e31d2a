"""Addressed randomness: a number is looked up, never consumed.

Every random number in a dataset has an address, ``(seed, stream, index, substream, position)``, and
its value is a pure function of that address: Philox4x32-10, a counter-based generator of integer
additions, multiplications and exclusive-ors [1]_. The integers are therefore the same on every
device, in every process and in any order of evaluation; only the conversion to floating point
rounds. No global generator is read or seeded.

The Philox counter holds four 32-bit words, the key two:

====================  =================================================================
counter word 0        ``position // 4`` (each counter yields four 32-bit words)
counter word 1        substream: layer of an operator, or realization and timestep
counter word 2        index: the operator or the sample
counter word 3        stream: what the number is for
key words 0, 1        low and high half of the 64-bit seed
====================  =================================================================

.. [1] J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
   1, 2, 3", SC 2011, doi:10.1145/2063384.2063405.
"""

import math
from collections.abc import Callable
from enum import IntEnum

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK32 = 0xFFFFFFFF
# Counters evaluated at a time. On a CPU the working set (a dozen int64 arrays) should stay in the
# second-level cache; an accelerator wants few, large launches.
_CPU_CHUNK = 1 << 14
_DEVICE_CHUNK = 1 << 22

Words = tuple[Tensor, Tensor, Tensor, Tensor]


class Stream(IntEnum):
    """What a random number is for. Values are part of the data's identity: never renumber."""

    CALIBRATION = 0
    WEIGHTS = 1
    DROPOUT = 2
    INITIAL_CONDITION = 3
    FORCING = 4


def philox4x32(
    counter: tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int], key: tuple[int, int]
) -> Words:
    """Philox4x32-10 on tensors.

    Args:
        counter: Four broadcastable words, int64 tensors (or integers) with values in [0, 2^32);
            word 0 is a tensor.
        key: Two words in [0, 2^32).

    Returns:
        Four int64 tensors with values in [0, 2^32).
    """
    c0, c1, c2, c3 = (torch.as_tensor(word) for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2^64, which leaves both 32-bit halves exact; the arithmetic
        # shift smears the sign into the upper half, where the mask removes it.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # In place where no shape grows: half the memory that has to stay in cache.
        c0 = ((product1 >> 32) ^ c1).bitwise_xor_(k0).bitwise_and_(_MASK32)
        c2 = ((product0 >> 32) ^ c3).bitwise_xor_(k1).bitwise_and_(_MASK32)
        # Upper halves of c1 and c3 are left dirty: they are only ever exclusive-ored, then masked.
        c1, c3 = product1, product0
        k0 = (k0 + _KEY_INCREMENTS[0]) & _MASK32
        k1 = (k1 + _KEY_INCREMENTS[1]) & _MASK32
    return c0, c1 & _MASK32, c2, c3 & _MASK32


def _draw(
    seed: int,
    stream: Stream,
    index: Tensor | int,
    count: int,
    substream: Tensor | int,
    device: torch.device | str,
    per_counter: int,
    convert: Callable[[Words], Tensor],
) -> Tensor:
    """Evaluate Philox at positions 0..count-1 and convert the words, a chunk at a time."""
    word2 = torch.as_tensor(index, dtype=torch.int64, device=device)[..., None]
    word1 = torch.as_tensor(substream, dtype=torch.int64, device=device)[..., None]
    leading = (word1 + word2).shape[:-1]
    key = (seed & _MASK32, (seed >> 32) & _MASK32)
    num_counters = -(-count // per_counter)
    out = torch.empty(*leading, num_counters, per_counter, dtype=torch.float32, device=device)
    budget = _CPU_CHUNK if out.device.type == "cpu" else _DEVICE_CHUNK
    chunk = max(1, budget // max(1, math.prod(leading)))
    for start in range(0, num_counters, chunk):
        stop = min(start + chunk, num_counters)
        position = torch.arange(start, stop, dtype=torch.int64, device=device)
        words = philox4x32((position, word1, word2, int(stream)), key)
        out[..., start:stop, :] = convert(words)
    return out.flatten(-2)[..., :count]


def _to_uniform(words: Words) -> Tensor:
    # 23 bits and a half: the centres of 2^23 cells, each exact in float32, none equal to 0 or 1.
    return ((torch.stack(words, dim=-1) >> 9).float() + 0.5) * 2.0**-23


def _to_symmetric(words: Words) -> Tensor:
    x0, x1, x2, x3 = words
    packed = torch.stack((x0 | (x1 << 32), x2 | (x3 << 32)), dim=-1)
    # Signed 16-bit integers plus one half: the centres of 2^16 cells of (-1, 1), symmetric about 0.
    return packed.view(torch.int16).float().add_(0.5).mul_(2.0**-15)


def _to_normal(words: Words) -> Tensor:
    x0, x1, x2, x3 = words
    # (x + 1) / 2^32 lies in (0, 1], so the logarithm is finite; the largest radius is 6.66.
    radius = ((torch.stack((x0, x2), dim=-1) + 1).float() * 2.0**-32).log_().mul_(-2).sqrt_()
    angle = torch.stack((x1, x3), dim=-1).float() * (2.0**-32 * 2 * math.pi)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten(-2)


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
        index: Operator or sample index (in [0, 2^32)): an integer or an int64 tensor (...).
        count: Numbers wanted at each address, positions 0..count-1.
        substream: Second coordinate (in [0, 2^32)), broadcast against ``index``.
        device: Where to compute.

    Returns:
        float32 tensor of shape (..., count).
    """
    return _draw(seed, stream, index, count, substream, device, 4, _to_uniform)


def symmetric_uniform(
    seed: int,
    stream: Stream,
    index: Tensor | int,
    count: int,
    *,
    substream: Tensor | int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Uniform numbers in (-1, 1) on 65,536 equally spaced levels: half the cost of `uniform`.

    For the weights of operators, drawn by the million. Arguments as for `uniform`; the variance is
    1/3 (to 1e-10 relative).

    Returns:
        float32 tensor of shape (..., count).
    """
    return _draw(seed, stream, index, count, substream, device, 8, _to_symmetric)


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
        float32 tensor of shape (..., count), every value of modulus below 6.67.
    """
    return _draw(seed, stream, index, count, substream, device, 4, _to_normal)
