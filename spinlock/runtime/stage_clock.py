"""Measures the processor time of the stages of a run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Sums the processor time that threads spend in named stages.

    Wall-clock time would be misleading, because stages run concurrently in more threads than there
    are cores. The time of an accelerator is not counted, nor the time of the threads that draw
    random words for it.

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

    @property
    def seconds(self) -> dict[str, float]:
        """Processor time in seconds, by stage."""
        with self._lock:
            return dict(self._seconds)
