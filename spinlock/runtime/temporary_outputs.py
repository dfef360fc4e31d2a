"""Marks temporary files and folders as in use, and removes those whose process was killed.

A process holds a lock of the operating system on what it writes, which ends with the process. What
has the name of a temporary file and is not locked was left by a process that was killed.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Keep `remove_unused` from removing an existing file or folder.

    Args:
        path: Temporary file or folder of this process.

    Raises:
        FileNotFoundError: If another process has removed it already.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.tmp")
        ...     path.touch()
        ...     with in_use(path):
        ...         remove_unused(Path(folder), "*.tmp")
        ...     path.exists()
        True
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _locked(descriptor)
        # It may have been removed before it was locked.
        path.stat()
        yield
    finally:
        os.close(descriptor)


def remove_unused(folder: Path, pattern: str) -> None:
    """Remove the temporary files and folders of processes that were killed.

    Args:
        folder: Folder; it may be missing.
        pattern: Pattern of the names, which only temporary files of this package match.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.tmp")
        ...     path.touch()
        ...     remove_unused(Path(folder), "*.tmp")
        ...     path.exists()
        False
    """
    for path in folder.glob(pattern):
        with suppress(OSError):
            # A link or a FIFO is not ours.
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if not _locked(descriptor):
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Lock an open file or folder, and return whether that succeeded."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # Another process holds the lock, or the file system has none.
        return False
    return True
