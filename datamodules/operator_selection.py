"""Selects the operators to train and to evaluate on by their values on the axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError
from spinlock.simulation.sobol_design import make_design


@dataclass(frozen=True)
class OperatorSelection:
    """A selection of operators: those that have one of the given values on each given axis.

    Args:
        axes: Values to select on an axis, by its name: a list of values, or a mapping with ``low``
            or ``high`` or both for a closed interval; default: all operators.
        setting: Name of the setting that holds the selection, for messages.

    Raises:
        ConfigurationError: If a selection has another form.

    Example:
        >>> from spinlock import GenerationConfig
        >>> selection = OperatorSelection({"activation": ["relu"], "num_layers": {"high": 3}})
        >>> selection.mask(GenerationConfig(64)).sum()
        tensor(10)
        >>> print(selection)
        activation relu; num_layers at most 3
    """

    axes: Mapping[str, Any] | None = None
    setting: str = "train_operators"

    def __post_init__(self) -> None:
        if not isinstance(self.axes, Mapping | None):
            raise ConfigurationError(
                f"{self.setting}: must be a mapping of axes to values, got {self.axes!r}"
            )
        for name, chosen in (self.axes or {}).items():
            if not (_are_bounds(chosen) or _are_values(chosen)):
                raise ConfigurationError(
                    f"{self.setting}.{name}: must be a list of values, or numbers low and high, "
                    f"got {chosen!r}"
                )
            if _are_bounds(chosen) and len(chosen) == 2 and chosen["low"] > chosen["high"]:
                raise ConfigurationError(
                    f"{self.setting}.{name}: low must not be above high, got low {chosen['low']} "
                    f"and high {chosen['high']}"
                )

    def mask(self, config: GenerationConfig) -> Tensor:
        """Return a mask of the samples of the selected operators, (N,) bool.

        Args:
            config: Configuration of the dataset.

        Raises:
            ConfigurationError: If the dataset has no such axis, a value does not occur, or no
                operator is selected.
        """
        chosen = np.ones(config.num_samples, dtype=np.bool_)
        if not self.axes:
            return torch.from_numpy(chosen)
        values = make_design(config).values
        for name, wanted in self.axes.items():
            if name not in config.space.names:
                raise ConfigurationError(
                    f"{self.setting}: unknown axis {name!r}; the dataset has "
                    f"{', '.join(config.space.names)}"
                )
            column = values[name].astype(str) if values[name].dtype.kind == "S" else values[name]
            if isinstance(wanted, Mapping):
                if column.dtype.kind == "U":
                    raise ConfigurationError(
                        f"{self.setting}.{name}: the axis has names, not numbers; give a list of "
                        f"some of {_occurring(column)}"
                    )
                inside = (column >= wanted.get("low", -np.inf)) & (
                    column <= wanted.get("high", np.inf)
                )
            else:
                for value in wanted:
                    if not (column == value).any():
                        raise ConfigurationError(
                            f"{self.setting}.{name}: no operator has the value {value!r}; the "
                            f"dataset has {_occurring(column)}"
                        )
                inside = np.isin(column, wanted)
            chosen &= inside
        if not chosen.any():
            raise ConfigurationError(f"{self.setting}: selects no operator ({self})")
        return torch.from_numpy(chosen)

    def __str__(self) -> str:
        """Describe the selection."""
        texts = [f"{name} {_described(chosen)}" for name, chosen in (self.axes or {}).items()]
        return "; ".join(texts) or "all operators"


def _are_bounds(chosen: object) -> bool:
    if not isinstance(chosen, Mapping) or not chosen or not chosen.keys() <= {"low", "high"}:
        return False
    return all(
        isinstance(bound, int | float) and not isinstance(bound, bool) for bound in chosen.values()
    )


def _are_values(chosen: object) -> bool:
    if not isinstance(chosen, list | tuple) or not chosen:
        return False
    return all(isinstance(value, str | int | float) for value in chosen)


def _occurring(column: np.ndarray[Any, Any]) -> str:
    found = np.unique(column)
    if len(found) > 12 and found.dtype.kind != "U":
        return f"values from {found[0]:g} to {found[-1]:g}"
    shown = ", ".join(map(str, found[:12].tolist()))
    return shown if len(found) <= 12 else f"{shown} and {len(found) - 12} others"


def _described(chosen: Mapping[str, float] | Sequence[object]) -> str:
    if not isinstance(chosen, Mapping):
        return ", ".join(map(str, chosen))
    if len(chosen) == 2:
        return f"{chosen['low']:g} to {chosen['high']:g}"
    if "low" in chosen:
        return f"at least {chosen['low']:g}"
    return f"at most {chosen['high']:g}"
