"""Metrics of the table of tokens against labels: one class for each pure function."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spinlock.metrics import contingency_information as information
from spinlock.metrics.chance import permutation_null, permutation_p_value
from spinlock.metrics.token_contingency import Figures, TokenContingency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _TokenScalar(TokenContingency):
    """A scalar function of the table; with levels, a dict of each level's and the joint's.

    Arguments are those of :class:`TokenContingency`.
    """

    function: Callable[[Tensor], Tensor]
    plot_lower_bound: float | None = 0.0

    def compute(self) -> Tensor | Figures:
        """The function of the table: float64 scalar, or a dict of scalars."""
        return self._of_tables(self.function)

    def plot(self, val: Any = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":  # noqa: ANN401
        """The current value, or `val`: one of `compute`'s, or a list of them in order of time."""
        from spinlock.plots.token_plots import figure_of, new_axes

        ax = new_axes() if ax is None else ax
        # torchmetrics gives no figure back for axes that it was given.
        self._plot(self.compute() if val is None else val, ax)
        return figure_of(ax), ax


class MutualInformation(_TokenScalar):
    """Accumulates :func:`mutual_information`.

    Args:
        num_codes: As in :class:`TokenContingency`.
        num_classes: As in :class:`TokenContingency`.
        num_levels: As in :class:`TokenContingency`.
        corrected: Apply Miller and Madow's bias correction.
    """

    def __init__(
        self,
        num_codes: int | None = None,
        *,
        num_classes: int | None = None,
        num_levels: int | None = None,
        corrected: bool = False,
    ) -> None:
        super().__init__(num_codes, num_classes=num_classes, num_levels=num_levels)
        self.corrected = corrected
        self.function = partial(information.mutual_information, corrected=corrected)


class NormalizedMutualInformation(_TokenScalar):
    """Accumulates :func:`normalized_mutual_information`, in [0, 1]."""

    function = staticmethod(information.normalized_mutual_information)
    plot_upper_bound = 1.0


class AdjustedMutualInformation(_TokenScalar):
    """Accumulates :func:`adjusted_mutual_information`, at most 1."""

    function = staticmethod(information.adjusted_mutual_information)
    plot_lower_bound = None
    plot_upper_bound = 1.0


class ConditionalEntropy(_TokenScalar):
    """Accumulates :func:`conditional_entropy`, of the class given the token."""

    function = staticmethod(information.conditional_entropy)


class CodebookPerplexity(_TokenScalar):
    """Accumulates :func:`codebook_perplexity`, in [1, codes]; of the joint, of combinations."""

    function = staticmethod(information.codebook_perplexity)


class CodebookUsage(_TokenScalar):
    """Accumulates :func:`codebook_usage`, in [0, 1].

    Without `num_codes`, of the codes up to the largest. The joint's is the share of all
    codes^levels combinations.
    """

    plot_upper_bound = 1.0

    def compute(self) -> Tensor | Figures:
        """Float64 scalar, or a dict of scalars."""
        values = self._of_tables(information.codebook_usage)
        if isinstance(values, dict):
            combinations = self.tables()["joint"].shape[0]
            every = float(self.contingency.shape[-2]) ** len(self.contingency)
            values["joint"] = torch.full_like(values["joint"], combinations / max(every, 1))
        return values


class DeadCodes(_TokenScalar):
    """Accumulates :func:`dead_codes`, in [0, codes].

    Without `num_codes`, of the codes up to the largest. The joint's counts the codes of all levels.
    """

    def compute(self) -> Tensor | Figures:
        """Float64 scalar, or a dict of scalars."""
        values = self._of_tables(information.dead_codes)
        if isinstance(values, dict):
            values["joint"] = information.dead_codes(self.contingency).sum()
        return values


class ConditionalMutualInformation(TokenContingency):
    """Accumulates :func:`conditional_mutual_information`, of token and class within groups.

    Args:
        num_codes: As in :class:`TokenContingency`.
        num_classes: Number of classes.
        num_groups: Number of groups.
        adjusted: Adjust for chance.
    """

    def __init__(
        self,
        num_codes: int | None = None,
        *,
        num_classes: int,
        num_groups: int,
        adjusted: bool = False,
    ) -> None:
        super().__init__(num_codes, num_classes=num_classes * num_groups)
        self.num_groups = num_groups
        self.adjusted = adjusted

    # A third label is what this metric is about.
    def update(self, tokens: Tensor, classes: Tensor, groups: Tensor) -> None:  # type: ignore[override]
        """Count samples: integers of one shape, classes and groups in their declared ranges."""
        per_group = (self.num_classes or 0) // self.num_groups
        for name, labels, size in (
            ("classes", classes, per_group),
            ("groups", groups, self.num_groups),
        ):
            if labels.numel() and not (0 <= int(labels.min()) <= int(labels.max()) < size):
                found = f"{int(labels.min())} to {int(labels.max())}"
                raise ValueError(f"{name} must be in [0, {size}), got values from {found}")
        super().update(tokens, groups * per_group + classes)

    def compute(self) -> Tensor:
        """Float64 scalar, nats, or at most 1 where adjusted."""
        table = self.contingency.view(len(self.contingency), self.num_groups, -1).transpose(0, 1)
        return information.conditional_mutual_information(table, adjusted=self.adjusted)

    plot = _TokenScalar.plot


class JensenShannonDivergence(_TokenScalar):
    """Accumulates :func:`jensen_shannon_divergence` of the tokens of classes 0 and 1.

    Args:
        num_codes: As in :class:`TokenContingency`.
        num_levels: As in :class:`TokenContingency`.
    """

    function = staticmethod(information.jensen_shannon_divergence)

    def __init__(self, num_codes: int | None = None, *, num_levels: int | None = None) -> None:
        super().__init__(num_codes, num_classes=2, num_levels=num_levels)


class PermutationTest(TokenContingency):
    """Accumulates a test of the mutual information of token and class against permuted labels.

    Args:
        num_codes: As in :class:`TokenContingency`.
        num_classes: As in :class:`TokenContingency`.
        permutations: Number of permutations.
        seed: Of the permutations.
    """

    def __init__(
        self,
        num_codes: int | None = None,
        *,
        num_classes: int | None = None,
        permutations: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(num_codes, num_classes=num_classes)
        self.permutations = permutations
        self.seed = seed

    def compute(self) -> Figures:
        """``mutual_information``, its ``p_value`` and the null's 95% ``quantile_95``, nats."""
        observed = information.mutual_information(self.contingency).cpu()
        null = permutation_null(self.contingency, permutations=self.permutations, seed=self.seed)
        return {
            "mutual_information": observed,
            "p_value": permutation_p_value(observed, null),
            "quantile_95": null.quantile(0.95),
        }

    plot = _TokenScalar.plot
