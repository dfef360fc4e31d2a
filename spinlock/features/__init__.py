"""Summary Descriptor Features: what a trajectory of fields looks like, in 98 numbers.

`extract` describes samples [N, M, T, C, H, W]; `FEATURES` says what each number is.
"""

from spinlock.features.registry import FEATURES, Feature
from spinlock.features.sdf import (
    AGGREGATED_NAMES,
    PER_TIMESTEP_NAMES,
    PER_TRAJECTORY_NAMES,
    SDF_VERSION,
    SDFFeatures,
    extract,
    extract_per_timestep,
    spatial_features,
    spectral_features,
    temporal_features,
)

__all__ = [
    "AGGREGATED_NAMES",
    "FEATURES",
    "PER_TIMESTEP_NAMES",
    "PER_TRAJECTORY_NAMES",
    "SDF_VERSION",
    "Feature",
    "SDFFeatures",
    "extract",
    "extract_per_timestep",
    "spatial_features",
    "spectral_features",
    "temporal_features",
]
