"""Columns of a file that follow from each other and from the configuration, compared row by row."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.errors import DatasetError
from spinlock.simulation.parameter_space import ParameterSpace
from spinlock.storage import schema


def values_differ(
    params: NDArray[np.float32], values: NDArray[np.void], config: GenerationConfig
) -> NDArray[np.bool_]:
    """(N,) whether typed values are not those of the points of the unit cube."""
    # Also false for NaN.
    inside = np.asarray(((params >= 0) & (params <= 1)).all(axis=1))
    space = ParameterSpace(config.parameter_space)
    expected = space.values(np.where(inside[:, None], params, 0.5))
    same = [_same(values[name], expected[name]) for name in expected.dtype.names or ()]
    return np.asarray(~np.logical_and.reduce([inside, *same]))


def _same(one: NDArray[Any], two: NDArray[Any]) -> NDArray[np.bool_]:
    if one.dtype.kind == "f":
        # The logarithm of another machine's library may round otherwise in the last place.
        return np.asarray(np.isclose(one, two, rtol=1e-12, atol=0))
    return np.asarray(one == two)


def families_differ(
    variants: NDArray[Any], families: NDArray[Any], config: GenerationConfig
) -> NDArray[np.bool_]:
    """(N,) whether a variant is unknown, or stands with a family that is not its own."""
    mixture = Mixture(config.initial_conditions)
    known = dict(zip(mixture.names, mixture.families, strict=True))
    pairs, which = np.unique(
        np.stack([variants.astype(str), families.astype(str)]), axis=1, return_inverse=True
    )
    differs = [known.get(variant) != family for variant, family in pairs.T.tolist()]
    return np.array(differs, dtype=bool)[which.reshape(-1)]


def operators_differ(operator_index: NDArray[Any], config: GenerationConfig) -> NDArray[np.bool_]:
    """(N,) whether sample i does not belong to operator i // P."""
    expected = np.arange(len(operator_index)) // config.probes_per_operator
    return np.asarray(operator_index != expected)


def require_labels(
    columns: Mapping[str, NDArray[Any]], config: GenerationConfig, path: object
) -> None:
    """Check the columns that labels are made of, from the first sample on.

    Args:
        columns: Name of a dataset -> its first rows.
        config: The dataset.
        path: Dataset file, for messages.

    Raises:
        DatasetError: If labels are out of range or contradict each other. Names the first sample.
    """
    found = {
        schema.VALUES: values_differ(columns[schema.PARAMS], columns[schema.VALUES], config),
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
