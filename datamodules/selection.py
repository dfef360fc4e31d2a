"""Selecting initial conditions by the names of variants or families."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spinlock.datamodules.labels import LabelNames
from spinlock.datamodules.subsets import VariantMasks
from spinlock.errors import ConfigurationError


@dataclass(frozen=True)
class VariantSelection:
    """Variants of initial conditions, by their names or by their families' names.

    Args:
        include: Variants and families to take; empty: all of the dataset.
        exclude: Variants and families to leave out of those.
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
        """Which variants are selected.

        Args:
            names: The dataset's names.
            setting: What the selection is called, for messages.

        Returns:
            (V,) bool, in the order of ``names.variants``.

        Raises:
            ConfigurationError: If a name is unknown, or nothing is selected; lists what there is.
        """
        there = f"variants {', '.join(names.variants)}; families {', '.join(names.families)}"
        for name in (*self.include, *self.exclude):
            if name not in (*names.variants, *names.families):
                raise ConfigurationError(
                    f"{setting}: unknown variant or family {name!r}; the dataset has {there}"
                )
        both = list(zip(names.variants, names.family_of_variant, strict=True))
        chosen = [
            (not self.include or variant in self.include or family in self.include)
            and variant not in self.exclude
            and family not in self.exclude
            for variant, family in both
        ]
        if not any(chosen):
            raise ConfigurationError(f"{setting}: selects no variant; the dataset has {there}")
        return torch.tensor(chosen, device="cpu")


def masks_of(
    names: LabelNames,
    train: VariantSelection | dict[str, Any] | None,
    evaluation: VariantSelection | dict[str, Any] | Literal["all"] | None,
) -> VariantMasks:
    """The variants to train and to evaluate on.

    Args:
        names: The dataset's names.
        train: None: all. A dict is what a checkpoint holds of a selection.
        evaluation: ``all``, or None: those trained on.

    Raises:
        ConfigurationError: If a name is unknown, or nothing is selected; lists what there is.
    """
    trained = _selection(train, "train_variants").mask(names, "train_variants")
    if evaluation is None:
        return VariantMasks.of(trained, None)
    chosen = None if evaluation == "all" else evaluation
    mask = _selection(chosen, "eval_variants").mask(names, "eval_variants")
    return VariantMasks.of(trained, mask)


def _selection(given: object, setting: str) -> VariantSelection:
    if given is None:
        return VariantSelection()
    if isinstance(given, VariantSelection):
        return given
    if isinstance(given, dict) and given.keys() <= {"include", "exclude"}:
        return VariantSelection(**given)
    raise ConfigurationError(
        f"{setting}: must be {{include: [names], exclude: [names]}}, got {given!r}"
    )
