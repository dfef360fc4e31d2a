"""Metrics that accumulate the table of tokens against labels, over batches and processes."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from spinlock.metrics.information import (
    adjusted_mutual_information,
    codebook_perplexity,
    codebook_usage,
    conditional_entropy,
    mutual_information,
    normalized_mutual_information,
)


class TokenContingency(Metric):
    """The table of token against class, summed over batches and processes.

    Its state is one int64 tensor ``contingency [codes, classes]``.

    Args:
        num_codes: Size of the codebook, a token being in [0, num_codes). None: the table grows to
            the largest token met, on any process.
        num_classes: Number of classes, likewise.
    """

    is_differentiable: bool = False
    # Adding two states needs equal shapes, which tables that grow do not have: `forward` must not.
    full_state_update: bool = True

    contingency: Tensor

    def __init__(self, num_codes: int | None = None, *, num_classes: int | None = None) -> None:
        super().__init__(dist_sync_fn=_gather_padded)
        for name, size in (("num_codes", num_codes), ("num_classes", num_classes)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be a positive number or None, got {size}")
        self.num_codes = num_codes
        self.num_classes = num_classes
        table = torch.zeros(num_codes or 0, num_classes or 0, dtype=torch.int64)
        self.add_state("contingency", default=table, dist_reduce_fx="sum")

    def update(self, tokens: Tensor, classes: Tensor) -> None:
        """Count samples.

        Args:
            tokens: Codebook index of each sample, an integer tensor of any shape.
            classes: Label of each sample, integers of the same shape.

        Raises:
            ValueError: On other shapes or types, or a value outside its declared range.
        """
        if tokens.shape != classes.shape:
            shapes = f"{list(tokens.shape)} and {list(classes.shape)}"
            raise ValueError(f"tokens and classes must have one shape, got {shapes}")
        if tokens.numel() == 0:
            return
        rows = max(_extent("tokens", tokens, self.num_codes), self.contingency.shape[0])
        columns = max(_extent("classes", classes, self.num_classes), self.contingency.shape[1])
        cells = (tokens.long() * columns + classes.long()).flatten()
        batch = torch.bincount(cells, minlength=rows * columns).view(rows, columns)
        self.contingency = _padded(self.contingency, rows, columns) + batch

    def compute(self) -> Tensor:
        """The table, ``[codes, classes]`` int64."""
        return self.contingency


class MutualInformation(TokenContingency):
    """Accumulates :func:`mutual_information`.

    Args:
        num_codes: As in :class:`TokenContingency`.
        num_classes: As in :class:`TokenContingency`.
        corrected: Apply Miller and Madow's bias correction.
    """

    def __init__(
        self,
        num_codes: int | None = None,
        *,
        num_classes: int | None = None,
        corrected: bool = False,
    ) -> None:
        super().__init__(num_codes, num_classes=num_classes)
        self.corrected = corrected

    def compute(self) -> Tensor:
        """Scalar, nats."""
        return mutual_information(self.contingency, corrected=self.corrected)


class NormalizedMutualInformation(TokenContingency):
    """Accumulates :func:`normalized_mutual_information`."""

    def compute(self) -> Tensor:
        """Scalar in [0, 1]."""
        return normalized_mutual_information(self.contingency)


class AdjustedMutualInformation(TokenContingency):
    """Accumulates :func:`adjusted_mutual_information`."""

    def compute(self) -> Tensor:
        """Scalar, at most 1, about 0 for independent labels."""
        return adjusted_mutual_information(self.contingency)


class ConditionalEntropy(TokenContingency):
    """Accumulates :func:`conditional_entropy`, of the class given the token."""

    def compute(self) -> Tensor:
        """Scalar, nats."""
        return conditional_entropy(self.contingency)


class CodebookPerplexity(TokenContingency):
    """Accumulates :func:`codebook_perplexity`."""

    def compute(self) -> Tensor:
        """Scalar in [1, codes]."""
        return codebook_perplexity(self.contingency)


class CodebookUsage(TokenContingency):
    """Accumulates :func:`codebook_usage`; without `num_codes`, of the codes up to the largest."""

    def compute(self) -> Tensor:
        """Scalar in [0, 1]."""
        return codebook_usage(self.contingency)


def _extent(name: str, labels: Tensor, declared: int | None) -> int:
    """Number of rows or columns that these labels need."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {labels.dtype}")
    lowest, highest = torch.stack(labels.aminmax()).tolist()
    if lowest < 0 or (declared is not None and highest >= declared):
        expected = f"in [0, {declared})" if declared is not None else "at least 0"
        raise ValueError(f"{name} must be {expected}, got values from {lowest} to {highest}")
    return int(highest) + 1


def _padded(table: Tensor, rows: int, columns: int) -> Tensor:
    return torch.nn.functional.pad(table, (0, columns - table.shape[1], 0, rows - table.shape[0]))


def _gather_padded(table: Tensor, group: object | None = None) -> list[Tensor]:
    """The tables of all processes, at a common shape: each grew by the samples it met."""
    tables = gather_all_tensors(table, group)
    rows, columns = (max(t.shape[axis] for t in tables) for axis in (0, 1))
    return [_padded(t, rows, columns) for t in tables]
