"""One pass over the stored fields: a few numbers of each sample, in bounded memory.

Every initial condition is read, and the outputs of `CheckSource.sampled`. Threads decompress and
measure; what they have in hand at a time does not depend on the size of the file.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.checked_file import CheckSource
from spinlock.runtime.threads import abandon, settle_vector_math, shared_pool
from spinlock.simulation.initial_conditions import BandLimited
from spinlock.storage import schema


@dataclass
class FieldStatistics:
    """What the pass found; arrays have N rows, NaN where a sample's fields were not read.

    Attributes:
        variance: (N,) variance of the initial condition over channels and pixels.
        channel_mean: (N,) largest |mean| of a channel of the initial condition.
        band_power: (N, 3) shares of its power inside the passbands low, mid, high; the least over
            channels. For band-limited variants only.
        change: (N,) smallest over realizations of RMS(u - u_0) / RMS(u_0), u the first stored step.
        differing: (N,) smallest share of values in which two realizations of that step differ; 0 if
            two are the same.
        spread: (N,) standard deviation (ddof 1) over realizations of that step, RMS over pixels.
        not_finite: Number of NaN and infinite values met, by dataset.
        read: Number of samples read, by dataset.
        damaged: Samples that could not be read, with the reason.
        digests: Sample -> dataset -> digest of its entry, for samples that were read whole.
    """

    variance: NDArray[np.float64]
    channel_mean: NDArray[np.float64]
    band_power: NDArray[np.float64]
    change: NDArray[np.float64]
    differing: NDArray[np.float64]
    spread: NDArray[np.float64]
    not_finite: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)
    digests: dict[int, dict[str, bytes]] = field(default_factory=dict)

    @classmethod
    def empty(cls, num_samples: int) -> Self:
        """Nothing read so far."""
        one, bands = np.full(num_samples, np.nan), np.full((num_samples, 3), np.nan)
        return cls(one, one.copy(), bands, one.copy(), one.copy(), one.copy())


@dataclass
class _Sample:
    """What one thread found in one sample."""

    numbers: dict[str, float | NDArray[np.float64]] = field(default_factory=dict)
    not_finite: dict[str, int] = field(default_factory=dict)
    digests: dict[str, bytes] = field(default_factory=dict)
    damage: str = ""


def measure_fields(source: CheckSource, on_samples: Callable[[int], None]) -> FieldStatistics:
    """Read the fields once.

    Args:
        source: The file.
        on_samples: Called with the number of samples just measured.
    """
    num = source.num_samples
    found = FieldStatistics.empty(num)
    bands = {
        name.encode()
        for name, variant in source.distributions.items()
        if isinstance(variant, BandLimited)
    }
    sampled = set(source.sampled.tolist())
    threads = os.cpu_count() or 1
    settle_vector_math()
    pool = shared_pool("check", threads)
    pending: deque[tuple[int, Future[_Sample]]] = deque()
    try:
        for row in range(num):
            in_band = source.variants[row] in bands
            task = pool.submit(_measure, source, row, in_band, row in sampled)
            pending.append((row, task))
            if len(pending) > 2 * threads:
                _collect(found, *pending.popleft(), on_samples)
        while pending:
            _collect(found, *pending.popleft(), on_samples)
    finally:
        abandon([task for _, task in pending])
    return found


def _collect(
    found: FieldStatistics, row: int, task: Future[_Sample], on_samples: Callable[[int], None]
) -> None:
    sample = task.result()
    for name, value in sample.numbers.items():
        getattr(found, name)[row] = value
    for name, count in sample.not_finite.items():
        found.not_finite[name] = found.not_finite.get(name, 0) + count
        found.read[name] = found.read.get(name, 0) + 1
    if sample.damage:
        found.damaged[row] = sample.damage
    elif sample.digests:
        found.digests[row] = sample.digests
    on_samples(1)


def _measure(source: CheckSource, row: int, in_band: bool, outputs: bool) -> _Sample:
    sample = _Sample()
    initial = None
    try:
        if schema.INPUTS in source.usable:
            entry = source.entry(schema.INPUTS, row)
            initial = entry.values
            sample.digests[schema.INPUTS] = entry.digest
            sample.not_finite[schema.INPUTS] = int((~np.isfinite(initial)).sum())
            _measure_initial(sample, initial.astype(np.float64), in_band)
        if outputs and schema.OUTPUTS in source.usable:
            entry = source.entry(schema.OUTPUTS, row)
            sample.digests[schema.OUTPUTS] = entry.digest
            sample.not_finite[schema.OUTPUTS] = int((~np.isfinite(entry.values)).sum())
            # Realizations of the first stored step, (M, C, H, W).
            first = entry.values if entry.values.ndim == 4 else entry.values[:, 0]
            _measure_outputs(sample, first, initial)
        elif not outputs:
            # Without all its entries a sample has no digest.
            sample.digests.clear()
    except Exception as error:
        # A damaged byte can make HDF5 or the decompressor fail in any way.
        sample.damage = f"{type(error).__name__}: {error}"
    return sample


def _measure_initial(sample: _Sample, field: NDArray[np.float64], in_band: bool) -> None:
    means = field.mean(axis=(-2, -1))
    sample.numbers["variance"] = float(np.square(field - means[:, None, None]).mean())
    sample.numbers["channel_mean"] = float(np.abs(means).max())
    if in_band:
        sample.numbers["band_power"] = band_shares(field).min(axis=0)


def _measure_outputs(
    sample: _Sample, first: NDArray[np.float32], initial: NDArray[np.float32] | None
) -> None:
    fields = first.astype(np.float64)
    if initial is not None:
        start = initial.astype(np.float64)
        change = np.sqrt(np.square(fields - start).mean(axis=(1, 2, 3)))
        with np.errstate(divide="ignore", invalid="ignore"):
            sample.numbers["change"] = float((change / np.sqrt(np.square(start).mean())).min())
    if len(first) > 1:
        # In the order of their bytes, realizations that are the same are neighbours.
        pairs = pairwise(sorted(first, key=lambda realization: realization.tobytes()))
        sample.numbers["differing"] = float(min((one != two).mean() for one, two in pairs))
        sample.numbers["spread"] = float(np.sqrt(fields.var(axis=0, ddof=1).mean()))


@lru_cache(maxsize=4)
def _half_plane(grid_size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared frequency of the bins of a half-plane transform, and how often each counts."""
    rows = np.fft.fftfreq(grid_size, 1 / grid_size) / grid_size
    columns = np.arange(grid_size // 2 + 1) / grid_size
    weight = np.full(len(columns), 2.0)
    weight[0] = 1.0
    if grid_size % 2 == 0:
        weight[-1] = 1.0
    return rows[:, None] ** 2 + columns**2, weight


def band_shares(fields: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares (..., 3) of the power of fields (..., H, H) inside the passbands low, mid, high.

    The power is that of the full plane of Fourier modes, the constant one included.
    """
    squared, weight = _half_plane(fields.shape[-1])
    power = np.abs(np.fft.rfft2(fields)) ** 2 * weight
    total = power.sum(axis=(-2, -1))
    inside = [
        power[..., (squared >= low**2) & (squared <= high**2)].sum(axis=-1)
        for low, high in BandLimited.PASSBANDS.values()
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.stack(inside, axis=-1) / total[..., None])
