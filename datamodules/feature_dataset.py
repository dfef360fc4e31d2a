"""An in-memory dataset whose batches are dictionaries of tensors."""

from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]


class FeatureDataset(Dataset[Batch]):
    """Columns of equal length; a batch is one indexed read of each.

    Args:
        columns: Key -> tensor (N, ...).
    """

    def __init__(self, columns: Batch) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Batch:
        """One sample, without a batch dimension."""
        return {key: column[index] for key, column in self.columns.items()}

    def __getitems__(self, indices: list[int]) -> Batch:
        """A batch; `torch.utils.data.DataLoader` calls this in place of one `__getitem__` each."""
        return {key: column[indices] for key, column in self.columns.items()}
