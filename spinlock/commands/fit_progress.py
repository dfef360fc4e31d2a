"""The progress bar of the trainer's commands."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


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
