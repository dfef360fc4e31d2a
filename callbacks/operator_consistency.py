"""Does a token name an operator, whatever initial condition it was met under?"""

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
from spinlock.callbacks.probe_pairs import ProbePairs, pair_probes
from spinlock.errors import ConfigurationError


class OperatorConsistency(EvaluationCallback):
    """Compares the tokens of one operator under two initial conditions, its probes A and B.

    Low mutual information with the initial condition is not operator identity: constant tokens have
    it too. This tells them apart. Every sample of the validation epoch is once probe A; its B is
    the next probe of the same operator (``other_...`` entries of the view ``pairs``, else found by
    ``operator`` among the epoch's samples of all processes).

    - ``consistency/token_agreement``: fraction of pairs with the same token (at all levels);
    - ``consistency/token_ami``: adjusted mutual information of the two tokens: 0 by chance. The
      design deals the two probes of an operator different families, so tokens that name the family
      share information too: read it beside what `ICMutualInformation` logs of the family;
    - ``consistency/latent_correlation``: correlation of the two latents over pairs, mean of the
      dimensions that vary; only where the model returns ``latent``;
    - ``consistency/cross_probe_r2``: R2 of B's features decoded from A's token under B's initial
      condition;
    - ``consistency/shuffled_tokens_r2``: floor: the same with A's tokens shuffled among the pairs,
      which is what the decoder makes of the initial condition and of the tokens' distribution;
    - ``consistency/ic_only_r2``: floor: R2 of B's features from B's initial condition alone, by
      ridge regression on ``initial_features`` and the variant, cross-validated over operators in
      five folds, with the best of three penalties. It is linear: a decoder may exceed it without
      any token.

    R2 is 1 - residual / total sum of squares, both summed over samples and columns; the three are
    of the same pairs, at most `max_pairs`. Where tokens name operators, ``cross_probe_r2`` is above
    both floors. Testing logs the same with ``test/`` in front. Draws no figures. Several loaders
    are pooled.

    Needs ``tokens`` in the step's output; ``features`` (of a sequence, the last timestep's),
    ``initial_features``, ``variant``, ``operator`` and ``index`` in the batch; the model's
    ``decode``; and a dataset of two probes per operator or more. Where `limit_val_batches` leaves
    no operator with two probes, it warns and logs nothing.

    Args:
        max_samples: Samples of each process that are kept, the first of the epoch: about 0.5 KB
            each.
        max_pairs: Pairs that are decoded and told from the initial condition; of more, a sample.
        seed: Of that sample and of the shuffling.
        every_n_epochs: As in :class:`EvaluationCallback`.

    Raises:
        ContractError: Something needed is missing; already while sanity checking. Or no operator
            of a whole epoch has two probes.
        ConfigurationError: The data module's configuration has one probe per operator.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        max_samples: int = 16_384,
        max_pairs: int = 4096,
        seed: int = 0,
        every_n_epochs: int = 1,
    ) -> None:
        super().__init__(every_n_epochs=every_n_epochs, figures_every_n_epochs=0)
        for name, value in (("max_samples", max_samples), ("max_pairs", max_pairs)):
            if value < 2:
                raise ValueError(f"{name} must be at least 2, got {value}")
        self.max_samples = max_samples
        self.max_pairs = max_pairs
        self.seed = seed
        self._samples = EpochSamples()
        self._kept = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a dataset of one probe and a model that cannot decode.

        Raises:
            ConfigurationError: One probe per operator.
            ContractError: No ``decode``.
        """
        generation = contract.known_property(trainer, "generation")
        if getattr(generation, "probes_per_operator", 2) < 2:
            raise ConfigurationError(
                "OperatorConsistency needs each operator under two initial conditions; the dataset "
                "has one. Set probes_per_operator of the generation to 2 or more."
            )
        if not callable(getattr(pl_module, "decode", None)):
            raise contract.ContractError(
                "OperatorConsistency needs the model's decode(tokens, batch) -> [B, F], but "
                f"{type(pl_module).__name__} has no such method. Add it, as in FeatureVQVAE."
            )

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._samples, self._kept = EpochSamples(), 0

    def _observe(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        dataloader_idx: int,
    ) -> None:
        if self._kept >= self.max_samples:
            return
        me, model = type(self).__name__, type(pl_module).__name__
        keys = ["initial_features", "variant", "operator", "index"]
        if isinstance(batch, Mapping) and "other_index" in batch:
            keys += ["other_features", "other_initial_features", "other_variant", "other_index"]
        columns = {key: contract.from_batch(batch, key, needed_by=me) for key in keys}
        features = contract.from_batch(batch, "features", needed_by=me)
        columns["features"] = features[:, -1] if features.ndim == 3 else features
        columns["tokens"] = contract.tokens_of(outputs, needed_by=me, given_by=model)
        if isinstance(outputs, Mapping) and "latent" in outputs:
            columns["latent"] = outputs["latent"].detach().flatten(1)
        self._samples.add(columns)
        self._kept += len(features)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        columns = self._samples.gather()
        pairs = pair_probes(columns) if columns else None
        if pairs is None or not len(pairs.tokens):
            self._complain(trainer)
            return {}
        agreement = _agreement(columns, pairs)
        pairs = pairs.sample(self.max_pairs, self.seed)
        shuffled = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(pairs.tokens)))
        own = _decoded_r2(pl_module, pairs.tokens, pairs)
        floor = _decoded_r2(pl_module, pairs.tokens[shuffled.to(pairs.tokens.device)], pairs)
        variant = torch.nn.functional.one_hot(pairs.variant)
        inputs = torch.cat([pairs.initial_features, variant], 1)
        values = {
            "consistency/cross_probe_r2": own,
            "consistency/shuffled_tokens_r2": floor,
            "consistency/ic_only_r2": ridge_r_squared(inputs, pairs.features, pairs.operator),
        }
        return {**agreement, **values}

    def _complain(self, trainer: Trainer) -> None:
        message = (
            "OperatorConsistency found no operator with two probes among the samples of this epoch"
        )
        limit = trainer.limit_test_batches if trainer.testing else trainer.limit_val_batches
        if isinstance(limit, float) and limit == 1.0:
            remedy = "Generate the dataset with probes_per_operator of 2 or more"
            raise contract.ContractError(f"{message}. {remedy}, and keep an operator in one split.")
        warnings.warn(f"{message}, of which there were few", RuntimeWarning, stacklevel=2)


def _decoded_r2(pl_module: Any, tokens: Tensor, pairs: ProbePairs) -> float:  # noqa: ANN401
    """R2 of B's features, decoded from tokens ``[N, Q]`` under B's initial conditions."""
    tokens = tokens if tokens.shape[1] > 1 else tokens[:, 0]
    given = {"initial_features": pairs.initial_features, "variant": pairs.variant}
    return r_squared(pl_module.decode(tokens, given), pairs.features)


def _agreement(columns: Mapping[str, Tensor], pairs: ProbePairs) -> dict[str, float]:
    """Figures of the tokens and latents of pairs whose probe B was seen by the model."""
    a, b = pairs.seen_rows, pairs.seen_partners
    if not len(a):
        return {}
    tokens = columns["tokens"]
    # Of rows it takes ten times as long.
    joint = (
        torch.unique(tokens[:, 0], return_inverse=True)[1]
        if tokens.shape[1] == 1
        else torch.unique(tokens, dim=0, return_inverse=True)[1]
    )
    size = int(joint.max()) + 1
    table = torch.bincount(joint[a] * size + joint[b], minlength=size * size).view(size, size)
    values = {
        "consistency/token_agreement": (joint[a] == joint[b]).double().mean().item(),
        "consistency/token_ami": metrics.adjusted_mutual_information(table).item(),
    }
    if "latent" in columns:
        latent = columns["latent"].double()
        values["consistency/latent_correlation"] = _correlation(latent[a], latent[b])
    return values


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation over samples, the mean of the columns that vary; 0 where none does."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = (a.square().sum(0) * b.square().sum(0)).sqrt()
    varies = scale > 0
    return ((a * b).sum(0)[varies] / scale[varies]).mean().item() if varies.any() else 0.0
