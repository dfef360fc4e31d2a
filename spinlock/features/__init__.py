"""Summary Descriptor Features: 98 numbers that describe a trajectory of fields.

`extract` computes them for samples [N, M, T, C, H, W], `FEATURES` documents them, and
`custom_feature` marks user-defined functions as features.
"""

from spinlock.features.custom import CustomFeatures, custom_columns, custom_feature
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
    "CustomFeatures",
    "Feature",
    "SDFFeatures",
    "custom_columns",
    "custom_feature",
    "extract",
    "extract_per_timestep",
    "spatial_features",
    "spectral_features",
    "temporal_features",
]
