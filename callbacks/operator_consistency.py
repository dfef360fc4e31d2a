"""Logs whether tokens name the operator under different initial conditions."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from spinlock import contract, metrics
from spinlock.callbacks.baselines import r_squared, ridge_r_squared
from spinlock.callbacks.epoch_tables import EpochSamples
from spinlock.callbacks.evaluation_callback import EvaluationCallback
from spinlock.callbacks.probe_pairs import pair_probes
from spinlock.configuration.validation import require_at_least
from spinlock.errors import ConfigurationError

_ENTRIES = ("initial_features", "variant", "operator", "index")
_OTHER_ENTRIES = ("other_features", "other_initial_features", "other_variant", "other_index")


class OperatorConsistency(EvaluationCallback):
    """Compares the tokens of one operator under two initial conditions, its probes A and B.

    Low mutual information with the initial condition does not imply that tokens name the operator:
    constant tokens have it too. Every sample of the validation epoch is probe A once. Its B is the
    next probe of the same operator (the ``other_...`` entries of the view ``pairs``; otherwise the
    next sample with the same ``operator`` in the epoch, over all processes).

    - ``consistency/token_ami``: adjusted mutual information of the two tokens, about 0 by chance.
      The design gives the two probes of an operator different families, so tokens that name the
      family have mutual information too: compare ``ic/family_ami`` of `ICMutualInformation`;
    - ``consistency/cross_probe_r2``: R2 of B's features decoded from A's token under B's initial
      condition;
    - ``consistency/shuffled_tokens_r2``: baseline with A's tokens shuffled among the pairs: what
      the decoder predicts from the initial condition and the distribution of tokens;
    - ``consistency/ic_only_r2``: baseline without tokens: R2 of B's features predicted by ridge
      regression on B's ``initial_features`` and variant, cross-validated over operators in five
      folds. It is linear, so a decoder may exceed it without any token.

    With ``detailed=True`` also:

    - ``consistency/token_agreement``: fraction of pairs with equal tokens (at all levels);
    - ``consistency/latent_correlation``: correlation of the two latents over pairs, averaged over
      the dimensions that vary, if the model returns ``latent``.

    R2 is 1 - residual / total sum of squares, both summed over samples and columns. The three are
    of the same pairs, at most `max_pairs`. If tokens name operators, ``cross_probe_r2`` is above
    both baselines. Testing logs the same with ``test/`` in front. Draws no plots. Several loaders
    are pooled.

    Needs ``tokens`` in the step's output; ``features`` (for a sequence, those of the last timestep
    are used), ``initial_features``, ``variant``, ``operator`` and ``index`` in the batch; the
    model's ``decode``; and a dataset with two or more probes per operator. If `limit_val_batches`
    leaves no operator with two probes, the callback warns and logs nothing.

    Args:
        max_samples: Number of samples that each process keeps, the first of the epoch, about 0.5 KB
            each, default: 16,384.
        max_pairs: Number of pairs that are decoded, drawn at random if there are more, default:
            4096.
        seed: Seed of that draw and of the shuffling, default: 0.
        detailed: Whether to log the detailed scores too, default: False.
        every_n_epochs: Interval of observed epochs; see :class:`EvaluationCallback`.

    Raises:
        ContractError: An output, a batch or the model lacks what is needed, already during sanity
            checking; or no operator of a whole epoch has two probes.
        ConfigurationError: The data module's configuration has one probe per operator.
        ValueError: An argument is out of range.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from spinlock.callbacks import OperatorConsistency
        >>> trainer = Trainer(callbacks=[OperatorConsistency(max_pairs=512)], logger=False)
    """

    def __init__(
        self,
        *,
        max_samples: int = 16_384,
        max_pairs: int = 4096,
        seed: int = 0,
        detailed: bool = False,
        every_n_epochs: int = 1,
    ) -> None:
        super().__init__(detailed=detailed, every_n_epochs=every_n_epochs, plots_every_n_epochs=0)
        require_at_least({"max_samples": max_samples, "max_pairs": max_pairs}, 2)
        self.max_samples = max_samples
        self.max_pairs = max_pairs
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the number of probes and the model's ``decode``.

        Raises:
            ConfigurationError: The data have one probe per operator.
            ContractError: The model has no ``decode``.
        """
        generation = contract.known_property(trainer, "generation")
        if getattr(generation, "probes_per_operator", 2) < 2:
            raise ConfigurationError(
                "OperatorConsistency needs each operator under two initial conditions, but the "
                "dataset has one. Set generation.probes_per_operator to 2 or more."
            )
        contract.model_attribute(pl_module, "decode", reader=type(self).__name__)

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._samples, self._kept = EpochSamples(), 0

    def _observe(self, step: contract.StepOutputs) -> None:
        if self._kept >= self.max_samples:
            return
        keys = _ENTRIES + (_OTHER_ENTRIES if step.has_entry("other_index") else ())
        columns = {key: step.entry(key) for key in keys}
        features = step.entry("features")
        columns["features"] = features[:, -1] if features.ndim == 3 else features
        columns["tokens"] = step.tokens
        if self.detailed and step.has_output("latent"):
            columns["latent"] = step.output("latent").detach().flatten(1)
        self._samples.add(columns)
        self._kept += len(features)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        columns = self._samples.gather()
        pairs = pair_probes(columns) if columns else None
        if pairs is None or not len(pairs.entries["tokens"]):
            self._report_no_pairs(trainer)
            return {}
        entries, generator = pairs.entries, np.random.default_rng(self.seed)
        if len(entries["tokens"]) > self.max_pairs:
            some = generator.choice(len(entries["tokens"]), self.max_pairs, replace=False)
            entries = {key: column[some] for key, column in entries.items()}
        shuffled = entries["tokens"][generator.permutation(len(entries["tokens"]))]
        variant = torch.nn.functional.one_hot(entries["variant"])
        inputs = torch.cat([entries["initial_features"], variant], 1)
        features, operator = entries["features"], entries["operator"]
        return {
            **self._agreement(columns, pairs.rows, pairs.partners),
            "consistency/cross_probe_r2": _decoded_r2(pl_module, entries["tokens"], entries),
            "consistency/shuffled_tokens_r2": _decoded_r2(pl_module, shuffled, entries),
            "consistency/ic_only_r2": ridge_r_squared(inputs, features, operator),
        }

    def _agreement(self, columns: Mapping[str, Tensor], a: Tensor, b: Tensor) -> dict[str, float]:
        """Scores of the tokens and latents of pairs whose probe B was seen by the model."""
        if not len(a):
            return {}
        tokens = columns["tokens"]
        # Rows take ten times as long as numbers.
        rows = tokens if tokens.shape[1] > 1 else tokens[:, 0]
        joint = torch.unique(rows, dim=0 if rows.ndim > 1 else None, return_inverse=True)[1]
        size = int(joint.max()) + 1
        table = torch.bincount(joint[a] * size + joint[b], minlength=size * size).view(size, size)
        values = {"consistency/token_ami": metrics.adjusted_mutual_information(table).item()}
        if self.detailed:
            equal = (joint[a] == joint[b]).double().mean()
            values["consistency/token_agreement"] = equal.item()
        if "latent" in columns:
            latent = columns["latent"].double()
            values["consistency/latent_correlation"] = _correlation(latent[a], latent[b])
        return values

    def _report_no_pairs(self, trainer: Trainer) -> None:
        message = (
            "OperatorConsistency found no operator with two probes among the samples of this epoch"
        )
        limit = trainer.limit_test_batches if trainer.testing else trainer.limit_val_batches
        if isinstance(limit, float) and limit == 1.0:
            raise contract.ContractError(
                f"{message}. Generate the dataset with probes_per_operator of 2 or more, and keep "
                "the samples of an operator in one split."
            )
        warnings.warn(f"{message}; it was limited to few batches", RuntimeWarning, stacklevel=2)


def _decoded_r2(pl_module: Any, tokens: Tensor, entries: Mapping[str, Tensor]) -> float:  # noqa: ANN401
    """R2 of B's features, decoded from tokens ``[N, Q]`` under B's initial conditions."""
    tokens = tokens if tokens.shape[1] > 1 else tokens[:, 0]
    batch = {key: entries[key] for key in ("initial_features", "variant")}
    return r_squared(pl_module.decode(tokens, batch), entries["features"])


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation over samples, averaged over the columns that vary; 0 if none does."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = (a.square().sum(0) * b.square().sum(0)).sqrt()
    varies = scale > 0
    return ((a * b).sum(0)[varies] / scale[varies]).mean().item() if varies.any() else 0.0
