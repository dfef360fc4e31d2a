"""Numbers the Fourier bins of the half plane kx ≥ 0 and assigns them to octaves of frequency.

A real field needs only half the plane; weights count the bins of the full plane. Frequencies are in
cycles/pixel.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

# Lower edges of all octaves but the first, which begins just above 0 (cycles/pixel).
BAND_EDGES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)


@dataclass(frozen=True, eq=False)
class Bins:
    """The K' half-plane bins of a grid in order of frequency, without the DC bin.

    Attributes:
        order: Positions of the bins in the flattened half plane, int64 [K'].
        weight: Numbers of full-plane bins that they represent (1 or 2), float32 [K'].
        fx: Absolute frequencies |fx|, float32 [K'].
        fy: Absolute frequencies |fy|, float32 [K'].
        f: Frequencies √(fx² + fy²), float32 [K'].
        cos2: Values of cos 2θ, where θ is the direction of the wavevector, float32 [K'].
        sin2: Values of sin 2θ; 0 where a component is the Nyquist frequency, which has no sign,
            float32 [K'].
        bands: First bin and the bin after the last of each band.
        counts: Numbers of full-plane bins in each band.
    """

    order: Tensor
    weight: Tensor
    fx: Tensor
    fy: Tensor
    f: Tensor
    cos2: Tensor
    sin2: Tensor
    bands: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]


@lru_cache(maxsize=16)
def fourier_bins(height: int, width: int, device: torch.device) -> Bins:
    """Return the bins of a grid on a device, ordered and computed in float64."""
    # k/W is exact at ½ and at band edges; numpy's k·(1/W) is not on some grids (W = 98).
    ky = np.arange(height)
    ky[2 * ky >= height] -= height
    fy, fx = np.meshgrid(ky / height, np.arange(width // 2 + 1) / width, indexing="ij")
    squared = (fx**2 + fy**2).ravel()
    order = np.argsort(squared, kind="stable")[1:]
    fx, fy, squared = fx.ravel()[order], fy.ravel()[order], squared[order]
    signless = (np.abs(fx) == 0.5) | (np.abs(fy) == 0.5)
    weight = np.where((fx == 0.0) | (fx == 0.5), 1.0, 2.0)
    edges = np.searchsorted(squared, np.square(BAND_EDGES), side="left")
    bands = tuple(pairwise((0, *edges.tolist(), len(order))))

    def table(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device, torch.float32)

    return Bins(
        order=torch.from_numpy(order).to(device),
        weight=table(weight),
        fx=table(np.abs(fx)),
        fy=table(np.abs(fy)),
        f=table(np.sqrt(squared)),
        cos2=table((fx**2 - fy**2) / squared),
        sin2=table(np.where(signless, 0.0, 2 * fx * fy / squared)),
        bands=bands,
        counts=tuple(int(weight[first:last].sum()) for first, last in bands),
    )
