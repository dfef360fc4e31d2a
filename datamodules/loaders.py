"""Data loaders whose batches come whole from the dataset, in this process or in workers."""

from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from spinlock.datamodules.arguments import StartMethod
from spinlock.datamodules.feature_dataset import Batch, FeatureDataset
from spinlock.datamodules.sampling import EpochSampler
from spinlock.datamodules.training_loader import TrainingLoader


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are loaded; arguments of `torch.utils.data.DataLoader`.

    Args:
        num_workers: Worker processes.
        pin_memory: Whether batches are copied to page-locked memory.
        prefetch_factor: Batches that each worker prepares ahead; None: torch's default.
        persistent_workers: Whether workers outlive an epoch.
        multiprocessing_context: How workers start; None: the system's default.
    """

    num_workers: int
    pin_memory: bool
    prefetch_factor: int | None
    persistent_workers: bool
    multiprocessing_context: StartMethod | None

    def loader(self, dataset: FeatureDataset, batch_size: int) -> DataLoader[Batch]:
        """A loader of a dataset in its order.

        Args:
            dataset: What to load.
            batch_size: Samples in a batch.
        """
        return DataLoader(dataset, batch_size=batch_size, **self._options)

    def training_loader(
        self,
        dataset: FeatureDataset,
        batch_size: int,
        sampler: EpochSampler,
        trainer: Trainer | None,
    ) -> TrainingLoader:
        """A loader that goes through a dataset in another order each epoch, and can be resumed.

        Args:
            dataset: What to load.
            batch_size: Samples in a batch.
            sampler: The order of its positions.
            trainer: The trainer of the run; None outside of a run.
        """
        return TrainingLoader(
            dataset, batch_size=batch_size, sampler=sampler, trainer=trainer, **self._options
        )

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory,
            "prefetch_factor": self.prefetch_factor,
            "persistent_workers": self.persistent_workers and self.num_workers > 0,
            "multiprocessing_context": self.multiprocessing_context,
            "collate_fn": _as_it_is,
        }


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 (torch types it as a list of samples)
    """`FeatureDataset.__getitems__` returns whole batches: there is nothing left to collate."""
    return batch
