"""Computes shards, the units of work of a run, and reports statistics of them."""

import ctypes
import gc
import logging
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.runtime.device_choice import use_gpu_of_turn
from spinlock.runtime.threads import shared_pool
from spinlock.simulation.provenance import provenance
from spinlock.simulation.simulator import Simulator
from spinlock.storage.shard_files import Shard, shard_path
from spinlock.storage.shards import publish_shard, write_shard

_LOG = logging.getLogger(__name__)
# Number of times that the shards of lost workers are submitted to the executor.
_ATTEMPTS = 3


@dataclass(frozen=True)
class ShardTask:
    """Range of samples to compute, and the folder for their shard.

    Args:
        config: Configuration of the dataset.
        folder: Folder of the shard, which all workers share.
        start: First sample.
        stop: Last sample plus one.
        device: Device that computes the samples; default: the worker's GPU, whose turn it is, or
            its CPU.
    """

    config: GenerationConfig
    folder: Path
    start: int
    stop: int
    device: str | None = None

    @property
    def shard(self) -> Shard:
        """Shard that the task writes."""
        return Shard(shard_path(self.folder, self.start, self.stop), self.start, self.stop)


@dataclass(frozen=True)
class ShardReport:
    """Statistics reported by a completed shard.

    Args:
        samples: Number of samples computed.
        seconds: Wall-clock time in seconds.
        stage_seconds: Time in seconds, by stage: of a CPU's threads, or of a CUDA device.
        peak_host_bytes: Peak resident memory of the process so far, in bytes.
        peak_device_bytes: Peak memory allocated on the CUDA device so far, in bytes; 0 on a CPU.
    """

    samples: int
    seconds: float
    stage_seconds: dict[str, float]
    peak_host_bytes: int
    peak_device_bytes: int


def compute_shard(
    task: ShardTask,
    simulator: Simulator | None = None,
    on_samples: Callable[[int], None] = lambda count: None,
    finish: Callable[[Path, Path], None] | None = None,
) -> ShardReport:
    """Compute the samples of a task and write their shard.

    Args:
        task: Range of samples and folder.
        simulator: Simulator of the task's configuration; default: a new one on the task's device.
        on_samples: Function that is called with the number of samples just computed.
        finish: Function that syncs and renames the shard, as for
            `spinlock.storage.shards.write_shard`; default: `publish_shard`, before this function
            returns.

    Returns:
        Statistics of the shard.
    """
    start = time.monotonic()
    if simulator is None:
        use_gpu_of_turn(task.device)
        simulator = Simulator(task.config, task.device)
    before = simulator.clock.seconds
    write_shard(
        task.shard.path,
        task.config,
        task.start,
        task.stop,
        simulator.samples(task.start, task.stop),
        provenance(task.config, simulator.device),
        clock=simulator.clock,
        on_samples=on_samples,
        finish=finish or (lambda temporary, _: publish_shard(temporary, task.shard, task.config)),
    )
    stages = simulator.clock.seconds
    cuda = simulator.device.type == "cuda"
    return ShardReport(
        samples=task.stop - task.start,
        seconds=time.monotonic() - start,
        stage_seconds={name: stages[name] - before.get(name, 0.0) for name in stages},
        peak_host_bytes=_peak_host_bytes(),
        peak_device_bytes=torch.cuda.max_memory_allocated(simulator.device) if cuda else 0,
    )


def compute_shards(
    tasks: Sequence[ShardTask],
    simulator: Simulator,
    executor: Executor | None,
    on_samples: Callable[[int], None],
    on_shard: Callable[[Shard], None] = lambda shard: None,
) -> list[ShardReport]:
    """Compute several shards.

    Args:
        tasks: Ranges of samples and folders.
        simulator: Simulator with which this process computes shards if there is no executor.
        executor: Executor that computes the shards. Without one, or if its workers are lost
            repeatedly, this process computes them.
        on_samples: Function that is called with the number of samples just computed.
        on_shard: Function that is called with each finished shard, in any thread; default: none.

    Returns:
        Statistics of each shard.
    """
    if executor is None:
        return _compute_here(tasks, simulator, on_samples, on_shard)
    reports: list[ShardReport] = []
    for _ in range(_ATTEMPTS):
        tasks = _submit(tasks, executor, on_samples, on_shard, reports)
    for task in tasks:
        # The tasks name the device, which the simulator of this process need not have.
        reports.append(compute_shard(task, None, on_samples))
        on_shard(task.shard)
    return reports


def _compute_here(
    tasks: Sequence[ShardTask],
    simulator: Simulator,
    on_samples: Callable[[int], None],
    on_shard: Callable[[Shard], None],
) -> list[ShardReport]:
    """Compute shards in this process. While a shard is computed, the last one is synced to disk."""
    pool = shared_pool("sync", 1)
    pending: list[Future[None]] = []

    def compute(task: ShardTask) -> ShardReport:
        def settle(temporary: Path) -> None:
            try:
                publish_shard(temporary, task.shard, task.config)
            finally:
                temporary.unlink(missing_ok=True)
            on_shard(task.shard)
            _return_freed_memory()

        def finish(temporary: Path, _: Path) -> None:
            # At most one shard is not on disk yet.
            while pending:
                pending.pop().result()
            pending.append(pool.submit(settle, temporary))

        return compute_shard(task, simulator, on_samples, finish)

    try:
        reports = [compute(task) for task in tasks]
        while pending:
            pending.pop().result()
    finally:
        wait(pending)
    return reports


def _submit(
    tasks: Sequence[ShardTask],
    executor: Executor,
    on_samples: Callable[[int], None],
    on_shard: Callable[[Shard], None],
    reports: list[ShardReport],
) -> list[ShardTask]:
    """Compute shards in an executor, append to ``reports``, and return tasks of lost workers."""
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
                on_samples(reports[-1].samples)
                on_shard(futures[future].shard)
                lost.remove(futures[future])
    except BrokenExecutor as error:
        _LOG.warning("the executor accepts no more tasks: %s", error)
    finally:
        for future in futures:
            future.cancel()
    return lost


def _return_freed_memory() -> None:
    """Collect reference cycles, and return free memory from the C library to the system.

    glibc keeps free memory between blocks in use. Operators differ in size, so that after a
    thousand of them this fragmentation amounts to a fifth of the memory of the process.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _peak_host_bytes() -> int:
    # getrusage(2) counts kilobytes on Linux and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
