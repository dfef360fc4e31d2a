"""No NaN or Inf passes silently: which column of which sample holds one."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor

from spinlock.callbacks import contract

Policy = Literal["raise", "warn"]


class FiniteCheck(Callback):
    """Checks batches, losses and model outputs for NaN and Inf.

    A training batch is checked before the model sees it and a loss before its gradient is taken:
    with ``"raise"``, a bad batch reaches no running statistics, and a bad loss no weights. What
    validation and test steps return is checked after the step, with its batch; so is what a
    training step returns beside the loss.

    The message counts NaN and Inf by entry and column (feature columns by name), and names the
    samples by ``batch["index"]`` and variant. Nothing is logged. While all is finite, a check costs
    one pass over the tensors and the transfer of one boolean. The decision is shared by all
    processes, so that all raise together.

    Args:
        policy: ``"raise"`` stops the run, ``"warn"`` warns (RuntimeWarning) and goes on.
        check_every_n_steps: Check every n-th batch of each epoch, the first included.

    Raises:
        ValueError: On another policy, or fewer than one step.
        FloatingPointError: By its hooks, under ``"raise"``.
    """

    def __init__(self, policy: Policy = "raise", *, check_every_n_steps: int = 1) -> None:
        if policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}; got {policy!r}")
        if check_every_n_steps < 1:
            raise ValueError(f"check_every_n_steps must be at least 1, got {check_every_n_steps}")
        self.policy = policy
        self.check_every_n_steps = check_every_n_steps
        # The training batch under check, None while none is.
        self._batch: object = None

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

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Check what the step returned beside the loss."""
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

    def on_test_batch_end(
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

    def _is_due(self, batch_idx: int) -> bool:
        return batch_idx % self.check_every_n_steps == 0

    def _check(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        suspects: dict[str, object],
    ) -> None:
        tensors = dict(_floating_tensors(suspects))
        finite = _all_finite(list(tensors.values()), pl_module.device)
        if not trainer.strategy.reduce_boolean_decision(not finite, all=False):
            return
        stage = RunningStage(trainer.state.stage).value
        where = f"{stage} (epoch {trainer.current_epoch}, step {trainer.global_step})"
        message = f"FiniteCheck: non-finite values in {where}"
        message += _report(tensors, batch, trainer) if not finite else " of another process"
        if self.policy == "raise":
            raise FloatingPointError(message)
        if not finite:
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def _floating_tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating tensors in nested containers, named as in code: ``batch['features']``."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _floating_tensors(item, f"{name}[{key!r}]" if name else str(key))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _floating_tensors(item, f"{name}[{position}]")


def _all_finite(tensors: list[Tensor], device: torch.device) -> bool:
    """One flag computed on the device, and one transfer to read it."""
    flags = [torch.isfinite(tensor).all().to(device) for tensor in tensors]
    return not flags or bool(torch.stack(flags).all())


def _report(tensors: dict[str, Tensor], batch: object, trainer: Trainer) -> str:
    """One line for each tensor that is not finite."""
    samples = _sample_names(batch, contract.known_names(trainer, "ic_names"))
    features = contract.known_names(trainer, "feature_names")
    lines = []
    for name, tensor in tensors.items():
        bad = ~torch.isfinite(tensor)
        if bad.any():
            is_feature = any(name.endswith(f"[{key!r}]") for key in contract.FEATURE_COLUMNS)
            parts = [_kinds(tensor), _columns(tensor, features if is_feature else None)]
            parts.append(_samples(bad, samples))
            lines.append(f"\n  {name}: " + "; ".join(part for part in parts if part))
    return ":" + "".join(lines)


def _kinds(tensor: Tensor) -> str:
    counts = {"NaN": int(tensor.isnan().sum()), "Inf": int(tensor.isinf().sum())}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _columns(tensor: Tensor, names: tuple[str, ...] | None) -> str:
    """The columns of a table ``[rows, columns]`` that are not finite, with counts."""
    if tensor.ndim != 2:
        return ""
    bad = (~torch.isfinite(tensor)).any(0).nonzero().flatten().tolist()
    named = (contract.numbered_name(names, column, "column") for column in bad)
    return "columns " + _listed(
        [f"{name} ({_kinds(tensor[:, column])})" for name, column in zip(named, bad, strict=True)]
    )


def _samples(bad: Tensor, samples: list[str]) -> str:
    """The samples whose rows are marked, or all of them where there is no row for each."""
    if bad.ndim == 0 or len(bad) != len(samples):
        return "in the batch of samples " + _listed(samples) if samples else ""
    rows = bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()
    return "samples " + _listed([samples[row] for row in rows])


def _sample_names(batch: object, variants: tuple[str, ...] | None) -> list[str]:
    """For each sample of the batch for example ``"17 (sinusoids)"``; none without indices."""
    entries = batch if isinstance(batch, Mapping) else {}
    indices, types = entries.get("index"), entries.get("ic_type")
    if not isinstance(indices, Tensor):
        return []
    if not isinstance(types, Tensor):
        return [str(index) for index in indices.tolist()]
    return [
        f"{index} ({contract.numbered_name(variants, variant, 'variant')})"
        for index, variant in zip(indices.tolist(), types.tolist(), strict=True)
    ]


def _listed(items: list[str], most: int = 10) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
