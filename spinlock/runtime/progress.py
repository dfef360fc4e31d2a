"""Shows the progress of a run on standard error: a bar in a terminal or a notebook, else lines."""

import sys
import time
import warnings
from typing import Self

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # Notebooks have a bar of text if ipywidgets is not installed.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts samples, and shows the rate and the remaining time.

    Args:
        total: Total number of samples.
        done: Number of samples that exist already.
        description: Text in front of the numbers.
        enabled: Whether to show anything; default: True.

    Example:
        >>> with Progress(10, 0, "data.h5", enabled=False) as progress:
        ...     progress.update(10)
    """

    def __init__(self, total: int, done: int, description: str, *, enabled: bool = True) -> None:
        self._total, self._done, self._description = total, done, description
        self._computed, self._started = 0, time.monotonic()
        self._last_line = self._started
        # The streams of notebooks are no terminals, but they show bars.
        terminal = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
        self._lines = enabled and not terminal
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

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._lines and self._computed and not any(error):
            self._print_line()

    def update(self, count: int) -> None:
        """Count samples that were just completed."""
        self._done += count
        self._computed += count
        self._bar.update(count)
        if self._lines and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        rate = self._computed / max(self._last_line - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        announce(
            f"{self._description}: {self._done}/{self._total} samples, {rate:.2f} samples/s, "
            f"{left:.0f} s left"
        )


def announce(text: str) -> None:
    """Print text on the standard error stream without breaking a progress bar."""
    tqdm.write(text, file=sys.stderr)


def printable(text: str) -> str:
    r"""Return a text with its control characters, line breaks included, escaped.

    Text from a file may contain control characters, which a terminal would interpret as commands.

    Args:
        text: Text to print.

    Example:
        >>> print(printable("a.h5\x1b[2J"))
        a.h5\x1b[2J
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
