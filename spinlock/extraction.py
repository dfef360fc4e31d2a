"""Features of an existing dataset file, computed again from the fields that it stores.

The file is never changed in place. Features are computed in parts that lie beside it until all are
there, so that an interrupted run goes on from them. If they differ from what the file holds, they
are written to a copy of the file, which then takes its place in one step.
"""

import dataclasses
import glob
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from spinlock.config import GenerationConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.features import SDF_VERSION, CustomFeatures, extract, extract_per_timestep
from spinlock.features.custom import Selection
from spinlock.progress import Progress
from spinlock.provenance import provenance
from spinlock.simulation import choose_device
from spinlock.storage import schema
from spinlock.storage.layout import open_hdf5, read_configuration
from spinlock.storage.locking import dataset_lock
from spinlock.storage.shards import publish
from spinlock.storage.update import Columns, missing_features, update_features
from spinlock.threads import settle_vector_math, use_one_thread

# One digit of the names of unfinished work: nothing else is ever removed.
_HEX = "[0-9a-f]"


@dataclass(frozen=True)
class Extraction:
    """What became of a file.

    Attributes:
        samples: Samples whose features were computed.
        changed: Those among them whose features differ from what the file held.
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
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Extraction:
    """Compute the features of a dataset file again, and bring it up to date if they differ.

    On the device (and with the packages) that generated the file they are the same to the bit, and
    the file is left alone; so this is a check, too. Memory does not grow with the file. Replacing
    it takes room for a copy on its disk. Holds the lock that generation holds.

    Args:
        path: The file. Every timestep of its trajectories must be stored in it.
        features: The feature set that the file shall hold from now on, as in
            ``GenerationConfig.features``; it changes the file's fingerprint. By default its own.
        max_samples: Compute those of the first so many samples only; the rest keep theirs.
        device: Where to compute; by default the first CUDA device, or the CPU.
        progress: Whether to show progress.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If it is no dataset, lacks fields that the features need, or would be left
            with samples that have no features; or if the disk cannot take the data. The file is as
            it was.
        ConfigurationError: If an argument is not valid.
    """
    if max_samples is not None and max_samples < 1:
        raise ConfigurationError(f"max_samples: must be at least 1, got {max_samples}")
    path = Path(path)
    # Before the lock, so that none is left beside what is no dataset.
    _Source(path, features).count(max_samples)
    try:
        # A link and the file it points to are one dataset.
        with dataset_lock(path.resolve()):
            # The file may have been replaced while this process waited.
            source = _Source(path, features)
            return _run(source, source.count(max_samples), choose_device(device), progress)
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"cannot update {path}: {error}. It is as it was; the next run goes on from the "
            "features computed so far"
        ) from error


class _Source:
    """The file as it is, and the configuration that it shall have."""

    def __init__(self, path: Path, features: Selection | None) -> None:
        # A link stays a link; the file it points to is what is replaced.
        self.path = path.resolve()
        with open_hdf5(path) as file:
            self.old = read_configuration(file)
            self.config = self.old
            if features is not None:
                self.config = dataclasses.replace(self.old, features=features)
            _require_fields(file, self.old)
            self.custom = CustomFeatures(self.config.features)
            self.missing = missing_features(file, self.old, self.config)

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

    def parts_folder(self, device: torch.device) -> Path:
        """Where unfinished work lies: another file, device or package does not continue it."""
        stat = self.path.stat()
        identity = [
            self.config.fingerprint,
            [stat.st_size, stat.st_mtime_ns],
            [SDF_VERSION, provenance(self.config, device)],
        ]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        return self.path.with_name(f"{self.path.name}.features") / key


def _require_fields(file: h5py.File, config: GenerationConfig) -> None:
    steps = config.stored_steps
    if len(steps) < config.num_timesteps:
        raise DatasetError(
            f"{file.filename} stores the fields of {len(steps)} of {config.num_timesteps} "
            f"timesteps (storage.fields: {config.storage.fields}), and features describe every "
            "one. Generate the dataset anew, with storage.fields: all"
        )
    for spec in schema.dataset_specs(config):
        if spec.name not in (schema.INPUTS, schema.OUTPUTS):
            continue
        expected = (config.num_samples, *spec.shape)
        found = file[spec.name].shape if spec.name in file else "missing"
        if found != expected:
            raise DatasetError(f"{file.filename}: {spec.name} is {found}, expected {expected}")


def _run(source: _Source, count: int, device: torch.device, progress: bool) -> Extraction:
    folder = source.parts_folder(device)
    _remove_copies(source.path)
    _remove(folder.parent, keep=folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = source.config.storage.shard_size
    ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
    todo = [part for part in ranges if not _part_path(folder, part).exists()]
    done = count - sum(map(len, todo))
    with (
        Progress(count, done, f"features of {source.path.name}", enabled=progress) as bar,
        open_hdf5(source.path) as file,
    ):
        for part in todo:
            computed = []
            for columns in _computed(file, source, device, part):
                computed.append(columns)
                bar.update(len(next(iter(columns.values()))))
            _save(_part_path(folder, part), computed)
        changed = sum(_count_changed(file, source, folder, part) for part in ranges)
    rewrite = changed > 0 or source.config != source.old
    if rewrite:
        parts = ((part, _load(folder, part)) for part in ranges)
        record = provenance(source.config, device)
        update_features(source.path, source.config, source.missing, parts, record)
    _remove(folder.parent)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Extraction(count, changed, rewrite)


def _computed(
    file: h5py.File, source: _Source, device: torch.device, samples: range
) -> Iterator[Columns]:
    """Features of consecutive samples, computed in tensors of the shapes that generation uses."""
    config = source.config
    # As in spinlock.simulation: on a CPU one thread per sample, elsewhere a whole block at a time.
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
                task = pool.submit(_features, source.custom, initial, fields, size, device)
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
    custom: CustomFeatures, initial: Tensor, fields: Tensor, size: int, device: torch.device
) -> Columns:
    """Features of n samples, filled up to ``size`` of them: dataset -> (n, ...)."""
    count = len(initial)
    with torch.inference_mode():
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


def _part_path(folder: Path, part: range) -> Path:
    return folder / f"samples-{part.start:010d}-{part.stop:010d}.npz"


def _save(path: Path, computed: list[Columns]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        columns: dict[str, Any] = {
            name: np.concatenate([one[name] for one in computed]) for name in computed[0]
        }
        np.savez(file, **columns)
    publish(temporary, path, replace=True)


def _load(folder: Path, part: range) -> Columns:
    with np.load(_part_path(folder, part)) as columns:
        return dict(columns)


def _count_changed(file: h5py.File, source: _Source, folder: Path, part: range) -> int:
    """Samples of a part whose features are not those in the file."""
    changed = np.zeros(len(part), dtype=bool)
    for name, values in _load(folder, part).items():
        if name in source.missing:
            return len(part)
        stored = file[name][part.start : part.stop]
        same = (values == stored) | (np.isnan(values) & np.isnan(stored))
        changed |= ~same.reshape(len(part), -1).all(axis=1)
    return int(changed.sum())


def _remove_copies(path: Path) -> None:
    """Remove copies of the file that killed runs left; whoever holds the lock knows them unused."""
    for copy in path.parent.glob(f".{glob.escape(path.name)}.{32 * _HEX}.tmp"):
        copy.unlink()


def _remove(folder: Path, keep: Path | None = None) -> None:
    """Remove finished or stale parts, and the folder if nothing is left in it."""
    for child in folder.glob(16 * _HEX):
        if child != keep:
            shutil.rmtree(child)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
