"""Figures of token against a label, in strata; and the classes of the parameter axes."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional

from spinlock import contract, metrics
from spinlock.simulation.parameter_space import PARAMETER_NAMES, ParameterSpace

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


def label_figures(strata: Tensor, *, permutations: int, seed: int) -> list[LabelFigures]:
    """Figures of each label, from a table of counts.

    Labels are permuted together, as combinations: one null serves them all.

    Args:
        strata: ``[strata, codes, *labels]``, a dimension for each label.
        permutations: Permutations of labels, within strata.
        seed: Of the permutations.
    """
    occupied = strata.sum(tuple(range(1, strata.ndim))).nonzero().flatten()
    cells = strata[occupied].flatten(2)
    # What never occurs changes nothing, and takes time.
    rows, columns = cells.sum((0, 2)) > 0, cells.sum((0, 1)) > 0
    cells = cells[:, rows][:, :, columns]
    classes = [
        torch.unique(label[columns], return_inverse=True)[1]
        for label in _labels_of_cells(strata.shape[2:])
    ]
    nulls = _nulls(cells, classes, permutations, seed)
    tables = [_counts_of(cells, label) for label in classes]
    return [
        _figures(table, null, occupied.tolist()) for table, null in zip(tables, nulls, strict=True)
    ]


def _labels_of_cells(sizes: torch.Size) -> list[Tensor]:
    """Of each label, its class in each combination of labels, ``[combinations]``."""
    numbers = torch.arange(sizes.numel()).view(sizes)
    return [label.flatten() for label in torch.unravel_index(numbers, sizes)]


def _counts_of(cells: Tensor, label: Tensor) -> Tensor:
    """Counts of the classes of one label ``[combinations]``, of those of combinations."""
    shape = (*cells.shape[:-1], int(label.max()) + 1)
    return cells.new_zeros(shape).index_add_(-1, label, cells)


def _figures(strata: Tensor, nulls: tuple[Tensor, Tensor], occupied: list[int]) -> LabelFigures:
    """Figures of tables ``[strata, codes, classes]`` without empty ones."""
    pooled = strata.sum(0)
    mi = metrics.mutual_information(pooled)
    given = metrics.conditional_mutual_information(strata)
    chance, *chances = metrics.expected_mutual_information(torch.cat([pooled[None], strata]))
    by_stratum = torch.stack(chances)
    quantile, given_quantile = (null.quantile(0.95).item() for null in nulls)
    ami = metrics.adjusted_mutual_information(strata, expected=by_stratum).tolist()
    nmi = metrics.normalized_mutual_information(strata).tolist()
    adjusted = metrics.conditional_mutual_information(strata, adjusted=True, expected=by_stratum)
    return LabelFigures(
        pooled={
            "mi": mi.item(),
            "mi_corrected": metrics.mutual_information(pooled, corrected=True).item(),
            "nmi": metrics.normalized_mutual_information(pooled).item(),
            "ami": metrics.adjusted_mutual_information(pooled, expected=chance).item(),
            "p_value": metrics.permutation_p_value(mi, nulls[0]).item(),
            "null_95": quantile,
        },
        within={
            "mi": given.item(),
            "ami": adjusted.item(),
            "p_value": metrics.permutation_p_value(given, nulls[1]).item(),
            "null_95": given_quantile,
        },
        by_stratum={
            number: {"nmi": n, "ami": a} for number, n, a in zip(occupied, nmi, ami, strict=True)
        },
        above_chance=(mi - chance).item(),
        null_above_chance=quantile - chance.item(),
    )


def _nulls(
    cells: Tensor, labels: list[Tensor], permutations: int, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """Of each label, the information of permuted ones, pooled and given the stratum.

    Permuting changes the cells alone, and I = (Σ_cells n ln n - Σ_codes - Σ_classes) / N + ln N,
    where n ln n of the few integers there are is looked up.

    Args:
        cells: ``[strata, codes, combinations]``.
        labels: Of each label, its class in each combination, ``[combinations]``.
        permutations: Number of permutations.
        seed: Of the permutations.

    Returns:
        ``[permutations]`` each.
    """
    n = np.arange(int(cells.sum()) + 1, dtype=np.float64)
    n_log_n = n * np.log(np.maximum(n, 1))

    def fixed(tables: Tensor) -> float:
        sides = [tables.sum(-1), tables.sum(-2)]
        total = n_log_n[tables.sum((-2, -1)).numpy()].sum()
        return float(total - sum(n_log_n[side.numpy()].sum() for side in sides))

    # Where combinations are a label's classes themselves, cells need no sum.
    members = [
        None if int(label.max()) + 1 == len(label) else functional.one_hot(label).double().numpy()
        for label in labels
    ]
    sums = np.empty((len(labels), 2, permutations))
    for number, table in enumerate(
        metrics.permuted_tables(cells, permutations=permutations, seed=seed)
    ):
        pooled = table.sum(0)
        for of_label, member in zip(sums, members, strict=True):
            for which, counts in enumerate((pooled, table)):
                # In floating point, exact up to 2^53: products of integers have no fast kernel.
                counted = counts if member is None else (counts @ member).astype(np.int64)
                of_label[which, number] = n_log_n[counted].sum()
    found = []
    for of_label, label in zip(sums, labels, strict=True):
        counts_of_label = _counts_of(cells, label)
        constant = np.array([[fixed(counts_of_label.sum(0))], [fixed(counts_of_label)]])
        information = torch.from_numpy((of_label + constant) / max(len(n) - 1, 1)).clamp(min=0)
        found.append((information[0], information[1]))
    return found


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
