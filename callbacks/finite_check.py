"""Checks batches, losses, outputs and gradients for NaN and Inf."""

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor
from torch.optim import Optimizer

from spinlock.callbacks.finite_report import FiniteReport, floating_tensors, make_report
from spinlock.configuration.validation import require_at_least, require_choice
from spinlock.errors import NonFiniteError
from spinlock.runtime.processes import gather_objects

Policy = Literal["raise", "warn", "stop"]


class FiniteCheck(Callback):
    """Checks batches, losses and model outputs for NaN and Inf.

    A training batch is checked before the model sees it, and a loss before its gradient is
    computed. With ``"raise"``, a bad batch therefore reaches no running statistics, and a bad loss
    no weights. Other outputs of training steps, and batches and outputs of validation and test
    steps, are checked after the step. On request, gradients are checked before each step of the
    optimizer (under 16-bit mixed precision a gradient scaler already skips bad ones).

    The message counts NaN and Inf by entry and column, with names of feature columns, and lists the
    samples by ``batch["index"]`` and variant, so that each can be computed again. Names come from
    the data module; without them columns are numbered and variants left out. Nothing is logged.
    While all values are finite, a check costs one pass over the tensors and the transfer of one
    boolean. All processes share the decision and the message.

    Totals over the run are in ``column_counts`` (bad values by column, ``batch['features']:NAME``)
    and ``variant_counts`` (samples by variant), and are stored in checkpoints.

    Args:
        policy: Action on bad values: ``"raise"`` ends the run with an error, ``"warn"`` warns
            (RuntimeWarning) and continues, ``"stop"`` warns and ends training after the current
            batch, as early stopping does: checkpoints are written and ``fit`` returns.
        gradients: Whether to check gradients too, default: False.
        check_every_n_steps: Interval of checked batches in each epoch, starting with the first,
            default: 1.

    Raises:
        ValueError: An argument is out of range.
        NonFiniteError: Values are not finite and the policy is ``"raise"``.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from spinlock.callbacks import FiniteCheck
        >>> trainer = Trainer(callbacks=[FiniteCheck("stop", gradients=True)], logger=False)
    """

    def __init__(
        self, policy: Policy = "raise", *, gradients: bool = False, check_every_n_steps: int = 1
    ) -> None:
        require_choice("policy", policy, get_args(Policy))
        require_at_least({"check_every_n_steps": check_every_n_steps}, 1)
        self.policy = policy
        self.gradients = gradients
        self.check_every_n_steps = check_every_n_steps
        self.column_counts: Counter[str] = Counter()
        self.variant_counts: Counter[str] = Counter()
        # The training batch that is being checked.
        self._batch: object = None

    def state_dict(self) -> dict[str, Any]:
        """Return the totals."""
        return {"columns": dict(self.column_counts), "variants": dict(self.variant_counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the totals."""
        self.column_counts = Counter(state_dict["columns"])
        self.variant_counts = Counter(state_dict["variants"])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Check the batch."""
        self._batch = batch if self._is_due(batch_idx) else None
        if self._batch is not None:
            self._check(trainer, pl_module, batch, {"batch": batch})

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Check the loss."""
        if self._batch is not None:
            self._check(trainer, pl_module, self._batch, {"loss": loss})

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Check the gradients."""
        if self.gradients and self._batch is not None:
            gradients = {name: p.grad for name, p in pl_module.named_parameters()}
            self._check(trainer, pl_module, self._batch, {"gradient": gradients})

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Check the outputs other than the loss."""
        self._batch = None
        others = dict(outputs) if isinstance(outputs, Mapping) else {}
        others.pop("loss", None)
        if others and self._is_due(batch_idx):
            self._check(trainer, pl_module, batch, {"outputs": others})

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Check the batch and the outputs."""
        if self._is_due(batch_idx):
            self._check(trainer, pl_module, batch, {"batch": batch, "outputs": outputs})

    on_test_batch_end = on_validation_batch_end

    def _is_due(self, batch_idx: int) -> bool:
        return batch_idx % self.check_every_n_steps == 0

    def _check(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        suspects: dict[str, object],
    ) -> None:
        tensors = dict(floating_tensors(suspects))
        finite = _all_finite(list(tensors.values()), pl_module.device)
        if not trainer.strategy.reduce_boolean_decision(not finite, all=False):
            return
        # Rare, so every process reports in full.
        mine = FiniteReport() if finite else make_report(tensors, batch, trainer)
        reports = gather_objects(mine)
        for report in reports:
            self.column_counts.update(report.columns)
            self.variant_counts.update(report.variants)
        stage = RunningStage(trainer.state.stage).value
        where = f"{stage} (epoch {trainer.current_epoch}, step {trainer.global_step})"
        lines = "".join(report.text for report in reports)
        message = f"FiniteCheck: non-finite values in {where}:{lines}"
        if self.policy == "raise":
            raise NonFiniteError(message)
        if trainer.is_global_zero:
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        if self.policy == "stop":
            trainer.should_stop = True


def _all_finite(tensors: list[Tensor], device: torch.device) -> bool:
    """Compute one flag on the device, and read it in one transfer.

    A sum is NaN or Inf if a term is, and takes half the time of checking each term. Finite terms
    may overflow in it, so terms are checked if it is not finite.
    """
    flags = [torch.isfinite(tensor.detach().sum()).to(device) for tensor in tensors]
    if not flags or bool(torch.stack(flags).all()):
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
