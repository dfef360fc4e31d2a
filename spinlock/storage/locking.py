"""Locks a dataset file, so that one process at a time writes it."""

import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from spinlock.errors import DatasetError

_LOG = logging.getLogger(__name__)
# Content of a lock on a file system without locks, where filelock writes process, host and, in
# later versions, the start time of the process. Elsewhere a lock is an empty file.
_HOLDER = re.compile(rb"(\d+)\n([^\n]+)\n(\d+\n)?")
# Attempts to create a lock, and seconds between them. Where other processes remove their locks,
# creating one may fail for a moment.
_ATTEMPTS, _PAUSE = 5, 0.02
# Seconds between messages of a process that waits.
_REMINDER = 60.0


@contextmanager
def dataset_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a dataset file, ``<path>.lock``, and log when waiting for it.

    Raises:
        DatasetError: If there is a file of that name that is not a lock. It is left unchanged.
        OSError: If the lock cannot be created.
    """
    name = path.with_name(f"{path.name}.lock")
    _require_lock(name)
    lock = FileLock(name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _require_creatable(name)
        _wait(lock, name, path)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: BaseFileLock, name: Path, path: Path) -> None:
    """Acquire a lock that another process holds, and say regularly what is waited for."""
    start = time.monotonic()
    _LOG.warning(
        "%s is being written by another process (%s is held%s); waiting for it",
        *(path, name, _holder(name)),
    )
    while True:
        try:
            lock.acquire(timeout=_REMINDER)
        except Timeout:
            _require_creatable(name)
            waited = time.monotonic() - start
            _LOG.warning("still waiting for %s after %.0f s (held%s)", name, waited, _holder(name))
        else:
            return


def _require_creatable(path: Path) -> None:
    """Raise the error of creating a lock where none can be created.

    Some file systems report a missing file for it, which `FileLock` takes for a lock that its
    holder has just removed, and tries again forever.
    """
    for attempt in range(_ATTEMPTS):
        if os.path.lexists(path):
            return
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            return
        except OSError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE)
        else:
            # Another process may hold it by now, so it stays.
            return


def _holder(path: Path) -> str:
    """Return the process that holds a lock, as " by process 17", or nothing if it is unknown."""
    try:
        if found := _HOLDER.fullmatch(path.read_bytes()[:1024]):
            return f" by process {int(found[1])} of {found[2].decode(errors='replace')}"
        status = path.stat()
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
        # Linux lists the locks of this machine: number, kind, mode, access, process, file, range.
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and f"{device}:{status.st_ino}" in words:
                return f" by process {words[4]}"
    except (OSError, IndexError):
        pass
    return ""


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
