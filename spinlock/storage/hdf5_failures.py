"""Creates HDF5 files so that a full disk is an error, and turns errors of HDF5 into clear ones.

HDF5 does not survive a failed write: it keeps the file open, fails again for each object that is
closed, and crashes the interpreter. So `NewFile` hides the failure from it and reports it itself.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py

from spinlock.errors import DatasetError, SpinlockError, in_a_line, interruption
from spinlock.storage.hdf5_access import is_refusal

# Writes of at most so many bytes are remembered after a failure, because HDF5 may read them again.
_REMEMBERED = 1 << 16


class NewFile(h5py.File):  # type: ignore[misc]
    """A file that is created and written.

    Args:
        path: Path of the file.
        replace: Whether to write over an existing file; default: False.

    Raises:
        OSError: If the file cannot be created. `close` and `check` raise it if a write failed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with NewFile(f"{folder}/a.h5") as file:
        ...         file["x"] = [1, 2]
        ...     h5py.File(f"{folder}/a.h5")["x"].shape
        (2,)
    """

    def __init__(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        self._disk = _Disk(path, "w+" if replace else "x+")
        super().__init__(self._disk, "w")

    def check(self) -> None:
        """Raise the error of the first write that failed."""
        if self._disk.failure is not None:
            raise self._disk.failure

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: If a write failed.
        """
        super().close()
        self._disk.close()
        self.check()


class _Disk(io.FileIO):
    """A file that HDF5 writes, on which no write seems to fail."""

    def __init__(self, path: str | os.PathLike[str], mode: str) -> None:
        super().__init__(path, mode)
        self.failure: OSError | None = None
        self._path = path
        self._position = self._size = 0
        self._lost: dict[int, bytes] = {}

    def __repr__(self) -> str:
        # h5py shows it as the name of the file.
        return os.fspath(self._path)

    def __fspath__(self) -> str:
        return os.fspath(self._path)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:  # noqa: ANN401 (any buffer)
        rest = memoryview(data).cast("B")
        start, count = self._position, len(rest)
        while len(rest) and self.failure is None:
            try:
                done = os.pwrite(self.fileno(), rest, start + count - len(rest))
            except OSError as error:
                self._fail(error)
            else:
                rest = rest[done:]
        if self.failure is not None and count <= _REMEMBERED:
            self._lost[start] = bytes(data)
        self.seek(start + count)
        self._size = max(self._size, self._position)
        return count

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 (any buffer)
        view = memoryview(buffer).cast("B")
        start, count = self._position, len(view)
        done = 0
        while done < count and (read := os.preadv(self.fileno(), [view[done:]], start + done)):
            done += read
        view[done:] = bytes(count - done)
        for place, data in self._lost.items():
            first, last = max(start, place), min(start + count, place + len(data))
            if first < last:
                view[first - start : last - start] = data[first - place : last - place]
        self.seek(start + count)
        return count

    def truncate(self, size: int | None = None, /) -> int:
        self._size = self._position if size is None else size
        if self.failure is None:
            try:
                os.ftruncate(self.fileno(), self._size)
            except OSError as error:
                self._fail(error)
        return self._size

    def _fail(self, error: OSError) -> None:
        self.failure = OSError(error.errno, os.strerror(error.errno or 0), os.fspath(self._path))


def hdf5_error(error: BaseException, file: h5py.File) -> BaseException | None:
    """Return the error to raise instead of one that HDF5 raised; None if another program did.

    HDF5 and h5py report damage by errors of many types. A signal is no damage: the exception that
    it raised is returned if h5py has replaced it.

    Args:
        error: Error that was raised while the file was read.
        file: File, which is open.
    """
    if not isinstance(error, Exception) or isinstance(error, SpinlockError):
        return None
    if (signaled := interruption(error)) is not None:
        return signaled
    if is_refusal(error) or not _raised_by_h5py(error):
        return None
    if not file.id.valid or file.mode != "r":
        return None
    return DatasetError(
        f"{os.fsdecode(file.filename)} is damaged, HDF5 cannot read it: {in_a_line(error)}. "
        "Restore it from a copy, or generate it again"
    )


@contextmanager
def naming_damage(file: h5py.File) -> Iterator[None]:
    """Turn the errors of HDF5 about a file into ones that name it; see `hdf5_error`."""
    try:
        yield
    except Exception as error:
        if (clear := hdf5_error(error, file)) is not None:
            raise clear from error
        raise


def _raised_by_h5py(error: BaseException) -> bool:
    trace, module = error.__traceback__, ""
    while trace is not None:
        module, trace = str(trace.tb_frame.f_globals.get("__name__")), trace.tb_next
    return module.partition(".")[0] == "h5py"
