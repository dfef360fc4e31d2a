"""Leaves out the samples that distributed samplers repeat to give all processes equally many."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DistributedSampler


def without_repeated_rows(
    trainer: Trainer,
    batch: Any,  # noqa: ANN401 (whatever the loader gave)
    outputs: Any,  # noqa: ANN401 (whatever the step returned)
    batch_idx: int,
    dataloader_idx: int,
) -> tuple[Any, Any]:
    """Return a batch and the outputs of its step without rows that another batch has too.

    They are the last rows of the last batch of a process, and may be all of it.

    Args:
        trainer: Trainer that validates or tests.
        batch: Batch from the data loader.
        outputs: Return value of the step.
        batch_idx: Number of the batch.
        dataloader_idx: Number of the data loader.
    """
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    loader = tree_leaves(loaders)[dataloader_idx]
    sampler, size = getattr(loader, "sampler", None), getattr(loader, "batch_size", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last or size is None:
        return batch, outputs
    count: int = len(sampler.dataset)  # type: ignore[arg-type]
    own = len(range(sampler.rank, count, sampler.num_replicas))
    kept = max(own - batch_idx * size, 0)
    if kept >= size or not isinstance(batch, Mapping):
        return batch, outputs
    rows = next((len(value) for value in batch.values() if _has_rows(value)), 0)
    return tuple(_cut(values, rows, kept) for values in (batch, outputs))


def _cut(values: Any, rows: int, kept: int) -> Any:  # noqa: ANN401 (whatever the step returned)
    if not isinstance(values, Mapping):
        return values
    return {
        key: value[:kept] if _has_rows(value) and len(value) == rows else value
        for key, value in values.items()
    }


def _has_rows(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0
