"""Reads the stored fields once and keeps a few numbers per sample.

All initial conditions are read, and the outputs of `CheckSource.sampled`. Threads decompress and
measure the fields; the memory that they use does not depend on the size of the file.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spinlock.checks.checked_file import CheckSource
from spinlock.errors import in_a_line
from spinlock.runtime.ordered_map import ordered_map
from spinlock.runtime.threads import available_cores, settle_vector_math, shared_pool
from spinlock.simulation.initial_conditions import BandLimited
from spinlock.storage import schema

_SCALARS = ("variance", "channel_mean", "change", "differing", "spread", "largest")
_NUMBERS = np.dtype(
    [(name, np.float64) for name in (*_SCALARS, schema.INPUTS, schema.OUTPUTS)]
    + [("band_power", np.float64, (len(BandLimited.PASSBANDS),))]
)


@dataclass
class FieldStatistics:
    """Statistics of the stored fields.

    Attributes:
        numbers: (N,) structured array, NaN where a sample's fields were not read. Its columns:

            - ``variance``: variance of the initial condition over channels and pixels;
            - ``channel_mean``: largest |mean| of a channel of the initial condition;
            - ``band_power``: shares of the initial condition's power inside the passbands low, mid
              and high, the smallest over channels; for band-limited variants only;
            - ``change``: smallest RMS(u - u_0) / RMS(u_0) over realizations, where u is the first
              stored timestep;
            - ``differing``: smallest share of values of u in which two realizations differ;
            - ``spread``: standard deviation of u over realizations (ddof 1), RMS over pixels;
            - ``largest``: largest |u| of the stored timesteps;
            - ``inputs/fields``, ``outputs/fields``: number of NaN and infinite values.

        damaged: Error message of each sample that could not be read.
        digests: Digest of each dataset entry, by sample and dataset, for samples read completely.
    """

    numbers: NDArray[np.void]
    damaged: dict[int, str] = field(default_factory=dict)
    digests: dict[int, dict[str, bytes]] = field(default_factory=dict)


def measure_fields(source: CheckSource, on_samples: Callable[[int], None]) -> FieldStatistics:
    """Read the fields once and return their statistics.

    Args:
        source: File under check.
        on_samples: Function called with the number of samples just measured.
    """
    found = FieldStatistics(np.full(source.num_samples, np.nan, _NUMBERS))
    bands = {n.encode() for n, one in source.distributions.items() if isinstance(one, BandLimited)}
    in_band = np.array([variant in bands for variant in source.variants])
    sampled = np.isin(np.arange(source.num_samples), source.sampled)
    threads = available_cores()
    settle_vector_math()

    def measure(row: int) -> None:
        # What is not finite is counted; the caller's settings may turn warnings into errors.
        with np.errstate(all="ignore"):
            _measure(source, found, in_band, sampled, row)

    pool = shared_pool("check", threads)
    for _ in ordered_map(pool, measure, range(source.num_samples), 2 * threads):
        on_samples(1)
    return found


def _measure(
    source: CheckSource,
    found: FieldStatistics,
    in_band: NDArray[np.bool_],
    sampled: NDArray[np.bool_],
    row: int,
) -> None:
    """Measure one sample, which no other thread measures."""
    numbers, digests = found.numbers[row], {}

    def read(name: str) -> NDArray[np.float32]:
        values, digests[name] = source.entry(name, row)
        numbers[name] = np.count_nonzero(~np.isfinite(values))
        return values

    initial = None
    try:
        if not source.lacks(schema.INPUTS):
            initial = read(schema.INPUTS).astype(np.float64)
            _measure_initial(numbers, initial, in_band[row])
        if sampled[row]:
            if not source.lacks(schema.OUTPUTS):
                outputs = read(schema.OUTPUTS)
                _measure_outputs(numbers, outputs, initial)
                numbers["largest"] = np.abs(outputs).max()
            # The digest of a sample needs all its entries.
            found.digests[row] = digests
    except Exception as error:
        # A damaged byte can make HDF5 or the decompressor fail in any way.
        found.damaged[row] = f"{type(error).__name__}: {in_a_line(error)}"


def _measure_initial(numbers: np.void, initial: NDArray[np.float64], in_band: bool) -> None:
    means = initial.mean(axis=(-2, -1))
    numbers["variance"] = np.square(initial - means[:, None, None]).mean()
    numbers["channel_mean"] = np.abs(means).max()
    if in_band:
        numbers["band_power"] = band_shares(initial).min(axis=0)


def _measure_outputs(
    numbers: np.void, values: NDArray[np.float32], initial: NDArray[np.float64] | None
) -> None:
    # Realizations (M, C, H, W) of the first stored timestep.
    first = values if values.ndim == 4 else values[:, 0]
    fields = first.astype(np.float64)
    if initial is not None:
        change = np.sqrt(np.square(fields - initial).mean(axis=(1, 2, 3)))
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers["change"] = (change / np.sqrt(np.square(initial).mean())).min()
    if len(first) > 1:
        # Sorting by bytes puts equal realizations next to each other.
        pairs = pairwise(sorted(first, key=lambda realization: realization.tobytes()))
        numbers["differing"] = min((one != two).mean() for one, two in pairs)
        numbers["spread"] = np.sqrt(fields.var(axis=0, ddof=1).mean())


@lru_cache(maxsize=4)
def _passband_masks(grid_size: int) -> list[NDArray[np.bool_]]:
    """Return the Fourier modes (H, H) inside each passband."""
    frequency = np.fft.fftfreq(grid_size, 1 / grid_size) / grid_size
    squared = frequency[:, None] ** 2 + frequency**2
    bands = BandLimited.PASSBANDS.values()
    return [(squared >= low**2) & (squared <= high**2) for low, high in bands]


def band_shares(fields: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares of the power of fields inside the passbands low, mid and high.

    Args:
        fields: (..., H, H) fields.

    Returns:
        (..., 3) shares of the total power, which includes the constant mode.
    """
    power = np.abs(np.fft.fft2(fields)) ** 2
    inside = [power[..., mask].sum(axis=-1) for mask in _passband_masks(fields.shape[-1])]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.stack(inside, axis=-1) / power.sum(axis=(-2, -1))[..., None])
