"""A table of samples by token and class, accumulated over batches and processes."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from spinlock.configuration.validation import require_at_least


class TokenContingency(Metric):
    """Counts samples by token and class.

    The state is an int64 table for each level of the codebook, so memory does not grow with the
    number of samples and the sum over processes is exact.

    The tokens of a residual or grouped codebook have several levels. The joint table then has one
    row for each combination of codes that occurs, at most min(codes^levels, samples), since a table
    of all codes^levels combinations would not fit in memory.

    Args:
        num_codes: Number of codes of each level. Tokens are in [0, num_codes).
        num_classes: Number of classes. Classes are in [0, num_classes).
        num_levels: Number of levels of a token, default: 1.

    Raises:
        ValueError: A size is not positive.

    Example:
        >>> import torch
        >>> from spinlock.metrics import TokenContingency
        >>> metric = TokenContingency(num_codes=3, num_classes=2)
        >>> metric.update(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1, 1, 1]))
        >>> metric.compute()["joint"]
        tensor([[1, 1],
                [0, 0],
                [0, 2]])
    """

    is_differentiable: bool = False
    full_state_update: bool = True

    contingency: Tensor
    observed: Tensor

    def __init__(self, num_codes: int, num_classes: int, *, num_levels: int = 1) -> None:
        super().__init__(dist_sync_fn=_gather_padded)
        sizes = {"num_codes": num_codes, "num_classes": num_classes, "num_levels": num_levels}
        require_at_least(sizes, 1)
        self.num_codes = num_codes
        self.num_classes = num_classes
        self.num_levels = num_levels
        table = torch.zeros(num_levels, num_codes, num_classes, dtype=torch.int64, device="cpu")
        self.add_state("contingency", default=table, dist_reduce_fx="sum")
        # Each row holds the codes of a combination and its counts [classes].
        rows = torch.zeros(0, num_levels + num_classes, dtype=torch.int64, device="cpu")
        self.add_state("observed", default=rows, dist_reduce_fx=self._merge_processes)

    def update(self, tokens: Tensor, classes: Tensor) -> None:
        """Count samples.

        Args:
            tokens: Codebook indices, integers ``[B]`` or ``[B, levels]``.
            classes: Class of each sample, integers ``[B]``.

        Raises:
            ValueError: A shape, a type or a value is not as described.
        """
        tokens = tokens[:, None] if tokens.ndim == 1 else tokens
        if classes.ndim != 1 or tokens.shape != (len(classes), self.num_levels):
            raise ValueError(
                f"tokens must be [B] or [B, {self.num_levels}] and classes [B], got "
                f"{list(tokens.shape)} and {list(classes.shape)}"
            )
        if not len(tokens):
            return
        check_range("tokens", tokens, self.num_codes)
        check_range("classes", classes, self.num_classes)
        tokens, classes = tokens.long(), classes.long()
        first = torch.arange(self.num_levels, device=tokens.device) * self.num_codes
        cells = (tokens + first) * self.num_classes + classes[:, None]
        batch = torch.bincount(cells.flatten(), minlength=self.contingency.numel())
        self.contingency = self.contingency + batch.view_as(self.contingency)
        if self.num_levels > 1:
            one_hot = torch.nn.functional.one_hot(classes, self.num_classes)
            rows = torch.cat([tokens, one_hot], 1)
            self.observed = self._merged(torch.cat([self.observed, rows]))

    def compute(self) -> dict[str, Tensor]:
        """Return the tables, int64.

        Returns:
            ``joint``: counts ``[codes, classes]``, or with several levels ``[combinations,
            classes]`` and also ``level_0``, ``level_1`` ...: counts ``[codes, classes]``.
        """
        if self.num_levels == 1:
            return {"joint": self.contingency[0]}
        levels = {f"level_{number}": table for number, table in enumerate(self.contingency)}
        return {**levels, "joint": self.observed[:, self.num_levels :]}

    def _merge_processes(self, gathered: Tensor) -> Tensor:
        return self._merged(gathered.flatten(0, 1))

    def _merged(self, rows: Tensor) -> Tensor:
        """Sum rows of equal combinations and drop the padding, which has no counts."""
        rows = rows[rows[:, self.num_levels :].any(1)]
        codes, counts = rows[:, : self.num_levels], rows[:, self.num_levels :]
        combinations, number = torch.unique(codes, dim=0, return_inverse=True)
        total = counts.new_zeros(len(combinations), self.num_classes)
        return torch.cat([combinations, total.index_add(0, number, counts)], 1)


def check_range(name: str, labels: Tensor, size: int) -> None:
    """Check that labels are integers in [0, size).

    Raises:
        ValueError: They are not.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {labels.dtype}")
    lowest, highest = torch.stack(labels.aminmax()).tolist()
    if lowest < 0 or highest >= size:
        raise ValueError(f"{name} must be in [0, {size}), got values from {lowest} to {highest}")


def _gather_padded(table: Tensor, group: object | None = None) -> list[Tensor]:
    """Gather a state of all processes, with equally many rows: torchmetrics stacks them."""
    tables = gather_all_tensors(table, group)
    rows = max(table.shape[-2] for table in tables)
    return [torch.nn.functional.pad(t, (0, 0, 0, rows - t.shape[-2])) for t in tables]
