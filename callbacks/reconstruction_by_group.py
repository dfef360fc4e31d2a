"""Logs the reconstruction error of groups of samples."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from spinlock import contract
from spinlock.callbacks.epoch_tables import EpochSamples
from spinlock.callbacks.evaluation_callback import EvaluationCallback
from spinlock.metrics.spearman import rank_correlation
from spinlock.metrics.token_contingency import check_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUPINGS: Mapping[str, str] = MappingProxyType(
    {
        "family": "family_names",
        "update_policy": "update_policy_names",
        "variant": "variant_names",
        "normalization": "normalization_names",
    }
)
"""Attribute of the data module that names the groups of each label."""

_DEFAULT = ("family", "update_policy")


class ReconstructionByGroup(EvaluationCallback):
    """Logs the reconstruction error of groups of samples over each validation epoch.

    The error of a sample is the mean over columns (and timesteps) of the squared difference between
    ``reconstruction`` and ``features``, in the scale of the features.

    - ``reconstruction/error``: mean over all samples;
    - ``reconstruction/family/<name>``, ``reconstruction/update_policy/<name>``: mean over the
      samples of each group that occurs.

    With ``detailed=True`` also:

    - ``reconstruction/variant/<name>``, ``reconstruction/normalization/<name>``: the same for
      variants and normalizations;
    - ``reconstruction/complexity_rank_correlation``: Spearman's rank correlation between error and
      ``parameter_count``; 0 if either is constant.

    Testing logs the same with ``test/`` in front. Plot: ``reconstruction/error_by_group``, with all
    groupings.

    Needs ``reconstruction`` in the step's output and ``features`` in the batch. Uses ``variant``,
    ``family``, ``update_policy``, ``normalization`` and ``parameter_count``; keys of those that the
    batch lacks are left out. Needs the data module's names of the labels used. Keeps 48 bytes of
    each sample of the epoch.

    Args:
        detailed: Whether to log the detailed scores too, default: False.
        every_n_epochs: Interval of observed epochs; see :class:`EvaluationCallback`.
        plots_every_n_epochs: Interval of plots; see :class:`EvaluationCallback`.

    Raises:
        ContractError: An output, a batch or the data module lacks what is needed; already during
            sanity checking.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from spinlock.callbacks import ReconstructionByGroup
        >>> trainer = Trainer(callbacks=[ReconstructionByGroup(detailed=True)], logger=False)
    """

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._samples = EpochSamples()
        self._errors: dict[str, dict[str, float]] = {}

    def _observe(self, step: contract.StepOutputs) -> None:
        keys = [key for key in (*GROUPINGS, "parameter_count") if step.has_entry(key)]
        self._samples.add({"error": step.errors, **{key: step.entry(key) for key in keys}})

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        columns = {key: column.cpu() for key, column in self._samples.gather().items()}
        if not columns:
            return {}
        errors = columns["error"].double().numpy()
        values = {"reconstruction/error": float(errors.mean())}
        for grouping, attribute in GROUPINGS.items():
            if grouping not in columns:
                continue
            names = self._names(trainer, attribute)
            check_range(grouping, columns[grouping], len(names))
            labels = columns[grouping].numpy()
            sums, counts = np.bincount(labels, weights=errors), np.bincount(labels)
            groups = {
                names[number]: float(sums[number] / counts[number])
                for number in np.flatnonzero(counts).tolist()
            }
            self._errors[grouping] = groups
            if self.detailed or grouping in _DEFAULT:
                values |= {f"reconstruction/{grouping}/{name}": e for name, e in groups.items()}
        if self.detailed and "parameter_count" in columns:
            correlation = rank_correlation(columns["error"], columns["parameter_count"][:, None])
            values["reconstruction/complexity_rank_correlation"] = correlation.item()
        return values

    def _draw(self) -> dict[str, "Figure"]:
        from spinlock.plots.token_plots import error_bars

        if not self._errors:
            return {}
        plot = error_bars(self._errors, title="Reconstruction error by group")
        return {"reconstruction/error_by_group": plot}
