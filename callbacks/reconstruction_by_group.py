"""Whose features are reconstructed badly."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from scipy.stats import spearmanr
from torch import Tensor

from spinlock import contract
from spinlock.callbacks.epoch_tables import EpochSamples
from spinlock.callbacks.evaluation_callback import EvaluationCallback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUPINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "variant": ("variant", "variant_names"),
        "family": ("family", "family_names"),
        "update_policy": ("update_policy", "update_policy_names"),
        "normalization": ("normalization", "normalization_names"),
    }
)
"""Of each grouping: its key in the batch, and the data module's property with its names."""


class ReconstructionByGroup(EvaluationCallback):
    """Logs the reconstruction error of groups of samples over each validation epoch.

    The error of a sample is the mean over columns (and timesteps) of the squared difference of
    ``reconstruction`` and ``features``, in the scale of the features.

    - ``reconstruction/error``: mean over all samples;
    - ``reconstruction/variant/<name>``, ``reconstruction/family/<name>``,
      ``reconstruction/policy/<name>``, ``reconstruction/normalization/<name>``: mean over the
      samples of each group that occurs;
    - ``reconstruction/complexity_rank_correlation``: Spearman's rank correlation of error and
      ``parameter_count``; 0 where either is constant.

    Testing logs the same with ``test/`` in front. Figure: ``reconstruction/error_by_group``.

    Needs ``reconstruction`` in the step's output and ``features`` in the batch. Uses ``variant``,
    ``family``, ``update_policy``, ``normalization`` and ``parameter_count``; keys of those that a batch
    lacks are left out. Keeps 48 bytes of each sample of the epoch.

    Args:
        every_n_epochs: As in :class:`EvaluationCallback`.
        figures_every_n_epochs: As in :class:`EvaluationCallback`.

    Raises:
        ContractError: An output or a batch lacks what is needed; already while sanity checking.
    """

    def __init__(self, *, every_n_epochs: int = 1, figures_every_n_epochs: int = 10) -> None:
        super().__init__(
            every_n_epochs=every_n_epochs, figures_every_n_epochs=figures_every_n_epochs
        )
        self._samples = EpochSamples()
        self._drawn: dict[str, dict[str, float]] = {}

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._samples, self._drawn = EpochSamples(), {}

    def _observe(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        dataloader_idx: int,
    ) -> None:
        me, model = type(self).__name__, type(pl_module).__name__
        self._samples.add(
            {
                "error": sample_errors(outputs, batch, needed_by=me, given_by=model),
                **_labels(batch),
            }
        )

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        columns = {key: c.cpu().numpy() for key, c in self._samples.gather().items()}
        if not columns:
            return {}
        errors = columns["error"].astype(np.float64)
        values = {"reconstruction/error": float(errors.mean())}
        for grouping, (key, attribute) in GROUPINGS.items():
            if key not in columns:
                continue
            names = contract.known_names(trainer, attribute)
            counts = np.bincount(columns[key])
            means = np.bincount(columns[key], weights=errors) / np.maximum(counts, 1)
            groups = {
                contract.numbered_name(names, number, grouping): float(means[number])
                for number in np.flatnonzero(counts).tolist()
            }
            self._drawn[grouping] = groups
            values |= {f"reconstruction/{grouping}/{name}": e for name, e in groups.items()}
        if "parameter_count" in columns:
            correlation = rank_correlation(errors, columns["parameter_count"])
            values["reconstruction/complexity_rank_correlation"] = correlation
        return values

    def _draw(self, trainer: Trainer) -> dict[str, "Figure"]:
        from spinlock.plots.token_plots import error_bars

        if not self._drawn:
            return {}
        figure = error_bars(self._drawn, title="Reconstruction error by group")
        return {"reconstruction/error_by_group": figure}


def sample_errors(outputs: object, batch: object, *, needed_by: str, given_by: str) -> Tensor:
    """Mean squared error of each sample's reconstruction, ``[B]``.

    Raises:
        ContractError: There is no reconstruction or there are no features, or of other shapes.
    """
    reconstruction = contract.from_outputs(
        outputs, "reconstruction", needed_by=needed_by, given_by=given_by
    )
    features = contract.target_of(batch, reconstruction, needed_by=needed_by)
    # In one pass, without the squares in memory.
    difference = (reconstruction.detach() - features).flatten(1)
    norms: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return norms.square() / difference.shape[1]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one side is constant."""
    return float(spearmanr(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


def _labels(batch: object) -> dict[str, Tensor]:
    entries = batch if isinstance(batch, Mapping) else {}
    keys = [key for key, _ in GROUPINGS.values()] + ["parameter_count"]
    return {key: entries[key] for key in keys if isinstance(entries.get(key), Tensor)}
