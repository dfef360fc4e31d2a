"""Generation: a configuration and a path -> one complete dataset file.

The samples that are missing are computed in shards, and all are assembled into one file. Whatever
interrupts a run, finished shards are kept and the next run goes on from them; a dataset that exists
is extended when more samples are asked for, and never otherwise touched.
"""

import json
import logging
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from spinlock.config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.progress import Progress
from spinlock.simulation import Simulator
from spinlock.storage.assemble import Plan, assemble, plan_assembly
from spinlock.storage.layout import open_hdf5, read_configuration, validate_layout
from spinlock.storage.reader import require_dataset
from spinlock.storage.shards import Shard, list_shards, shard_path, write_shard

_LOG = logging.getLogger(__name__)
# The packages whose versions may change a sample's bytes.
_PACKAGES = ("spinlock", "torch", "numpy", "scipy", "h5py", "isal")


def generate(
    config: GenerationConfig,
    path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> None:
    """Make sure that a complete dataset file exists.

    Does nothing when the file holds this dataset with at least ``config.num_samples`` samples. Any
    number of processes may ask for the same file: one builds it, the others wait.

    Args:
        config: The dataset.
        path: Its file.
        device: Where to compute; by default the first CUDA device, or the CPU.
        progress: Whether to show progress.

    Raises:
        DatasetError: If the path is a directory, or a file that is not this dataset. It is left as
            it is.
        ConfigurationError: If the configuration cannot be simulated.
    """
    path = Path(path)
    if _held(config, path) >= config.num_samples:
        return
    simulator = Simulator(config, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        # Another process may have built it while this one waited.
        held = _held(config, path)
        if held < config.num_samples:
            _build(simulator, path, held, progress)


def shard_folder(config: GenerationConfig, path: Path) -> Path:
    """Where the shards of an unfinished dataset lie: beside it, by fingerprint."""
    return path.with_name(f"{path.name}.parts") / config.fingerprint[:16]


def _held(config: GenerationConfig, path: Path) -> int:
    """Samples of this dataset in the file; 0 if there is none."""
    if not path.exists():
        return 0
    return require_dataset(path, config).config.num_samples


def _lock(path: Path) -> FileLock:
    """The lock of a dataset file, acquired; says so when it has to wait."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _LOG.warning("%s is being built by another process; waiting for it", path)
        lock.acquire()
    return lock


def _build(simulator: Simulator, path: Path, held: int, progress: bool) -> None:
    config = simulator.config
    folder = shard_folder(config, path)
    folder.mkdir(parents=True, exist_ok=True)
    existing = [Shard(path, 0, held)] if held else []
    plan = plan_assembly(config.num_samples, existing + _usable_shards(config, folder))
    missing = sum(len(gap) for gap in plan.gaps)
    done = config.num_samples - missing
    _LOG.info("%s: computing %d samples on %s, %d are there", path, missing, simulator.device, done)
    with Progress(config.num_samples, done, path.name, enabled=progress) as bar:
        _compute(simulator, folder, plan, bar)
    plan = plan_assembly(config.num_samples, existing + _usable_shards(config, folder))
    assemble(config, plan.segments, path)
    _remove_shards(folder)
    if simulator.device.type == "cuda":
        torch.cuda.empty_cache()


def _compute(simulator: Simulator, folder: Path, plan: Plan, bar: Progress) -> None:
    """Fill the gaps of a plan with shards, cut at multiples of the shard size."""
    config = simulator.config
    size = config.storage.shard_size
    provenance = _provenance(simulator.device)
    for gap in plan.gaps:
        start = gap.start
        while start < gap.stop:
            stop = min((start // size + 1) * size, gap.stop)
            samples = simulator.samples(start, stop)
            target = shard_path(folder, start, stop)
            write_shard(target, config, start, stop, samples, provenance, bar.update)
            start = stop


def _usable_shards(config: GenerationConfig, folder: Path) -> list[Shard]:
    """The shards of an earlier run that are whole; others are removed, to be computed again."""
    usable = []
    for shard in list_shards(folder):
        try:
            with open_hdf5(shard.path) as file:
                if read_configuration(file).fingerprint != config.fingerprint:
                    raise DatasetError(f"{shard.path} belongs to another dataset")
                validate_layout(file, config, shard.stop - shard.start)
        except DatasetError as error:
            _LOG.warning("computing samples %d..%d again: %s", shard.start, shard.stop, error)
            shard.path.unlink()
        else:
            usable.append(shard)
    return usable


def _remove_shards(folder: Path) -> None:
    for leftover in folder.iterdir():
        leftover.unlink()
    folder.rmdir()
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def _provenance(device: torch.device) -> dict[str, str]:
    """The root attributes that tell what computes the samples."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "package_versions": json.dumps([{package: version(package) for package in _PACKAGES}]),
        "device": json.dumps([{"type": device.type, "name": name}]),
    }
