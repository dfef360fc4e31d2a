"""Labels of samples, and the names of labels and features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.features import PER_TIMESTEP_NAMES, custom_columns
from spinlock.simulation.parameter_count import parameter_counts
from spinlock.simulation.sobol_design import Design
from spinlock.storage import schema
from spinlock.storage.columns import parameter_values


def label_columns(config: GenerationConfig) -> tuple[str, ...]:
    """Return the columns of the file that labels are computed from or checked against."""
    return (
        schema.IC_TYPES,
        schema.IC_FAMILIES,
        schema.PARAMS,
        *schema.value_names(config),
        schema.OPERATOR_INDEX,
    )


@dataclass(frozen=True)
class LabelNames:
    """Names of the values of labels; the position of a name is the value of the label.

    Args:
        variants: Names of the V variants of initial conditions.
        families: Names of the families of initial conditions.
        family_of_variant: Name of the family of each variant.
        update_policies: Names of the update policies.
        normalizations: Names of the normalizations of operators.
    """

    variants: tuple[str, ...]
    families: tuple[str, ...]
    family_of_variant: tuple[str, ...]
    update_policies: tuple[str, ...]
    normalizations: tuple[str, ...]

    @classmethod
    def of(cls, config: GenerationConfig) -> Self:
        """Return the names of a dataset."""
        mixture, space = config.mixture, config.parameter_space
        return cls(
            variants=mixture.names,
            families=tuple(dict.fromkeys(mixture.families)),
            family_of_variant=mixture.families,
            update_policies=tuple(space.update_policy),
            normalizations=tuple(space.normalization),
        )


def feature_names(config: GenerationConfig) -> tuple[str, ...]:
    """Return the names of the features of one field; custom ones are last."""
    return PER_TIMESTEP_NAMES + custom_columns(config.features).get("initial", ())


def labels_of_file(
    columns: Mapping[str, NDArray[Any]], names: LabelNames, config: GenerationConfig
) -> dict[str, Tensor]:
    """Compute the labels of the first N samples of a file.

    Args:
        columns: The columns of `label_columns`, (N, ...), with text as ``str``, as
            `spinlock.storage.columns.require_labels` accepts them.
        names: Names of the labels.
        config: Configuration of the dataset.

    Returns:
        ``variant``, ``family``, ``update_policy``, ``normalization``, ``parameter_count``,
        ``operator`` and ``index``, (N,) int64, and ``params``, (N, A) float32 for A axes.
    """
    design = Design(
        start=0,
        params=columns[schema.PARAMS],
        values=parameter_values(columns, config),
        variant=_positions(columns[schema.IC_TYPES], names.variants),
        operator_index=columns[schema.OPERATOR_INDEX],
    )
    return labels_of_design(design, names, config.channels)


def labels_of_design(design: Design, names: LabelNames, channels: int) -> dict[str, Tensor]:
    """Compute the labels of the samples of a design, as `labels_of_file` returns them."""
    values = design.values
    families = _positions(names.family_of_variant, names.families)
    policy = _positions(values["update_policy"].astype(str), names.update_policies)
    normalization = _positions(values["normalization"].astype(str), names.normalizations)
    return {
        "variant": torch.from_numpy(design.variant),
        "family": torch.from_numpy(families[design.variant]),
        "update_policy": torch.from_numpy(policy),
        "normalization": torch.from_numpy(normalization),
        "parameter_count": torch.from_numpy(parameter_counts(values, channels)),
        "params": torch.from_numpy(design.params),
        "operator": torch.from_numpy(design.operator_index),
        "index": torch.arange(design.start, design.stop, device="cpu"),
    }


def _positions(
    texts: NDArray[np.str_] | Sequence[str], names: tuple[str, ...]
) -> NDArray[np.int64]:
    """Return the position of each text in ``names``."""
    position = {name: place for place, name in enumerate(names)}
    return np.array([position[text] for text in np.asarray(texts).tolist()], dtype=np.int64)
