"""The configuration of a dataset: typed dataclasses, checked when they are made."""

from spinlock.configuration.generation_config import (
    CustomFeatureConfig,
    Every,
    GenerationConfig,
    StorageConfig,
)
from spinlock.configuration.parameter_axes import (
    IntegerRange,
    ParameterSpaceConfig,
    UniformRange,
)
from spinlock.configuration.stored_config import StoredConfig
from spinlock.configuration.variant_mixture import InitialConditionConfig

__all__ = [
    "CustomFeatureConfig",
    "Every",
    "GenerationConfig",
    "InitialConditionConfig",
    "IntegerRange",
    "ParameterSpaceConfig",
    "StorageConfig",
    "StoredConfig",
    "UniformRange",
]
