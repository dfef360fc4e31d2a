"""Prepares the samples of a dataset file for loaders: splits, selects and scales them."""

import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.datamodules.datasets import Batch
from spinlock.datamodules.labels import LabelNames
from spinlock.datamodules.loading import require_at_least, require_choice
from spinlock.datamodules.scaling import FeatureScaler, Scaling, fit_scalers
from spinlock.datamodules.selection import Subsets, VariantMasks, choose_subsets, first_of
from spinlock.datamodules.views import FeatureView
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.splits import split_operators

Balance = Literal["none", "variant", "family"]


@dataclass(frozen=True)
class PreparedSamples:
    """Samples that are ready to be loaded.

    Args:
        columns: Mapping of batch entries to tensors (N, ...) in memory, with scaled features.
        subsets: Rows of each loader.
        everything: (N,) rows, or (n, 2) pairs of rows, of the whole file.
        scalers: Scaler of each scaled entry.
    """

    columns: Batch
    subsets: Subsets
    everything: Tensor
    scalers: dict[str, FeatureScaler]

    def classes(self, rows: Tensor, balance: Balance) -> NDArray[np.int64] | None:
        """Return the class of each row that training is balanced over; that of a pair's first."""
        return None if balance == "none" else self.columns[balance][first_of(rows)].numpy()

    def describe(self, variants: tuple[str, ...], view: FeatureView) -> list[str]:
        """Return tables of the samples of each variant and of the scaling, as lines of text.

        Args:
            variants: Names of the variants.
            view: View that names the scaled columns.
        """
        lines = ["", *self.subsets.table(self.columns["variant"], variants)]
        for key, scaler in self.scalers.items():
            lines += ["", f"scaling of {key}:", scaler.describe(view.column_names(key))]
        return lines


@dataclass(frozen=True)
class Preparation:
    """Settings by which the samples of a file are split, selected and scaled.

    Args:
        view: View that reads the columns.
        fractions: Fractions of the operators for training, validation and testing.
        split_seed: Seed of the split.
        masks: Variants to train and evaluate on.
        max_samples: Number of training rows to use; default: all.
        balance: Label of which each value is drawn equally often in training, or ``none``.
        scaling: Scaling method of features.
        signed_log: Whether a signed logarithm precedes the scaling.

    Raises:
        ConfigurationError: If a setting is out of range.
    """

    view: FeatureView
    fractions: tuple[float, float, float]
    split_seed: int
    masks: VariantMasks
    max_samples: int | None
    balance: Balance
    scaling: Scaling
    signed_log: bool

    def __post_init__(self) -> None:
        require_at_least({"max_samples": self.max_samples}, 1)
        require_at_least({"split_seed": self.split_seed}, 0)
        require_choice("scaling", self.scaling, get_args(Scaling))
        require_choice("balance", self.balance, get_args(Balance))
        _, val, test = self.fractions
        if not (val >= 0 and test >= 0 and val + test < 1):
            raise ConfigurationError(
                "val_fraction and test_fraction: must be >= 0 and leave samples to train on, got "
                f"{val} and {test}"
            )

    @property
    def settings(self) -> dict[str, object]:
        """Settings that a checkpoint and the data must agree on, besides the dataset."""
        return {
            "timestep": self.view.timestep,
            "split_seed": self.split_seed,
            "fractions": list(self.fractions),
            "scaling": self.scaling,
            "signed_log": self.signed_log,
        }

    def prepare(
        self,
        path: str | os.PathLike[str],
        names: LabelNames,
        scalers: dict[str, FeatureScaler] | None = None,
    ) -> PreparedSamples:
        """Read, split, select and scale the samples of a file.

        Args:
            path: Dataset file.
            names: Names of the labels.
            scalers: Scalers of a checkpoint; default: fitted on the training samples.

        Raises:
            ConfigurationError: If no training sample is left.
            DatasetError: If a column differs from what was written, or an entry has no scaler.
        """
        config, view = self.view.config, self.view
        features, labels = view.read(path, names)
        operator = labels["operator"]
        count = -(-config.num_samples // config.probes_per_operator)
        split = torch.from_numpy(split_operators(count, self.fractions, self.split_seed))[operator]
        subsets = choose_subsets(
            labels, split, self.masks, arrange=view.arrange, max_samples=self.max_samples
        )
        if not scalers:
            rows = torch.unique(subsets.require("train", "train"))
            training = {key: values[rows] for key, values in features.items()}
            scalers = fit_scalers(training, self.scaling, signed_log=self.signed_log)
        elif missing := set(features) - set(scalers):
            raise DatasetError(
                f"the checkpoint has no scaling of {', '.join(sorted(missing))}; it was made with "
                f"another view. Use the view of the checkpoint"
            )
        scaled = {key: scalers[key].transform(values) for key, values in features.items()}
        everything = view.arrange(torch.arange(config.num_samples, device="cpu"), operator)
        return PreparedSamples(scaled | labels, subsets, everything, scalers)

    def describe(self, names: LabelNames) -> dict[str, str]:
        """Describe the settings: title -> text.

        Args:
            names: Names of the labels.
        """
        log = "signed_log, " if self.signed_log and self.scaling != "none" else ""
        share = ", ".join(f"{fraction:.4g}" for fraction in self.fractions)
        return {
            "view": str(self.view),
            "split": f"{share} (train, val, test) of the operators, split_seed {self.split_seed}",
            "training order": "random" if self.balance == "none" else f"balanced by {self.balance}",
            "trained on": _selected(names.variants, self.masks.train),
            "evaluated on": _selected(names.variants, self.masks.evaluation),
            "scaling": log + self.scaling,
        }


def _selected(names: tuple[str, ...], mask: Tensor) -> str:
    if mask.all():
        return f"all {len(names)} variants"
    return ", ".join(name for name, chosen in zip(names, mask.tolist(), strict=True) if chosen)
