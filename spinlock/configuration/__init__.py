"""Configuration of a dataset: typed dataclasses that are validated on construction."""

from spinlock.configuration.file_content import CustomFeatureConfig, Every, StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import (
    IntegerRange,
    LogUniformRange,
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
    "LogUniformRange",
    "ParameterSpaceConfig",
    "StorageConfig",
    "StoredConfig",
    "UniformRange",
]
