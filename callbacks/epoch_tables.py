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
        sizes: Of each label its number of classes, by name; None: up to the largest met, which only
            a single label, or the first one, may be.
        classify: Gives the first label ``[N]`` or ``[N, L]`` of what is added in its place, for
            many batches at once; None: labels are added as they are.
    """

    def __init__(
        self,
        pl_module: LightningModule,
        sizes: Mapping[str, int | None],
        *,
        classify: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.num_codes: int | None = getattr(pl_module, "codebook_size", None)
        self.sizes = dict(sizes)
        self.classify = classify
        self.device = pl_module.device
        self._metric: metrics.TokenContingency | None = None
        self._waiting: list[tuple[Tensor, ...]] = []
        self._num_waiting = 0

    def add(self, tokens: Tensor, *labels: Tensor) -> None:
        """Count samples later.

        Args:
            tokens: ``[B, Q]``.
            labels: ``[B]`` each, one for each of `sizes`; a single one may be ``[B, L]``: L labels
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
        """The tables of all processes, ``[codes, *sizes]`` on the CPU.

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

    @property
    def _others(self) -> list[int]:
        """Numbers of classes of all labels but the first."""
        return [size for size in list(self.sizes.values())[1:] if size is not None]

    def _shaped(self, table: Tensor) -> Tensor:
        """``[codes, *sizes]`` of the metric's table ``[codes, classes]``."""
        # torchmetrics makes a scalar of a table of one code and one class.
        table = table if table.ndim else table.view(1, 1)
        inner = math.prod(self._others)
        # Without a size it grew to the last combination that occurs.
        outer = -(-table.shape[1] // inner)
        padded = torch.nn.functional.pad(table, (0, outer * inner - table.shape[1]))
        return padded.view(len(table), outer, *self._others)

    def _count(self) -> None:
        if not self._waiting:
            return
        tokens, *labels = (torch.cat(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._num_waiting = [], 0
        levels = tokens.shape[1]
        if self._metric is None:
            first = next(iter(self.sizes.values()))
            self._metric = metrics.TokenContingency(
                self.num_codes,
                num_classes=None if first is None else first * math.prod(self._others),
                num_levels=levels if levels > 1 else None,
            ).to(self.device)
        classes = self._classes(labels)
        if classes.ndim == 2:
            tokens = tokens[:, None].expand(*classes.shape, levels)
        self._metric.update(tokens if levels > 1 else tokens[..., 0], classes)

    def _classes(self, labels: list[Tensor]) -> Tensor:
        """The combinations' numbers; the last label counts fastest."""
        if self.classify is not None:
            labels[0] = self.classify(labels[0])
        if len(labels) == 1:
            return labels[0]
        classes = torch.zeros(len(labels[0]), dtype=torch.int64, device=labels[0].device)
        for label, (name, size) in zip(labels, self.sizes.items(), strict=True):
            _check_label(name, label, size)
            classes = classes * (1 if size is None else size) + label
        return classes


def _check_label(name: str, label: Tensor, size: int | None) -> None:
    """Refuse what the metric cannot: in a combination it would count as another class."""
    if label.ndim != 1 or label.is_floating_point() or label.dtype == torch.bool:
        raise ValueError(f"{name} must be integers [B], got {list(label.shape)} {label.dtype}")
    if not len(label):
        return
    lowest, highest = torch.stack(label.aminmax()).tolist()
    if lowest < 0 or (size is not None and highest >= size):
        expected = "at least 0" if size is None else f"in [0, {size})"
        raise ValueError(
            f"{name} must be {expected}, got values from {lowest} to {highest}; the data module's "
            "names of it tell how many there are"
        )


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
