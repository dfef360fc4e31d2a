"""Base class of callbacks that log scores and plots of validation and test epochs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from spinlock import contract
from spinlock.callbacks.plot_logging import log_folder, log_plots
from spinlock.callbacks.repeated_rows import without_repeated_rows
from spinlock.configuration.validation import require_at_least

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EvaluationCallback(Callback, ABC):
    """Observes validation and test epochs, and logs scores and plots of each whole epoch.

    A subclass gathers in `_start` and `_observe`, and returns scores in `_finish`, the same on all
    processes. Validation logs them under their keys, testing with ``test/`` in front. Sanity
    checking is observed but not logged, so that a missing entry is reported before training.
    Samples that a distributed sampler repeats to give all processes equally many count once.
    Batches of sets, as the view ``probes`` has them, are refused unless a subclass sets
    `accepts_sets`.

    Args:
        detailed: Whether to log the detailed scores too, default: False.
        every_n_epochs: Observe the validation of every n-th training epoch: the n-th, 2n-th and so
            on, default: 1. ``trainer.validate`` and ``trainer.test`` are always observed.
        plots_every_n_epochs: Draw plots at every n-th training epoch among those observed, and on
            ``trainer.validate`` and ``trainer.test``, default: 10; 0 draws none. A plot takes about
            0.2 s.

    Raises:
        ValueError: An argument is out of range.
    """

    accepts_sets: ClassVar[bool] = False
    """Whether a row of a batch may be a set of several samples."""
    in_progress_bar: ClassVar[frozenset[str]] = frozenset()
    """Keys of the scores of validation that the progress bar shows."""

    def __init__(
        self,
        *,
        detailed: bool = False,
        every_n_epochs: int = 1,
        plots_every_n_epochs: int = 10,
    ) -> None:
        require_at_least({"every_n_epochs": every_n_epochs}, 1)
        require_at_least({"plots_every_n_epochs": plots_every_n_epochs}, 0)
        self.detailed = detailed
        self.every_n_epochs = every_n_epochs
        self.plots_every_n_epochs = plots_every_n_epochs

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new epoch."""
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
        """Observe a batch.

        Raises:
            ContractError: A row of the batch is a set of several samples; in any epoch.
        """
        batch, outputs = without_repeated_rows(trainer, batch, outputs, batch_idx, dataloader_idx)
        names = type(pl_module).__name__, type(self).__name__
        step = contract.StepOutputs(batch, outputs, *names, loader=dataloader_idx)
        if not self.accepts_sets:
            step.require_single_samples()
        if self._is_due(trainer, self.every_n_epochs):
            self._observe(step)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log scores and plots."""
        if self._is_due(trainer, self.every_n_epochs) and not trainer.sanity_checking:
            self._report(trainer, pl_module, prefix="test/" if trainer.testing else "")

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    @abstractmethod
    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the epoch before."""

    @abstractmethod
    def _observe(self, step: contract.StepOutputs) -> None:
        """Take in a batch."""

    @abstractmethod
    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> Mapping[str, float]:
        """Return the scores of the epoch by key."""

    def _draw(self) -> Mapping[str, "Figure"]:
        """Return the plots of the epoch that `_finish` ended; called on rank zero only."""
        return {}

    def _names(self, trainer: Trainer, attribute: str) -> tuple[str, ...]:
        """Names from the data module, such as ``variant_names``."""
        return tuple(contract.data_attribute(trainer, attribute, reader=type(self).__name__))

    def _codebook_size(self, pl_module: LightningModule) -> int:
        reader = type(self).__name__
        return int(contract.model_attribute(pl_module, "codebook_size", reader=reader))

    def _report(self, trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
        for key, value in self._finish(trainer, pl_module).items():
            name, shown = f"{prefix}{key}", not prefix and key in self.in_progress_bar
            # Equal on all processes already; Lightning warns about epoch values without sync_dist.
            pl_module.log(name, value, prog_bar=shown, sync_dist=True)
        if self.plots_every_n_epochs and self._is_due(trainer, self.plots_every_n_epochs):
            folder = log_folder(trainer)
            if trainer.is_global_zero:
                log_plots(trainer, {f"{prefix}{k}": v for k, v in self._draw().items()}, folder)

    def _is_due(self, trainer: Trainer, every_n_epochs: int) -> bool:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return True
        return (trainer.current_epoch + 1) % every_n_epochs == 0
