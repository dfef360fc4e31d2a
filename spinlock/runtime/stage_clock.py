"""Where a run spends its time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Adds up the processor time that threads spend in named stages.

    Processor time, not time on the wall: stages run side by side in more threads than there are
    cores, and their shares must add up to the work done. An accelerator's own time is not counted,
    nor that of the threads that draw random words for it.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the calling thread inside the block; blocks must not be nested."""
        start = time.thread_time()
        try:
            yield
        finally:
            self.add({name: time.thread_time() - start})

    def add(self, seconds: dict[str, float]) -> None:
        """Add the seconds of stages, for example those of another process."""
        with self._lock:
            for name, value in seconds.items():
                self._seconds[name] = self._seconds.get(name, 0.0) + value

    @property
    def seconds(self) -> dict[str, float]:
        """Stage -> seconds."""
        with self._lock:
            return dict(self._seconds)
