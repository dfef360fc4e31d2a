"""Generates the dataset file of a configuration.

Missing samples are computed in shards, which are then assembled into one file. Finished shards
survive any interruption, and the next run resumes from them. An existing dataset is extended if
more samples are requested, and is never changed otherwise.
"""

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation.run_summary import describe_design, describe_run, summarize_run
from spinlock.generation.shard_task import ShardTask, compute_shards
from spinlock.runtime.local_paths import local_path
from spinlock.runtime.progress import Progress, announce
from spinlock.simulation.simulator import Simulator
from spinlock.storage.assemble import Plan, assemble, plan_assembly
from spinlock.storage.copying import require_copyable
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.locking import dataset_lock
from spinlock.storage.reader import require_dataset
from spinlock.storage.shards import Shard, list_shards, remove_shards, shard_folder
from spinlock.storage.verify import require_intact, verify_shard

_LOG = logging.getLogger(__name__)


def generate(
    config: GenerationConfig,
    path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> None:
    """Generate a dataset file unless it exists already.

    Does nothing if the file contains this dataset with at least ``config.num_samples`` samples. Any
    number of processes may request the same file: one builds it, and the others wait.

    Args:
        config: Configuration of the dataset.
        path: Path of the dataset file.
        device: Device that computes the samples; default: the current CUDA device (of each worker),
            or the CPU.
        executor: Executor that computes the shards, see `spinlock.generation.executors`; default:
            this process computes them. The executor is not shut down.
        progress: Whether to show progress and a final summary; default: True.

    Raises:
        DatasetError: If the path is a directory or another file, which is left unchanged, or if the
            data cannot be written.
        ConfigurationError: If the configuration cannot be simulated.

    Example:
        >>> import tempfile
        >>> from spinlock.configuration import IntegerRange, ParameterSpaceConfig
        >>> space = ParameterSpaceConfig(base_channels=IntegerRange(2, 3), grid_size=(32,))
        >>> config = GenerationConfig(2, parameter_space=space, num_realizations=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     generate(config, f"{folder}/data.h5", progress=False)
        ...     print(require_dataset(f"{folder}/data.h5", config).config.num_samples)
        2
    """
    path = _real(path)
    if _held(config, path) >= config.num_samples:
        return
    # This refuses what cannot be simulated before anything is written. Workers have devices of
    # their own.
    simulator = Simulator(config, device if executor is None else "cpu")
    with _writing(path), dataset_lock(path):
        # Another process may have built it while this one waited.
        held = _held(config, path)
        if held < config.num_samples:
            _build(simulator, path, held, device, executor, progress)


def generate_part(
    config: GenerationConfig,
    path: str | os.PathLike[str],
    part: int,
    num_parts: int,
    *,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> None:
    """Compute every ``num_parts``-th shard of a dataset.

    Parts may be computed at the same time, in any order and repeatedly, on any machines that share
    the folder. `assemble_parts` joins them.

    Args:
        config: Configuration of the dataset.
        path: Path of the dataset file, which is not written yet.
        part: Number of the part, in 1..num_parts.
        num_parts: Number of parts.
        device: Device that computes the samples, as for `generate`.
        progress: Whether to show progress; default: True.

    Raises:
        ConfigurationError: If the part does not exist, or the configuration cannot be simulated.
        DatasetError: As for `generate`.
    """
    if not 1 <= part <= num_parts:
        raise ConfigurationError(f"part: must lie in 1..{num_parts}, got {part}")
    path = _real(path)
    held = _held(config, path)
    simulator = Simulator(config, device)
    size = config.storage.shard_size
    with _writing(path):
        plan = _plan(config, path, held)
        tasks = [
            task
            for task in _tasks(config, path, plan, device)
            if task.start // size % num_parts == part - 1
        ]
        with Progress(
            sum(task.stop - task.start for task in tasks),
            0,
            f"{path.name} part {part}/{num_parts}",
            enabled=progress,
        ) as bar:
            compute_shards(tasks, simulator, None, bar.update)


def assemble_parts(config: GenerationConfig, path: str | os.PathLike[str]) -> None:
    """Join the parts that `generate_part` computed into the dataset file.

    Args:
        config: Configuration of the dataset.
        path: Path of the dataset file.

    Raises:
        DatasetError: If samples are missing. Names them; damaged shards count as missing.
    """
    path = _real(path)
    if _held(config, path) >= config.num_samples:
        return
    with _writing(path), dataset_lock(path):
        held = _held(config, path)
        if held >= config.num_samples:
            return
        _verify(path, held)
        plan = _plan(config, path, held)
        if plan.gaps:
            ranges = ", ".join(f"{gap.start}..{gap.stop - 1}" for gap in plan.gaps)
            raise DatasetError(
                f"{path}: samples {ranges} are missing. Compute them with generate --part, or run "
                "generate, which computes missing samples and assembles the file"
            )
        _assemble(config, path, plan, summarize_run([], 0.0, config.num_samples))


def _real(path: str | os.PathLike[str]) -> Path:
    """Return the file that a link points to, so that extending it does not replace the link."""
    return local_path(path).resolve()


def _held(config: GenerationConfig, path: Path) -> int:
    """Return the number of samples of this dataset in the file; 0 without a file."""
    if not path.exists():
        return 0
    return require_dataset(path, config).config.num_samples


def _verify(path: Path, held: int) -> None:
    """Verify a file that will be extended, before samples are computed for it."""
    if held:
        require_intact(path, "Restore it from a copy, or generate the dataset to another path")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert errors of the file system into an error that states what happens to the work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"cannot write {path}: {_reason(error)}. Existing files are unchanged; finished shards "
            "are kept, and the next run resumes from them"
        ) from error


def _reason(error: OSError | MemoryError) -> str:
    """Describe an error of the system, whose message is shorter than the one of HDF5."""
    if isinstance(error, MemoryError):
        return "out of memory"
    return os.strerror(error.errno) if error.errno else str(error)


def _plan(config: GenerationConfig, path: Path, held: int) -> Plan:
    """Find the samples that exist, in the file and in intact shards, and those that are missing.

    A damaged shard stays until a new one replaces it, or until the dataset is complete. A shard
    that cannot be read at present stops the run, because it may be intact.
    """
    sources = []
    if held:
        with DatasetFile.open(path) as dataset:
            require_copyable(dataset, config)
        sources = [Shard(path, 0, held)]
    folder = shard_folder(config, path)
    folder.mkdir(parents=True, exist_ok=True)
    for shard in list_shards(folder):
        try:
            verify_shard(shard, config)
            sources.append(shard)
        except DatasetError as error:
            _LOG.warning("computing samples %d..%d again: %s", shard.start, shard.stop - 1, error)
        except (OSError, MemoryError) as error:
            raise DatasetError(
                f"cannot read {shard.path}: {_reason(error)}. The shard may be intact and was left "
                "unchanged; run the command again when it can be read, or remove it"
            ) from error
    return plan_assembly(config.num_samples, sources)


def _tasks(
    config: GenerationConfig, path: Path, plan: Plan, device: str | torch.device | None
) -> list[ShardTask]:
    """Return the tasks that fill the gaps of a plan, cut at multiples of the shard size."""
    size, folder = config.storage.shard_size, shard_folder(config, path)
    where = None if device is None else str(device)
    tasks = []
    for gap in plan.gaps:
        start = gap.start
        while start < gap.stop:
            stop = min((start // size + 1) * size, gap.stop)
            tasks.append(ShardTask(config, folder, start, stop, where))
            start = stop
    return tasks


def _build(
    simulator: Simulator,
    path: Path,
    held: int,
    device: str | torch.device | None,
    executor: Executor | None,
    progress: bool,
) -> None:
    start, config = time.monotonic(), simulator.config
    _verify(path, held)
    plan = _plan(config, path, held)
    tasks = _tasks(config, path, plan, device)
    missing = sum(task.stop - task.start for task in tasks)
    done = config.num_samples - missing
    existing = f", {done} exist already" if done else ""
    _LOG.info("%s: computing %d samples%s", path, missing, existing)
    with Progress(config.num_samples, done, path.name, enabled=progress) as bar:
        reports = compute_shards(tasks, simulator, executor, bar.update)
    sources = [segment.source for segment in plan.segments] + [task.shard for task in tasks]
    summary = summarize_run(reports, time.monotonic() - start, config.num_samples)
    _assemble(config, path, plan_assembly(config.num_samples, sources), summary)
    if progress:
        texts = describe_run(summary) | {"design": describe_design(summary["design_quality"])}
        announce("\n".join(f"{title}: {text}" for title, text in texts.items()))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _assemble(config: GenerationConfig, path: Path, plan: Plan, summary: dict[str, Any]) -> None:
    folder = shard_folder(config, path)
    try:
        assemble(config, plan.segments, path, folder, summary)
    except FileExistsError as error:
        raise DatasetError(
            f"{path} was created by another program while the dataset was built, and was left "
            f"unchanged; the shards are kept in {folder}"
        ) from error
    if remove_shards(folder, config.num_samples):
        _LOG.warning("%s has shards of another or a longer dataset; they are kept", folder.parent)
