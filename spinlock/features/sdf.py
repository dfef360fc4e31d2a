"""Extracts Summary Descriptor Features (SDF) v1.0 and defines their layout."""

from typing import NamedTuple

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
from spinlock.features.spatial import spatial_of, standardize
from spinlock.features.spectral import spectral_of
from spinlock.features.temporal import temporal_of

SDF_VERSION = "1.0"

PER_TIMESTEP_NAMES: tuple[str, ...] = names("spatial") + names("spectral")
PER_TRAJECTORY_NAMES: tuple[str, ...] = names("temporal")
AGGREGATED_NAMES: tuple[str, ...] = aggregated_names(PER_TRAJECTORY_NAMES)

_SAMPLES = ("N", "M", "T", "C", "H", "W")


class SDFFeatures(NamedTuple):
    """Features of a batch of samples; all arrays are float32.

    The tuples `PER_TIMESTEP_NAMES`, `PER_TRAJECTORY_NAMES` and `AGGREGATED_NAMES` name the columns.

    Attributes:
        per_timestep: Features of fields, averaged over realizations and channels, [N, T, 46].
        per_trajectory: Features of trajectories, averaged over channels, [N, M, 13]. NaN where T is
            below the minimum of the feature.
        aggregated: Mean, population standard deviation and coefficient of variation of
            ``per_trajectory`` over realizations, [N, 39]. NaN where T is too small.

    Example:
        >>> import torch
        >>> from spinlock.features import extract
        >>> extract(torch.randn(2, 1, 4, 3, 16, 16))._fields
        ('per_timestep', 'per_trajectory', 'aggregated')
    """

    per_timestep: Tensor
    per_trajectory: Tensor
    aggregated: Tensor


def extract(fields: Tensor) -> SDFFeatures:
    """Extract all features of samples.

    Features are computed in float32, sums of time series and averages of features in float64.

    Args:
        fields: Floating-point fields [N, M, T, C, H, W]: samples, realizations, timesteps, channels
            and a periodic grid of at least 8×8 pixels. They must be finite; this is not checked.

    Returns:
        Features on the device of the fields, without gradients.

    Raises:
        TypeError: If the fields are not floating point.
        ValueError: If the fields have another shape.

    Example:
        >>> import torch
        >>> from spinlock.features import extract
        >>> features = extract(torch.randn(2, 1, 4, 3, 16, 16))
        >>> features.per_timestep.shape, features.aggregated.shape
        (torch.Size([2, 4, 46]), torch.Size([2, 39]))
    """
    check_fields(fields, _SAMPLES)
    limit = chunk_pixels(fields)
    per_trajectory = trajectory_averages(fields, lambda chunk: temporal_of(chunk, limit))
    return SDFFeatures(extract_per_timestep(fields), per_trajectory, aggregate(per_trajectory))


def extract_per_timestep(fields: Tensor) -> Tensor:
    """Extract only the features of fields, for example of initial conditions.

    Args:
        fields: Floating-point fields [N, M, T, C, H, W], as for `extract`.

    Returns:
        Features averaged over realizations and channels, float32 [N, T, 46].

    Raises:
        TypeError: If the fields are not floating point.
        ValueError: If the fields have another shape.

    Example:
        >>> import torch
        >>> from spinlock.features import extract_per_timestep
        >>> extract_per_timestep(torch.randn(2, 1, 1, 3, 16, 16)).shape
        torch.Size([2, 1, 46])
    """
    check_fields(fields, _SAMPLES)
    return field_averages(fields, _field_features, len(PER_TIMESTEP_NAMES))


def spatial_features(fields: Tensor) -> Tensor:
    """Extract the 19 spatial features of single fields.

    Args:
        fields: Floating-point fields [..., H, W].

    Returns:
        Features, float32 [..., 19].

    Raises:
        TypeError: If the fields are not floating point.
        ValueError: If the fields have another shape.

    Example:
        >>> import torch
        >>> from spinlock.features import spatial_features
        >>> spatial_features(torch.full((16, 16), 2.0))[0]  # spatial_mean
        tensor(2.)
    """
    check_fields(fields, ("...", "H", "W"))
    features = in_chunks(fields, 2, lambda chunk: spatial_of(standardize(chunk)))
    return features.reshape(*fields.shape[:-2], -1)


def spectral_features(fields: Tensor) -> Tensor:
    """Extract the 27 spectral features of single fields.

    Args:
        fields: Floating-point fields [..., H, W].

    Returns:
        Features, float32 [..., 27].

    Raises:
        TypeError: If the fields are not floating point.
        ValueError: If the fields have another shape.

    Example:
        >>> import torch
        >>> from spinlock.features import spectral_features
        >>> wave = torch.cos(torch.arange(16) * torch.pi / 4).expand(16, 16)
        >>> spectral_features(wave)[15]  # dominant_freq_x, in cycles per pixel
        tensor(0.1250)
    """
    check_fields(fields, ("...", "H", "W"))
    features = in_chunks(fields, 2, lambda chunk: spectral_of(standardize(chunk)))
    return features.reshape(*fields.shape[:-2], -1)


def temporal_features(trajectories: Tensor) -> Tensor:
    """Extract the 13 temporal features of single trajectories.

    Args:
        trajectories: Floating-point trajectories [..., T, H, W].

    Returns:
        Features, float32 [..., 13]. NaN where T is below the minimum of the feature.

    Raises:
        TypeError: If the trajectories are not floating point.
        ValueError: If the trajectories have another shape.

    Example:
        >>> import torch
        >>> from spinlock.features import temporal_features
        >>> growing = torch.randn(16, 16) * 2.0 ** torch.arange(4)[:, None, None]
        >>> temporal_features(growing)[0]  # energy_growth_rate, 2 ln 2
        tensor(1.3863)
    """
    check_fields(trajectories, ("...", "T", "H", "W"))
    limit = chunk_pixels(trajectories)
    features = in_chunks(trajectories, 3, lambda chunk: temporal_of(chunk, limit))
    return features.reshape(*trajectories.shape[:-3], -1)


def _field_features(fields: Tensor) -> Tensor:
    """Compute the 46 features [B, 46] of fields [B, H, W]."""
    standardized = standardize(fields)
    return torch.cat((spatial_of(standardized), spectral_of(standardized)), dim=-1)
