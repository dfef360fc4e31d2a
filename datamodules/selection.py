"""Selects the samples of each loader: variants to train and evaluate on, crossed with splits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spinlock.configuration.validation import structured
from spinlock.datamodules.datasets import Batch
from spinlock.datamodules.labels import LabelNames
from spinlock.errors import ConfigurationError
from spinlock.splits import SPLITS


@dataclass(frozen=True)
class VariantSelection:
    """A selection of variants of initial conditions, by names of variants or of families.

    Args:
        include: Names of variants and families to select; default: all of the dataset.
        exclude: Names of variants and families to leave out of these.

    Example:
        >>> from spinlock import GenerationConfig
        >>> from spinlock.datamodules.labels import LabelNames
        >>> names = LabelNames.of(GenerationConfig(1))
        >>> selection = VariantSelection(include=("gaussian_noise",), exclude=("gaussian_noise_4",))
        >>> mask = selection.mask(names, "train_variants")
        >>> [name for name, chosen in zip(names.variants, mask) if chosen][-2:]
        ['gaussian_noise_1', 'gaussian_noise_2']
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise ConfigurationError(f"{name}: must be a list of names, got {given!r}")
            object.__setattr__(self, name, tuple(given))

    def mask(self, names: LabelNames, setting: str) -> Tensor:
        """Return a mask of the selected variants.

        Args:
            names: Names of the dataset's labels.
            setting: Name of the setting that holds the selection, for messages.

        Returns:
            (V,) bool, in the order of ``names.variants``.

        Raises:
            ConfigurationError: If a name is unknown or no variant is selected. Lists the names of
                the dataset.
        """
        existing = f"variants {', '.join(names.variants)}; families {', '.join(names.families)}"
        for name in (*self.include, *self.exclude):
            if name not in (*names.variants, *names.families):
                raise ConfigurationError(
                    f"{setting}: unknown variant or family {name!r}; the dataset has {existing}"
                )
        chosen = [
            (not self.include or variant in self.include or family in self.include)
            and variant not in self.exclude
            and family not in self.exclude
            for variant, family in zip(names.variants, names.family_of_variant, strict=True)
        ]
        if not any(chosen):
            raise ConfigurationError(f"{setting}: selects no variant; the dataset has {existing}")
        return torch.tensor(chosen, device="cpu")


@dataclass(frozen=True)
class VariantMasks:
    """Variants to train and to evaluate on, as masks (V,) bool.

    Args:
        train: Variants to train on.
        evaluation: Variants to validate and test on.
    """

    train: Tensor
    evaluation: Tensor

    @property
    def parts(self) -> dict[str, Tensor]:
        """Evaluated variants that are, or are not, trained on; empty parts are left out."""
        parts = {
            "held_in": self.evaluation & self.train,
            "held_out": self.evaluation & ~self.train,
        }
        return {name: mask for name, mask in parts.items() if mask.any()}


def select_variants(
    names: LabelNames,
    train: VariantSelection | dict[str, Any] | None,
    evaluation: VariantSelection | dict[str, Any] | Literal["all"] | None,
) -> VariantMasks:
    """Return the variants to train and to evaluate on.

    Args:
        names: Names of the dataset's labels.
        train: Selection to train on, in a checkpoint a dictionary; default: all variants.
        evaluation: Selection to evaluate on, or ``all``; default: the variants trained on.

    Raises:
        ConfigurationError: If a name is unknown or nothing is selected. Lists the names of the
            dataset.
    """
    masks = []
    for setting, given in (
        ("train_variants", train or {}),
        ("eval_variants", (train or {}) if evaluation is None else evaluation),
    ):
        selection = {} if given == "all" else given
        if not isinstance(selection, VariantSelection):
            selection = structured(VariantSelection, selection, setting)
        masks.append(selection.mask(names, setting))
    return VariantMasks(*masks)


@dataclass(frozen=True)
class Subsets:
    """Samples of each loader.

    Args:
        rows: Mapping of (split, part) to (n,) int64 rows, or (n, 2) pairs of rows. The part of the
            training split is named ``train``; parts of other splits are ``held_in``, ``held_out``.
    """

    rows: dict[tuple[str, str], Tensor]

    def require(self, split: str, part: str) -> Tensor:
        """Return the rows of a part.

        Raises:
            ConfigurationError: If there are none. Lists the number of samples of each part.
        """
        rows = self.rows[split, part]
        if not len(rows):
            train = split == "train"
            share = "lower val_fraction and test_fraction" if train else f"raise {split}_fraction"
            raise ConfigurationError(
                f"the {self.title(split, part)} split is empty; there are {self} samples. Generate "
                f"more samples, {share}, or select other variants in "
                f"{'train' if train else 'eval'}_variants"
            )
        return rows

    def title(self, split: str, part: str) -> str:
        """Return the displayed name of a part: that of its split if it is the only part."""
        return split if sum(of == split for of, _ in self.rows) == 1 else f"{split} {part}"

    def __str__(self) -> str:
        """Number of samples of each part."""
        return ", ".join(f"{len(rows)} {self.title(*part)}" for part, rows in self.rows.items())

    def table(self, variant: Tensor, names: tuple[str, ...]) -> list[str]:
        """Return a table of the number of samples of each variant in each part, as lines of text.

        Args:
            variant: (N,) int64 variant of each sample. The first probe of a pair counts.
            names: Names of the variants.
        """
        width = max(map(len, names))
        lines = [" " * width] + [f"{name:<{width}}" for name in (*names, "total")]
        for part, rows in self.rows.items():
            title = self.title(*part)
            counts = torch.bincount(variant[first_of(rows)], minlength=len(names)).tolist()
            cells = [title, *counts, len(rows)]
            lines = [
                f"{line}  {cell:>{max(len(title), 7)}}"
                for line, cell in zip(lines, cells, strict=True)
            ]
        return lines


def first_of(rows: Tensor) -> Tensor:
    """Return the rows themselves, or the first rows of pairs (n, 2)."""
    return rows if rows.ndim == 1 else rows[:, 0]


def choose_subsets(
    labels: Batch,
    split: Tensor,
    masks: VariantMasks,
    *,
    arrange: Callable[[Tensor, Tensor], Tensor],
    max_samples: int | None,
) -> Subsets:
    """Choose the samples of each loader.

    Args:
        labels: Labels ``variant`` and ``operator``, (N,) int64.
        split: (N,) int64 position in `SPLITS` of each sample.
        masks: Selected variants.
        arrange: Function of selected samples and ``operator`` that returns rows of a dataset, for
            example pairs.
        max_samples: Number of rows to train on, the first of the training split; default: all.
    """

    def rows(name: str, mask: Tensor) -> Tensor:
        chosen = (split == SPLITS.index(name)) & mask[labels["variant"]]
        return arrange(chosen.nonzero()[:, 0], labels["operator"])

    found = {("train", "train"): rows("train", masks.train)[:max_samples]}
    for name in ("val", "test"):
        found |= {(name, part): rows(name, mask) for part, mask in masks.parts.items()}
    return Subsets(found)
