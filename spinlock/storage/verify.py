"""Verifies dataset files and shards against their digests and the design of their configuration."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError, in_a_line
from spinlock.runtime.ordered_map import row_blocks
from spinlock.simulation.sobol_design import make_design
from spinlock.storage import schema
from spinlock.storage.columns import metadata_columns
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import combined_digest, computed_digests, require_seal
from spinlock.storage.hdf5_access import read_attribute, refusal
from spinlock.storage.hdf5_failures import naming_damage
from spinlock.storage.layout import dataset_problems
from spinlock.storage.shard_files import Shard

# Columns that follow from the design exactly, on any machine: they identify the samples.
_IDENTIFYING = (schema.PARAMS, schema.OPERATOR_INDEX, schema.IC_TYPES, schema.IC_FAMILIES)
# Largest number of samples that a message lists.
_MOST_NAMED = 8


def verify_shard(shard: Shard, config: GenerationConfig) -> None:
    """Read a whole shard and check it against its digests and the samples that it must hold.

    Raises:
        DatasetError: If the shard is damaged, incomplete, of another dataset or of other samples.
        OSError: If the system refuses to read it, which is no evidence of damage.
        MemoryError: If memory does not suffice to read it.
    """
    try:
        with DatasetFile.open(shard.path, samples=shard.samples) as dataset:
            require_fingerprint(dataset, config)
            require_range(dataset)
            dataset.validate()
            for name in schema.PROVENANCE:
                json.loads(dataset.text(name))
            same = combined_digest(dataset.column(schema.DIGESTS)) == dataset.text("digest")
            _, problem = wrong_samples(dataset)
    except Exception as error:
        if (cause := refusal(error)) is not None:
            raise cause from None
        if isinstance(error, DatasetError):
            raise
        # A damaged byte can make HDF5, the decompressor or a parser fail in any way.
        raise DatasetError(f"{shard.path} is damaged: {in_a_line(error)}") from error
    if problem or not same:
        raise DatasetError(f"{shard.path} is damaged: {problem or 'its digest does not match'}")


def require_fingerprint(dataset: DatasetFile, config: GenerationConfig) -> None:
    """Check that a file belongs to the dataset of a configuration.

    Raises:
        DatasetError: If it does not.
    """
    if dataset.config.fingerprint != config.fingerprint:
        raise DatasetError(f"{dataset.path} belongs to another dataset")


def require_range(dataset: DatasetFile) -> None:
    """Check that the attribute of a shard names the same samples as its file name.

    Raises:
        DatasetError: If it does not.
    """
    held = np.asarray(read_attribute(dataset.file, schema.SAMPLES)).tolist()
    expected = [dataset.samples.start, dataset.samples.stop]
    if held != expected:
        raise DatasetError(
            f"{dataset.path}: the attribute {schema.SAMPLES} is {held}, but the name of the file "
            f"stands for {expected}"
        )


def require_intact(path: Path, remedy: str) -> None:
    """Read a whole dataset file and check it, before another file is written from it.

    Args:
        path: Dataset file.
        remedy: Advice in case of damage, as a sentence.

    Raises:
        DatasetError: If the file does not agree with its digests or its design. Names the samples.
    """
    with DatasetFile.open(path) as dataset:
        dataset.validate()
        require_seal(dataset)
        _, problem = wrong_samples(dataset)
        if not problem and (wrong := wrong_copies(dataset)):
            problem = f"{wrong[0]} differs from {path.name}"
    if problem:
        raise DatasetError(
            f"{path}: {problem}: the file was changed or damaged after it was written. It was left "
            f"as it is. {remedy}"
        )


def wrong_copies(dataset: DatasetFile) -> list[str]:
    """Return which copies of columns, in the shards of a virtual dataset, differ from its columns.

    A dataset that is extended takes its columns from the shards. Each copy is named by the path of
    the shard and the name of the column.
    """
    wrong: list[str] = []
    for piece in () if dataset.shards is None else dataset.shards.index.pieces:
        assert dataset.shards is not None
        shard, rows = dataset.shards.file(piece), range(piece.first, piece.last)
        held = range(piece.first - piece.start, piece.last - piece.start)
        problems = dataset_problems(shard.file, shard.columns, shard.samples)
        for name in (spec.name for spec in shard.columns):
            same = False
            if name not in problems:
                with naming_damage(shard.file):
                    copy = shard.column(name, held)
                same = copy.tobytes() == dataset.column(name, rows).tobytes()
            if not same:
                wrong.append(f"{name} in the shard {shard.path}")
    return wrong


def wrong_samples(dataset: DatasetFile, rows: range | None = None) -> tuple[list[int], str]:
    """Compare samples with their digests, and then with the design.

    Args:
        dataset: Dataset file or shard.
        rows: Rows of the samples; default: all.

    Returns:
        Samples that differ, and a clause that names them; both empty if none does.
    """
    if wrong := damaged_samples(dataset, rows):
        return wrong, f"{name_samples(wrong)} differ from their digests"
    if wrong := foreign_samples(dataset, rows):
        return wrong, f"{name_samples(wrong)} differ from the design of the configuration"
    return [], ""


def damaged_samples(dataset: DatasetFile, rows: range | None = None) -> list[int]:
    """Return the samples whose content differs from their digest or cannot be read."""
    wrong: list[int] = []
    for part in row_blocks(dataset.rows if rows is None else rows):
        differs = computed_digests(dataset, part) != dataset.column(schema.DIGESTS, part)
        wrong += (np.flatnonzero(differs) + dataset.samples.start + part.start).tolist()
    return wrong


def foreign_samples(dataset: DatasetFile, rows: range | None = None) -> list[int]:
    """Return the samples whose columns differ from the design."""
    rows = dataset.rows if rows is None else rows
    samples = dataset.samples[rows.start : rows.stop]
    design = make_design(dataset.config, samples.start, samples.stop)
    expected = metadata_columns(dataset.config, design)
    differs = np.zeros(len(samples), dtype=bool)
    for name in _IDENTIFYING:
        unequal = dataset.column(name, rows) != expected[name]
        differs |= unequal.reshape(len(differs), -1).any(axis=1)
    return (np.flatnonzero(differs) + samples.start).tolist()


def name_samples(samples: Sequence[int]) -> str:
    """Return samples as the subject of a plural sentence; at most a few of them by number."""
    shown = ", ".join(map(str, samples[:_MOST_NAMED]))
    more = len(samples) - _MOST_NAMED
    return f"samples {shown}" + (f" and {more} more" if more > 0 else "")
