"""Counts and samples of an evaluation epoch, gathered cheaply and over all processes."""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from spinlock import metrics

T = TypeVar("T")

# Samples that wait to be counted together.
_WAITING = 1 << 16


class TokenTable:
    """A table of tokens against combinations of labels that counts many batches at once.

    Batches wait until there are 65,536 samples: while it waits, a batch costs an append, no kernel
    and no transfer. Memory does not grow beyond that.

    Args:
        pl_module: The model; its ``codebook_size``, where it has one, is the number of codes.
        size: Number of classes of the first label; None: up to the largest met.
        others: Numbers of classes of further labels.
        classify: Gives the first label ``[N]`` or ``[N, L]`` of what is added in its place, for
            many batches at once; None: labels are added as they are.
    """

    def __init__(
        self,
        pl_module: LightningModule,
        size: int | None,
        *others: int,
        classify: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.num_codes: int | None = getattr(pl_module, "codebook_size", None)
        self.size = size
        self.others = others
        self.classify = classify
        self.device = pl_module.device
        self._metric: metrics.TokenContingency | None = None
        self._waiting: list[tuple[Tensor, ...]] = []
        self._num_waiting = 0

    def add(self, tokens: Tensor, *labels: Tensor) -> None:
        """Count samples later.

        Args:
            tokens: ``[B, Q]``.
            labels: ``[B]`` each, one for each size; a single one may be ``[B, L]``: L labels
                of one numbering, counted in one table.
        """
        for label in labels:
            if len(tokens) != len(label):
                sizes = f"{len(tokens)} samples, the batch {len(label)}"
                raise ValueError(f"the output has tokens of {sizes}")
        self._waiting.append((tokens, *labels))
        self._num_waiting += len(tokens)
        if self._num_waiting >= _WAITING:
            self._count()

    def tables(self) -> dict[str, Tensor]:
        """The tables of all processes, ``[codes, size, *others]`` on the CPU.

        ``joint``, and with Q > 1 levels ``level_0`` and so on; none where no sample was added.

        Raises:
            ValueError: A token or a label is outside its range.
        """
        self._count()
        if self._metric is None:
            return {}
        table = self._metric.compute()
        tables = table if isinstance(table, dict) else {"joint": table}
        return {name: self._shaped(counts.cpu()) for name, counts in tables.items()}

    def _shaped(self, table: Tensor) -> Tensor:
        """``[codes, size, *others]`` of the metric's table ``[codes, classes]``."""
        # torchmetrics makes a scalar of a table of one code and one class.
        table = table if table.ndim else table.view(1, 1)
        # Without a size it grew to the last combination that occurs.
        missing = -table.shape[1] % math.prod(self.others)
        return torch.nn.functional.pad(table, (0, missing)).view(len(table), -1, *self.others)

    def _count(self) -> None:
        if not self._waiting:
            return
        tokens, *labels = (torch.cat(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._num_waiting = [], 0
        levels = tokens.shape[1]
        if self._metric is None:
            self._metric = metrics.TokenContingency(
                self.num_codes,
                num_classes=None if self.size is None else self.size * math.prod(self.others),
                num_levels=levels if levels > 1 else None,
            ).to(self.device)
        classes = self._classes(labels)
        if classes.ndim == 2:
            tokens = tokens[:, None].expand(*classes.shape, levels)
        self._metric.update(tokens if levels > 1 else tokens[..., 0], classes)

    def _classes(self, labels: list[Tensor]) -> Tensor:
        """The combinations' numbers; the last label counts fastest."""
        classes, *others = labels
        if self.classify is not None:
            classes = self.classify(classes)
        for label, size in zip(others, self.others, strict=True):
            # Of the first the metric would tell; a later one would count as another's class.
            lowest, highest = torch.stack(label.aminmax()).tolist()
            if lowest < 0 or highest >= size:
                raise ValueError(f"labels must be in [0, {size}), got {lowest} to {highest}")
            classes = classes * size + label
        return classes


def gather_objects(mine: T) -> list[T]:
    """What each process has, in the order of ranks; every process must call."""
    if not _distributed():
        return [mine]
    everyone: list[T] = [mine] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


class EpochSamples:
    """Values of each sample of an epoch, gathered from all processes at its end.

    Memory grows with the samples: keep a few numbers of each.
    """

    def __init__(self) -> None:
        self._parts: list[Mapping[str, Tensor]] = []

    def add(self, columns: Mapping[str, Tensor]) -> None:
        """Add the samples of a batch, ``[B, ...]`` each; the same keys every time."""
        self._parts.append(columns)

    def gather(self) -> dict[str, Tensor]:
        """The columns of all samples of all processes; none where there are no samples.

        Every process has to call, and to have at least one batch if another has.
        """
        if not self._parts:
            return {}
        columns = {key: torch.cat([part[key] for part in self._parts]) for key in self._parts[0]}
        self._parts = []
        if not _distributed():
            return columns
        # In a fixed order: processes meet at each column.
        return {key: torch.cat(gather_all_tensors(columns[key])) for key in sorted(columns)}


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
