"""Recomputes the features of a dataset file from the fields that it stores.

The file is verified first and never changed in place. If features differ, a new file is written,
which then replaces the old one in one step.
"""

import dataclasses
import glob
import os
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.configuration.stored_config import StoredConfig
from spinlock.configuration.validation import require_at_least
from spinlock.errors import DatasetError, in_a_line
from spinlock.features import CustomFeatures, extract, extract_per_timestep
from spinlock.features.custom import Selection
from spinlock.features.response import extract_responses
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.runtime.device_choice import choose_device
from spinlock.runtime.device_memory import computed_in_memory
from spinlock.runtime.ordered_map import ordered_map, reproducible_map
from spinlock.runtime.progress import Progress
from spinlock.runtime.threads import shared_pool
from spinlock.simulation.provenance import provenance
from spinlock.storage import schema
from spinlock.storage.columns import feature_columns
from spinlock.storage.copying import require_copyable
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import require_seal
from spinlock.storage.feature_update import update_features
from spinlock.storage.locking import dataset_lock
from spinlock.storage.verify import require_intact

Columns = dict[str, NDArray[np.float32]]

_REMEDY = (
    "Its features are not computed again, since that would hide the damage: restore the file from "
    "a copy, or generate it again"
)


@dataclass(frozen=True)
class Extraction:
    """Result of `extract_features`.

    Attributes:
        samples: Number of samples whose features were computed.
        changed: Number of those whose features differ from the features in the file.
        rewritten: Whether the file was replaced. If not, it is unchanged, to the byte.
    """

    samples: int
    changed: int
    rewritten: bool


def extract_features(
    path: str | os.PathLike[str],
    *,
    features: Selection | None = None,
    responses: bool | None = None,
    max_samples: int | None = None,
    trust: Collection[str] = (),
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Extraction:
    """Recompute the features of a dataset file, and update the file if they differ.

    On the device and with the packages that generated the file, the features are the same to the
    bit and the file is left unchanged, so this is also a check. The features of all samples are
    held in memory. Replacing the file takes room for a copy on its disk. The lock of the dataset
    is held.

    Args:
        path: Dataset file. Every timestep of its trajectories must be stored in it.
        features: Feature set of the updated file, as in ``GenerationConfig.features``; it changes
            the fingerprint. Default: the feature set of the file.
        responses: Whether the updated file has response features, as in
            ``GenerationConfig.responses``; default: as in the file.
        max_samples: Number of samples, from the first, whose features are computed; the others keep
            their features. Default: all.
        trust: Modules from which features that the file itself names may be imported.
        device: Device to compute on; default: the current CUDA device, or the CPU.
        progress: Whether to show progress.

    Returns:
        Numbers of computed and changed samples, and whether the file was replaced.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If it is not a dataset, is damaged (naming the samples), lacks fields that the
            features need, or would have samples without features afterwards; or if the disk cannot
            take the data. The file is left unchanged.
        ConfigurationError: If an argument is not valid, or a feature is not trusted.
        SimulationError: If the memory of the device does not suffice. The file is left unchanged.

    Example:
        >>> import tempfile
        >>> from spinlock.configuration import IntegerRange, ParameterSpaceConfig
        >>> from spinlock.generation import generate
        >>> space = ParameterSpaceConfig(base_channels=IntegerRange(2, 3), grid_size=(24,))
        >>> config = GenerationConfig(2, parameter_space=space, num_realizations=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/data.h5"
        ...     generate(config, path, progress=False)
        ...     extract_features(path, progress=False)
        Extraction(samples=2, changed=0, rewritten=False)
    """
    require_at_least({"max_samples": max_samples}, 1)
    path = Path(path)
    # Checked before locking, so that no lock is left beside a file that is not a dataset.
    _Task(path, features, responses, max_samples, trust)
    try:
        # A link and the file it points to are one dataset.
        with dataset_lock(path.resolve()):
            # The file may have been replaced while this process waited.
            task = _Task(path, features, responses, max_samples, trust)
            return _run(task, choose_device(device), progress)
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"cannot update {path}: {in_a_line(error)}. It was left unchanged"
        ) from error


class _Task:
    """Features to compute: the file, the configuration of the new file, and the samples."""

    def __init__(
        self,
        path: Path,
        features: Selection | None,
        responses: bool | None,
        max_samples: int | None,
        trust: Collection[str],
    ) -> None:
        # The file that a link points to is replaced, not the link.
        self.path = path.resolve()
        with DatasetFile.open(path, trust=trust) as dataset:
            self.old = dataset.config
            self.config = self.old if features is None else _with_features(self.old, features)
            if responses is not None:
                self.config = dataclasses.replace(self.config, responses=responses)
            _require_fields(dataset, self.config.responses and not self.old.responses)
            dataset.validate()
            require_seal(dataset)
            require_copyable(dataset, self.config)
        self.custom = CustomFeatures(self.config.features, self.config.trusted_modules)
        held, wanted = schema.feature_specs(self.old), schema.feature_specs(self.config)
        # Custom features of one name may be those of another module.
        changed = self.config.features != self.old.features
        self.missing = [
            name
            for name, spec in wanted.items()
            if held.get(name) != spec or (changed and "/custom/" in name)
        ]
        rows = self.config.num_samples
        self.count = rows if max_samples is None else min(max_samples, rows)
        if self.missing and self.count < rows:
            raise DatasetError(
                f"{self.path} does not hold {', '.join(self.missing)} yet, so the features of all "
                f"its {rows} samples are needed: leave out max_samples={max_samples}"
            )


def _with_features(config: GenerationConfig, features: Selection) -> GenerationConfig:
    """Return a stored configuration with features that the caller names, and thereby trusts."""
    assert isinstance(config, StoredConfig)
    own = GenerationConfig(config.num_samples, features=features).vouched_modules
    trusted = (*config.trusted, *own)
    return dataclasses.replace(config, features=features, trusted=trusted)


def _require_fields(dataset: DatasetFile, adds_responses: bool) -> None:
    config = dataset.config
    steps = config.stored_steps
    if len(steps) < config.num_timesteps:
        # Generation computes response features before it drops fields.
        remedy = "storage.fields: all" + (" or responses: true" if adds_responses else "")
        raise DatasetError(
            f"{dataset.path} stores the fields of {len(steps)} of {config.num_timesteps} "
            f"timesteps (storage.fields: {config.storage.fields}), but features describe every "
            f"timestep. Generate the dataset again, with {remedy}"
        )


def _run(task: _Task, device: torch.device, progress: bool) -> Extraction:
    _remove_copies(task.path)
    require_intact(task.path, _REMEDY)
    changed, features = _compute(task, device, progress)
    rewrite = changed > 0 or task.config != task.old
    if rewrite:
        update_features(
            task.path, task.config, features, provenance(task.config, device), task.count
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Extraction(task.count, changed, rewrite)


def _compute(task: _Task, device: torch.device, progress: bool) -> tuple[int, Columns]:
    """Return the number of samples whose features changed, and the features of all samples."""
    changed = 0
    title = f"features of {task.path.name}"
    with (
        Progress(task.count, 0, title, enabled=progress) as bar,
        DatasetFile.open(task.path) as dataset,
        closing(_computed(dataset, task, device)) as results,
    ):
        features = {
            name: np.empty((task.config.num_samples, *spec.shape), spec.dtype)
            if name in task.missing
            else dataset.column(name)
            for name, spec in schema.feature_specs(task.config).items()
        }
        for rows, columns in results:
            part, differs = slice(rows.start, rows.stop), np.zeros(len(rows), dtype=bool)
            for name, values in columns.items():
                differs |= name in task.missing or _differs(values, features[name][part])
                features[name][part] = values
            changed += int(differs.sum())
            bar.update(len(rows))
    return changed, features


def _differs(values: NDArray[np.float32], stored: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return (n,) whether any feature of a sample differs."""
    same = (values == stored) | (np.isnan(values) & np.isnan(stored))
    return np.asarray(~same.reshape(len(values), -1).all(axis=1))


def _computed(
    dataset: DatasetFile, task: _Task, device: torch.device
) -> Generator[tuple[range, Columns], None, None]:
    """Iterate over features of consecutive samples, in tensors of the shapes of generation."""
    config, cpu = task.config, device.type == "cpu"
    # As in the simulator: on a CPU one thread per sample, elsewhere a whole block at a time.
    size = 1 if cpu else config.block_size

    def blocks() -> Iterator[tuple[range, Tensor, Tensor]]:
        for start in range(0, task.count, size):
            rows = range(start, min(start + size, task.count))
            initial, fields = (
                torch.from_numpy(dataset.column(name, rows))
                for name in (schema.INPUTS, schema.OUTPUTS)
            )
            shape = (len(rows), config.num_realizations, -1, *initial.shape[1:])
            yield rows, initial, fields.reshape(shape)

    def features(block: tuple[range, Tensor, Tensor]) -> tuple[range, Columns]:
        rows, initial, fields = block
        columns = computed_in_memory(
            lambda: _features(task, initial, fields, size, device),
            device,
            f"features of samples {rows.start}..{rows.stop - 1} of {task.path}",
            "Compute on another device, for example the CPU (device='cpu', --device cpu)",
        )
        return rows, columns

    if cpu:
        return reproducible_map(features, blocks())
    return ordered_map(shared_pool("features", 1), features, blocks(), limit=1)


def _features(
    task: _Task, initial: Tensor, fields: Tensor, size: int, device: torch.device
) -> Columns:
    """Return the features of n samples in a batch of ``size``: name of the dataset -> (n, ...)."""
    count = len(initial)
    with torch.inference_mode(), fixed_arithmetic(device):
        initial, fields = (_padded(tensor, size).to(device) for tensor in (initial, fields))
        first = extract_per_timestep(initial[:, None, None])[:, 0]
        responses = extract_responses(initial, fields) if task.config.responses else None
        custom = task.custom.extract(initial, fields)
        tensors = feature_columns(extract(fields), first, custom, responses)
        wanted = schema.feature_specs(task.config)
        return {name: tensors[name][:count].cpu().numpy() for name in wanted}


def _padded(tensor: Tensor, size: int) -> Tensor:
    # Copies of a real sample: a custom feature may not be defined for zeros.
    return torch.cat((tensor, tensor[-1:].expand(size - len(tensor), *tensor.shape[1:])))


def _remove_copies(path: Path) -> None:
    """Remove copies of the file that killed runs left; under the lock they are not in use."""
    for copy in path.parent.glob(f".{glob.escape(path.name)}.{32 * '[0-9a-f]'}.tmp"):
        copy.unlink()
