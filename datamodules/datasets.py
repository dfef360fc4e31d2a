"""Map-style datasets whose samples and batches are dictionaries of tensors."""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spinlock.datamodules.field_reader import FieldReader
from spinlock.datamodules.sample_batch import SampleBatch
from spinlock.storage import schema

Batch = dict[str, Tensor]
Realizations = Literal["mean", "one", "all"]

#: Entries of a batch that differ between the probes of one operator.
PROBE_KEYS = ("features", "initial_features", "variant", "family", "index")

#: Distance between a position in one epoch and the same position in the next one. No dataset is as
#: long, so that a position that is too large remains an error.
EPOCH_STRIDE = 2**31


@dataclass(eq=False)
class FeatureDataset(Dataset[Batch]):
    """Selected rows of columns in memory. A batch is one indexed read of each column.

    A map-style dataset as `torch.utils.data` describes it: indices are integers of any type, may be
    negative, and raise IndexError beyond the end. ``random_split``, ``Subset`` and a ``DataLoader``
    accept it; with ``collate_fn=collate_samples`` they load as fast as the data module.

    Args:
        columns: Mapping of batch entries to tensors (N, ...); datasets may share them.
        rows: (n,) int64 rows of the columns that this dataset consists of.

    Example:
        >>> import torch
        >>> columns = {"x": torch.tensor([0.0, 10.0, 20.0]), "index": torch.arange(3)}
        >>> dataset = FeatureDataset(columns, torch.tensor([2, 0]))
        >>> dataset[0]
        {'x': tensor(20.), 'index': tensor(2)}
        >>> [sample["index"].item() for sample in dataset]
        [2, 0]
        >>> dataset.batch([0, 1])["x"]
        tensor([20.,  0.])
    """

    columns: Batch
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        """Return one sample, without a batch dimension.

        Raises:
            IndexError: If there is no such sample.
            TypeError: If the index is not an integer.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Iterable[int]) -> SampleBatch:
        """Return several samples. `torch.utils.data.DataLoader` calls this once for each batch."""
        return SampleBatch(self.batch(indices))

    def batch(self, indices: Iterable[int]) -> Batch:
        """Return several samples as one batch, tensors (B, ...).

        Args:
            indices: B positions in the dataset, one or more.
        """
        return self._batch(torch.from_numpy(_places(_integers(indices), len(self))))

    def _batch(self, places: Tensor) -> Batch:
        """Return the samples at places (B,) int64, in 0..n - 1."""
        rows = self.rows[places]
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

    def _batch(self, places: Tensor) -> Batch:
        others = self.others._batch(places)
        return super()._batch(places) | {f"other_{key}": value for key, value in others.items()}


class ProbeDataset(FeatureDataset):
    """Operators. Entries that differ between probes are [B, P, ...], with P probes of an operator.

    Args:
        columns: Mapping of batch entries to tensors (N, ...); must contain `PROBE_KEYS`.
        probes: (n, P) int64 rows of the probes of each operator.
    """

    def __init__(self, columns: Batch, probes: Tensor) -> None:
        super().__init__(columns, probes[:, 0])
        self.probes = probes

    def _batch(self, places: Tensor) -> Batch:
        probes = self.probes[places]
        return super()._batch(places) | {key: self.columns[key][probes] for key in PROBE_KEYS}


@dataclass(eq=False)
class FieldDataset(FeatureDataset):
    """Columns in memory with ``input_fields`` and ``output_fields`` read from disk for each batch.

    Position ``epoch * EPOCH_STRIDE + p`` is position p in that epoch, and p alone is that of epoch
    0. With one random realization, each epoch selects another one.

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

    def batch(self, indices: Iterable[int]) -> Batch:
        """Return several samples with fields as one batch, tensors (B, ...)."""
        epoch, positions = _by_epoch(_integers(indices))
        places = torch.from_numpy(_places(positions, len(self)))
        batch, samples = self._batch(places), self.rows[places].numpy()
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
    interrupted epoch can be resumed. Position ``epoch * EPOCH_STRIDE + p`` is position p in that
    epoch. A loader with ``batch_size=1`` or ``None`` returns the batches as they are.

    Args:
        compute: Function of a number, from 0, that returns a batch.
        count: Number of batches in an epoch.
    """

    compute: Callable[[int], Batch]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        """Return a batch.

        Raises:
            IndexError: If an epoch has no such batch.
            TypeError: If the index is not an integer.
        """
        return self.__getitems__([index]).batch

    def __getitems__(self, indices: Iterable[int]) -> SampleBatch:
        """Return the samples of one or more batches."""
        epochs, positions = _by_epoch(_integers(indices))
        numbers = epochs * self.count + _places(positions, self.count)
        batches = [self.compute(number) for number in numbers.tolist()]
        return SampleBatch({key: torch.cat([each[key] for each in batches]) for key in batches[0]})


def _integers(indices: Iterable[int]) -> NDArray[np.int64]:
    """Return indices of any integer type as an array."""
    try:
        return np.fromiter(map(operator.index, indices), np.int64)
    except OverflowError as error:
        raise IndexError(f"index out of range: {error}") from error
    except TypeError as error:
        raise TypeError(
            f"the index of a sample must be an integer ({error}); use torch.utils.data.Subset for "
            "a part of a dataset"
        ) from error


def _by_epoch(indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the epoch of each index, and the position in it, which may be negative."""
    epoch = np.maximum(indices, 0) // EPOCH_STRIDE
    return epoch, indices - epoch * EPOCH_STRIDE


def _places(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return positions of which negative ones count from the end, in 0..count - 1."""
    outside = (positions < -count) | (positions >= count)
    if outside.any():
        raise IndexError(
            f"index {positions[outside][0]} is out of range for a dataset of length {count}"
        )
    return np.where(positions < 0, positions + count, positions)


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
