"""What a data module serves once it is set up: scaled columns in memory, and rows of them."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.datamodules.arguments import Balance
from spinlock.datamodules.feature_dataset import Batch, pair_probes
from spinlock.datamodules.labels import LabelNames
from spinlock.datamodules.scaling import FeatureScaler, Scaling
from spinlock.datamodules.subsets import Subsets, VariantMasks, choose_subsets
from spinlock.datamodules.views import View, read_view
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.splits import split_operators


@dataclass(frozen=True)
class ServingOptions:
    """How the samples of a file are split, selected and scaled.

    Args:
        view: What a batch holds.
        timestep: Whose features, in 1..T, in views of one timestep.
        fractions: Of the operators for training, validation and testing.
        split_seed: Seed of the split.
        masks: The variants that are trained and evaluated on.
        max_samples: How many training samples to use; None: all.
        scaling: The scaling of features.
        signed_log: Whether a logarithm comes first.
    """

    view: View
    timestep: int
    fractions: tuple[float, float, float]
    split_seed: int
    masks: VariantMasks
    max_samples: int | None
    scaling: Scaling
    signed_log: bool

    @property
    def settings(self) -> dict[str, object]:
        """What must agree between a checkpoint and these data, beside the dataset."""
        return {
            "timestep": self.timestep,
            "split_seed": self.split_seed,
            "fractions": list(self.fractions),
            "scaling": self.scaling,
            "signed_log": self.signed_log,
        }


@dataclass(frozen=True)
class Served:
    """Samples, ready for datasets.

    Args:
        columns: Entries of a batch, (N, ...) each, features scaled.
        subsets: The rows of each loader.
        everything: (N,) rows, or (n, 2) pairs, of the whole file.
        scalers: Those of ``features`` and ``initial_features``; none in the view ``fields``.
    """

    columns: Batch
    subsets: Subsets
    everything: Tensor
    scalers: dict[str, FeatureScaler]

    def scaler(self, key: str) -> FeatureScaler:
        """The scaler of an entry of the batch.

        Raises:
            ConfigurationError: If the view does not have the entry.
        """
        if key not in self.scalers:
            raise ConfigurationError(
                f"view: fields has no {key}, hence no scaling; take view=both for fields and "
                "features"
            )
        return self.scalers[key]

    def classes(self, rows: Tensor, balance: Balance) -> NDArray[np.int64] | None:
        """What training batches are balanced over: the class of each row, of a pair's first."""
        if balance == "none":
            return None
        label = {"variant": "variant", "family": "family"}[balance]
        return self.columns[label][rows if rows.ndim == 1 else rows[:, 0]].numpy()


def serve(
    path: str | os.PathLike[str],
    config: GenerationConfig,
    names: LabelNames,
    options: ServingOptions,
    scalers: dict[str, FeatureScaler] | None = None,
) -> Served:
    """Read, split, select and scale the samples of a file.

    Args:
        path: The file.
        config: The dataset; its first ``num_samples`` samples are served.
        names: Names of its labels.
        options: How.
        scalers: Those of a checkpoint; None: fit them on the samples to train on.

    Raises:
        ConfigurationError: If no sample is left to train on.
        DatasetError: If a column is not as it was written, or scalers lack an entry.
    """
    columns = read_view(path, config, options.view, names, timestep=options.timestep)
    operator = columns.labels["operator"]
    count = -(-config.num_samples // config.probes_per_operator)
    split = torch.from_numpy(split_operators(count, options.fractions, options.split_seed))
    pairs = options.view == "pairs"
    subsets = choose_subsets(
        columns.labels,
        split[operator],
        options.masks,
        pairs=pairs,
        max_samples=options.max_samples,
    )
    everything = torch.arange(config.num_samples, device="cpu")
    if scalers is None:
        training = torch.unique(subsets.require("train", "train"))
        scalers = {
            key: FeatureScaler.fit(values[training], options.scaling, signed_log=options.signed_log)
            for key, values in columns.features.items()
        }
    elif missing := set(columns.features) - set(scalers):
        raise DatasetError(f"the checkpoint has no scaling of {', '.join(sorted(missing))}")
    scaled = {key: scalers[key].transform(values) for key, values in columns.features.items()}
    return Served(
        scaled | columns.labels,
        subsets,
        pair_probes(everything, operator) if pairs else everything,
        scalers,
    )
