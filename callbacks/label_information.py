"""Scores of tokens against a label within update policies, and classes of the parameter axes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spinlock import metrics
from spinlock.callbacks.label_nulls import LabelNull, informations
from spinlock.configuration.parameter_space import ParameterSpace
from spinlock.metrics.counts import as_counts, mean_entropy

# An axis of more values is cut into terciles, since classes should hold many samples.
_MOST_VALUES = 16
_TERCILES = 3


def label_scores(
    strata: Tensor, null: LabelNull, update_policy_names: Sequence[str], *, detailed: bool
) -> dict[str, float]:
    """Return scores of tokens against one label, as `ICMutualInformation` lists them.

    Args:
        strata: Counts ``[update policies, codes, classes]``.
        null: Informations of permuted labels.
        update_policy_names: Names of the strata.
        detailed: Whether to include the detailed scores.
    """
    pooled = strata.sum(0)
    chance, by_policy = null.chance[0], null.chance[1:]
    observed, quantiles = informations(strata)[:2], null.informations.quantile(0.95, dim=0)
    p_value, given_p_value = (
        metrics.permutation_p_value(value, permuted)
        for value, permuted in zip(observed, null.informations.T, strict=True)
    )
    # Zero if there is a single table with these marginals.
    room = (mean_entropy(as_counts(pooled)) - chance).clamp(min=1e-12)
    scores = {
        "ami": metrics.adjusted_mutual_information(pooled, expected=chance),
        "ami_null_95": (quantiles[0] - chance) / room,
        "p_value": p_value,
        "mi_excess": observed[0] - chance,
        "within_policy_ami": metrics.conditional_mutual_information(
            strata, adjusted=True, expected=by_policy
        ),
    }
    if detailed:
        scores |= {
            "mi": observed[0],
            "mi_corrected": metrics.mutual_information(pooled, corrected=True),
            "mi_null_95": quantiles[0],
            "nmi": metrics.normalized_mutual_information(pooled),
            "within_policy_mi": observed[1],
            "within_policy_mi_null_95": quantiles[1],
            "within_policy_p_value": given_p_value,
        }
        ami = metrics.adjusted_mutual_information(strata, expected=by_policy)
        nmi = metrics.normalized_mutual_information(strata)
        for number in strata.sum((1, 2)).nonzero().flatten().tolist():
            scores[f"ami/{update_policy_names[number]}"] = ami[number]
            scores[f"nmi/{update_policy_names[number]}"] = nmi[number]
    return {name: value.item() for name, value in scores.items()}


class AxisClasses:
    """Classes of the parameter axes that vary, for points of the unit cube.

    The classes of an axis are its values, or terciles if it is continuous or has more than 16
    values. The classes of all axes share one numbering.

    Args:
        space: Parameter space of the points.
    """

    def __init__(self, space: ParameterSpace) -> None:
        grid = np.linspace(0, 1, 1024)[:, None].repeat(len(space.names), axis=1)
        values = space.values(grid)
        counts = [len(np.unique(values[axis])) for axis in space.names]
        sizes = [count if count <= _MOST_VALUES else _TERCILES for count in counts]
        self._columns = [column for column, size in enumerate(sizes) if size > 1]
        self._sizes = [sizes[column] for column in self._columns]
        self._names = [space.names[column] for column in self._columns]
        self.num_classes = sum(self._sizes)

    def __call__(self, params: Tensor) -> Tensor:
        """Return the classes ``[B, V]`` of the V axes that vary, for points ``[B, A]``."""
        sizes = torch.tensor(self._sizes, device=params.device)
        # In float64, as values are computed from coordinates.
        cells = (params[:, self._columns].double() * sizes).long()
        return torch.minimum(cells, sizes - 1) + sizes.cumsum(0) - sizes

    def scores(self, table: Tensor) -> tuple[dict[str, float], float]:
        """Return the AMI of token and each axis, and the information above chance of all axes.

        Args:
            table: Counts ``[codes, num_classes]``.
        """
        tables = torch.split(table, self._sizes, dim=1)
        widest = max(self._sizes)
        stack = torch.stack(
            [torch.nn.functional.pad(each, (0, widest - each.shape[1])) for each in tables]
        )
        chance = metrics.expected_mutual_information(stack)
        ami = metrics.adjusted_mutual_information(stack, expected=chance).tolist()
        above = (metrics.mutual_information(stack) - chance).sum().item()
        return dict(zip(self._names, ami, strict=True)), above
