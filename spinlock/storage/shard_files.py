"""Names, lists and removes shards: files that hold a range of samples each.

Shards lie in a folder beside the dataset. A file of the layout ``single`` is assembled from them,
and they are removed. A file of the layout ``virtual`` refers to them, and they are kept.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError

_NAME = re.compile(r"shard-(\d{10})-(\d{10})\.h5")
# Names of unfinished shards and datasets, which alone are removed besides finished shards.
_TEMPORARY = re.compile(r".*\.[0-9a-f]{32}\.tmp")
# Names of the other files that a virtual dataset is made of.
_OF_EDITIONS = re.compile(r"(columns|shard-\d{10}-\d{10})-\d{10}\.h5")
#: Suffix of the folder of shards by layout. The one whose shards are kept has a name of its own, so
#: that nobody takes the data of a dataset for leftovers.
FOLDER_SUFFIX = {"single": ".parts", "virtual": ".shards"}


@dataclass(frozen=True)
class Shard:
    """A file that holds the samples ``start .. stop``.

    Args:
        path: Path of the file.
        start: First sample.
        stop: Last sample plus one.
        edition: Edition of a virtual dataset that rewrote the shard; default: 0, none.
    """

    path: Path
    start: int
    stop: int
    edition: int = 0

    @property
    def samples(self) -> range:
        """The samples that the file holds."""
        return range(self.start, self.stop)


def shard_folder(config: GenerationConfig, path: Path) -> Path:
    """Return the folder of a dataset's shards, which lies beside its file and may not exist yet.

    Raises:
        DatasetError: If the folder is a link, which would lead writing and removal elsewhere.
    """
    parts = path.with_name(f"{path.name}{FOLDER_SUFFIX[config.storage.layout]}")
    folder = parts / config.fingerprint[:16]
    for each in (parts, folder):
        if each.is_symlink():
            raise DatasetError(
                f"{each} is a link; shards are written to, read and removed from a folder beside "
                "the dataset only. Remove the link, or choose another path for the dataset"
            )
    return folder


def shard_path(folder: Path, start: int, stop: int, edition: int = 0) -> Path:
    """Return the path of the shard of samples ``start .. stop``.

    Args:
        folder: Folder of the shards.
        start: First sample.
        stop: Last sample plus one.
        edition: Number of the edition of a virtual dataset that rewrote the shard; default: 0, a
            shard as it was computed.
    """
    return folder / shard_name(start, stop, edition)


def shard_name(start: int, stop: int, edition: int = 0) -> str:
    """Return the name of a shard; the arguments are those of `shard_path`."""
    rewritten = f"-{edition:010d}" if edition else ""
    return f"shard-{start:010d}-{stop:010d}{rewritten}.h5"


def columns_path(folder: Path, edition: int) -> Path:
    """Return the path of the file with the columns of an edition of a virtual dataset."""
    return folder / f"columns-{edition:010d}.h5"


def list_shards(folder: Path) -> list[Shard]:
    """Return the shards in a folder, by first sample; other files are ignored."""
    found = []
    for path in sorted(folder.glob("shard-*.h5")):
        if match := _NAME.fullmatch(path.name):
            found.append(Shard(path, int(match[1]), int(match[2])))
    return found


def rewritten_shards(folder: Path) -> list[Path]:
    """Return the shards in a folder that belong to an edition of a virtual dataset."""
    return sorted(path for path in folder.glob("shard-*.h5") if _OF_EDITIONS.fullmatch(path.name))


def remove_shards(folder: Path, num_samples: int, kept: Collection[Path] = ()) -> bool:
    """Remove the shards of a finished dataset and the temporary files of interrupted runs.

    Args:
        folder: Folder of the shards.
        num_samples: Number of samples in the dataset. Shards of further samples are kept: they
            were computed for a longer dataset.
        kept: Files that the dataset refers to; default: none.

    Returns:
        Whether anything is left besides ``kept``, in this folder or in those of other
        configurations.
    """
    # Paths may name one folder in several ways.
    kept = {Path(os.path.realpath(path.parent), path.name) for path in kept}
    folder = folder.resolve()
    if not folder.exists():
        return folder.parent.exists() and any(folder.parent.iterdir())
    finished = [shard.path for shard in list_shards(folder) if shard.stop <= num_samples]
    others = [
        path
        for path in folder.iterdir()
        if _TEMPORARY.fullmatch(path.name) or _OF_EDITIONS.fullmatch(path.name)
    ]
    for leftover in {*finished, *others}.difference(kept):
        leftover.unlink()
    left = {*folder.iterdir()}.difference(kept) | {*folder.parent.iterdir()}.difference({folder})
    for empty in (folder, folder.parent):
        if not any(empty.iterdir()):
            empty.rmdir()
    return bool(left)
