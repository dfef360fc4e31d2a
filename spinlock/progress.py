"""Progress of a long run: a bar in a terminal, log lines elsewhere."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts samples; shows rate and time left.

    Args:
        total: Samples in all.
        done: Samples that were there before.
        description: What is being done.
        enabled: Whether to show anything.
    """

    def __init__(self, total: int, done: int, description: str, *, enabled: bool = True) -> None:
        self._total, self._done, self._description = total, done, description
        self._computed, self._started = 0, time.monotonic()
        self._last_line = self._started
        terminal = sys.stderr.isatty()
        self._log_lines = enabled and not terminal
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=description,
            unit="sample",
            disable=not (enabled and terminal),
            dynamic_ncols=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._log_lines and error is None:
            self._log()

    def update(self, count: int) -> None:
        """Count further samples."""
        self._done += count
        self._computed += count
        self._bar.update(count)
        if self._log_lines and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._log()

    def _log(self) -> None:
        self._last_line = time.monotonic()
        rate = self._computed / max(self._last_line - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        _LOG.info(
            "%s: %d/%d samples, %.2f samples/s, %.0f s left",
            self._description,
            self._done,
            self._total,
            rate,
            left,
        )
