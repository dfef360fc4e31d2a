"""Summary Descriptor Features v1.0: names, layout, and extraction.

A feature is evaluated on one field, or on one channel's trajectory, first; averaging over
realizations and channels comes last (the mean of the minima, not the minimum). Work proceeds in
chunks of a fixed number of pixels (`CPU_CHUNK`, `DEVICE_CHUNK`), so that memory beyond the result
does not grow with the input.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spinlock.features.registry import names
from spinlock.features.spatial import centre, spatial_of
from spinlock.features.spectral import spectral_of
from spinlock.features.temporal import temporal_of

SDF_VERSION = "1.0"

PER_TIMESTEP_NAMES: tuple[str, ...] = names("spatial") + names("spectral")
PER_TRAJECTORY_NAMES: tuple[str, ...] = names("temporal")
AGGREGATED_NAMES: tuple[str, ...] = tuple(
    f"{name}_{statistic}" for statistic in ("mean", "std", "cv") for name in PER_TRAJECTORY_NAMES
)

MIN_GRID = 8
# Pixels worked on at once. On a CPU the temporaries then stay near its caches; on an accelerator a
# chunk fills the device while each temporary takes no more than 128 MiB.
CPU_CHUNK = 2**19
DEVICE_CHUNK = 2**24
_CV_LIMIT = 100.0


@dataclass(frozen=True, eq=False)
class SDFFeatures:
    """All descriptors of a batch of samples; float32, columns as in the `*_NAMES` tuples.

    Attributes:
        per_timestep: [N, T, 46], field features averaged over realizations and channels.
        per_trajectory: [N, M, 13], trajectory features averaged over channels; NaN where T is below
            the feature's minimum.
        aggregated: [N, 39], their mean, population standard deviation and coefficient of variation
            over realizations; NaN likewise.
    """

    per_timestep: Tensor
    per_trajectory: Tensor
    aggregated: Tensor


def extract(fields: Tensor) -> SDFFeatures:
    """Extract all descriptors, computed in float32 (sums of series and of features in float64).

    Args:
        fields: Floating point [N, M, T, C, H, W]: samples, realizations, steps, channels and a
            periodic grid of at least 8×8; finite, which is the caller's to check.

    Returns:
        The features, on the device of the input; no gradients flow through them.

    Raises:
        TypeError: If the fields are not floating point.
        ValueError: If they have another shape.
    """
    _check(fields, ("N", "M", "T", "C", "H", "W"))
    per_channel = temporal_features(fields.transpose(2, 3))
    per_trajectory = per_channel.double().mean(2).float()
    return SDFFeatures(extract_per_timestep(fields), per_trajectory, _aggregate(per_trajectory))


def extract_per_timestep(fields: Tensor) -> Tensor:
    """Extract the descriptors of single fields only, as for initial conditions.

    Args:
        fields: Floating point [N, M, T, C, H, W], as for `extract`.

    Returns:
        float32 [N, T, 46].

    Raises:
        TypeError: If the fields are not floating point.
        ValueError: If they have another shape.
    """
    _check(fields, ("N", "M", "T", "C", "H", "W"))
    rows = fields.transpose(1, 2)
    samples, steps, realizations, channels = rows.shape[:4]
    averaged = realizations * channels
    result = fields.new_empty((samples * steps, len(PER_TIMESTEP_NAMES)), dtype=torch.float32)
    # Whole rows of the result at a time, so that the features of single fields are not all held.
    group = max(1, _chunk(fields) // (averaged * math.prod(fields.shape[-2:])))
    for start in range(0, len(result), group):
        stop = min(start + group, len(result))
        features = _in_chunks(rows, 2, _field_features, start * averaged, stop * averaged)
        result[start:stop] = features.reshape(stop - start, averaged, -1).double().mean(1)
    return result.reshape(samples, steps, -1)


def spatial_features(fields: Tensor) -> Tensor:
    """The 19 spatial features [..., 19] of each field [..., H, W]; errors as for `extract`."""
    _check(fields, ("...", "H", "W"))
    features = _in_chunks(fields, 2, lambda chunk: spatial_of(centre(chunk)))
    return features.reshape(*fields.shape[:-2], -1)


def spectral_features(fields: Tensor) -> Tensor:
    """The 27 spectral features [..., 27] of each field [..., H, W]; errors as for `extract`."""
    _check(fields, ("...", "H", "W"))
    features = _in_chunks(fields, 2, lambda chunk: spectral_of(centre(chunk)))
    return features.reshape(*fields.shape[:-2], -1)


def temporal_features(trajectories: Tensor) -> Tensor:
    """The 13 temporal features [..., 13] of trajectories [..., T, H, W]; errors as `extract`."""
    _check(trajectories, ("...", "T", "H", "W"))
    limit = _chunk(trajectories)
    features = _in_chunks(trajectories, 3, lambda chunk: temporal_of(chunk, limit))
    return features.reshape(*trajectories.shape[:-3], -1)


def _check(fields: Tensor, layout: tuple[str, ...]) -> None:
    """Raise where fields are not of this layout, a leading "..." standing for any dimensions."""
    expected = f"[{', '.join(layout)}]"
    open_ended = layout[0] == "..."
    if not fields.is_floating_point():
        raise TypeError(
            f"fields of dtype {fields.dtype}: features need floating point; call .float() first"
        )
    required = len(layout) - open_ended
    if fields.ndim < required or (fields.ndim > required and not open_ended):
        raise ValueError(
            f"fields of shape {tuple(fields.shape)}: expected {expected}; "
            "add missing dimensions with unsqueeze or merge excess ones with flatten"
        )
    if min(fields.shape[-2:]) < MIN_GRID:
        raise ValueError(
            f"fields of shape {tuple(fields.shape)}: the grid, {tuple(fields.shape[-2:])}, must be "
            f"at least {MIN_GRID} per side; use a larger one, or check that H and W come last"
        )
    if fields.numel() == 0:
        raise ValueError(
            f"fields of shape {tuple(fields.shape)}: no dimension of {expected} may be empty; "
            "skip empty batches"
        )


def _chunk(fields: Tensor) -> int:
    """Pixels to work on at once."""
    return CPU_CHUNK if fields.device.type == "cpu" else DEVICE_CHUNK


def _in_chunks(
    tensor: Tensor,
    inner: int,
    features: Callable[[Tensor], Tensor],
    start: int = 0,
    stop: int | None = None,
) -> Tensor:
    """Features of the items start…stop of a tensor, the last `inner` dimensions being one item.

    Args:
        tensor: [..., *item]; items are numbered as if the leading dimensions were flattened.
        inner: Number of dimensions of an item.
        features: Maps items [B, *item] to features [B, K].
        start: First item.
        stop: One past the last item; all if None.

    Returns:
        float32 [stop − start, K].
    """
    tensor = tensor.detach().unsqueeze(0)
    lead, item = tensor.shape[:-inner], tensor.shape[-inner:]
    stop = math.prod(lead) if stop is None else stop
    # A lone item goes twice: torch splits a sum that yields one number over its threads, so that
    # its rounding would depend on their number, and on whether the item came in company. Only
    # trajectories larger than a chunk are spared it: they are always alone and yield T sums.
    size = max(2 if inner == 2 else 1, _chunk(tensor) // math.prod(item))
    pieces = []
    for first in range(start, stop, size):
        last = min(first + size, stop)
        where = np.unravel_index(np.arange(first, last), lead)
        if size == 1:
            items = tensor[tuple(int(axis[0]) for axis in where)].unsqueeze(0)  # not a copy
        else:
            index = tuple(torch.from_numpy(axis).to(tensor.device) for axis in where)
            items = tensor[index].contiguous()
            items = items.expand(max(2, len(items)), *item)
        pieces.append(features(items)[: last - first])
    return torch.cat(pieces)


def _field_features(fields: Tensor) -> Tensor:
    """The 46 features [B, 46] of fields [B, H, W]."""
    centred = centre(fields)
    return torch.cat((spatial_of(centred), spectral_of(centred)), dim=-1)


def _aggregate(per_trajectory: Tensor) -> Tensor:
    """Mean, population std and coefficient of variation over M: [N, M, 13] to [N, 39]."""
    # float64, so that equal realizations have a spread of exactly 0.
    values = per_trajectory.double()
    mean = values.mean(1)
    std = values.var(1, correction=0).sqrt()
    cv = torch.where(std == 0, 0.0, (std / mean.abs()).clamp(max=_CV_LIMIT))
    return torch.cat((mean, std, cv), dim=-1).float()
