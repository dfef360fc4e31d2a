"""Records which samples of a file were computed by which device and packages.

The root attributes ``device`` and ``package_versions`` are lists of records. If there are several,
the entry ``samples`` of a record lists the samples that it describes, as in ``0..99, 200..299``. A
record with the entry ``part`` describes the computation of that part of the samples only.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

Record = Mapping[str, Any]
#: Records of a file, the samples that it holds, and those that are taken from it.
Source = tuple[Sequence[Record], range, range]

SAMPLES, PART = "samples", "part"
#: Attributes whose records describe samples.
ORIGINS = ("device", "package_versions")
# Attributes of HDF5 are limited to 64 KiB. More ranges are not listed, and then hold for no sample.
_MOST_RANGES = 1000


def records_of(records: Sequence[Record], sample: int) -> list[dict[str, Any]] | None:
    """Return the records that describe a sample.

    Args:
        records: Records of a file.
        sample: Index of the sample.

    Returns:
        The records without their samples; None if the file does not say which ones they are.

    Example:
        >>> records = [{"type": "cpu", "samples": "0..7"}, {"type": "cuda", "samples": "8..9"}]
        >>> records_of(records, 8)
        [{'type': 'cuda'}]
    """
    found = []
    for record, ranges in _ranges(records, range(sample + 1)):
        if ranges is None:
            return None
        if any(sample in each for each in ranges):
            found.append(_without_samples(record))
    return found or None


def merged_records(sources: Iterable[Source], num_samples: int) -> list[dict[str, Any]]:
    """Merge the records of several files whose samples are put into one file.

    Args:
        sources: Records of each file, the samples that the file holds, and those taken from it.
        num_samples: Number of samples of the new file.

    Returns:
        Distinct records. They list their samples unless there is one, which holds for all.

    Example:
        >>> files = [([{"type": "cpu"}], range(8), range(8)),
        ...          ([{"type": "cuda"}], range(8, 10), range(8, 10))]
        >>> merged_records(files, 10)
        [{'type': 'cpu', 'samples': '0..7'}, {'type': 'cuda', 'samples': '8..9'}]
    """
    found: dict[str, list[range] | None] = {}
    for records, held, taken in sources:
        for record, ranges in _ranges(records, held):
            key = json.dumps(_without_samples(record))
            known = found.setdefault(key, [])
            if ranges is None or known is None:
                found[key] = None
            else:
                known += (range(max(r.start, taken.start), min(r.stop, taken.stop)) for r in ranges)
    joined = {key: None if ranges is None else _joined(ranges) for key, ranges in found.items()}
    merged = {key: ranges for key, ranges in joined.items() if ranges is None or ranges}
    listed = sum(len(ranges or ()) for ranges in merged.values()) <= _MOST_RANGES
    everything = [range(num_samples)]
    parts = Counter(str(json.loads(key).get(PART)) for key in merged)
    result = []
    for key, ranges in merged.items():
        record = json.loads(key)
        alone = parts[str(record.get(PART))] == 1 and ranges == everything
        if listed and ranges is not None and not alone:
            record[SAMPLES] = ", ".join(f"{r.start}..{r.stop - 1}" for r in ranges)
        result.append(record)
    return result


def merged_provenance(
    found: Mapping[str, Sequence[Source]],
    num_samples: int,
    new: Mapping[str, str] = MappingProxyType({}),
    num_computed: int = 0,
) -> dict[str, str]:
    """Merge the provenance of several files, without duplicates, with that of new features.

    Args:
        found: Sources by name of the root attribute.
        num_samples: Number of samples of the new file.
        new: Root attributes that describe what computed new features; default: all features are
            copied.
        num_computed: Number of samples, from the first, whose features are new.

    Returns:
        Root attributes, JSON by name.
    """
    registries = [records for records, _, _ in found["features"]]
    if new:
        # The registry must describe only the features of the new file.
        registries = [json.loads(new["features"])]
    features: list[Record] = []
    for records in registries:
        features += [r for r in records if r not in features]
    merged: dict[str, Sequence[Record]] = {}
    for name in ORIGINS:
        merged[name] = merged_records(found[name], num_samples)
        if new:
            records = json.loads(new[name])
            merged[name] = with_features(merged[name], records, num_computed, num_samples)
    return {name: json.dumps(records) for name, records in {**merged, "features": features}.items()}


def with_features(
    records: Sequence[Record], features: Sequence[Record], num_computed: int, num_samples: int
) -> list[dict[str, Any]]:
    """Add records of what computed the features of the first samples of a file anew.

    Args:
        records: Records of the file.
        features: Records of the computation of the features; nothing is added if they are those
            of the whole file.
        num_computed: Number of samples with new features.
        num_samples: Number of samples of the file.
    """
    if list(records) == list(features):
        return list(map(dict, records))
    computed, everything = range(num_computed), range(num_samples)
    # Features that are computed again leave nothing of those before.
    rest = range(num_computed, num_samples)
    return merged_records(
        [
            ([r for r in records if r.get(PART) != "features"], everything, everything),
            ([r for r in records if r.get(PART) == "features"], everything, rest),
            ([{**r, PART: "features"} for r in features], computed, computed),
        ],
        num_samples,
    )


def _without_samples(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != SAMPLES}


def _ranges(records: Sequence[Record], held: range) -> list[tuple[Record, list[range] | None]]:
    """Return each record with its samples, None if the file does not list them."""
    parts = Counter(str(record.get(PART)) for record in records)
    return [
        (record, _parsed(record[SAMPLES]))
        if SAMPLES in record
        else (record, [held] if parts[str(record.get(PART))] == 1 else None)
        for record in records
    ]


def _parsed(text: object) -> list[range] | None:
    """Read ranges of samples; None if this is something else."""
    texts = text.split(", ") if isinstance(text, str) else [""]
    found = [re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", each) for each in texts]
    return [range(int(m[1]), int(m[2]) + 1) for m in found if m] if all(found) else None


def _joined(ranges: Iterable[range]) -> list[range]:
    """Sort ranges, leave out empty ones, and join those that touch."""
    joined: list[range] = []
    for each in sorted(filter(len, ranges), key=lambda r: r.start):
        if joined and each.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, each.stop))
        else:
            joined.append(each)
    return joined
