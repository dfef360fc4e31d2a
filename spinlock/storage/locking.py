"""One writer per dataset file: whoever makes or changes it holds a lock beside it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_LOG = logging.getLogger(__name__)


@contextmanager
def dataset_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a dataset file, ``<path>.lock``; says so when it has to wait."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _LOG.warning("%s is being written by another process; waiting for it", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
