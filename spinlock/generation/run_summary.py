"""Summarizes a run for the file, and describes such a summary in words."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spinlock.generation.shard_task import ShardReport
from spinlock.runtime.stage_clock import StageClock
from spinlock.storage.reader import DatasetInfo


def summarize_run(
    reports: Sequence[ShardReport], seconds: float, num_samples: int
) -> dict[str, Any]:
    """Return the statistics of a run as plain values.

    Args:
        reports: Statistics of the shards that were computed.
        seconds: Wall-clock time in seconds, without assembly.
        num_samples: Number of samples in the dataset.

    Example:
        >>> report = ShardReport(8, 2.0, {"features": 1.5}, 1024, 0)
        >>> summarize_run([report], 4.0, 16)["samples_per_second"]
        2.0
    """
    clock = StageClock()
    for report in reports:
        clock.add(report.stage_seconds)
    computed = sum(report.samples for report in reports)
    return {
        "num_samples": num_samples,
        "computed_samples": computed,
        "seconds": seconds,
        "samples_per_second": computed / seconds if seconds > 0 else 0.0,
        "stage_seconds": clock.seconds,
        "peak_host_bytes": max((report.peak_host_bytes for report in reports), default=0),
        "peak_device_bytes": max((report.peak_device_bytes for report in reports), default=0),
    }


def describe_run(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return texts that describe a summary, by title. Missing numbers count as 0."""
    run: Mapping[str, Any] = defaultdict(float, summary)
    stages = summary.get("stage_seconds", {})
    total = sum(stages.values())
    shares = ", ".join(
        f"{name} {seconds / (total or 1.0):.0%}"
        for name, seconds in sorted(stages.items(), key=lambda item: -item[1])
    )
    times = "device and processor time" if run["peak_device_bytes"] else "processor time"
    return {
        "run": f"{run['computed_samples']:.0f} of {run['num_samples']:.0f} samples computed in "
        f"{run['seconds']:.1f} s ({run['samples_per_second']:.2f} samples/s), assembled in "
        f"{run['assembly_seconds']:.1f} s",
        times: f"{total:.1f} s ({shares or 'no samples computed'})",
        "fields": f"{run['field_bytes'] / 1e6:.1f} MB, stored in "
        f"{run['stored_field_bytes'] / 1e6:.1f} MB (ratio {run['compression_ratio']:.3f})",
        "peak memory": f"host {run['peak_host_bytes'] / 1e9:.2f} GB, device "
        f"{run['peak_device_bytes'] / 1e9:.2f} GB",
    }


def describe_origin(info: DatasetInfo) -> dict[str, str]:
    """Return texts that describe the last run of a dataset, its devices and packages, by title."""
    return describe_run(info.run_summary) | {
        "computed on": _records(info.provenance["device"]),
        "computed with": _records(info.provenance["package_versions"]),
    }


def _records(records: Iterable[dict[str, str]]) -> str:
    return "; ".join(", ".join(f"{k} {v}" for k, v in record.items()) for record in records)


def describe_design(quality: dict[str, float]) -> str:
    """Return the quality of a design as one line of text."""
    return (
        f"centered L2 discrepancy {quality['centered_l2_discrepancy']:.3g}, largest "
        f"|correlation| {quality['max_abs_correlation']:.3g}, smallest stratum "
        f"{quality['min_stratum_count']:.0f}, of pairs {quality['min_pair_stratum_count']:.0f}"
    )
