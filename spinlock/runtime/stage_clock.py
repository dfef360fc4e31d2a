"""Measures the time of the stages of a run: of a CPU's threads, or of a CUDA device."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageClock:
    """Sums the processor time that threads spend in named stages.

    Wall-clock time would be misleading, because stages run concurrently in more threads than there
    are cores. The time of the threads that draw random words is not counted. For stages of an
    accelerator, see `DeviceClock`.

    Example:
        >>> clock = StageClock()
        >>> with clock.stage("features"):
        ...     total = sum(range(10))
        >>> list(clock.seconds)
        ['features']
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the calling thread in a block; blocks must not be nested.

        Args:
            name: Name of the stage.
        """
        start = time.thread_time()
        try:
            yield
        finally:
            self.add({name: time.thread_time() - start})

    def add(self, seconds: dict[str, float]) -> None:
        """Add times in seconds, for example those of another process, by stage."""
        with self._lock:
            for name, value in seconds.items():
                self._seconds[name] = self._seconds.get(name, 0.0) + value

    def settle(self) -> None:
        """Add what a device has measured since; nothing here."""

    @property
    def seconds(self) -> dict[str, float]:
        """Times in seconds, by stage."""
        with self._lock:
            return dict(self._seconds)


class DeviceClock(StageClock):
    """Sums the time that a CUDA device spends in named stages, and adds it to another clock.

    The host only queues work, so its time says little. Events mark the ends of each stage in the
    stream of the device. They are read after the host has waited for later work anyway, so that
    measuring never makes the host wait.

    Args:
        clock: Clock to which the times are added.
        device: CUDA device.
    """

    def __init__(self, clock: StageClock, device: torch.device) -> None:
        super().__init__()
        self._clock, self._device = clock, device
        self._reading = threading.Lock()
        self._running: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the device in a block."""
        start = self._mark()
        try:
            yield
        finally:
            self._running.append((name, start, self._mark()))

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def settle(self) -> None:
        """Add the times of the stages that the device has completed."""
        # Two threads must not read one stage and remove two.
        with self._reading:
            while self._running and self._running[0][2].query():  # type: ignore[no-untyped-call]
                name, start, end = self._running.popleft()
                self._clock.add({name: start.elapsed_time(end) / 1000})

    def add(self, seconds: dict[str, float]) -> None:
        """Add times to the other clock."""
        self._clock.add(seconds)

    @property
    def seconds(self) -> dict[str, float]:
        """Times of the other clock in seconds, by stage."""
        return self._clock.seconds


def device_clock(clock: StageClock, device: torch.device) -> StageClock:
    """Return a clock of the stages of a device: the given one for a CPU."""
    return DeviceClock(clock, device) if device.type == "cuda" else clock
