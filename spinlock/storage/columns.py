"""Computes the columns of a file from its design and its samples, and checks stored columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.features import SDFFeatures
from spinlock.features.response import ResponseFeatures
from spinlock.simulation.samples import Samples
from spinlock.simulation.sobol_design import Design
from spinlock.storage import schema


def metadata_columns(config: GenerationConfig, design: Design) -> dict[str, NDArray[Any]]:
    """Return the columns that follow from the design.

    Args:
        config: Configuration of the dataset.
        design: Design of N samples.

    Returns:
        Name of the dataset -> (N, ...) values.
    """
    mixture = config.mixture
    return {
        schema.PARAMS: design.params,
        **{name: design.values[axis] for axis, name in _value_columns(config).items()},
        schema.IC_TYPES: encoded(mixture.names)[design.variant],
        schema.IC_FAMILIES: encoded(mixture.families)[design.variant],
        **operator_columns(design.values),
        schema.OPERATOR_INDEX: design.operator_index,
    }


def operator_columns(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the columns that follow from (N,) typed parameter values."""
    regime = np.digitize(values["noise_scale"], schema.NOISE_REGIME_BOUNDS)
    return {
        schema.POLICIES: values["update_policy"],
        schema.GRID_SIZES: values["grid_size"],
        schema.NOISE_REGIMES: encoded(schema.NOISE_REGIME_NAMES)[regime],
    }


def parameter_values(
    columns: Mapping[str, NDArray[Any]], config: GenerationConfig
) -> NDArray[np.void]:
    """Join the columns of parameter values.

    Args:
        columns: Name of a dataset -> (N,) values; text is bytes, or ASCII as ``str``.
        config: Configuration of the dataset.

    Returns:
        Structured array (N,) with one field per axis, as `ParameterSpace.values` returns it.
    """
    named = _value_columns(config)
    values = np.empty(len(columns[schema.value_names(config)[0]]), config.space.dtype)
    for axis, name in named.items():
        values[axis] = columns[name]
    return values


def _value_columns(config: GenerationConfig) -> dict[str, str]:
    return dict(zip(config.space.names, schema.value_names(config), strict=True))


def encoded(names: tuple[str, ...]) -> NDArray[np.bytes_]:
    """Return labels as a file stores them."""
    return np.array([name.encode() for name in names])


def feature_columns(
    features: SDFFeatures,
    initial: Tensor,
    custom: Mapping[str, Tensor],
    responses: ResponseFeatures | None,
) -> dict[str, Tensor]:
    """Return features by the name of their dataset.

    Args:
        features: Features of n trajectories.
        initial: (n, F) features of their initial conditions.
        custom: Custom features, by array as in `spinlock.features.custom_columns`.
        responses: Response features; None if the file has none.
    """
    columns = {
        schema.PER_TIMESTEP: features.per_timestep,
        schema.PER_TRAJECTORY: features.per_trajectory,
        schema.AGGREGATED: features.aggregated,
        schema.INITIAL_FEATURES: initial,
        **{schema.custom_features(array): values for array, values in custom.items()},
    }
    if responses is not None:
        columns[schema.RESPONSES] = responses.per_timestep
        columns[schema.TRANSPORT_RESPONSES] = responses.transport
        columns[schema.NOISE_RESPONSES] = responses.noise
        # Without columns at one timestep, where a file leaves it out.
        columns[schema.DIVERGENCE] = responses.divergence
    return columns


def sample_arrays(samples: Samples) -> dict[str, NDArray[Any]]:
    """Return the arrays computed for n samples, by name of the dataset."""
    tensors = {
        schema.INPUTS: samples.initial,
        schema.OUTPUTS: samples.fields,
        **feature_columns(
            samples.features, samples.initial_features, samples.custom, samples.responses
        ),
    }
    if samples.dynamics is not None:
        tensors[schema.DYNAMICS] = samples.dynamics
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def values_differ(
    params: NDArray[np.float32], values: NDArray[np.void], config: GenerationConfig
) -> NDArray[np.bool_]:
    """Return (N,) whether typed values differ from those of the points of the unit cube."""
    # Also false for NaN.
    inside = np.asarray(((params >= 0) & (params <= 1)).all(axis=1))
    expected = config.space.values(np.where(inside[:, None], params, 0.5))
    same = [_same(values[name], expected[name]) for name in expected.dtype.names or ()]
    return np.asarray(~np.logical_and.reduce([inside, *same]))


def _same(one: NDArray[Any], two: NDArray[Any]) -> NDArray[np.bool_]:
    if one.dtype.kind == "f":
        # The logarithm of another machine's library may differ in the last place.
        return np.asarray(np.isclose(one, two, rtol=1e-12, atol=0))
    return np.asarray(one == two)


def families_differ(
    variants: NDArray[Any], families: NDArray[Any], config: GenerationConfig
) -> NDArray[np.bool_]:
    """Return (N,) whether a variant is unknown or is stored with another variant's family."""
    known = dict(zip(config.mixture.names, config.mixture.families, strict=True))
    pairs, which = np.unique(
        np.stack([variants.astype(str), families.astype(str)]), axis=1, return_inverse=True
    )
    differs = [known.get(variant) != family for variant, family in pairs.T.tolist()]
    return np.array(differs, dtype=bool)[which.reshape(-1)]


def operators_differ(operator_index: NDArray[Any], config: GenerationConfig) -> NDArray[np.bool_]:
    """Return (N,) whether sample i belongs to another operator than i // P."""
    expected = np.arange(len(operator_index)) // config.probes_per_operator
    return np.asarray(operator_index != expected)


def require_labels(
    columns: Mapping[str, NDArray[Any]], config: GenerationConfig, path: object
) -> None:
    """Check the columns that labels are computed from, beginning with the first sample.

    Args:
        columns: Name of a dataset -> its first rows.
        config: Configuration of the dataset.
        path: Dataset file, for messages.

    Raises:
        DatasetError: If labels are out of range or contradict each other. Names the first sample.
    """
    found = {
        schema.VALUES: values_differ(
            columns[schema.PARAMS], parameter_values(columns, config), config
        ),
        schema.IC_TYPES: families_differ(
            columns[schema.IC_TYPES], columns[schema.IC_FAMILIES], config
        ),
        schema.OPERATOR_INDEX: operators_differ(columns[schema.OPERATOR_INDEX], config),
    }
    for name, differs in found.items():
        if differs.any():
            raise DatasetError(
                f"{path}: {name} of sample {int(differs.argmax())} is not what its configuration "
                "allows; the file was not made by this package, or was changed. `spinlock check` "
                "lists what is wrong with it"
            )
