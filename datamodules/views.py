"""Views: what of a dataset a batch holds, and the columns in memory that it is made of."""

import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules.feature_dataset import Batch
from spinlock.datamodules.labels import LABEL_COLUMNS, LabelNames, labels_of_file
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.features import custom_columns
from spinlock.storage import read_columns, schema
from spinlock.storage.consistency import require_labels

View = Literal["features", "sequence", "pairs", "fields", "both"]
Realizations = Literal["mean", "one", "all"]

FIELD_VIEWS = ("fields", "both")
ONE_TIMESTEP_VIEWS = ("features", "pairs", "both")


def check_view(
    config: GenerationConfig, view: str, realizations: str, timestep: int | None
) -> None:
    """Refuse a view, or a timestep, that the dataset does not have.

    Raises:
        ConfigurationError: Listing those that there are.
    """
    for name, value, allowed in (
        ("view", view, get_args(View)),
        ("realizations", realizations, get_args(Realizations)),
    ):
        if value not in allowed:
            raise ConfigurationError(f"{name}: must be one of {', '.join(allowed)}, got {value!r}")
    probes, steps = config.probes_per_operator, config.stored_steps
    missing = {}
    if probes < 2:
        missing["pairs"] = f"two probes or more of each operator (probes_per_operator is {probes})"
    if not steps:
        missing |= dict.fromkeys(FIELD_VIEWS, "stored fields (storage.fields is none)")
    if view in missing:
        there = ", ".join(name for name in get_args(View) if name not in missing)
        raise ConfigurationError(
            f"view: {view} needs {missing[view]}; the views of this dataset are {there}"
        )
    if realizations != "mean" and view not in FIELD_VIEWS:
        raise ConfigurationError(
            f"realizations: {realizations} is for fields; the file holds features as means over "
            f"realizations, so that view={view} has realizations=mean only. Views with fields: "
            f"{', '.join(FIELD_VIEWS) if steps else 'none, since storage.fields is none'}"
        )
    if timestep is None:
        return
    if view not in ONE_TIMESTEP_VIEWS:
        raise ConfigurationError(
            f"timestep: is for views whose features are of one timestep "
            f"({', '.join(ONE_TIMESTEP_VIEWS)}); got timestep={timestep} with view={view}"
        )
    if type(timestep) is not int or not 1 <= timestep <= config.num_timesteps:
        raise ConfigurationError(
            f"timestep: must be in 1..{config.num_timesteps}, the timesteps of this dataset; got "
            f"{timestep!r}"
        )


@dataclass(frozen=True)
class Columns:
    """The part of a dataset that is in memory.

    Args:
        labels: Entries of `spinlock.datamodules.labels.labels_of_file`.
        features: ``features`` (N, F), or (N, T, F) in the view ``sequence``, and
            ``initial_features`` (N, F), float32 as in the file; nothing in the view ``fields``.
    """

    labels: Batch
    features: Batch


def read_view(
    path: str | os.PathLike[str],
    config: GenerationConfig,
    view: View,
    names: LabelNames,
    *,
    timestep: int,
) -> Columns:
    """Read the columns of a view, of the first ``config.num_samples`` samples.

    Args:
        path: Dataset file.
        config: The dataset.
        view: Name of the view.
        names: Names of the labels.
        timestep: Timestep of ``features``, in 1..T. The view ``sequence`` has them all.

    Raises:
        DatasetError: If a column differs from its digest, labels are out of range, or features are
            not finite.
    """
    arrays = {} if view == "fields" else _feature_arrays(config)
    datasets = [dataset for parts in arrays.values() for dataset in parts]
    columns = read_columns(
        path,
        (*LABEL_COLUMNS, *datasets),
        config.num_samples,
        one_timestep_of=() if view == "sequence" else arrays.get("features", ()),
        timestep=timestep - 1,
    )
    require_labels(columns, config, path)
    for dataset in datasets:
        _require_finite(columns[dataset], dataset, path)
    features = {
        key: torch.from_numpy(np.concatenate([columns[part] for part in parts], axis=-1))
        for key, parts in arrays.items()
    }
    return Columns(labels_of_file(columns, names, config.channels), features)


def _require_finite(values: NDArray[np.float32], dataset: str, path: object) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        raise DatasetError(
            f"{path}: {dataset} has NaN or infinite values in {len(np.unique(wrong[:, 0]))} "
            f"samples, the first at {wrong[0].tolist()}. Every feature that a view serves must be "
            "finite; `spinlock check` lists what is wrong with the file"
        )


def _feature_arrays(config: GenerationConfig) -> dict[str, list[str]]:
    """Entry of a batch -> the datasets whose columns it has: the built-in and the user's own."""
    builtin = {
        "features": ("per_timestep", schema.PER_TIMESTEP),
        "initial_features": ("initial", schema.INITIAL_FEATURES),
    }
    custom = custom_columns(config.features)
    return {
        key: [dataset, *([schema.custom_features(array)] if array in custom else [])]
        for key, (array, dataset) in builtin.items()
    }
