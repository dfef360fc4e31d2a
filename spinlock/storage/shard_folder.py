"""The folder of the shards of an unfinished dataset: ``<path>.parts/<fingerprint>``."""

import re
from pathlib import Path

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError
from spinlock.storage.shards import list_shards

# Names of unfinished shards and datasets: nothing else is ever removed.
_TEMPORARY = re.compile(r".*\.[0-9a-f]{32}\.tmp")


def shard_folder(config: GenerationConfig, path: Path) -> Path:
    """The folder of a dataset's shards, which lies beside its file and may not exist yet.

    Raises:
        DatasetError: If it is a link, through which files elsewhere would be written and removed.
    """
    parts = path.with_name(f"{path.name}.parts")
    folder = parts / config.fingerprint[:16]
    for each in (parts, folder):
        if each.is_symlink():
            raise DatasetError(
                f"{each} is a link; shards are written to and removed from a folder beside the "
                "dataset only. Remove the link, or choose another path for the dataset"
            )
    return folder


def remove_shards(folder: Path, num_samples: int) -> bool:
    """Remove the shards of a finished dataset, and what interrupted runs left half-written.

    Args:
        folder: Folder of the shards.
        num_samples: Samples in the dataset. Shards of further samples stay: they were computed for
            a longer dataset.

    Returns:
        Whether anything is left, in this folder or in those of other configurations.
    """
    finished = [shard.path for shard in list_shards(folder) if shard.stop <= num_samples]
    unfinished = [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]
    for leftover in (*finished, *unfinished):
        leftover.unlink()
    for empty in (folder, folder.parent):
        if not any(empty.iterdir()):
            empty.rmdir()
    return folder.parent.exists()
