"""Runs that save a checkpoint at every step."""

from lightning.pytorch import Callback


def trained_on(trainer):
    """The number of batches that the trainer's run has been trained on."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.processed


class Saver(Callback):
    """Writes ``<hook>.<number of batches trained on>`` at the end of batches, epochs, ..."""

    def __init__(self, folder):
        self.folder = folder

    def _save(self, trainer, hook):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{hook}.{trained_on(trainer)}")

    def on_train_start(self, trainer, pl_module):
        self._save(trainer, "start")

    def on_train_batch_end(self, trainer, *_):
        self._save(trainer, "batch")

    def on_validation_end(self, trainer, pl_module):
        self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer, pl_module):
        self._save(trainer, "epoch")
