"""Finds the samples of a dataset that exist, and the shards that are to be computed."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import torch

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError, in_a_line
from spinlock.generation.shard_task import ShardTask
from spinlock.storage.assembly_plan import Plan, Segment, plan_assembly
from spinlock.storage.copying import require_copyable
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.reader import require_dataset
from spinlock.storage.shard_files import list_shards, rewritten_shards, shard_folder
from spinlock.storage.verify import verify_shard

# Samples of a large shard, and number of parts into which the last one is cut.
_LARGE, _LAST_PARTS = 1024, 8
_LOG = logging.getLogger(__name__)


def held_samples(config: GenerationConfig, path: Path) -> tuple[int, GenerationConfig]:
    """Return the number of samples of this dataset in the file, and the configuration to use.

    Without a file they are 0 and the given configuration. A dataset keeps its layout.

    Raises:
        DatasetError: If the file is another dataset, or is missing where its shards were rewritten.
    """
    if not path.exists():
        _require_no_rewritten_shards(config, path)
        return 0, config
    held = require_dataset(path, config).config
    storage = replace(config.storage, layout=held.storage.layout)
    return held.num_samples, replace(config, storage=storage)


def _require_no_rewritten_shards(config: GenerationConfig, path: Path) -> None:
    """Refuse to remove shards that this run could not compute again."""
    folder = shard_folder(config, path)
    if names := [shard.name for shard in rewritten_shards(folder)]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise DatasetError(
            f"{path} does not exist, but {folder} holds shards with replaced features that belong "
            f"to it: {names[0]}{more}. Move the file back, or move {folder.parent} to where the "
            "file is. To generate the dataset anew, remove that folder or choose another path"
        )


def find_sources(config: GenerationConfig, path: Path, held: int) -> Plan:
    """Find the samples that exist, in the file and in intact shards, and those that are missing.

    Samples of the file are taken from it, also where a shard beside it holds them.

    A damaged shard stays until a new one replaces it, or until the dataset is complete. A shard
    that cannot be read at present stops the run, because it may be intact.
    """
    kept: list[Segment] = []
    if held:
        with DatasetFile.open(path) as dataset:
            require_copyable(dataset, config)
            kept = dataset.held_segments()
    folder = shard_folder(config, path)
    folder.mkdir(parents=True, exist_ok=True)
    # Shards of a virtual dataset may hold samples after the last one of the dataset.
    sources = [segment.source for segment in kept]
    held_names = {source.path.name for source in sources}
    for shard in list_shards(folder):
        if shard.path.name in held_names:
            # It was verified with the file.
            continue
        try:
            verify_shard(shard, config)
            sources.append(shard)
        except DatasetError as error:
            _LOG.warning("computing samples %d..%d again: %s", shard.start, shard.stop - 1, error)
        except (OSError, MemoryError) as error:
            raise DatasetError(
                f"cannot read {shard.path}: {reason(error)}. The shard may be intact and was left "
                "unchanged; run the command again when it can be read, or remove it"
            ) from error
    return plan_assembly(config.num_samples, sources, kept)


def missing_shards(
    config: GenerationConfig,
    path: Path,
    plan: Plan,
    device: str | torch.device | None,
    size: int,
) -> list[ShardTask]:
    """Return the tasks that fill the gaps of a plan, cut at multiples of the shard size.

    The last samples, as many as a large shard has, come in smaller shards: what remains to be
    assembled after the last sample is then a fraction of a large shard.
    """
    folder = shard_folder(config, path)
    last = max((gap.stop for gap in plan.gaps), default=0) - size
    large = config.storage.shard_size is None and size >= _LARGE
    parts = _LAST_PARTS if large else 1
    small = max(size // (parts * config.block_size), 1) * config.block_size
    where = None if device is None else str(device)
    tasks = []
    for gap in plan.gaps:
        start = gap.start
        while start < gap.stop:
            step = size if start < last else small
            stop = min((start // step + 1) * step, gap.stop)
            tasks.append(ShardTask(config, folder, start, stop, where))
            start = stop
    return tasks


def reason(error: OSError | MemoryError) -> str:
    """Describe an error of the system, whose message is shorter than the one of HDF5."""
    if isinstance(error, MemoryError):
        return "out of memory"
    return os.strerror(error.errno) if error.errno else in_a_line(error)
