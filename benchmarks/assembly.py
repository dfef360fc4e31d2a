"""Measures the speed of assembly, and the time from the last sample to the finished file.

    python -m benchmarks.assembly [--samples 512] [--shard-size 128] [--layout single]

Shards of the baseline with artificial fields are added to a dataset as a run does it in the
background. What remains after the last sample is to finish the last shard, to add it and to
complete the file; the quality of the design is measured meanwhile.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from benchmarks.machine import describe
from benchmarks.synthetic import synthetic_samples
from spinlock.configuration.file_content import StorageConfig
from spinlock.configuration.generation_config import GenerationConfig
from spinlock.runtime.output_files import publish
from spinlock.simulation.provenance import provenance
from spinlock.storage.assemble import Assembly, measured_design
from spinlock.storage.assembly_plan import Segment
from spinlock.storage.shard_files import Shard, shard_folder, shard_path
from spinlock.storage.shards import write_shard


def write_shards(config: GenerationConfig, folder: Path, size: int) -> tuple[list[Shard], float]:
    """Write all shards, and return them with the seconds that the last one took to be synced."""
    samples, origin = synthetic_samples(config), provenance(config, torch.device("cpu"))
    shards, seconds = [], 0.0

    def finish(temporary: Path, path: Path) -> None:
        nonlocal seconds
        start = time.perf_counter()
        publish(temporary, path)
        seconds = time.perf_counter() - start

    for start in range(0, config.num_samples, size):
        stop = min(start + size, config.num_samples)
        blocks = islice(samples, -(-(stop - start) // config.block_size))
        shard = Shard(shard_path(folder, start, stop), start, stop)
        write_shard(shard.path, config, start, stop, blocks, origin, finish=finish)
        shards.append(shard)
    return shards, seconds


def main(args: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--shard-size", type=int, default=128)
    parser.add_argument("--layout", choices=("single", "virtual"), default="single")
    parser.add_argument("--folder", type=Path, help="folder on the disk to measure")
    options = parser.parse_args(args)
    config = GenerationConfig(options.samples)
    config = replace(config, storage=StorageConfig(layout=options.layout))
    print(describe(torch.device("cpu")))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = Path(name) / "data.h5"
        folder = shard_folder(config, path)
        folder.mkdir(parents=True)
        shards, synced = write_shards(config, folder, options.shard_size)
        sizes = [shard.path.stat().st_size / 1e9 for shard in shards]
        segments = [Segment(shard, shard.start, shard.stop) for shard in shards]
        # As in a run, the quality of the design is ready before the last sample.
        summary = {"design_quality": measured_design(config)}
        with Assembly(config, path, folder) as assembly:
            start, busy = time.perf_counter(), time.process_time()
            for segment in segments[:-1]:
                assembly.add(segment)
            seconds, busy = time.perf_counter() - start, time.process_time() - busy
            os.sync()
            start = time.perf_counter()
            assembly.add(segments[-1])
            added = time.perf_counter() - start
            assembly.finish(summary)
            finished = time.perf_counter() - start - added
    print(f"{options.layout}: {len(shards)} shards of {options.shard_size}, {sum(sizes):.2f} GB")
    rest = sum(sizes[:-1])
    print(f"in the background: {seconds / rest:.2f} s/GB elapsed, {busy / rest:.2f} s/GB of a core")
    print(
        f"after the last sample ({sizes[-1]:.3f} GB in the last shard): {synced:.2f} s to sync it, "
        f"{added:.2f} s to add and verify it, {finished:.2f} s to complete the file"
    )


if __name__ == "__main__":
    main()
