"""Batches as sequences of samples, which `torch.utils.data` expects of a dataset."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

from torch import Tensor
from torch.utils.data import default_collate


class SampleBatch(Sequence[dict[str, Tensor]]):
    """Samples that were read as one batch.

    A dataset returns them from ``__getitems__``. `torch.utils.data.default_collate` sees a sequence
    of samples, and `collate_samples` takes the batch as it was read.

    Args:
        batch: Mapping of one or more entries to tensors [B, ...].

    Example:
        >>> import torch
        >>> samples = SampleBatch({"x": torch.tensor([0.0, 10.0]), "index": torch.arange(2)})
        >>> len(samples), samples[1]
        (2, {'x': tensor(10.), 'index': tensor(1)})
    """

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    @overload
    def __getitem__(self, place: int) -> dict[str, Tensor]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Tensor]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return one sample, without a batch dimension, or a list of samples."""
        return self._samples[place]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self._samples)

    @cached_property
    def _samples(self) -> list[dict[str, Tensor]]:
        # One split of each entry takes less time than indexing each sample.
        rows = zip(*(values.unbind(0) for values in self.batch.values()), strict=True)
        return [dict(zip(self.batch, row, strict=True)) for row in rows]


def collate_samples(samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return samples as one batch: what `default_collate` returns, in less time.

    The ``collate_fn`` of the data modules' own loaders. For other loaders of their datasets, it
    saves the time to divide a batch into samples and to put these together again.

    Args:
        samples: Samples of a dataset of this package, or any others.

    Example:
        >>> import torch
        >>> collate_samples([{"x": torch.tensor(0.0)}, {"x": torch.tensor(10.0)}])
        {'x': tensor([ 0., 10.])}
    """
    if isinstance(samples, SampleBatch):
        return samples.batch
    batch: dict[str, Tensor] = default_collate(list(samples))
    return batch
