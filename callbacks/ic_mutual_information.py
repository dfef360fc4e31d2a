"""Do tokens name operators, or only the initial condition that probed them?"""

import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from spinlock import contract, metrics
from spinlock.callbacks.epoch_tables import TokenTable
from spinlock.callbacks.evaluation_callback import EvaluationCallback
from spinlock.callbacks.label_information import AxisClasses, LabelFigures, label_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"variant": ("variant", "variant_names"), "family": ("family", "family_names")}
)
"""Of each label: its key in the batch, and the data module's property with its names."""

# Room for families, and for policies, whose names are not known.
_UNNAMED = 8

OnThreshold = Literal["warn", "stop"]


class ICMutualInformation(EvaluationCallback):
    """Logs the mutual information of token and initial condition over each validation epoch.

    Samples are counted, not averaged over batches, so the figures are those of the whole epoch and
    of all processes, whatever the batch size. Several validation loaders are pooled. Sanity
    checking logs nothing. Logged at the end of each validation epoch, of the variant:

    - ``ic/variant_mi``: mutual information of token and variant, plug-in, nats;
    - ``ic/variant_mi_corrected``: the same with Miller and Madow's bias correction, nats;
    - ``ic/variant_nmi``: normalized by the mean of the two entropies, 0 to 1;
    - ``ic/variant_ami``: adjusted for chance: 0 expected of independent tokens, 1 at most;
    - ``ic/variant_p_value``: of ``mi``, in a permutation test;
    - ``ic/variant_null_95``: the 95% quantile of ``mi`` under permutation, nats;
    - ``ic/variant_nmi/<policy>``, ``ic/variant_ami/<policy>``: among the samples of each update
      policy that occurs, since pooling hides dependence;
    - ``ic/variant_within_policy_mi``: mutual information given the policy, I(token; variant |
      policy), the mean over policies by their samples, nats;
    - ``ic/variant_within_policy_ami``: the same, adjusted for chance;
    - ``ic/variant_within_policy_p_value``, ``ic/variant_within_policy_null_95``: its test;
    - ``ic/variant_ami/level_<q>``: of each level of tokens [B, Q] with Q > 1; everything else is of
      the joint token.

    The same of the family: ``ic/family_mi``, ``ic/family_mi_corrected``, ``ic/family_nmi``,
    ``ic/family_ami``, ``ic/family_p_value``, ``ic/family_null_95``, ``ic/family_nmi/<policy>``,
    ``ic/family_ami/<policy>``, ``ic/family_within_policy_mi``, ``ic/family_within_policy_ami``,
    ``ic/family_within_policy_p_value``, ``ic/family_within_policy_null_95``,
    ``ic/family_ami/level_<q>``. For contrast:

    - ``ic/axis_ami/<axis>``: of token and each parameter axis that varies, in its values; terciles
      where it is continuous or has more than 16 values;
    - ``ic/operator_to_ic``: information above chance (I - E I) of token and axes, summed over the
      axes, over that of token and variant. Axes are independent by design, so the sum bounds the
      token's information on the operator from below. The divisor is at least what the permutation
      null reaches (its 95% quantile less E I), so that the ratio stays finite.

    At the end of a test epoch the same keys with ``test/`` in front. Read ``ami``: with many codes
    and few samples ``mi`` and ``nmi`` are far from 0 by chance alone. With a single token and a
    single class, ``nmi`` and ``ami`` are 1 by definition, as in scikit-learn. The permutation test
    permutes labels among samples of the same update policy, p = (1 + reached) / (1 + permutations).
    Figures: ``ic/code_by_variant``, a heatmap.

    Needs of the :mod:`~spinlock.contract`: ``tokens`` in the step's output, ``variant``
    and ``family`` in the batch. Uses ``update_policy`` (without it, keys within policies are left out)
    and ``params`` (without it, those of the axes), the model's ``codebook_size``, and the data
    module's names and ``parameter_space`` (without it, every axis is cut into terciles). Families
    and policies without names may be 8 each.

    Args:
        threshold: What the largest of ``ic/variant_ami``, ``ic/family_ami`` and the two within
            policies should stay below. None: no threshold.
        on_threshold: ``"warn"`` warns (RuntimeWarning), ``"stop"`` also ends training.
        patience: Validation epochs in a row that the threshold is exceeded before anything happens;
            the count is restored from checkpoints.
        permutations: Permutations of the test.
        seed: Of the permutations.
        every_n_epochs: As in :class:`EvaluationCallback`.
        figures_every_n_epochs: As in :class:`EvaluationCallback`.

    Raises:
        ContractError: An output or a batch lacks one of these; already while sanity checking.
        ValueError: A token or label is outside its range, or an argument is.
    """

    def __init__(
        self,
        *,
        threshold: float | None = None,
        on_threshold: OnThreshold = "warn",
        patience: int = 1,
        permutations: int = 100,
        seed: int = 0,
        every_n_epochs: int = 1,
        figures_every_n_epochs: int = 10,
    ) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs, figures_every_n_epochs=figures_every_n_epochs
        )
        if on_threshold not in get_args(OnThreshold):
            raise ValueError(f"on_threshold must be warn or stop, got {on_threshold!r}")
        for name, value in (("patience", patience), ("permutations", permutations)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.threshold = threshold
        self.on_threshold = on_threshold
        self.patience = patience
        self.permutations = permutations
        self.seed = seed
        self.epochs_exceeded = 0
        self._table: TokenTable | None = None
        self._axis_table: TokenTable | None = None
        self._axes: AxisClasses | None = None
        self._has_policy = False
        self._drawn: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """How many epochs in a row have exceeded the threshold."""
        return {"epochs_exceeded": self.epochs_exceeded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.epochs_exceeded = state_dict["epochs_exceeded"]

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sizes: dict[str, int | None] = {}
        for key, attribute in (*LABELS.values(), ("update_policy", "update_policy_names")):
            names = contract.known_names(trainer, attribute)
            # Of variants, which come first, the number need not be known.
            unnamed = _UNNAMED if sizes else None
            sizes[key] = len(names) if names else unnamed
        self._table = TokenTable(pl_module, sizes)
        self._axis_table, self._axes, self._drawn = None, None, None

    def _observe(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        dataloader_idx: int,
    ) -> None:
        me, model = type(self).__name__, type(pl_module).__name__
        tokens = contract.tokens_of(outputs, needed_by=me, given_by=model)
        labels = [contract.from_batch(batch, key, needed_by=me) for key, _ in LABELS.values()]
        entries: Mapping[str, Tensor] = batch if isinstance(batch, Mapping) else {}
        policy = entries.get("update_policy")
        self._has_policy = policy is not None
        if self._table is not None:
            policy = torch.zeros_like(labels[0]) if policy is None else policy
            self._table.add(tokens, *labels, policy)
        if (params := entries.get("params")) is not None:
            if self._axis_table is None or self._axes is None:
                self._axes = AxisClasses.of(trainer, params.shape[1])
                sizes = {"axis": self._axes.num_classes}
                self._axis_table = TokenTable(pl_module, sizes, classify=self._axes)
            if self._axes.num_classes:
                self._axis_table.add(tokens, params)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        tables = {} if self._table is None else self._table.tables()
        if not tables or not tables["joint"].any():
            return {}
        values: dict[str, float] = {}
        policies = contract.known_names(trainer, "update_policy_names")
        # [policies, codes, variants, families]
        strata = tables.pop("joint").permute(3, 0, 1, 2)
        found = label_figures(strata, permutations=self.permutations, seed=self.seed)
        for label, figures in zip(LABELS, found, strict=True):
            values |= figures.named(f"ic/{label}", policies, by_stratum=self._has_policy)
        for level, table in tables.items():
            counts = table.sum(-1)
            for label, of_label in zip(LABELS, (counts.sum(2), counts.sum(1)), strict=True):
                ami = metrics.adjusted_mutual_information(of_label)
                values[f"ic/{label}_ami/{level}"] = ami.item()
        self._drawn = strata.sum((0, 3))
        values |= self._contrast(found[0])
        self._compare(trainer, values)
        return values

    def _contrast(self, variant: LabelFigures) -> dict[str, float]:
        """Figures of the parameter axes."""
        if self._axes is None or self._axis_table is None:
            return {}
        tables = self._axis_table.tables()
        if not tables:
            return {}
        by_axis = self._axes.split(tables["joint"])
        widest = max(table.shape[1] for table in by_axis.values())
        stack = torch.stack(
            [
                torch.nn.functional.pad(table, (0, widest - table.shape[1]))
                for table in by_axis.values()
            ]
        )
        chance = metrics.expected_mutual_information(stack)
        above = metrics.mutual_information(stack) - chance
        ami = metrics.adjusted_mutual_information(stack, expected=chance)
        values = {f"ic/axis_ami/{axis}": a for axis, a in zip(by_axis, ami.tolist(), strict=True)}
        # Of degenerate tokens nothing is above chance, nor is the null.
        ic = max(variant.above_chance, variant.null_above_chance, 1e-9)
        return {**values, "ic/operator_to_ic": max(above.sum().item(), 0.0) / ic}

    def _compare(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Do what was asked for when the threshold is exceeded."""
        if self.threshold is None or trainer.testing:
            return
        keys = [f"ic/{label}{kind}" for label in LABELS for kind in ("_ami", "_within_policy_ami")]
        worst = max((values.get(key, -math.inf), key) for key in keys)
        # One process's rounding must not let it go on alone.
        exceeded = trainer.strategy.reduce_boolean_decision(worst[0] > self.threshold, all=False)
        self.epochs_exceeded = self.epochs_exceeded + 1 if exceeded else 0
        if self.epochs_exceeded < self.patience:
            return
        stops = self.on_threshold == "stop" and trainer.state.fn == TrainerFn.FITTING
        warnings.warn(
            f"ICMutualInformation: {worst[1]} is {worst[0]:.3f}, above the threshold of "
            f"{self.threshold:g} in {self.epochs_exceeded} validation epoch(s) in a row: tokens "
            "tell of the initial condition" + ("; training stops" if stops else ""),
            RuntimeWarning,
            stacklevel=2,
        )
        if stops:
            trainer.should_stop = True

    def _draw(self, trainer: Trainer) -> dict[str, "Figure"]:
        from spinlock.plots.token_plots import heatmap

        if self._drawn is None:
            return {}
        names = contract.known_names(trainer, "variant_names")
        figure, _ = heatmap(self._drawn, class_names=names, title="Initial conditions by code")
        return {"ic/code_by_variant": figure}
