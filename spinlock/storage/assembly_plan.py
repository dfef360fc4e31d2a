"""Plans which files the samples of a dataset are copied from, and which are computed."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from spinlock.storage.shard_files import Shard


@dataclass(frozen=True)
class Segment:
    """Samples ``start`` to ``stop - 1`` of the dataset, copied from a file that holds them."""

    source: Shard
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """Segments of a dataset that can be copied, and ranges of samples that must be computed."""

    segments: list[Segment]
    gaps: list[range]


def plan_assembly(num_samples: int, sources: Iterable[Shard], kept: Iterable[Segment] = ()) -> Plan:
    """Cover the first ``num_samples`` samples, each once, and list the gaps.

    Args:
        num_samples: Number of samples in the dataset.
        sources: Files that hold samples, which may overlap.
        kept: Segments that are taken as they are, and do not overlap: samples of a dataset are
            never replaced by those of other files. Sources fill what lies between and after them.
            Default: none.

    Returns:
        The plan, with segments in order.
    """
    ordered = deque(sorted(sources, key=lambda source: (source.start, -source.stop)))
    segments: list[Segment] = []
    gaps, position = [], 0
    taken = sorted((s for s in kept if s.start < num_samples), key=lambda segment: segment.start)
    for fixed in (*taken, None):
        end = num_samples if fixed is None else fixed.start
        while ordered and ordered[0].stop <= position:
            ordered.popleft()
        for source in ordered:
            if source.start >= end:
                break
            stop = min(source.stop, end)
            if stop <= max(position, source.start):
                continue
            if source.start > position:
                gaps.append(range(position, source.start))
                position = source.start
            _append(segments, Segment(source, position, stop))
            position = stop
        if position < end:
            gaps.append(range(position, end))
        if fixed is not None:
            position = min(fixed.stop, num_samples)
            _append(segments, Segment(fixed.source, fixed.start, position))
    return Plan(segments, gaps)


def _append(segments: list[Segment], segment: Segment) -> None:
    """Append a segment, or extend the last one if it continues that."""
    if segments and (segments[-1].source, segments[-1].stop) == (segment.source, segment.start):
        segment = Segment(segment.source, segments.pop().start, segment.stop)
    segments.append(segment)
