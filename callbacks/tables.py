"""Counts and samples of an evaluation epoch, gathered cheaply and over all processes."""

from collections.abc import Mapping
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
    """A table of tokens against classes that counts many batches at once.

    Batches wait until there are 65,536 samples: while it waits, a batch costs an append, no kernel
    and no transfer. Memory does not grow beyond that.

    Args:
        pl_module: The model; its ``codebook_size``, where it has one, is the number of codes.
        num_classes: Number of classes; None: the largest met.
    """

    def __init__(self, pl_module: LightningModule, num_classes: int | None) -> None:
        self.num_codes: int | None = getattr(pl_module, "codebook_size", None)
        self.num_classes = num_classes
        self.device = pl_module.device
        self._metric: metrics.TokenContingency | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._num_waiting = 0

    def add(self, tokens: Tensor, classes: Tensor) -> None:
        """Count samples later.

        Args:
            tokens: ``[B, Q]``.
            classes: ``[B]``, or ``[B, L]``: L labels of one numbering, counted in one table.
        """
        if len(tokens) != len(classes):
            sizes = f"{len(tokens)} samples, the batch {len(classes)}"
            raise ValueError(f"the output has tokens of {sizes}")
        self._waiting.append((tokens, classes))
        self._num_waiting += len(tokens)
        if self._num_waiting >= _WAITING:
            self._count()

    def tables(self) -> dict[str, Tensor]:
        """The tables of all processes, ``[codes, classes]`` on the CPU.

        ``joint``, and with Q > 1 levels ``level_0`` and so on; none where no sample was added.
        """
        self._count()
        if self._metric is None:
            return {}
        table = self._metric.compute()
        tables = table if isinstance(table, dict) else {"joint": table}
        # torchmetrics makes a scalar of a table of one code and one class.
        return {
            name: counts.cpu() if counts.ndim else counts.cpu().view(1, 1)
            for name, counts in tables.items()
        }

    def _count(self) -> None:
        if not self._waiting:
            return
        tokens, classes = (torch.cat(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._num_waiting = [], 0
        levels = tokens.shape[1]
        if self._metric is None:
            self._metric = metrics.TokenContingency(
                self.num_codes,
                num_classes=self.num_classes,
                num_levels=levels if levels > 1 else None,
            ).to(self.device)
        if classes.ndim == 2:
            tokens = tokens[:, None].expand(*classes.shape, levels)
        self._metric.update(tokens if levels > 1 else tokens[..., 0], classes)


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
