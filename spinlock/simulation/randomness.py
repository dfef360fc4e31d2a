"""Computes random numbers from addresses, without a generator that has a state.

The address of a random number is ``(seed, stream, index, substream, position)``, and its value is a
pure function of the address: Philox4x64-10, a counter-based generator [1]_ in the implementation of
``numpy.random.Philox``. The integers are equal for every device, process and order of evaluation;
only the conversion to floating point rounds. A CUDA device computes them itself if Triton is
installed and its kernel agrees with the CPU (`spinlock.kernels.draw_check`). If not, the CPU
computes them and copies them to the device. No global generator is read or seeded.

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

from enum import IntEnum

import torch
from torch import Tensor

from spinlock.kernels.draw_check import draws_agree
from spinlock.kernels.random_draws import CHUNK, DISTRIBUTIONS, draw_numbers, philox_words
from spinlock.runtime.threads import available_cores, shared_pool


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


def _draw(
    distribution: str,
    seed: int,
    stream: Stream,
    index: Tensor | int,
    count: int,
    substream: Tensor | int,
    device: torch.device | str,
    scale: float = 1.0,
) -> Tensor:
    """Draw ``count`` numbers at each address."""
    target = torch.device(device)
    if target == torch.device("cuda"):
        target = torch.device("cuda", torch.cuda.current_device())
    direct = target.type in ("cpu", "meta") or (target.type == "cuda" and draws_agree(target))
    home = target if direct else torch.device("cpu")
    addresses, shape = _addresses(index, substream, home)
    if direct:
        numbers = draw_numbers(addresses, seed, stream, count, distribution, scale)
    else:
        numbers = _numbers_from_host(distribution, seed, stream, addresses, count, target, scale)
    return numbers.view(*shape, count)


def _addresses(
    index: Tensor | int, substream: Tensor | int, device: torch.device
) -> tuple[Tensor, tuple[int, ...]]:
    """Return index and substream of each address on a device, (n, 2), and their broadcast shape."""
    if isinstance(index, int) and isinstance(substream, int):
        pair = torch.tensor([[index, substream]], dtype=torch.int64, device="cpu")
        return _moved(pair, device), ()
    parts = _moved(index, device), _moved(substream, device)
    pairs = torch.broadcast_tensors(*parts)  # type: ignore[no-untyped-call]
    addresses = torch.stack(pairs, dim=-1)
    return addresses.view(-1, 2), addresses.shape[:-1]


def _moved(values: Tensor | int, device: torch.device) -> Tensor:
    """Return integers on a device; a copy from the host to CUDA does not wait for the device."""
    if not isinstance(values, Tensor):
        return torch.full((), values, dtype=torch.int64, device=device)
    if values.device.type == "cpu" and device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, torch.int64, non_blocking=device.type == "cuda")


def _numbers_from_host(
    distribution: str,
    seed: int,
    stream: Stream,
    addresses: Tensor,
    count: int,
    device: torch.device,
    scale: float,
) -> Tensor:
    """Draw words in threads, and convert them on a device to numbers, (n, count)."""
    per_word, convert = DISTRIBUTIONS[distribution]
    words = _words_from_host(seed, stream, addresses, -(-count // per_word), device)
    size = len(words), words.shape[1] * per_word
    numbers = torch.empty(size, dtype=torch.float32, device=device)
    convert(words, numbers, scale)
    return numbers[:, :count]


def _words_from_host(
    seed: int, stream: int, addresses: Tensor, words: int, device: torch.device
) -> Tensor:
    """Draw the words of addresses in threads and copy them to a device, (n, words)."""
    size, pinned = (len(addresses), words), device.type == "cuda"
    host = torch.empty(size, dtype=torch.int64, device="cpu", pin_memory=pinned)
    # A NumPy view, because other threads may not write to a tensor of inference mode.
    drawn = host.numpy()
    pool = shared_pool("randomness", min(16, available_cores()))
    pairs = addresses.tolist()

    def fill(row: int, start: int) -> None:
        part = drawn[row, start : start + CHUNK]
        part[:] = philox_words((seed, stream, *pairs[row]), start, len(part))

    parts = [(row, start) for row in range(len(pairs)) for start in range(0, words, CHUNK)]
    for future in [pool.submit(fill, *part) for part in parts]:
        future.result()
    return host.to(device, non_blocking=True)


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
    return _draw("uniform", seed, stream, index, count, substream, device)


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
    return _draw("symmetric_uniform", seed, stream, index, count, substream, device, scale)


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
    return _draw("normal", seed, stream, index, count, substream, device)
