"""Logs how much tokens depend on the variant of the initial condition."""

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from spinlock import contract, metrics
from spinlock.callbacks.epoch_tables import EpochSamples, TokenTable, by_index
from spinlock.callbacks.evaluation_callback import EvaluationCallback
from spinlock.callbacks.label_information import AxisClasses, label_scores
from spinlock.callbacks.label_nulls import (
    IndependentSamples,
    LabelTables,
    RepeatedOperators,
    first_probes,
    repeats_operators,
)
from spinlock.configuration.validation import require_at_least, require_choice
from spinlock.metrics.joint_labels import count_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = ("variant", "family")

_SAMPLE_ENTRIES = ("index", "operator", "update_policy", "variant")

OnThreshold = Literal["warn", "stop"]


class ICMutualInformation(EvaluationCallback):
    """Logs the mutual information of token and variant or family over each validation epoch.

    Samples are counted, not averaged over batches, so scores are those of the whole epoch and of
    all processes, for any batch size. Several validation loaders are pooled.

    - ``ic/variant_ami``, ``ic/family_ami``: adjusted mutual information (AMI) of token and variant,
      and of token and family: about 0 for independent tokens, at most 1;
    - ``ic/variant_ami_null_95``, ``ic/family_ami_null_95``: 95% quantile of the AMI if labels are
      permuted;
    - ``ic/variant_p_value``, ``ic/family_p_value``: p-value of the mutual information in that
      permutation test;
    - ``ic/variant_mi_excess``, ``ic/family_mi_excess``: mutual information minus what chance gives,
      nats;
    - ``ic/variant_within_policy_ami``, ``ic/family_within_policy_ami``: AMI within update policies,
      averaged over policies, weighted by number of samples, since pooling can hide a dependence.

    With ``detailed=True`` also:

    - ``ic/variant_mi``, ``ic/family_mi``: plug-in mutual information, nats;
    - ``ic/variant_mi_corrected``, ``ic/family_mi_corrected``: the same with Miller and Madow's bias
      correction, nats;
    - ``ic/variant_mi_null_95``, ``ic/family_mi_null_95``: 95% quantile of the mutual information
      under permutation, nats;
    - ``ic/variant_nmi``, ``ic/family_nmi``: normalized mutual information, divided by the mean of
      the two entropies, in [0, 1];
    - ``ic/variant_within_policy_mi``, ``ic/family_within_policy_mi``: mutual information given the
      update policy, nats;
    - ``ic/variant_within_policy_mi_null_95``, ``ic/family_within_policy_mi_null_95``: 95% quantile
      of the mutual information given the update policy, under permutation, nats;
    - ``ic/variant_within_policy_p_value``, ``ic/family_within_policy_p_value``: p-value of the
      mutual information given the update policy;
    - ``ic/variant_ami/<policy>``, ``ic/family_ami/<policy>``, ``ic/variant_nmi/<policy>``,
      ``ic/family_nmi/<policy>``: among the samples of each update policy that occurs;
    - ``ic/variant_ami/level_<q>``, ``ic/family_ami/level_<q>``: for each of the Q > 1
      codebooks of tokens ``[B, Q]``; all other scores use the tuple of Q indices as one token;
    - ``ic/axis_ami/<axis>``: AMI of token and each parameter axis that varies. Classes are the
      values of the axis, or terciles if it is continuous or has more than 16 values;
    - ``ic/operator_to_ic``: ratio of the token's information about the axes, summed over the axes,
      to its information about the variant. Both are above chance: mutual information minus its
      expectation under permutation. Axes are independent by design, so the sum is a lower bound of
      the token's information about the operator. The divisor is at least the 95% quantile of the
      null minus that expectation, so that the ratio stays finite.

    Testing logs the same with ``test/`` in front. Plot: ``ic/code_by_variant``, a heatmap.

    With many codes and few samples, ``mi`` and ``nmi`` are far from 0 by chance alone, so read
    ``ami``. With a single token and a single class, ``nmi`` and ``ami`` are 1 by definition, as in
    scikit-learn. The permutation test permutes variants among samples of the same update policy;
    p = (1 + number of permutations with at least the observed value) / (1 + permutations).

    If an operator has several samples in the epoch, its probes, samples are not independent: tokens
    that name operators are alike in different families, more than independent samples would be. The
    null is then the operator null: variants are permuted among operators (of equally many samples
    and the same update policy), and among the probes of each. AMI and ``mi_excess`` take the mean
    of this null for what chance gives, instead of the expectation for independent samples. An
    operator's axes count once, with the token of its first probe. This needs ``operator`` and
    ``index`` in the batch, and about 100 bytes of each sample; without them, samples are taken to
    be independent.

    Needs ``tokens`` in the step's output; ``variant`` and ``update_policy`` in the batch; the
    model's ``codebook_size``; and the data module's ``variant_names``, ``variant_families`` and
    ``update_policy_names``. The detailed scores also need ``params`` in the batch and the data
    module's ``parameter_space``.

    Args:
        threshold: Upper limit for ``ic/variant_ami``, ``ic/family_ami`` and the two
            ``_within_policy_ami``; default: None, no limit.
        on_threshold: ``"warn"`` warns (RuntimeWarning), ``"stop"`` also ends training.
        patience: Number of successive validation epochs above the threshold at which the callback
            acts, and again at each further one; default: 1. The count is restored from checkpoints.
        permutations: Number of permutations of the test, default: 100.
        seed: Seed of the permutations, default: 0.
        detailed: Whether to log the detailed scores too, default: False.
        every_n_epochs: Number n; every n-th validation epoch is evaluated. See
            :class:`EvaluationCallback`.
        plots_every_n_epochs: Number n; plots are drawn in every n-th validation epoch.

    Raises:
        ContractError: An output, a batch, the model or the data module lacks what is needed. The
            error is raised in Lightning's sanity check already.
        ValueError: A token, a label or an argument is out of range.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from spinlock.callbacks import ICMutualInformation
        >>> stopping = ICMutualInformation(threshold=0.1, on_threshold="stop", patience=3)
        >>> trainer = Trainer(callbacks=[stopping], logger=False)
    """

    def __init__(
        self,
        *,
        threshold: float | None = None,
        on_threshold: OnThreshold = "warn",
        patience: int = 1,
        permutations: int = 100,
        seed: int = 0,
        detailed: bool = False,
        every_n_epochs: int = 1,
        plots_every_n_epochs: int = 10,
    ) -> None:
        super().__init__(
            detailed=detailed,
            every_n_epochs=every_n_epochs,
            plots_every_n_epochs=plots_every_n_epochs,
        )
        require_choice("on_threshold", on_threshold, get_args(OnThreshold))
        require_at_least({"patience": patience, "permutations": permutations}, 1)
        self.threshold = threshold
        self.on_threshold = on_threshold
        self.patience = patience
        self.permutations = permutations
        self.seed = seed
        self.epochs_exceeded = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the number of successive epochs above the threshold."""
        return {"epochs_exceeded": self.epochs_exceeded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of successive epochs above the threshold."""
        self.epochs_exceeded = state_dict["epochs_exceeded"]

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._policies = self._names(trainer, "update_policy_names")
        self._variants = self._names(trainer, "variant_names")
        families = self._names(trainer, "variant_families")
        numbers = {family: number for number, family in enumerate(dict.fromkeys(families))}
        self._family_of_variant = torch.tensor(
            [numbers[family] for family in families], device="cpu"
        )
        size = self._codebook_size(pl_module)
        sizes = {"update_policy": len(self._policies), "variant": len(self._variants)}
        self._table = TokenTable(size, sizes)
        self._samples = EpochSamples()
        self._size = size
        self._plotted: Tensor | None = None
        if self.detailed:
            me = type(self).__name__
            self._axes = AxisClasses(contract.data_attribute(trainer, "parameter_space", reader=me))
            self._axis_table = TokenTable(size, {"axis": self._axes.num_classes})

    def _observe(self, step: contract.StepOutputs) -> None:
        tokens = step.tokens
        self._table.add(tokens, step.entry("update_policy"), step.entry("variant"))
        if self.detailed and self._axes.num_classes:
            classes = self._axes(step.entry("params"))
            self._axis_table.add(tokens.repeat_interleave(classes.shape[1], 0), classes.flatten())
        if all(step.has_entry(key) for key in _SAMPLE_ENTRIES):
            keys = _SAMPLE_ENTRIES + (("params",) if self.detailed else ())
            self._samples.add({"tokens": tokens, **{key: step.entry(key) for key in keys}})

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        tables, samples = self._table.tables(), self._samples.gather()
        if not tables:
            return {}
        label_tables: LabelTables = IndependentSamples.of(tables)
        axis_table = self._axis_table.tables().get("joint") if self.detailed else None
        if samples and repeats_operators(columns := by_index(samples)):
            label_tables = RepeatedOperators.of(
                columns,
                num_codes=self._size,
                num_policies=len(self._policies),
                num_variants=len(self._variants),
            )
            axis_table = self._axes_of_operators(columns) if self.detailed else None
        strata = label_tables.strata
        self._plotted = strata.sum(0)
        permutations: dict[str, int] = {"permutations": self.permutations, "seed": self.seed}
        nulls = label_tables.nulls(self._by_label, **permutations)
        values: dict[str, float] = {}
        for label, counts, null in zip(LABELS, self._by_label(strata), nulls, strict=True):
            scores = label_scores(counts, null, self._policies, detailed=self.detailed)
            values |= {f"ic/{label}_{name}": value for name, value in scores.items()}
        if self.detailed:
            for level, table in label_tables.levels.items():
                chance = label_tables.level_chance(level, self._by_label, **permutations)
                for label, counts, own in zip(LABELS, self._by_label(table), chance, strict=True):
                    ami = metrics.adjusted_mutual_information(counts, expected=own)
                    values[f"ic/{label}_ami/{level}"] = ami.item()
        if axis_table is not None:
            variant_information = max(values["ic/variant_mi"], values["ic/variant_mi_null_95"])
            chance_level = values["ic/variant_mi"] - values["ic/variant_mi_excess"]
            ami_of_axes, above = self._axes.scores(axis_table)
            # For a constant token the divisor would be 0.
            ratio = max(above, 0.0) / max(variant_information - chance_level, 1e-9)
            values |= {f"ic/axis_ami/{axis}": value for axis, value in ami_of_axes.items()}
            values["ic/operator_to_ic"] = ratio
        self._check_threshold(trainer, values)
        return values

    def _by_label(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Counts ``[..., variants]``, and their sums by family ``[..., families]``."""
        families = counts.new_zeros(*counts.shape[:-1], int(self._family_of_variant.max()) + 1)
        return counts, families.index_add_(-1, self._family_of_variant, counts)

    def _axes_of_operators(self, columns: Mapping[str, Tensor]) -> Tensor | None:
        """Counts ``[codes, classes]`` of the axes' classes, with one sample of each operator."""
        if not self._axes.num_classes:
            return None
        once = first_probes(columns)
        token, classes = metrics.joint_tokens(once["tokens"]), self._axes(once["params"])
        shape = (int(token.max()) + 1, self._axes.num_classes)
        return count_table(token.repeat_interleave(classes.shape[1]), classes.flatten(), shape)

    def _check_threshold(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Warn or stop if the threshold was exceeded for long enough."""
        if self.threshold is None or trainer.testing:
            return
        keys = [f"ic/{label}{kind}" for label in LABELS for kind in ("_ami", "_within_policy_ami")]
        worst = max((values.get(key, -math.inf), key) for key in keys)
        # Processes must agree even if their roundings differ.
        exceeded = trainer.strategy.reduce_boolean_decision(worst[0] > self.threshold, all=False)
        self.epochs_exceeded = self.epochs_exceeded + 1 if exceeded else 0
        if self.epochs_exceeded < self.patience:
            return
        stops = self.on_threshold == "stop" and trainer.state.fn == TrainerFn.FITTING
        warnings.warn(
            f"ICMutualInformation: {worst[1]} is {worst[0]:.3f}, above the threshold of "
            f"{self.threshold:g} in {self.epochs_exceeded} successive validation epoch(s): tokens "
            "depend on the initial condition" + ("; training stops" if stops else ""),
            RuntimeWarning,
            stacklevel=2,
        )
        if stops:
            trainer.should_stop = True

    def _draw(self) -> dict[str, "Figure"]:
        from spinlock.plots.token_plots import heatmap

        if self._plotted is None:
            return {}
        title = "Variants by token"
        plot = heatmap(self._plotted, class_names=self._variants, title=title)
        return {"ic/code_by_variant": plot}
