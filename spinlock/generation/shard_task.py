"""The unit of work of a run: one shard, computed anywhere, reported by numbers only."""

import ctypes
import gc
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.runtime.stage_clock import StageClock
from spinlock.simulation.provenance import provenance
from spinlock.simulation.simulator import Simulator
from spinlock.storage.shards import Shard, shard_path, write_shard


@dataclass(frozen=True)
class ShardTask:
    """Samples to compute, and the (shared) folder that their shard goes to.

    Args:
        config: The dataset.
        folder: Where the shard is written.
        start: First sample.
        stop: One past the last sample.
        device: Where to compute; None: the worker's first CUDA device, or its CPU.
    """

    config: GenerationConfig
    folder: Path
    start: int
    stop: int
    device: str | None = None

    @property
    def shard(self) -> Shard:
        """The shard that the task results in."""
        return Shard(shard_path(self.folder, self.start, self.stop), self.start, self.stop)


@dataclass(frozen=True)
class ShardReport:
    """What a task tells of itself.

    Args:
        samples: Samples computed.
        seconds: Time on the wall.
        stage_seconds: Processor time by stage.
        peak_host_bytes: Largest resident memory of the process so far.
        peak_device_bytes: Largest memory allocated on the device so far; 0 without one.
    """

    samples: int
    seconds: float
    stage_seconds: dict[str, float]
    peak_host_bytes: int
    peak_device_bytes: int


def compute_shard(
    task: ShardTask, on_samples: Callable[[int], None] = lambda count: None
) -> ShardReport:
    """Compute the samples of a task and write their shard.

    Args:
        task: What to compute.
        on_samples: Called with the number of samples just computed.
    """
    start, clock = time.monotonic(), StageClock()
    simulator = Simulator(task.config, task.device, clock)
    write_shard(
        task.shard.path,
        task.config,
        task.start,
        task.stop,
        simulator.samples(task.start, task.stop),
        provenance(task.config, simulator.device),
        clock=clock,
        on_samples=on_samples,
    )
    _return_freed_memory()
    cuda = simulator.device.type == "cuda"
    return ShardReport(
        samples=task.stop - task.start,
        seconds=time.monotonic() - start,
        stage_seconds=clock.seconds,
        peak_host_bytes=_peak_host_bytes(),
        peak_device_bytes=torch.cuda.max_memory_allocated(simulator.device) if cuda else 0,
    )


def _return_freed_memory() -> None:
    """Have the interpreter free what hangs in cycles, and the C library give back what is free.

    glibc keeps the pieces between blocks that are still in use; operators differ in size, and over
    a thousand of them the pieces add up to a fifth of the process.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _peak_host_bytes() -> int:
    # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
