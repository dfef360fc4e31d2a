"""Plans which files the samples of a dataset are copied from, and which are computed."""

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


def plan_assembly(num_samples: int, sources: Iterable[Shard]) -> Plan:
    """Cover the first ``num_samples`` samples with sources, each sample once, and list the gaps."""
    ordered = sorted(sources, key=lambda source: (source.start, -source.stop))
    segments, gaps, position = [], [], 0
    for source in ordered:
        stop = min(source.stop, num_samples)
        if stop <= max(position, source.start):
            continue
        if source.start > position:
            gaps.append(range(position, source.start))
            position = source.start
        segments.append(Segment(source, position, stop))
        position = stop
    if position < num_samples:
        gaps.append(range(position, num_samples))
    return Plan(segments, gaps)
