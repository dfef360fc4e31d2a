"""Finds damage in checkpoint files, whose checksums torch does not compare."""

import os
import zipfile
import zlib
from pathlib import Path

from spinlock.errors import DatasetError


def check_checksums(path: object) -> None:
    """Check that the bytes of a checkpoint are those that were written.

    ``torch.save`` writes a zip archive with a checksum of each tensor. ``torch.load`` ignores the
    checksums, so that a flipped bit would become another weight. Files of other formats have no
    checksums and are not checked.

    Args:
        path: Path of the checkpoint. Anything that is not the path of a local file is ignored.

    Raises:
        DatasetError: If a checksum differs, or the archive is damaged in another way.

    Example:
        >>> check_checksums(None)
    """
    if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
        return
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise _damaged(path, "its archive cannot be read") from error
    except RuntimeError as error:
        # An entry seems to be encrypted.
        raise _damaged(path, "its archive cannot be read") from error
    if wrong is not None:
        raise _damaged(path, f"the checksum of {wrong!r} does not match its bytes")


def _damaged(path: str | os.PathLike[str], problem: str) -> DatasetError:
    return DatasetError(
        f"{os.fspath(path)}: the checkpoint is damaged: {problem}. Restore it from a copy, or use "
        "another checkpoint of the run"
    )
