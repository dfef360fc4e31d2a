"""Tables and samples of an evaluation epoch, gathered from all processes."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from spinlock.metrics.joint_labels import first_rows
from spinlock.metrics.token_contingency import TokenContingency, check_range
from spinlock.runtime.processes import is_distributed

# Number of samples that are counted together.
_WAITING = 1 << 16


class TokenTable:
    """Counts samples by token and by the combination of several labels.

    Batches wait until there are 65,536 samples and are then counted together. A waiting batch costs
    no kernel and no transfer, and memory does not grow beyond that.

    Args:
        num_codes: Number of codes of each level.
        sizes: Number of classes of each label, by name.
    """

    def __init__(self, num_codes: int, sizes: Mapping[str, int]) -> None:
        self.num_codes = num_codes
        self.sizes = dict(sizes)
        self._metric: TokenContingency | None = None
        self._waiting: list[tuple[Tensor, ...]] = []
        self._num_waiting = 0

    def add(self, tokens: Tensor, *labels: Tensor) -> None:
        """Add samples.

        Args:
            tokens: Tokens ``[B, Q]``.
            labels: Labels ``[B]``, one for each of `sizes`.

        Raises:
            ValueError: The numbers of samples differ. Tokens and labels out of range are reported
                when they are counted.
        """
        sizes = {len(label) for label in labels}
        if sizes != {len(tokens)}:
            raise ValueError(f"there are {len(tokens)} tokens, but {sizes} labels in the batch")
        self._waiting.append((tokens, *labels))
        self._num_waiting += len(tokens)
        if self._num_waiting >= _WAITING:
            self._count()

    def tables(self) -> dict[str, Tensor]:
        """Return the tables of all processes, ``[codes, *sizes]`` on the CPU.

        Returns:
            ``joint``, and with Q > 1 levels ``level_0`` and so on; empty if no sample was added.

        Raises:
            ValueError: A token or a label is out of range.
        """
        self._count()
        if self._metric is None:
            return {}
        # torchmetrics makes a scalar of a table of one code and one class.
        shape = (-1, *self.sizes.values())
        return {name: table.cpu().reshape(shape) for name, table in self._metric.compute().items()}

    def _count(self) -> None:
        if not self._waiting:
            return
        tokens, *labels = (torch.cat(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._num_waiting = [], 0
        classes = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
        for label, (name, size) in zip(labels, self.sizes.items(), strict=True):
            if label.ndim != 1:
                raise ValueError(f"{name} must be integers [B], got {list(label.shape)}")
            # A label out of range would count as another combination.
            check_range(name, label, size)
            classes = classes * size + label
        if self._metric is None:
            num_classes = int(torch.tensor(list(self.sizes.values()), device="cpu").prod())
            metric = TokenContingency(self.num_codes, num_classes, num_levels=tokens.shape[1])
            self._metric = metric.to(tokens.device)
        self._metric.update(tokens, classes)


class EpochSamples:
    """Values of each sample of an epoch, gathered from all processes at its end.

    Memory grows with the number of samples, so keep only a few numbers for each.
    """

    def __init__(self) -> None:
        self._parts: list[Mapping[str, Tensor]] = []

    def add(self, columns: Mapping[str, Tensor]) -> None:
        """Add the samples of a batch, ``[B, ...]`` each, with the same keys every time."""
        self._parts.append(columns)

    def gather(self) -> dict[str, Tensor]:
        """Return the columns of all samples of all processes; empty without samples.

        All processes must call, and must have a batch if any process has one.
        """
        if not self._parts:
            return {}
        columns = {key: torch.cat([part[key] for part in self._parts]) for key in self._parts[0]}
        self._parts = []
        if not is_distributed():
            return columns
        # Sorted, because all processes must gather the same column at the same time.
        return {key: torch.cat(gather_all_tensors(columns[key])) for key in sorted(columns)}


def by_index(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return samples in the order of their index, on the CPU, each once.

    Distributed samplers repeat samples to give all processes the same number, and the order of
    gathered samples depends on batches and processes.

    Args:
        columns: ``index`` ``[N]`` int64, and other columns ``[N, ...]``.

    Example:
        >>> import torch
        >>> from spinlock.callbacks.epoch_tables import by_index
        >>> columns = {"index": torch.tensor([7, 3, 7]), "x": torch.tensor([0.7, 0.3, 0.7])}
        >>> by_index(columns)["x"]
        tensor([0.3000, 0.7000])
    """
    rows = first_rows(columns["index"].cpu())
    return {key: column.cpu()[rows] for key, column in columns.items()}
