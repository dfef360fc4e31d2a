"""One writer per dataset file: whoever makes or changes it holds a lock beside it."""

import logging
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spinlock.errors import DatasetError

_LOG = logging.getLogger(__name__)
# What filelock writes to a lock where the file system has none of its own: process, host and,
# in later versions, when the process started. Elsewhere a lock is an empty file.
_HOLDER = re.compile(rb"\d+\n[^\n]+\n(\d+\n)?")


@contextmanager
def dataset_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a dataset file, ``<path>.lock``; says so when it has to wait.

    Raises:
        DatasetError: If a file of that name is there that is no lock, which is left as it is.
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
    """Refuse what earlier versions of filelock would truncate, also through a link."""
    try:
        found = path.lstat()
        if stat.S_ISREG(found.st_mode):
            if not found.st_size:
                return
            with path.open("rb") as file:
                if _HOLDER.fullmatch(file.read(1024)):
                    return
    except FileNotFoundError:
        # None is there yet, or its holder has just removed it.
        return
    raise DatasetError(
        f"{path} is needed as the lock of the dataset, but is something else; it was left as it "
        "is: move it, or choose another path for the dataset"
    )
