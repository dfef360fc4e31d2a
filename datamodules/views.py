"""Views: what the batches of a data module contain.

A view is a subclass of `FeatureView`. It checks that the dataset has what it needs, reads columns,
makes datasets and describes itself. To add a view, define its class here and list it in `VIEWS`.
"""

import os
from collections.abc import Callable, Iterable
from typing import ClassVar, get_args

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.validation import require_choice
from spinlock.datamodules.datasets import (
    Batch,
    FeatureDataset,
    FieldDataset,
    PairDataset,
    Realizations,
    pair_probes,
)
from spinlock.datamodules.field_reader import FieldReader
from spinlock.datamodules.labels import LABEL_COLUMNS, LabelNames, feature_names, labels_of_file
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.features import custom_columns
from spinlock.storage import read_columns, schema
from spinlock.storage.columns import require_labels


class FeatureView:
    """Features of one timestep and of the initial condition. Base class of all views.

    Args:
        config: Configuration of the dataset.
        timestep: Timestep of ``features``, in 1..T; default: the last.
        realizations: Realizations of ``output_fields``.

    Raises:
        ConfigurationError: If the dataset lacks what the view needs, or an argument does not apply
            to the view.
    """

    name: ClassVar[str] = "features"
    one_timestep: ClassVar[bool] = True
    """Whether ``features`` are those of one timestep."""
    has_fields: ClassVar[bool] = False
    """Whether batches contain fields."""

    def __init__(
        self, config: GenerationConfig, timestep: int | None, realizations: Realizations
    ) -> None:
        if missing := self.missing(config):
            available = _names(view for view in VIEWS.values() if not view.missing(config))
            raise ConfigurationError(
                f"view: {self.name} needs {missing}; the views of this dataset are {available}"
            )
        for setting, given, applies in (
            ("timestep", timestep is not None, "one_timestep"),
            ("realizations", realizations != "mean", "has_fields"),
        ):
            if given and not getattr(self, applies):
                allowed = _names(view for view in VIEWS.values() if getattr(view, applies))
                raise ConfigurationError(
                    f"{setting}: applies only to the views {allowed}; got view={self.name}"
                )
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

    @classmethod
    def missing(cls, config: GenerationConfig) -> str:
        """Describe what the view needs and the dataset lacks; empty if nothing."""
        return ""

    def sources(self) -> dict[str, list[str]]:
        """Return the datasets of the file whose columns make up each scaled entry of a batch."""
        custom = custom_columns(self.config.features)
        builtin = {
            "features": ("per_timestep", schema.PER_TIMESTEP),
            "initial_features": ("initial", schema.INITIAL_FEATURES),
        }
        return {
            key: [dataset, *([schema.custom_features(array)] if array in custom else [])]
            for key, (array, dataset) in builtin.items()
        }

    def column_names(self, key: str) -> tuple[str, ...]:
        """Return the names of the columns of a scaled entry of a batch."""
        return feature_names(self.config)

    def read(self, path: str | os.PathLike[str], names: LabelNames) -> tuple[Batch, Batch]:
        """Read the columns of the first ``config.num_samples`` samples.

        Args:
            path: Dataset file.
            names: Names of the labels.

        Returns:
            The entries of `sources` as in the file, (N, F) or (N, T, F) float32, and the labels as
            `labels_of_file` returns them.

        Raises:
            DatasetError: If a column differs from its digest, labels are out of range, or features
                are not finite.
        """
        sources = self.sources()
        datasets = [dataset for parts in sources.values() for dataset in parts]
        columns = read_columns(
            path,
            (*LABEL_COLUMNS, *datasets),
            self.config.num_samples,
            one_timestep_of=sources.get("features", ()) if self.one_timestep else (),
            timestep=self.timestep - 1,
        )
        require_labels(columns, self.config, path)
        for dataset in datasets:
            if len(wrong := np.argwhere(~np.isfinite(columns[dataset]))):
                raise DatasetError(
                    f"{path}: {dataset} has NaN or infinite values, the first in sample "
                    f"{wrong[0, 0]}. `spinlock check` lists what is wrong with the file"
                )
        features = {
            key: torch.from_numpy(np.concatenate([columns[part] for part in parts], axis=-1))
            for key, parts in sources.items()
        }
        return features, labels_of_file(columns, names, self.config.channels)

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
        return f"{self.name}{steps if self.one_timestep else ''}{realizations}"


class SequenceView(FeatureView):
    """Features of all timesteps, and those of the initial condition."""

    name = "sequence"
    one_timestep = False


class PairView(FeatureView):
    """Features of two probes of one operator."""

    name = "pairs"

    @classmethod
    def missing(cls, config: GenerationConfig) -> str:
        """Require two probes."""
        if config.probes_per_operator >= 2:
            return ""
        return "two or more probes of each operator (probes_per_operator is 1)"

    def arrange(self, samples: Tensor, operator: Tensor) -> Tensor:
        """Pair each sample with the next probe of its operator."""
        return pair_probes(samples, operator)

    def dataset(
        self, columns: Batch, rows: Tensor, open_fields: Callable[[], FieldReader], seed: int
    ) -> FeatureDataset:
        """Make a dataset of pairs."""
        return PairDataset(columns, rows)


class BothView(FeatureView):
    """Features of one timestep, and fields read from disk for each batch."""

    name = "both"
    has_fields = True

    @classmethod
    def missing(cls, config: GenerationConfig) -> str:
        """Require fields in the file."""
        return "" if config.stored_steps else "stored fields (storage.fields is none)"

    def dataset(
        self, columns: Batch, rows: Tensor, open_fields: Callable[[], FieldReader], seed: int
    ) -> FeatureDataset:
        """Make a dataset that reads fields."""
        return FieldDataset(
            columns,
            rows,
            open_fields(),
            num_realizations=self.config.num_realizations,
            realizations=self.realizations,
            seed=seed,
        )


class FieldView(BothView):
    """Fields without features."""

    name = "fields"
    one_timestep = False

    def sources(self) -> dict[str, list[str]]:
        """Return no entries."""
        return {}


VIEWS: dict[str, type[FeatureView]] = {
    view.name: view for view in (FeatureView, SequenceView, PairView, FieldView, BothView)
}
"""Name of each view, as in the argument ``view`` of `SpinlockDataModule`."""


def make_view(
    name: str, config: GenerationConfig, *, timestep: int | None, realizations: Realizations
) -> FeatureView:
    """Make the view of a name.

    Args:
        name: Name in `VIEWS`.
        config: Configuration of the dataset.
        timestep: Timestep of ``features``; default: the last.
        realizations: Realizations of ``output_fields``: ``mean``, ``one`` or ``all``.

    Raises:
        ConfigurationError: If there is no such view, or the dataset lacks it. Lists the views.

    Example:
        >>> from spinlock import GenerationConfig
        >>> print(make_view("both", GenerationConfig(1), timestep=1, realizations="one"))
        both, timestep 1 of 1, realizations: one
    """
    require_choice("view", name, tuple(VIEWS))
    require_choice("realizations", realizations, get_args(Realizations))
    return VIEWS[name](config, timestep, realizations)


def _names(views: Iterable[type[FeatureView]]) -> str:
    return ", ".join(view.name for view in views)
