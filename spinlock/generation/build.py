"""Generates the dataset file of a configuration.

Missing samples are computed in shards, which are then assembled into one file. Finished shards
survive any interruption, and the next run resumes from them. An existing dataset is extended if
more samples are requested, and is never changed otherwise.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation.incremental_assembly import IncrementalAssembly
from spinlock.generation.run_summary import describe_design, describe_run, summarize_run
from spinlock.generation.shard_plan import (
    find_sources,
    held_samples,
    missing_shards,
    reason,
)
from spinlock.generation.shard_sizes import shard_size
from spinlock.generation.shard_task import compute_shards
from spinlock.runtime.local_paths import local_path
from spinlock.runtime.progress import Progress, announce
from spinlock.simulation.simulator import Simulator
from spinlock.storage.assembly_plan import Plan, plan_assembly
from spinlock.storage.locking import dataset_lock
from spinlock.storage.shard_files import Shard, remove_shards, shard_folder
from spinlock.storage.verify import require_intact

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
        >>> from spinlock.storage import require_dataset
        >>> space = ParameterSpaceConfig(base_channels=IntegerRange(2, 3), grid_size=(32,))
        >>> config = GenerationConfig(2, parameter_space=space, num_realizations=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     generate(config, f"{folder}/data.h5", progress=False)
        ...     print(require_dataset(f"{folder}/data.h5", config).config.num_samples)
        2
    """
    path = _real(path)
    held, config = held_samples(config, path)
    if held >= config.num_samples:
        return
    # This refuses what cannot be simulated before anything is written. Workers have devices of
    # their own.
    simulator = Simulator(config, device if executor is None else "cpu")
    with _writing(path), dataset_lock(path), _no_empty_folders(config, path):
        # Another process may have built it while this one waited.
        held, config = held_samples(config, path)
        if held < config.num_samples:
            _build(config, simulator, path, held, device, executor, progress)


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
    held, config = held_samples(config, path)
    simulator = Simulator(config, device)
    # The same on any device: parts may be computed on several.
    size = shard_size(config)
    with _writing(path):
        plan = find_sources(config, path, held)
        tasks = [
            task
            for task in missing_shards(config, path, plan, device, size)
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
    held, config = held_samples(config, path)
    if held >= config.num_samples:
        return
    with _writing(path), dataset_lock(path), _no_empty_folders(config, path):
        held, config = held_samples(config, path)
        if held >= config.num_samples:
            return
        _verify(path, held)
        plan = find_sources(config, path, held)
        if plan.gaps:
            ranges = ", ".join(f"{gap.start}..{gap.stop - 1}" for gap in plan.gaps)
            raise DatasetError(
                f"{path}: samples {ranges} are missing. Compute them with generate --part, or run "
                "generate, which computes missing samples and assembles the file"
            )
        with _assembly(config, path, plan, (), held) as assembly:
            _finish(config, path, assembly, summarize_run([], 0.0, config.num_samples))


def _real(path: str | os.PathLike[str]) -> Path:
    """Return the file that a link points to, so that extending it does not replace the link."""
    return local_path(path).resolve()


def _verify(path: Path, held: int) -> None:
    """Verify a file that will be extended, before samples are computed for it."""
    if held:
        require_intact(path, "Restore it from a copy, or generate the dataset to another path")


@contextmanager
def _no_empty_folders(config: GenerationConfig, path: Path) -> Iterator[None]:
    """Remove the folders of shards that a failed run leaves empty; the lock must be held."""
    try:
        yield
    except BaseException:
        folder = shard_folder(config, path)
        # A folder with shards is not removed.
        with suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()
        raise


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
            f"cannot write {path}: {reason(error)}. Existing files are unchanged; finished shards "
            "are kept, and the next run resumes from them"
        ) from error


def _build(
    config: GenerationConfig,
    simulator: Simulator,
    path: Path,
    held: int,
    device: str | torch.device | None,
    executor: Executor | None,
    progress: bool,
) -> None:
    start = time.monotonic()
    _verify(path, held)
    plan = find_sources(config, path, held)
    # What devices the workers of an executor have is not known here.
    size = shard_size(config, simulator.device if executor is None else None)
    tasks = missing_shards(config, path, plan, device, size)
    missing = sum(task.stop - task.start for task in tasks)
    done = config.num_samples - missing
    existing = f", {done} exist already" if done else ""
    _LOG.info("%s: computing %d samples%s", path, missing, existing)
    shards = [task.shard for task in tasks]
    with _assembly(config, path, plan, shards, held) as assembly:
        with Progress(config.num_samples, done, path.name, enabled=progress) as bar:
            reports = compute_shards(tasks, simulator, executor, bar.update, assembly.add)
        summary = summarize_run(reports, time.monotonic() - start, config.num_samples)
        _finish(config, path, assembly, summary)
    if progress:
        texts = describe_run(summary) | {"design": describe_design(summary["design_quality"])}
        announce("\n".join(f"{title}: {text}" for title, text in texts.items()))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _assembly(
    config: GenerationConfig, path: Path, plan: Plan, later: Sequence[Shard], held: int
) -> IncrementalAssembly:
    """Begin to assemble a dataset from the sources of a plan, and from shards that are computed."""
    segments = plan_assembly(config.num_samples, later, plan.segments).segments
    available = [segment.source.path for segment in plan.segments]
    folder = shard_folder(config, path)
    return IncrementalAssembly(config, path, folder, segments, available, replaces=held > 0)


def _finish(
    config: GenerationConfig, path: Path, assembly: IncrementalAssembly, summary: dict[str, Any]
) -> None:
    folder = shard_folder(config, path)
    try:
        kept = assembly.finish(summary)
    except FileExistsError as error:
        raise DatasetError(
            f"{path} was created by another program while the dataset was built, and was left "
            f"unchanged; the shards are kept in {folder}"
        ) from error
    if remove_shards(folder, config.num_samples, kept):
        _LOG.warning("%s has shards of another or a longer dataset; they are kept", folder.parent)
