"""Saves the configuration of a run without replacing a file."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from spinlock.runtime.output_files import unused_path


class ConfigWriter(SaveConfigCallback):
    """Saves the configuration of a run in its log folder without replacing a file.

    The file is ``config.yaml``, or ``config-v1.yaml`` and so on if the name is taken: without a
    logger, the log folder may contain the yaml file of the run itself.
    """

    path: Path | None = None
    """The file; None before `setup`."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the name of the file, and save the configuration."""
        # log_dir is a collective operation, so every process must access it.
        folder = trainer.log_dir
        if folder is not None and not self.already_saved:
            self.path = unused_path(Path(folder) / "config.yaml")
            self.config_filename = self.path.name
        super().setup(trainer, pl_module, stage)
