"""Applies feature functions to arrays of fields and averages the results.

A feature is evaluated on one field, or on the trajectory of one channel. Averages over realizations
and channels come last: the mean of the minima, not the minimum. Fields are processed in chunks of a
fixed number of pixels (`CPU_CHUNK`, `DEVICE_CHUNK`), so memory beyond the result does not grow with
the input.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.parameter_axes import MIN_GRID_SIZE

# Pixels processed at once. On a CPU, temporaries then nearly fit into caches. On an accelerator, a
# chunk is large enough to use all of it, and each temporary takes at most 128 MiB.
CPU_CHUNK = 2**19
DEVICE_CHUNK = 2**24
CV_LIMIT = 100.0


def check_fields(fields: Tensor, layout: tuple[str, ...]) -> None:
    """Check the type and the shape of fields.

    Args:
        fields: Fields to check.
        layout: Expected dimensions; a leading "..." stands for any number of them.

    Raises:
        TypeError: If the fields are not floating point.
        ValueError: If the fields have another shape.
    """
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
    if min(fields.shape[-2:]) < MIN_GRID_SIZE:
        raise ValueError(
            f"fields of shape {tuple(fields.shape)}: the grid, {tuple(fields.shape[-2:])}, must be "
            f"at least {MIN_GRID_SIZE} per side; use a larger one, or check that H and W come last"
        )
    if fields.numel() == 0:
        raise ValueError(
            f"fields of shape {tuple(fields.shape)}: no dimension of {expected} may be empty; "
            "skip empty batches"
        )


def chunk_pixels(fields: Tensor) -> int:
    """Return the number of pixels to process at once on the device of the fields."""
    return CPU_CHUNK if fields.device.type == "cpu" else DEVICE_CHUNK


def field_averages(fields: Tensor, of_fields: Callable[[Tensor], Tensor], columns: int) -> Tensor:
    """Compute features of single fields, averaged over realizations and channels.

    Args:
        fields: Fields [N, M, T, C, H, W].
        of_fields: Function that maps fields [B, H, W] to features [B, K].
        columns: Number of features K.

    Returns:
        Averages, float32 [N, T, K].
    """
    rows = fields.transpose(1, 2)
    samples, steps, realizations, channels = rows.shape[:4]
    averaged = realizations * channels
    result = fields.new_empty((samples * steps, columns), dtype=torch.float32)
    # A few rows of the result at a time, so that not all features of single fields are in memory.
    group = max(1, chunk_pixels(fields) // (averaged * math.prod(fields.shape[-2:])))
    for start in range(0, len(result), group):
        stop = min(start + group, len(result))
        features = in_chunks(rows, 2, of_fields, start * averaged, stop * averaged)
        result[start:stop] = features.reshape(stop - start, averaged, -1).double().mean(1)
    return result.reshape(samples, steps, -1)


def trajectory_averages(fields: Tensor, of_trajectories: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute features of single trajectories, averaged over channels.

    Args:
        fields: Fields [N, M, T, C, H, W].
        of_trajectories: Function that maps trajectories [A, T, H, W] to features [A, K].

    Returns:
        Averages, float32 [N, M, K].
    """
    trajectories = fields.transpose(2, 3)
    features = in_chunks(trajectories, 3, of_trajectories)
    return features.reshape(*trajectories.shape[:3], -1).double().mean(2).float()


def aggregate(per_trajectory: Tensor) -> Tensor:
    """Compute mean, population std and coefficient of variation over realizations.

    Args:
        per_trajectory: Features [N, M, K].

    Returns:
        All means, then all stds, then all coefficients of variation, float32 [N, 3K].
    """
    # In float64, equal realizations have a standard deviation of exactly 0.
    values = per_trajectory.double()
    mean = values.mean(1)
    std = values.var(1, correction=0).sqrt()
    cv = torch.where(std == 0, 0.0, (std / mean.abs()).clamp(max=CV_LIMIT))
    return torch.cat((mean, std, cv), dim=-1).float()


def aggregated_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the columns of `aggregate` for features with these names."""
    return tuple(f"{name}_{statistic}" for statistic in ("mean", "std", "cv") for name in names)


def in_chunks(
    tensor: Tensor,
    inner: int,
    features: Callable[[Tensor], Tensor],
    start: int = 0,
    stop: int | None = None,
    pixels: int | None = None,
) -> Tensor:
    """Compute features of items of a tensor, one chunk after the other.

    Args:
        tensor: Tensor [..., *item]; items are numbered as if leading dimensions were flattened.
        inner: Number of dimensions of an item.
        features: Function that maps items [B, *item] to features [B, K].
        start: First item.
        stop: Item after the last one; default: all items.
        pixels: Number of pixels to process at once; default: `chunk_pixels`.

    Returns:
        Features [stop − start, K].
    """
    tensor = tensor.detach().unsqueeze(0)
    lead, item = tensor.shape[:-inner], tensor.shape[-inner:]
    stop = math.prod(lead) if stop is None else stop
    # A single item is computed twice: torch splits a sum that yields one number over threads, so
    # its rounding would depend on the number of threads and of items. Trajectories larger than a
    # chunk need no copy, because they are always alone and yield T sums.
    limit = chunk_pixels(tensor) if pixels is None else pixels
    size = max(2 if inner == 2 else 1, limit // math.prod(item))
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
