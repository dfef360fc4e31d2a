"""Describes the layout of a dataset file: its attributes, and each dataset with shape and type."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.features import (
    AGGREGATED_NAMES,
    PER_TIMESTEP_NAMES,
    PER_TRAJECTORY_NAMES,
    custom_columns,
)
from spinlock.simulation.parameter_space import PARAMETER_NAMES, ParameterSpace

SCHEMA_VERSION = "1.1"

#: Root attributes that describe what computed the samples: JSON lists of distinct records.
PROVENANCE: dict[str, str] = {
    "package_versions": "versions of the packages that computed the samples",
    "device": "device that computed the samples",
    "features": "registry of the feature columns: formula, unit, range, reference",
}

#: Every root attribute of a dataset file.
ROOT_ATTRIBUTES: dict[str, str] = {
    "schema_version": "version of this layout",
    "configuration": "the generation configuration, as JSON",
    "fingerprint": "SHA-256 of what determines the bytes of a sample",
    **PROVENANCE,
    "design_quality": "measured evenness of the design, as JSON",
    "digest": "SHA-256 of metadata/digests",
    "run_summary": "what the run that completed the file did and took, as JSON",
    "attributes_digest": "SHA-256 of the other root attributes and of those of the datasets",
}
#: Root attribute of a shard: its first sample and one past its last.
SAMPLES = "samples"
#: Attribute of a column, a dataset that is not chunked: SHA-256 of the values of all samples.
COLUMN_DIGEST = "sha256"
#: Every attribute of a dataset that the schema names.
DATASET_ATTRIBUTES = ("description", "dimensions", "names", COLUMN_DIGEST)

#: Type of metadata/digests: hexadecimal SHA-256 as text.
DIGEST_DTYPE: np.dtype[Any] = np.dtype(h5py.string_dtype("utf-8", length=64))

#: Bounds of noise_scale between the noise regimes low, medium and high.
NOISE_REGIME_BOUNDS = (0.01, 0.1)
NOISE_REGIME_NAMES = ("low", "medium", "high")

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
DIGESTS = "metadata/digests"
PER_TIMESTEP = "features/sdf/per_timestep/features"
PER_TRAJECTORY = "features/sdf/per_trajectory/features"
AGGREGATED = "features/sdf/aggregated/features"
INITIAL_FEATURES = "features/sdf/initial/features"

_FEATURE_ARRAYS = {
    "per_timestep": "features of each of the fields u_1..u_T, mean over realizations and channels",
    "per_trajectory": "features of u_1..u_T together, mean over channels; NaN where T is too small",
    "aggregated": "mean, std and cv of per_trajectory over realizations; NaN where T is too small",
    "initial": "features of u_0, the columns of per_timestep, mean over channels",
}


@dataclass(frozen=True)
class DatasetSpec:
    """Name, shape and type of one dataset of the file. Its first dimension is the sample.

    Args:
        name: Path in the file.
        shape: Shape of one sample's entry.
        dtype: Element type.
        dims: Names of the dimensions.
        description: Content and units, as stored in the file.
        names: Column names of the last dimension, or the values that text may take.
        chunk: Shape of a (compressed) chunk of one sample's entry; default: the dataset is a
            column, which is not chunked.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    description: str
    names: tuple[str, ...] = ()
    chunk: tuple[int, ...] | None = None

    @property
    def attributes(self) -> dict[str, str | list[str]]:
        """Attributes of the dataset that describe it."""
        attributes: dict[str, str | list[str]] = {
            "description": self.description,
            "dimensions": list(self.dims),
        }
        return attributes | ({"names": list(self.names)} if self.names else {})

    @cached_property
    def chunk_slices(self) -> tuple[tuple[slice, ...], ...]:
        """Place of each chunk in a sample's entry, in storage order."""
        assert self.chunk is not None
        steps = [
            [slice(start, start + step) for start in range(0, size, step)]
            for size, step in zip(self.shape, self.chunk, strict=True)
        ]
        return tuple(product(*steps))


def _text(values: tuple[str, ...]) -> np.dtype[Any]:
    """Return the fixed-width UTF-8 type that is wide enough for the values."""
    width = max(len(value.encode()) for value in values)
    dtype: np.dtype[Any] = h5py.string_dtype("utf-8", length=width)
    return dtype


def _values_dtype(config: GenerationConfig) -> np.dtype[Any]:
    """Return the compound type of parameters/values, with text marked as UTF-8."""
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
            chunk=field,
        ),
        DatasetSpec(
            OUTPUTS,
            (config.num_realizations, *steps, *field),
            float32,
            ("sample", "realization", *step_dims, "channel", "y", "x"),
            "fields u_t at the stored timesteps, dimensionless",
            # One channel with all its realizations and timesteps. Deflate looks back 32 KiB, and
            # after the byte shuffle, neighboring realizations of a 128 x 128 channel lie 16 KiB
            # apart: it finds the leading bytes that they share.
            chunk=(config.num_realizations, *steps, 1, *field[1:]),
        ),
    ]


def custom_features(array: str) -> str:
    """Return the path of the dataset of an array of `spinlock.features.custom_columns`."""
    return f"features/custom/{array}/features"


def _feature_specs(config: GenerationConfig) -> list[DatasetSpec]:
    sdf = {
        PER_TIMESTEP: ("per_timestep", PER_TIMESTEP_NAMES),
        PER_TRAJECTORY: ("per_trajectory", PER_TRAJECTORY_NAMES),
        AGGREGATED: ("aggregated", AGGREGATED_NAMES),
        INITIAL_FEATURES: ("initial", PER_TIMESTEP_NAMES),
    }
    custom = {
        custom_features(array): (array, names)
        for array, names in custom_columns(config.features).items()
    }
    dims: dict[str, dict[str, int]] = {
        "per_timestep": {"timestep": config.num_timesteps},
        "per_trajectory": {"realization": config.num_realizations},
        "aggregated": {},
        "initial": {},
    }
    return [
        DatasetSpec(
            name,
            (*dims[array].values(), len(names)),
            np.dtype(np.float32),
            ("sample", *dims[array], "feature"),
            _FEATURE_ARRAYS[array],
            names,
        )
        for name, (array, names) in (sdf | custom).items()
    ]


def dataset_specs(config: GenerationConfig) -> tuple[DatasetSpec, ...]:
    """Return every dataset that a file of this configuration holds, in order."""
    mixture = Mixture(config.initial_conditions)
    families = tuple(dict.fromkeys(mixture.families))
    policies = config.parameter_space.update_policy
    first, second = NOISE_REGIME_BOUNDS
    regimes = f"low < {first:g} <= medium < {second:g} <= high (noise_scale)"

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
        text(NOISE_REGIMES, regimes, NOISE_REGIME_NAMES),
        number(OPERATOR_INDEX, "operator of the sample", np.int64),
        *_feature_specs(config),
        DatasetSpec(
            DIGESTS,
            (),
            DIGEST_DTYPE,
            ("sample",),
            "SHA-256 (hexadecimal) of everything else that the file holds of the sample",
        ),
    )
