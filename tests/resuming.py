"""Runs that save a checkpoint at every step, and runs in two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from lightning.pytorch import Callback

ROOT = Path(__file__).parent.parent


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


def in_two_processes(script, dataset, folder):
    """Run a script that distributes training.

    Args:
        script: Python code, which receives the path, the configuration and the folder as arguments,
            and writes JSON to the file ``result<rank>`` in the folder.
        dataset: Path and configuration of a dataset.
        folder: Folder to write to.

    Returns:
        What each rank has written.
    """
    path, config = dataset
    (folder / "run.py").write_text(script)
    command = [sys.executable, str(folder / "run.py"), str(path), config.to_json(), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, timeout=250)
    return [json.loads((folder / f"result{rank}").read_text()) for rank in range(2)]
