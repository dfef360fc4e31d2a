"""What the callbacks of evaluation epochs share: when they watch, and when they log and draw."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from spinlock.callbacks.plot_logging import log_figures, log_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EvaluationCallback(Callback, ABC):
    """Watches validation and test epochs, and logs figures of each epoch as a whole.

    A subclass gathers in `_start` and `_observe`, and gives values in `_finish`, the same on all
    processes. Validation logs them under their keys, testing with ``test/`` in front; what sanity
    checking sees is watched, so that a missing entry is told before training, but not logged. Keys
    do not depend on the order of callbacks.

    Args:
        every_n_epochs: Watch the validation of every n-th training epoch: the n-th, 2n-th, ...
            ``trainer.validate`` and ``trainer.test`` are always watched.
        figures_every_n_epochs: Draw at every n-th training epoch, among those watched, and on
            ``trainer.validate`` and ``trainer.test``; 0 draws none. A figure takes about 0.2 s.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, *, every_n_epochs: int = 1, figures_every_n_epochs: int = 10) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be at least 1, got {every_n_epochs}")
        if figures_every_n_epochs < 0:
            raise ValueError(
                f"figures_every_n_epochs must be at least 0, got {figures_every_n_epochs}"
            )
        self.every_n_epochs = every_n_epochs
        self.figures_every_n_epochs = figures_every_n_epochs

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew."""
        if self._is_due(trainer, self.every_n_epochs):
            self._start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 (whatever the step returned)
        batch: Any,  # noqa: ANN401 (whatever the loader gave)
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Observe a batch."""
        if self._is_due(trainer, self.every_n_epochs):
            self._observe(trainer, pl_module, outputs, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and draw."""
        if self._is_due(trainer, self.every_n_epochs) and not trainer.sanity_checking:
            self._report(trainer, pl_module, prefix="")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew."""
        self._start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 (whatever the step returned)
        batch: Any,  # noqa: ANN401 (whatever the loader gave)
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Observe a batch."""
        self._observe(trainer, pl_module, outputs, batch, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and draw."""
        self._report(trainer, pl_module, prefix="test/")

    @abstractmethod
    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the epoch before."""

    @abstractmethod
    def _observe(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        dataloader_idx: int,
    ) -> None:
        """Take a batch in."""

    @abstractmethod
    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> Mapping[str, float]:
        """The values of the epoch, key -> value."""

    def _draw(self, trainer: Trainer) -> Mapping[str, "Figure"]:
        """The figures of the epoch that `_finish` ended; asked of rank zero only."""
        return {}

    def _report(self, trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
        values = {
            f"{prefix}{key}": value for key, value in self._finish(trainer, pl_module).items()
        }
        # Equal on all processes already; Lightning warns of epoch values without sync_dist.
        pl_module.log_dict(values, sync_dist=True)
        if self.figures_every_n_epochs and self._is_due(trainer, self.figures_every_n_epochs):
            folder = log_folder(trainer)
            if trainer.is_global_zero:
                figures = self._draw(trainer)
                log_figures(trainer, {f"{prefix}{k}": v for k, v in figures.items()}, folder)

    def _is_due(self, trainer: Trainer, every_n_epochs: int) -> bool:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return True
        return (trainer.current_epoch + 1) % every_n_epochs == 0
