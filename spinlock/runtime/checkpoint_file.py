"""Finds damage in checkpoint files, whose checksums torch does not compare."""

import os
import zipfile
from errno import EINVAL
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
            entries = archive.infolist()
            # torch does not compress. Otherwise a small file could hold entries of any size.
            stored = all(
                entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
                for entry in entries
            )
            size = sum(entry.file_size for entry in entries)
            if not stored or size > os.path.getsize(path):
                raise _damaged(path, "its archive is not one that torch writes")
            wrong = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
        # Errors of the system are no damage.
        if isinstance(error, DatasetError) or getattr(error, "errno", None) not in (None, EINVAL):
            raise
        raise _damaged(path, "its archive cannot be read") from error
    if wrong is not None:
        raise _damaged(
            path,
            f"the checksum of {wrong!r} does not match its bytes. Or it was saved without them "
            "(torch.serialization.set_crc32_options); then load it, and save it again with them",
        )


def _damaged(path: str | os.PathLike[str], problem: str) -> DatasetError:
    return DatasetError(
        f"{os.fspath(path)}: the checkpoint is damaged: {problem}. Restore it from a copy, or use "
        "another checkpoint of the run"
    )
