"""Figures of token against a label, in strata; and the classes of the parameter axes."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from spinlock import metrics
from spinlock.callbacks import contract
from spinlock.parameters import PARAMETER_NAMES, ParameterSpace

# Of more values than this, an axis is cut into terciles: classes should hold many samples.
_MOST_VALUES = 16
_TERCILES = 3


@dataclass(frozen=True)
class LabelFigures:
    """What tokens tell of a label, over all samples and within strata.

    Args:
        pooled: Figure -> value over all samples.
        within: Figure -> value given the stratum.
        by_stratum: Stratum's number -> figure -> value.
        above_chance: Information above chance, I - E I, nats.
        null_above_chance: The 95% quantile of the null less E I, nats.
    """

    pooled: dict[str, float]
    within: dict[str, float]
    by_stratum: dict[int, dict[str, float]]
    above_chance: float
    null_above_chance: float

    def named(
        self, prefix: str, strata: tuple[str, ...] | None, *, by_stratum: bool
    ) -> dict[str, float]:
        """The values under their keys, those within strata if asked for."""
        values = {f"{prefix}_{name}": value for name, value in self.pooled.items()}
        if by_stratum:
            values |= {f"{prefix}_within_policy_{k}": v for k, v in self.within.items()}
            for number, figures in self.by_stratum.items():
                stratum = contract.numbered_name(strata, number, "policy")
                values |= {f"{prefix}_{name}/{stratum}": v for name, v in figures.items()}
        return values


def label_figures(strata: Tensor, *, permutations: int, seed: int) -> LabelFigures:
    """Figures of tables of counts.

    Args:
        strata: ``[strata, codes, classes]``.
        permutations: Permutations of labels, within strata.
        seed: Of the permutations.
    """
    occupied = strata.sum((1, 2)).nonzero().flatten()
    strata = strata[occupied]
    pooled = strata.sum(0)
    # What never occurs changes nothing, and takes time.
    rows, columns = pooled.sum(1) > 0, pooled.sum(0) > 0
    strata, pooled = strata[:, rows][:, :, columns], pooled[rows][:, columns]
    mi = metrics.mutual_information(pooled)
    given = metrics.conditional_mutual_information(strata)
    pooled_null, given_null = _nulls(strata, permutations, seed)
    chance = metrics.expected_mutual_information(pooled)
    chances = metrics.expected_mutual_information(strata)
    quantile, given_quantile = (null.quantile(0.95).item() for null in (pooled_null, given_null))
    ami = metrics.adjusted_mutual_information(strata, expected=chances).tolist()
    nmi = metrics.normalized_mutual_information(strata).tolist()
    adjusted = metrics.conditional_mutual_information(strata, adjusted=True, expected=chances)
    return LabelFigures(
        pooled={
            "mi": mi.item(),
            "mi_corrected": metrics.mutual_information(pooled, corrected=True).item(),
            "nmi": metrics.normalized_mutual_information(pooled).item(),
            "ami": metrics.adjusted_mutual_information(pooled, expected=chance).item(),
            "p_value": metrics.permutation_p_value(mi, pooled_null).item(),
            "null_95": quantile,
        },
        within={
            "mi": given.item(),
            "ami": adjusted.item(),
            "p_value": metrics.permutation_p_value(given, given_null).item(),
            "null_95": given_quantile,
        },
        by_stratum={
            number: {"nmi": n, "ami": a}
            for number, n, a in zip(occupied.tolist(), nmi, ami, strict=True)
        },
        above_chance=(mi - chance).item(),
        null_above_chance=quantile - chance.item(),
    )


def _nulls(strata: Tensor, permutations: int, seed: int) -> tuple[Tensor, Tensor]:
    """Information of permuted labels, pooled and given the stratum, ``[permutations]`` each.

    Permuting changes the cells alone, and I = (Σ_cells n ln n - Σ_codes - Σ_classes) / N + ln N,
    where n ln n of the few integers there are is looked up.
    """
    pooled = strata.sum(0)
    n = np.arange(int(strata.sum()) + 1, dtype=np.float64)
    n_log_n = n * np.log(np.maximum(n, 1))

    def fixed(tables: Tensor) -> float:
        sides = [tables.sum(-1), tables.sum(-2)]
        total = n_log_n[tables.sum((-2, -1)).numpy()].sum()
        return float(total - sum(n_log_n[side.numpy()].sum() for side in sides))

    cells = [
        (n_log_n[tables.sum(0)].sum(), n_log_n[tables].sum())
        for tables in metrics.permuted_tables(strata, permutations=permutations, seed=seed)
    ]
    constant = torch.tensor([fixed(pooled), fixed(strata)], dtype=torch.float64)
    sums = torch.tensor(cells, dtype=torch.float64)
    information = ((sums + constant) / max(len(n) - 1, 1)).clamp(min=0)
    return information[:, 0], information[:, 1]


class AxisClasses:
    """Classes of the parameter axes that vary, from points of the unit cube.

    Args:
        counts: Axis -> number of classes, in the order of the columns; 1 where it does not vary.
    """

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts
        sizes = torch.tensor(list(counts.values()))
        self._columns = torch.nonzero(sizes > 1).flatten()
        self._sizes = sizes[self._columns]
        self._first = self._sizes.cumsum(0) - self._sizes
        self.num_classes = int(self._sizes.sum())

    @classmethod
    def of(cls, trainer: Trainer, num_axes: int) -> Self:
        """The axes of the data module's ``parameter_space``; without it, all in terciles."""
        space: ParameterSpace | None = contract.known_property(trainer, "parameter_space")
        if space is not None:
            return cls(_class_counts(space))
        names = contract.known_names(trainer, "parameter_axes")
        axes = [contract.numbered_name(names, number, "axis") for number in range(num_axes)]
        return cls(dict.fromkeys(axes, _TERCILES))

    def __call__(self, params: Tensor) -> Tensor:
        """Classes ``[B, A]`` of the A axes that vary, in one numbering, of points ``[B, P]``."""
        if self._columns.device != params.device:
            moved = (x.to(params.device) for x in (self._columns, self._sizes, self._first))
            self._columns, self._sizes, self._first = moved
        # In float64, as values are made of coordinates.
        cells = (params[:, self._columns].double() * self._sizes).long()
        return torch.minimum(cells, self._sizes - 1) + self._first

    def split(self, table: Tensor) -> dict[str, Tensor]:
        """Axis -> ``[codes, classes]``, of the table of all classes."""
        axes = [axis for axis, count in self.counts.items() if count > 1]
        return dict(zip(axes, torch.split(table, self._sizes.tolist(), dim=1), strict=True))


def _class_counts(space: ParameterSpace) -> dict[str, int]:
    """Classes of each axis: its values, terciles where there are many, 1 where there is one."""
    grid = np.linspace(0, 1, 1024)[:, None].repeat(len(PARAMETER_NAMES), axis=1)
    values = space.values(grid)
    counts = {axis: len(np.unique(values[axis])) for axis in PARAMETER_NAMES}
    return {axis: n if n <= _MOST_VALUES else _TERCILES for axis, n in counts.items()}
