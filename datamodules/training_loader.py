"""Loads training batches, and resumes in the middle of an epoch."""

import reprlib
from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset

from spinlock.datamodules.datasets import Batch
from spinlock.datamodules.loading import MAX_EPOCH
from spinlock.errors import DatasetError


class TrainingLoader(DataLoader[Batch]):
    """Loads epoch after epoch, starting from any batch of any epoch.

    `state_dict` describes the place of the next batch, and after `load_state_dict` the next pass
    over the loader begins there. Without a trainer, each further pass is the sampler's next epoch.

    With a trainer, each pass is the trainer's current epoch. The first pass of a resumed run
    continues where the checkpoint was saved. Lightning counts an epoch that ``max_steps`` cut short
    as a whole one and then continues in its middle, so the saved state, not the trainer, decides
    which epoch that is. Later passes, by the trainer or a callback, are whole epochs.

    Lightning creates loaders and iterators before it restores the progress of its loops. Therefore
    a pass begins when its first batch is requested, and its workers start then.

    Args:
        dataset: Dataset to load.
        trainer: Trainer of the run; default: none.
        options: Other arguments of `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        *,
        trainer: Trainer | None = None,
        **options: Any,  # noqa: ANN401 (arguments of DataLoader)
    ) -> None:
        super().__init__(dataset, **options)
        self.trainer = trainer
        # Epoch of the latest pass, and the number of its batches that have been returned.
        self._epoch, self._given = 0, 0
        # State that the next pass resumes from.
        self._loaded: tuple[int, int] | None = None
        # First pass of the trainer's run: the trainer's epoch and total number of batches, by how
        # many epochs its count is ahead, and the number of batches to skip.
        self._first: tuple[tuple[int, int], int, int] | None = None
        # Within a run, Lightning may replace the loader by a new one.
        replaced = None if trainer is None else trainer.train_dataloader
        if isinstance(replaced, TrainingLoader):
            self._loaded, self._first = replaced._loaded, replaced._first

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Return the batches of an epoch, or the remaining ones if it is resumed."""
        trainer = self._trainer
        if trainer is None:
            place, self._loaded = self._loaded, None
        else:
            place = self._place_in_run(trainer) if trainer.training else None
        self._epoch, self._given = place or (getattr(self.sampler, "epoch", 0), 0)
        if place is not None and hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(self._epoch)
        for batch in self._rest(self._given) if self._given else super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the ``epoch`` of the next batch, and the number of ``batches`` before it."""
        epoch, given, trainer = self._epoch, self._given, self._trainer
        if trainer is not None:
            saved = self._saved_state(trainer) if self._first is None else None
            if saved is not None:
                epoch, given = saved
            else:
                # A batch that was returned but not trained on will be returned again.
                epoch = _epoch_of(trainer) - (self._first[1] if self._first else 0)
                given = _batches_of(trainer).current.processed
        if given >= self._count:
            return {"epoch": epoch + 1, "batches": 0}
        return {"epoch": epoch, "batches": given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume at the place that a state describes.

        Raises:
            DatasetError: If it is not a state of a loader with this number of batches.
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
        self._first = None

    @property
    def _trainer(self) -> Trainer | None:
        """Trainer that uses this loader for training."""
        trainer = self.trainer
        return trainer if trainer is not None and trainer.train_dataloader is self else None

    @property
    def _count(self) -> int:
        """Number of batches in an epoch."""
        return len(self) if self._trainer is None else int(self._trainer.num_training_batches)

    def _saved_state(self, trainer: Trainer) -> tuple[int, int] | None:
        """Return the state in the checkpoint that the trainer resumes from, if there is one."""
        # Lightning does not load it if a model has asked for the loader before loops are restored.
        pending: Any = trainer.fit_loop._combined_loader_states_to_load
        if self._loaded is None and pending:
            self.load_state_dict(pending[0])
            trainer.fit_loop._combined_loader_states_to_load = []
        return self._loaded

    def _place_in_run(self, trainer: Trainer) -> tuple[int, int]:
        """Return the epoch of a pass of the trainer, and the number of its batches to skip."""
        epoch, batches = _epoch_of(trainer), _batches_of(trainer)
        start, done = (epoch, batches.total.processed), batches.current.processed
        if self._first is None:
            saved_epoch, skipped = self._saved_state(trainer) or (epoch, done)
            if done >= self._count and not skipped:
                # Lightning sometimes enters an epoch again that was saved at its end.
                saved_epoch, skipped = saved_epoch - 1, done
            self._first, self._loaded = (start, epoch - saved_epoch, skipped), None
        first, ahead, skipped = self._first
        return epoch - ahead, skipped if start == first else 0

    def _rest(self, first: int) -> Iterable[Batch]:
        """Return the batches of an epoch from ``first`` on, without loading those before it."""
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


def _epoch_of(trainer: Trainer) -> int:
    """Return the epoch that the trainer has begun last, by its own count."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return max(int(progress.started) - 1, 0)


def _batches_of(trainer: Trainer) -> Any:  # noqa: ANN401 (Lightning's progress)
    """Return the trainer's progress in batches."""
    return trainer.fit_loop.epoch_loop.batch_progress


def _in_range(value: object, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest
