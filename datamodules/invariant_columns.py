"""Selects the feature columns that depend on the operator and hardly on the initial condition."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from spinlock.configuration.plain_data import plain
from spinlock.configuration.validation import structured
from spinlock.errors import ConfigurationError
from spinlock.features.response.response_names import is_invariant
from spinlock.metrics import variance_shares

#: Smallest share of the operator, and largest share of the variant, in the variance of a column.
OPERATOR_SHARE, VARIANT_SHARE = 0.8, 0.05
#: Smallest number of operators with two samples that these shares are estimated from.
LEAST_OPERATORS = 30


@dataclass(frozen=True)
class InvariantColumns:
    """A selection of the columns whose variance the operator explains, and the variant does not.

    A column is selected if the operator's share of its variance is above 0.8 and the variant's
    share below 0.05 (`variance_shares`), on the training samples. The decomposition needs operators
    with two training samples. With fewer than 30 of them, the selection is the fixed list
    `INVARIANT_COLUMNS`.

    Args:
        names: Names of the F columns.
        chosen: Whether each column is selected.
        variant: Share of the variant in the variance of each column; empty for the fixed list.
        operator: Share of the operator; empty for the fixed list.

    Raises:
        ConfigurationError: If the lengths differ, or no column is selected.

    Example:
        >>> import torch
        >>> operator, variant = torch.arange(60) // 2, torch.arange(60) % 2
        >>> features = torch.stack([operator + 0.1 * variant, 1.0 * variant], dim=1)
        >>> columns = InvariantColumns.fit(features, variant, operator, ("beta", "kurtosis"))
        >>> columns.selected
        ('beta',)
        >>> columns.select(features).shape
        torch.Size([60, 1])
    """

    names: tuple[str, ...]
    chosen: tuple[bool, ...]
    variant: tuple[float, ...] = ()
    operator: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        sizes = [len(self.names), len(self.chosen), len(self.variant), len(self.operator)]
        if sizes not in ([sizes[0]] * 4, [sizes[0]] * 2 + [0, 0]):
            raise ConfigurationError(
                "invariant columns: names, chosen, variant and operator must have one entry a "
                f"column, or variant and operator none; got {sizes} entries"
            )
        if not any(self.chosen):
            raise ConfigurationError(
                "selection: no column is invariant; use selection: all, or columns: [responses, "
                f"noise]. Shares:\n{self._table()}"
            )

    @classmethod
    def fit(
        cls, features: Tensor, variant: Tensor, operator: Tensor, names: tuple[str, ...]
    ) -> Self:
        """Select columns by the features of the training samples.

        Args:
            features: Features, [n, F], or [n, T, F] of T timesteps, whose shares are averaged.
            variant: Variant of each sample, int64 [n].
            operator: Operator of each sample, int64 [n].
            names: Names of the F columns.

        Raises:
            ConfigurationError: If no column is selected. Lists the shares.
        """
        _, counts = torch.unique(operator, return_counts=True)
        if (counts > 1).sum() < LEAST_OPERATORS:
            return cls(names, tuple(map(is_invariant, names)))
        steps = features.reshape(len(features), -1, len(names)).unbind(dim=1)
        found = [variance_shares(step, variant, operator, resamples=0) for step in steps]
        by_variant = torch.stack([shares.variant for shares in found]).mean(dim=0).tolist()
        by_operator = torch.stack([shares.operator for shares in found]).mean(dim=0).tolist()
        chosen = (
            share > OPERATOR_SHARE and other < VARIANT_SHARE
            for share, other in zip(by_operator, by_variant, strict=True)
        )
        return cls(names, tuple(chosen), tuple(by_variant), tuple(by_operator))

    @property
    def selected(self) -> tuple[str, ...]:
        """Names of the selected columns."""
        return self._kept(self.names)

    def select(self, features: Tensor) -> Tensor:
        """Return the selected columns (..., F') of features (..., F)."""
        places = self._kept(range(len(self.names)))
        return features.index_select(-1, torch.tensor(places, device=features.device))

    def state_dict(self) -> dict[str, Any]:
        """Return all fields as plain data, which a checkpoint can hold."""
        return {name: plain(value) for name, value in vars(self).items()}

    @classmethod
    def from_state_dict(cls, state: object) -> Self:
        """Make a selection from its `state_dict`.

        Args:
            state: State in a checkpoint. Its author is not trusted.

        Raises:
            ConfigurationError: If an entry has a wrong type or length, or no column is selected.
        """
        return structured(cls, state, "invariant columns")

    def describe(self) -> str:
        """Return a table of the shares of each column, with a mark at the selected ones."""
        rule = (
            f"operator share > {OPERATOR_SHARE}, variant share < {VARIANT_SHARE}; estimates, which "
            "may lie outside of 0 to 1"
        )
        if not self.operator:
            rule = (
                f"a fixed list, since fewer than {LEAST_OPERATORS} operators have two training "
                "samples"
            )
        chosen = f"{sum(self.chosen)} of {len(self.names)} columns (*)"
        return f"{chosen}: {rule}\n{self._table()}"

    def _table(self) -> str:
        width = max(map(len, self.names), default=0)
        lines = [f"{'':<{width}} {'variant':>8} {'operator':>8}"]
        for row, name in enumerate(self.names):
            shares = [f"{some[row]:8.3f}" if some else f"{'-':>8}" for some in self._shares]
            lines.append(" ".join([f"{name:<{width}}", *shares, "*" * self.chosen[row]]).rstrip())
        return "\n".join(lines)

    @property
    def _shares(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.variant, self.operator

    def _kept(self, entries: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(e for e, chosen in zip(entries, self.chosen, strict=True) if chosen)
