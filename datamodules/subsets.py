"""Which samples each loader serves: splits crossed with selected initial conditions."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from spinlock.datamodules.feature_dataset import Batch, pair_probes
from spinlock.errors import ConfigurationError
from spinlock.splits import SPLITS


@dataclass(frozen=True)
class VariantMasks:
    """Selected initial conditions.

    Args:
        train: (V,) bool, variants to train on.
        held_in: (V,) bool, variants to evaluate on that are trained on.
        held_out: (V,) bool, variants to evaluate on that are never trained on.
    """

    train: Tensor
    held_in: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, train: Tensor, evaluation: Tensor | None) -> Self:
        """Tell evaluation on variants that are trained on from evaluation on others.

        Args:
            train: (V,) bool, variants to train on.
            evaluation: (V,) bool, variants to evaluate on; None: those trained on.
        """
        evaluation = train if evaluation is None else evaluation
        return cls(train, evaluation & train, evaluation & ~train)

    @property
    def evaluation(self) -> dict[str, Tensor]:
        """The parts of evaluation that have variants."""
        parts = {"held_in": self.held_in, "held_out": self.held_out}
        return {name: mask for name, mask in parts.items() if mask.any()}


@dataclass(frozen=True)
class Subsets:
    """The samples of each loader.

    Args:
        rows: (split, part) -> (n,) int64 rows, or (n, 2) pairs of rows; the part of the training
            split is called ``train``, those of the others ``held_in`` and ``held_out``.
    """

    rows: dict[tuple[str, str], Tensor]

    def parts(self, split: str) -> dict[str, Tensor]:
        """Part -> rows of a split."""
        return {part: rows for (of, part), rows in self.rows.items() if of == split}

    def require(self, split: str, part: str) -> Tensor:
        """The rows of a part.

        Raises:
            ConfigurationError: If there are none; lists what there is.
        """
        rows = self.rows[split, part]
        if not len(rows):
            train = split == "train"
            share = "lower val_fraction and test_fraction" if train else f"raise {split}_fraction"
            raise ConfigurationError(
                f"the {self.title(split, part)} split is empty; there are {self.describe()} "
                f"samples. Generate more samples, {share}, or select other variants in "
                f"{'train' if train else 'eval'}_variants"
            )
        return rows

    def title(self, split: str, part: str) -> str:
        """What a part is called: as its split, if it is all of it."""
        return split if len(self.parts(split)) == 1 else f"{split} {part}"

    def describe(self) -> str:
        """The number of samples of each part, in words."""
        return ", ".join(f"{len(rows)} {self.title(*part)}" for part, rows in self.rows.items())


def choose_subsets(
    labels: Batch,
    split: Tensor,
    masks: VariantMasks,
    *,
    pairs: bool,
    max_samples: int | None,
) -> Subsets:
    """Choose the samples of each loader.

    Args:
        labels: ``variant`` and ``operator``, (N,) each.
        split: (N,) position in `SPLITS` of each sample.
        masks: The selected variants.
        pairs: Whether rows are pairs of probes.
        max_samples: The first so many of the training split only.
    """

    def rows(name: str, mask: Tensor) -> Tensor:
        chosen = (split == SPLITS.index(name)) & mask[labels["variant"]]
        found = chosen.nonzero()[:, 0]
        return pair_probes(found, labels["operator"]) if pairs else found

    found = {("train", "train"): rows("train", masks.train)[:max_samples]}
    for name in ("val", "test"):
        found |= {(name, part): rows(name, mask) for part, mask in masks.evaluation.items()}
    return Subsets(found)
