"""Generation: a configuration and a path -> one complete dataset file.

The samples that are missing are computed in shards, and all are assembled into one file. Whatever
interrupts a run, finished shards are kept and the next run goes on from them; a dataset that exists
is extended when more samples are asked for, and never otherwise touched.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import ConfigurationError, DatasetError
from spinlock.generation.run_summary import describe_run, summarize_run
from spinlock.generation.shard_task import ShardReport, ShardTask, compute_shard
from spinlock.runtime.progress import Progress, announce
from spinlock.simulation.simulator import Simulator
from spinlock.storage.assemble import Plan, assemble, plan_assembly
from spinlock.storage.foreign import require_copyable
from spinlock.storage.layout import open_hdf5, read_configuration
from spinlock.storage.locking import dataset_lock
from spinlock.storage.reader import require_dataset
from spinlock.storage.shard_folder import remove_shards, shard_folder
from spinlock.storage.shards import Shard, list_shards
from spinlock.storage.verify import require_intact, verify_shard

_LOG = logging.getLogger(__name__)
# How often the shards of lost workers are given to the executor again.
_ATTEMPTS = 3


def generate(
    config: GenerationConfig,
    path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> None:
    """Make sure that a complete dataset file exists.

    Does nothing when the file holds this dataset with at least ``config.num_samples`` samples. Any
    number of processes may ask for the same file: one builds it, the others wait.

    Args:
        config: The dataset.
        path: Its file.
        device: Where to compute; by default the first CUDA device, or the CPU (of each worker).
        executor: Executor that computes the shards, see `spinlock.generation.executors`; by
            default this process computes them. It is not shut down.
        progress: Whether to show progress and, in the end, a summary.

    Raises:
        DatasetError: If the path is a directory, or a file that is not this dataset, which is left
            as it is; or if the disk cannot take the data.
        ConfigurationError: If the configuration cannot be simulated.
    """
    path = _real(path)
    if _held(config, path) >= config.num_samples:
        return
    # Workers have devices of their own.
    _check(config, device if executor is None else "cpu")
    with _writing(path), dataset_lock(path):
        # Another process may have built it while this one waited.
        held = _held(config, path)
        if held < config.num_samples:
            _build(config, path, held, device, executor, progress)


def generate_part(
    config: GenerationConfig,
    path: str | os.PathLike[str],
    part: int,
    num_parts: int,
    *,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> None:
    """Compute every ``num_parts``-th shard, as one of several runs that may go on anywhere.

    Parts may be computed at the same time, on any machines that share the folder, in any order and
    again. `assemble_parts` joins them.

    Args:
        config: The dataset.
        path: Its file-to-be.
        part: Which part, 1..num_parts.
        num_parts: Number of parts.
        device: Where to compute, as for `generate`.
        progress: Whether to show progress.

    Raises:
        ConfigurationError: If there is no such part or the configuration cannot be simulated.
        DatasetError: As for `generate`.
    """
    if not 1 <= part <= num_parts:
        raise ConfigurationError(f"part: must lie in 1..{num_parts}, got {part}")
    path = _real(path)
    held = _held(config, path)
    _check(config, device)
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
            for task in tasks:
                compute_shard(task, bar.update)


def assemble_parts(config: GenerationConfig, path: str | os.PathLike[str]) -> None:
    """Join the parts that `generate_part` computed into the dataset file.

    Raises:
        DatasetError: If samples are missing, naming them; damaged shards count as missing.
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
                f"{path}: samples {ranges} are missing; compute them with generate --part, or with "
                "generate, which computes what is missing and assembles"
            )
        _assemble(config, path, plan, summarize_run([], 0.0, 1))


def _real(path: str | os.PathLike[str]) -> Path:
    """The file itself, not a link to it, which extending the dataset would replace."""
    return Path(path).resolve()


def _check(config: GenerationConfig, device: str | torch.device | None) -> None:
    """Refuse what cannot be simulated, before anything is written."""
    Simulator(config, device)


def _held(config: GenerationConfig, path: Path) -> int:
    """Samples of this dataset in the file; 0 if there is none."""
    if not path.exists():
        return 0
    return require_dataset(path, config).config.num_samples


def _verify(path: Path, held: int) -> None:
    """Read the whole file that is to be extended, before samples are computed for it."""
    if held:
        require_intact(path, "Restore it from a copy, or generate the dataset to another path")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one error that says what became of the work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        # HDF5's own message runs over many lines where the system's says it in a few words.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DatasetError(
            f"cannot write {path}: {reason}. Nothing that was there is changed; finished shards "
            "are kept, and the next run goes on from them"
        ) from error


def _plan(config: GenerationConfig, path: Path, held: int) -> Plan:
    """What there is (in the file and in shards that are whole), and what is missing."""
    sources = []
    if held:
        with open_hdf5(path) as file:
            require_copyable(file, read_configuration(file), config)
        sources = [Shard(path, 0, held)]
    folder = shard_folder(config, path)
    folder.mkdir(parents=True, exist_ok=True)
    for shard in list_shards(folder):
        try:
            verify_shard(shard, config)
        except DatasetError as error:
            _LOG.warning("computing samples %d..%d again: %s", shard.start, shard.stop - 1, error)
            shard.path.unlink(missing_ok=True)
        else:
            sources.append(shard)
    return plan_assembly(config.num_samples, sources)


def _tasks(
    config: GenerationConfig, path: Path, plan: Plan, device: str | torch.device | None
) -> list[ShardTask]:
    """The gaps of a plan, cut at multiples of the shard size."""
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
    config: GenerationConfig,
    path: Path,
    held: int,
    device: str | torch.device | None,
    executor: Executor | None,
    progress: bool,
) -> None:
    start = time.monotonic()
    _verify(path, held)
    plan = _plan(config, path, held)
    tasks = _tasks(config, path, plan, device)
    missing = sum(task.stop - task.start for task in tasks)
    done = config.num_samples - missing
    _LOG.info("%s: computing %d samples, %d are there", path, missing, done)
    with Progress(config.num_samples, done, path.name, enabled=progress) as bar:
        reports = _compute(tasks, executor, bar)
    sources = [segment.source for segment in plan.segments] + [task.shard for task in tasks]
    summary = summarize_run(reports, time.monotonic() - start, config.num_samples)
    _assemble(config, path, plan_assembly(config.num_samples, sources), summary)
    if progress:
        announce(describe_run(summary))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _compute(
    tasks: Sequence[ShardTask], executor: Executor | None, bar: Progress
) -> list[ShardReport]:
    """Compute shards in an executor, and here what is left when its workers are lost for good."""
    reports: list[ShardReport] = []
    if executor is not None:
        for _ in range(_ATTEMPTS):
            tasks = _submit(tasks, executor, bar, reports)
    return reports + [compute_shard(task, bar.update) for task in tasks]


def _submit(
    tasks: Sequence[ShardTask], executor: Executor, bar: Progress, reports: list[ShardReport]
) -> list[ShardTask]:
    """Compute shards in an executor, adding to ``reports``; returns the tasks of lost workers."""
    futures: dict[Future[ShardReport], ShardTask] = {}
    lost = list(tasks)
    try:
        for task in tasks:
            futures[executor.submit(compute_shard, task)] = task
        for future in as_completed(futures):
            try:
                reports.append(future.result())
            except BrokenExecutor as error:
                _LOG.warning("the worker of shard %s was lost: %s", futures[future].start, error)
            else:
                bar.update(reports[-1].samples)
                lost.remove(futures[future])
    except BrokenExecutor as error:
        _LOG.warning("no task can be submitted any more: %s", error)
    finally:
        for future in futures:
            future.cancel()
    return lost


def _assemble(config: GenerationConfig, path: Path, plan: Plan, summary: dict[str, Any]) -> None:
    folder = shard_folder(config, path)
    try:
        assemble(config, plan.segments, path, folder, summary)
    except FileExistsError as error:
        raise DatasetError(
            f"{path} came into being while the dataset was built, and was left as it is; the "
            f"shards are kept in {folder}"
        ) from error
    if remove_shards(folder, config.num_samples):
        _LOG.warning("%s holds shards of another or a longer dataset; they are kept", folder.parent)
