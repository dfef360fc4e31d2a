"""Compares tokens of held-in and held-out initial conditions."""

from lightning.pytorch import LightningModule, Trainer

from spinlock import contract, metrics
from spinlock.callbacks.epoch_tables import EpochSamples, TokenTable
from spinlock.callbacks.evaluation_callback import EvaluationCallback
from spinlock.configuration.validation import require_at_least
from spinlock.errors import ConfigurationError

PARTS = ("held_in", "held_out")
"""Variants of the two loaders, in order."""


class TokenTransfer(EvaluationCallback):
    """Compares the tokens of two validation loaders: held-in variants, then held-out variants.

    - ``transfer/js_divergence``: Jensen-Shannon divergence between the two distributions of tokens
      (of the joint token, if there are levels), with equal weights, in nats: 0 for equal
      distributions, ln 2 = 0.693 for disjoint ones;
    - ``transfer/js_divergence_null_95``: its 95% quantile if samples are assigned to the loaders at
      random, since finite samples diverge by chance;
    - ``transfer/js_divergence_p_value``: its p-value in that permutation test;
    - ``transfer/held_in_error``, ``transfer/held_out_error``: reconstruction error, the mean of
      squared differences over samples and columns, in the scale of the features.

    Testing with two loaders logs the same with ``test/`` in front, and nothing with another number
    of loaders. Draws no plots. Needs ``tokens`` and ``reconstruction`` in the step's output,
    ``features`` in the batch, and the model's ``codebook_size``.

    Args:
        permutations: Number of permutations of the test, default: 100.
        seed: Seed of the permutations, default: 0.
        every_n_epochs: Interval of observed epochs; see :class:`EvaluationCallback`.

    Raises:
        ConfigurationError: The number of validation loaders is not two; already during sanity
            checking.
        ContractError: An output, a batch or the model lacks what is needed; likewise.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from spinlock.callbacks import TokenTransfer
        >>> trainer = Trainer(callbacks=[TokenTransfer(permutations=200)], logger=False)
    """

    def __init__(self, *, permutations: int = 100, seed: int = 0, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs=every_n_epochs, plots_every_n_epochs=0)
        require_at_least({"permutations": permutations}, 1)
        self.permutations = permutations
        self.seed = seed

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.testing:
            batches = trainer.num_test_batches
        elif trainer.sanity_checking:
            batches = trainer.num_sanity_val_batches
        else:
            batches = trainer.num_val_batches
        self._table = TokenTable(self._codebook_size(pl_module), {"part": len(PARTS)})
        self._samples = EpochSamples()
        self._has_parts = len(batches) == len(PARTS)
        if not (self._has_parts or trainer.testing):
            raise ConfigurationError(
                "TokenTransfer needs two validation loaders, of held-in and of held-out variants; "
                f"there are {len(batches)}. Have val_dataloader return a list of two."
            )

    def _observe(self, step: contract.StepOutputs) -> None:
        if self._has_parts:
            tokens, errors = step.tokens, step.errors
            part = tokens.new_full((len(tokens),), step.loader)
            self._table.add(tokens, part)
            self._samples.add({"error": errors, "part": part})

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        table = self._table.tables().get("joint")
        if table is None or not table.sum(0).all():
            return {}
        score = metrics.jensen_shannon_divergence
        divergence = score(table)
        null = metrics.permutation_null(
            score, table, permutations=self.permutations, seed=self.seed
        )
        samples = self._samples.gather()
        errors = [samples["error"][samples["part"] == n].double().mean() for n in range(len(PARTS))]
        return {
            "transfer/js_divergence": divergence.item(),
            "transfer/js_divergence_null_95": null.quantile(0.95).item(),
            "transfer/js_divergence_p_value": metrics.permutation_p_value(divergence, null).item(),
            **{f"transfer/{part}_error": e.item() for part, e in zip(PARTS, errors, strict=True)},
        }
