"""Features of an existing dataset file, computed again from the fields that it stores.

The file is verified first, and never changed in place: features that differ from those it holds are
written to a new file, which then takes its place in one step.
"""

import dataclasses
import glob
import os
import uuid
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.features import CustomFeatures, extract, extract_per_timestep
from spinlock.features.custom import Selection
from spinlock.runtime.arithmetic import fixed_arithmetic
from spinlock.runtime.progress import Progress
from spinlock.runtime.threads import settle_vector_math, use_one_thread
from spinlock.simulation.provenance import provenance
from spinlock.simulation.simulator import choose_device
from spinlock.storage import schema
from spinlock.storage.foreign import require_copyable
from spinlock.storage.layout import open_hdf5, read_configuration, validate_layout
from spinlock.storage.locking import dataset_lock
from spinlock.storage.seal import require_seal
from spinlock.storage.update import feature_specs, update_features
from spinlock.storage.verify import require_intact

Columns = dict[str, NDArray[np.float32]]

_REMEDY = (
    "Its features are not computed again, since that would hide the damage: restore the file from "
    "a copy, or generate it anew"
)


@dataclass(frozen=True)
class Extraction:
    """What became of a file.

    Attributes:
        samples: Number of samples whose features were computed.
        changed: Number of those whose features differ from what the file held.
        rewritten: Whether the file was replaced; if not, it is as it was, to the byte.
    """

    samples: int
    changed: int
    rewritten: bool


def extract_features(
    path: str | os.PathLike[str],
    *,
    features: Selection | None = None,
    max_samples: int | None = None,
    trust: Collection[str] = (),
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Extraction:
    """Compute the features of a dataset file again, and bring it up to date if they differ.

    On the device (and with the packages) that generated the file they are the same to the bit, and
    the file is left alone; so this is a check, too. Memory does not grow with the file. Replacing
    it takes room for a copy on its disk. Holds the lock that generation holds.

    Args:
        path: Dataset file. Every timestep of its trajectories must be stored in it.
        features: Feature set that the file shall hold from now on, as in
            ``GenerationConfig.features``; it changes the file's fingerprint. Default: its own.
        max_samples: Number of samples, from the first, whose features are computed; the others keep
            theirs. Default: all.
        trust: Modules of which the features that the file itself names may be imported.
        device: Device to compute on; default: the first CUDA device, or the CPU.
        progress: Whether to show progress.

    Returns:
        What was computed and changed.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If it is not a dataset, is damaged (naming the samples), lacks fields that the
            features need, or would be left with samples that have no features; or if the disk
            cannot take the data. The file is as it was.
        ConfigurationError: If an argument is not valid, or a feature is not trusted.
    """
    if max_samples is not None and max_samples < 1:
        raise ConfigurationError(f"max_samples: must be at least 1, got {max_samples}")
    path = Path(path)
    # Before the lock, so that none is left beside what is no dataset.
    _Source(path, features, trust).count(max_samples)
    try:
        # A link and the file it points to are one dataset.
        with dataset_lock(path.resolve()):
            # The file may have been replaced while this process waited.
            source = _Source(path, features, trust)
            return _run(source, source.count(max_samples), choose_device(device), progress)
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"cannot update {path}: {error}. It is as it was") from error


class _Source:
    """The file as it is, and the configuration that it shall have."""

    def __init__(self, path: Path, features: Selection | None, trust: Collection[str]) -> None:
        # A link stays a link; the file it points to is what is replaced.
        self.path = path.resolve()
        with open_hdf5(path) as file:
            self.old = read_configuration(file, trust)
            self.config = self.old
            if features is not None:
                # The caller names these features, and so trusts them.
                own = GenerationConfig(self.old.num_samples, features=features).vouched_modules
                trusted = (*self.old.trusted, *own)
                self.config = dataclasses.replace(self.old, features=features, trusted=trusted)
            _require_fields(file, self.old)
            validate_layout(file, self.old, self.old.num_samples)
            require_seal(file, self.old)
            require_copyable(file, self.old, self.config)
        self.custom = CustomFeatures(self.config.features, self.config.trusted_modules)
        held = {spec.name: spec for spec in feature_specs(self.old)}
        # Custom features of one name may be those of another module.
        changed = self.config.features != self.old.features
        self.missing = [
            spec.name
            for spec in feature_specs(self.config)
            if held.get(spec.name) != spec or (changed and "/custom/" in spec.name)
        ]

    def count(self, max_samples: int | None) -> int:
        """Samples to compute; refuses what would leave others without features."""
        rows = self.config.num_samples
        count = rows if max_samples is None else min(max_samples, rows)
        if self.missing and count < rows:
            raise DatasetError(
                f"{self.path} does not hold {', '.join(self.missing)} yet, so the features of all "
                f"its {rows} samples are needed: leave out max_samples={max_samples}"
            )
        return count


def _require_fields(file: h5py.File, config: GenerationConfig) -> None:
    steps = config.stored_steps
    if len(steps) < config.num_timesteps:
        raise DatasetError(
            f"{file.filename} stores the fields of {len(steps)} of {config.num_timesteps} "
            f"timesteps (storage.fields: {config.storage.fields}), and features describe every "
            "one. Generate the dataset anew, with storage.fields: all"
        )


def _run(source: _Source, count: int, device: torch.device, progress: bool) -> Extraction:
    _remove_copies(source.path)
    require_intact(source.path, _REMEDY)
    scratch = source.path.with_name(f".{source.path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with h5py.File(scratch, "x") as computed:
            changed = _compute(source, computed, count, device, progress)
            rewrite = changed > 0 or source.config != source.old
            if rewrite:
                record = provenance(source.config, device)
                update_features(source.path, source.config, computed, record)
    finally:
        scratch.unlink(missing_ok=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Extraction(count, changed, rewrite)


def _compute(
    source: _Source, computed: h5py.File, count: int, device: torch.device, progress: bool
) -> int:
    """Fill a file with the features of all samples; returns how many of them changed."""
    rows, changed = source.config.num_samples, 0
    specs = feature_specs(source.config)
    for spec in specs:
        computed.create_dataset(spec.name, (rows, *spec.shape), spec.dtype)
    title = f"features of {source.path.name}"
    with (
        Progress(count, 0, title, enabled=progress) as bar,
        open_hdf5(source.path) as file,
    ):
        start = 0
        for columns in _computed(file, source, device, range(count)):
            stop = start + len(next(iter(columns.values())))
            differs = np.zeros(stop - start, dtype=bool)
            for name, values in columns.items():
                computed[name][start:stop] = values
                differs |= name in source.missing or _differs(values, file[name][start:stop])
            changed += int(differs.sum())
            bar.update(stop - start)
            start = stop
        for spec in specs:
            if count < rows:
                computed[spec.name][count:] = file[spec.name][count:]
    return changed


def _differs(values: NDArray[np.float32], stored: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) whether any feature of a sample differs."""
    same = (values == stored) | (np.isnan(values) & np.isnan(stored))
    return np.asarray(~same.reshape(len(values), -1).all(axis=1))


def _computed(
    file: h5py.File, source: _Source, device: torch.device, samples: range
) -> Iterator[Columns]:
    """Features of consecutive samples, computed in tensors of the shapes that generation uses."""
    config = source.config
    # As in the simulator: on a CPU one thread per sample, elsewhere a whole block at a time.
    cpu = device.type == "cpu"
    size = 1 if cpu else config.block_size
    threads = torch.get_num_threads() if cpu else 1
    settle_vector_math()
    pool = ThreadPoolExecutor(threads, initializer=use_one_thread if cpu else None)
    pending: deque[Future[Columns]] = deque()
    with pool:
        try:
            for start in range(samples.start, samples.stop, size):
                rows = range(start, min(start + size, samples.stop))
                initial, fields = (
                    torch.from_numpy(file[name][rows.start : rows.stop])
                    for name in (schema.INPUTS, schema.OUTPUTS)
                )
                fields = fields.reshape(len(rows), config.num_realizations, -1, *initial.shape[1:])
                task = pool.submit(
                    _features, source.custom, initial, fields, size, device, config.precision
                )
                pending.append(task)
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            if cpu:
                # The last call anywhere is the default of threads to come.
                torch.set_num_threads(threads)


def _features(
    custom: CustomFeatures,
    initial: Tensor,
    fields: Tensor,
    size: int,
    device: torch.device,
    precision: str = "float32",
) -> Columns:
    """Features of n samples, filled up to ``size`` of them: dataset -> (n, ...)."""
    count = len(initial)
    with torch.inference_mode(), fixed_arithmetic(precision, device):
        initial, fields = (_padded(tensor, size).to(device) for tensor in (initial, fields))
        sdf = extract(fields)
        tensors = {
            schema.PER_TIMESTEP: sdf.per_timestep,
            schema.PER_TRAJECTORY: sdf.per_trajectory,
            schema.AGGREGATED: sdf.aggregated,
            schema.INITIAL_FEATURES: extract_per_timestep(initial[:, None, None])[:, 0],
        }
        for array, values in custom.extract(initial, fields).items():
            tensors[schema.custom_features(array)] = values
        return {name: values[:count].cpu().numpy() for name, values in tensors.items()}


def _padded(tensor: Tensor, size: int) -> Tensor:
    # With copies of a real sample: a feature of the user's own need not know what zeros are.
    return torch.cat((tensor, tensor[-1:].expand(size - len(tensor), *tensor.shape[1:])))


def _remove_copies(path: Path) -> None:
    """Remove copies of the file that killed runs left; whoever holds the lock knows them unused."""
    for copy in path.parent.glob(f".{glob.escape(path.name)}.{32 * '[0-9a-f]'}.tmp"):
        copy.unlink()
