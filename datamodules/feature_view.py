"""The base class of views: which columns a batch contains, and how they are read."""

import os
from collections.abc import Callable, Iterable
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules.column_groups import (
    Group,
    ViewOptions,
    column_group,
    names_of_columns,
)
from spinlock.datamodules.datasets import Batch, FeatureDataset, Realizations
from spinlock.datamodules.field_reader import FieldReader
from spinlock.datamodules.labels import LabelNames, feature_names, label_columns, labels_of_file
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.features import custom_columns
from spinlock.simulation.dynamics_rows import dynamics_names
from spinlock.storage import read_columns, schema
from spinlock.storage.columns import require_labels


class FeatureView:
    """Features of one timestep and of the initial condition. Base class of all views.

    Args:
        config: Configuration of the dataset.
        timestep: Timestep of ``features``, in 1..T; default: the last.
        realizations: Realizations of ``output_fields``.
        options: Columns of ``features``.

    Raises:
        ConfigurationError: If the dataset lacks the timestep or the columns.
    """

    name: ClassVar[str] = "features"
    default_columns: ClassVar[tuple[Group, ...]] = ("outputs",)
    one_timestep: ClassVar[bool] = True
    """Whether ``features`` are those of one timestep."""
    has_fields: ClassVar[bool] = False
    """Whether batches contain fields."""
    has_features: ClassVar[bool] = True
    """Whether batches contain features."""

    def __init__(
        self,
        config: GenerationConfig,
        timestep: int | None,
        realizations: Realizations,
        options: ViewOptions,
    ) -> None:
        steps = range(1, config.num_timesteps + 1)
        # True and 1.0 equal 1, but are not timesteps.
        if timestep is not None and (type(timestep) is not int or timestep not in steps):
            raise ConfigurationError(
                f"timestep: must be in 1..{config.num_timesteps}, the timesteps of this dataset; "
                f"got {timestep!r}"
            )
        self.config = config
        self.timestep = config.num_timesteps if timestep is None else timestep
        self.realizations = realizations
        self.columns = options.columns or self.default_columns
        self.selection = options.selection
        self.groups = [column_group(name, config) for name in self.columns]
        self.names = names_of_columns(self.columns, config)

    @classmethod
    def missing(cls, config: GenerationConfig) -> str:
        """Describe what the view needs and the dataset lacks; empty if nothing."""
        return ""

    @property
    def settings(self) -> dict[str, object]:
        """Settings of the columns that a checkpoint and the data must agree on."""
        if not self.has_features:
            return {}
        return {"columns": list(self.columns), "selection": self.selection}

    def sources(self) -> dict[str, list[str]]:
        """Return the datasets of the file whose columns make up each scaled entry of a batch."""
        custom = "initial" in custom_columns(self.config.features)
        return {
            "features": [dataset for group in self.groups for dataset in group.datasets],
            "initial_features": [
                schema.INITIAL_FEATURES,
                *([schema.custom_features("initial")] if custom else []),
            ],
        }

    def column_names(self, key: str) -> tuple[str, ...]:
        """Return the names of the columns of a scaled entry of a batch, before a selection."""
        if key == "dynamics":
            return dynamics_names(self.config)
        return feature_names(self.config) if key == "initial_features" else self.names

    def read(self, path: str | os.PathLike[str], names: LabelNames) -> tuple[Batch, Batch]:
        """Read the columns of the first ``config.num_samples`` samples.

        Args:
            path: Dataset file.
            names: Names of the labels.

        Returns:
            The entries to scale, as in the file: those of `sources`, (N, F) or (N, T, F) float32,
            and ``dynamics`` (N, D) float32 if the file has them. The labels as `labels_of_file`
            returns them.

        Raises:
            DatasetError: If a column differs from its digest, labels are out of range, or features
                are not finite.
        """
        sources = self.sources()
        datasets = [dataset for parts in sources.values() for dataset in parts]
        dynamics = [schema.DYNAMICS] if dynamics_names(self.config) else []
        columns = read_columns(
            path,
            (*label_columns(self.config), *datasets, *dynamics),
            self.config.num_samples,
            one_timestep_of=self._per_timestep(datasets) if self.one_timestep else (),
            timestep=self.timestep - 1,
        )
        require_labels(columns, self.config, path)
        for dataset in (*datasets, *dynamics):
            if len(wrong := np.argwhere(~np.isfinite(columns[dataset]))):
                row = "operator" if dataset in dynamics else "sample"
                raise DatasetError(
                    f"{path}: {dataset} has NaN or infinite values, the first in {row} "
                    f"{wrong[0, 0]}. `spinlock check` lists what is wrong with the file"
                )
        if not self.one_timestep:
            # Values of a sample are the same at all of its timesteps.
            for dataset in set(sources.get("features", ())) - set(self._per_timestep(datasets)):
                column = columns[dataset][:, None]
                columns[dataset] = column.repeat(self.config.num_timesteps, axis=1)
        features = {
            key: torch.from_numpy(np.concatenate([columns[part] for part in parts], axis=-1))
            for key, parts in sources.items()
        }
        labels = labels_of_file(columns, names, self.config)
        if dynamics:
            features["dynamics"] = torch.from_numpy(columns[schema.DYNAMICS])[labels["operator"]]
        return features, labels

    def _per_timestep(self, datasets: Iterable[str]) -> list[str]:
        """Return the datasets that have a row for each timestep."""
        groups = (group.datasets for group in self.groups if group.per_timestep)
        return [name for name in {name for some in groups for name in some} if name in datasets]

    def arrange(self, samples: Tensor, operator: Tensor) -> Tensor:
        """Arrange selected samples as rows of a dataset.

        Args:
            samples: (n,) int64 selected samples, ascending.
            operator: (N,) int64 operator of each sample.
        """
        return samples

    def dataset(
        self, columns: Batch, rows: Tensor, open_fields: Callable[[], FieldReader], seed: int
    ) -> FeatureDataset:
        """Make a dataset.

        Args:
            columns: Mapping of batch entries to tensors (N, ...) in memory.
            rows: Rows of the dataset, as `arrange` returns them.
            open_fields: Function that opens the fields of the dataset file.
            seed: Seed of the choice of one realization.
        """
        return FeatureDataset(columns, rows)

    def __str__(self) -> str:
        """Name and settings of the view."""
        steps = f", timestep {self.timestep} of {self.config.num_timesteps}"
        realizations = f", realizations: {self.realizations}" if self.has_fields else ""
        columns = "; ".join(
            f"{name}: {', '.join(value) if isinstance(value, list) else value}"
            for name, value in self.settings.items()
        )
        columns = f"; {columns}" if columns else ""
        return f"{self.name}{steps if self.one_timestep else ''}{realizations}{columns}"
