"""Do tokens name operators, or only the initial condition that probed them?"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from spinlock import metrics
from spinlock.callbacks import contract

LABELS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"variant": ("ic_type", "ic_names"), "family": ("ic_family", "family_names")}
)
"""Of each label: its key in the batch, and the data module's property with its names."""


class ICMutualInformation(Callback):
    """Logs the mutual information of token and initial condition over each validation epoch.

    Samples are counted, not averaged over batches, so the figures are those of the whole epoch and
    of all processes, whatever the batch size. Several validation loaders are pooled. Sanity
    checking logs nothing. Logged at the end of each validation epoch:

    - ``ic/variant_mi``: mutual information of token and variant, plug-in, nats;
    - ``ic/variant_mi_corrected``: the same with Miller and Madow's bias correction, nats;
    - ``ic/variant_nmi``: normalized by the mean of the two entropies, 0 to 1;
    - ``ic/variant_ami``: adjusted for chance: 0 expected of independent tokens, 1 at most;
    - ``ic/family_mi``: the four of token and family;
    - ``ic/family_mi_corrected``;
    - ``ic/family_nmi``;
    - ``ic/family_ami``.

    At the end of a test epoch the same keys with ``test/`` in front. Read ``ami``: with many codes
    and few samples the others are far from 0 by chance alone. With a single token and a single
    class, ``nmi`` and ``ami`` are 1 by definition, as in scikit-learn.

    Needs of the :mod:`~spinlock.callbacks.contract`: ``tokens`` in the step's output, ``ic_type``
    and ``ic_family`` in the batch; uses the model's ``codebook_size`` where it has one.

    Raises:
        ContractError: An output or a batch lacks one of these; already while sanity checking.
        ValueError: A token or label is outside its range.
    """

    def __init__(self) -> None:
        self._tables: dict[str, metrics.TokenContingency] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start empty tables."""
        self._start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        self._count(pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        if not trainer.sanity_checking:
            self._log(pl_module, prefix="ic")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start empty tables."""
        self._start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        self._count(pl_module, outputs, batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        self._log(pl_module, prefix="test/ic")

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        num_codes: int | None = getattr(pl_module, "codebook_size", None)
        for label, (_, attribute) in LABELS.items():
            names = contract.known_names(trainer, attribute)
            table = metrics.TokenContingency(num_codes, num_classes=len(names) if names else None)
            self._tables[label] = table.to(pl_module.device)

    def _count(self, pl_module: LightningModule, outputs: object, batch: object) -> None:
        me, model = type(self).__name__, type(pl_module).__name__
        tokens = contract.from_outputs(outputs, "tokens", needed_by=me, given_by=model)
        for label, (key, _) in LABELS.items():
            classes = contract.from_batch(batch, key, needed_by=me)
            self._tables[label].update(tokens, classes)

    def _log(self, pl_module: LightningModule, prefix: str) -> None:
        values = {}
        for label, table in self._tables.items():
            for name, value in _figures(table.compute()).items():
                values[f"{prefix}/{label}_{name}"] = value.to(pl_module.device, torch.float32)
            table.reset()
        # Equal on all processes already; Lightning warns of epoch values without sync_dist.
        pl_module.log_dict(values, sync_dist=True)


def _figures(contingency: Tensor) -> dict[str, Tensor]:
    return {
        "mi": metrics.mutual_information(contingency),
        "mi_corrected": metrics.mutual_information(contingency, corrected=True),
        "nmi": metrics.normalized_mutual_information(contingency),
        "ami": metrics.adjusted_mutual_information(contingency),
    }
