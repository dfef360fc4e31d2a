"""The table of tokens against labels, accumulated over batches and processes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Figures = dict[str, Tensor]
"""A value for each level of the codebook, ``level_0`` .., and for the ``joint``."""


class TokenContingency(Metric):
    """The table of token against class, summed over batches and processes.

    Its state is one int64 tensor ``contingency [codes, classes]``, so memory does not grow with the
    samples and the sum over processes is exact.

    The tokens of a residual or grouped codebook have `num_levels` parts. There is then one table a
    level, ``contingency [levels, codes, classes]``, and the joint table of the combinations of
    parts that were met: ``observed [combinations, levels + classes]``, each row a combination and
    its counts. It grows with the combinations (at most min(codes^levels, samples)), since a table
    of all codes^levels would soon not fit; processes' rows are merged by combination, exactly.

    Args:
        num_codes: Size of the codebook (of each level), a token being in [0, num_codes). None: the
            table grows to the largest token met, on any process.
        num_classes: Number of classes, likewise.
        num_levels: Number of levels of a residual or grouped codebook. None: tokens have one part.

    Raises:
        ValueError: A size is not positive.
    """

    is_differentiable: bool = False
    # Adding two states needs equal shapes, which tables that grow do not have: `forward` must not.
    full_state_update: bool = True

    contingency: Tensor
    observed: Tensor

    def __init__(
        self,
        num_codes: int | None = None,
        *,
        num_classes: int | None = None,
        num_levels: int | None = None,
    ) -> None:
        super().__init__(dist_sync_fn=_gather_padded)
        sizes = {"num_codes": num_codes, "num_classes": num_classes, "num_levels": num_levels}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ValueError(f"{name} must be a positive number or None, got {size}")
        self.num_codes = num_codes
        self.num_classes = num_classes
        self.num_levels = num_levels
        levels = () if num_levels is None else (num_levels,)
        table = torch.zeros(*levels, num_codes or 0, num_classes or 0, dtype=torch.int64)
        self.add_state("contingency", default=table, dist_reduce_fx="sum")
        if num_levels is not None:
            rows = torch.zeros(0, num_levels + (num_classes or 0), dtype=torch.int64)
            self.add_state("observed", default=rows, dist_reduce_fx=self._merge_processes)

    def update(self, tokens: Tensor, classes: Tensor) -> None:
        """Count samples.

        Args:
            tokens: Codebook index of each sample, integers of any shape; with levels, one dimension
                more of that size.
            classes: Label of each sample, integers of the shape of tokens without the levels.

        Raises:
            ValueError: On other shapes or types, or a value outside its declared range.
        """
        levels = () if self.num_levels is None else (self.num_levels,)
        if tokens.shape != (*classes.shape, *levels):
            expected = "one shape" if not levels else f"shapes [..., {self.num_levels}] and [...]"
            shapes = f"{list(tokens.shape)} and {list(classes.shape)}"
            raise ValueError(f"tokens and classes must have {expected}, got {shapes}")
        if tokens.numel() == 0:
            return
        rows = max(_extent("tokens", tokens, self.num_codes), self.contingency.shape[-2])
        columns = max(_extent("classes", classes, self.num_classes), self.contingency.shape[-1])
        if levels:
            self._observe(tokens.flatten(0, -2).long(), classes.flatten().long(), columns)
            offset = torch.arange(self.num_levels or 0, device=tokens.device) * rows
            tokens, classes = tokens + offset, classes[..., None].expand_as(tokens)
        cells = (tokens.long() * columns + classes.long()).flatten()
        batch = torch.bincount(cells, minlength=rows * columns * (self.num_levels or 1))
        self.contingency = _padded(self.contingency, rows, columns) + batch.view(
            *levels, rows, columns
        )

    def compute(self) -> Tensor | Figures:
        """The table ``[codes, classes]`` int64; with levels, a dict of theirs and the joint's.

        The joint's has a row for each combination met.
        """
        return self._of_tables(lambda table: table)

    def plot(self, val: Any = None, ax: "Axes | None" = None) -> "tuple[Figure, Axes]":  # noqa: ANN401
        """A heatmap of the (joint) table, or of `val`, in the form that `compute` gives."""
        from spinlock.plots.token_plots import heatmap

        values = self.compute() if val is None else val
        return heatmap(values["joint"] if isinstance(values, dict) else values, ax=ax)

    def tables(self) -> Figures:
        """The table of each level and of the joint, of one level ``{"joint": table}``."""
        if self.num_levels is None:
            return {"joint": self.contingency}
        each = {f"level_{number}": table for number, table in enumerate(self.contingency)}
        return {**each, "joint": self.observed[:, self.num_levels :]}

    def _of_tables(self, function: Callable[[Tensor], Tensor]) -> Tensor | Figures:
        values = {name: function(table) for name, table in self.tables().items()}
        return values if self.num_levels is not None else values["joint"]

    def _observe(self, tokens: Tensor, classes: Tensor, columns: int) -> None:
        """Add samples, tokens ``[N, levels]`` and classes ``[N]``, to the observed combinations."""
        combinations, number = torch.unique(tokens, dim=0, return_inverse=True)
        cells = torch.bincount(number * columns + classes, minlength=len(combinations) * columns)
        rows = torch.cat([combinations, cells.view(-1, columns)], 1)
        held = _padded(self.observed, 0, rows.shape[1])
        self.observed = self._merged(torch.cat([held, rows]))

    def _merge_processes(self, gathered: Tensor) -> Tensor:
        return self._merged(gathered.flatten(0, 1))

    def _merged(self, rows: Tensor) -> Tensor:
        """Rows of equal combinations summed; rows without counts, the padding, are dropped."""
        levels = self.num_levels or 0
        rows = rows[rows[:, levels:].any(1)]
        combinations, number = torch.unique(rows[:, :levels], dim=0, return_inverse=True)
        counts = rows.new_zeros(len(combinations), rows.shape[1] - levels)
        return torch.cat([combinations, counts.index_add(0, number, rows[:, levels:])], 1)


def _extent(name: str, labels: Tensor, declared: int | None) -> int:
    """Number of rows or columns that these labels need."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} must be integers, got {labels.dtype}")
    lowest, highest = torch.stack(labels.aminmax()).tolist()
    if lowest < 0 or (declared is not None and highest >= declared):
        expected = f"in [0, {declared})" if declared is not None else "at least 0"
        raise ValueError(f"{name} must be {expected}, got values from {lowest} to {highest}")
    return declared if declared is not None else int(highest) + 1


def _padded(table: Tensor, rows: int, columns: int) -> Tensor:
    """The table with zeros at its end, at least as large."""
    more_rows, more_columns = max(rows - table.shape[-2], 0), max(columns - table.shape[-1], 0)
    return torch.nn.functional.pad(table, (0, more_columns, 0, more_rows))


def _gather_padded(table: Tensor, group: object | None = None) -> list[Tensor]:
    """The tables of all processes, at a common shape: each grew by the samples it met."""
    tables = gather_all_tensors(table, group)
    rows, columns = (max(t.shape[axis] for t in tables) for axis in (-2, -1))
    return [_padded(t, rows, columns) for t in tables]
