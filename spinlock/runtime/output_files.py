"""Writes output files without overwriting existing files by mistake.

An output path is checked before the work starts, so that a refusal comes early, and again when the
file is published. The file is written under a temporary name in the same folder, and then renamed.
"""

import errno
import os
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from spinlock.errors import ConfigurationError, SpinlockError
from spinlock.runtime.temporary_outputs import in_use, remove_unused

AnyPath = str | os.PathLike[str]
# Errors that concern what is written, and not what is read for it.
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
# Suffixes of the lock and of the folders of shards, which are beside a dataset file.
_BESIDE_A_DATASET = (".lock", ".parts", ".shards")


@dataclass(frozen=True)
class Kind:
    """A kind of file, recognized by its first bytes.

    Args:
        name: Noun for messages.
        start: Bytes that every file of this kind begins with.
    """

    name: str
    start: bytes


PNG = Kind("PNG image", b"\x89PNG\r\n\x1a\n")


@contextmanager
def new_file(
    out: AnyPath, kind: Kind | None = None, *, source: AnyPath | None = None, force: bool = False
) -> Iterator[Path]:
    """Write a file at a path that the user chose, completely or not at all.

    On entry the path is checked, and missing parent folders are created. The body of the ``with``
    statement writes to a temporary file, which is then renamed. If anything fails, the folder is
    unchanged. A symbolic link is kept, and the file that it points to is replaced.

    Args:
        out: Path of the output.
        kind: Kind of the output; default: none, so that no existing file is replaced.
        source: Dataset file that is read; default: none.
        force: Whether to replace an existing file of the same kind, keeping its permissions;
            default: False.

    Yields:
        Path of the temporary file, which exists and is empty.

    Raises:
        ConfigurationError: If the output is refused or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_file(f"{folder}/a.txt") as temporary:
        ...         count = temporary.write_text("content")
        ...     print(Path(folder, "a.txt").read_text())
        content
    """
    check_output(out, kind, source=source, force=force)
    target = Path(os.path.realpath(out))
    missing = [folder for folder in target.parents if not os.path.lexists(folder)]
    # A unique name, whose length does not depend on the name of the output.
    temporary = target.with_name(f".spinlock-{uuid.uuid4().hex}.tmp")
    # Those of commands that were killed.
    remove_unused(target.parent, f".spinlock-{32 * '[0-9a-f]'}.tmp")
    with _explained(out):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive creation follows no link.
        temporary.touch(exist_ok=False)
    try:
        with in_use(temporary), _explained(out, _FULL):
            yield temporary
            replaced = check_output(out, kind, source=source, force=force)
            with _explained(out):
                publish(temporary, target, replace=replaced)
        missing.clear()
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
            for folder in missing:
                folder.rmdir()


def check_output(
    out: AnyPath, kind: Kind | None = None, *, source: AnyPath | None = None, force: bool = False
) -> bool:
    """Refuse an output that would overwrite a file; the arguments are those of `new_file`.

    Returns:
        Whether a file exists that may be replaced.

    Raises:
        ConfigurationError: If the output is refused. No file was changed.
    """
    remedy = "choose another file"
    if source is not None and belongs_to(out, source):
        problem = f"is the dataset {source} that is read, or belongs to it"
    elif not os.path.lexists(out):
        return False
    elif not os.path.exists(out):
        problem = "is a symbolic link to nothing"
    elif not os.path.isfile(out):
        problem = "is a directory" if os.path.isdir(out) else "is not a regular file"
    elif kind is not None and not _is_of_kind(out, kind):
        problem = f"exists already, and is not a {kind.name}"
    elif kind is not None and force:
        return True
    else:
        problem = "exists already"
        remedy += "" if kind is None else ", or replace it with --force (force=True in Python)"
    raise ConfigurationError(f"{out} {problem}, and was left unchanged; {remedy}")


def _is_of_kind(path: AnyPath, kind: Kind) -> bool:
    with open(path, "rb") as file:
        return file.read(len(kind.start)) == kind.start


def belongs_to(out: AnyPath, source: AnyPath) -> bool:
    """Whether a path is a dataset file under any name, its lock, or one of its shards."""
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
        return True
    found, dataset = Path(os.path.realpath(out)), Path(os.path.realpath(source))
    own = {dataset.with_name(f"{dataset.name}{suffix}") for suffix in ("", *_BESIDE_A_DATASET)}
    return not own.isdisjoint((found, *found.parents))


def unused_path(path: Path) -> Path:
    """Return a path if it is free, or the first free one of STEM-v1, STEM-v2, ..."""
    free = path
    for version in count(1):
        if not os.path.lexists(free):
            break
        free = path.with_stem(f"{path.stem}-v{version}")
    return free


@contextmanager
def _explained(out: AnyPath, numbers: Collection[int] = ()) -> Iterator[None]:
    """Name the output instead of the temporary file in errors of the file system.

    Args:
        out: Path of the output.
        numbers: Numbers of the errors; default: all.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, SpinlockError) or (numbers and error.errno not in numbers):
            raise
        reason = error.strerror or error
        raise ConfigurationError(f"cannot write {out}: {reason}; no file was changed") from error


def publish(temporary: Path, path: Path, *, replace: bool = True) -> None:
    """Rename a finished file durably: its bytes reach the disk before its new name does.

    Args:
        temporary: Finished file.
        path: New path of the file.
        replace: Whether to replace an existing file, whose mode and owner are then kept; default:
            True.

    Raises:
        FileExistsError: If the path exists and ``replace`` is false.
    """
    sync(temporary)
    if replace:
        keep_access(temporary, path)
        os.replace(temporary, path)
    else:
        try:
            # Unlike os.replace, os.link never replaces a file.
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError as error:
            # The file system does not support hard links.
            if os.path.lexists(path):
                raise FileExistsError(path) from error
            os.replace(temporary, path)
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def keep_access(new: Path, old: Path) -> None:
    """Give a file the mode of another one, if that exists, and its owner where that is allowed."""
    try:
        wanted, held = old.stat(), new.stat()
    except FileNotFoundError:
        return
    if (wanted.st_uid, wanted.st_gid) != (held.st_uid, held.st_gid):
        with suppress(OSError):
            os.chown(new, wanted.st_uid, wanted.st_gid)
    new.chmod(stat.S_IMODE(wanted.st_mode))


def file_identity(file: AnyPath | int) -> tuple[int, int, int] | None:
    """Return what distinguishes a file from a changed one, or from one that takes its place.

    Args:
        file: Path of the file, or its descriptor.

    Returns:
        Inode number, size in bytes and time of the last change; None if the file does not exist.
    """
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
