"""Summary of a run, which is printed at its end and stored in the file."""

from collections.abc import Sequence
from typing import Any

from spinlock.generation.shard_task import ShardReport
from spinlock.runtime.stage_clock import StageClock


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


def describe_run(summary: dict[str, Any]) -> str:
    """Return a summary as lines of text."""
    stages = summary["stage_seconds"]
    total = sum(stages.values()) or 1.0
    quality = summary["design_quality"]
    shares = ", ".join(
        f"{name} {seconds / total:.0%}"
        for name, seconds in sorted(stages.items(), key=lambda item: -item[1])
    )
    lines = [
        f"{summary['computed_samples']} of {summary['num_samples']} samples computed in "
        f"{summary['seconds']:.1f} s ({summary['samples_per_second']:.2f} samples/s), assembled in "
        f"{summary['assembly_seconds']:.1f} s",
        f"processor time: {total:.1f} s ({shares})",
        f"fields: {summary['field_bytes'] / 1e6:.1f} MB, stored in "
        f"{summary['stored_field_bytes'] / 1e6:.1f} MB (ratio "
        f"{summary['compression_ratio']:.2f})",
        f"peak memory: host {summary['peak_host_bytes'] / 1e9:.2f} GB, device "
        f"{summary['peak_device_bytes'] / 1e9:.2f} GB",
        describe_design(quality),
    ]
    return "\n".join(lines)


def describe_design(quality: dict[str, float]) -> str:
    """Return the quality of a design as one line of text."""
    return (
        f"design: centered L2 discrepancy {quality['centered_l2_discrepancy']:.3g}, largest "
        f"|correlation| {quality['max_abs_correlation']:.3g}, smallest stratum "
        f"{quality['min_stratum_count']:.0f}, of pairs {quality['min_pair_stratum_count']:.0f}"
    )
