"""Locks a dataset file, so that one process at a time writes it."""

import logging
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spinlock.errors import DatasetError

_LOG = logging.getLogger(__name__)
# Content of a lock on a file system without locks, where filelock writes process, host and, in
# later versions, the start time of the process. Elsewhere a lock is an empty file.
_HOLDER = re.compile(rb"\d+\n[^\n]+\n(\d+\n)?")


@contextmanager
def dataset_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a dataset file, ``<path>.lock``, and log when waiting for it.

    Raises:
        DatasetError: If there is a file of that name that is not a lock. It is left unchanged.
    """
    name = path.with_name(f"{path.name}.lock")
    _require_lock(name)
    lock = FileLock(name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _LOG.warning("%s is being written by another process; waiting for it", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _require_lock(path: Path) -> None:
    """Refuse files that are not locks, which earlier versions of filelock would truncate."""
    try:
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            if not found.st_size:
                return
            with path.open("rb") as file:
                if _HOLDER.fullmatch(file.read(1024)):
                    return
    except FileNotFoundError:
        # There is no lock yet, or its holder has just removed it.
        return
    raise DatasetError(
        f"{path} is needed as the lock of the dataset, but is not a lock. It was left unchanged; "
        "move it, or choose another path for the dataset"
    )
