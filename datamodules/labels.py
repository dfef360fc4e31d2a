"""Labels of samples: what the integers in a batch count, and the labels themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.variant_mixture import Mixture
from spinlock.simulation.parameter_count import parameter_counts
from spinlock.simulation.sobol_design import Design
from spinlock.storage import schema

#: Columns of the file that labels are made of.
LABEL_COLUMNS = (
    schema.IC_TYPES,
    schema.IC_FAMILIES,
    schema.PARAMS,
    schema.VALUES,
    schema.OPERATOR_INDEX,
)


@dataclass(frozen=True)
class LabelNames:
    """Names that labels count, each tuple in the order of the label's values.

    Args:
        variants: Variants of initial conditions.
        families: Families of initial conditions.
        family_of_variant: Family of each variant.
        policies: Update policies.
        normalizations: Normalizations of the operators.
    """

    variants: tuple[str, ...]
    families: tuple[str, ...]
    family_of_variant: tuple[str, ...]
    policies: tuple[str, ...]
    normalizations: tuple[str, ...]

    @classmethod
    def of(cls, config: GenerationConfig) -> Self:
        """The names of a dataset."""
        mixture, space = Mixture(config.initial_conditions), config.parameter_space
        return cls(
            variants=mixture.names,
            families=tuple(dict.fromkeys(mixture.families)),
            family_of_variant=mixture.families,
            policies=tuple(space.update_policy),
            normalizations=tuple(space.normalization),
        )


def labels_of_file(
    columns: Mapping[str, NDArray[Any]], names: LabelNames, channels: int
) -> dict[str, Tensor]:
    """Labels of the first N samples of a file.

    Args:
        columns: The columns `LABEL_COLUMNS`, (N, ...), text as ``str``.
        names: The dataset's names.
        channels: Channels C of a field.

    Returns:
        ``variant``, ``family``, ``update_policy``, ``normalization``, ``parameter_count``, ``operator``
        and ``index``, (N,) int64, and ``params`` (N, 15) float32.
    """
    return {
        "variant": torch.from_numpy(_positions(columns[schema.IC_TYPES], names.variants)),
        "family": torch.from_numpy(_positions(columns[schema.IC_FAMILIES], names.families)),
        **_operator_labels(columns[schema.VALUES], names, channels),
        "params": torch.from_numpy(columns[schema.PARAMS]),
        "operator": torch.from_numpy(columns[schema.OPERATOR_INDEX]),
        "index": torch.arange(len(columns[schema.PARAMS]), device="cpu"),
    }


def labels_of_design(design: Design, names: LabelNames, channels: int) -> dict[str, Tensor]:
    """Labels of the samples of a design, as `labels_of_file` gives them."""
    families = _positions(names.family_of_variant, names.families)
    return {
        "variant": torch.from_numpy(design.variant),
        "family": torch.from_numpy(families[design.variant]),
        **_operator_labels(design.values, names, channels),
        "params": torch.from_numpy(design.params),
        "operator": torch.from_numpy(design.operator_index),
        "index": torch.arange(design.start, design.stop, device="cpu"),
    }


def _operator_labels(
    values: NDArray[np.void], names: LabelNames, channels: int
) -> dict[str, Tensor]:
    policy = _positions(values["update_policy"].astype(str), names.policies)
    normalization = _positions(values["normalization"].astype(str), names.normalizations)
    return {
        "update_policy": torch.from_numpy(policy),
        "normalization": torch.from_numpy(normalization),
        "parameter_count": torch.from_numpy(parameter_counts(values, channels)),
    }


def _positions(
    texts: NDArray[np.str_] | Sequence[str], names: tuple[str, ...]
) -> NDArray[np.int64]:
    """The position of each text in ``names``."""
    distinct, which = np.unique(np.asarray(texts), return_inverse=True)
    position = np.array([names.index(text) for text in distinct.tolist()], dtype=np.int64)
    return position[which]
