"""Compares tokens of held-in and held-out initial conditions."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from spinlock import contract, metrics
from spinlock.callbacks.baselines import r_squared
from spinlock.callbacks.epoch_tables import EpochSamples, TokenTable, by_index
from spinlock.callbacks.evaluation_callback import EvaluationCallback
from spinlock.configuration.validation import require_at_least
from spinlock.errors import ConfigurationError
from spinlock.metrics.joint_labels import count_table

PARTS = ("held_in", "held_out")
"""Variants of the two loaders, in order."""

_SAMPLE_ENTRIES = ("index", "operator", "family")


class TokenTransfer(EvaluationCallback):
    """Compares the tokens of two validation loaders: held-in variants, then held-out variants.

    - ``transfer/js_divergence``: Jensen-Shannon divergence between the two distributions of tokens
      (of the joint token, if there are levels), with equal weights, in nats: 0 for equal
      distributions, ln 2 = 0.693 for disjoint ones;
    - ``transfer/js_divergence_null_95``: its 95% quantile if samples are assigned to the loaders at
      random, since finite samples diverge by chance;
    - ``transfer/js_divergence_p_value``: its p-value in that permutation test;
    - ``transfer/held_in_r2``, ``transfer/held_out_r2``: R2 of the reconstruction within each
      loader, 1 - residual / total sum of squares, both over samples and columns, the total about
      the loader's own mean of each column;
    - ``transfer/r2_gap``: R2 held in minus R2 held out;
    - ``transfer/held_in_dynamics_r2``, ``transfer/held_out_dynamics_r2``,
      ``transfer/dynamics_r2_gap``: the same for the operators' dynamics, as the model decodes them,
      or otherwise as the means of held-in tokens of other operators predict them; see
      :func:`~spinlock.metrics.predict_from_tokens`;
    - ``transfer/same_token``: rate of equal tokens of a held-out and a held-in probe of one
      operator, minus the rate that different operators with the same families have by chance; see
      :func:`~spinlock.metrics.same_token_rate`.

    If operators have probes in both loaders, the test permutes the loaders among the probes of each
    operator, since the probes of an operator are not independent. Otherwise, it permutes them among
    all samples.

    Testing with two loaders logs the same with ``test/`` in front, and nothing with another number
    of loaders. Draws no plots. Needs ``tokens`` and ``reconstruction`` in the step's output,
    ``features`` in the batch, and the model's ``codebook_size``. Pairs of probes need ``operator``,
    ``index`` and ``family`` in the batch; scores of dynamics also ``dynamics``, and decoded ones
    ``dynamics`` in the step's output. Without what they need, scores are left out.

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
        self._sums, self._samples = EpochSamples(), EpochSamples()
        self._has_parts = len(batches) == len(PARTS)
        if not (self._has_parts or trainer.testing):
            raise ConfigurationError(
                "TokenTransfer needs two validation loaders, of held-in and of held-out variants; "
                f"there are {len(batches)}. Have val_dataloader return a list of two."
            )

    def _observe(self, step: contract.StepOutputs) -> None:
        if not self._has_parts:
            return
        tokens = step.tokens
        part = tokens.new_full((len(tokens),), step.loader)
        self._table.add(tokens, part)
        self._sums.add({"part": part.new_full((1,), step.loader), **_sums(step)})
        if all(step.has_entry(key) for key in _SAMPLE_ENTRIES):
            columns = {key: step.entry(key) for key in _SAMPLE_ENTRIES}
            if step.has_entry("dynamics"):
                columns["dynamics"] = step.entry("dynamics")
                if step.has_output("dynamics"):
                    columns["decoded"] = step.output("dynamics").detach()
            self._samples.add({"tokens": tokens, "part": part, **columns})

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        table, sums = self._table.tables().get("joint"), self._sums.gather()
        samples = self._samples.gather()
        if table is None or not table.sum(0).all():
            return {}
        scores = _gap("r2", [_r_squared_of_sums(sums, number) for number in range(len(PARTS))])
        score = metrics.jensen_shannon_divergence
        columns = by_index(samples) if samples else {}
        if columns and _has_pairs(columns):
            token, part, operator = (columns[key] for key in ("tokens", "part", "operator"))
            token = metrics.joint_tokens(token)
            shape = (int(token.max()) + 1, len(PARTS))
            divergence = score(count_table(token, part, shape))
            null = metrics.group_permutation_null(
                score,
                token,
                part,
                operator,
                shape=shape,
                permutations=self.permutations,
                seed=self.seed,
            )
            same = metrics.same_token_rate(token, columns["family"], operator, parts=part)
            scores["same_token"] = same.above_chance.item()
        else:
            divergence = score(table)
            null = metrics.permutation_null(
                score, table, permutations=self.permutations, seed=self.seed
            )
        if "dynamics" in columns:
            scores |= _dynamics_scores(columns)
        scores |= {
            "js_divergence": divergence.item(),
            "js_divergence_null_95": null.quantile(0.95).item(),
            "js_divergence_p_value": metrics.permutation_p_value(divergence, null).item(),
        }
        return {f"transfer/{name}": value for name, value in scores.items()}


def _sums(step: contract.StepOutputs) -> dict[str, Tensor]:
    """Sums over a batch, from which R2 of all batches is computed; one row each."""
    errors, features = step.errors, step.entry("features")
    if features.ndim == 3 and step.output("reconstruction").ndim == 2:
        features = features[:, -1]
    features = features.flatten(1)
    if features.device.type != "mps":
        # The total is a difference of sums. Apple's GPUs have no float64.
        features, errors = features.double(), errors.double()
    return {
        "count": errors.new_full((1,), len(features)),
        "residual": errors.sum()[None] * features.shape[1],
        "sum": features.sum(0, keepdim=True),
        "squares": features.square().sum(0, keepdim=True),
    }


def _r_squared_of_sums(sums: dict[str, Tensor], part: int) -> float:
    own = {key: column[sums["part"] == part].sum(0).cpu().double() for key, column in sums.items()}
    total = (own["squares"] - own["sum"].square() / own["count"]).clamp(min=0).sum()
    # A constant column has a total of rounding errors.
    varies = bool(total > 1e-12 * own["squares"].sum())
    return (1 - own["residual"] / total).item() if varies else 0.0


def _gap(name: str, parts: list[float]) -> dict[str, float]:
    held_in, held_out = parts
    return {
        f"{PARTS[0]}_{name}": held_in,
        f"{PARTS[1]}_{name}": held_out,
        f"{name}_gap": held_in - held_out,
    }


def _has_pairs(columns: dict[str, Tensor]) -> bool:
    """Whether an operator has probes in both parts."""
    operator = metrics.joint_tokens(columns["operator"])
    counts = count_table(operator, columns["part"], (int(operator.max()) + 1, len(PARTS)))
    return bool((counts > 0).all(1).any())


def _dynamics_scores(columns: dict[str, Tensor]) -> dict[str, float]:
    values, part = columns["dynamics"], columns["part"]
    predicted = columns.get("decoded")
    if predicted is None:
        predicted = metrics.predict_from_tokens(
            values, columns["tokens"], columns["operator"], fitted=part == 0
        )
    return _gap(
        "dynamics_r2",
        [r_squared(predicted[part == n], values[part == n]) for n in range(len(PARTS))],
    )
