"""Scores prototypes: how well they predict the features of samples, within each family."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.regression import r2_score

from spinlock.errors import ConfigurationError
from spinlock.prototypes.initial_fields import initial_conditions
from spinlock.prototypes.prototype_decoder import PrototypeDecoder
from spinlock.storage import schema
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.reader import as_text

# Samples whose prototypes run together, which bounds memory.
_AT_A_TIME = 256


@dataclass(frozen=True)
class PrototypeScores:
    """Scores of predictions by prototypes.

    Args:
        r2: R² of the 46 features within each family, by name: 1 − residual / total sum of squares
            of scaled features over samples and columns, the total about the family's own mean. NaN
            where a family has fewer than two samples.
        index: Indices of the samples that were predicted, (n,) int64.
        predicted: Their predicted features, scaled, [n, 46] float32.
        true: Their features, scaled, [n, 46] float32.
    """

    r2: dict[str, float]
    index: NDArray[np.int64]
    predicted: Tensor
    true: Tensor


def prototype_scores(
    path: str | os.PathLike[str],
    index: Tensor,
    prototypes: Tensor,
    transform: Callable[[Tensor], Tensor],
    *,
    samples_per_family: int = 64,
    timestep: int | None = None,
    device: str | torch.device | None = None,
    trust: Collection[str] = (),
) -> PrototypeScores:
    """Predict the features of samples by the prototypes of their tokens, and score them.

    The prototypes run under the initial condition of each sample, with noise of their own, and
    their scaled features are averaged. Initial conditions are read from the file, or drawn again
    if the file does not store them.

    Args:
        path: Dataset file.
        index: Indices of the samples, such as those of the test split, (n,) int64.
        prototypes: Prototypes of the token of each of these samples, [n, p] int64; see
            `OperatorLatents.nearest`.
        transform: Scaling of the 46 features, fitted on training samples, such as
            ``FeatureScaler.transform``.
        samples_per_family: Largest number of samples of each family, the first ones.
        timestep: Timestep of the features, in 1..T; default: the last.
        device: Device to compute on; default: see `spinlock.runtime.device_choice`.
        trust: Modules whose classes may be imported if the file names them.

    Raises:
        DatasetError: If the file is not a dataset.
        ConfigurationError: If an argument is out of range.

    Example:
        >>> import tempfile, torch
        >>> from spinlock.configuration import IntegerRange, ParameterSpaceConfig
        >>> from spinlock import GenerationConfig, generate
        >>> space = ParameterSpaceConfig(base_channels=IntegerRange(2, 3), grid_size=(24,))
        >>> config = GenerationConfig(8, parameter_space=space, dynamics=False)
        >>> index = torch.arange(8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     generate(config, f"{folder}/a.h5", progress=False)
        ...     itself = index[:, None]  # each operator as its own prototype
        ...     scores = prototype_scores(f"{folder}/a.h5", index, itself, torch.tanh)
        >>> scores.predicted.shape
        torch.Size([8, 46])
    """
    with DatasetFile.open(path, trust=trust) as dataset:
        dataset.validate()
        config, rows = dataset.config, index.cpu().numpy()
        step = config.num_timesteps if timestep is None else timestep
        if not 1 <= step <= config.num_timesteps:
            raise ConfigurationError(
                f"timestep: must be in 1..{config.num_timesteps}, got {timestep}"
            )
        if len(rows) != len(prototypes) or (
            len(rows) and not 0 <= rows.min() <= rows.max() < config.num_samples
        ):
            raise ConfigurationError(
                f"index: expected {len(prototypes)} samples in 0..{config.num_samples - 1}, one "
                f"for each row of prototypes; got {len(rows)}"
            )
        names = as_text(dataset.column(schema.IC_FAMILIES), dataset.path, schema.IC_FAMILIES)[rows]
        families = [name for name in dict.fromkeys(config.mixture.families) if name in names]
        chosen = [np.flatnonzero(names == name)[:samples_per_family] for name in families]
        some = np.concatenate([np.empty(0, dtype=np.int64), *chosen])
        stored = dataset.column(schema.PER_TIMESTEP)[rows[some], step - 1]
        true = transform(torch.from_numpy(stored))
        decoder = PrototypeDecoder(config, device)
        parts = [torch.empty(0, true.shape[1])]
        for start in range(0, len(some), _AT_A_TIME):
            part = some[start : start + _AT_A_TIME]
            initial = initial_conditions(dataset, rows[part])
            found = decoder(
                prototypes.cpu()[torch.from_numpy(part)],
                initial,
                torch.from_numpy(rows[part]),
                fields=False,
            )
            parts.append(found.mean_features(transform, step - 1))
    predicted = torch.cat(parts)
    scores, start = {}, 0
    for name, part in zip(families, chosen, strict=True):
        own = slice(start, start + len(part))
        scores[name], start = _r_squared(predicted[own], true[own]), own.stop
    return PrototypeScores(scores, rows[some], predicted, true)


def _r_squared(predicted: Tensor, true: Tensor) -> float:
    if len(true) < 2:
        return float("nan")
    return float(r2_score(predicted.double(), true.double(), multioutput="variance_weighted"))
