"""Selects the variants of initial conditions to train and to evaluate on."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spinlock.configuration.validation import structured
from spinlock.datamodules.labels import LabelNames
from spinlock.errors import ConfigurationError


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
        >>> [name for name, chosen in zip(names.variants, mask) if chosen]
        ['gaussian_noise_0.25', 'gaussian_noise_0.5', 'gaussian_noise_1', 'gaussian_noise_2']
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
            ConfigurationError: If a name is unknown or no variant is selected. The message lists
                the variants and families of the dataset.
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
        train: Selection to train on; a dictionary if it comes from a checkpoint; default: all
            variants.
        evaluation: Selection to evaluate on, or ``all``; default: the variants trained on.

    Raises:
        ConfigurationError: If a name is unknown or nothing is selected. The message lists
            the variants and families of the dataset.
    """
    evaluation = train if evaluation is None else evaluation
    masks = []
    given: Any
    for setting, given in (("train_variants", train), ("eval_variants", evaluation)):
        selection = VariantSelection() if given in (None, "all") else given
        if not isinstance(selection, VariantSelection):
            selection = structured(VariantSelection, selection, setting)
        masks.append(selection.mask(names, setting))
    return VariantMasks(*masks)
