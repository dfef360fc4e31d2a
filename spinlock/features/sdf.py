"""Summary Descriptor Features v1.0: names, layout, and extraction."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spinlock.features.batches import (
    aggregate,
    aggregated_names,
    check_fields,
    chunk_pixels,
    field_averages,
    in_chunks,
    trajectory_averages,
)
from spinlock.features.registry import names
from spinlock.features.spatial import centre, spatial_of
from spinlock.features.spectral import spectral_of
from spinlock.features.temporal import temporal_of

SDF_VERSION = "1.0"

PER_TIMESTEP_NAMES: tuple[str, ...] = names("spatial") + names("spectral")
PER_TRAJECTORY_NAMES: tuple[str, ...] = names("temporal")
AGGREGATED_NAMES: tuple[str, ...] = aggregated_names(PER_TRAJECTORY_NAMES)

_SAMPLES = ("N", "M", "T", "C", "H", "W")


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
    check_fields(fields, _SAMPLES)
    limit = chunk_pixels(fields)
    per_trajectory = trajectory_averages(fields, lambda chunk: temporal_of(chunk, limit))
    return SDFFeatures(extract_per_timestep(fields), per_trajectory, aggregate(per_trajectory))


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
    check_fields(fields, _SAMPLES)
    return field_averages(fields, _field_features, len(PER_TIMESTEP_NAMES))


def spatial_features(fields: Tensor) -> Tensor:
    """The 19 spatial features [..., 19] of each field [..., H, W]; errors as for `extract`."""
    check_fields(fields, ("...", "H", "W"))
    features = in_chunks(fields, 2, lambda chunk: spatial_of(centre(chunk)))
    return features.reshape(*fields.shape[:-2], -1)


def spectral_features(fields: Tensor) -> Tensor:
    """The 27 spectral features [..., 27] of each field [..., H, W]; errors as for `extract`."""
    check_fields(fields, ("...", "H", "W"))
    features = in_chunks(fields, 2, lambda chunk: spectral_of(centre(chunk)))
    return features.reshape(*fields.shape[:-2], -1)


def temporal_features(trajectories: Tensor) -> Tensor:
    """The 13 temporal features [..., 13] of trajectories [..., T, H, W]; errors as `extract`."""
    check_fields(trajectories, ("...", "T", "H", "W"))
    limit = chunk_pixels(trajectories)
    features = in_chunks(trajectories, 3, lambda chunk: temporal_of(chunk, limit))
    return features.reshape(*trajectories.shape[:-3], -1)


def _field_features(fields: Tensor) -> Tensor:
    """The 46 features [B, 46] of fields [B, H, W]."""
    centred = centre(fields)
    return torch.cat((spatial_of(centred), spectral_of(centred)), dim=-1)
