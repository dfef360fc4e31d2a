"""Assembles a dataset in the background, while its later samples are computed."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Any, Self

from spinlock.configuration.generation_config import GenerationConfig
from spinlock.runtime.threads import abandon, shared_pool
from spinlock.storage.assemble import Assembly, measured_design
from spinlock.storage.assembly_plan import Segment
from spinlock.storage.shard_files import Shard


class IncrementalAssembly:
    """A dataset file that a thread writes as its sources become available.

    The file appears at its path only in `finish`. Until then the shards are complete, so a run that
    is killed loses nothing. If the thread fails, its file is removed, the shards can still be
    computed, and `finish` raises the error.

    Args:
        config: Configuration of the dataset.
        path: Path of the dataset file.
        folder: Folder in which the file is written first.
        segments: Consecutive segments that cover the dataset.
        available: Files that exist already. `add` names others as they are finished.
        replaces: Whether the new file replaces the one at ``path``.
    """

    def __init__(
        self,
        config: GenerationConfig,
        path: Path,
        folder: Path,
        segments: Sequence[Segment],
        available: Iterable[Path],
        *,
        replaces: bool,
    ) -> None:
        self._arguments = config, path, folder
        self._segments, self._replaces = segments, replaces
        self._available, self._stopped = set(available), False
        self._changed = Condition()
        self._quality = shared_pool("design", 1).submit(measured_design, config)
        self._written: Future[Assembly | None] = shared_pool("assemble", 1).submit(self._write)

    def add(self, shard: Shard) -> None:
        """Announce a finished shard."""
        with self._changed:
            self._available.add(shard.path)
            self._changed.notify_all()

    def finish(self, summary: dict[str, Any]) -> set[Path]:
        """Complete the file when all shards are finished.

        Args:
            summary: Statistics of the run. This dictionary is changed in place, as by
                `spinlock.storage.assemble.Assembly.finish`; the quality of the design is added,
                and the time of this call as ``assembly_seconds``.

        Returns:
            Files that the dataset refers to; none if it holds everything.
        """
        start = time.monotonic()
        with self._changed:
            self._available |= {segment.source.path for segment in self._segments}
            self._changed.notify_all()
        assembly = self._written.result()
        assert assembly is not None
        summary["design_quality"] = self._quality.result()
        assembly.finish(summary, start)
        return set() if assembly.index is None else assembly.index.files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        abandon((self._quality, self._written))
        if self._written.done() and not self._written.cancelled():
            assembly = None if self._written.exception() else self._written.result()
            if assembly is not None:
                assembly.close()

    def _write(self) -> Assembly | None:
        """Write all segments; None if that was given up."""
        assembly = Assembly(*self._arguments, replaces=self._replaces)
        try:
            for segment in self._segments:
                if not self._wait(segment.source.path):
                    assembly.close()
                    return None
                assembly.add(segment)
        except BaseException:
            assembly.close()
            raise
        return assembly

    def _wait(self, path: Path) -> bool:
        """Wait for a file, and return whether it is still needed."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or path in self._available)
            return not self._stopped
