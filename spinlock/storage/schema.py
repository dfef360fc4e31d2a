"""Describes the layout of a dataset file: its attributes, and each dataset with shape and type."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import h5py
import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.parameter_axes import describe_axis
from spinlock.features import (
    AGGREGATED_NAMES,
    PER_TIMESTEP_NAMES,
    PER_TRAJECTORY_NAMES,
    custom_columns,
)
from spinlock.features.response import (
    NOISE_NAMES,
    TRANSPORT_NAMES,
    divergence_names,
    response_names,
)
from spinlock.simulation.dynamics_rows import dynamics_names

SCHEMA_VERSION = "1.3"

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
#: Largest number of texts in an attribute, which HDF5 limits to 64 KiB: 16 bytes for each.
MAX_NAMES = 4000

#: Type of metadata/digests: hexadecimal SHA-256 as text.
DIGEST_DTYPE: np.dtype[Any] = np.dtype(h5py.string_dtype("utf-8", length=64))

#: Bounds of noise_scale between the noise regimes low, medium and high.
NOISE_REGIME_BOUNDS = (0.01, 0.1)
NOISE_REGIME_NAMES = ("low", "medium", "high")

INPUTS = "inputs/fields"
OUTPUTS = "outputs/fields"
PARAMS = "parameters/params"
#: Group of a column of values for each axis of the parameter space.
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
RESPONSES = "features/response/per_timestep/features"
TRANSPORT_RESPONSES = "features/response/transport/features"
NOISE_RESPONSES = "features/response/noise/features"
DIVERGENCE = "features/response/divergence/features"
DYNAMICS = "operators/dynamics"


@dataclass(frozen=True)
class DatasetSpec:
    """Name, shape and type of one dataset of the file. Its rows belong to samples or operators.

    Args:
        name: Path in the file.
        shape: Shape of one row.
        dtype: Element type.
        dims: Names of the dimensions.
        description: Content and units, as stored in the file.
        names: Column names of the last dimension, or the values that text may take.
        chunk: Shape of a (compressed) chunk of one sample's entry; default: the dataset is a
            column, which is not chunked.
        samples_per_row: Number of consecutive samples that share a row: 1, or the number of probes
            of an operator. The row belongs to the first of them. Default: 1.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    description: str
    names: tuple[str, ...] = ()
    chunk: tuple[int, ...] | None = None
    samples_per_row: int = 1

    def rows(self, samples: range) -> range:
        """Return the rows of a complete dataset that belong to consecutive samples."""
        size = self.samples_per_row
        return range(-(-samples.start // size), -(-samples.stop // size))

    @property
    def attributes(self) -> dict[str, str | list[str]]:
        """Attributes of the dataset that describe it."""
        named = {"names": list(self.names)} if 0 < len(self.names) <= MAX_NAMES else {}
        return {"description": self.description, "dimensions": list(self.dims), **named}

    @cached_property
    def chunk_slices(self) -> tuple[tuple[slice, ...], ...]:
        """Place of each chunk in a sample's entry, in storage order."""
        assert self.chunk is not None
        steps = [
            [slice(start, start + step) for start in range(0, size, step)]
            for size, step in zip(self.shape, self.chunk, strict=True)
        ]
        return tuple(product(*steps))


def _spec(
    name: str,
    dims: dict[str, int],
    dtype: type[np.generic] | np.dtype[Any],
    description: str,
    names: tuple[str, ...] = (),
    chunk: tuple[int, ...] | None = None,
) -> DatasetSpec:
    """Return a specification from the name and size of each dimension of a sample's entry."""
    shape, kind = tuple(dims.values()), np.dtype(dtype)
    return DatasetSpec(name, shape, kind, ("sample", *dims), description, names, chunk)


def _utf8(width: int) -> np.dtype[Any]:
    """Return the type of UTF-8 text with a fixed number of bytes."""
    dtype: np.dtype[Any] = h5py.string_dtype("utf-8", length=width)
    return dtype


def _label_spec(name: str, description: str, labels: tuple[str, ...]) -> DatasetSpec:
    width = max(len(label.encode()) for label in labels)
    return _spec(name, {}, _utf8(width), description, labels)


def value_names(config: GenerationConfig) -> tuple[str, ...]:
    """Return the paths of the columns of parameter values, one for each axis."""
    return tuple(f"{VALUES}/{axis}" for axis in config.space.names)


def _value_specs(config: GenerationConfig) -> list[DatasetSpec]:
    specs = []
    for name, (axis, values) in zip(value_names(config), config.axes.items(), strict=True):
        dtype, labels = config.space.dtype[axis], ()
        if dtype.kind == "S" and isinstance(values, tuple):
            dtype, labels = _utf8(dtype.itemsize), values
        specs.append(_spec(name, {}, dtype, f"{axis}: {describe_axis(values)}", labels))
    return specs


def _field_specs(config: GenerationConfig) -> list[DatasetSpec]:
    stored = len(config.stored_steps)
    if not stored:
        return []
    field = {"channel": config.channels, "y": config.grid_size, "x": config.grid_size}
    repeated = {"realization": config.num_realizations}
    repeated |= {"timestep": stored} if config.num_timesteps > 1 else {}
    # One channel with all its realizations and timesteps. Deflate looks back 32 KiB, and after the
    # byte shuffle, neighboring realizations of a 128 x 128 channel lie 16 KiB apart: it finds the
    # leading bytes that they share.
    chunk = tuple((repeated | field | {"channel": 1}).values())
    initial, later = (
        "initial conditions u_0, dimensionless",
        "fields u_t at the stored timesteps, dimensionless",
    )
    return [
        _spec(INPUTS, field, np.float32, initial, chunk=tuple(field.values())),
        _spec(OUTPUTS, repeated | field, np.float32, later, chunk=chunk),
    ]


def custom_features(array: str) -> str:
    """Return the path of the dataset of an array of `spinlock.features.custom_columns`."""
    return f"features/custom/{array}/features"


def feature_specs(config: GenerationConfig) -> dict[str, DatasetSpec]:
    """Return the datasets of features that a file of this configuration holds, by name."""
    arrays: dict[str, tuple[dict[str, int], str]] = {
        "per_timestep": (
            {"timestep": config.num_timesteps},
            "features of each of the fields u_1..u_T, mean over realizations and channels",
        ),
        "per_trajectory": (
            {"realization": config.num_realizations},
            "features of u_1..u_T together, mean over channels; NaN where T is too small",
        ),
        "aggregated": (
            {},
            "mean, std and cv of per_trajectory over realizations; NaN where T is too small",
        ),
        "initial": ({}, "features of u_0, the columns of per_timestep, mean over channels"),
    }
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
    specs = (
        _spec(name, dims | {"feature": len(names)}, np.float32, description, names)
        for name, (array, names) in (sdf | custom).items()
        for dims, description in [arrays[array]]
    )
    return {spec.name: spec for spec in (*specs, *_response_specs(config))}


def _response_specs(config: GenerationConfig) -> list[DatasetSpec]:
    if not config.responses:
        return []
    columns: dict[str, tuple[dict[str, int], tuple[str, ...], str]] = {
        RESPONSES: (
            {"timestep": config.num_timesteps},
            response_names(config.channels),
            "response of u_t to u_{t-1}, mean over realizations",
        ),
        TRANSPORT_RESPONSES: (
            {"timestep": config.num_timesteps},
            TRANSPORT_NAMES,
            "transport from u_{t-1} to u_t, mean over realizations",
        ),
        NOISE_RESPONSES: (
            {},
            NOISE_NAMES,
            "spread of u_1 over realizations; NaN for one realization",
        ),
    }
    if config.num_timesteps > 1:
        columns[DIVERGENCE] = (
            {},
            divergence_names(config.num_timesteps),
            "growth of the spread over realizations; NaN for one realization",
        )
    return [
        _spec(name, dims | {"feature": len(names)}, np.float32, description, names)
        for name, (dims, names, description) in columns.items()
    ]


def _dynamics_specs(config: GenerationConfig) -> list[DatasetSpec]:
    names, probes = dynamics_names(config), config.probes_per_operator
    if not names:
        return []
    text = "dynamics of each operator, measured without forcing on fields of its own"
    dims = ("operator", "quantity")
    kind = np.dtype(np.float32)
    spec = DatasetSpec(DYNAMICS, (len(names),), kind, dims, text, names, samples_per_row=probes)
    return [spec]


def dataset_specs(config: GenerationConfig) -> tuple[DatasetSpec, ...]:
    """Return every dataset that a file of this configuration holds, in order."""
    mixture = config.mixture
    families = tuple(dict.fromkeys(mixture.families))
    policies = config.parameter_space.update_policy
    axes = {"axis": len(config.space.names)}
    first, second = NOISE_REGIME_BOUNDS
    regimes = f"low < {first:g} <= medium < {second:g} <= high (noise_scale)"
    digests = "SHA-256 (hexadecimal) of everything else that the file holds of the sample"
    return (
        *_field_specs(config),
        _spec(PARAMS, axes, np.float32, "operator as a point of the unit cube", config.space.names),
        *_value_specs(config),
        _label_spec(IC_TYPES, "variant of the initial condition", mixture.names),
        _label_spec(IC_FAMILIES, "family of the initial condition", families),
        _label_spec(POLICIES, "update policy", policies),
        _spec(GRID_SIZES, {}, np.int32, "side of the grid in pixels"),
        _label_spec(NOISE_REGIMES, regimes, NOISE_REGIME_NAMES),
        _spec(OPERATOR_INDEX, {}, np.int64, "operator of the sample"),
        *feature_specs(config).values(),
        *_dynamics_specs(config),
        _spec(DIGESTS, {}, DIGEST_DTYPE, digests),
    )
