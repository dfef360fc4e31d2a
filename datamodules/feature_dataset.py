"""In-memory datasets whose batches are dictionaries of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]

#: Entries that differ between two probes of one operator.
PROBE_KEYS = ("features", "initial_features", "variant", "family", "index")


class FeatureDataset(Dataset[Batch]):
    """Some rows of columns of equal length; a batch is one indexed read of each column.

    Args:
        columns: Key -> tensor (N, ...); datasets may share them.
        rows: (n,) int64, the rows that this dataset has.
    """

    def __init__(self, columns: Batch, rows: Tensor) -> None:
        self.columns = columns
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        """One sample, without a batch dimension."""
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch; `torch.utils.data.DataLoader` calls this in place of one `__getitem__` each."""
        rows = self.rows[torch.tensor(indices, device="cpu")]
        return {key: column.index_select(0, rows) for key, column in self.columns.items()}


class PairDataset(FeatureDataset):
    """Two probes of one operator in each row; the second one's entries are called ``other_...``.

    Args:
        columns: Key -> tensor (N, ...), `PROBE_KEYS` among them.
        pairs: (n, 2) int64, rows of the two probes.
    """

    def __init__(self, columns: Batch, pairs: Tensor) -> None:
        super().__init__(columns, pairs[:, 0])
        self.others = FeatureDataset({key: columns[key] for key in PROBE_KEYS}, pairs[:, 1])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch of pairs."""
        others = self.others.__getitems__(indices)
        return super().__getitems__(indices) | {f"other_{k}": v for k, v in others.items()}


def pair_probes(rows: Tensor, operator: Tensor) -> Tensor:
    """Pair each sample with the next probe of its operator, and the last one with the first.

    Every sample is once the first of a pair and once the second. Samples without another probe of
    their operator among ``rows`` are left out.

    Args:
        rows: (n,) int64 samples, ascending.
        operator: (N,) int64 operator of each sample of the dataset, ascending.

    Returns:
        (m, 2) int64 pairs of samples, m <= n, in the order of the first ones.
    """
    _, size = torch.unique_consecutive(operator[rows], return_counts=True)
    first = torch.repeat_interleave(size.cumsum(0) - size, size)
    counts = torch.repeat_interleave(size, size)
    place = torch.arange(len(rows), device="cpu") - first
    partner = first + (place + 1) % counts
    return torch.stack([rows, rows[partner]], dim=1)[counts > 1]
