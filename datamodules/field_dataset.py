"""Fields from disk, beside columns in memory."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.datamodules.feature_dataset import Batch, FeatureDataset
from spinlock.datamodules.field_reader import FieldReader
from spinlock.datamodules.views import Realizations
from spinlock.storage import schema


class FieldDataset(FeatureDataset):
    """Some samples of a file, with ``input_fields`` and ``output_fields`` read for each batch.

    Position ``epoch * len(dataset) + p`` is position p in that epoch: with one realization at
    random, each epoch shows others.

    Args:
        columns: Key -> tensor (N, ...) in memory.
        rows: (n,) int64, the samples that this dataset has.
        reader: Reads the fields.
        num_realizations: Realizations M in the file.
        realizations: ``mean``, ``one`` or ``all``.
        seed: Of the choice of one realization.
    """

    def __init__(
        self,
        columns: Batch,
        rows: Tensor,
        reader: FieldReader,
        *,
        num_realizations: int,
        realizations: Realizations,
        seed: int,
    ) -> None:
        super().__init__(columns, rows)
        self.reader = reader
        self.num_realizations = num_realizations
        self.realizations = realizations
        self.seed = seed

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch; `FieldReader` says how it is read."""
        epoch, place = np.divmod(np.asarray(indices, dtype=np.int64), len(self))
        batch = super().__getitems__(place.tolist())
        samples = self.rows[torch.from_numpy(place)].numpy()
        batch["input_fields"] = torch.from_numpy(self.reader.read(schema.INPUTS, samples))
        batch["output_fields"] = torch.from_numpy(self._outputs(samples, epoch))
        return batch

    def _outputs(self, samples: NDArray[np.int64], epoch: NDArray[np.int64]) -> NDArray[np.float32]:
        if self.realizations == "all":
            return self.reader.read(schema.OUTPUTS, samples)
        if self.realizations == "mean":
            return self.reader.read_mean(schema.OUTPUTS, samples)
        which = choose_realizations(samples, epoch, self.num_realizations, self.seed)
        return self.reader.read_one(schema.OUTPUTS, samples, which)


def choose_realizations(
    samples: NDArray[np.int64], epoch: NDArray[np.int64], num_realizations: int, seed: int
) -> NDArray[np.int64]:
    """A realization at random: a pure function of seed, epoch and sample.

    Args:
        samples: (n,) samples.
        epoch: (n,) epochs.
        num_realizations: How many there are.
        seed: Another seed gives another choice.

    Returns:
        (n,) in 0..num_realizations - 1.
    """
    hashed = [
        np.random.SeedSequence([seed, e, sample]).generate_state(1, np.uint64)[0]
        for e, sample in zip(epoch.tolist(), samples.tolist(), strict=True)
    ]
    return (np.array(hashed, dtype=np.uint64) % np.uint64(num_realizations)).astype(np.int64)
