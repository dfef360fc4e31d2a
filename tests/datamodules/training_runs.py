"""Training runs whose batches are recorded."""

from pathlib import Path

import lightning
from lightning.pytorch import Callback

from spinlock import SpinlockDataModule
from tests.callbacks import quiet_trainer
from tests.datamodules.recorder import MeanModel, describe

EPOCHS, BATCHES = 3, 4
# Four batches an epoch, the last of them incomplete.
SIZES = {"single": 28, "probed": 20, "steps": 6}
RANDOM = {"view": "both", "realizations": "one"}
BY_STEPS = {"max_epochs": -1, "max_steps": 2 * BATCHES}
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def trainer(epochs=2, **options):
    return lightning.Trainer(max_epochs=epochs, **(QUIET | options))


class Recorder(Callback):
    """What the batches of a run hold, in order."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(describe(0, batch))


class EarlyModel(MeanModel):
    """Asks for the loader, and an iterator, before Lightning restores the loops."""

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


def data(datasets, name="single", **options):
    path, config = datasets[name]
    options = {"batch_size": SIZES[name], "sampling_seed": 1} | options
    return SpinlockDataModule(path, config, progress=False, **options)


def trainer_with(*callbacks, **settings):
    """A quiet trainer, and what records its batches."""
    recorder = Recorder()
    settings = {"max_epochs": EPOCHS, "num_sanity_val_steps": 0} | settings
    return quiet_trainer(Path(), recorder, *callbacks, **settings), recorder


def fit(datamodule, *callbacks, ckpt=None, model=None, **settings):
    """The batches of a run, and its trainer."""
    trainer, recorder = trainer_with(*callbacks, **settings)
    trainer.fit(model or MeanModel(), datamodule=datamodule, ckpt_path=ckpt)
    return recorder.batches, trainer


def descriptions(batches):
    return [describe(0, batch) for batch in batches]


def assert_resumes(files, whole, resume):
    """From each checkpoint, what is left of the whole run."""
    for file in files:
        batches, _ = resume(file)
        assert batches == whole[int(file.suffix[1:]) :], file.name
