"""Do tokens keep their meaning under initial conditions that were held out of training?"""

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from spinlock import contract, metrics
from spinlock.callbacks.epoch_tables import EpochSamples, TokenTable
from spinlock.callbacks.evaluation_callback import EvaluationCallback
from spinlock.callbacks.reconstruction_by_group import sample_errors
from spinlock.errors import ConfigurationError

PARTS = ("held_in", "held_out")
"""What the two loaders serve, in order."""


class TokenTransfer(EvaluationCallback):
    """Compares the tokens of two validation loaders: held-in variants, then held-out variants.

    - ``transfer/js_divergence``: Jensen-Shannon divergence of the two token distributions (of the
      joint token, where there are levels), each weighted one half; nats, 0 for equal ones and
      ln 2 = 0.693 at most, for disjoint ones;
    - ``transfer/js_divergence_null_95``: its 95% quantile when samples are dealt to the loaders at
      random: finite samples diverge by chance;
    - ``transfer/js_divergence_p_value``: of the divergence, in that permutation test;
    - ``transfer/held_in_error``, ``transfer/held_out_error``: reconstruction error, the mean over
      samples and columns of squared differences, in the scale of the features.

    Testing with two loaders logs the same with ``test/`` in front; with another number, nothing.
    Draws no figures. Needs ``tokens`` and ``reconstruction`` in the step's output, ``features`` in
    the batch.

    Args:
        permutations: Permutations of the test.
        seed: Of the permutations.
        every_n_epochs: As in :class:`EvaluationCallback`.

    Raises:
        ConfigurationError: There are other than two validation loaders; already while sanity
            checking.
        ContractError: An output or a batch lacks what is needed; likewise.
        ValueError: An argument is out of range.
    """

    def __init__(self, *, permutations: int = 100, seed: int = 0, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs=every_n_epochs, figures_every_n_epochs=0)
        if permutations < 1:
            raise ValueError(f"permutations must be at least 1, got {permutations}")
        self.permutations = permutations
        self.seed = seed
        self._table: TokenTable | None = None
        self._samples = EpochSamples()

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        batches = trainer.num_test_batches if trainer.testing else _validation_batches(trainer)
        self._table, self._samples = None, EpochSamples()
        if len(batches) == len(PARTS):
            self._table = TokenTable(pl_module, {"part": len(PARTS)})
        elif not trainer.testing:
            raise ConfigurationError(
                "TokenTransfer needs two validation loaders, of held-in and of held-out variants; "
                f"there are {len(batches)}. Have val_dataloader return a list of two."
            )

    def _observe(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        dataloader_idx: int,
    ) -> None:
        if self._table is None:
            return
        me, model = type(self).__name__, type(pl_module).__name__
        tokens = contract.tokens_of(outputs, needed_by=me, given_by=model)
        errors = sample_errors(outputs, batch, needed_by=me, given_by=model)
        part = tokens.new_full((len(tokens),), dataloader_idx)
        self._table.add(tokens, part)
        self._samples.add({"error": errors, "part": part})

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        tables = {} if self._table is None else self._table.tables()
        if not tables or not tables["joint"].sum(0).all():
            return {}
        table = tables["joint"]
        divergence = metrics.jensen_shannon_divergence(table)
        permuted = metrics.permuted_tables(table, permutations=self.permutations, seed=self.seed)
        null = metrics.jensen_shannon_divergence(torch.from_numpy(np.stack(list(permuted))))
        samples = self._samples.gather()
        errors = [samples["error"][samples["part"] == n].double().mean() for n in range(len(PARTS))]
        return {
            "transfer/js_divergence": divergence.item(),
            "transfer/js_divergence_null_95": null.quantile(0.95).item(),
            "transfer/js_divergence_p_value": metrics.permutation_p_value(divergence, null).item(),
            **{f"transfer/{part}_error": e.item() for part, e in zip(PARTS, errors, strict=True)},
        }


def _validation_batches(trainer: Trainer) -> list[int | float]:
    sanity = trainer.sanity_checking
    return trainer.num_sanity_val_batches if sanity else trainer.num_val_batches
