"""Prepares the samples of a dataset file for loaders: splits, selects and scales them."""

import os
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.validation import require_at_least, require_choice
from spinlock.datamodules.datasets import Batch
from spinlock.datamodules.feature_view import FeatureView
from spinlock.datamodules.invariant_columns import InvariantColumns
from spinlock.datamodules.labels import LabelNames
from spinlock.datamodules.operator_selection import OperatorSelection
from spinlock.datamodules.scaling import FeatureScaler, Scaling, fit_scalers
from spinlock.datamodules.selection import VariantMasks
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.splits import SPLITS, split_operators
from spinlock.storage import require_dataset

Balance = Literal["none", "variant", "family"]


class Subsets(dict[str, Tensor]):
    """Rows of each loader: (n,) int64 rows of the columns, or (n, P) groups of rows.

    The keys are ``train``, ``val`` and ``test``, or ``val held_in``, ``val held_out`` and so on if
    variants that are trained on and others are evaluated.
    """

    def require(self, name: str) -> Tensor:
        """Return the rows of a subset.

        Raises:
            ConfigurationError: If there are none. Lists the number of rows of each subset.
        """
        if not len(self[name]):
            share, part = f"raise {name.split()[0]}_fraction", "eval"
            if name == "train":
                share, part = "lower val_fraction and test_fraction", "train"
            raise ConfigurationError(
                f"the {name} split is empty; there are {self} samples. Generate more samples, "
                f"{share}, or select others in {part}_variants or {part}_operators"
            )
        return self[name]

    def __str__(self) -> str:
        """Number of rows of each subset."""
        return ", ".join(f"{len(rows)} {name}" for name, rows in self.items())


@dataclass(frozen=True)
class PreparedSamples:
    """Samples that are ready to be loaded.

    Args:
        columns: Mapping of batch entries to tensors (N, ...) in memory, with scaled features.
        subsets: Rows of each loader.
        everything: (N,) rows, or (n, P) groups of rows, of the whole file.
        scalers: Scaler of each scaled entry.
        invariant: Selection of the columns of ``features``; default: all columns.
    """

    columns: Batch
    subsets: Subsets
    everything: Tensor
    scalers: dict[str, FeatureScaler]
    invariant: InvariantColumns | None = None

    @property
    def training_samples(self) -> Tensor:
        """Indices of the training samples, (n,) int64 ascending; there may be none."""
        samples: Tensor = torch.unique(self.subsets["train"])
        return samples

    def labels(self, rows: Tensor, label: str) -> Tensor:
        """Return a label of rows, or of the first rows of groups."""
        return self.columns[label][rows.reshape(len(rows), -1)[:, 0]]

    def describe(self, variants: tuple[str, ...], view: FeatureView) -> list[str]:
        """Return tables of the samples of each variant, of the selected columns and of the scaling.

        Args:
            variants: Names of the variants.
            view: View that names the scaled columns.
        """
        width = max(map(len, variants))
        table = [" " * width] + [f"{name:<{width}}" for name in (*variants, "total")]
        for title, rows in self.subsets.items():
            counts = self.labels(rows, "variant").bincount(minlength=len(variants)).tolist()
            cells, size = [title, *counts, len(rows)], max(len(title), 7)
            table = [f"{line}  {cell:>{size}}" for line, cell in zip(table, cells, strict=True)]
        if self.invariant is not None:
            table += ["", f"selection of features: {self.invariant.describe()}"]
        for key, scaler in self.scalers.items():
            names = view.column_names(key)
            if self.invariant is not None and key == "features":
                names = self.invariant.selected
            table += ["", f"scaling of {key}:", scaler.describe(names)]
        return ["", *table]


@dataclass(frozen=True)
class Preparation:
    """Settings by which the samples of a file are split, selected and scaled.

    Args:
        view: View that reads the columns.
        fractions: Fractions of the operators for training, validation and testing.
        split_seed: Seed of the split.
        masks: Variants to train and evaluate on.
        train_operators: Operators to train on.
        eval_operators: Operators to validate and test on.
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
    train_operators: OperatorSelection
    eval_operators: OperatorSelection
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
            **self.view.settings,
        }

    def prepare(
        self,
        path: str | os.PathLike[str],
        names: LabelNames,
        scalers: dict[str, FeatureScaler] | None = None,
        invariant: InvariantColumns | None = None,
    ) -> PreparedSamples:
        """Read, split, select and scale the samples of a file.

        Args:
            path: Dataset file.
            names: Names of the labels.
            scalers: Scalers of a checkpoint; default: fitted on the training samples.
            invariant: Selection of columns of a checkpoint; default: made by the training samples
                if the view asks for one.

        Raises:
            ConfigurationError: If no training sample is left, or no column is selected.
            DatasetError: If a column differs from what was written, or an entry has no scaler.
        """
        config, view = self.view.config, self.view
        features, labels = view.read(path, names)
        operator = labels["operator"]
        count = -(-config.num_samples // config.probes_per_operator)
        by_operator = split_operators(
            count, self.fractions, self.split_seed, num_axes=len(config.space.names)
        )
        split = torch.from_numpy(by_operator)[operator]
        subsets = Subsets()
        chosen = (split == SPLITS.index("train")) & self.train_operators.mask(config)
        subsets["train"] = self._rows(chosen, self.masks.train, labels)[: self.max_samples]
        evaluated = self.eval_operators.mask(config)
        for name in ("val", "test"):
            for part, mask in self.masks.parts.items():
                title = name if len(self.masks.parts) == 1 else f"{name} {part}"
                chosen = (split == SPLITS.index(name)) & evaluated
                subsets[title] = self._rows(chosen, mask, labels)
        if view.selection == "invariant":
            if invariant is None:
                used = torch.unique(subsets.require("train"))
                invariant = InvariantColumns.fit(
                    features["features"][used],
                    labels["variant"][used],
                    operator[used],
                    view.column_names("features"),
                )
            features["features"] = invariant.select(features["features"])
        if not scalers:
            used = torch.unique(subsets.require("train"))
            training = {key: values[used] for key, values in features.items()}
            scalers = fit_scalers(training, self.scaling, signed_log=self.signed_log)
        elif missing := set(features) - set(scalers) - {"dynamics"}:
            raise DatasetError(
                f"the checkpoint has no scaling of {', '.join(sorted(missing))}; it was made with "
                f"another view. Use the view of the checkpoint"
            )
        # A model that was trained without dynamics needs none.
        scaled = {
            key: scalers[key].transform(values)
            for key, values in features.items()
            if key in scalers
        }
        everything = view.arrange(torch.arange(config.num_samples, device="cpu"), operator)
        return PreparedSamples(scaled | labels, subsets, everything, scalers, invariant)

    def _rows(self, chosen: Tensor, mask: Tensor, labels: Batch) -> Tensor:
        """Return the rows of the chosen samples, (N,) bool, whose variants are selected."""
        selected = (chosen & mask[labels["variant"]]).nonzero()[:, 0]
        return self.view.arrange(selected, labels["operator"])

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
            "trained on": f"{_selected(names.variants, self.masks.train)}; {self.train_operators}",
            "evaluated on": f"{_selected(names.variants, self.masks.evaluation)}; "
            f"{self.eval_operators}",
            "scaling": log + self.scaling,
        }


def require_samples(path: str | os.PathLike[str], config: GenerationConfig) -> None:
    """Check that a file holds the samples of a configuration.

    Args:
        path: Dataset file.
        config: Configuration of the dataset.

    Raises:
        DatasetNotFoundError: If the file is missing.
        DatasetError: If it is another dataset or not a dataset, or has too few samples.
    """
    available = require_dataset(path, config).config.num_samples
    if available < config.num_samples:
        raise DatasetError(
            f"{path} holds {available} samples, but num_samples is {config.num_samples}; call "
            "prepare_data() to extend the file"
        )


def _selected(names: tuple[str, ...], mask: Tensor) -> str:
    if mask.all():
        return f"all {len(names)} variants"
    return ", ".join(name for name, chosen in zip(names, mask.tolist(), strict=True) if chosen)
