"""The layout of the file: one description that writer, reader and documentation share."""

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from spinlock.config import GenerationConfig
from spinlock.features import AGGREGATED_NAMES, PER_TIMESTEP_NAMES, PER_TRAJECTORY_NAMES
from spinlock.initial_conditions import Mixture
from spinlock.parameters import PARAMETER_NAMES, ParameterSpace

SCHEMA_VERSION = "1.0"

#: Root attributes that tell what computed the samples: JSON lists, one record per distinct origin.
PROVENANCE: dict[str, str] = {
    "package_versions": "versions of the packages that computed the samples",
    "device": "device that computed the samples",
}

#: Every root attribute of a dataset file.
ROOT_ATTRIBUTES: dict[str, str] = {
    "schema_version": "version of this layout",
    "configuration": "the generation configuration, as JSON",
    "fingerprint": "SHA-256 of what determines the bytes of a sample",
    **PROVENANCE,
    "design_quality": "measured evenness of the design, as JSON",
}

#: Bounds of noise_scale between the noise regimes low, medium and high.
NOISE_REGIME_BOUNDS = (0.01, 0.1)

INPUTS = "inputs/fields"
OUTPUTS = "outputs/fields"
PARAMS = "parameters/params"
VALUES = "parameters/values"
IC_TYPES = "metadata/ic_types"
IC_FAMILIES = "metadata/ic_families"
POLICIES = "metadata/evolution_policies"
GRID_SIZES = "metadata/grid_sizes"
NOISE_REGIMES = "metadata/noise_regimes"
OPERATOR_INDEX = "metadata/operator_index"
PER_TIMESTEP = "features/sdf/per_timestep/features"
PER_TRAJECTORY = "features/sdf/per_trajectory/features"
AGGREGATED = "features/sdf/aggregated/features"
INITIAL_FEATURES = "features/sdf/initial/features"


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset of the file; its first dimension is the sample.

    Args:
        name: Path in the file.
        shape: Shape of one sample's entry.
        dtype: Element type.
        dims: Names of the dimensions.
        description: What it holds, with units.
        names: Column names of the last dimension, or the values that text may take.
        is_field: Whether it is chunked by sample and compressed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    description: str
    names: tuple[str, ...] = ()
    is_field: bool = False


def _text(values: tuple[str, ...]) -> np.dtype[Any]:
    """Fixed-width UTF-8, wide enough for the values."""
    width = max(len(value.encode()) for value in values)
    dtype: np.dtype[Any] = h5py.string_dtype("utf-8", length=width)
    return dtype


def _values_dtype(config: GenerationConfig) -> np.dtype[Any]:
    """The compound type of parameters/values, with text marked as UTF-8."""
    dtype = ParameterSpace(config.parameter_space).dtype
    return np.dtype(
        [
            (name, h5py.string_dtype("utf-8", length=dtype[name].itemsize))
            if dtype[name].kind == "S"
            else (name, dtype[name])
            for name in PARAMETER_NAMES
        ]
    )


def _field_specs(config: GenerationConfig) -> list[DatasetSpec]:
    field = (config.channels, config.grid_size, config.grid_size)
    stored = len(config.stored_steps)
    if not stored:
        return []
    steps = (stored,) if config.num_timesteps > 1 else ()
    step_dims = ("stored timestep",) if steps else ()
    float32 = np.dtype(np.float32)
    return [
        DatasetSpec(
            INPUTS,
            field,
            float32,
            ("sample", "channel", "y", "x"),
            "initial conditions u_0, dimensionless",
            is_field=True,
        ),
        DatasetSpec(
            OUTPUTS,
            (config.num_realizations, *steps, *field),
            float32,
            ("sample", "realization", *step_dims, "channel", "y", "x"),
            "fields u_t at the stored timesteps, dimensionless, |u| bounded by the operator",
            is_field=True,
        ),
    ]


def _feature_specs(config: GenerationConfig) -> list[DatasetSpec]:
    def spec(
        name: str, dims: tuple[str, ...], shape: tuple[int, ...], names: tuple[str, ...], what: str
    ) -> DatasetSpec:
        return DatasetSpec(
            name,
            (*shape, len(names)),
            np.dtype(np.float32),
            ("sample", *dims, "feature"),
            what,
            names,
        )

    return [
        spec(
            PER_TIMESTEP,
            ("timestep",),
            (config.num_timesteps,),
            PER_TIMESTEP_NAMES,
            "spatial and spectral features of u_1..u_T, mean over realizations and channels",
        ),
        spec(
            PER_TRAJECTORY,
            ("realization",),
            (config.num_realizations,),
            PER_TRAJECTORY_NAMES,
            "temporal features of u_1..u_T, mean over channels; NaN where T is too small",
        ),
        spec(
            AGGREGATED,
            (),
            (),
            AGGREGATED_NAMES,
            "mean, std and cv of the temporal features over realizations; NaN where T is too small",
        ),
        spec(
            INITIAL_FEATURES,
            (),
            (),
            PER_TIMESTEP_NAMES,
            "spatial and spectral features of u_0, mean over channels",
        ),
    ]


def dataset_specs(config: GenerationConfig) -> tuple[DatasetSpec, ...]:
    """Every dataset that a file of this configuration holds, in order."""
    mixture = Mixture(config.initial_conditions)
    families = tuple(dict.fromkeys(mixture.families))
    policies = config.parameter_space.update_policy
    regimes = ("low", "medium", "high")

    def text(name: str, what: str, values: tuple[str, ...]) -> DatasetSpec:
        return DatasetSpec(name, (), _text(values), ("sample",), what, values)

    def number(name: str, what: str, kind: type[np.generic]) -> DatasetSpec:
        return DatasetSpec(name, (), np.dtype(kind), ("sample",), what)

    return (
        *_field_specs(config),
        DatasetSpec(
            PARAMS,
            (len(PARAMETER_NAMES),),
            np.dtype(np.float32),
            ("sample", "axis"),
            "the operator as a point of the unit cube",
            PARAMETER_NAMES,
        ),
        DatasetSpec(
            VALUES, (), _values_dtype(config), ("sample",), "the operator's parameter values"
        ),
        text(IC_TYPES, "variant of the initial condition", mixture.names),
        text(IC_FAMILIES, "family of the initial condition", families),
        text(POLICIES, "update policy", policies),
        number(GRID_SIZES, "side of the grid in pixels", np.int32),
        text(NOISE_REGIMES, "low < 0.01 <= medium < 0.1 <= high (noise_scale)", regimes),
        number(OPERATOR_INDEX, "operator of the sample", np.int64),
        *_feature_specs(config),
    )
