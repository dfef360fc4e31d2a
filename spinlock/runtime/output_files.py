"""Files that a user names for output: nothing that is there is overwritten by mistake.

An output is checked before the work, so that nobody waits for a refusal, and once more when it is
published. It is written under a temporary name beside its own, and takes its name in one step.
"""

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from spinlock.errors import ConfigurationError

AnyPath = str | os.PathLike[str]
# What lies beside a dataset FILE, as FILE.lock and FILE.parts: its lock and its shards.
_BESIDE_A_DATASET = (".lock", ".parts")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        name: The noun that messages use.
        start: The bytes that every file of this kind begins with.
    """

    name: str
    start: bytes


PNG = Kind("PNG image", b"\x89PNG\r\n\x1a\n")


@contextmanager
def new_file(
    out: AnyPath, kind: Kind | None = None, *, source: AnyPath | None = None, force: bool = False
) -> Iterator[Path]:
    """Write a file that a user named, whole or not at all.

    On entry the output is checked, and missing parent folders are made. The body writes to the
    temporary file, which then takes the name of the output. If anything fails, the folder is left
    as it was. A symbolic link stays one: the file that it points to is replaced.

    Args:
        out: The output.
        kind: The kind that is written; without it, no existing file is replaced.
        source: The dataset file that is read.
        force: Whether an existing file of the same kind is replaced. Its permissions are kept.

    Yields:
        The temporary file, which exists and is empty.

    Raises:
        ConfigurationError: The output is refused or cannot be written.
    """
    check_output(out, kind, source=source, force=force)
    target = Path(os.path.realpath(out))
    missing = [folder for folder in target.parents if not os.path.lexists(folder)]
    # Unique, and no longer than a valid name.
    temporary = target.with_name(f".spinlock-{uuid.uuid4().hex}.tmp")
    with _explained(out):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive creation follows no link.
        temporary.touch(exist_ok=False)
    try:
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
    """Refuse an output that would overwrite something; the arguments are those of `new_file`.

    Returns:
        Whether there is a file, which may be replaced.

    Raises:
        ConfigurationError: The output is refused. Nothing was changed.
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
        problem = f"is there already, and is no {kind.name}"
    elif kind is not None and force:
        return True
    else:
        problem = "is there already"
        remedy += "" if kind is None else ", or replace it with --force (force=True in Python)"
    raise ConfigurationError(f"{out} {problem}; it was left as it is: {remedy}")


def _is_of_kind(path: AnyPath, kind: Kind) -> bool:
    with open(path, "rb") as file:
        return file.read(len(kind.start)) == kind.start


def belongs_to(out: AnyPath, source: AnyPath) -> bool:
    """Whether a path is a dataset file by any name, its lock, or lies among its shards."""
    if os.path.exists(out) and os.path.exists(source) and os.path.samefile(out, source):
        return True
    found, dataset = Path(os.path.realpath(out)), Path(os.path.realpath(source))
    own = {dataset.with_name(f"{dataset.name}{suffix}") for suffix in ("", *_BESIDE_A_DATASET)}
    return not own.isdisjoint((found, *found.parents))


def unused_path(path: Path) -> Path:
    """The path; where it is taken, the first of STEM-v1, STEM-v2, ..., as checkpoints are named."""
    free = path
    for version in count(1):
        if not os.path.lexists(free):
            break
        free = path.with_stem(f"{path.stem}-v{version}")
    return free


@contextmanager
def _explained(out: AnyPath) -> Iterator[None]:
    """Name the output, not the temporary file, in what the file system refuses."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"cannot write {out}: {reason}; nothing was changed") from error


def publish(temporary: Path, path: Path, *, replace: bool = True) -> None:
    """Give a finished file its name, after its bytes, and then the name, have reached the disk.

    Args:
        temporary: The finished file.
        path: Its name.
        replace: Whether it may take the place of a file, whose mode and owner it then gets.

    Raises:
        FileExistsError: If there is a file of that name, unless it is to be replaced.
    """
    sync(temporary)
    if replace:
        _keep_access(temporary, path)
        os.replace(temporary, path)
    else:
        try:
            # Unlike a renaming, a link never takes the place of another file.
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError as error:
            # A file system without links.
            if os.path.lexists(path):
                raise FileExistsError(path) from error
            os.replace(temporary, path)
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def _keep_access(temporary: Path, path: Path) -> None:
    """Give a file the mode of the one that it replaces, and its owner where that is allowed."""
    try:
        old, new = path.stat(), temporary.stat()
    except FileNotFoundError:
        return
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(OSError):
            os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(stat.S_IMODE(old.st_mode))


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
