"""The loader of training batches, which goes on in the middle of an epoch."""

import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from spinlock.datamodules.feature_dataset import Batch, FeatureDataset
from spinlock.datamodules.sampling import MAX_EPOCH
from spinlock.errors import DatasetError


class TrainingLoader(DataLoader[Batch]):
    """Loads epoch after epoch, from any batch of any epoch on.

    As the training loader of a trainer, each pass is the epoch that the trainer is in, and the
    first one leaves out the batches that were trained on before a checkpoint. Lightning makes
    loaders and iterators before it restores the progress of its loops, so a pass begins when its
    first batch is asked for; its workers start then too.

    Otherwise each pass is the sampler's next epoch, and `load_state_dict` makes the next pass begin
    where `state_dict` was taken.

    Args:
        dataset: What to load.
        trainer: The trainer of the run; None outside of a run.
        options: Further arguments of `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: FeatureDataset,
        *,
        trainer: Trainer | None = None,
        **options: Any,  # noqa: ANN401 (those of DataLoader)
    ) -> None:
        super().__init__(dataset, **options)
        self.trainer = trainer
        # The epoch of the latest pass, and how many of its batches have been given.
        self._epoch, self._given = 0, 0
        self._loaded: tuple[int, int] | None = None
        # Batches that the trainer had trained on before the first pass.
        self._trained_before: int | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """The batches of an epoch, or what is left of one."""
        place, self._loaded = self._place_of_trainer() or self._loaded, None
        self._epoch, self._given = place or (getattr(self.sampler, "epoch", 0), 0)
        if place is not None and hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(self._epoch)
        for batch in self._rest(self._given) if self._given else super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the next batch is: its ``epoch``, and how many ``batches`` of it come before."""
        given, trainer = self._given, self._trainer
        if trainer is not None:
            progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
            # A batch that was given, but not trained on, comes again.
            given = min(given, progress.processed)
        if given >= self._count:
            return {"epoch": self._epoch + 1, "batches": 0}
        return {"epoch": self._epoch, "batches": given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where a state was taken.

        Raises:
            DatasetError: If it is no state of a loader with so many batches.
        """
        state = state_dict if isinstance(state_dict, dict) else {}
        epoch, batches = state.get("epoch", -1), state.get("batches", -1)
        if not (_in_range(epoch, MAX_EPOCH) and _in_range(batches, len(self))):
            raise DatasetError(
                "the checkpoint's state of the training loader must have an epoch in "
                f"0..{MAX_EPOCH} and a number of batches in 0..{len(self)}, got "
                f"{reprlib.repr(state_dict)}"
            )
        self._epoch, self._given = self._loaded = epoch, batches
        self._trained_before = None

    @property
    def _trainer(self) -> Trainer | None:
        """The trainer whose training loader this is."""
        trainer = self.trainer
        if isinstance(trainer, Trainer) and trainer.train_dataloader is self:
            return trainer
        return None

    @property
    def _count(self) -> int:
        """Batches of an epoch."""
        return len(self) if self._trainer is None else int(self._trainer.num_training_batches)

    def _place_of_trainer(self) -> tuple[int, int] | None:
        """The trainer's epoch, and how many of its batches to leave out; None outside of a fit."""
        trainer = self._trainer
        if trainer is None or not trainer.training:
            return None
        epochs: Any = trainer.fit_loop.epoch_progress.current
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress
        done, total = batches.current.processed, batches.total.processed
        epoch = epochs.processed
        if trainer.max_steps != -1:
            # Lightning counts an epoch that max_steps cut short like a whole one, and yet goes on
            # in its middle.
            epoch = -(-(total - done) // self._count)
        if self._trained_before is None:
            self._trained_before = total
        # Later passes, of whoever goes through the loader in an epoch, are whole.
        return epoch, done if total == self._trained_before else 0

    def _rest(self, first: int) -> Iterable[Batch]:
        """The batches of an epoch from one on, without loading those before it."""
        batches = list(self.batch_sampler or ())[first : self._count]
        if not batches:
            return ()
        return DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch_factor,
            multiprocessing_context=self.multiprocessing_context,
            collate_fn=self.collate_fn,
            worker_init_fn=self.worker_init_fn,
        )


def _in_range(value: object, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest
