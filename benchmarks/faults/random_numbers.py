"""Tests the random numbers: moments, distributions, independence, and no word drawn twice.

Words of 64 bits are unequal among n draws except with probability n^2 / 2^65, which is 3e-6 for
10^7. A statistic of independent numbers lies beyond 5 standard deviations once in two million
tests, so one that does is a fault.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.faults.verdicts import Tally
from spinlock.kernels.random_draws import philox_words
from spinlock.simulation.randomness import Stream, normal, symmetric_uniform, uniform

_DRAWS = 10_000_000
# Addresses that differ from the first in one coordinate; seeds are given as differences.
_NEIGHBORS: dict[str, tuple[int, ...]] = {
    "seed": (1, 2**16, 2**32),
    "stream": tuple(stream for stream in Stream if stream is not Stream.FORCING),
    "index": (0, 2, 4, 2**16 + 3, 2**32 + 3),
    "substream": (0, 2, 3, 2**16 + 1, 2**32 + 1),
}
_LAGS = (1, 2, 3, 4, 8, 16)
# Standard deviations beyond which a statistic is a fault, and the probability of that.
_LIMIT = 5.0
_PROBABILITY = 2 * float(stats.norm.sf(_LIMIT))


def try_random_numbers(folder: Path, seed: int, share: float) -> Tally:
    """Draw numbers of many addresses, and test them."""
    tally = Tally("numbers")
    count = max(100_000, round(share * _DRAWS))
    _words(tally, seed, count)
    _distributions(tally, seed, count)
    _independence(tally, seed, count)
    return tally


def _check(tally: Tally, name: str, deviations: float) -> None:
    tally.trials += 1
    if not abs(deviations) < _LIMIT:
        tally.fault(f"{name}: {deviations:.1f} standard deviations from what is expected")


def _words(tally: Tally, seed: int, count: int) -> None:
    """No word is drawn twice, at addresses that differ in each coordinate."""
    addresses = list(itertools.product((seed, seed + 1), Stream, range(5), range(5)))
    each = -(-count // len(addresses))
    words = np.concatenate([philox_words(address, 0, each) for address in addresses])
    tally.trials += 1
    repeated = len(words) - len(np.unique(words))
    if repeated:
        tally.fault(f"{repeated} of {len(words)} words are drawn twice")
    bits = np.unpackbits(words.view(np.uint8).reshape(len(words), 8), axis=1).sum(axis=0)
    for bit, ones in enumerate(bits):
        deviations = (float(ones) - len(words) / 2) / np.sqrt(len(words) / 4)
        _check(tally, f"share of ones in bit {bit} of words", deviations)


def _distributions(tally: Tally, seed: int, count: int) -> None:
    index = torch.arange(100)
    each = count // 100
    drawn = {
        "uniform": (uniform(seed, Stream.WEIGHTS, index, each), stats.uniform()),
        "symmetric": (symmetric_uniform(seed, Stream.WEIGHTS, index, each), stats.uniform(-1, 2)),
        "normal": (normal(seed, Stream.FORCING, index, each), stats.norm()),
    }
    for name, (tensor, law) in drawn.items():
        values = tensor.double().numpy().ravel()
        for power in range(1, 5):
            mean, square = law.moment(power), law.moment(2 * power)
            spread = np.sqrt((square - mean**2) / len(values))
            _check(tally, f"moment {power}, {name}", (np.mean(values**power) - mean) / spread)
        tally.trials += 1
        result = stats.kstest(values, law.cdf, method="asymp")
        # Symmetric numbers are on 65,536 levels, which is a step of 1.5e-5 in the distribution.
        excess = max(0.0, result.statistic - 2.0**-16)
        probability = float(stats.kstwobign.sf(excess * np.sqrt(len(values))))
        if probability < _PROBABILITY:
            tally.fault(f"Kolmogorov-Smirnov test, {name}: probability {probability:.1e}")


def _independence(tally: Tally, seed: int, count: int) -> None:
    """Numbers whose addresses differ in one coordinate, or by one position, are uncorrelated."""
    base = {"seed": seed, "stream": Stream.FORCING, "index": 3, "substream": 1}

    def numbers(**changes: int) -> NDArray[np.float64]:
        given = base | changes
        stream = Stream(given.pop("stream"))
        drawn = normal(given["seed"], stream, given["index"], count, substream=given["substream"])
        return drawn.double().numpy()

    own = numbers()

    def others() -> Iterator[tuple[str, NDArray[np.float64]]]:
        for name, values in _NEIGHBORS.items():
            for value in values:
                yield (
                    f"{name} {value}",
                    numbers(**{name: seed + value if name == "seed" else value}),
                )
        for lag in _LAGS:
            yield f"position + {lag}", np.roll(own, lag)

    for name, other in others():
        # Of the numbers, their squares, and their signs with squares.
        for (kind, left), right in zip(
            (("values", own), ("squares", own**2), ("values and squares", own)),
            (other, other**2, other**2),
            strict=True,
        ):
            correlation = float(np.corrcoef(left, right)[0, 1])
            _check(tally, f"correlation of {kind}, another {name}", correlation * np.sqrt(count))
