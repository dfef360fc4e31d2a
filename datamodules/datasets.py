"""Map-style datasets whose batches are dictionaries of tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spinlock.datamodules.field_reader import FieldReader
from spinlock.storage import schema

Batch = dict[str, Tensor]
Realizations = Literal["mean", "one", "all"]

#: Entries of a batch that differ between the probes of one operator.
PROBE_KEYS = ("features", "initial_features", "variant", "family", "index")


@dataclass(eq=False)
class FeatureDataset(Dataset[Batch]):
    """Selected rows of columns in memory. A batch is one indexed read of each column.

    Args:
        columns: Mapping of batch entries to tensors (N, ...); datasets may share them.
        rows: (n,) int64 rows of the columns that this dataset consists of.

    Example:
        >>> import torch
        >>> columns = {"x": torch.tensor([0.0, 10.0, 20.0]), "index": torch.arange(3)}
        >>> dataset = FeatureDataset(columns, torch.tensor([2, 0]))
        >>> dataset[0]
        {'x': tensor(20.), 'index': tensor(2)}
        >>> dataset.__getitems__([0, 1])["x"]
        tensor([20.,  0.])
    """

    columns: Batch
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        """Return one sample, without a batch dimension."""
        return {key: values[0] for key, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch. `torch.utils.data.DataLoader` calls this once for each batch."""
        rows = self.rows[torch.tensor(indices, device="cpu")]
        return {key: column.index_select(0, rows) for key, column in self.columns.items()}


class PairDataset(FeatureDataset):
    """Pairs of probes of one operator. Entries of the second probe are named ``other_...``.

    Args:
        columns: Mapping of batch entries to tensors (N, ...); must contain `PROBE_KEYS`.
        pairs: (n, 2) int64 rows of the two probes.
    """

    def __init__(self, columns: Batch, pairs: Tensor) -> None:
        super().__init__(columns, pairs[:, 0])
        self.others = FeatureDataset({key: columns[key] for key in PROBE_KEYS}, pairs[:, 1])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch of pairs."""
        others = self.others.__getitems__(indices)
        return super().__getitems__(indices) | {f"other_{k}": v for k, v in others.items()}


class ProbeDataset(FeatureDataset):
    """Operators. Entries that differ between probes are [B, P, ...], with P probes of an operator.

    Args:
        columns: Mapping of batch entries to tensors (N, ...); must contain `PROBE_KEYS`.
        probes: (n, P) int64 rows of the probes of each operator.
    """

    def __init__(self, columns: Batch, probes: Tensor) -> None:
        super().__init__(columns, probes[:, 0])
        self.probes = probes

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch of operators."""
        probes = self.probes[torch.tensor(indices, device="cpu")]
        return super().__getitems__(indices) | {
            key: self.columns[key][probes] for key in PROBE_KEYS
        }


@dataclass(eq=False)
class FieldDataset(FeatureDataset):
    """Columns in memory with ``input_fields`` and ``output_fields`` read from disk for each batch.

    Position ``epoch * len(dataset) + p`` is position p in that epoch. With one random realization,
    each epoch selects another one.

    Args:
        columns: Mapping of batch entries to tensors (N, ...) in memory.
        rows: (n,) int64 samples that this dataset consists of.
        reader: Reader of the fields.
        num_realizations: Number M of realizations in the file.
        realizations: Realizations to return: their ``mean``, ``one`` at random, or ``all``.
        seed: Seed of the random choice of a realization.
    """

    reader: FieldReader
    num_realizations: int
    realizations: Realizations
    seed: int

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a batch with fields."""
        epoch, place = np.divmod(np.asarray(indices, dtype=np.int64), len(self))
        batch = super().__getitems__(place.tolist())
        samples = self.rows[torch.from_numpy(place)].numpy()
        batch["input_fields"] = torch.from_numpy(self.reader.read(schema.INPUTS, samples))
        batch["output_fields"] = torch.from_numpy(self._outputs(samples, epoch))
        return batch

    def _outputs(self, samples: NDArray[np.int64], epoch: NDArray[np.int64]) -> NDArray[np.float32]:
        if self.realizations != "one":
            return self.reader.read(schema.OUTPUTS, samples, self.realizations)
        which = choose_realizations(samples, epoch, self.num_realizations, self.seed)
        return self.reader.read(schema.OUTPUTS, samples, which)


@dataclass(eq=False)
class BatchDataset(Dataset[Batch]):
    """Computed batches as a map-style dataset, whose unit is a whole batch.

    Unlike an iterable dataset, it works with samplers: each epoch can have other batches, and an
    interrupted epoch can be resumed.

    Args:
        batch: Function of a number, from 0, that returns a batch.
        count: Number of batches in an epoch.
    """

    batch: Callable[[int], Batch]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        """Return the one batch that a loader with ``batch_size=1`` requests."""
        (number,) = numbers
        return self.batch(number)


def choose_realizations(
    samples: NDArray[np.int64], epoch: NDArray[np.int64], num_realizations: int, seed: int
) -> NDArray[np.int64]:
    """Choose a random realization of each sample, as a pure function of seed, epoch and sample.

    Args:
        samples: (n,) sample indices.
        epoch: (n,) epochs.
        num_realizations: Number of realizations to choose from.
        seed: Seed of the choice.

    Returns:
        (n,) int64 realizations in 0..num_realizations - 1.
    """
    hashed = [
        np.random.SeedSequence([seed, e, sample]).generate_state(1, np.uint64)[0]
        for e, sample in zip(epoch.tolist(), samples.tolist(), strict=True)
    ]
    return (np.array(hashed, dtype=np.uint64) % np.uint64(num_realizations)).astype(np.int64)


def pair_probes(rows: Tensor, operator: Tensor) -> Tensor:
    """Pair each sample with the next probe of its operator, and the last probe with the first.

    Every sample is the first of one pair and the second of another. Samples without another probe
    of their operator among ``rows`` are left out.

    Args:
        rows: (n,) int64 samples, ascending.
        operator: (N,) int64 operator of each sample of the dataset, ascending.

    Returns:
        (m, 2) int64 pairs of samples, m <= n, ordered by the first sample.

    Example:
        >>> import torch
        >>> operator = torch.tensor([0, 0, 1, 1, 2])
        >>> pair_probes(torch.arange(5), operator).tolist()
        [[0, 1], [1, 0], [2, 3], [3, 2]]
    """
    _, size = torch.unique_consecutive(operator[rows], return_counts=True)
    first = torch.repeat_interleave(size.cumsum(0) - size, size)
    counts = torch.repeat_interleave(size, size)
    place = torch.arange(len(rows), device=rows.device) - first
    partner = first + (place + 1) % counts
    return torch.stack([rows, rows[partner]], dim=1)[counts > 1]


def group_probes(rows: Tensor, operator: Tensor) -> Tensor:
    """Group samples by operator.

    Operators that have fewer samples among ``rows`` than others are left out.

    Args:
        rows: (n,) int64 samples, ascending.
        operator: (N,) int64 operator of each sample of the dataset, ascending.

    Returns:
        (m, P) int64 samples of m operators, where P is the largest number of samples of one.

    Example:
        >>> import torch
        >>> operator = torch.tensor([0, 0, 1, 1, 2])
        >>> group_probes(torch.arange(5), operator).tolist()
        [[0, 1], [2, 3]]
    """
    _, size = torch.unique_consecutive(operator[rows], return_counts=True)
    most = int(size.max()) if len(size) else 1
    return rows[torch.repeat_interleave(size, size) == most].view(-1, most)
