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
from spinlock.callbacks.epoch_tables import EpochSamples, by_index
from spinlock.callbacks.evaluation_callback import EvaluationCallback
from spinlock.callbacks.probe_pairs import next_probes
from spinlock.callbacks.probe_scores import dynamics_scores, set_scores
from spinlock.configuration.validation import require_at_least
from spinlock.errors import ConfigurationError

_ENTRIES = ("initial_features", "variant", "family", "update_policy", "operator", "index")


class OperatorConsistency(EvaluationCallback):
    """Compares the tokens of one operator under several initial conditions, its probes.

    Low mutual information with the initial condition does not imply that tokens name the operator:
    constant tokens have it too. The probes of an operator are the samples of the epoch with the
    same ``operator``, over all processes and loaders, in the order of their ``index``.

    - ``consistency/same_token``: rate of equal tokens (at all levels) among the pairs of probes of
      one operator, minus the rate that pairs of different operators with the same families have by
      chance: 0 for tokens that say nothing of the operator, 1 for tokens that name it; see
      :func:`~spinlock.metrics.same_token_rate`;
    - ``consistency/retrieval``: share of the latents whose nearest latent among those of the next
      probe of `num_candidates` operators is of the same operator;
    - ``consistency/retrieval_candidates``: number of these operators: chance is its inverse;
    - ``consistency/set_same_token``, ``consistency/set_retrieval``: the same for two sets of half
      of the probes each, whose latents are averaged before quantization. Retrieval and sets leave
      out operators that have fewer probes in the epoch than the most;
    - ``consistency/cross_probe_r2``: R2 of B's features decoded from A's token under B's initial
      condition, where B is the next probe after A;
    - ``consistency/shuffled_tokens_r2``: baseline with A's tokens shuffled among the pairs: what
      the decoder predicts from the initial condition and the distribution of tokens;
    - ``consistency/ic_only_r2``: baseline without tokens: R2 of B's features predicted by ridge
      regression on B's ``initial_features`` and variant, cross-validated over operators in five
      folds. It is linear, so a decoder may exceed it without any token;
    - ``consistency/dynamics_r2``, ``consistency/dynamics_r2/<name>``: R2 of the operator's dynamics
      (mean over columns, and each) predicted by the mean of the token over other operators; see
      :func:`~spinlock.metrics.predict_from_tokens`;
    - ``consistency/dynamics_r2_within_policy``, ``consistency/dynamics_r2_within_policy/<name>``:
      the same among operators of one update policy, about the mean of each policy: what tokens say
      beyond the update policy;
    - ``consistency/dynamics_r2_shuffled``: baseline of ``dynamics_r2`` with the dynamics permuted
      among operators, about 0;
    - ``consistency/decoded_dynamics_r2``, ``consistency/decoded_dynamics_r2_within_policy``: R2 of
      the dynamics that the model decodes, mean over columns, about the mean of all operators and of
      each update policy. The decoder was fitted to training operators, so that these scores do not
      depend on the number of operators of the epoch.

    With ``detailed=True`` also:

    - ``consistency/same_token_rate``, ``consistency/same_token_chance``: the two rates whose
      difference is ``same_token``;
    - ``consistency/cross_probe_r2/<policy>``, ``consistency/shuffled_tokens_r2/<policy>``: among
      the operators of each update policy that occurs, with tokens shuffled among them;
    - ``consistency/dynamics_r2_shuffled/<name>``, ``consistency/decoded_dynamics_r2/<name>``,
      ``consistency/decoded_dynamics_r2_within_policy/<name>``: of each column.

    Retrieval needs ``latent`` in the step's output. Scores of sets need four or more probes and
    ``latent``; tokens of sets also need the model's ``quantize``. Scores of dynamics need
    ``dynamics`` in the batch and the data module's ``dynamics_names``; decoded ones also need
    ``dynamics`` in the step's output. Without what they need, scores are left out. R2 is
    1 - residual / total sum of squares; that of features sums both over samples and columns, and is
    over at most `max_pairs` pairs. If tokens name operators, ``cross_probe_r2`` is above both
    baselines. Testing logs the same with ``test/`` in front. Draws no plots.

    Needs ``tokens`` in the step's output; ``features`` (for a sequence, those of the last timestep
    are used), ``initial_features``, ``variant``, ``family``, ``update_policy``, ``operator`` and
    ``index`` in the batch; the model's ``decode``; and a dataset with two or more probes per
    operator. If `limit_val_batches` leaves no operator with two probes, the callback warns and logs
    nothing.

    Args:
        max_samples: Number of samples that each process keeps, the first of the epoch, about 0.5 KB
            each, default: 16,384.
        max_pairs: Number of pairs that are decoded, drawn at random if there are more, default:
            4096.
        num_candidates: Number of operators that retrieval finds the right one among, drawn at
            random if there are more, default: 1000.
        seed: Seed of these draws and of the shuffling, default: 0.
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

    in_progress_bar = frozenset({"consistency/same_token"})

    def __init__(
        self,
        *,
        max_samples: int = 16_384,
        max_pairs: int = 4096,
        num_candidates: int = 1000,
        seed: int = 0,
        detailed: bool = False,
        every_n_epochs: int = 1,
    ) -> None:
        super().__init__(detailed=detailed, every_n_epochs=every_n_epochs, plots_every_n_epochs=0)
        sizes = {"max_samples": max_samples, "max_pairs": max_pairs}
        require_at_least({**sizes, "num_candidates": num_candidates}, 2)
        self.max_samples = max_samples
        self.max_pairs = max_pairs
        self.num_candidates = num_candidates
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
        columns = {key: step.entry(key) for key in _ENTRIES}
        features = step.entry("features")
        columns["features"] = features[:, -1] if features.ndim == 3 else features
        columns["tokens"] = step.tokens
        if step.has_entry("dynamics"):
            columns["dynamics"] = step.entry("dynamics")
            if step.has_output("dynamics"):
                columns["decoded_dynamics"] = step.output("dynamics").detach()
        if step.has_output("latent") and step.output("latent").ndim == 2:
            columns["latent"] = step.output("latent").detach()
        self._samples.add(columns)
        self._kept += len(features)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        gathered = self._samples.gather()
        columns = by_index(gathered) if gathered else {}
        a, b = next_probes(columns["operator"]) if columns else (torch.empty(0), torch.empty(0))
        if not len(a):
            self._report_no_pairs(trainer)
            return {}
        same = metrics.same_token_rate(columns["tokens"], columns["family"], columns["operator"])
        scores = {"same_token": same.above_chance.item()}
        if self.detailed:
            rates = {"same_token_rate": same.rate, "same_token_chance": same.chance}
            scores |= {name: rate.item() for name, rate in rates.items()}
        if "latent" in columns:
            quantize = getattr(pl_module, "quantize", None)
            scores |= set_scores(
                columns,
                quantize and (lambda latent: quantize(latent.to(pl_module.device))),
                num_candidates=self.num_candidates,
                seed=self.seed,
            )
        if "dynamics" in columns:
            names = self._names(trainer, "dynamics_names")
            scores |= dynamics_scores(columns, names, seed=self.seed, detailed=self.detailed)
        scores |= self._decoded(trainer, pl_module, columns, a, b)
        return {f"consistency/{name}": score for name, score in scores.items()}

    def _decoded(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        columns: Mapping[str, Tensor],
        a: Tensor,
        b: Tensor,
    ) -> dict[str, float]:
        """R2 of B's features, and its baselines."""
        generator = np.random.default_rng(self.seed)
        if len(a) > self.max_pairs:
            some = torch.from_numpy(generator.choice(len(a), self.max_pairs, replace=False))
            a, b = a[some], b[some]
        tokens, of_b = columns["tokens"][a], {key: column[b] for key, column in columns.items()}
        shuffled = tokens[torch.from_numpy(generator.permutation(len(a)))]
        variant = torch.nn.functional.one_hot(of_b["variant"].long())
        inputs = torch.cat([of_b["initial_features"], variant], 1)
        scores = {
            "cross_probe_r2": _decoded_r2(pl_module, tokens, of_b),
            "shuffled_tokens_r2": _decoded_r2(pl_module, shuffled, of_b),
            "ic_only_r2": ridge_r_squared(inputs, of_b["features"], of_b["operator"]),
        }
        if self.detailed:
            names = self._names(trainer, "update_policy_names")
            for number in torch.unique(of_b["update_policy"]).tolist():
                own = (of_b["update_policy"] == number).nonzero().flatten()
                rows = {key: column[own] for key, column in of_b.items()}
                mixed = own[torch.from_numpy(generator.permutation(len(own)))]
                for score, given in (("cross_probe_r2", own), ("shuffled_tokens_r2", mixed)):
                    r2 = _decoded_r2(pl_module, tokens[given], rows)
                    scores[f"{score}/{names[number]}"] = r2
        return scores

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
    keys = ("initial_features", "variant")
    batch = {key: entries[key].to(pl_module.device) for key in keys}
    decoded = pl_module.decode(tokens.to(pl_module.device), batch)
    return r_squared(decoded.cpu(), entries["features"])
