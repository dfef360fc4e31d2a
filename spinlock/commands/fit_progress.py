"""The progress bar of the trainer's commands, for notebooks too."""

import sys

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class FitProgress(TQDMProgressBar):
    """A bar of one line that has room for scores: no version number, and short names.

    Example:
        >>> callbacks = [FitProgress()]  # an argument of a trainer
    """

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the scores that the bar shows, such as ``r2`` for ``val/r2``."""
        shown = super().get_metrics(trainer, pl_module)
        return {name.rpartition("/")[2]: value for name, value in shown.items() if name != "v_num"}

    def init_sanity_tqdm(self) -> Tqdm:
        """Return a bar for the check of the validation, which takes two batches: none."""
        return Tqdm(disable=True)

    def init_validation_tqdm(self) -> Tqdm:
        """Return the bar of a validation: none within a fit, unless in a terminal.

        Elsewhere it would stay as a line of its own for each epoch.
        """
        hidden = self.trainer.state.fn == "fit" and not sys.stdout.isatty()
        return Tqdm(disable=True) if hidden else super().init_validation_tqdm()
