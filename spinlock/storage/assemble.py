"""Writes dataset files from files that hold some of their samples.

A dataset is written under a temporary name. Every sample is read back and compared with its digest
as soon as it is there, and the file is synced and renamed when it is complete: a file with the
dataset's name is complete. Samples may be added while later ones are computed.
"""

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.errors import DatasetError, DatasetNotFoundError
from spinlock.runtime.output_files import file_identity, keep_access, publish, sync
from spinlock.runtime.threads import abandon, shared_pool
from spinlock.simulation.sobol_design import design_quality, make_design
from spinlock.storage import schema
from spinlock.storage.assembly_plan import Segment
from spinlock.storage.copying import copy_additions, copy_samples
from spinlock.storage.dataset_file import DatasetFile
from spinlock.storage.digests import column_digest, combined_digest, require_seal, seal
from spinlock.storage.dimensions import dataset_scales, write_scales
from spinlock.storage.hdf5_access import open_hdf5, read_attribute
from spinlock.storage.hdf5_failures import NewFile
from spinlock.storage.layout import create_dataset
from spinlock.storage.open_shards import OpenShards
from spinlock.storage.origins import Source, merged_provenance
from spinlock.storage.reader import json_attribute
from spinlock.storage.shard_files import Shard
from spinlock.storage.shard_index import Piece, ShardIndex
from spinlock.storage.verify import require_fingerprint, require_range, wrong_samples
from spinlock.storage.virtual_datasets import write_virtual


class Assembly:
    """A dataset file that is being written; nothing is replaced before `finish`.

    Args:
        config: Configuration of the dataset.
        path: Path of the dataset file, which is created in one step.
        folder: Folder in which the file is written first, on the same file system; that of the
            shards for the layout ``virtual``.
        replaces: Whether the new file replaces the one at ``path``. What the user added to that
            file is kept. Default: False.
    """

    def __init__(
        self, config: GenerationConfig, path: Path, folder: Path, *, replaces: bool = False
    ) -> None:
        self.config, self.path, self._replaces = config, path, replaces
        self._found: dict[str, list[Source]] = defaultdict(list)
        self._stored_bytes = 0.0
        self._synced: list[Future[None]] = []
        self._old = file_identity(path) if replaces else None
        unique = uuid.uuid4().hex
        self._temporary = folder / f"{path.name}.{unique}.tmp"
        self._columns = folder / f"columns.{unique}.tmp"
        self.index: ShardIndex | None = None
        try:
            self._new = self._create(folder)
        except BaseException:
            self._remove()
            raise

    def _create(self, folder: Path) -> DatasetFile:
        everything, config = range(self.config.num_samples), self.config
        edition = 0
        if self._replaces:
            with DatasetFile.open(self.path) as old:
                edition = 0 if old.shards is None else old.shards.index.edition + 1
        if config.storage.layout == "single":
            return DatasetFile.create(self._temporary, config, everything, {})
        self.index = ShardIndex(folder, edition)
        columns = NewFile(self._columns)
        new = DatasetFile(
            NewFile(self._temporary),
            config,
            everything,
            OpenShards(self.index, config, DatasetFile.shard, columns),
        )
        new.file.attrs.update(new.identity)
        for spec in new.columns:
            create_dataset(columns, spec, everything, {})
        return new

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is not finished."""
        try:
            self._new.abandon()
        finally:
            self._remove()
            abandon(self._synced)

    def _remove(self) -> None:
        for temporary in (self._temporary, self._columns):
            temporary.unlink(missing_ok=True)

    def add(self, segment: Segment) -> None:
        """Add the next samples, and compare what was written with digests and design.

        Args:
            segment: Samples that follow those added before, and the file that holds them.

        Raises:
            DatasetError: If the source belongs to another dataset, or a sample differs from its
                digest or from the design. The message names the samples and the source.
        """
        own = segment.source.path == self.path
        with self._opened(segment.source, own=own) as source:
            require_fingerprint(source, self.config)
            source.validate()
            if not own:
                require_range(source)
            taken = range(segment.start, segment.stop)
            for name in schema.PROVENANCE:
                self._found[name].append((json_attribute(source, name), source.samples, taken))
            copy_samples(source, self._new, taken)
            if self.index is not None:
                self.index.append(_piece(segment, source))
                share = len(taken) / len(source.rows)
                self._stored_bytes += share * _stored_bytes(source)
        self._new.check_disk()
        self._require_sound(segment, own=own)
        if self.index is None and all(synced.done() for synced in self._synced):
            self._require_synced()
            # So that little is left to be synced when the file is complete.
            self._synced = [shared_pool("sync assembly", 1).submit(sync, self._temporary)]

    def _require_synced(self) -> None:
        for synced in self._synced:  # The system reports a lost write to one call only.
            synced.result()

    def _opened(self, source: Shard, *, own: bool) -> DatasetFile:
        """Open a source, which was there when the assembly began."""
        try:
            return DatasetFile.open(source.path, samples=source.samples)
        except DatasetNotFoundError as error:
            if own:
                raise
            raise DatasetError(
                f"{source.path} was removed while the dataset was assembled. No dataset was "
                "written or replaced. Run the same command again: it computes missing shards"
            ) from error

    def _require_sound(self, segment: Segment, *, own: bool) -> None:
        _, problem = wrong_samples(self._new, range(segment.start, segment.stop))
        if problem:
            whole = "Restore the file from a copy, or generate the dataset to another path"
            shard = "Run the same command again: damaged shards are computed again"
            raise DatasetError(
                f"{problem}, copied from {segment.source.path}: the file was changed or damaged "
                "since it was verified. No dataset was written or replaced. "
                + (whole if own else shard)
            )

    def finish(self, summary: dict[str, Any], start: float | None = None) -> None:
        """Complete the file when all samples were added, and move it to its path.

        Args:
            summary: Statistics of the run with ``design_quality``, which are stored in the file.
                This dictionary is changed in place: sizes and the time of assembly are added.
            start: Time, from `time.monotonic`, from which assembly counts; default: this call.

        Raises:
            DatasetError: If what was written cannot be read back, or the file to be replaced was
                changed since this assembly began.
            FileExistsError: If a file exists at the path that the new one does not replace.
        """
        start = time.monotonic() if start is None else start
        self._require_synced()
        if self.index is not None:
            self._finish_columns(self.index)
        new = self._new
        if self._replaces:
            self._require_unchanged()
            with DatasetFile.open(self.path) as old:
                copy_additions(old, new)
        new.file.attrs.update(merged_provenance(self._found, len(new.samples)))
        new.file.attrs["design_quality"] = json.dumps(summary["design_quality"])
        summary |= self._sizes()
        summary["assembly_seconds"] = time.monotonic() - start
        new.file.attrs["run_summary"] = json.dumps(summary)
        seal(new)
        new.close()
        with DatasetFile.open(self._temporary, beside=self.path) as written:
            written.validate()
            require_seal(written)
            for spec in written.columns:
                held = read_attribute(written.file[spec.name], schema.COLUMN_DIGEST)
                if column_digest(written, spec.name) != held:
                    raise DatasetError(
                        f"{spec.name} could not be written: it differs from its digest. No dataset "
                        "was written or replaced"
                    )
        if self._replaces:
            self._require_unchanged()
        publish(self._temporary, self.path, replace=self._replaces)

    def _require_unchanged(self) -> None:
        if file_identity(self.path) != self._old:
            raise DatasetError(
                f"{self.path}: the file was changed or removed while it was extended. It was left "
                "as it is. Restore the file from a copy, or generate the dataset to another path"
            )

    def _finish_columns(self, index: ShardIndex) -> None:
        """Complete the file of columns, and write the datasets that refer to it and to shards."""
        old, samples = self._new, self._new.samples
        assert old.shards is not None
        old.shards.columns.attrs.update(
            {
                "fingerprint": self.config.fingerprint,
                "digest": combined_digest(old.column(schema.DIGESTS)),
                schema.SAMPLES: [0, len(samples)],
            }
        )
        old.shards.close()
        if self._replaces:
            self._require_unchanged()
            for file in {self._columns, *map(index.path, index.pieces)} - held_files(self.path):
                # Another user may have computed a shard.
                with suppress(PermissionError):
                    keep_access(file, self.path)
        publish(self._columns, index.columns_path)
        columns = open_hdf5(index.columns_path)
        shards = OpenShards(index, self.config, DatasetFile.shard, columns)
        self._new = DatasetFile(old.file, self.config, samples, shards)
        for spec in old.specs.values():
            virtual = write_virtual(old.file, spec, index, len(samples))
            virtual.attrs.update(spec.attributes)
        write_scales(old.file, old.specs.values(), dataset_scales(self.config).values())
        index.write(old.file)

    def _sizes(self) -> dict[str, float]:
        """Return the size of the fields in bytes, uncompressed and stored, and their ratio."""
        new = self._new
        values = sum(new.file[spec.name].nbytes for spec in new.fields)
        stored = _stored_bytes(new) if self.index is None else self._stored_bytes
        return {
            "field_bytes": values,
            "stored_field_bytes": int(stored),
            "compression_ratio": stored / values if values else 1.0,
        }


def assemble(
    config: GenerationConfig,
    segments: Iterable[Segment],
    path: Path,
    folder: Path,
    summary: dict[str, Any],
) -> None:
    """Write a new dataset file from segments that cover it.

    Args:
        config: Configuration of the dataset.
        segments: Consecutive segments from sample 0 to ``config.num_samples``.
        path: Path of the dataset file.
        folder: Folder in which the file is written first, see `Assembly`.
        summary: Statistics of the run, see `Assembly.finish`; the quality of the design is added.
    """
    with Assembly(config, path, folder) as assembly:
        for segment in segments:
            assembly.add(segment)
        assembly.finish(summary | {"design_quality": measured_design(config)})


def measured_design(config: GenerationConfig) -> dict[str, float]:
    """Return the quality of the design of a dataset, with one point for each operator."""
    return design_quality(make_design(config).params[:: config.probes_per_operator])


def held_files(path: Path) -> set[Path]:
    """Return the files that a dataset file refers to."""
    with DatasetFile.open(path) as dataset:
        return set() if dataset.shards is None else dataset.shards.index.files


def _piece(segment: Segment, source: DatasetFile) -> Piece:
    shard = segment.source
    size, digest = shard.path.stat().st_size, source.text("digest")
    return Piece(shard.start, shard.stop, segment.start, segment.stop, shard.edition, size, digest)


def _stored_bytes(dataset: DatasetFile) -> int:
    return sum(dataset.file[spec.name].id.get_storage_size() for spec in dataset.fields)
